"""Training images with named objects: an index file and images that are decoded on access."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Image

T = TypeVar("T")
_ASSEMBLE = "docs/train.md says how to assemble the training images."

# Class names in the index that do not name one object in English.
_NAMES = {
    "airplanes": "airplane", "bear plushie": "teddy bear", "car side": "car", "cellphone": "cell phone",
    "colorful sneaker": "sneaker", "cougar body": "cougar", "faces": "face", "fancy boot": "boot",
    "gray sloth plushie": "sloth plushie", "inline skate": "roller skate", "leopards": "leopard",
    "motorbikes": "motorcycle", "pink sunglasses": "sunglasses", "rc car": "toy car",
    "red cartoon": "cartoon figure", "shiny sneaker": "sneaker", "water lilly": "water lily",
    "backpack dog": "backpack",
}  # fmt: skip


class ByteCache(Generic[T]):
    """Cache of at most ``limit`` bytes, or one value; the least recently used values are dropped."""

    def __init__(self, limit: int) -> None:
        self.size, self._limit = 0, limit
        self._values: OrderedDict[int, tuple[T, int]] = OrderedDict()

    def get(self, key: int) -> T | None:
        """Return the value of ``key`` if it is cached."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: int, value: T, size: int) -> T:
        """Cache and return a value of ``size`` bytes."""
        self._values[key] = value, size
        self.size += size
        while self.size > self._limit and len(self._values) > 1:
            self.size -= self._values.popitem(last=False)[1][1]
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedObject:
    """One named object of an image.

    Attributes:
        name: English noun in the singular.
        box: x, y, w, h in pixels of the image.
        polygon: (N, 2) float32 outline in pixels (even-odd; several parts may be joined by doubled lines), or None.
    """

    name: str
    box: tuple[float, float, float, float]
    polygon: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedImage:
    """One image of the index.

    Attributes:
        file: path relative to the root.
        width, height: size in pixels.
        instances: its annotated objects.
        main_object: name of the one main object of an image without boxes, else None.
    """

    file: str
    width: int
    height: int
    instances: tuple[AnnotatedObject, ...]
    main_object: str | None


def held_out(key: str, percent: int = 5) -> bool:
    """Return whether ``key`` belongs to the validation share, which depends on its hash only."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100 < percent


def plain_name(name: str) -> str:
    """Return a class name of the index as an English noun: ``dog`` for ``dog6``, ``face`` for ``faces``."""
    bare = name.rstrip("0123456789").strip().replace("_", " ")
    return _NAMES.get(bare.replace("grey", "gray"), bare)


class ImageSet:
    """All images of one index; decoded images are cached."""

    def __init__(self, root: Path, entries: tuple[IndexedImage, ...]) -> None:
        self.root = root
        self.entries = entries
        self._cache: ByteCache[Image] = ByteCache(1_200_000_000)

    @classmethod
    def load(cls, root: Path) -> ImageSet:
        """Read ``root/index.jsonl``; no image is decoded yet.

        Raises:
            DataError: a missing index, a line that does not parse, or a listed file that is missing.
        """
        index = root / "index.jsonl"
        try:
            lines = index.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"Cannot read the image index {index}: {error}.", hint=_ASSEMBLE) from error
        entries = tuple(_parse(line, f"{index}:{number}") for number, line in enumerate(lines, 1) if line.strip())
        if not entries:
            raise DataError(f"No images listed in {index}.", hint=_ASSEMBLE)
        missing = [entry.file for entry in entries if not (root / entry.file).is_file()]
        if missing:
            said = f"{len(missing)} of {len(entries)} images of {index} are missing, such as {missing[0]!r}."
            raise DataError(said, hint=_ASSEMBLE)
        return cls(root, entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[IndexedImage]:
        return iter(self.entries)

    def __getitem__(self, index: int) -> IndexedImage:
        return self.entries[index]

    def image(self, index: int) -> Image:
        """Return image ``index`` as RGB uint8 (H, W, 3); do not write into it. Raises ``DataError``."""
        found = self._cache.get(index)
        if found is not None:
            return found
        entry = self.entries[index]
        path = self.root / entry.file
        image = read_rgb(path)
        if image.shape[:2] != (entry.height, entry.width):
            said = f"{path} is {image.shape[1]}x{image.shape[0]}, the index says {entry.width}x{entry.height}."
            raise DataError(said, hint="Assemble the training images again.")
        return self._cache.put(index, image, image.nbytes)


def read_rgb(path: Path) -> Image:
    """Decode an image file to RGB uint8 (H, W, 3), rotation tags ignored. Raises ``DataError``."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error}.", hint="Check the data folder.") from error
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(data, flags) if data.size else None
    if decoded is None:
        raise DataError(f"Image cannot be decoded: {path}.", hint="Copy the file again.")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _parse(line: str, where: str) -> IndexedImage:
    try:
        row: dict[str, Any] = json.loads(line)
        marked = [(entry, np.asarray(entry["p"], dtype=np.float32)) for entry in row.get("inst") or ()]
        instances = [_annotation(entry, outline) for entry, outline in marked]
        instances += [_annotation(entry, None) for entry in row.get("box") or ()]
        main_object = row.get("whole")
        return IndexedImage(
            file=str(row["f"]),
            width=int(row["w"]),
            height=int(row["h"]),
            instances=tuple(instances),
            main_object=None if main_object is None else plain_name(str(main_object)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"Invalid image entry at {where}: {error}.", hint="See docs/train.md.") from error


def _annotation(entry: dict[str, Any], outline: NDArray[np.float32] | None) -> AnnotatedObject:
    x, y, w, h = (float(v) for v in entry["b"])
    if not np.isfinite([x, y, w, h]).all() or w <= 0 or h <= 0:
        raise ValueError(f"box {entry['b']}")
    polygon = None if outline is None or outline.size < 6 else outline.reshape(-1, 2)
    return AnnotatedObject(name=plain_name(str(entry["c"])), box=(x, y, w, h), polygon=polygon)

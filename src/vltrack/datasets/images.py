"""Still pictures with named objects: an index file and lazily decoded images. Knows no video and no model."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Image

# Names in the index that are no good English for one object.
_NAMES = {
    "airplanes": "airplane",
    "bear plushie": "teddy bear",
    "car side": "car",
    "cellphone": "cell phone",
    "colorful sneaker": "sneaker",
    "cougar body": "cougar",
    "cougar face": "cougar face",
    "faces": "face",
    "fancy boot": "boot",
    "grey sloth plushie": "sloth plushie",
    "inline skate": "roller skate",
    "leopards": "leopard",
    "motorbikes": "motorcycle",
    "pink sunglasses": "sunglasses",
    "rc car": "toy car",
    "red cartoon": "cartoon figure",
    "shiny sneaker": "sneaker",
    "water lilly": "water lily",
    "backpack dog": "backpack",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedObject:
    """One named object of a picture.

    Attributes:
        name: English noun in the singular.
        box: x, y, w, h in pixels of the picture.
        polygon: (N, 2) float32 outline in pixels (even-odd; several parts may be joined by doubled lines), or
            None.
    """

    name: str
    box: tuple[float, float, float, float]
    polygon: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedImage:
    """One picture of the index: ``file`` relative to the root, size in pixels, objects, ``main_object`` = name of
    the single main object where no box is known."""

    file: str
    width: int
    height: int
    instances: tuple[AnnotatedObject, ...]
    main_object: str | None
    source: str
    license: str


def held_out(key: str, percent: int = 5) -> bool:
    """Whether ``key`` belongs to the validation share: decided by its hash, so it never depends on an
    order."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100 < percent


def plain_name(name: str) -> str:
    """An index class name as an English noun: ``dog6`` -> ``dog``, ``airplanes`` -> ``airplane``."""
    bare = name.rstrip("0123456789").strip().replace("_", " ")
    return _NAMES.get(bare, bare)


class ImageSet:
    """All pictures of one index. Decoded images are kept up to ``cache_bytes``, least recently used dropped
    first."""

    def __init__(
        self, root: Path, pictures: tuple[IndexedImage, ...], cache_bytes: int = 1_200_000_000
    ) -> None:
        self.root = root
        self.pictures = pictures
        self._budget = cache_bytes
        self._held = 0
        self._cache: OrderedDict[int, Image] = OrderedDict()

    @classmethod
    def load(cls, root: Path, cache_bytes: int = 1_200_000_000) -> ImageSet:
        """Read ``root/index.jsonl``; no picture is decoded yet.

        Raises:
            DataError: no index there, a line that does not parse, or a listed file that is missing.
        """
        index = root / "index.jsonl"
        hint = "docs/train.md says how to assemble the training pictures."
        try:
            lines = index.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"no readable picture index at {index}: {error}.", hint=hint) from error
        pictures = tuple(
            _parse(line, f"{index}:{number}") for number, line in enumerate(lines, 1) if line.strip()
        )
        if not pictures:
            raise DataError(f"{index} lists no picture.", hint=hint)
        missing = [p.file for p in pictures if not (root / p.file).is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(pictures)} pictures of {index} are missing, first {missing[0]}.",
                hint=hint,
            )
        return cls(root, pictures, cache_bytes)

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[IndexedImage]:
        return iter(self.pictures)

    def __getitem__(self, index: int) -> IndexedImage:
        return self.pictures[index]

    def image(self, index: int) -> Image:
        """RGB uint8 (H, W, 3) of picture ``index``; do not write into it. Raises ``DataError``."""
        found = self._cache.get(index)
        if found is not None:
            self._cache.move_to_end(index)
            return found
        picture = self.pictures[index]
        image = read_rgb(self.root / picture.file)
        if image.shape[:2] != (picture.height, picture.width):
            raise DataError(
                f"{self.root / picture.file} is {image.shape[1]}x{image.shape[0]}, "
                f"the index says {picture.width}x{picture.height}.",
                hint="Assemble the training pictures again.",
            )
        self._cache[index] = image
        self._held += image.nbytes
        while self._held > self._budget and len(self._cache) > 1:
            self._held -= self._cache.popitem(last=False)[1].nbytes
        return image


def read_rgb(path: Path) -> Image:
    """Decode an image file to RGB uint8 (H, W, 3), rotation tags ignored. Raises ``DataError``."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}.", hint="Check the data folder.") from error
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(data, flags) if data.size else None
    if decoded is None:
        raise DataError(f"{path} is no image that can be decoded.", hint="Copy the file again.")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _parse(line: str, where: str) -> IndexedImage:
    try:
        row: dict[str, Any] = json.loads(line)
        marked = [(entry, np.asarray(entry["p"], dtype=np.float32)) for entry in row.get("inst") or ()]
        instances = [_instance(entry, outline) for entry, outline in marked]
        instances += [_instance(entry, None) for entry in row.get("box") or ()]
        whole = row.get("whole")
        return IndexedImage(
            file=str(row["f"]),
            width=int(row["w"]),
            height=int(row["h"]),
            instances=tuple(instances),
            main_object=None if whole is None else plain_name(str(whole)),
            source=str(row.get("src", "")),
            license=str(row.get("lic", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: not a picture entry ({error}).", hint="See the index format.") from error


def _instance(entry: dict[str, Any], outline: NDArray[np.float32] | None) -> AnnotatedObject:
    x, y, w, h = (float(v) for v in entry["b"])
    if not np.isfinite([x, y, w, h]).all() or w <= 0 or h <= 0:
        raise ValueError(f"box {entry['b']}")
    polygon = None if outline is None or outline.size < 6 else outline.reshape(-1, 2)
    return AnnotatedObject(name=plain_name(str(entry["c"])), box=(x, y, w, h), polygon=polygon)

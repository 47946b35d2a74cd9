"""Training images with named objects: an index file and images that are decoded on access."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.json_io import parse_json, read_json, read_text
from vltrack.core.types import BoxLike, Image
from vltrack.datasets.sequences import ImageList, Sequence
from vltrack.video.images import shared_reader

T = TypeVar("T")
INDEX, CLIPS = "index.jsonl", "clips.jsonl"
_INDEX_BYTES = 2 << 30
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
        polygons: its parts, (N, 2) float32 outlines in pixels (even-odd; doubled lines may join parts); () if unknown.
        color: annotated dominant color, or "".
        sentences: that fit this object and no other of its image.
        person: "woman", "man" or "person" where the annotation says, else "".
        clothes: garment -> its color, or "" where it is not clear; of a person.
        repeats: comes from the index's second list, of boxes, and may be an object of the first once more.
    """

    name: str
    box: BoxLike
    polygons: tuple[NDArray[np.float32], ...] = ()
    color: str = ""
    sentences: tuple[str, ...] = ()
    person: str = ""
    clothes: Mapping[str, str] = field(default_factory=dict)
    repeats: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedImage:
    """One image of the index.

    Attributes:
        file: path relative to the root.
        width, height: size in pixels.
        instances: its annotated objects.
        main_object: name of the one main object of an image without boxes, else None.
        transparent: the main object is what the file's alpha channel shows.
        captions: of the whole image.
        crowds: areas with many objects of one class that are not annotated one by one.
        only: the one class that is annotated, "" for all.
        groups: coarser classes of the main object.
        folder: number of the root, where a set has several.
    """

    file: str
    width: int
    height: int
    instances: tuple[AnnotatedObject, ...]
    main_object: str | None
    transparent: bool = False
    captions: tuple[str, ...] = ()
    crowds: tuple[AnnotatedObject, ...] = ()
    only: str = ""
    groups: tuple[str, ...] = ()
    folder: int = 0


def held_out(key: str, percent: int = 5) -> bool:
    """Return whether ``key`` belongs to the validation share, which depends on its hash only."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100 < percent


def plain_name(name: str) -> str:
    """Return a class name of the index as an English noun: ``dog`` for ``dog6``, ``face`` for ``faces``."""
    bare = name.rstrip("0123456789").strip().replace("_", " ")
    return _NAMES.get(bare.replace("grey", "gray"), bare)


class ImageSet:
    """All images of one or several folders with an index each; decoded images are cached."""

    def __init__(self, roots: tuple[Path, ...], entries: tuple[IndexedImage, ...]) -> None:
        self.roots = roots
        self.entries = entries
        self._cache: ByteCache[Image] = ByteCache(1_200_000_000)

    @classmethod
    def load(cls, *roots: Path) -> ImageSet:
        """Read ``index.jsonl`` of each folder; no image is decoded yet.

        Raises:
            DataError: a missing index, a line that does not parse, or a listed file that is missing.
        """
        entries: list[IndexedImage] = []
        for folder, root in enumerate(roots):
            listed = [_parse(row, where, folder) for where, row in _rows(root / INDEX)]
            if not listed:
                raise DataError(f"No images listed in {root / INDEX}.", hint=_ASSEMBLE)
            missing = [entry.file for entry in listed if not (root / entry.file).is_file()]
            if missing:
                said = f"{len(missing)} of {len(listed)} images of {root / INDEX} are missing, such as {missing[0]!r}."
                raise DataError(said, hint=_ASSEMBLE)
            entries += listed
        return cls(roots, tuple(entries))

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[IndexedImage]:
        return iter(self.entries)

    def __getitem__(self, index: int) -> IndexedImage:
        return self.entries[index]

    def path(self, entry: IndexedImage) -> Path:
        """The file of an image."""
        return self.roots[entry.folder] / entry.file

    def image(self, index: int) -> Image:
        """Return image ``index`` as RGB uint8 (H, W, 3); do not write into it. Raises ``DataError``."""
        found = self._cache.get(index)
        if found is not None:
            return found
        image = self.decode(self.entries[index])
        return self._cache.put(index, image, image.nbytes)

    def decode(self, entry: IndexedImage) -> Image:
        """Decode an image, not cached: RGBA where it is transparent, else RGB. Raises ``DataError``."""
        path = self.path(entry)
        image = read_rgb(path, alpha=entry.transparent)
        if entry.instances and image.shape[:2] != (entry.height, entry.width):  # boxes and outlines would be off
            said = f"{path} is {image.shape[1]}x{image.shape[0]}, the index says {entry.width}x{entry.height}."
            raise DataError(said, hint="Assemble the training images again.")
        return image


def read_rgb(path: Path, *, alpha: bool = False) -> Image:
    """Decode an image file to its stored pixels, EXIF orientation ignored, in the decoder process.

    Annotations of COCO and of the sets made from it are in stored pixels.

    Returns:
        RGB uint8 (H, W, 3); with ``alpha`` RGBA (H, W, 4).

    Raises:
        DataError: the file is missing, damaged or too large; names the path.
    """
    return shared_reader().read(path, alpha=alpha, stored=True)


# -- reading the index ---------------------------------------------------------------------------------------


def _rows(index: Path) -> Iterator[tuple[str, Any]]:
    """Yield place and value of each line that is not empty."""
    if not index.is_file():
        raise DataError(f"Image index not found: {index}.", hint=_ASSEMBLE)
    for number, line in enumerate(read_text(index, _INDEX_BYTES).splitlines(), 1):
        if line.strip():
            yield f"{index}:{number}", parse_json(line, f"{index}:{number}")


@contextmanager
def _valid(where: str) -> Iterator[None]:
    """Turn what a wrong type or value raises into a ``DataError`` that names the place."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"Invalid image entry at {where}: {error}.", hint="See docs/train.md.") from error


def _parse(row: dict[str, Any], where: str, folder: int) -> IndexedImage:
    with _valid(where):
        main_object = row.get("cut") or row.get("whole")
        crowds = [crowd if isinstance(crowd, dict) else {"c": "", "b": crowd} for crowd in row.get("crowd") or ()]
        return IndexedImage(
            file=str(row["f"]),
            width=int(row["w"]),
            height=int(row["h"]),
            instances=(
                *(_annotation(entry) for entry in row.get("inst") or ()),
                *(replace(_annotation(entry), repeats=True) for entry in row.get("box") or ()),
            ),
            main_object=None if main_object is None else plain_name(str(main_object)),
            transparent="cut" in row,
            captions=_texts(row.get("cap")),
            crowds=tuple(_annotation(crowd) for crowd in crowds),
            only=plain_name(str(row.get("only") or "")),
            groups=_texts(row.get("group")),
            folder=folder,
        )


def _annotation(entry: dict[str, Any]) -> AnnotatedObject:
    clothes = dict(entry.get("att") or {}) | ({"top": entry["top"]} if entry.get("top") else {})
    return AnnotatedObject(
        name=plain_name(str(entry["c"])),
        box=_box(entry["b"]),
        polygons=_outlines([entry.get("p") or (), *(entry.get("pp") or ())]),
        color=_american(str(entry.get("col") or "")),
        sentences=tuple(map(_american, _texts(entry.get("q")))),
        person=str(entry.get("who") or ""),
        clothes={str(garment): _american(str(color or "")) for garment, color in clothes.items()},
    )


def _box(numbers: Any) -> BoxLike:
    x, y, w, h = (float(v) for v in numbers)
    if not np.isfinite([x, y, w, h]).all() or w <= 0 or h <= 0:
        raise ValueError(f"box {numbers}")
    return x, y, w, h


def _outlines(parts: Any) -> tuple[NDArray[np.float32], ...]:
    outlines = [np.asarray(part, dtype=np.float32).reshape(-1, 2) for part in parts]
    if not all(np.isfinite(outline).all() for outline in outlines):
        raise ValueError("an outline that is not finite")
    return tuple(outline for outline in outlines if len(outline) > 2)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | None) or not all(isinstance(text, str) for text in value or ()):
        raise ValueError(f"{value!r} is not a list of texts")
    return tuple(value or ())


def _american(text: str) -> str:
    return text.replace("grey", "gray")


# -- clips of single images ----------------------------------------------------------------------------------

Target = dict[int, AnnotatedObject]
"""One target of a clip, by the number of each frame that shows it."""


def read_clips(root: Path) -> dict[str, tuple[Target, ...]]:
    """Targets of each clip that ``root``/clips.jsonl lists, by the clip's folder below ``root``; {} without that file.

    Raises:
        DataError: a line, or the clip.json of a clip, cannot be read or does not parse.
    """
    clips: dict[str, tuple[Target, ...]] = {}
    for where, row in _rows(root / CLIPS) if (root / CLIPS).is_file() else ():
        with _valid(where):
            name = str(row["d"])
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{name!r} is not a folder below this one")
        file = root / name / "clip.json"
        record = read_json(file)
        with _valid(str(file)):
            clips[name] = tuple(_target(entry, f"{file}: target {k}") for k, entry in enumerate(record["targets"]))
    return clips


def _target(entry: dict[str, Any], where: str) -> Target:
    shown: Target = {}
    with _valid(where):
        name, sentences = plain_name(str(entry["c"])), _texts(entry.get("sentences"))
        for number, box, *outlines in entry["frames"]:
            if type(number) is not int or number < 0 or number in shown:
                raise ValueError(f"frame {number!r}")
            polygons = _outlines(outlines[0] if outlines else ())
            shown[number] = AnnotatedObject(name=name, box=_box(box), polygons=polygons, sentences=sentences)
    return shown


def load_clips(root: Path) -> tuple[Sequence, ...]:
    """The clips of a folder of still images as sequences, one for each target; () without clips.jsonl.

    A frame that the target is not listed in has a NaN row and is absent: outside of the image, or not annotated.
    Sequences are named like their folder, with the target's number where there are several.

    Raises:
        DataError: as ``read_clips``; images are missing, or not named NNNNN.jpg.
    """
    clips: list[Sequence] = []
    for name, targets in read_clips(root).items():
        folder = root / name
        files = sorted(file.name for file in folder.glob("*.jpg"))
        try:
            rows = {int(file.removesuffix(".jpg")): row for row, file in enumerate(files)}
        except ValueError as error:
            raise DataError(f"{folder} has an image without a number: {error}.", hint=_ASSEMBLE) from error
        for which, target in enumerate(targets, 1):
            missing = sorted(target.keys() - rows.keys())
            if missing or not target:
                said = f"frame {missing[0]} has no image" if missing else f"target {which} is in no frame"
                raise DataError(f"{folder / 'clip.json'}: {said}.", hint=_ASSEMBLE)
            boxes = np.full((len(files), 4), np.nan)
            for number, shown in target.items():
                boxes[rows[number]] = shown.box
            sentences = next(iter(target.values())).sentences
            clips.append(
                Sequence(
                    name=name if len(targets) == 1 else f"{name}-{which}",
                    source=folder,
                    files=ImageList(folder, tuple(files)),
                    boxes=boxes,
                    absent=np.isnan(boxes[:, 0]),
                    sentence=sentences[0] if sentences else "",
                    sentences=sentences,
                )
            )
    return tuple(clips)

"""Samples and clips from the data sets of the papers: annotated targets of videos and of single images.

The targets of a data set are read once per run into an index on disk, which all processes map into memory: the
boxes of TrackingNet alone would take half a gigabyte in each of them.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.files import as_resource_error, atomic_path
from vltrack.core.types import Box, Floats, Image, Mode
from vltrack.datasets.images import ByteCache, read_rgb
from vltrack.datasets.sequences import ImageList
from vltrack.prep.crops import cut, letterbox, mean_color, region_for
from vltrack.training.clips import Clip
from vltrack.training.pairs.sampler import PairConfig, Sample

log = logging.getLogger(__name__)
T = TypeVar("T")
_CACHE_BYTES = 400_000_000
_TRIES = 10
_DAMAGED_ALLOWED, _DAMAGED_SHARE = 5, 0.001
_SIDES = re.compile(r"\b(left|right)(most)?\b", re.IGNORECASE)
_CLIP_SIDE = 96.0
"""Pixels of sqrt(w h) to which larger targets of clips are reduced: half as large again as in a search region."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedTarget:
    """One target to train on, in T images.

    Attributes:
        name: of its sequence or reference.
        files: the T images.
        boxes: (T, 4) float32 x, y, w, h in pixels, NaN where the target cannot be seen.
        sentences: each describes it; () without any.
    """

    name: str
    files: Sequence[Path]
    boxes: NDArray[np.float32]
    sentences: tuple[str, ...] = ()


class TargetIndex:
    """The targets of one data set, read from the folder that ``build`` wrote; S targets with R boxes."""

    def __init__(self, folder: Path) -> None:
        """Map the index. Raises ``DataError`` if it is missing or damaged."""
        try:
            self._boxes, self._rows, self._items, self._ends, self.has_text = (
                np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS
            )
            if not len(self.has_text) == len(self._rows) - 1 == len(self._ends) - 1 > 0:
                raise ValueError("lengths differ")
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"Cannot read the index of training data {folder}: {error}.", hint="Start a new run."
            ) from error

    @staticmethod
    def build(targets: Iterable[AnnotatedTarget], folder: Path) -> int:
        """Write the index of the targets that can be seen in one image at least; return the number of targets.

        Raises ``ResourceError`` where it cannot be written.
        """
        boxes: list[NDArray[np.float32]] = []
        items, has_text = bytearray(), []
        rows, ends = [0], [0]
        for target in targets:
            if np.isnan(target.boxes[:, 0]).all():
                continue
            boxes.append(target.boxes)
            item = {"name": target.name, "files": _packed(target.files), "sentences": target.sentences}
            items += json.dumps(item).encode()
            rows.append(rows[-1] + len(target.boxes))
            ends.append(len(items))
            has_text.append(bool(target.sentences))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise as_resource_error(error, folder) from error
        stacked = np.concatenate(boxes) if boxes else np.zeros((0, 4), dtype=np.float32)
        arrays: list[NDArray[Any]] = [stacked, np.array(rows), np.frombuffer(items, dtype=np.uint8), np.array(ends)]
        arrays.append(np.array(has_text))
        for name, array in zip(_ARRAYS, arrays, strict=True):
            with atomic_path(folder / f"{name}.npy") as part, part.open("wb") as file:
                np.save(file, array)
        return len(has_text)

    def __len__(self) -> int:
        return len(self.has_text)

    @property
    def images(self) -> int:
        """Number of images, each once per target."""
        return int(self._rows[-1])

    def __getitem__(self, number: int) -> AnnotatedTarget:
        item: dict[str, Any] = json.loads(bytes(self._items[self._ends[number] : self._ends[number + 1]]))
        return AnnotatedTarget(
            name=item["name"],
            files=_unpacked(item["files"]),
            boxes=self._boxes[self._rows[number] : self._rows[number + 1]],
            sentences=tuple(item["sentences"]),
        )


_ARRAYS = ("boxes", "rows", "items", "ends", "text")


def _packed(files: Sequence[Path]) -> dict[str, Any]:
    """The files as JSON: folder, and first name and count where the numbers of the names rise by one."""
    folder, names = files[0].parent, [file.name for file in files]
    first = re.fullmatch(r"(\d+)(\..+)", names[0])
    if first and all(name == f"{int(first[1]) + k:0{len(first[1])}d}{first[2]}" for k, name in enumerate(names)):
        return {"folder": str(folder), "first": names[0], "count": len(names)}
    return {"folder": str(folder), "names": names}


def _unpacked(packed: dict[str, Any]) -> Sequence[Path]:
    names = packed.get("names")
    if names is None:
        number, dot, suffix = packed["first"].partition(".")
        names = [f"{int(number) + k:0{len(number)}d}{dot}{suffix}" for k in range(packed["count"])]
    return ImageList(Path(packed["folder"]), tuple(names))


class TargetSampler:
    """Draws samples and clips from an index. Holds decoded images; give every worker process its own."""

    def __init__(self, index: TargetIndex) -> None:
        self.index = index
        self._with_text = np.flatnonzero(index.has_text)
        self._images: ByteCache[Image] = ByteCache(_CACHE_BYTES)
        self._drawn = self._damaged = 0

    @property
    def has_text(self) -> bool:
        """Whether any target has a sentence."""
        return len(self._with_text) > 0

    def sample(self, config: PairConfig, mode: Mode, rng: np.random.Generator) -> Sample:
        """A template and two search views of one target, in ``mode``; without a sentence ``nlbbox`` becomes ``bbox``.

        The views are crops around the target, shifted and scaled at random (STARK, OSTrack); in mode ``nl`` whole
        frames. They are from frames of the target within ``config.max_gap`` of the template's, the second within
        ``config.view_gap`` of the first (UVLTrack). A view without the target shows another one.

        Raises:
            DataError: too many images are damaged.
        """
        return self._intact(lambda: self._pair(config, mode, rng))

    def clip(self, frames: int, rng: np.random.Generator) -> Clip:
        """At most ``frames`` consecutive frames of one target, from one on that shows it.

        Large frames are reduced, with their boxes, as far as the crops keep their sharpness. Raises ``DataError``.
        """
        return self._intact(lambda: self._consecutive(frames, rng))

    def _intact(self, draw: Callable[[], T]) -> T:
        """Draw until no image is damaged; few may be."""
        self._drawn += 1
        for _ in range(_TRIES):
            try:
                return draw()
            except DataError as error:
                self._damaged += 1
                if self._damaged > max(_DAMAGED_ALLOWED, _DAMAGED_SHARE * self._drawn):
                    raise DataError(
                        f"{self._damaged} of {self._drawn} samples had a damaged image, the last: {error.message}",
                        hint="See `vltrack datasets check FOLDER --images`.",
                    ) from error
                log.warning("%s Another sample is drawn in its place.", error.message)
        raise DataError(f"{_TRIES} damaged images in a row.", hint="See `vltrack datasets check FOLDER --images`.")

    def _draw(self, rng: np.random.Generator, *, with_text: bool = False) -> AnnotatedTarget:
        if with_text:
            return self.index[int(self._with_text[rng.integers(len(self._with_text))])]
        return self.index[int(rng.integers(len(self.index)))]

    def _image(self, path: Path) -> Image:
        key = hash(path)
        found = self._images.get(key)
        return found if found is not None else self._images.put(key, image := read_rgb(path), image.nbytes)

    def _pair(self, config: PairConfig, mode: Mode, rng: np.random.Generator) -> Sample:
        target = self._draw(rng, with_text=mode is Mode.NL)
        text = "" if mode is Mode.BBOX or not target.sentences else str(rng.choice(target.sentences))
        mode = mode if text else Mode.BBOX
        views = [_View(target, frame) for frame in _draw_frames(target, config, rng)]
        searches, boxes, present = [], [], []
        for view in views[1:]:
            absent = mode is not Mode.NL and rng.random() < config.negative_share
            if absent:
                height, width = self._image(view.file).shape[:2]
                beside = view.beside((width, height), config, rng) if rng.random() < 0.5 else None
                view = beside or self._other(target, rng)
            image, box = self._cut_search(view, config, mode, rng)
            searches.append(image)
            boxes.append(np.full(4, np.nan) if absent else box)
            present.append(not absent and min(box[2:]) >= 1)
        template = region_for(views[0].box, config.template_factor, config.template_size)
        image = self._image(views[0].file)
        searches = _augment([cut(image, template, mean_color(image)), *searches], config, rng)
        given, size = template.to_crop(views[0].box), config.search_size
        if rng.random() < config.flip_share and not _SIDES.search(text):
            searches = [np.ascontiguousarray(view[:, ::-1]) for view in searches]
            given = _mirrored(given, config.template_size)
            boxes = [_mirrored(box, size) for box in boxes]
        nominal = np.array([size * 0.375, size * 0.375, size / 4, size / 4])
        shown = np.array(present)
        return Sample(
            template=searches[0],
            template_box=given.astype(np.float32),
            searches=np.stack(searches[1:]),
            boxes=np.where(shown[:, None], np.stack(boxes), nominal).astype(np.float32),
            present=shown,
            text=text,
            mode=str(mode),
        )

    def _other(self, target: AnnotatedTarget, rng: np.random.Generator) -> _View:
        """A view of another target than ``target``, where there is one."""
        other = self._draw(rng)
        for _ in range(_TRIES):
            if (other.name, other.files[0]) != (target.name, target.files[0]):
                break
            other = self._draw(rng)
        return _View(other, int(rng.choice(_seen(other))))

    def _cut_search(self, view: _View, config: PairConfig, mode: Mode, rng: np.random.Generator) -> tuple[Image, Box]:
        """The search view, and the box in it, clipped to the frame."""
        image, size = self._image(view.file), config.search_size
        height, width = image.shape[:2]
        if mode is Mode.NL:
            crop = letterbox(width, height, size)
        else:
            crop = region_for(_jittered(view.box, config, rng), config.search_factor, size)
        low = view.box[:2].clip(0, (width, height))
        high = (view.box[:2] + view.box[2:]).clip(0, (width, height))
        return cut(image, crop, mean_color(image)), crop.to_crop(np.concatenate([low, high - low]))

    def _consecutive(self, frames: int, rng: np.random.Generator) -> Clip:
        target = self._draw(rng)
        seen = _seen(target)
        early = seen[seen <= max(int(seen[0]), len(target.files) - frames)]
        first = int(rng.choice(early))
        boxes = np.asarray(target.boxes[first : first + frames], dtype=np.float64)
        scale = min(1.0, _CLIP_SIDE / float(np.sqrt(np.nanmedian(boxes[:, 2:].prod(axis=1)))))
        images = [read_rgb(file) for file in target.files[first : first + frames]]
        height, width = images[0].shape[:2]
        size = max(1, round(width * scale)), max(1, round(height * scale))
        resized = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
        absent = np.isnan(boxes[:, 0])
        ratio = np.array(size * 2) / (width, height, width, height)
        return Clip(
            frames=np.stack(resized).astype(np.uint8),
            boxes=np.where(absent[:, None], 0.0, boxes * ratio),
            absent=absent,
            sentence=str(rng.choice(target.sentences)) if target.sentences else "",
        )


class _View:
    """A target in one of its images."""

    def __init__(self, target: AnnotatedTarget, frame: int) -> None:
        self.file = target.files[frame]
        self.box: Floats = np.asarray(target.boxes[frame], dtype=np.float64)

    def beside(self, size: tuple[int, int], config: PairConfig, rng: np.random.Generator) -> _View | None:
        """What a tracker sees that has drifted off the target: a place of the frame whose region leaves it out."""
        side = np.sqrt(self.box[2:].prod())
        center = self.box[:2] + self.box[2:] / 2
        reach = (np.maximum(self.box[2:], side) + side * (config.search_factor + config.center_jitter)) / 2
        places = rng.uniform(0, size, (8, 2))
        clear = places[(np.abs(places - center) > 1.2 * reach).any(axis=1)]
        if not len(clear):
            return None
        moved = copy(self)
        moved.box = np.concatenate([clear[0] - self.box[2:] / 2, self.box[2:]])
        return moved


def _seen(target: AnnotatedTarget) -> NDArray[np.int64]:
    """Numbers of the frames that show the target."""
    return np.flatnonzero(~np.isnan(target.boxes[:, 0]))


def _draw_frames(target: AnnotatedTarget, config: PairConfig, rng: np.random.Generator) -> list[int]:
    """Frames of the template and of the two search views; a single image serves for all three."""
    seen = _seen(target)
    chosen = [int(rng.choice(seen))]
    for gap in (config.max_gap, config.view_gap):
        near = seen[np.abs(seen - chosen[-1]) <= gap]
        others = near[near != chosen[-1]]
        chosen.append(int(rng.choice(others if len(others) else near)))
    return chosen


def _jittered(box: Box, config: PairConfig, rng: np.random.Generator) -> Box:
    """The box with a random size and place, around which a search region is cut (STARK, OSTrack)."""
    sides = box[2:] * np.exp(rng.normal(size=2) * config.scale_jitter)
    reach = np.sqrt(sides.prod()) * config.center_jitter
    center = box[:2] + box[2:] / 2 + reach * (rng.random(2) - 0.5)
    return np.concatenate([center - sides / 2, sides])


def _mirrored(box: Box, size: int) -> Box:
    return np.array([size - box[0] - box[2], *box[1:]])


def _augment(views: list[Image], config: PairConfig, rng: np.random.Generator) -> list[Image]:
    """Gray, or brighter or darker, all views alike."""
    if rng.random() < config.gray_share:
        views = [cv2.cvtColor(cv2.cvtColor(v, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.uint8) for v in views]
    gain = float(rng.uniform(1 - config.brightness, 1 + config.brightness))
    return [np.asarray(cv2.convertScaleAbs(view, alpha=gain), dtype=np.uint8) for view in views]

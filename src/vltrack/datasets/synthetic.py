"""Synthetic clips: shapes that move over a textured background, with exact boxes, absences and sentences."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import ResourceError
from vltrack.core.files import as_resource_error
from vltrack.core.types import Floats, Image

COLORS = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 215, 50),
    "purple": (130, 50, 160),
    "orange": (240, 130, 30),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "bar")
_FINE = 4  # shapes are drawn at four times the resolution, so that edges are smooth


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticClip:
    """A rendered clip of T frames.

    Attributes:
        frames: uint8 RGB (T, H, W, 3).
        boxes: float64 (T, 4) x, y, w, h in pixels, clipped to the frame; zeros where absent.
        absent: bool (T,).
        sentence: describes the target and no other object of the clip.
        distractor_boxes, distractor_sentence: the same for the second target of a clip with a distractor
            (one shape in two colors), else None and "".
    """

    frames: NDArray[np.uint8]
    boxes: Floats
    absent: NDArray[np.bool_]
    sentence: str
    distractor_boxes: Floats | None = None
    distractor_sentence: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mover:
    """A shape over T frames: (16, 16) brightness texture (128 = unchanged), (T, 2) centers, (T,) sizes, angles."""

    shape: str
    color: str
    speckle: NDArray[np.uint8]
    centers: Floats
    sizes: Floats
    angles: Floats


def synthesize_clip(seed: int, frames: int, size: tuple[int, int] = (320, 240)) -> SyntheticClip:
    """Render the clip of ``seed``: always the same pixels. ``size`` is (width, height).

    One clip in two has a distractor of the target's shape in another color, one in three an absence (the
    target leaves the frame and returns). Raises ``ValueError`` for no frames or sides below 64 pixels.
    """
    if frames < 1 or min(size) < 64:
        raise ValueError(f"Clip too small: {frames} frames of {size}, at least one frame of 64x64 needed.")
    rng = np.random.default_rng([seed, frames, *size])
    shapes = [str(s) for s in rng.permutation(SHAPES)]
    colors = [str(c) for c in rng.permutation(list(COLORS))]
    similar = bool(rng.random() < 0.5)
    leaves = bool(rng.random() < 1 / 3) and frames >= 12
    target = _mover(rng, shapes[0], colors[0], frames, size, leaves=leaves)
    distractor = _mover(rng, shapes[0] if similar else shapes[1], colors[1], frames, size, leaves=False)
    others = [
        _mover(rng, shapes[2 + i], colors[2 + i], frames, size, leaves=False) for i in range(int(rng.integers(3)))
    ]
    ground = _texture(rng, (size[0] * 3 // 2, size[1] * 3 // 2))
    drift = _path(rng, frames, np.array(size) * 0.25, np.array(size) * 0.1)
    images = np.empty((frames, size[1], size[0], 3), dtype=np.uint8)
    boxes, distractor_boxes = np.zeros((frames, 4)), np.zeros((frames, 4))
    for t in range(frames):
        shift = np.clip(drift[t], 0, np.array(size) // 2 - 1)
        image = cv2.getRectSubPix(ground, size, (shift[0] + size[0] / 2, shift[1] + size[1] / 2))
        canvas = np.asarray(image, dtype=np.uint8).copy()
        for other in others:
            _draw(canvas, other, t)
        distractor_boxes[t] = _draw(canvas, distractor, t)
        boxes[t] = _draw(canvas, target, t)
        images[t] = canvas
    absent = boxes[:, 2:].min(axis=1) <= 0
    boxes[absent] = 0.0
    return SyntheticClip(
        frames=images,
        boxes=boxes,
        absent=absent,
        sentence=_sentence(rng, target, unique=not similar),
        distractor_boxes=distractor_boxes if similar else None,
        distractor_sentence=_sentence(rng, distractor, unique=False) if similar else "",
    )


@contextmanager
def new_folder(out: Path, *, replace: bool = False) -> Iterator[None]:
    """Write into the folder ``out``.

    Raises ``ResourceError`` if it is not empty (unless ``replace``) or cannot be written.
    """
    if not replace and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ResourceError(f"Folder is not empty: {out}.", hint="Choose another folder or remove it.")
    try:
        yield
    except OSError as error:
        raise as_resource_error(error, out) from error


def write_clip(clip: SyntheticClip, folder: Path, *, replace: bool = False) -> None:
    """Write ``folder`` with img/00000001.jpg ..., groundtruth.txt, absent.txt and nlp.txt, atomically.

    ``replace`` overwrites an earlier clip. Raises ``ResourceError`` where the folder has other files, or
    cannot be written.
    """
    with new_folder(folder, replace=replace and (folder / "groundtruth.txt").is_file()):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
            made = Path(name) / "clip"
            (made / "img").mkdir(parents=True)
            for number, frame in enumerate(clip.frames, 1):
                write_image(made / "img" / f"{number:08d}.jpg", frame)
            boxes = [",".join(f"{value:g}" for value in np.round(box, 2)) for box in clip.boxes]
            absent = [str(int(flag)) for flag in clip.absent]
            for file, lines in (("groundtruth", boxes), ("absent", absent), ("nlp", [clip.sentence])):
                (made / f"{file}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
            if folder.exists():
                folder.rename(Path(name) / "before")
            made.rename(folder)


def synthesize(out: Path, count: int, frames: int, seed: int) -> list[Path]:
    """Write ``count`` clips of ``frames`` frames into ``out``/clip-0001, ...; return their folders.

    Clips of an earlier call are replaced. Raises ``ResourceError`` as ``write_clip`` does.
    """
    folders = [out / f"clip-{number + 1:04d}" for number in range(count)]
    for number, folder in enumerate(folders):
        write_clip(synthesize_clip(seed + number, frames), folder, replace=True)
    return folders


def write_image(path: Path, image: Image) -> None:
    """Write an RGB or gray uint8 image in the format of the path's suffix. Raises ``OSError``."""
    path.write_bytes(cv2.imencode(path.suffix, image[..., ::-1] if image.ndim == 3 else image)[1].tobytes())


def _sentence(rng: np.random.Generator, mover: _Mover, *, unique: bool) -> str:
    if not unique or rng.random() < 0.6:
        return f"the {mover.color} {mover.shape}"
    return f"the {mover.shape}"


def _mover(
    rng: np.random.Generator, shape: str, color: str, frames: int, size: tuple[int, int], *, leaves: bool
) -> _Mover:
    side = min(size) * rng.uniform(0.12, 0.28)
    room = np.array(size, dtype=np.float64)
    centers = _path(rng, frames, room / 2, room * 0.27)
    margin = side * 0.6
    centers = np.clip(centers, margin, room - margin)
    if leaves:  # one smooth excursion to the right and back
        phase = (np.arange(frames) - frames * 0.55) / max(2.0, frames * 0.17)
        away = np.exp(-(phase**4))
        centers[:, 0] += away * (room[0] - centers[:, 0] + 1.5 * side)
    time = np.arange(frames)
    return _Mover(
        shape=shape,
        color=color,
        speckle=rng.integers(106, 151, size=(16, 16)).astype(np.uint8),
        centers=centers,
        sizes=side * np.exp(0.2 * np.sin(time / rng.uniform(9, 25) + rng.uniform(0, 6))),
        angles=rng.uniform(-0.3, 0.3) + 0.3 * np.sin(time / rng.uniform(9, 25) + rng.uniform(0, 6)),
    )


def _path(rng: np.random.Generator, frames: int, middle: Floats, reach: Floats) -> Floats:
    """Return a (T, 2) smooth path around ``middle``: two sine waves per axis, a few pixels per frame."""
    time = np.arange(frames)[:, None]
    path = np.zeros((frames, 2))
    for weight in (0.7, 0.3):
        period = rng.uniform(8, 22, size=2) / weight**0.5
        path += weight * reach * np.sin(time / period + rng.uniform(0, 2 * np.pi, size=2))
    return path + middle


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> Image:
    """Return colored noise of several scales (H, W, 3), dull enough for the shapes to stand out."""
    total = np.zeros((size[1], size[0], 3), dtype=np.float32)
    for cells, weight in ((3, 40.0), (9, 22.0), (40, 14.0), (120, 9.0)):
        coarse = rng.normal(size=(cells, cells, 3)).astype(np.float32) * np.float32(weight)
        total += cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    gray = total.mean(axis=2, keepdims=True)
    base = rng.uniform(80, 170, size=3).astype(np.float32)
    tint = base.mean() + 0.3 * (base - base.mean())
    return np.asarray(np.clip(tint + gray + 0.35 * (total - gray), 0, 255), dtype=np.uint8)


def _draw(canvas: Image, mover: _Mover, t: int) -> Floats:
    """Draw a shape into ``canvas``; return its box x, y, w, h clipped to the frame, zeros if outside."""
    h, w = canvas.shape[:2]
    sine, cosine = np.sin(mover.angles[t]), np.cos(mover.angles[t])
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    points = _outline(mover.shape) @ rotation.T * mover.sizes[t] / 2 + mover.centers[t]
    low, high = points.min(axis=0), points.max(axis=0)
    x0, y0 = np.maximum(np.floor(low), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(high), (w, h)).astype(int)
    if x1 <= x0 or y1 <= y0:
        return np.zeros(4)
    fine = np.zeros(((y1 - y0) * _FINE, (x1 - x0) * _FINE), dtype=np.uint8)
    rings = [(points, 255)]
    if mover.shape == "ring":
        rings.append((_outline("circle") * 0.5 * mover.sizes[t] / 2 + mover.centers[t], 0))
    for ring, value in rings:
        cv2.fillPoly(fine, [np.round((ring - (x0, y0)) * _FINE - 0.5).astype(np.int32)], value)
    size = (int(x1 - x0), int(y1 - y0))
    share = cv2.resize(fine, size, interpolation=cv2.INTER_AREA)[..., None] / 255
    marks = cv2.resize(mover.speckle, size, interpolation=cv2.INTER_LINEAR)[..., None] - 128.0
    color = np.clip(np.array(COLORS[mover.color]) + marks, 0, 255)
    region = canvas[y0:y1, x0:x1]
    canvas[y0:y1, x0:x1] = np.round(region * (1 - share) + color * share).astype(np.uint8)
    seen = _clip(points, w, h)
    if len(seen) == 0:
        return np.zeros(4)
    return np.concatenate([seen.min(axis=0), np.ptp(seen, axis=0)])


def _clip(points: Floats, width: int, height: int) -> Floats:
    """Clip a polygon (N, 2) to the frame (Sutherland and Hodgman 1974); it may have no point left."""
    for axis, limit, sign in ((0, 0.0, 1), (0, float(width), -1), (1, 0.0, 1), (1, float(height), -1)):
        kept: list[Floats] = []
        for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
            a, b = sign * (start[axis] - limit), sign * (end[axis] - limit)
            if a >= 0:
                kept.append(start)
            if (a > 0) != (b > 0) and a != b:
                kept.append(start + a / (a - b) * (end - start))
        points = np.array(kept).reshape(-1, 2)
    return points


def _outline(shape: str) -> Floats:
    """Return the (N, 2) corners of a shape around the origin, radius about 1."""
    if shape in ("circle", "ring"):
        angle = np.arange(64) * (2 * np.pi / 64)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if shape == "star":
        angle = np.arange(10) * (np.pi / 5) - np.pi / 2
        radius = np.where(np.arange(10) % 2 == 0, 1.1, 0.5)
        return np.asarray(radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    if shape == "cross":
        a = 0.34
        x = [-a, a, a, 1, 1, a, a, -a, -a, -1, -1, -a]
        y = [-1, -1, -a, -a, a, a, 1, 1, a, a, -a, -a]
        return np.array([x, y]).T
    polygons = {
        "square": [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
        "triangle": [[0.0, -1.0], [1.0, 0.8], [-1.0, 0.8]],
        "diamond": [[0.0, -1.15], [0.8, 0.0], [0.0, 1.15], [-0.8, 0.0]],
        "bar": [[-1.3, -0.4], [1.3, -0.4], [1.3, 0.4], [-1.3, 0.4]],
    }
    return np.array(polygons[shape], dtype=np.float64)

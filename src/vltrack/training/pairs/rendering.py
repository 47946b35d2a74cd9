"""Geometry and pixels of a rendered view: poses, affine maps, bending, pasting, light, lens and sensor.

Coordinates are pixel edges: the center of the first pixel is at (0.5, 0.5). Maps are (2, 3) float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.types import Floats, Image
from vltrack.datasets.cutouts import Patch, make_patch


@dataclass(frozen=True, kw_only=True, slots=True)
class Pose:
    """Pose of an object in one view.

    ``numbers``: rotation (rad), log aspect, shear, log size, and offset x, y of its center in view sides.
    """

    numbers: Floats

    @property
    def linear(self) -> Floats:
        """(2, 2) rotation, shear and aspect, without size."""
        angle, aspect, shear = self.numbers[:3]
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        stretch = np.array([[np.exp(aspect / 2), shear], [0.0, np.exp(-aspect / 2)]])
        return np.asarray(turn @ stretch)

    @property
    def size(self) -> float:
        """Factor on the nominal size."""
        return float(np.exp(self.numbers[3]))


_SPREAD = np.array([0.13, 0.14, 0.06, 0.3, 0.17, 0.17])


def draw_pose(rng: np.random.Generator, *, calm: bool = False, near: Pose | None = None) -> Pose:
    """A random pose; ``calm``: hardly rotated, for boxes without outline; ``near``: a small step from it."""
    numbers = rng.normal(size=6) * _SPREAD
    if rng.random() < 0.1:
        numbers[0] = rng.uniform(-0.8, 0.8)
    outward = rng.random() < 0.08
    if near is not None:
        numbers = near.numbers + 0.35 * np.clip(numbers, -0.5, 0.5)
    if calm:
        numbers[0] *= 0.3
        numbers[2] *= 0.3
    numbers[3] = np.clip(numbers[3], -0.9, 0.75)
    reach = 0.5 if outward else 0.38
    numbers[4:] = np.clip(numbers[4:], -reach, reach)
    if outward and near is None:
        numbers[4 + int(rng.integers(2))] = rng.choice([-1.0, 1.0]) * rng.uniform(0.38, 0.5)
    return Pose(numbers=numbers)


def apply(matrix: Floats, points: ArrayLike) -> Floats:
    """Points (N, 2) through a (2, 3) map."""
    return np.asarray(np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2])


def bounds(points: ArrayLike) -> Floats:
    """Tight x, y, w, h of points (N, 2)."""
    array = np.asarray(points, dtype=np.float64)
    low, high = array.min(axis=0), array.max(axis=0)
    return np.concatenate([low, high - low])


def place(outline: ArrayLike, linear: Floats, size: float, center: ArrayLike) -> Floats:
    """The map with a linear part that gives the outline's bounds sqrt(w * h) = ``size`` around ``center``."""
    turned = np.asarray(outline, dtype=np.float64) @ linear.T
    x, y, w, h = bounds(turned)
    scale = size / max(1e-6, np.sqrt(w * h))
    shift = np.asarray(center, dtype=np.float64) - scale * np.array([x + w / 2, y + h / 2])
    return np.concatenate([scale * linear, shift[:, None]], axis=1)


def flipped(linear: Floats) -> Floats:
    """The linear part after mirroring the source left to right."""
    return linear @ np.diag([-1.0, 1.0])


def to_centers(matrix: Floats) -> Floats:
    """A map of pixel edges as a map of pixel centers, which OpenCV uses."""
    moved = matrix.copy()
    moved[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    return moved


def rounded_corners(box: ArrayLike) -> Floats:
    """(32, 2) outline between ellipse and rectangle, for a box without outline."""
    x, y, w, h = np.asarray(box, dtype=np.float64)
    angle = np.arange(32) * (2 * np.pi / 32)
    cos, sin = np.cos(angle), np.sin(angle)
    px = np.sign(cos) * np.abs(cos) ** 0.5
    py = np.sign(sin) * np.abs(sin) ** 0.5
    return np.stack([x + w / 2 * (1 + px), y + h / 2 * (1 + py)], axis=1)


def pixels(box: Floats, size: int) -> tuple[slice, slice]:
    """Rows and columns of a box x, y, w, h in a view of ``size`` pixels; empty beyond it."""
    edges = np.clip(np.round([box[:2], box[:2] + box[2:]]), 0, size).astype(int)
    return slice(edges[0, 1], edges[1, 1]), slice(edges[0, 0], edges[1, 0])


def corners(box: ArrayLike) -> Floats:
    """(4, 2) corners of x, y, w, h."""
    x, y, w, h = np.asarray(box, dtype=np.float64)
    return np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])


def dense(outline: ArrayLike) -> Floats:
    """The outline with points between its corners, so that its edges can bend."""
    points = np.asarray(outline, dtype=np.float64)
    if len(points) >= 32:
        return points
    parts = -(-32 // len(points))
    after = np.roll(points, -1, axis=0)
    steps = np.arange(parts)[:, None, None] / parts
    return np.asarray((points + steps * (after - points)).reshape(-1, 2))


@dataclass(frozen=True, kw_only=True, slots=True)
class Wobble:
    """A smooth bending of a whole view: pixel q shows what was at q + ``shift`` (2, S, S) [q] before."""

    shift: NDArray[np.float32]

    @classmethod
    def draw(cls, size: int, rng: np.random.Generator) -> Wobble:
        """A random field of some percent of the view's side."""
        grid = rng.normal(size=(2, 5, 5)).astype(np.float32) * np.float32(rng.uniform(0.01, 0.03) * size)
        return cls(shift=np.stack([cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC) for part in grid]))

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The bent image (S, S[, C])."""
        size = self.shift.shape[1]
        ramp = np.arange(size, dtype=np.float32)
        xs, ys = self.shift[0] + ramp, self.shift[1] + ramp[:, None]
        bent = cv2.remap(image, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(bent, dtype=np.uint8)

    def moved(self, points: Floats) -> Floats:
        """Points (N, 2) after the bending (fixed-point inverse of the field)."""
        moved, last = points, self.shift.shape[1] - 1
        for _ in range(6):
            spot = np.clip(moved - 0.5, 0, last).astype(np.float32)[None]
            field = [cv2.remap(part, spot[..., 0], spot[..., 1], cv2.INTER_LINEAR)[0] for part in self.shift]
            moved = points - np.stack(field, axis=1)
        return np.asarray(moved, dtype=np.float64)


def bend(patch: Patch, rng: np.random.Generator, level: int = 0) -> Patch:
    """The object bent by a smooth random field, or with its halves sheared differently.

    Level 0 of the result is ``level`` of the source, with the same size in pixels.
    """
    source = patch.levels[min(level, len(patch.levels) - 1)]
    h, w = source.shape[:2]
    margin = max(3, round(0.14 * max(h, w)))
    ys, xs = np.mgrid[0 : h + 2 * margin, 0 : w + 2 * margin].astype(np.float32)
    xs -= margin
    ys -= margin
    if rng.random() < 0.6:
        grid = rng.normal(size=(2, 4, 4)).astype(np.float32) * np.float32(rng.uniform(0.02, 0.055) * np.sqrt(h * w))
        field = [cv2.resize(part, (xs.shape[1], xs.shape[0]), interpolation=cv2.INTER_CUBIC) for part in grid]
        xs, ys = xs + field[0], ys + field[1]
    else:
        lean = rng.normal(size=2) * 0.28
        if rng.random() < 0.7:
            seam = ys - np.float32(h * rng.uniform(0.35, 0.65))
            xs = xs + np.where(seam > 0, lean[0], lean[1]).astype(np.float32) * seam
        else:
            seam = xs - np.float32(w * rng.uniform(0.35, 0.65))
            ys = ys + np.where(seam > 0, lean[0], lean[1]).astype(np.float32) * seam
    colors = cv2.remap(source[..., :3].copy(), xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.remap(source[..., 3].copy(), xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return make_patch(np.dstack([colors, alpha]))


_GRAY = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Light, lens and sensor of one view; ``draw_look`` draws the numbers."""

    color: Floats
    gamma: float = 1.0
    gray: bool = False
    shadow: Floats | None = None
    reduce: float = 1.0
    blur: float = 0.0
    motion: Floats | None = None
    noise: float = 0.0
    jpeg: int = 0


def draw_look(rng: np.random.Generator, *, mild: bool, gray: bool, reduce: float) -> Look:
    """A random look. ``mild``: colors keep their names. ``reduce``: scale of the sensor's resolution."""
    strength = 0.35 if mild else 1.0
    gain = np.exp(rng.normal() * 0.16)
    cast = np.exp(rng.normal(size=3) * 0.07 * strength)
    saturation = np.exp(rng.normal() * 0.3 * strength)
    mix = (1 - saturation) * np.tile(_GRAY, (3, 1)) + saturation * np.eye(3)
    offset = rng.normal() * 9 * (0.5 if mild else 1.0)
    color = np.concatenate([mix * (gain * cast)[:, None], np.full((3, 1), offset)], axis=1)
    gamma = float(np.exp(rng.normal() * 0.18))
    shadow = np.exp(rng.normal(size=(3, 3)) * 0.22) if rng.random() < 0.25 else None
    softness = rng.random()
    blur = float(rng.uniform(0.4, 1.8)) * max(0.45, reduce) if softness < 0.14 else 0.0
    motion = None
    if 0.14 <= softness < 0.27:
        angle = rng.uniform(0, np.pi)
        motion = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(2, 8)
    noise = float(rng.uniform(3, 16)) if rng.random() < 0.2 else 0.0
    jpeg = int(rng.integers(20 if reduce > 0.5 else 40, 80)) if rng.random() < 0.1 else 0
    return Look(
        color=color, gamma=gamma, gray=gray and not mild, shadow=shadow, reduce=reduce, blur=blur,
        motion=motion, noise=noise, jpeg=jpeg,
    )  # fmt: skip


def near_look(look: Look, rng: np.random.Generator) -> Look:
    """Nearly the same look, as in the next frames of the same video."""
    return replace(look, color=look.color * np.exp(rng.normal() * 0.03), blur=look.blur * rng.uniform(0.7, 1.2))


class Sensor:
    """Applies looks; holds one bank of noise for all views."""

    def __init__(self) -> None:
        self._noise = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)

    def develop(self, image: Image, look: Look, rng: np.random.Generator) -> Image:
        """``image`` (H, W, 3) with light, lens and sensor applied; same size, a new array."""
        h, w = image.shape[:2]
        seen: Any = image
        if look.motion is not None:
            seen = cv2.filter2D(seen, -1, _streak(look.motion), borderType=cv2.BORDER_REFLECT_101)
        if look.reduce < 0.95:
            small = (max(8, round(w * look.reduce)), max(8, round(h * look.reduce)))
            seen = cv2.resize(seen, small, interpolation=cv2.INTER_AREA)
        seen = self._light(seen, look)
        if look.blur > 0.2:
            seen = cv2.GaussianBlur(seen, (0, 0), look.blur)
        if look.noise:
            start = int(rng.integers(0, self._noise.size - seen.size))
            noise = self._noise[start : start + seen.size].reshape(seen.shape)
            seen = cv2.addWeighted(seen, 1.0, noise, look.noise, 0.0, dtype=cv2.CV_8U)
        if look.jpeg:
            _, data = cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, look.jpeg])
            seen = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if seen.shape[:2] != (h, w):
            seen = cv2.resize(seen, (w, h), interpolation=cv2.INTER_LINEAR)
        return np.asarray(seen, dtype=np.uint8)

    @staticmethod
    def _light(image: Any, look: Look) -> Any:
        matrix = look.color
        if look.gray:
            matrix = np.tile(_GRAY @ matrix[:, :3], (3, 1))
            matrix = np.concatenate([matrix, look.color[:, 3:]], axis=1)
        image = cv2.transform(image, matrix)
        if abs(look.gamma - 1) > 0.02:
            table = np.round(255 * (np.arange(256) / 255) ** look.gamma).astype(np.uint8)
            image = cv2.LUT(image, table)
        if look.shadow is not None:
            field = cv2.resize(look.shadow.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
            image = cv2.multiply(image, cv2.merge([field] * 3), dtype=cv2.CV_8U)
        return image


def _streak(motion: Floats) -> NDArray[np.float32]:
    length = float(np.hypot(*motion))
    side = int(np.ceil(length / 2)) * 2 + 1
    kernel = np.zeros((side, side), dtype=np.float32)
    middle = (side - 1) / 2
    for step in np.linspace(-0.5, 0.5, 4 * side):
        x, y = middle + step * motion[0], middle + step * motion[1]
        kernel[int(np.clip(np.round(y), 0, side - 1)), int(np.clip(np.round(x), 0, side - 1))] += 1
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def paste(canvas: Image, patch: Patch, matrix: Floats) -> None:
    """Draw a patch into ``canvas`` (H, W, 3) in place; ``matrix`` maps pixel edges of level 0."""
    h, w = canvas.shape[:2]
    full_h, full_w = patch.levels[0].shape[:2]
    x, y, bw, bh = bounds(apply(matrix, corners((0, 0, full_w, full_h))))
    x0, y0 = max(0, int(np.floor(x))), max(0, int(np.floor(y)))
    x1, y1 = min(w, int(np.ceil(x + bw))), min(h, int(np.ceil(y + bh)))
    if x1 <= x0 or y1 <= y0:
        return
    source, local = _level(patch, matrix)
    local[:, 2] -= (x0, y0)
    drawn = cv2.warpAffine(source, to_centers(local), (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    weight = drawn[..., 3].astype(np.float32) * np.float32(1 / 255)
    region = canvas[y0:y1, x0:x1]
    canvas[y0:y1, x0:x1] = cv2.blendLinear(np.ascontiguousarray(drawn[..., :3]), region.copy(), weight, 1 - weight)


def _level(patch: Patch, matrix: Floats) -> tuple[NDArray[np.uint8], Floats]:
    """The level with the resolution of the map, and the map from its pixels."""
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    level = int(np.clip(np.floor(np.log2(1 / max(scale, 1e-6)) + 0.35), 0, len(patch.levels) - 1))
    source = patch.levels[level]
    local = matrix.copy()
    local[:, 0] *= patch.levels[0].shape[1] / source.shape[1]
    local[:, 1] *= patch.levels[0].shape[0] / source.shape[0]
    return source, local


def warp_image(image: Image, matrix: Floats, size: int, *, reflect: bool) -> tuple[Image, NDArray[np.bool_] | None]:
    """An image mapped into a view: (size, size, 3), and a mask of what lies beyond the image.

    The mask is None where the image fills the view or is mirrored at its borders (``reflect``).
    """
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    source: Any = image
    view: Any
    local = matrix
    if scale < 0.6:
        small = (max(1, round(image.shape[1] * scale * 1.2)), max(1, round(image.shape[0] * scale * 1.2)))
        source = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        local = matrix.copy()
        local[:, 0] *= image.shape[1] / small[0]
        local[:, 1] *= image.shape[0] / small[1]
    centers = to_centers(local)
    if reflect:
        view = cv2.warpAffine(source, centers, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(view, dtype=np.uint8), None
    mean = tuple(float(v) for v in cv2.mean(source)[:3])
    view = cv2.warpAffine(source, centers, (size, size), flags=cv2.INTER_LINEAR, borderValue=mean)
    if _fills(source, centers, size):
        return np.asarray(view, dtype=np.uint8), None
    inside = cv2.warpAffine(np.full(source.shape[:2], 255, np.uint8), centers, (size, size), flags=cv2.INTER_LINEAR)
    outside = inside < 128
    return np.asarray(view, dtype=np.uint8), (outside if outside.any() else None)


def _fills(source: Image, centers: Floats, size: int) -> bool:
    """Whether every pixel of a view lies in the image, by a map of pixel centers from the image to the view."""
    ends = np.array([[x, y, 1] for x in (0, size - 1) for y in (0, size - 1)], dtype=np.float64)
    spots = ends @ cv2.invertAffineTransform(centers).T
    return bool((spots >= 0).all() and (spots <= (source.shape[1] - 1, source.shape[0] - 1)).all())


def recolor(patch: Patch, shift: int, saturation: float) -> Patch:
    """The same object with its hue shifted by ``shift`` (0..180, OpenCV's half degrees)."""
    levels = []
    for level in patch.levels:
        hsv = cv2.cvtColor(np.ascontiguousarray(level[..., :3]), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + shift) % 180
        hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255).astype(np.uint8)
        levels.append(np.dstack([cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), level[..., 3]]))
    return Patch(levels=tuple(levels), outline=patch.outline)


def blob_patch(texture: Image, rng: np.random.Generator) -> Patch | None:
    """A random smooth shape filled with ``texture`` (H, W, 3); None for a texture below 16 pixels."""
    h, w = texture.shape[:2]
    if min(h, w) < 16:
        return None
    count = 48
    angle = np.arange(count) * (2 * np.pi / count)
    radius = np.ones(count)
    for wave in range(2, 6):
        radius += rng.normal() * 0.35 / wave * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.35:  # polygons with straight edges
        keep = rng.integers(3, 7)
        knots = np.linspace(0, count, int(keep) + 1)[:-1].astype(int)
        points = np.stack([np.cos(angle[knots]), np.sin(angle[knots])], axis=1)
    else:
        points = np.clip(radius, 0.45, 1.6)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x, y, bw, bh = bounds(points)
    points = 3 + (points - (x, y)) / (bw, bh) * (w - 6, h - 6)
    alpha = np.zeros((h, w), dtype=np.uint8)
    cv2.fillPoly(alpha, [np.round(points * 16 - 8).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    return make_patch(np.dstack([texture, alpha]))

"""Where things land in a rendered view: poses, affine maps, bounds, smooth bending. Knows no colour and no
text.

All coordinates are pixel edges: the centre of the first pixel is at (0.5, 0.5). Maps are (2, 3) float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.datasets.cutouts import Patch, make_patch

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pose:
    """How a thing is shown in one view: ``numbers`` = rotation (rad), log aspect, shear, log size, offset x
    and y of its centre (parts of the view's side)."""

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
    """A random pose. ``calm``: hardly turned (for boxes without outline). ``near``: a small step from that
    pose."""
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


def place(outline: ArrayLike, linear: Floats, size: float, centre: ArrayLike) -> Floats:
    """The map with the given linear part, scaled so that the outline's bounds have sqrt(w * h) = ``size``,
    their middle at ``centre``."""
    turned = np.asarray(outline, dtype=np.float64) @ linear.T
    x, y, w, h = bounds(turned)
    scale = size / max(1e-6, np.sqrt(w * h))
    shift = np.asarray(centre, dtype=np.float64) - scale * np.array([x + w / 2, y + h / 2])
    return np.concatenate([scale * linear, shift[:, None]], axis=1)


def flipped(linear: Floats) -> Floats:
    """The linear part after mirroring the source left to right."""
    return linear @ np.diag([-1.0, 1.0])


def to_centres(matrix: Floats) -> Floats:
    """A map of pixel edges as OpenCV wants it: of pixel centres."""
    moved = matrix.copy()
    moved[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    return moved


def rounded_corners(box: ArrayLike) -> Floats:
    """(32, 2) outline between ellipse and rectangle: what a boxed object without outline fills, more or
    less."""
    x, y, w, h = np.asarray(box, dtype=np.float64)
    angle = np.arange(32) * (2 * np.pi / 32)
    cos, sin = np.cos(angle), np.sin(angle)
    px = np.sign(cos) * np.abs(cos) ** 0.5
    py = np.sign(sin) * np.abs(sin) ** 0.5
    return np.stack([x + w / 2 * (1 + px), y + h / 2 * (1 + py)], axis=1)


def corners(box: ArrayLike) -> Floats:
    """(4, 2) corners of x, y, w, h."""
    x, y, w, h = np.asarray(box, dtype=np.float64)
    return np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])


def dense(outline: ArrayLike, least: int = 32) -> Floats:
    """The outline with points between its corners, so that bending its edges is seen."""
    points = np.asarray(outline, dtype=np.float64)
    if len(points) >= least:
        return points
    parts = -(-least // len(points))
    after = np.roll(points, -1, axis=0)
    steps = np.arange(parts)[:, None, None] / parts
    return np.asarray((points + steps * (after - points)).reshape(-1, 2))


@dataclass(frozen=True, kw_only=True, slots=True)
class Wobble:
    """A smooth bending of a whole view: what is drawn at q was at q + ``shift`` (2, S, S) [q] before
    (pixels)."""

    shift: NDArray[np.float32]

    @classmethod
    def draw(cls, size: int, rng: np.random.Generator) -> Wobble:
        """A random field, some percent of a target's usual side strong."""
        grid = rng.normal(size=(2, 5, 5)).astype(np.float32) * np.float32(rng.uniform(0.01, 0.03) * size)
        return cls(
            shift=np.stack([cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC) for part in grid])
        )

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The bent image (S, S[, C])."""
        size = self.shift.shape[1]
        ramp = np.arange(size, dtype=np.float32)
        xs, ys = self.shift[0] + ramp, self.shift[1] + ramp[:, None]
        bent = cv2.remap(image, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(bent, dtype=np.uint8)

    def moved(self, points: Floats) -> Floats:
        """Where points (N, 2) are after the bending (fixed-point inverse of the field)."""
        moved, last = points, self.shift.shape[1] - 1
        for _ in range(6):
            spot = np.clip(moved - 0.5, 0, last).astype(np.float32)[None]
            field = [cv2.remap(part, spot[..., 0], spot[..., 1], cv2.INTER_LINEAR)[0] for part in self.shift]
            moved = points - np.stack(field, axis=1)
        return np.asarray(moved, dtype=np.float64)


def bend(patch: Patch, rng: np.random.Generator, level: int = 0) -> Patch:
    """The object bent: by a smooth random field, or with its two halves moved differently. Its size in pixels
    is kept (``outline`` stays in units of level 0 of the result, which is ``level`` of the source)."""
    source = patch.levels[min(level, len(patch.levels) - 1)]
    h, w = source.shape[:2]
    margin = max(3, round(0.14 * max(h, w)))
    ys, xs = np.mgrid[0 : h + 2 * margin, 0 : w + 2 * margin].astype(np.float32)
    xs -= margin
    ys -= margin
    if rng.random() < 0.6:
        grid = rng.normal(size=(2, 4, 4)).astype(np.float32) * np.float32(
            rng.uniform(0.02, 0.055) * np.sqrt(h * w)
        )
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
    colours = cv2.remap(source[..., :3].copy(), xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.remap(source[..., 3].copy(), xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return make_patch(np.dstack([colours, alpha]))

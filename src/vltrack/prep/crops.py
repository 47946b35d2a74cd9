"""Square crops of frames, the exact map back to the frame, and normalized image tensors.

Boxes are in *edge* coordinates: pixel ``i`` covers ``[i, i + 1)``, so a box over the whole frame is ``0, 0, W,
H``. ``cv2.warpAffine`` uses *center* coordinates: the integer ``i`` is the middle of pixel ``i``.
``Crop.matrix`` is what cv2 takes; ``to_crop`` and ``to_frame`` move boxes and account for the half pixel
between the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.errors import BoxInvalid
from vltrack.core.types import Box, Image

if TYPE_CHECKING:
    import torch

MIN_SIDE = 4.0
"""Smallest side of a region in frame pixels; a smaller crop would show one blurred pixel."""

_SAMPLES = 3
"""Area averaging reads 3 to 5 frame pixels along each side of a crop pixel."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB mean and standard deviation of ImageNet in [0, 1], as in torchvision and all public image backbones."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A ``size`` x ``size`` image cut from a frame, and its position.

    Attributes:
        matrix: (2, 3) float64, frame to crop in cv2's pixel-center coordinates: ``[[s, 0, a], [0, s, b]]``.
        size: side of the crop in crop pixels.
    """

    matrix: NDArray[np.float64]
    size: int

    @property
    def scale(self) -> float:
        """Crop pixels per frame pixel."""
        return float(self.matrix[0, 0])

    @property
    def offset(self) -> NDArray[np.float64]:
        """(2,) position of the frame's top left corner in the crop, in edge coordinates."""
        shift: NDArray[np.float64] = self.matrix[:, 2] + 0.5 - 0.5 * self.scale
        return shift

    def to_crop(self, xywh: ArrayLike) -> Box:
        """(..., 4) xywh in frame pixels -> the same boxes in crop pixels."""
        box = np.asarray(xywh, dtype=np.float64) * self.scale
        box[..., :2] += self.offset
        return box

    def to_frame(self, xywh: ArrayLike) -> Box:
        """(..., 4) xywh in crop pixels -> the same boxes in frame pixels; the inverse of ``to_crop``."""
        box = np.array(xywh, dtype=np.float64)
        box[..., :2] -= self.offset
        return box / self.scale


def region_for(box_xywh: ArrayLike, factor: float, size: int, *, least: float = MIN_SIDE) -> Crop:
    """Return the square region around a box: same center, side ``ceil(sqrt(w * h) * factor)`` frame pixels.

    The rule of STARK and OSTrack (``sample_target``), which the five trackers share.

    Args:
        box_xywh: (4,) in frame pixels; may lie partly or wholly outside the frame.
        factor: side of the region over the geometric mean of the box's sides.
        size: side of the crop in pixels.
        least: smallest side of the region in frame pixels.

    Raises:
        BoxInvalid: a number is not finite, a side is not positive, or their product overflows.
    """
    middle_x, middle_y, side = _square(box_xywh, factor)
    scale = size / max(least, side)
    return _crop(scale, size / 2 - scale * middle_x, size / 2 - scale * middle_y, size)


def _square(box_xywh: ArrayLike, factor: float) -> tuple[float, float, int]:
    """Center and side of the square region around a box."""
    x, y, w, h = (float(v) for v in np.asarray(box_xywh, dtype=np.float64))
    if not (math.isfinite(x) and math.isfinite(y) and w > 0 and h > 0 and 0 < w * h < math.inf):
        raise BoxInvalid(f"Cannot cut a region around the box: {x:g}, {y:g}, {w:g}, {h:g}.")
    # Not sqrt(w) * sqrt(h): its last bit makes the region of a 10 x 10 box at factor 4 a pixel larger than 40.
    return x + 0.5 * w, y + 0.5 * h, math.ceil(math.sqrt(w * h) * factor)


def letterbox(width: int, height: int, size: int) -> Crop:
    """Return the crop that shows the whole frame, centered, aspect kept; used to start from text."""
    scale = size / max(width, height)
    return _crop(scale, (size - scale * width) / 2, (size - scale * height) / 2, size)


def _crop(scale: float, left: float, top: float, size: int) -> Crop:
    """Return the crop in which the frame's corner (0, 0) is at (left, top), in edge coordinates."""
    half = 0.5 * scale - 0.5
    return Crop(np.array([[scale, 0.0, left + half], [0.0, scale, top + half]]), size)


def mean_color(image: Image) -> tuple[float, float, float]:
    """Return the frame's mean color, estimated from about 64 x 64 evenly spread pixels."""
    height, width = image.shape[:2]
    few = np.ascontiguousarray(image[:: max(1, height // 64), :: max(1, width // 64)])
    count = few.shape[0] * few.shape[1]
    red, green, blue, _ = cv2.sumElems(few)  # exact for whole numbers, and a third of the time of a mean
    return red / count, green / count, blue / count


def cut(image: Image, crop: Crop, border: tuple[float, float, float] | None = None) -> Image:
    """Cut the crop out of the frame; pixels outside the frame get one color.

    Up to a shrink of two this is one bilinear ``cv2.warpAffine``. For a stronger one, where a bilinear warp
    would skip pixels, the visible part of the frame is first reduced by a whole factor (every k-th pixel, then
    ``INTER_AREA`` over 3 to 5 of them), and the warp does the rest by the same exact map. No array grows with
    the frame. Less than one crop pixel at the frame's right and lower edge may take the border color.

    Args:
        image: (H, W, 3) RGB uint8; not modified.
        crop: from ``region_for`` or ``letterbox``.
        border: color outside the frame; ``None`` = the frame's mean color.

    Returns:
        (size, size, 3) RGB uint8, contiguous.
    """
    color = mean_color(image) if border is None else border
    matrix = crop.matrix
    if 1.0 / crop.scale >= 2.0:
        reduced = _reduce(image, crop)
        if reduced is None:
            return np.full((crop.size, crop.size, 3), np.round(color), dtype=np.uint8)
        image, matrix = reduced
    size, constant = (crop.size, crop.size), cv2.BORDER_CONSTANT
    warped = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=constant, borderValue=color)
    return cast(Image, warped)


def cut_published(image: Image, box_xywh: ArrayLike, factor: float, size: int) -> Image:
    """Return the crop of ``region_for`` exactly as the code that STARK's descendants share cuts it.

    The region is moved to whole pixels, pixels outside the frame are black, and where the region reaches the
    right or lower edge the frame's last column or row is black too. As in that code, boxes are mapped back by
    ``region_for``, without the move. For weights trained on such crops; ``cut`` is exact.

    Returns:
        (size, size, 3) RGB uint8.

    Raises:
        BoxInvalid: as ``region_for``.
    """
    side, seen, inside = _whole_pixels(image, box_xywh, factor)
    patch = np.zeros((side, side, 3), dtype=np.uint8)
    patch[inside] = image[seen]
    return cast(Image, cv2.resize(patch, (size, size)))


def padded_published(image: Image, box_xywh: ArrayLike, factor: float, size: int) -> NDArray[np.bool_]:
    """(size, size) bool: pixels of ``cut_published`` that are padding, or interpolated with it (STARK's mask)."""
    side, _, inside = _whole_pixels(image, box_xywh, factor)
    padded = np.ones((side, side))
    padded[inside] = 0.0
    return cv2.resize(padded, (size, size)) > 0


def _whole_pixels(image: Image, box_xywh: ArrayLike, factor: float) -> tuple[int, tuple[slice, ...], tuple[slice, ...]]:
    """Side of the published region, and what is visible of it: rows and columns of the frame, and of the region."""
    middle_x, middle_y, side = _square(box_xywh, factor)
    seen, inside = [], []
    for middle, extent in ((middle_y, image.shape[0]), (middle_x, image.shape[1])):
        low = round(middle - side * 0.5)
        high = low + side - max(low + side - extent + 1, 0)
        first = max(low, 0)
        seen.append(slice(first, max(high, first)))
        inside.append(slice(first - low, max(high, first) - low))
    return side, tuple(seen), tuple(inside)


def letterbox_published(image: Image, size: int) -> Image:
    """Return the whole frame in a square as UVLTrack's code does: a bilinear resize to whole pixels, black around.

    As there, boxes are mapped back by ``letterbox``, in which neither side is rounded.
    """
    height, width = image.shape[:2]
    short = max(1, int(size * min(width, height) / max(width, height)))
    shape = (size, short) if width > height else (short, size)
    square = np.zeros((size, size, 3), dtype=np.uint8)
    left, top = ((size - side + 1) // 2 for side in shape)
    square[top : top + shape[1], left : left + shape[0]] = cv2.resize(image, shape)
    return square


def _reduce(image: Image, crop: Crop) -> tuple[Image, NDArray[np.float64]] | None:
    """Return the visible part of the frame, shrunk by a whole factor, and the map from there to the crop.

    None if nothing of the frame is visible.
    """
    height, width = image.shape[:2]
    factor = int(min(1.0 / crop.scale, width, height))
    stride = max(1, factor // _SAMPLES)
    area = factor // stride
    step = stride * area
    # One step more on each side: the warp interpolates beyond the crop's outermost pixels.
    low = np.floor(-crop.offset / crop.scale - step).clip(0, (width, height)).astype(int)
    high = np.ceil((crop.size - crop.offset) / crop.scale + 2 * step).clip(0, (width, height)).astype(int)
    count = (high - low) // step
    if (count < 1).any() or crop.scale * max(width, height) < 1.0:
        return None
    (x1, y1), (x2, y2) = low, low + count * step
    view = image[y1:y2, x1:x2]
    if stride > 1:
        # By a whole factor INTER_NEAREST takes pixels 0, k, 2k, ... exactly; a test checks that cv2 does.
        view = _resize(view, count * area, cv2.INTER_NEAREST)
    if area > 1:
        view = _resize(view, count, cv2.INTER_AREA)
    # The center of pixel i of the view is frame pixel low + stride * (area * i + (area - 1) / 2).
    matrix = np.empty((2, 3))
    matrix[:, :2] = crop.matrix[:, :2] * step
    matrix[:, 2] = crop.matrix[:, 2] + crop.scale * (low + stride * (area - 1) / 2)
    return view, matrix


def _resize(view: Image, size: NDArray[np.int_], how: int) -> Image:
    return cast(Image, cv2.resize(view, (int(size[0]), int(size[1])), interpolation=how))


def images_to_tensor(
    crops: Sequence[Image] | NDArray[np.uint8],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> torch.Tensor:
    """Return ``(x / 255 - mean) / std`` of B images (S, S, 3) RGB uint8, or of one array (B, S, S, 3).

    Returns:
        (B, 3, S, S) float32, ``channels_last`` in memory, which is the order of the pixels given.
    """
    import torch

    batch = torch.from_numpy(np.stack(list(crops)))
    count, height, width, _ = batch.shape
    deviation = torch.tensor(std, dtype=torch.float32)
    gain = 1.0 / (255.0 * deviation)
    shift = -torch.tensor(mean, dtype=torch.float32) / deviation
    # Whole rows at once: a last axis of three would take ten times as long.
    rows = batch.view(count, height, width * 3).to(torch.float32)
    rows.mul_(gain.repeat(width)).add_(shift.repeat(width))
    return rows.view(count, height, width, 3).permute(0, 3, 1, 2)


def fit_side(
    image: Image, side: int, mean: tuple[float, ...], std: tuple[float, ...], multiple: int = 32
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Scale an image so that its longer side is ``side``, normalize it and pad it to a multiple of a size.

    Args:
        image: (H, W, 3) RGB uint8.
        side: pixels of the longer side.
        mean, std: of RGB in [0, 1].
        multiple: height and width are padded with zeros, at the bottom and right, to multiples of this.

    Returns:
        (1, 3, H', W') float32, and the height and width of the image in it.
    """
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    padded = np.zeros((-(-size[1] // multiple) * multiple, -(-size[0] // multiple) * multiple, 3), dtype=np.float32)
    normalized = ((np.arange(256)[:, None] / 255 - mean) / std).astype(np.float32)[None]  # of each value, per channel
    padded[: size[1], : size[0]] = cv2.LUT(resized, normalized)
    return padded.transpose(2, 0, 1)[None], (size[1], size[0])

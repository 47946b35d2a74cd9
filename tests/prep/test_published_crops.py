"""The published crop: whole pixels, black beyond the frame, the last row and column lost at the edge."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.errors import BoxInvalid
from vltrack.prep.crops import cut, cut_published, letterbox_published, padded_published, region_for


def picture(width: int = 90, height: int = 70) -> np.ndarray:
    return np.random.default_rng(3).integers(1, 256, (height, width, 3), dtype=np.uint8)


def padded_crop(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """Slow and plain: pixel by pixel; the frame ends one pixel early where the region reaches its edge."""
    height, width = image.shape[:2]
    out = np.zeros((side, side, 3), dtype=np.uint8)
    right_edge = width if left + side < width else width - 1
    lower_edge = height if top + side < height else height - 1
    for row in range(side):
        for column in range(side):
            y, x = top + row, left + column
            if 0 <= y < lower_edge and 0 <= x < right_edge:
                out[row, column] = image[y, x]
    return out


@pytest.mark.parametrize(
    ("box", "left", "top", "side"),
    [
        ((40, 30, 10, 10), 35, 25, 20),  # inside
        ((0, 0, 10, 10), -5, -5, 20),  # over the upper left corner
        ((80, 60, 10, 10), 75, 55, 20),  # over the lower right corner: a row and a column are lost
        ((40.4, 30.6, 9, 16), 33, 27, 24),  # rounded to whole pixels
        ((70, 50, 10, 10), 65, 45, 20),  # just inside on both sides
        ((200, 200, 10, 10), 195, 195, 20),  # not in the frame at all
    ],
)
def test_equals_a_plain_recount(box: tuple[float, ...], left: int, top: int, side: int) -> None:
    whole = padded_crop(picture(), left, top, side)
    assert np.array_equal(cut_published(picture(), box, 2.0, 32), cv2.resize(whole, (32, 32)))
    # No pixel of the picture is black: what is black is padding, and so is what is mixed with it.
    padded = cv2.resize((whole == 0).all(axis=2).astype(float), (32, 32)) > 0
    assert np.array_equal(padded_published(picture(), box, 2.0, 32), padded)


@settings(max_examples=60, deadline=None)
@given(st.floats(-120, 120), st.floats(-120, 120), st.floats(0.5, 120), st.floats(0.5, 120), st.floats(1.5, 5))
def test_any_box_gives_a_crop(x: float, y: float, w: float, h: float, factor: float) -> None:
    crop = cut_published(picture(), (x, y, w, h), factor, 32)
    assert crop.shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("width", "height", "left", "top", "wide", "high"),
    [(90, 70, 0, 8, 64, 49), (70, 90, 8, 0, 49, 64), (64, 64, 0, 0, 64, 64), (300, 1, 0, 32, 64, 1)],
)
def test_the_whole_frame_is_resized_to_whole_pixels(width, height, left, top, wide, high) -> None:
    """Of an odd rest the larger part is left of or above the picture."""
    shown = np.zeros((64, 64, 3), dtype=np.uint8)
    shown[top : top + high, left : left + wide] = cv2.resize(picture(width, height), (wide, high))
    assert np.array_equal(letterbox_published(picture(width, height), 64), shown)


def test_inside_the_frame_it_shows_what_our_crop_shows() -> None:
    smooth = cv2.GaussianBlur(picture(), (15, 15), 5)
    box = (35, 25, 20, 20)  # on whole pixels: nothing is moved
    ours = cut(smooth, region_for(box, 2.0, 64), (0, 0, 0)).astype(int)
    # At its rim the published crop does not look beyond itself; elsewhere the two round their weights apart.
    apart = np.abs(ours - cut_published(smooth, box, 2.0, 64))[2:-2, 2:-2]
    assert apart.max() <= 2
    assert apart.mean() < 0.5


def test_a_box_without_size_is_refused() -> None:
    with pytest.raises(BoxInvalid):
        cut_published(picture(), (1, 1, 0, 5), 2.0, 32)

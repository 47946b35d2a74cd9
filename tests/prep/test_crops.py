"""Crops: the box map is exact in both directions and agrees with what cv2 does to the pixels; image tensors."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.errors import BoxInvalid
from vltrack.prep.crops import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MIN_SIDE,
    cut,
    fit_side,
    images_to_tensor,
    letterbox,
    mean_color,
    region_for,
)

BOXES = st.tuples(st.floats(-9000, 9000), st.floats(-9000, 9000), st.floats(0.2, 8000), st.floats(0.2, 8000))


@settings(deadline=None)
@given(box=BOXES, other=BOXES, factor=st.floats(1, 6), size=st.sampled_from([64, 128, 224, 256, 384]))
def test_a_box_survives_the_way_to_the_crop_and_back(box, other, factor, size) -> None:
    crop = region_for(box, factor, size)
    boxes = np.array([box, other])
    back = crop.to_frame(crop.to_crop(boxes))
    assert back.shape == (2, 4)
    assert np.abs(back - boxes).max() < 1e-6
    assert np.abs(crop.to_crop(crop.to_frame(boxes)) - boxes).max() < 1e-6


@settings(deadline=None)
@given(box=BOXES, factor=st.floats(1, 6))
def test_the_region_has_the_published_side_and_the_boxs_center(box, factor) -> None:
    crop = region_for(box, factor, 256)
    side = 256 / crop.scale
    assert side == pytest.approx(max(MIN_SIDE, np.ceil(np.sqrt(box[2] * box[3]) * factor)))
    x, y, w, h = crop.to_crop(box)
    assert (x + w / 2, y + h / 2) == pytest.approx((128, 128), abs=1e-6)


@pytest.mark.parametrize(
    ("w", "h", "factor", "side"), [(10, 10, 4, 40), (5, 20, 4, 40), (7, 7, 5, 35), (3, 12, 2.5, 15)]
)
def test_a_whole_side_is_not_rounded_up(w, h, factor, side) -> None:
    assert 40 / region_for((3, 4, w, h), factor, 40).scale == pytest.approx(side)


def test_mapping_does_not_touch_its_input() -> None:
    crop, box = region_for((1, 2, 3, 4), 2, 64), np.array([1.0, 2.0, 3.0, 4.0])
    crop.to_crop(box)
    crop.to_frame(box)
    assert box.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "box", [(np.nan, 0, 1, 1), (0, np.inf, 1, 1), (0, 0, 0, 1), (0, 0, 1, -1), (0, 0, np.inf, 1), (0, 0, 1e200, 1e200)]
)
def test_a_region_needs_a_finite_box_with_a_size(box) -> None:
    with pytest.raises(BoxInvalid):
        region_for(box, 4, 256)


def _blob_center(image: np.ndarray) -> np.ndarray:
    """Center of mass of the bright blob, edge coordinates."""
    weight = image[..., 0].astype(float)
    weight[weight < 8] = 0
    ys, xs = np.mgrid[0 : image.shape[0], 0 : image.shape[1]] + 0.5
    return np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()


@settings(max_examples=20, deadline=None)
@given(
    cx=st.floats(150, 650),
    cy=st.floats(150, 450),
    side=st.floats(20, 400),
    shift=st.floats(-0.2, 0.2),
    factor=st.sampled_from([1.5, 2.0, 4.0]),
)
def test_pixels_land_where_the_map_says(cx, cy, side, shift, factor) -> None:
    """A smooth blob is drawn in the frame; its center in the crop is the mapped one, whatever the shrink."""
    ys, xs = np.mgrid[0:600, 0:800] + 0.5
    sigma = side / 5
    blob = 255 * np.exp(-((xs - cx) ** 2 + (ys - cy) ** 2) / (2 * sigma**2))
    frame = np.repeat(np.round(blob).astype(np.uint8)[..., None], 3, axis=2)
    crop = region_for((cx - side / 2 + shift * side, cy - side / 2, side, side), factor, 128)
    inside = (max(0, cx - 3 * sigma), max(0, cy - 3 * sigma), min(800, cx + 3 * sigma), min(600, cy + 3 * sigma))
    frame_is_whole = inside == (cx - 3 * sigma, cy - 3 * sigma, cx + 3 * sigma, cy + 3 * sigma)
    picture = cut(frame, crop, border=(0, 0, 0))
    want = crop.to_crop((cx, cy, 1, 1))[:2]
    reach = 3 * sigma * crop.scale
    if frame_is_whole and (want - reach > 0).all() and (want + reach < 128).all():
        assert np.abs(_blob_center(picture) - want).max() < 0.15


@pytest.mark.parametrize("size", [32, 64, 100, 200])
def test_an_aligned_shrink_is_the_mean_of_the_pixels(size) -> None:
    """Shrinks by 2 and 4 of a frame that fits exactly: no shift, no border, plain area means."""
    rng = np.random.default_rng(0)
    frame = cv2.GaussianBlur(rng.integers(0, 256, (400, 400, 3), dtype=np.uint8), (0, 0), 6)
    crop = letterbox(400, 400, size)
    want = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA).astype(int)
    got = cut(frame, crop).astype(int)
    assert np.abs(got - want)[1:-1, 1:-1].max() <= 6


def test_whole_factor_nearest_resize_takes_every_kth_pixel() -> None:
    """cut relies on it: should cv2 change, the crop would shift by half a step."""
    row = np.arange(0, 240, dtype=np.uint8).reshape(1, 240, 1).repeat(5, axis=0).repeat(3, axis=2)
    for k in (2, 3, 4, 5):
        assert cv2.resize(row, (240 // k, 1), interpolation=cv2.INTER_NEAREST)[0, :, 0].tolist() == list(
            range(0, 240, k)
        )


def test_no_shrink_is_a_plain_copy_and_the_frame_is_not_touched() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    frame.flags.writeable = False
    crop = region_for((38, 28, 16, 16), 4, 64)  # region 14..78 x 4..68, scale 1
    assert (cut(frame, crop) == frame[4:68, 14:78]).all()


def test_outside_the_frame_is_one_color() -> None:
    frame = np.full((60, 80, 3), (200, 100, 50), dtype=np.uint8)
    frame[:, :40] = (0, 0, 0)
    far = region_for((-5000, -5000, 30, 30), 4, 64)
    assert (cut(frame, far) == np.round(mean_color(frame))).all()
    assert (cut(frame, far, border=(1, 2, 3)) == (1, 2, 3)).all()
    half = cut(frame, region_for((70, 20, 20, 20), 4, 80), border=(9, 8, 7))
    assert (half[:, -10:] == (9, 8, 7)).all()
    assert (half[40, 10:30] == (200, 100, 50)).all()


@pytest.mark.parametrize("factor", [2.0, 4.0])
@pytest.mark.parametrize("size", [128, 256])
def test_inside_a_frame_no_border_shows(factor, size) -> None:
    frame = np.full((700, 700, 3), 120, dtype=np.uint8)
    for side in (20, 60, 100, 150):
        assert (
            cut(frame, region_for((345 - side / 2, 351.3 - side / 2, side, side), factor, size), (0, 0, 0)) == 120
        ).all()


@settings(max_examples=60, deadline=None)
@given(box=st.tuples(*[st.floats(-1e6, 1e6)] * 2, *[st.floats(1e-3, 1e6)] * 2), factor=st.floats(1, 6))
def test_any_finite_box_gives_a_crop(box, factor) -> None:
    frame = np.full((30, 50, 3), 7, dtype=np.uint8)
    picture = cut(frame, region_for(box, factor, 32), border=(7, 7, 7))
    assert picture.shape == (32, 32, 3)
    assert picture.dtype == np.uint8
    assert (picture == 7).all()


@pytest.mark.fault("B05")
@pytest.mark.parametrize("box", [(0, 0, 7680, 4320), (1000, 900, 1500, 1200), (5, 5, 0.1, 0.1)])
def test_a_crop_of_an_8k_frame_takes_no_memory_worth_naming(box) -> None:
    frame = np.broadcast_to(np.uint8(9), (4320, 7680, 3)).copy()
    tracemalloc.start()
    picture = cut(frame, region_for(box, 4, 256))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (picture == 9).all()
    assert peak < 12_000_000  # the frame has 100 MB; numpy and cv2's numpy outputs are traced


@settings(deadline=None)
@given(width=st.integers(1, 4000), height=st.integers(1, 4000))
def test_letterbox_holds_the_whole_frame_in_the_middle(width, height) -> None:
    x, y, w, h = letterbox(width, height, 256).to_crop((0, 0, width, height))
    assert max(w, h) == pytest.approx(256)
    assert w / h == pytest.approx(width / height)
    assert (x + w / 2, y + h / 2) == pytest.approx((128, 128))
    assert min(x, y) == pytest.approx(0, abs=1e-6)


def test_formula_and_layout() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    before = batch.copy()
    tensor = images_to_tensor(batch)
    want = ((batch / 255.0 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)).transpose(0, 3, 1, 2)
    assert tensor.dtype == torch.float32
    assert tensor.shape == (2, 3, 8, 8)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert np.abs(tensor.numpy() - want).max() < 1e-5
    assert (batch == before).all()


def test_a_list_is_a_batch_and_views_are_fine() -> None:
    batch = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    flipped = [picture[:, ::-1] for picture in batch]
    assert torch.equal(images_to_tensor(flipped), images_to_tensor(batch[:, :, ::-1]))
    assert torch.equal(images_to_tensor(batch)[1:2], images_to_tensor([batch[1]]))
    assert torch.equal(
        images_to_tensor(batch, (0, 0, 0), (1, 1, 1)).mul(255).round().byte().permute(0, 2, 3, 1),
        torch.from_numpy(batch),
    )


@pytest.mark.parametrize(
    ("size", "side", "shape"),
    [((50, 100), 64, (32, 64)), ((200, 30), 64, (64, 10)), ((40, 40), 96, (96, 96)), ((2, 300), 50, (1, 50))],
)
def test_an_image_is_fitted_normalized_and_padded(size: tuple[int, int], side: int, shape: tuple[int, int]) -> None:
    image = np.full((*size, 3), (10, 128, 250), dtype=np.uint8)
    fitted, inside = fit_side(image, side, IMAGENET_MEAN, IMAGENET_STD)
    assert inside == shape
    assert fitted.shape == (1, 3, *(-(-n // 32) * 32 for n in shape))
    assert fitted.dtype == np.float32
    expected = (np.array([10, 128, 250]) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    part = fitted[0, :, : shape[0], : shape[1]]
    np.testing.assert_allclose(part, np.broadcast_to(expected[:, None, None], part.shape), atol=1e-5)
    assert np.abs(fitted).sum() == pytest.approx(np.abs(part).sum())

"""Geometry of the engine: frame to crop to network to frame gives exactly the box of the network."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted import Spotter, one_box, scene, tracker
from vltrack.core.types import Target, xywh_to_cxcywh
from vltrack.prep.crops import letterbox

EXACT = {"smooth": 1.0, "penalty": 0.0, "window": 0.0, "refresh_every": 0, "steady": False}
FRAME = np.full((240, 320, 3), 90, dtype=np.uint8)

starts = st.tuples(st.floats(-20, 300), st.floats(-20, 220), st.floats(2, 150), st.floats(2, 150)).filter(
    lambda b: b[0] + b[2] > 12 and b[1] + b[3] > 12
)
truths = st.tuples(st.floats(-140, 310), st.floats(-140, 230), st.floats(20, 150), st.floats(20, 150)).filter(
    lambda b: b[0] + b[2] > 10 and b[1] + b[3] > 10
)


@settings(max_examples=60, deadline=None)
@given(start=starts, truth=truths, lost_for=st.integers(0, 60))
def test_the_networks_box_comes_back_exactly(start, truth, lost_for) -> None:
    model = one_box((0.5, 0.5, 0.5, 0.5))
    following = tracker(model, **EXACT, search_again_every=0)
    engine = following.engine
    state, _ = engine.start(FRAME, Target(box=start))
    object.__setattr__(state, "lost_for", lost_for)
    region = engine._search(FRAME, (0.0, 0.0, 0.0), state.box, engine._grown(state)).region
    meant = xywh_to_cxcywh(region.to_crop(truth)) / region.size
    model.answer = one_box(tuple(meant)).answer
    (after,) = engine.step(FRAME, [state])
    np.testing.assert_allclose(after.box, truth, atol=1e-6, rtol=0)
    assert after.score == 1.0


def test_no_half_pixel_between_image_and_box() -> None:
    """The network measures where the red lies in the crop's pixels; a shift of half a pixel would show."""
    rng = np.random.default_rng(3)
    following = tracker(Spotter(floor=0.0), **EXACT)
    errors = []
    for _ in range(80):
        x, y, w, h = rng.integers((80, 80, 12, 12), (180, 120, 40, 40))
        image = scene((x, y, w, h), size=(320, 240))
        # The start is off, so that the region lies at no round place.
        following.init(image, box=(x + rng.uniform(-4, 4), y + rng.uniform(-4, 4), w + 0.7, h - 0.4))
        errors.append(xywh_to_cxcywh(following.update(image).box) - (x + w / 2, y + h / 2, w, h))
    assert np.abs(np.mean(errors, axis=0)[:2]).max() < 0.04
    # The blend takes 95 % of a size at a score of 0.95.
    assert np.abs(np.mean(errors, axis=0)[2:]).max() < 0.1


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(40, 400),
    height=st.integers(40, 400),
    box=st.tuples(st.floats(0.05, 0.6), st.floats(0.05, 0.6), st.floats(0.1, 0.35), st.floats(0.1, 0.35)),
)
def test_a_start_from_text_maps_the_letterbox_back_exactly(width, height, box) -> None:
    truth = np.array(box) * (width, height, width, height)
    following = tracker(Spotter())
    scene_crop = letterbox(width, height, 64)
    meant = xywh_to_cxcywh(scene_crop.to_crop(truth)) / 64
    following.engine.network.model = one_box(tuple(meant), 0.9)
    step = following.init(np.zeros((height, width, 3), dtype=np.uint8), text="the thing")
    np.testing.assert_allclose(step.box, truth, atol=1e-6, rtol=0)
    assert step.score == pytest.approx(0.9)


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (97, 61)])
def test_a_text_finds_the_image_content(size) -> None:
    width, height = size
    x, y, w, h = round(0.6 * width), round(0.2 * height), width // 4, height // 4
    image = scene((2, 2, 14, 14), (x, y, w, h), size=size)
    step = tracker(Spotter()).init(image, text="the green thing on the right")
    pixel = max(size) / 64
    np.testing.assert_allclose(step.box, (x, y, w, h), atol=0.75 * pixel)

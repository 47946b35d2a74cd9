"""Box formats convert back and forth, clipping stays inside, overlap is symmetric; the mode of a target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core import types as b
from vltrack.core.types import Mode, Target

XYWH = st.tuples(*[st.floats(-1e4, 1e4)] * 2, *[st.floats(0.01, 1e4)] * 2)

SOLID = st.tuples(*[st.floats(-1e4, 1e4)] * 2, *[st.floats(1, 1e4)] * 2)


@settings(deadline=None)
@given(st.lists(XYWH, min_size=1, max_size=5))
def test_formats_undo_each_other(rows) -> None:
    box = np.array(rows)
    assert np.allclose(b.xyxy_to_xywh(b.xywh_to_xyxy(box)), box, atol=1e-9)
    assert np.allclose(b.cxcywh_to_xywh(b.xywh_to_cxcywh(box)), box, atol=1e-9)
    assert b.xywh_to_xyxy(box).shape == box.shape


def test_formats_mean_what_they_say() -> None:
    assert b.xywh_to_xyxy((1, 2, 3, 4)).tolist() == [1, 2, 4, 6]
    assert b.xywh_to_cxcywh((1, 2, 3, 4)).tolist() == [2.5, 4, 3, 4]
    assert b.xywh_to_xyxy(np.zeros((2, 5, 4), np.float32)).dtype == np.float64


@settings(deadline=None)
@given(XYWH, st.integers(20, 4000), st.integers(20, 4000), st.floats(0, 10))
def test_a_clipped_box_keeps_its_margin_inside(box, width, height, margin) -> None:
    x, y, w, h = b.clip_xywh(box, width, height, margin=margin)
    assert w >= 1
    assert h >= 1
    assert min(x + w, width) - max(x, 0) >= min(margin, 1) - 1e-9
    assert -1e-9 <= x <= width - margin + 1e-9
    assert -1e-9 <= y <= height - margin + 1e-9


@settings(deadline=None)
@given(SOLID, SOLID, st.floats(-500, 500), st.floats(0.1, 10))
def test_overlap_properties(one, two, shift, scale) -> None:
    a, c = np.array(one), np.array(two)
    value = b.iou_xywh(a, c)
    assert 0 <= value <= 1 + 1e-9
    assert value == pytest.approx(b.iou_xywh(c, a))
    assert b.iou_xywh(a, a) == pytest.approx(1, abs=1e-6)
    moved = np.array([shift, -shift, 0, 0])
    assert b.iou_xywh(a + moved, c + moved) == pytest.approx(value, abs=1e-5)
    assert b.iou_xywh(a * scale, c * scale) == pytest.approx(value, abs=1e-6)


def test_overlap_values_and_shapes() -> None:
    assert b.iou_xywh((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert b.iou_xywh((0, 0, 10, 10), (10, 0, 10, 10)) == 0
    assert b.iou_xywh((0, 0, 0, 0), (0, 0, 0, 0)) == 0
    assert b.iou_xywh(np.ones((3, 1, 4)), np.ones((1, 2, 4))).shape == (3, 2)


def test_mode() -> None:
    assert Target(text="the car").mode is Mode.NL
    assert Target(box=(1, 2, 3, 4)).mode is Mode.BBOX
    assert Target(box=(1, 2, 3, 4), text="the car").mode is Mode.NLBBOX
    with pytest.raises(ValueError, match="box"):
        _ = Target().mode


def test_steps_candidates_and_frames_are_compared_by_value() -> None:
    box = np.array([1.0, 2, 3, 4])
    makers = [
        lambda one, n: b.Step(box=one, score=0.5, visible=True, index=n, seconds=0.0, extras={"claim": 1.0}),
        lambda one, n: b.Candidate(box=one, score=n / 9, label="dog"),
        lambda one, n: b.Frame(image=one.astype(np.uint8).reshape(2, 2, 1), index=n, seconds=0.0),
    ]
    for make in makers:
        first = make(box, 0)
        assert first == make(box.copy(), 0)
        assert hash(first) == hash(make(box.copy(), 0))
        assert len({first, make(box.copy(), 0), make(box, 1)}) == 2
        assert first != make(box, 1)
        assert first != make(box + 1, 0)
        assert first != box.tolist()
        assert first in [make(box + 1, 0), make(box, 0)]


def test_a_frame_prints_in_one_line() -> None:
    assert repr(b.Frame(image=np.zeros((4, 6, 3), np.uint8), index=3, seconds=0.12)) == (
        "Frame(6x4, index=3, seconds=0.120)"
    )
    assert repr(b.Frame(image=None, index=3, seconds=0.12)) == "Frame(not decoded, index=3, seconds=0.120)"


@pytest.mark.fault("A08")
@pytest.mark.parametrize("text", [float("nan"), b"the dog", ["the dog"], 5, np.nan])
def test_a_text_that_is_no_str_is_a_type_error(text) -> None:
    with pytest.raises(TypeError, match=f"str, not {type(text).__name__}"):
        Target(text=text)


def test_boxes_of_a_target_are_compared_by_value() -> None:
    assert Target(box=np.array([1, 2, 3, 4])) == Target(box=[1, 2, 3, 4]) == Target(box=(1, 2, 3, 4))


@pytest.mark.fault("A08")
def test_whole_numbers() -> None:
    assert type(b.whole("start", np.int64(5))) is int
    for value in (2.0, np.float64(2), "2", None):
        with pytest.raises(TypeError, match="start must be a whole number"):
            b.whole("start", value)

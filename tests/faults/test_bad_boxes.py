"""Rows B01-B06 of the fault table, as far as boxes themselves go (the others are the tracker's and the
command's).
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.errors import BoxInvalid, BoxOutside, UsageError
from vltrack.prep.prompts import check_box, convert_box, parse_box


@pytest.mark.fault("B01")
@pytest.mark.parametrize(
    ("text", "token", "position"),
    [
        ("1,2,nan,4", "nan", 3),
        ("inf,2,3,4", "inf", 1),
        ("1,2,3,1e400", "1e400", 4),
        ("10px,2,3,4", "10px", 1),
        ("1,2,50%,4", "50%", 3),
        ("1,2,,4", "", 3),
        ("0x10,2,3,4", "0x10", 1),
        ("1_0,2,3,4", "1_0", 1),
        ("1,2,３,4", "３", 3),
        ("a,b,c,d", "a", 1),
        ("1,2,3,4,", "", 5),
        ("[1,2,3,4", "[1", 1),
    ],
)
def test_a_bad_number_is_named_with_its_position(text, token, position) -> None:
    with pytest.raises(BoxInvalid, match=f"position {position}") as caught:
        parse_box(text)
    assert repr(token) in caught.value.message
    assert caught.value.exit_code == 3


@pytest.mark.fault("B01")
@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("  ", 0), ("1,2,3", 3), ("1,5,2,5,3,5,4,5", 8), ("1 2 3 4 5", 5)]
)
def test_other_than_four_numbers_are_refused(text, count) -> None:
    with pytest.raises(BoxInvalid, match=f"{count} numbers"):
        parse_box(text)


@pytest.mark.fault("B01")
@pytest.mark.parametrize(
    "text",
    [
        "120,40,60.5,80", " 120 40 60.5 80 ", "120, 40, 60.5, 80.", "+120,4e1,605e-1,80", "[120, 40, 60.5, 80]",
        "(120 40 60.5 80)", "120;40;60.5;80", " [ 120; 40; 60.5; 80 ] ",
    ],
)  # fmt: skip
def test_plain_numbers_are_read(text) -> None:
    assert parse_box(text) == (120.0, 40.0, 60.5, 80.0)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_box_or_a_clear_error(text) -> None:
    try:
        box = parse_box(text)
    except BoxInvalid as error:
        assert error.message
    else:
        assert np.isfinite(box).all()
        assert box[2] > 0
        assert box[3] > 0


@pytest.mark.fault("B02")
@pytest.mark.parametrize(("text", "position"), [("1,2,0,4", 3), ("1,2,3,0", 4), ("1,2,-3,4", 3), ("300,200,50,-80", 4)])
def test_a_size_must_be_positive(text, position) -> None:
    with pytest.raises(BoxInvalid, match=f"position {position}") as caught:
        parse_box(text)
    assert "xyxy" in caught.value.hint
    with pytest.raises(BoxInvalid):
        check_box([float(v) for v in text.split(",")], 640, 480)


@pytest.mark.fault("B02")
def test_corners_must_be_in_order() -> None:
    assert parse_box("10,20,30,40", fmt="xyxy") == (10, 20, 30, 40)
    with pytest.raises(BoxInvalid, match="Second corner") as caught:
        parse_box("100,200,30,40", fmt="xyxy")
    assert "looks like x,y,w,h" in caught.value.hint


@pytest.mark.fault("B02")
def test_xywh_that_looks_like_corners_is_warned_of() -> None:
    warnings = check_box((400, 300, 500, 420), 640, 480).warnings
    assert any("xyxy" in warning for warning in warnings)
    assert check_box((100, 100, 120, 130), 640, 480).warnings == ()


@pytest.mark.fault("B03")
@pytest.mark.parametrize(
    "box", [(640, 0, 10, 10), (0, 480, 10, 10), (-10, 5, 10, 10), (5, -30, 9, 30), (9e9, 9e9, 1, 1)]
)
def test_a_box_outside_the_frame_names_the_frames_size(box) -> None:
    with pytest.raises(BoxOutside, match="640x480") as caught:
        check_box(box, 640, 480)
    assert caught.value.exit_code == 3
    assert "--box-" in caught.value.hint


@pytest.mark.fault("B04")
def test_a_box_over_the_edge_is_clipped_and_the_original_kept() -> None:
    checked = check_box((-10.5, 400, 50, 200), 640, 480)
    assert checked.box.tolist() == [0, 400, 39.5, 80]
    assert checked.box.dtype == np.float64
    assert checked.original == (-10.5, 400, 50, 200)
    assert len(checked.warnings) == 1


@pytest.mark.fault("B05")
def test_tiny_whole_and_larger_boxes() -> None:
    tiny = check_box((10.2, 10.3, 0.2, 0.4), 640, 480)
    assert tiny.box[2:].tolist() == [1, 1]
    assert (tiny.box[:2] + 0.5).tolist() == pytest.approx([10.3, 10.5])
    assert tiny.warnings
    assert check_box((0, 0, 640, 480), 640, 480).warnings == ()
    assert check_box((-100, -100, 9000, 9000), 640, 480).box.tolist() == [0, 0, 640, 480]
    assert check_box((639.9, 479.95, 0.05, 0.05), 640, 480).box.tolist() == [639, 479, 1, 1]


SIDES = st.floats(1e-6, 1e5)


@settings(deadline=None)
@given(
    box=st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5), SIDES, SIDES),
    width=st.integers(1, 8000),
    height=st.integers(1, 8000),
)
def test_a_checked_box_lies_in_the_frame(box, width, height) -> None:
    try:
        checked = check_box(box, width, height)
    except BoxOutside:
        x, y, w, h = box
        assert x >= width or y >= height or x + w <= 0 or y + h <= 0
        return
    x, y, w, h = checked.box
    assert w >= 1
    assert h >= 1
    assert x >= 0
    assert y >= 0
    assert x + w <= width + 1e-6
    assert y + h <= height + 1e-6


@pytest.mark.fault("B06")
def test_shares_of_the_displayed_frame_become_pixels() -> None:
    """A page shows a 1920x1080 video at any size: shares of the shown picture give the same box."""
    assert convert_box((0.25, 0.5, 0.1, 0.2), "xywh", "rel", 1920, 1080) == pytest.approx((480, 540, 192, 216))
    assert convert_box((480, 540, 672, 756), "xyxy", "px", 1920, 1080) == pytest.approx((480, 540, 192, 216))
    assert convert_box((576, 648, 192, 216), "cxcywh", "px", 1920, 1080) == pytest.approx((480, 540, 192, 216))
    with pytest.raises(BoxInvalid, match="above 2"):
        convert_box((480, 540, 192, 216), "xywh", "rel", 1920, 1080)
    assert any("rel" in warning for warning in check_box((0.25, 0.5, 0.1, 0.2), 1920, 1080).warnings)


def test_unknown_formats_and_units_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="yxyx"):
        parse_box("1,2,3,4", fmt="yxyx")
    with pytest.raises(UsageError, match="cm"):
        convert_box((1, 2, 3, 4), "xywh", "cm", 10, 10)


@pytest.mark.parametrize(
    "box", [None, "abcd", (1, 2, 3), [[1, 2, 3, 4]], (1, 2, np.nan, 4), (1, 2, 3, -np.inf), ("a", 1, 2, 3),
     (10**400, 1, 2, 3), (True, 2, 3, 4), [1, 2, np.True_, 4]]
)  # fmt: skip
def test_boxes_from_programs_are_checked_too(box) -> None:
    with pytest.raises(BoxInvalid):
        check_box(box, 100, 100)

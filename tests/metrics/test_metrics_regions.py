"""Regions of VOT files and their overlaps: every form of a line, damage by line, pixels counted by hand."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.errors import DataError
from vltrack.evaluation.harnesses.vot import (
    Mask,
    Polygon,
    Rectangle,
    Region,
    Special,
    box_mask,
    parse_region,
    read_regions,
    region_text,
)
from vltrack.metrics.masks import is_empty, mask_overlap, pixels_in, toolkit_overlaps
from vltrack.metrics.overlaps import analytic_overlaps, corners, raster_overlaps

ALL = np.ones((2, 3), dtype=bool)


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("0", Special(0)),
        ("1\t", Special(1)),
        (" 2.0000", Special(2)),
        ("nan", Special(0)),
        ("10,20.5,30,40", Rectangle(10, 20.5, 30, 40)),
        ("10 20.5\t30  40", Rectangle(10, 20.5, 30, 40)),
        ("-1.5, 2,\t3,4e0 ", Rectangle(-1.5, 2, 3, 4)),
        ("nan,nan,nan,nan", Special(0)),
        ("1,2,NaN,4,5,6,7,8", Special(0)),
        ("0,0,4,0,4,4,0,4", Polygon(((0, 0), (4, 0), (4, 4), (0, 4)))),
        ("0,0,4,0,4,4", Polygon(((0, 0), (4, 0), (4, 4)))),
    ],
)
def test_every_form_of_a_line(text: str, region: Region) -> None:
    assert parse_region(text) == region


def test_mask_lines_are_rows_of_runs_background_first() -> None:
    # Window of 3 columns and 2 rows at (5, 7): one of background, three of target, the rest not written.
    mask = parse_region("m5,7,3,2,1,3")
    assert isinstance(mask, Mask)
    assert (mask.x, mask.y) == (5, 7)
    assert mask.pixels.tolist() == [[False, True, True], [True, False, False]]
    assert not mask.pixels.flags.writeable
    spaced = parse_region("m 5, 7, 3, 2, 1, 3")
    assert isinstance(spaced, Mask)
    assert (spaced.pixels == mask.pixels).all()
    nothing = parse_region("m0,0,0,0")
    assert isinstance(nothing, Mask)
    assert is_empty(nothing)


@pytest.mark.parametrize(
    "text",
    ["", "x", "3", "-1", "1.5", "1,2", "1,2,3", "1,2,3,4,5", "1,2,3,4,5,6,7", "inf,1,2,3", "1,2,3,4,",
     "1e999", "m1,2,3", "m0,0,2,2,5", "m0,0,2,2,1.5", "m0,0,2,2,-1", "m0,0,-2,2", "m0,0,nan,2",
     "m0,0,99999,99999"],
)  # fmt: skip
def test_what_is_no_region_is_refused_by_name(text: str) -> None:
    with pytest.raises(DataError, match=r"ants1_001\.txt:7: "):
        parse_region(text, "ants1_001.txt:7")


def test_files_may_end_with_or_without_a_line_end(tmp_path: Path) -> None:
    wanted = (Special(1), Rectangle(1, 2, 3, 4), Special(2))
    for k, text in enumerate(("1\n1,2,3,4\n2", "1\n1,2,3,4\n2\n", "\ufeff1\r\n1,2,3,4\r\n2\r\n\r\n")):
        path = tmp_path / f"{k}.txt"
        path.write_bytes(text.encode())
        assert read_regions(path) == wanted


def test_an_empty_line_in_between_and_damage_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "car1_001.txt"
    path.write_text("1\n\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"car1_001\.txt:2: the line is empty"):
        read_regions(path)
    path.write_text("1\n1,2,3,4\n5,6\n")
    with pytest.raises(DataError, match=r"car1_001\.txt:3: 2 numbers"):
        read_regions(path)
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="is no text"):
        read_regions(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_regions(tmp_path / "none.txt")


def test_the_toolkits_binary_form(tmp_path: Path) -> None:
    path = tmp_path / "run.bin"
    rows = [
        struct.pack("<BI", 0, 1),
        struct.pack("<B4f", 1, 1.5, 2, 3, 4),
        struct.pack("<BH6f", 2, 3, 0, 0, 4, 0, 4, 4),
        struct.pack("<BhhHHH2H", 3, -5, 7, 3, 2, 2, 1, 3),
        struct.pack("<B4f", 1, math.nan, 2, 3, 4),
    ]
    path.write_bytes(struct.pack("<hI", 1, 5) + b"".join(rows))
    special, box, polygon, mask, unknown = read_regions(path)
    assert (special, box, unknown) == (Special(1), Rectangle(1.5, 2, 3, 4), Special(0))
    assert polygon == Polygon(((0, 0), (4, 0), (4, 4)))
    assert isinstance(mask, Mask)
    assert region_text(mask) == "m-5,7,3,2,1,3,2"
    whole = path.read_bytes()
    for broken in (whole[:-3], whole + b"\0", struct.pack("<hI", 2, 0), struct.pack("<hIB", 1, 1, 9), b"\1",
                   struct.pack("<hIBH", 1, 1, 2, 2), struct.pack("<hIBI", 1, 1, 0, 7),
                   struct.pack("<hIBhhHHH", 1, 1, 3, 0, 0, 65535, 65535, 0),
                   struct.pack("<hIB4f", 1, 1, 1, math.inf, 0, 1, 1)):  # fmt: skip
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"run\.bin"):
            read_regions(path)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(-9, 9), st.randoms(use_true_random=False))
def test_text_comes_back(width: int, height: int, x: int, random) -> None:
    pixels = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)], dtype=bool)
    mask = Mask(x, -x, pixels.reshape(height, width))
    back = parse_region(region_text(mask))
    assert isinstance(back, Mask)
    assert (back.x, back.y) == (x, -x)
    assert back.pixels.shape == (height, width)
    assert (back.pixels == mask.pixels).all()
    for region in (
        Rectangle(random.random(), x / 3, 1e-9, 7),
        Polygon(((0.1, 2), (3, x / 7), (5, 6))),
        Special(2),
    ):
        assert parse_region(region_text(region)) == region


def test_a_box_is_written_as_a_full_mask() -> None:
    # Edges at 1.4, 3.6, 2.6 and 5.4 round to columns 1..3 and rows 3..4.
    mask = box_mask((1.4, 2.6, 2.2, 2.8), (100, 100))
    assert region_text(mask) == "m1,3,3,2,0,6"
    assert region_text(box_mask((-5, -5, 7, 8), (100, 100))) == "m0,0,2,3,0,6"
    for nothing in (None, (math.nan, 1, 2, 3), (200, 0, 5, 5), (5, 5, 0, 9), (5, 5, -3, 9), (-9, 0, 4, 4)):
        assert is_empty(box_mask(nothing, (100, 100)))


def test_pixels_by_hand() -> None:
    # The supervised years: x + w is inside. Columns 0..10 by rows 0..10 are 121 pixels; moved by 5 columns,
    # 6 x 11 = 66 are common, 2 * 121 - 66 = 176 in all.
    a, b = Rectangle(0, 0, 10, 10), Rectangle(5, 0, 10, 10)
    assert raster_overlaps([a], [b])[0] == 66 / 176
    # From 2020 on: 100 pixels each, 50 common. Exact areas agree.
    assert toolkit_overlaps([a], [b])[0] == 50 / 150
    assert analytic_overlaps([a], [b])[0] == 50 / 150
    # In a frame of 8 x 8: columns 0..7 and 5..7 of 8 rows.
    for measure in (raster_overlaps, toolkit_overlaps):
        assert measure([a], [b], (8, 8))[0] == 3 / 8
    assert analytic_overlaps([a], [b], (8, 8))[0] == 3 / 8
    # A triangle of legs 4: rows 0..3 hold 5, 4, 3, 2 pixels. A corner's row (one pixel) counts from 2020.
    triangle, square = Polygon(((0, 0), (4, 0), (0, 4))), Rectangle(0, 0, 4, 4)
    assert raster_overlaps([triangle], [square])[0] == 14 / 25
    assert pixels_in(triangle, (0, 0, 4, 4)).sum(axis=1).tolist() == [5, 4, 3, 2, 1]
    assert analytic_overlaps([triangle], [square])[0] == 0.5


def test_corners_round_halves_up_before_2020_and_to_even_after() -> None:
    # 0.5..4.5 becomes 1..5 or 0..4.
    half, low, high = (
        Polygon(((0.5, 0), (4.5, 0), (4.5, 4), (0.5, 4))),
        Rectangle(0, 0, 4, 4),
        Rectangle(1, 0, 4, 4),
    )
    assert raster_overlaps([half, half], [low, high]).tolist() == [20 / 30, 1]
    assert toolkit_overlaps([half], [Polygon(corners(low))])[0] == 1


def test_codes_and_regions_without_a_pixel() -> None:
    box = Rectangle(1, 1, 5, 5)
    assert np.isnan(raster_overlaps([Special(1), box, Special(0)], [box, Special(0), Special(0)])).all()
    assert np.isnan(analytic_overlaps([Special(2)], [box])).all()
    flat = Rectangle(1, 1, 0, 5)
    assert raster_overlaps([flat, box], [box, flat]).tolist() == [0, 0]
    assert analytic_overlaps([flat, Polygon(((0, 0), (1, 1), (2, 2)))], [box, flat]).tolist() == [0, 0]
    nothing = Mask(3, 3, np.zeros((2, 2), dtype=bool))
    assert toolkit_overlaps([Special(0), nothing, flat], [nothing, flat, Special(0)]).tolist() == [1, 1, 1]
    assert toolkit_overlaps([box, Special(1)], [Special(0), box]).tolist() == [0, 0]
    # Both outside the frame: they do not overlap although they are alike.
    assert toolkit_overlaps([Rectangle(50, 0, 5, 5)], [Rectangle(50, 0, 5, 5)], (20, 20)).tolist() == [0]


def test_masks() -> None:
    one, two = Mask(0, 0, ALL), Mask(1, 0, ALL)
    # 4 of 8 pixels are common; a frame of 2 columns leaves 2 of 4; ignoring column 0 there leaves 2 of 2.
    assert mask_overlap(one, two) == 4 / 8
    assert mask_overlap(one, two, (2, 2)) == 2 / 4
    assert mask_overlap(one, two, (2, 2), Mask(0, 0, np.ones((9, 1), dtype=bool))) == 1
    assert mask_overlap(one, two, (2, 2), Mask(0, 0, np.ones((9, 9), dtype=bool))) == 1
    assert mask_overlap(one, Mask(0, 0, ALL[:0, :0])) == 0
    assert mask_overlap(Mask(50, 50, ALL), Mask(0, 0, ALL[:0, :0]), (20, 20)) == 1
    assert toolkit_overlaps([one], [Rectangle(0, 0, 3, 1)])[0] == 0.5
    with pytest.raises(DataError, match="from 2020 on"):
        raster_overlaps([one], [Rectangle(0, 0, 3, 1)])
    for measure in (raster_overlaps, toolkit_overlaps, analytic_overlaps):
        with pytest.raises(DataError, match="cannot be compared"):
            measure([one], [])


def slow_pixels(points: np.ndarray, origin: np.ndarray) -> set[tuple[int, int]]:
    """The rule of the toolkit's C code one row and one edge after the other, in the window of both shapes."""
    whole = [(math.floor(x + 0.5), math.floor(y + 0.5)) for x, y in (points - origin).tolist()]
    filled = set()
    for row in range(min(y for _, y in whole), max(y for _, y in whole) + 1):
        nodes = []
        for k, (x, y) in enumerate(whole):
            before_x, before_y = whole[k - 1]
            if y != before_y and min(y, before_y) <= row <= max(y, before_y):
                nodes.append(math.floor(x + (row - y) / (before_y - y) * (before_x - x)))
        nodes.sort()
        while len(nodes) > 1:
            if nodes[0] == nodes[1]:
                nodes.pop(0)
                continue
            filled |= {(column, row) for column in range(nodes[0], nodes[1] + 1)}
            nodes = nodes[2:]
    return filled


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_agrees_with_the_slow_rule_on_any_polygon(count: int) -> None:
    rng = np.random.default_rng(count)
    shapes = rng.uniform(1, 40, (120, 2, count, 2)).round(2).astype(np.float32).astype(np.float64)
    pairs = [tuple(Polygon(tuple(map(tuple, p.tolist()))) for p in pair) for pair in shapes]
    found = raster_overlaps([a for a, _ in pairs], [b for _, b in pairs])
    for overlap, (a, b) in zip(found, shapes, strict=True):
        origin = np.floor(np.minimum(a.min(axis=0), b.min(axis=0)))
        one, two = slow_pixels(a, origin), slow_pixels(b, origin)
        assert overlap == len(one & two) / max(1, len(one | two))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-20, 60), st.floats(-20, 60), st.floats(5, 60), st.floats(5, 60), st.floats(0, 3.2),
    st.floats(-8, 8),
)  # fmt: skip
def test_the_measures_agree_but_for_the_border(x, y, w, h, turn, shift) -> None:
    square = np.array([[-w, -h], [w, -h], [w, h], [-w, h]])
    spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    points = square @ spin.T + (x, y)
    a = Polygon(tuple(map(tuple, points.tolist())))
    b = Polygon(tuple(map(tuple, (points + shift).tolist())))
    exact = analytic_overlaps([a], [b])[0]
    border = 2 / min(w, h)
    assert raster_overlaps([a], [b])[0] == pytest.approx(exact, abs=border)
    assert toolkit_overlaps([a], [b])[0] == pytest.approx(exact, abs=border)
    for measure in (raster_overlaps, toolkit_overlaps, analytic_overlaps):
        assert measure([a], [a])[0] == pytest.approx(1)
        assert measure([a], [b], (50, 40))[0] == pytest.approx(measure([b], [a], (50, 40))[0], abs=1e-9)


def test_many_pairs_at_once_are_as_each_alone() -> None:
    rng = np.random.default_rng(3)
    boxes = [Rectangle(*row) for row in rng.uniform(1, 300, (400, 4)).tolist()]
    boxes[7] = Rectangle(0, 0, 1e9, 1e9)
    other = boxes[1:] + boxes[:1]
    together = raster_overlaps(boxes, other)
    assert together.tolist() == [raster_overlaps([a], [b])[0] for a, b in zip(boxes, other, strict=True)]
    assert (together > 0).sum() > 100

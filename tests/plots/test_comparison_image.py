"""Comparison of trackers: boxes, band, keyframes and the image show what they are given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vltrack.core.errors import DataError
from vltrack.plots import text
from vltrack.plots.compare import TILE, WIDTH, ComparisonData, KeyframeSelector, comparison_image
from vltrack.plots.compare_video import LANE, NARROWEST, PAPER, Band, clock, compose, draw_boxes
from vltrack.plots.draw import COLORS

NAN = float("nan")
NAMES = ("first", "second", "third")


def gray(width: int = 320, height: int = 240) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def has(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Where an image has just that color."""
    return (image == np.array(color, np.uint8)).all(axis=2)


# -- boxes on a frame ---------------------------------------------------------------------------------


def test_every_box_has_its_color_and_only_tagged_ones_a_name() -> None:
    boxes = [(20, 60, 60, 50), (120, 60, 60, 50), (NAN,) * 4]
    image = gray()
    drawn = draw_boxes(image, boxes, (True, True, True), NAMES, (False, True, True))
    assert (image == 90).all()
    rows, columns = np.nonzero(has(drawn, COLORS[0]))
    assert (columns.min(), columns.max()) == (pytest.approx(20, abs=2), pytest.approx(80, abs=2))
    assert (rows.min(), rows.max()) == (pytest.approx(60, abs=2), pytest.approx(110, abs=2))
    assert np.nonzero(has(drawn, COLORS[1]))[0].min() < 50  # its plate is above
    assert not has(drawn, COLORS[2]).any()


def test_a_box_that_is_held_is_dashed() -> None:
    whole, dashed = (
        has(draw_boxes(gray(), [(20, 60, 200, 100)], (seen,), NAMES, (False,)), COLORS[0]).sum()
        for seen in (True, False)
    )
    assert 0.3 * whole < dashed < 0.75 * whole


def test_plates_keep_off_each_other_and_inside() -> None:
    same = [(100, 8, 60, 50)] * 3
    drawn = draw_boxes(gray(), same, (True,) * 3, NAMES, (True,) * 3)
    areas = [has(drawn, color).sum() for color in COLORS[:3]]
    size = max(10, round(11 * 0.6))
    for name, area in zip(NAMES, areas, strict=True):
        plate = (text.width_of(name, size, bold=True) + 2 * max(2, size // 4)) * round(size * 1.3)
        assert area > 0.35 * plate, name


@pytest.mark.parametrize("box", [(-1e9, -1e9, 2e9, 2e9), (5000, 5000, 10, 10), (0, 0, 0.1, 0.1)])
def test_boxes_far_outside_do_no_harm(box) -> None:
    drawn = draw_boxes(gray(40, 30), [box], (True,), ("x" * 300,), (True,))
    assert drawn.shape == (30, 40, 3)


# -- the band below a video ---------------------------------------------------------------------------


def lane_of(band: Band, drawn: np.ndarray, t: int) -> np.ndarray:
    top, bottom = band._lane(t)
    return drawn[top:bottom, band._left : band._right]


def test_a_timeline_is_as_high_as_the_agreement_and_grows_with_time() -> None:
    band = Band(NAMES, 640, total=10)
    for index in range(5):
        drawn = band.draw((index, index / 25), 0.5, (1.0, 0.5, NAN), (0.9, 0.8, NAN), (True,) * 3)
    assert drawn.shape == (band.height, 640, 3)
    now = (band._right - band._left) // 2
    full, half, nothing = (~has(lane_of(band, drawn, t), LANE) for t in range(3))
    assert full[:, : now - 1].all()
    assert half[:, : now - 1].mean() == pytest.approx(0.5, abs=0.1)
    assert not nothing[:, : now - 1].any()
    assert not full[:, now + 2 :].any()


def test_an_unseen_target_dims_its_timeline() -> None:
    band = Band(NAMES[:1], 640, total=2)
    seen = band.draw((0, 0.0), NAN, (0.6,), (0.9,), (True,))
    unseen = band.draw((1, 0.0), NAN, (0.6,), (0.1,), (False,))
    width = band._right - band._left
    bright = lane_of(band, seen, 0)[:, width // 4].max(axis=1).max()
    pale = lane_of(band, unseen, 0)[:, 3 * width // 4].max(axis=1).max()
    assert bright > pale > max(LANE)


@pytest.mark.parametrize(("width", "total", "count"), [(64, None, 200), (320, 3, 9), (3840, 1, 1)])
def test_any_width_and_more_frames_than_promised(width, total, count) -> None:
    band = Band(["a tracker with a long name", "b"], width, total)
    for index in range(count):
        drawn = band.draw((index, 1e5), 0.5, (0.5, NAN), (0.5, NAN), (True, False))
    assert drawn.shape == (band.height, max(width, NARROWEST), 3)


def test_no_more_trackers_than_colors() -> None:
    assert len(set(COLORS)) == 7
    for names in ([], ["x"] * 8):
        with pytest.raises(ValueError):
            Band(names, 320, None)


def test_frame_and_band_form_one_image_even_where_the_size_changed() -> None:
    band = np.full((10, 32, 3), 7, np.uint8)
    sheet = compose(gray(20, 40), band, (32, 24))
    assert sheet.shape == (34, 32, 3)
    assert (sheet[:24, :20] == 90).all()
    assert has(sheet[:24, 20:], PAPER).all()
    assert (sheet[24:] == 7).all()


# -- keyframes ----------------------------------------------------------------------------------------


def keyframes(count: int, least: int | None = None, target: float = 20.0) -> KeyframeSelector:
    found = KeyframeSelector(NAMES[:2])
    for index in range(count):
        boxes = [(100, 100, target, target)] * 2
        mean = 0.1 if index == least else 0.9
        found.add(gray(), (index, index / 25), boxes, (True, True), mean, (mean, mean))
    return found


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 50, 333])
def test_keyframes_are_even_and_include_both_ends(count) -> None:
    chosen = [keyframe.index for keyframe in keyframes(count).chosen()]
    assert len(chosen) == min(count, 8)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    assert chosen == sorted(set(chosen))
    if count > 8:
        assert np.diff(chosen).max() <= 1.6 * count / 7 + 2


def test_the_frame_of_least_agreement_is_a_keyframe() -> None:
    for least in (0, 61, 62, 119):
        chosen = keyframes(120, least).chosen()
        assert least in [keyframe.index for keyframe in chosen]
        assert len(chosen) == 8
    assert KeyframeSelector(NAMES).chosen() == []


def test_a_small_target_is_shown_large() -> None:
    small, large = (
        has(keyframes(1, target=target).chosen()[0].tile, COLORS[1]).any(axis=0).sum() for target in (20, 200)
    )
    assert small > TILE / 9
    assert large < TILE
    assert keyframes(1).chosen()[0].tile.shape[1] == TILE


# -- the whole drawn --------------------------------------------------------------------------------


def data(trackers: int = 3, count: int = 120) -> ComparisonData:
    rng = np.random.default_rng(0)
    each = rng.random((trackers, count))
    each[0, 50:] = NAN
    pairs = np.where(np.eye(trackers, dtype=bool), NAN, 0.5)
    return ComparisonData(
        title="clip $x$ _y_ \x1b[0m \u65e5.mp4",
        subtitle="the dog",
        names=NAMES[:trackers],
        notes=["agreement 0.50"] * trackers,
        seconds_N=np.arange(count) / 25,
        mean_N=each.mean(axis=0) if trackers > 1 else np.full(count, NAN),
        each_TN=each,
        matrix_TT=pairs,
        scores_TN=rng.random((trackers, count)),
        visible_TN=rng.random((trackers, count)) > 0.2,
    )


def test_the_image_shows_tiles_charts_and_every_color() -> None:
    shown = keyframes(120, least=61).chosen()
    drawn = comparison_image(data(), shown)
    assert drawn.shape[1] == WIDTH
    assert drawn.dtype == np.uint8
    below = drawn[-500:]
    assert all(has(below, color).sum() > 50 for color in COLORS[:3])
    assert not has(below, COLORS[3]).any()
    np.testing.assert_array_equal(comparison_image(data(), shown), drawn)


def test_one_tracker_one_frame_and_nothing() -> None:
    assert comparison_image(data(1), keyframes(1).chosen()).shape[1] == WIDTH
    assert comparison_image(data(2, 1), keyframes(1).chosen()).shape[1] == WIDTH
    with pytest.raises(DataError):
        comparison_image(data(), [])
    with pytest.raises(ValueError):
        comparison_image(replace(data(), names=["x"] * 8), keyframes(1).chosen())


# -- text --------------------------------------------------------------------------------------------


def test_text_is_drawn_inside_the_image() -> None:
    image = gray(200, 40)
    width = text.write(image, "agree", (10, 5), 16, (255, 255, 255))
    written = np.nonzero((image != 90).any(axis=2))
    assert (written[1].min() >= 10, written[1].max() < 10 + width) == (True, True)
    assert written[0].max() < 5 + round(16 * 1.3)
    text.write(image, "beyond the edge", (150, 30), 16, (255, 255, 255))
    text.write(image, "outside", (-500, -500), 16, (255, 255, 255))
    assert text.drawable("a\u65e5\x07$") == "a\u25a1\\x07$"
    assert text.width_of("", 16) == 1


def test_long_text_is_shortened() -> None:
    short = text.shortened("a tracker with a long name", 16, 80)
    assert short.endswith("\u2026")
    assert text.width_of(short, 16) <= 80
    assert text.shortened("short", 16, 80) == "short"
    assert text.shortened("word", 16, 3) == ""


def test_clock() -> None:
    assert [clock(t) for t in (0, 59.999, 61.5, -1)] == ["0:00.00", "1:00.00", "1:01.50", "0:00.00"]

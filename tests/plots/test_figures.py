"""Figures of a report: their lines and texts, in order, and the same bytes every time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from vltrack.core.errors import DataError, UsageError
from vltrack.plots import contact_sheet, figures, report_table, timelines
from vltrack.plots.compare import SHOWN, TILE
from vltrack.plots.draw import COLORS

SUCCESS, PRECISION, _ = figures.CURVE_KINDS
STEPS = np.linspace(0, 1, 21)
HOSTILE = "<script>$\\frac{1}$_x</script>\x1b[31m"


def lines(count: int) -> list[figures.Curve]:
    """The best last, so that an order by number differs from the order given."""
    return [
        figures.Curve(
            tracker=t, name=f"tracker-{t}", thresholds=STEPS, shares=(1 - STEPS) * (t + 1) / count, number=50.0 + t
        )
        for t in range(count)
    ]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def boxes_of(figure: Figure) -> list[tuple[str, Any]]:
    """Words outside the axes, each with its box in pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    return [(t.get_text(), t.get_window_extent(renderer)) for t in figure.texts if t.get_text()]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Words that lie on each other, or out of the picture."""
    boxes = boxes_of(figure)
    width, height = (v * figure.dpi for v in figure.get_size_inches())
    found = [(name, "outside") for name, b in boxes if b.x0 < -1 or b.x1 > width + 1 or b.y0 < -1 or b.y1 > height + 1]
    for k, (name, a) in enumerate(boxes):
        for other, b in boxes[k + 1 :]:
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            down = min(a.y1, b.y1) - max(a.y0, b.y0)
            if across > 1 and down > 3:
                found.append((name, other))
    return found


def drawn(count: int) -> Figure:
    return figures.curve_figure(SUCCESS, lines(count), "rule \u00b7 data \u00b7 3 sequences", 92.77)


def gain(count: int) -> Figure:
    values = np.linspace(-30, 40, count) if count > 1 else np.array([0.0])
    names = [f"a-sequence-with-a-long-name-that-goes-on-{k}" for k in range(count)]
    return figures.gain_figure((0, "one" * 30), (1, HOSTILE), names, values, "mean +5.00 [+1.00, +9.00]", "note")


def around(count: int) -> Figure:
    scores = np.linspace(10, 90, count * 14).reshape(count, 14)
    attributes = [(f"A{k}", k + 2) for k in range(14)]
    return figures.radar_figure(attributes, [(t, "n" * 90) for t in range(count)], scores, "Title", "note")


def speeds(count: int) -> Figure:
    points = [figures.SpeedPoint(tracker=t, name="n" * 90, fps=3.0 * 2**t, score=40.0 + t % 3) for t in range(count)]
    return figures.speed_figure(points, "success AUC", "note")


def alike(count: int) -> Figure:
    names: list[tuple[int | None, str]] = [(None, "truth"), *((t, "n" * 60) for t in range(count))]
    return figures.similarity_figure(names, np.full((count + 1, count + 1), 0.5), "note")


def strip(count: int) -> Figure:
    values = np.linspace(0, 1, 50)
    lanes = [("n" * 200, values, 1 - values)] * count
    return timelines.overlap_timeline("title" * 30, "sentence " * 40, 500, [(100, 150), (490, 500)], lanes)


@pytest.mark.parametrize("count", [1, 2, 5, 7])
@pytest.mark.parametrize("make", [drawn, around, speeds, alike, strip])
def test_no_texts_overlap(make: Callable[[int], Figure], count: int) -> None:
    assert not overlapping(make(count))


@pytest.mark.parametrize("count", [1, 12, 31, 280])
def test_texts_of_gains_do_not_overlap(count: int) -> None:
    assert not overlapping(gain(count))


def test_overlap_would_be_seen() -> None:
    figure = drawn(2)
    figures.write(figure, "tracker-1", 0.5, 0.1)
    assert overlapping(figure)


def test_curves_are_drawn_as_they_are_and_the_legend_is_sorted_by_number() -> None:
    figure = drawn(3)
    by_name = {line.get_gid(): line for line in figure.axes[0].lines}
    for line in lines(3):
        curve = by_name[f"curve-{line.tracker}"]
        np.testing.assert_array_equal(curve.get_ydata(), line.shares)
        np.testing.assert_array_equal(curve.get_xdata(), STEPS)
        assert curve.get_color() == figures.tracker_color(line.tracker)
    legend = [w for w in words(figure) if w.startswith("tracker-")]
    assert legend == ["tracker-2", "tracker-1", "tracker-0"]
    assert [w for w in words(figure) if re.fullmatch(r"\d\d\.\d\d", w)] == ["52.00", "51.00", "50.00"]


def test_upper_bound_is_the_level_of_a_perfect_trackers_curve() -> None:
    """A perfect tracker whose frames are all valid gets 20/21 and has a flat curve at 1; 92.77 lies lower."""

    def level(kind: figures.CurveKind, upper_bound: float) -> float:
        figure = figures.curve_figure(kind, lines(1), "note", upper_bound)
        line = next(line for line in figure.axes[0].lines if line.get_gid() == "upper-bound")
        return float(np.asarray(line.get_ydata())[0])

    assert level(SUCCESS, 100 * 20 / 21) == pytest.approx(1.0)
    assert level(SUCCESS, 92.77) == pytest.approx(0.9277 * 21 / 20)
    assert level(PRECISION, 97.4) == pytest.approx(0.974)
    assert any("92.77" in word for word in words(drawn(1)))
    none = figures.curve_figure(SUCCESS, lines(1), "note", None)
    assert all(line.get_gid() != "ceiling" for line in none.axes[0].lines)


def test_gains_are_sorted_worst_first() -> None:
    figure = figures.gain_figure((0, "a"), (1, "b"), ["up", "down", "same"], [5.0, -7.5, 0.0], "title", "note")
    assert [w for w in words(figure) if w in ("up", "down", "same")] == ["down", "same", "up"]
    bars = figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == [-7.5, 0.0, 5.0]
    assert bars[0].get_facecolor()[:3] == figures.tracker_color(1) and bars[2].get_facecolor()[
        :3
    ] == figures.tracker_color(0)
    assert {text.get_text() for text in figure.axes[0].texts} == {"\u22127.5", "+0.0", "+5.0"}


def test_many_gains_show_all_as_a_profile_and_name_the_ends() -> None:
    values = np.random.default_rng(0).permutation(np.linspace(-40, 60, 200))
    names = [f"s{k}" for k in range(200)]
    figure = figures.gain_figure((0, "a"), (1, "b"), names, values, "title", "note")
    assert len(figure.axes) == 3
    first, worst_one = words(figure).index("the 16 worst"), names[int(values.argmin())]
    assert words(figure)[first + 1] == worst_one
    assert "80 worse, 0 equal, 120 better" in figure.axes[0].get_xlabel()
    with pytest.raises(ValueError):
        figures.gain_figure((0, "a"), (1, "b"), ["x"], [1.0, 2.0], "title", "note")


def test_radar_closes_its_lines_and_refuses_what_spans_no_area() -> None:
    figure = around(2)
    line = next(line for line in figure.axes[0].lines if line.get_gid() == "radar-1")
    radii = np.asarray(line.get_ydata())
    assert len(radii) == 15 and radii[0] == radii[-1]
    with pytest.raises(ValueError):
        figures.radar_figure([("A", 2), ("B", 3)], [(0, "n")], [[1.0, 2.0]], "t", "n")


def test_absent_spans_are_shaded_in_every_timeline() -> None:
    figure = strip(2)
    for axes in figure.axes:
        spans = [patch.get_extents() for patch in axes.patches if patch.get_gid() == "absent"]
        edges = [axes.transData.inverted().transform(span)[:, 0].round(6).tolist() for span in spans]
        assert edges == [[100.0, 150.0], [490.0, 500.0]]
    scores = [line for axes in figure.axes for line in axes.lines if str(line.get_gid()).startswith("score")]
    np.testing.assert_allclose(np.asarray(scores[1].get_ydata()), 1 - np.linspace(0, 1, 50))


def test_the_key_of_a_timeline_names_only_what_is_shown() -> None:
    nothing = np.full(5, np.nan)
    for scores, absent in ((nothing, []), (np.ones(5), []), (nothing, [(1, 2)])):
        lane = ("n", np.ones(5), scores)
        told = " ".join(words(timelines.overlap_timeline("title", "", 5, absent, [lane])))
        assert "area: overlap" in told
        assert ("own score" in told) is bool(np.isfinite(scores).all())
        assert ("absent" in told) is bool(absent)


def test_a_sheet_without_a_title_has_no_room_for_one() -> None:
    shots = [shot_of(0, np.array([[1.0, 2, 30, 40]]), np.array([0.0]))]
    first, bare = (contact_sheet.sequence_sheet(title, "", ["a"], shots) for title in ("clip", ""))
    assert len(bare) < len(first)
    np.testing.assert_array_equal(bare[40:], first[len(first) - len(bare) + 40 :])


def test_keyframes_are_never_nearly_the_same() -> None:
    for lost in range(1, 39):
        overlaps = np.ones((1, 40))
        overlaps[0, lost] = 0.0
        picks = contact_sheet.select_keyframes(overlaps)
        assert lost in picks and len(picks) == SHOWN
        assert min(np.diff(picks)) > 1, (lost, picks)
    overlaps[0, 1:38] = 1.0
    assert contact_sheet.select_keyframes(overlaps)[-1] == 38  # in place of 39, the last


def test_downsampling_keeps_the_mean_and_leaves_gaps() -> None:
    values = np.concatenate([np.zeros(50), np.ones(50), np.full(100, np.nan)])
    thin = timelines.downsampled(values, 4)
    np.testing.assert_array_equal(thin, [0, 1, np.nan, np.nan])
    assert timelines.downsampled(values, 200) is values
    assert timelines.true_spans(np.array([True, False, True, True])) == [(0, 1), (2, 4)]


def test_speed_is_logarithmic_only_where_it_must_be() -> None:
    assert speeds(7).axes[0].get_xscale() == "log"
    assert speeds(1).axes[0].get_xscale() == "linear"
    points = [figures.SpeedPoint(tracker=0, name="n", fps=0.0, score=1.0)]
    with pytest.raises(ValueError):
        figures.speed_figure(points, "AUC", "note")


@pytest.mark.parametrize("kind", ["svg", "png", "pdf", "pgf"])
def test_same_bytes_whatever_the_machine_is_set_to(kind: str) -> None:
    first = figures.encoded(drawn(2), kind)
    with matplotlib.rc_context({"axes.linewidth": 5, "font.size": 20, "lines.linewidth": 9, "svg.hashsalt": "x"}):
        assert figures.encoded(drawn(2), kind) == first
    assert b"20" + b"26-" not in first
    with pytest.raises(UsageError):
        figures.encoded(drawn(1), "bmp")


@pytest.mark.fault("P07")
def test_pgf_needs_no_latex_and_has_names_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.backends.backend_pgf.LatexManager", None)  # would start LaTeX
    name = r"a_b\input{/etc/passwd}%$x$"
    line = figures.Curve(tracker=0, name=name, thresholds=STEPS, shares=1 - STEPS, number=1.0)
    text = figures.encoded(figures.curve_figure(SUCCESS, [line], "a_b", None), "pgf").decode()
    assert text.count(r"\begin{pgfpicture}") == text.count(r"\end{pgfpicture}") == 1
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert r"a\_b\textbackslash{}input\{/etc/passwd\}\%\$x\$" in text and r"\input{/etc" not in text


@pytest.mark.fault("P07")
def test_names_are_shown_as_they_are_and_cannot_leave_their_place_in_an_svg() -> None:
    name = HOSTILE + "--><script>alert(1)</script>"
    line = figures.Curve(tracker=0, name=name, thresholds=STEPS, shares=1 - STEPS, number=1.0)
    figure = figures.curve_figure(SUCCESS, [line], name, None)
    svg = figures.encoded(figure, "svg").decode()
    outside_comments = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    assert "<script" not in outside_comments and "\x1b" not in svg
    assert any("\\x1b" in word or "\u2026" in word for word in words(figure))


def test_long_names_keep_their_ends() -> None:
    short = figures.fitted("litetrack-base-" + "x" * 100 + "-run-17", 1.0)
    assert short.startswith("lite") and short.endswith("17") and figures.inches(short) <= 1.0
    assert figures.fitted("short", 1.0) == "short"


def test_colors_on_paper_are_those_of_the_boxes_and_all_differ() -> None:
    shades = [figures.tracker_color(t) for t in range(len(COLORS))]
    assert len(set(shades)) == len(figures.DASHES) == len(COLORS)
    kept = [s for s, c in zip(shades, COLORS, strict=True) if np.allclose(np.array(s) * 255, c)]
    assert len(kept) == len(COLORS) - 1  # yellow is darker: on white it would not be seen


def shot_of(frame: int, boxes: np.ndarray, overlaps: np.ndarray) -> contact_sheet.Snapshot:
    image = np.full((240, 320, 3), 90, np.uint8)
    return contact_sheet.snapshot(image, frame, [100, 100, 60, 40], boxes, overlaps)


def test_contact_sheet_draws_annotation_and_predictions_reproducibly() -> None:
    boxes = np.array([[100.0, 100, 60, 40], [200, 60, 40, 40]])
    shots = [shot_of(k, boxes, np.array([1.0, 0.0])) for k in range(3)]
    sheet = contact_sheet.sequence_sheet("clip", "the red car", ["a", "b"], shots)
    assert sheet.shape[1] == contact_sheet.WIDTH
    np.testing.assert_array_equal(sheet, contact_sheet.sequence_sheet("clip", "the red car", ["a", "b"], shots))
    for color in (contact_sheet.ANNOTATION, COLORS[0], COLORS[1]):
        tile = sheet[110:340, : TILE + 20]
        assert (np.abs(tile.astype(int) - color).max(axis=2) < 12).sum() > 100, color
    _, _, w, h = shots[0].truth_4  # moved along with the cut
    assert w / h == pytest.approx(1.5) and shots[0].boxes_T4[0] == pytest.approx(shots[0].truth_4)


def test_contact_sheet_says_where_the_target_is_absent_and_refuses_damage() -> None:
    gone = shot_of(5, np.array([[1.0, 2, 30, 40]]), np.array([np.nan]))
    seen = shot_of(5, np.array([[1.0, 2, 30, 40]]), np.array([0.0]))
    first, second = (contact_sheet.sequence_sheet("clip", "", ["a"], [shot]) for shot in (gone, seen))
    assert (first != second).any()
    damaged = contact_sheet.Snapshot(
        frame=5, jpeg=b"nothing", truth_4=gone.truth_4, boxes_T4=gone.boxes_T4, overlaps_T=gone.overlaps_T
    )
    with pytest.raises(DataError, match="frame 5"):
        contact_sheet.sequence_sheet("clip", "", ["a"], [damaged])
    with pytest.raises(DataError):
        contact_sheet.sequence_sheet("clip", "", ["a"], [])
    assert cv2.imdecode(np.frombuffer(gone.jpeg, np.uint8), cv2.IMREAD_COLOR).shape[1] == TILE


def test_keyframes_include_both_ends_and_the_first_frame_where_all_have_lost_it() -> None:
    overlaps = np.ones((2, 100))
    overlaps[0, 30:] = 0.0
    overlaps[1, 37:] = 0.05
    picks = contact_sheet.select_keyframes(overlaps)
    assert picks[0] == 0 and picks[-1] == 99 and 37 in picks and len(picks) == SHOWN
    assert contact_sheet.select_keyframes(np.full((1, 3), np.nan)) == [0, 1, 2]
    assert contact_sheet.select_keyframes(np.ones((1, 1))) == [0]


def test_latex_escapes_names_and_marks_the_best() -> None:
    text = report_table.table(
        [("AUC", ["official", "vlt-python"]), ("P", ["official"])],
        [("a_b & 50% {x} \\y <z>", [51.434, 60.0, None]), ("c", [51.426, 61.0, 3.0])],
        marked=[[False] * 3, [True, False, False]],
        last=("perfect tracker", [95.24, 95.24, 100.0]),
        caption="LaSOT_test #1",
    )
    assert r"a\_b \& 50\% \{x\} \textbackslash{}y \textless{}z\textgreater{} & \textbf{51.43} & 60.00 & --" in text
    assert r"c & \textbf{51.43}$^\dagger$ & \textbf{61.00} & 3.00" in text  # alone is not best
    assert r"\multicolumn{2}{c}{AUC}" in text and r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}" in text
    assert r"\caption{LaSOT\_test \#1}" in text and r"perfect tracker & 95.24" in text
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")

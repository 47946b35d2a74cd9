"""EAO, accuracy and robustness with restarts: by hand, by a slow second computation, what always holds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vltrack.core.errors import DataError
from vltrack.metrics.eao import WINDOWS, Run, expected_overlap, fragments_of, supervised
from vltrack.metrics.regions import Polygon, Rectangle, Special

START, FAIL, SKIP = "start", "fail", "skip"


def run_of(sequence: str, *frames: float | str, tags: dict[str, list[int]] | None = None) -> Run:
    """A run from overlaps and codes."""
    return Run(
        sequence=sequence,
        overlaps=np.array([math.nan if isinstance(f, str) else f for f in frames]),
        started=np.array([f == START for f in frames]),
        failed=np.array([f == FAIL for f in frames]),
        tags={name: np.array(flags, dtype=bool) for name, flags in (tags or {}).items()},
    )


# Ten frames: tracked in frames 2 to 4, failed in frame 5, started again in frame 10, the last.
FAILS = run_of("fails", START, 0.8, 0.8, 0.6, FAIL, SKIP, SKIP, SKIP, SKIP, START)
HOLDS = run_of("holds", START, 0.5, 0.5, 0.5, 0.5, 0.5)


def test_a_miniature_by_hand() -> None:
    scores = supervised([FAILS, HOLDS], (3, 7))
    # Over L frames the failed fragment has (0.8 + 0.8 + 0.6 + 0 ...) / (L - 1) at any L; the other 0.5 up
    # to its 6 frames; the last fragment of "fails" is one frame long and counts at no L >= 2.
    failed = [0.8, 1.6 / 2, 2.2 / 3, 2.2 / 4, 2.2 / 5]
    curve = [1, *((f + 0.5) / 2 for f in failed), 2.2 / 6, 2.2 / 7, 2.2 / 8, 2.2 / 9]
    assert scores.curve == pytest.approx(curve)
    # L = 3..7 are the third to the seventh number.
    assert scores.eao == pytest.approx(sum(curve[2:7]) / 5)
    assert scores.failures == 1
    assert scores.robustness == pytest.approx(100 / 16)
    # All frames lie within 10 of a start.
    assert math.isnan(scores.accuracy)
    assert scores.told()["accuracy"] is None


def test_accuracy_leaves_out_ten_frames_from_each_start() -> None:
    # Start in frame 1: frames 1..10 out, 11 and 12 count (0.6, 0.8); failure in 13, start in 18: 18..27 out,
    # 28 counts (0.4). Mean 0.6. The other sequence: frames 11..14 at 1.
    first = run_of("a", START, *[0.1] * 9, 0.6, 0.8, FAIL, *[SKIP] * 4, START, *[0.1] * 9, 0.4)
    second = run_of("b", START, *[0.3] * 9, 1, 1, 1, 1)
    scores = supervised([first, second])
    assert scores.sequence_accuracy == pytest.approx([0.6, 1.0])
    assert scores.accuracy == pytest.approx((0.6 + 0.8 + 0.4 + 4) / 7)
    assert scores.accuracy_weighted == pytest.approx((0.6 * 28 + 1.0 * 14) / 42)
    assert math.isnan(scores.eao)
    assert scores.window is None


def test_repetitions_share_the_weight_of_their_sequence() -> None:
    # Sequence "r" is run twice, 0.2 and 0.6; "s" once, 0.8. Weights 1/2, 1/2 and 1: (0.1 + 0.3 + 0.8) / 2.
    runs = [run_of("r", START, 0.2, 0.2), run_of("s", START, 0.8, 0.8), run_of("r", START, 0.6, 0.6)]
    scores = supervised(runs, (2, 3))
    assert scores.eao == pytest.approx(0.6)
    assert scores.sequences == ("r", "s")
    # 15 times the same run changes nothing.
    assert supervised([FAILS, HOLDS] * 15, (3, 7)).eao == pytest.approx(
        supervised([FAILS, HOLDS], (3, 7)).eao
    )
    late = run_of("t", START, *[0.1] * 9, 0.2, FAIL), run_of("t", START, *[0.1] * 9, 0.4, 0.6)
    both = supervised(late)
    # Frame 11: mean of 0.2 and 0.4; frame 12 counts in the second alone: 0.6.
    assert both.accuracy == pytest.approx((0.3 + 0.6) / 2)
    assert both.accuracy_weighted == pytest.approx((0.2 + 0.5) / 2)
    assert both.failures == 0.5


@pytest.mark.parametrize(
    ("after", "padded", "parts"), [(0, False, 1), (3, False, 1), (4, True, 1), (5, True, 2)]
)
def test_failures_near_the_end(after: int, padded: bool, parts: int) -> None:
    """A failure with fewer than four frames after it ends with its sequence; the toolkits have it so."""
    fragments = fragments_of(run_of("e", START, 0.5, FAIL, *[SKIP] * min(after, 4), *[START] * (after == 5)))
    assert len(fragments) == parts
    assert fragments[0].padded is padded
    assert fragments[0].overlaps.tolist() == [0, 0.5, 0, *[0.0] * after]


def test_tags_weigh_fragments_by_their_share_of_frames() -> None:
    # Half of the first sequence's frames are tagged, all of the second: (0.5 * 0.2 + 1 * 0.8) / 1.5 = 0.6.
    runs = [
        run_of("a", START, 0.2, 0.2, 0.2, tags={"occlusion": [1, 1, 0, 0], "none": [0] * 4}),
        run_of("b", START, 0.8, 0.8, 0.8, tags={"occlusion": [1] * 4, "none": [0] * 4, "only here": [1] * 4}),
    ]
    scores = supervised(runs, (2, 4))
    assert scores.eao == pytest.approx(0.5)
    assert scores.eao_by_tag["occlusion"] == pytest.approx(0.6)
    assert scores.told()["eao_by_tag"] == {"occlusion": pytest.approx(0.6), "none": None}


def test_unknown_frames_inside_a_run_count_as_nothing() -> None:
    scores = supervised([run_of("u", START, 0.9, SKIP, 0.9)], (4, 4))
    assert scores.eao == pytest.approx(0.6)


def test_lengths_that_no_sequence_reaches_are_left_out() -> None:
    assert supervised([HOLDS], (5, 300)).eao == pytest.approx(0.5)
    assert math.isnan(supervised([HOLDS], (7, 300)).eao)
    assert supervised([HOLDS], (7, 300)).told()["eao"] is None


def test_the_years() -> None:
    assert WINDOWS[2018] == WINDOWS[2017] == (100, 356)
    assert WINDOWS[2016] == WINDOWS[2015] == (108, 371)
    assert WINDOWS[2019] == (46, 291)
    assert 2014 not in WINDOWS


def slow_eao(runs: list[Run], low: int, high: int) -> float:
    """The definition in words, one length and one fragment after the other, without numpy."""
    pieces = []
    repeats = {run.sequence: sum(other.sequence == run.sequence for other in runs) for run in runs}
    for run in runs:
        values = [0.0 if math.isnan(v) else v for v in run.overlaps.tolist()]
        begin = 0
        for frame in range(len(values)):
            if run.failed[frame] and frame + 5 <= len(values):
                # After a failure the target counts as lost for ever.
                pieces.append((values[begin:frame], True, 1 / repeats[run.sequence]))
                begin = frame + 5
        if begin < len(values):
            pieces.append((values[begin:], False, 1 / repeats[run.sequence]))
    curve = []
    for length in range(low, high + 1):
        total = weights = 0.0
        for values, lost, weight in pieces:
            if lost or len(values) >= length:
                total += weight * sum(values[1:length]) / (length - 1)
                weights += weight
        if weights and length <= max(len(run.overlaps) for run in runs):
            curve.append(total / weights)
    return sum(curve) / len(curve) if curve else math.nan


def whole_runs(rng: np.random.Generator) -> list[Run]:
    """Runs as the supervised experiment writes them."""
    runs = []
    for sequence in range(rng.integers(1, 5)):
        length = int(rng.integers(2, 41))
        for _ in range(rng.integers(1, 4)):
            frames: list[float | str] = []
            while len(frames) < length:
                frames.append(START)
                frames += rng.random(int(rng.geometric(0.15)) - 1).round(3).tolist()
                frames += [FAIL, SKIP, SKIP, SKIP, SKIP]
            runs.append(run_of(f"s{sequence}", *frames[:length]))
    return runs


@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_the_definition_and_does_not_depend_on_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs, low, more = whole_runs(rng), int(rng.integers(2, 16)), int(rng.integers(31))
    scores = supervised(runs, (low, low + more))
    assert scores.eao == pytest.approx(slow_eao(runs, low, low + more), nan_ok=True)
    rng.shuffle(runs)  # type: ignore[arg-type]
    again = supervised(runs, (low, low + more))
    assert again.eao == pytest.approx(scores.eao, nan_ok=True)
    assert again.accuracy == pytest.approx(scores.accuracy, nan_ok=True)
    assert again.robustness == pytest.approx(scores.robustness)
    assert 0 <= np.nanmin(scores.curve) <= np.nanmax(scores.curve) <= 1


def test_a_perfect_tracker() -> None:
    rng = np.random.default_rng(0)
    truth = [[Rectangle(*row) for row in rng.uniform(5, 90, (n, 4)).tolist()] for n in (120, 30, 400)]
    runs = [Run.of(f"s{k}", [Special(1), *boxes[1:]], boxes) for k, boxes in enumerate(truth)]
    scores = supervised(runs, WINDOWS[2018])
    assert (scores.eao, scores.accuracy, scores.failures) == (1, 1, 0)
    assert (scores.curve == 1).all()


def test_regions_become_a_run() -> None:
    square = Polygon(((0, 0), (9, 0), (9, 9), (0, 9)))
    result = [Special(1), square, Special(2), Special(0), square]
    run = Run.of("s", result, [square] * 4 + [Special(0)], (100, 100))
    assert run.started.tolist() == [True, False, False, False, False]
    assert run.failed.tolist() == [False, False, True, False, False]
    assert run.overlaps == pytest.approx([math.nan, 1, math.nan, math.nan, math.nan], nan_ok=True)
    with pytest.raises(ValueError, match="read-only"):
        run.overlaps[0] = 1


def test_boxes_of_one_pass_have_no_eao() -> None:
    box = Rectangle(0, 0, 5, 5)
    with pytest.raises(DataError, match=r"car1_001\.txt: the result does not begin with code 1"):
        Run.of("car1", [box, box], [box, box], where="car1_001.txt")
    with pytest.raises(DataError, match="car1: the result"):
        Run.of("car1", [], [])


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="no VOT result"):
        supervised([])
    with pytest.raises(DataError, match="holds: its repetitions differ"):
        supervised([HOLDS, run_of("holds", START, 0.5)])
    with pytest.raises(DataError, match="differ in length or are empty"):
        Run(sequence="x", overlaps=np.zeros(2), started=np.zeros(3, bool), failed=np.zeros(2, bool))
    with pytest.raises(DataError, match="differ in length or are empty"):
        run_of("x")


def test_input_is_not_touched() -> None:
    overlaps = np.array([math.nan, 0.5, math.nan])
    overlaps.setflags(write=False)
    flags = np.array([True, False, False]), np.array([False, False, True])
    run = Run(sequence="x", overlaps=overlaps, started=flags[0], failed=flags[1])
    supervised([run], (2, 3))
    assert overlaps == pytest.approx([math.nan, 0.5, math.nan], nan_ok=True)
    flags[0][:] = False
    assert run.started[0]
    assert expected_overlap(fragments_of(run), 3).tolist() == [1, 0.5, 0.25]

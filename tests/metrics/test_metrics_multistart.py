"""The multi-start experiment: failures by hand, the toolkit's weights by hand, a slow second computation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vltrack.core.errors import DataError
from vltrack.metrics.multistart import WINDOW, AnchorRun, multistart, progress_of
from vltrack.metrics.regions import Rectangle, Special


def run_of(
    sequence: str, overlaps: list[float], *, length: int | None = None, empty: tuple[int, ...] = ()
) -> AnchorRun:
    flags = np.zeros(len(overlaps), dtype=bool)
    flags[list(empty)] = True
    return AnchorRun(
        sequence=sequence, length=length or len(overlaps), overlaps=np.array(overlaps), empty=flags
    )


def test_ten_bad_frames_in_a_row_are_a_failure() -> None:
    assert progress_of(run_of("a", [0.0] + [0.5] * 5 + [0.1] * 10 + [0.9] * 3)) == 6
    # Nine are none; 0.1 itself is bad, more is good and starts the count anew.
    assert progress_of(run_of("a", [0.5] + [0.1] * 9 + [0.11] + [0.0] * 9)) == 20
    # A frame without target starts the count anew as well, whatever was predicted there.
    assert progress_of(run_of("a", [0.5] + [0.0] * 9 + [0.0] + [0.0] * 9, empty=(10,))) == 20
    # The start frame itself counts among the ten: its line is a code and its overlap 0.
    assert progress_of(run_of("a", [0.0] * 10 + [0.9])) == 0
    assert progress_of(run_of("a", [0.0] * 9 + [0.9])) == 10


def test_a_miniature_by_hand() -> None:
    # Sequence a of 20 frames: a run forward through all, failing after 4, and one backward of 5 frames.
    failing = run_of("a", [0.0, 0.6, 0.6, 0.6] + [0.0] * 16)
    short = run_of("a", [0.0, 0.8, 0.8, 0.8, 0.8], length=20)
    # Sequence b of 8 frames, one run.
    other = run_of("b", [0.0] + [0.5] * 7)
    scores = multistart([failing, short, other], (3, 7))
    # Accuracy: a has (1.8 + 3.2) / (4 + 5), b 3.5 / 8; weighted by frames tracked: 8.5 / 17.
    assert scores.sequence_accuracy == pytest.approx([5 / 9, 3.5 / 8])
    assert scores.accuracy == pytest.approx(8.5 / 17)
    # Robustness: a (4 + 5) / (20 + 5), b 1; weighted by 20 and 8 frames.
    assert scores.sequence_robustness == pytest.approx([9 / 25, 1])
    assert scores.robustness == pytest.approx((9 / 25 * 20 + 8) / 28)
    # Curve at j = 3: 1.8/3, 0.8, 0.5; at 4: 1.8/4, 0.8, 0.5; at 5 the short run is over: 1.8/5, 0.5.
    wanted = [(1.8 / 3 + 1.3) / 3, (1.8 / 4 + 1.3) / 3, (1.8 / 5 + 0.5) / 2, (1.8 / 6 + 0.5) / 2]
    assert scores.curve[3:7] == pytest.approx(wanted)
    assert scores.eao == pytest.approx(sum(wanted) / 4)
    assert scores.runs == 3
    told = scores.told()
    assert told["window"] == [3, 7]
    assert told["curve"][0] is None
    assert told["sequences"][1] == {"name": "b", "accuracy": 3.5 / 8, "robustness": 1}


def test_beyond_its_end_a_failed_run_is_divided_by_one_less() -> None:
    # 12 frames, failed after 2: sum 0.4. Inside its length j, beyond j - 1, as the toolkit has it.
    scores = multistart([run_of("a", [0.0, 0.4] + [0.0] * 10)], (1, 15))
    assert scores.curve[11] == pytest.approx(0.4 / 11)
    assert scores.curve[12] == pytest.approx(0.4 / 11)
    assert scores.curve[14] == pytest.approx(0.4 / 13)


def test_a_perfect_tracker_loses_only_its_start_frames() -> None:
    truth = [Rectangle(k, 5, 20, 30) for k in range(200)]
    runs = [
        AnchorRun.of("a", [Special(1), *truth[1:]], truth, 0, backward=False, size=(400, 300)),
        AnchorRun.of("a", [Special(1), *truth[98::-1]], truth, 99, backward=True, size=(400, 300)),
    ]
    scores = multistart(runs)
    assert WINDOW == (115, 755)
    assert scores.eao == 1
    assert scores.robustness == 1
    assert scores.accuracy == pytest.approx(298 / 300)
    whole = AnchorRun.of("a", truth, truth, 0, backward=False)
    assert multistart([whole]).accuracy == 1


def test_backward_runs_meet_the_truth_from_behind() -> None:
    truth = [Rectangle(100 * k, 0, 10, 10) for k in range(3)] + [Special(0)]
    run = AnchorRun.of("a", [Special(1), truth[1], truth[0]], truth, 2, backward=True)
    assert run.overlaps.tolist() == [0, 1, 1]
    ahead = AnchorRun.of("a", [Special(1), truth[2], Special(0)], truth, 1, backward=False)
    assert ahead.overlaps.tolist() == [0, 1, 1]
    assert ahead.empty.tolist() == [False, False, True]
    with pytest.raises(DataError, match="the run from frame 2 has 2 lines for 3 frames"):
        AnchorRun.of("a", truth[:2], truth, 2, backward=True)


def slow_curve(runs: list[AnchorRun], high: int) -> list[float]:
    curve = []
    for j in range(1, high):
        values = []
        for run in runs:
            overlaps, progress = run.overlaps.tolist(), progress_of(run)
            kept = [o if k < progress else 0.0 for k, o in enumerate(overlaps)]
            if j < len(kept):
                values.append(sum(kept[1 : j + 1]) / j)
            elif progress < len(kept):
                values.append(sum(kept[1:]) / (j - 1))
        curve.append(sum(values) / len(values) if values else math.nan)
    return curve


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_slow_way_and_does_not_depend_on_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs = []
    for k in range(12):
        overlaps = rng.random(int(rng.integers(12, 60)))
        if k % 3 == 0:
            overlaps[int(rng.integers(1, 40)) :] *= 0.09
        runs.append(run_of(f"s{k % 4}", [0.0, *overlaps[1:].tolist()], length=80))
    scores = multistart(runs, (20, 70))
    assert any(progress_of(run) < len(run.overlaps) for run in runs)
    assert scores.curve[1:] == pytest.approx(slow_curve(runs, 70), nan_ok=True)
    assert scores.eao == pytest.approx(np.nanmean(slow_curve(runs, 70)[19:]))
    again = multistart(runs[::-1], (20, 70))
    assert (again.eao, again.accuracy) == (pytest.approx(scores.eao), pytest.approx(scores.accuracy))
    assert again.robustness == pytest.approx(scores.robustness)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="no VOT result"):
        multistart([])
    with pytest.raises(DataError, match="differ in length"):
        AnchorRun(sequence="a", length=3, overlaps=np.zeros(3), empty=np.zeros(2, bool))
    with pytest.raises(DataError, match="not a number"):
        run_of("a", [math.nan])
    lost = multistart([run_of("a", [0.0] * 30)])
    assert (lost.robustness, lost.told()["accuracy"]) == (0, None)
    assert math.isnan(multistart([run_of("a", [0.5] * 30)]).eao)


def test_runs_are_read_only_copies() -> None:
    overlaps = np.array([0.0, 0.5])
    run = AnchorRun(sequence="a", length=2, overlaps=overlaps, empty=np.zeros(2, bool))
    overlaps[1] = 0
    assert run.overlaps[1] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        run.overlaps[1] = 0

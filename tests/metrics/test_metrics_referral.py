"""The referral score: annotated frames, empty masks, ignored pixels and weights, each by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vltrack.core.errors import DataError
from vltrack.metrics.referral import Referred, prompts_of, referral, result_name
from vltrack.metrics.regions import Mask, Rectangle, Region, Special, box_mask, parse_region

FULL = parse_region("m0,0,4,4,0,16")
HALF = parse_region("m0,0,4,2,0,8")
NOTHING = parse_region("m0,0,0,0")
SIZE = (10, 10)


def scored(
    result: list[Region], truth: list[Region], name: str = "a", prompt: str = "it", **more
) -> Referred:
    return Referred.of(name, prompt, result, truth, size=SIZE, **more)


def test_each_kind_of_frame() -> None:
    truth = [FULL, Special(0), NOTHING, NOTHING, FULL, FULL]
    result = [HALF, FULL, NOTHING, HALF, NOTHING, Special(0)]
    run = scored(result, truth)
    # Half; not annotated; rightly silent; not silent; wrongly silent; wrongly "unknown".
    assert run.overlaps.tolist() == [0.5, 1, 0, 0, 0]
    assert run.frames == 6
    assert run.not_masks == 0
    assert scored(truth, truth).overlaps.tolist() == [1] * 5


def test_weights() -> None:
    # Sequence a of 4 frames, of which 2 are annotated: two sentences, 1 and 0.5 on each frame: 0.75.
    truth = [FULL, Special(0), Special(0), FULL]
    runs = [scored([FULL] * 4, truth), scored([HALF] * 4, truth, prompt="that")]
    # Sequence b of one frame, 0. Weighted by 4 and 1 frames: 0.6; each alike: 0.375.
    runs.append(scored([NOTHING], [FULL], name="b"))
    scores = referral(runs)
    assert scores.accuracy == pytest.approx(0.6)
    assert scores.accuracy_unweighted == pytest.approx(0.375)
    assert scores.sequence_accuracy == pytest.approx([0.75, 0])
    assert scores.pairs == 5
    assert scores.told()["sequences"] == [
        {"name": "a", "accuracy": 0.75, "frames": 4},
        {"name": "b", "accuracy": 0.0, "frames": 1},
    ]
    assert referral(runs[::-1]).accuracy == pytest.approx(0.6)
    # A sequence without annotation does not count.
    assert referral([*runs, scored([FULL], [Special(0)], name="c")]).accuracy == pytest.approx(0.6)
    alone = referral([scored([FULL], [Special(0)])])
    assert math.isnan(alone.accuracy)
    assert alone.told()["accuracy"] is None


def test_a_box_is_no_mask_unless_asked() -> None:
    box = Rectangle(0, 0, 4, 2)
    run = scored([box, box, Special(0)], [FULL, Special(0), FULL])
    assert (run.overlaps.tolist(), run.not_masks) == ([0, 0], 1)
    filled = scored([box], [FULL], boxes_as_masks=True)
    assert (filled.overlaps.tolist(), filled.not_masks) == ([0.5], 0)
    assert Referred.of("a", "it", [box], [FULL], boxes_as_masks=True).overlaps.tolist() == [0.5]
    assert scored([box_mask((0, 0, 4, 2), SIZE)], [FULL]).overlaps.tolist() == [0.5]


def test_ignored_pixels_and_pixels_outside() -> None:
    # Rows 2 and 3 are ignored: the halves agree. The second frame has no ignored pixels.
    hidden = parse_region("m0,2,4,2,0,8")
    assert scored([HALF, HALF], [FULL, FULL], ignore=[hidden]).overlaps.tolist() == [1, 0.5]
    assert scored([HALF], [FULL], ignore=[Special(0)]).overlaps.tolist() == [0.5]
    assert scored(
        [parse_region("m0,0,10,20,0,200")], [parse_region("m0,0,10,10,0,100")]
    ).overlaps.tolist() == [1]


def test_agrees_with_sets_of_pixels() -> None:
    rng = np.random.default_rng(1)

    def mask() -> tuple[Mask, set[tuple[int, int]]]:
        x, y = rng.integers(-3, 8, 2).tolist()
        pixels = rng.random(rng.integers(1, 6, 2)) < 0.5
        return Mask(x, y, pixels), {
            (x + c, y + r) for r, c in np.argwhere(pixels).tolist() if 0 <= x + c < 10 and 0 <= y + r < 10
        }

    for _ in range(200):
        (truth, there), (found, seen), (hidden, out) = mask(), mask(), mask()
        there, seen = there - out, seen - out
        wanted = len(there & seen) / len(there | seen) if there | seen else 1
        assert scored([found], [truth], ignore=[hidden]).overlaps.tolist() == [wanted]


def test_names_of_results() -> None:
    # The digest of no letters at all is well known; every letter counts.
    assert result_name("car1", "the red car") != result_name("car1", "the red car ")
    assert result_name("car1", "") == "car1_d41d8cd9"
    assert prompts_of("the red car; a car") == ("the red car", " a car")
    assert prompts_of("") == ()


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="a: 'it' has 1 results for 2 frames"):
        scored([FULL], [FULL, FULL])
    with pytest.raises(DataError, match="no VOT result"):
        referral([])
    with pytest.raises(DataError, match="not all numbers"):
        Referred(sequence="a", prompt="it", frames=1, overlaps=np.array([math.nan]))
    with pytest.raises(ValueError, match="read-only"):
        scored([FULL], [FULL]).overlaps[0] = 0

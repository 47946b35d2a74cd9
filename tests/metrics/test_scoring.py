"""The scorer against the rules in plain Python, and against numbers computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plain_rules
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.errors import DataError
from vltrack.core.types import Floats
from vltrack.metrics.annotations import Annotation, Annotations
from vltrack.metrics.protocols import RULES, Rule
from vltrack.metrics.scoring import MEASURES, NO_ROW, Scores, align, score, upper_bound

PERFECT = 20 / 21


def annotations_of(*sequences: Floats, absent: list[list[int]] | None = None, **more: object) -> Annotations:
    gone = absent or [[0] * len(boxes) for boxes in sequences]
    return Annotations.join(
        Annotation(
            name=f"s{k}",
            boxes=np.array(boxes, dtype=float),
            absent=np.array(flags, dtype=bool),
            **more,  # type: ignore[arg-type]
        )
        for k, (boxes, flags) in enumerate(zip(sequences, gone, strict=True))
    )


def boxes_of(*rows: tuple[float, float, float, float]) -> Floats:
    return np.array(rows, dtype=float)


def random_case(seed: int) -> tuple[Annotations, Floats]:
    """Three sequences with everything that toolkits treat differently."""
    rng = np.random.default_rng(seed)
    parts, found = [], []
    for k in range(3):
        count = int(rng.integers(1, 30))
        boxes = rng.integers(0, 40, (count, 4)).astype(float)  # whole pixels: ties on thresholds
        boxes[:, 2:] += 1
        boxes[rng.random(count) < 0.1] = 0
        boxes[rng.random(count) < 0.1] = np.nan
        boxes[rng.random(count) < 0.1, 0] = 0
        boxes[rng.random(count) < 0.05, 3] = 0
        absent = rng.random(count) < 0.2
        near = boxes + rng.integers(-6, 7, (count, 4))
        near[rng.random(count) < 0.1] = np.nan
        near[rng.random(count) < 0.1, 2] = 0
        near[rng.random(count) < 0.2] = boxes[-1]
        parts.append(Annotation(name=f"s{k}", boxes=boxes, absent=absent))
        found.append(near)
    return Annotations.join(parts), np.concatenate(found)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize(
    ("rule", "dataset", "knows_absent"),
    [
        ("lasot", "matlab", True),
        ("otb", "matlab", False),
        ("vlt-python", "any", False),
        ("vlt-python-visible", "any", True),
        ("vlt-python-lasot", "lasot", True),
        ("vlt-python-uav", "uav", False),
    ],
)
@pytest.mark.fault("E11")
def test_the_scorer_agrees_with_the_plain_rules(rule: str, dataset: str, knows_absent: bool, seed: int) -> None:
    truth, boxes = random_case(seed)
    scores = score(truth, boxes, RULES[rule])
    for index in range(len(truth)):
        part = truth.rows(index)
        gone = [bool(v) and (dataset != "matlab" or knows_absent) for v in truth.absent[part]]
        rows = (truth.boxes[part].tolist(), gone, boxes[part].tolist())
        if dataset == "matlab":
            plain = plain_rules.matlab(*rows)
        else:
            plain = plain_rules.vlt_python(*rows, dataset, knows_absent=knows_absent)
        assert scores.success[index].tolist() == plain.success
        assert scores.precision[index].tolist() == plain.precision
        assert scores.norm_precision[index].tolist() == plain.norm_precision


@pytest.mark.parametrize("name", RULES)
def test_a_perfect_tracker_reaches_the_upper_bound_of_clean_annotations(name: str) -> None:
    boxes = boxes_of((10, 10, 20, 20), (12, 11, 20, 20), (14, 12, 21, 20))
    rule = RULES[name]
    top = upper_bound(annotations_of(boxes), rule)
    area = {"mean": rule.success_steps / (rule.success_steps + 1), "area": 1.0}[rule.success_score]
    assert top.value("auc") == pytest.approx(area)
    assert top.value("precision") == top.value("norm_precision") == top.value("overlap") == 1.0
    assert top.value("op50") == 1.0


@pytest.mark.fault("E11")
def test_absent_frames_are_misses_that_stay_in_the_count() -> None:
    boxes = boxes_of((10, 10, 20, 20), (10, 10, 20, 20), (0, 0, 0, 0), (10, 10, 20, 20))
    truth = annotations_of(boxes, absent=[[0, 0, 1, 1]])
    # Two of four frames are left, one of them annotated with a box all the same.
    official = score(truth, boxes, RULES["lasot"])
    assert official.value("auc") == pytest.approx(PERFECT * 2 / 4)
    assert official.value("precision") == official.value("norm_precision") == 2 / 4
    # Without flags the third frame is an invalid one: a miss in overlap, a hit in both errors.
    otb = score(truth, boxes, RULES["otb"])
    assert otb.value("auc") == pytest.approx(PERFECT * 3 / 4)
    assert otb.value("precision") == otb.value("norm_precision") == 1.0
    # Papers' code: a miss in precision, a hit in normalized precision.
    papers = score(truth, boxes, RULES["vlt-python"])
    assert (papers.value("precision"), papers.value("norm_precision")) == (3 / 4, 1.0)
    # Ours for own clips: absent frames do not count.
    assert score(truth, boxes, RULES["visible-only"]).value("auc") == pytest.approx(PERFECT)


def test_a_target_at_the_edge_is_not_a_box_for_the_toolkits() -> None:
    boxes = boxes_of((10, 10, 20, 20), (0, 10, 20, 20))
    truth = annotations_of(boxes)
    assert score(truth, boxes, RULES["tnl2k"]).value("auc") == pytest.approx(PERFECT / 2)
    assert score(truth, boxes, RULES["tnl2k"]).value("precision") == 1.0  # an invalid frame is a hit there
    assert score(truth, boxes, RULES["vlt-python"]).value("auc") == pytest.approx(PERFECT)


@pytest.mark.fault("E11")
def test_nan_annotations_are_invalid_or_left_out() -> None:
    boxes = boxes_of((10, 10, 20, 20), (np.nan,) * 4, (50, 50, 20, 20))
    found = boxes_of((10, 10, 20, 20), (10, 10, 20, 20), (10, 10, 20, 20))
    truth = annotations_of(boxes)
    assert score(truth, found, RULES["otb"]).value("precision") == pytest.approx(2 / 3)
    assert score(truth, found, RULES["vlt-python"]).value("precision") == pytest.approx(1 / 3)
    assert score(truth, found, RULES["got10k-otb"]).value("precision") == pytest.approx(1 / 2)
    assert score(truth, found, RULES["got10k-otb"]).frames.tolist() == [2]


def test_a_tie_is_a_hit_but_not_a_success() -> None:
    # 12 of 20 columns overlap and the union is 20 columns: IoU 0.6 exactly; the centers are 4 px apart.
    truth = annotations_of(boxes_of((1, 1, 10, 10), (10, 10, 20, 10)))
    found = boxes_of((1, 1, 10, 10), (10, 10, 12, 10))
    scores = score(truth, found, RULES["otb"])
    assert scores.success[0][11] == 1.0
    assert scores.success[0][12] == 0.5
    assert scores.precision[0][3] == 0.5
    assert scores.precision[0][4] == 1.0
    assert scores.norm_precision[0][19] == 0.5
    assert scores.norm_precision[0][20] == 1.0  # 4/20 of the width is 0.20
    server = score(truth, found, RULES["trackingnet"])
    assert server.success[0][12] == 1.0  # at least, not above


@pytest.mark.fault("E11")
def test_the_first_frame_is_free_or_counts() -> None:
    truth = annotations_of(boxes_of((10, 10, 20, 20), (10, 10, 20, 20)))
    found = boxes_of((90, 90, 5, 5), (10, 10, 20, 20))
    assert score(truth, found, RULES["otb"]).value("precision") == 1.0
    assert score(truth, found, RULES["pysot"]).value("precision") == 0.5
    assert score(truth, found, RULES["got10k"]).frames.tolist() == [1]


@pytest.mark.fault("E11")
def test_a_prediction_that_is_not_a_box_repeats_the_one_before() -> None:
    box = (10.0, 10.0, 20.0, 20.0)
    truth = annotations_of(boxes_of(box, box, box, box))
    found = boxes_of(box, (0, 0, 0, 0), (np.nan,) * 4, (10, 10, -3, 20))
    assert score(truth, found, RULES["otb"]).value("op75") == 1.0
    assert score(truth, found, RULES["pysot"]).value("op75") == 0.25


def test_the_own_first_frame_is_repeated_when_it_is_kept() -> None:
    box = (10.0, 10.0, 20.0, 20.0)
    truth = annotations_of(boxes_of(box, box))
    found = boxes_of((60, 60, 20, 20), (0, 0, 0, 0))
    assert score(truth, found, RULES["otb"]).value("op50") == 1.0
    assert score(truth, found, replace(RULES["otb"], first="keep", drops_empty=False)).value("op50") == 0.0


def test_a_sequence_without_any_success_is_dropped_only_where_the_toolkit_drops_it() -> None:
    gone = boxes_of((0, 0, 0, 0), (0, 0, 0, 0))
    fine = boxes_of((10, 10, 20, 20), (10, 10, 20, 20))
    truth = annotations_of(gone, fine)
    found = np.concatenate([gone, fine])
    assert score(truth, found, RULES["otb"]).value("auc") == pytest.approx(PERFECT)
    assert score(truth, found, RULES["vlt-python"]).value("auc") == pytest.approx(PERFECT / 2)


@pytest.mark.fault("E11")
def test_got10k_pools_frames_cuts_boxes_to_the_image_and_leaves_out_covered_frames() -> None:
    long = boxes_of(*[(10, 10, 20, 20)] * 5)
    short = boxes_of(*[(10, 10, 20, 20)] * 3)
    truth = Annotations.join(
        [
            Annotation(
                name="a", boxes=long, absent=np.zeros(5, bool), cover=np.array([8, 8, 8, 8, 0.0]), size=(100, 100)
            ),
            Annotation(name="b", boxes=short, absent=np.zeros(3, bool), size=(100, 100)),
        ]
    )
    found = np.concatenate([long, boxes_of(*[(90, 90, 20, 20)] * 3)])
    scores = score(truth, found, RULES["got10k"])
    # Three frames of a are right, two of b are wrong; the mean over sequences would be 0.5.
    assert scores.frames.tolist() == [3, 2]
    assert scores.value("overlap") == scores.value("op50") == scores.value("op75") == pytest.approx(3 / 5)
    # Beyond the frame nothing counts: 120 wide from 90 is 10 wide in a frame of 100.
    beyond = annotations_of(boxes_of((10, 10, 5, 5), (90, 10, 10, 10)), size=(100, 100), cover=np.full(2, 8.0))
    cut = score(beyond, boxes_of((10, 10, 5, 5), (90, 10, 120, 10)), RULES["got10k"])
    assert cut.value("overlap") == 1.0


@pytest.mark.fault("E11")
def test_trackingnet_rounds_and_takes_areas() -> None:
    truth = annotations_of(boxes_of((10, 10, 20, 20), (10.4, 10.4, 20.4, 20.4)))
    found = boxes_of((0, 0, 1, 1), (9.6, 9.6, 19.6, 19.6))
    assert score(truth, found, RULES["trackingnet"]).value("auc") == 1.0
    away = boxes_of((0, 0, 1, 1), (10, 35, 20, 20))  # 25 px off: half of the 50 px, a hit from there on
    area = score(truth, away, RULES["trackingnet"]).value("precision")
    # Frame 1 is free (area 1). Frame 2 climbs from 22.5 to 25 px, then stays: 0.05 / 2 + 0.5.
    assert area == pytest.approx((1 + 0.525) / 2)


@pytest.mark.fault("E11")
def test_results_of_another_length_are_refused_filled_or_cut() -> None:
    box = (10.0, 10.0, 20.0, 20.0)
    truth = annotations_of(boxes_of(box, box, box, box))
    short, long = {"s0": boxes_of(box, box)}, {"s0": boxes_of(*[box] * 6)}
    with pytest.raises(DataError, match=r"s0 \(2 for 4 frames\)"):
        align(truth, short, RULES["lasot"])
    with pytest.raises(DataError, match="1 of 1 sequences have no result: s0"):
        align(truth, {}, RULES["lasot"])
    with pytest.raises(DataError, match=r"more rows.*s0 \(6 for 4 frames\)"):
        align(truth, long, RULES["webuav"])

    def auc(results: dict[str, Floats], name: str) -> float:
        return score(*align(truth, results, RULES[name]), RULES[name]).value("op50")

    assert auc(long, "lasot") == 1.0
    assert auc(short, "vlt-python") == 0.5
    assert auc(short, "trackingnet") == 0.5
    assert auc(short, "got10k-otb") == 1.0
    # A whole file that is missing is zeros for the server: overlap 0 is "at least 0", so the first of 21
    # thresholds counts all four frames; the first frame is free.
    nothing = score(*align(truth, {}, RULES["trackingnet"]), RULES["trackingnet"])
    assert nothing.success[0].tolist() == [1.0, *[0.25] * 20]


@pytest.mark.fault("E19")
def test_frames_without_a_row_are_refused_misses_or_left_out() -> None:
    boxes = np.tile(boxes_of((10, 10, 20, 20)), (10, 1))
    truth = annotations_of(boxes, boxes[:4])
    found = {"s0": boxes.copy(), "s1": boxes[:4]}
    found["s0"][[0, 3, 4, 8]] = NO_ROW
    with pytest.raises(DataError, match=r"s0 \(6 for 10 frames\)"):
        align(truth, found, RULES["visible-only"])
    shares = {"misses": (6 / 10, 1.0), "cut": (1.0, 1.0), "zeros": (6 / 10, 1.0)}
    for short, wanted in shares.items():
        rule = replace(RULES["visible-only"], short=short)
        scores = score(*align(truth, found, rule), rule)
        assert scores.each("op50").tolist() == pytest.approx(wanted)
        assert scores.frames.tolist() == ([6, 4] if short == "cut" else [10, 4])
    every_other = np.tile(boxes, (2, 1))  # as many rows as frames, but not for these
    every_other[1::2] = NO_ROW
    with pytest.raises(DataError, match=r"s0 \(5 for 10 frames\)"):
        align(truth, found | {"s0": every_other}, RULES["visible-only"])
    found["s0"][:] = NO_ROW  # the text found nothing to start with: a miss in every frame, and complete
    cut = replace(RULES["visible-only"], short="cut")
    assert score(*align(truth, found, cut), cut).each("op50").tolist() == [0, 1]


@pytest.mark.fault("E08")
def test_one_row_too_few_everywhere_names_the_first_frame() -> None:
    boxes = np.tile(boxes_of((10, 10, 20, 20)), (10, 1))
    truth = annotations_of(boxes, boxes[:4])
    with pytest.raises(DataError, match="frame 1 may be missing"):
        align(truth, {"s0": boxes[1:], "s1": boxes[1:4]}, RULES["otb"])
    with pytest.raises(DataError) as caught:
        align(truth, {"s0": boxes[1:], "s1": boxes[2:4]}, RULES["otb"])
    assert "frame 1" not in caught.value.message


def test_all_frames_absent_or_one_frame() -> None:
    gone = annotations_of(boxes_of((10, 10, 20, 20), (10, 10, 20, 20)), absent=[[1, 1]])
    scores = score(gone, gone.boxes, RULES["visible-only"])
    assert scores.frames.tolist() == [0]
    assert np.isnan(scores.value("auc"))
    assert np.isnan(scores.each("auc")).all()
    one = annotations_of(boxes_of((10, 10, 20, 20)))
    assert score(one, one.boxes, RULES["lasot"]).value("auc") == pytest.approx(PERFECT)
    with pytest.raises(DataError, match="No annotated sequence"):
        Annotations.join([])


def same(a: Scores, b: Scores) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("success", "precision", "norm_precision", "frames")
    )


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(RULES)))
def test_scoring_changes_no_input_and_sequences_are_independent(seed: int, name: str) -> None:
    truth, boxes = random_case(seed)
    before = boxes.copy()
    boxes.setflags(write=False)
    rule: Rule = RULES[name]
    scores = score(truth, boxes, rule)
    assert np.array_equal(boxes, before, equal_nan=True)
    for measure in MEASURES:
        value = scores.value(measure)
        assert np.isnan(value) or 0 <= value <= 1
    alone = [truth.only([s]) for s in truth.names]
    parts = [score(t, boxes[truth.rows(k)], rule) for k, t in enumerate(alone)]
    assert np.array_equal(np.concatenate([part.success for part in parts]), scores.success)
    assert np.array_equal(np.concatenate([part.frames for part in parts]), scores.frames)
    assert same(scores, score(truth, boxes, rule))


def test_the_size_of_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, boxes = random_case(3)
    whole = {name: score(truth, boxes, rule) for name, rule in RULES.items()}
    monkeypatch.setattr("vltrack.metrics.scoring._BLOCK", 3)
    assert all(same(score(truth, boxes, rule), whole[name]) for name, rule in RULES.items())

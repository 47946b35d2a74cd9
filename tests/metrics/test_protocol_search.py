"""The search for the protocol behind a number, the counted causes of differences, WebUAV-3M's scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vltrack.metrics.annotations import Annotation, Annotations
from vltrack.metrics.protocol_search import causes, trivial_hits, which_rule
from vltrack.metrics.protocols import BENCHMARKS, RULES, benchmark_of
from vltrack.metrics.scoring import complete_iou, score, webuav


@pytest.fixture
def truth() -> Annotations:
    box = (10.0, 10.0, 20.0, 20.0)
    rows = [box, box, (0, 10, 20, 20), (0, 0, 0, 0), (30, 30, 20, 20), box, (np.nan,) * 4, (40, 40, 0, 9)]
    absent = [0, 0, 0, 1, 1, 0, 0, 0]
    return Annotations.join([Annotation(name="a", boxes=np.array(rows), absent=np.array(absent, dtype=bool))])


def test_causes_are_counted(truth: Annotations) -> None:
    counts = {"frames": 8, "absent": 2, "absent_with_box": 1, "no_size": 1, "xy_not_positive": 1, "nan": 1}
    assert causes(truth) == counts


def test_trivially_satisfied_frames_are_counted(truth: Annotations) -> None:
    # The toolkit: x = 0, NaN and no size, which are seen; papers' code: absent (0,0,0,0), NaN, no size.
    assert trivial_hits(truth, RULES["tnl2k"]) == {"precision": 3, "norm_precision": 3}
    assert trivial_hits(truth, RULES["vlt-python"]) == {"precision": 0, "norm_precision": 3}
    assert trivial_hits(truth, RULES["visible-only"]) == {"precision": 0, "norm_precision": 0}


def test_the_convention_behind_a_number_is_found(truth: Annotations) -> None:
    boxes = np.nan_to_num(truth.boxes) + np.array([3.4, 0, 0.4, 0.4])
    results = {"a": boxes}
    for name in ("tnl2k", "vlt-python", "visible-only"):
        number = round(100 * score(truth, boxes, RULES[name]).value("auc"), 2)
        fits = which_rule(number, truth, results, tolerance=0.005).fits
        assert any(name in fit.rules and fit.measure == "auc" and fit.change == "as given" for fit in fits)
    cut = 100 * score(truth, np.trunc(boxes), RULES["tnl2k"]).value("auc")
    assert cut != pytest.approx(100 * score(truth, boxes, RULES["tnl2k"]).value("auc"))
    fits = which_rule(cut, truth, results, tolerance=1e-6).fits
    assert any("tnl2k" in fit.rules and fit.change == "truncated" for fit in fits)
    assert which_rule(99.123456, truth, results, tolerance=1e-9).fits == ()


def test_refusing_rules_are_listed_and_no_match_twice(truth: Annotations) -> None:
    short = {"a": np.nan_to_num(truth.boxes)[:-1]}
    search = which_rule(50.0, truth, short, tolerance=50.0)
    assert {"otb", "tnl2k", "pysot"} <= set(search.refused)
    assert "a (7 for 8 frames)" in search.refused["otb"]
    ways = [(rule, fit.measure, round(fit.value, 3)) for fit in search.fits for rule in fit.rules]
    assert len(ways) == len(set(ways))
    rules = [replace(rule, short="misses") for rule in RULES.values()]
    assert which_rule(50.0, truth, short, tolerance=50.0, rules=rules).refused == {}


def test_every_data_set_has_its_rules() -> None:
    for name, benchmark in BENCHMARKS.items():
        assert set(benchmark.rules) == {"official", "vlt-python"}, name
    assert benchmark_of("unknown") is BENCHMARKS["folder"]


def test_webuav_expects_no_box_where_the_target_is_absent() -> None:
    box = (10.0, 10.0, 20.0, 20.0)
    boxes = np.array([box, box, (0, 0, 0, 0), (0, 0, 0, 0)])
    truth = Annotations.join([Annotation(name="a", boxes=boxes, absent=np.zeros(4, dtype=bool))])
    silent = np.array([False, False, True, False])
    accuracy, complete_auc = webuav(truth, np.where(silent[:, None], np.nan, [box] * 4), silent)
    assert accuracy == 3 / 4  # any box is wrong where there is no target
    assert complete_auc == pytest.approx(2 / 4 * 20 / 21)
    assert webuav(truth, np.array([box] * 4), np.zeros(4, dtype=bool))[0] == 2 / 4


def test_complete_iou_by_hand() -> None:
    same = np.array([[0.0, 0, 4, 2]])
    assert complete_iou(same, same)[0] == pytest.approx(1.0)
    # Side by side: no overlap, centers 4 apart, the box around both is 8 by 2, the shapes are alike.
    assert complete_iou(same, same + np.array([4.0, 0, 0, 0]))[0] == pytest.approx(-(4**2) / (8**2 + 2**2))
    # A square of half the width inside: IoU 1/2, centers 1 apart, diagonal² 20, shapes differ.
    shape = 4 / np.pi**2 * (np.arctan(2) - np.arctan(1)) ** 2
    weight = shape / (1 - 0.5 + shape)
    assert complete_iou(np.array([[0.0, 0, 2, 2]]), same)[0] == pytest.approx(0.5 - 1 / 20 - weight * shape)

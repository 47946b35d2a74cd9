"""Agreement of trackers: three boxes by hand, frames without a box, a single tracker."""

from __future__ import annotations

import numpy as np
import pytest

from vltrack.metrics.agreement import agreement

NAN = float("nan")
SAME, HALF, FAR = (0, 0, 10, 10), (0, 0, 10, 5), (100, 100, 10, 10)


def test_by_hand() -> None:
    found = agreement([[SAME, SAME], [HALF, SAME], [FAR, SAME]])
    assert found.mean_N == pytest.approx([0.5 / 3, 1.0])
    assert found.each_TN[:, 0] == pytest.approx([0.25, 0.25, 0.0])
    assert found.overall_T == pytest.approx([0.625, 0.625, 0.5])
    assert found.matrix_TT[0, 1] == found.matrix_TT[1, 0] == pytest.approx(0.75)
    assert np.isnan(np.diag(found.matrix_TT)).all()


def test_a_frame_without_a_box_is_left_out() -> None:
    gap = (NAN, NAN, NAN, NAN)
    found = agreement([[SAME, SAME, gap], [HALF, gap, gap], [SAME, FAR, SAME]])
    assert found.mean_N[:2] == pytest.approx([(0.5 + 1 + 0.5) / 3, 0.0])
    assert np.isnan(found.mean_N[2])
    assert np.isnan(found.each_TN[1, 1:]).all()
    assert found.overall_T == pytest.approx([(0.75 + 0) / 2, 0.5, (0.75 + 0) / 2])
    assert found.matrix_TT[1, 2] == pytest.approx(0.5)


def test_a_single_tracker_has_no_agreement() -> None:
    found = agreement([[SAME, HALF]])
    assert np.isnan(found.mean_N).all()
    assert np.isnan(found.overall_T).all()
    assert agreement(np.zeros((2, 0, 4))).mean_N.shape == (0,)
    with pytest.raises(ValueError, match="T, N, 4"):
        agreement([SAME, HALF])

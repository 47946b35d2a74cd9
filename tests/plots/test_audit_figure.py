"""The figure of a language audit: sorted bars, mean and interval, any number of bars, odd names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from vltrack.plots import figures as paper
from vltrack.plots.timelines import ALL_NAMED, Panel, audit_figure


def panel(count: int = 8, **changes: Any) -> Panel:
    values = np.random.default_rng(count).normal(2, 8, size=count)
    settings: dict[str, Any] = {
        "title": "nlbbox: the true sentence over no sentence",
        "summary": "+1.87 [+0.95, +2.80]",
        "unit": "points of success AUC",
        "names": [f"sequence-{i}" for i in range(count)],
        "values_S": values,
        "interval": (0.95, 2.8),
    }
    return Panel(**(settings | changes))


def bars(axes: Axes) -> list[float]:
    return [p.get_width() for p in axes.containers[0].patches]


def test_bars_are_sorted_and_the_interval_is_a_band() -> None:
    one = panel()
    figure = audit_figure("What the sentence does", "verdict", [one])
    (axes,) = figure.axes
    assert bars(axes) == sorted(np.asarray(one.values_S).tolist(), reverse=True)
    (band,) = (patch for patch in axes.patches if patch.get_gid() == "interval")
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((0.95, 2.8))
    means = [line.get_xdata()[0] for line in axes.lines]
    assert pytest.approx(float(np.mean(one.values_S))) in means
    low, high = axes.get_xlim()
    assert low < min(bars(axes))
    assert high > max(bars(axes))


def test_better_and_worse_differ_in_color() -> None:
    (axes,) = audit_figure("t", "v", [panel(values_S=[5.0, -3.0], names=["a", "b"])]).axes
    shades = {p.get_facecolor() for p in axes.containers[0].patches}
    assert len(shades) == 2


def test_two_modes_are_side_by_side() -> None:
    figure = audit_figure("t", "v", [panel(5), panel(12)])
    assert [len(bars(axes)) for axes in figure.axes] == [5, 12]
    first, second = (axes.get_position() for axes in figure.axes)
    assert first.x1 < second.x0


def test_missing_values_are_left_out_and_no_interval_is_no_band() -> None:
    (axes,) = audit_figure("t", "v", [panel(values_S=[1.0, math.nan, 2.0], names=["a", "b", "c"], interval=None)]).axes
    assert bars(axes) == [2.0, 1.0]
    assert not [patch for patch in axes.patches if patch.get_gid() == "interval"]


def test_many_bars_lose_their_names_and_the_picture_stays_small() -> None:
    few, many = (audit_figure("t", "v", [panel(count)]) for count in (ALL_NAMED, 1400))
    assert sum("sequence-" in text.get_text() for text in few.texts) == ALL_NAMED
    assert not any("sequence-" in text.get_text() for text in many.texts)
    assert many.get_size_inches()[1] < 5


def test_limits_of_the_axis_can_be_given() -> None:
    (axes,) = audit_figure("t", "v", [panel(values_S=[0.0], names=["a"], limits=(-1.0, 1.0))]).axes
    assert axes.get_xlim() == (-1.0, 1.0)
    (alone,) = audit_figure("t", "v", [panel(values_S=[0.0], names=["a"], interval=None)]).axes
    assert alone.get_xlim()[1] > 0.1


def test_the_same_figure_gives_the_same_bytes_whatever_the_names() -> None:
    one = panel(values_S=[1.0, 2.0], names=["$x_1$\n\x1b[31m", "\u4e2d" * 300])
    for kind in ("png", "svg"):
        first, second = (paper.encoded(audit_figure("t", "v", [one]), kind) for _ in range(2))
        assert first == second
        assert len(first) > 1000


def test_nothing_to_show_is_refused() -> None:
    with pytest.raises(ValueError):
        audit_figure("t", "v", [])
    with pytest.raises(ValueError):
        audit_figure("t", "v", [panel(values_S=[math.nan], names=["a"])])
    with pytest.raises(ValueError, match="2 names"):
        audit_figure("t", "v", [panel(values_S=[1.0], names=["a", "b"])])

"""The success plot shows what it is given, best first, and its files are whole and repeatable."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from vltrack.core.errors import UsageError
from vltrack.plots.curves import save_figure, success_plot

X = np.linspace(0, 1, 21)
CURVES = {"worse": (1 - X) ** 2, "_best $x$": 1 - X**2, "middle": 1 - X}


def test_lines_and_legend() -> None:
    axes = success_plot(CURVES, "Three").axes[0]
    labels = [text.get_text().lstrip("\u200b") for text in axes.get_legend().get_texts()]
    assert labels == [r"_best \$x\$  0.658", "middle  0.500", "worse  0.342"]
    assert np.allclose(axes.lines[1].get_ydata(), CURVES["middle"])
    assert axes.get_title() == "Three"
    assert not success_plot({}).axes[0].lines
    with pytest.raises(ValueError, match="worse"):
        success_plot({"worse": np.zeros((2, 2))})


def test_no_global_state() -> None:
    success_plot(CURVES)
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("extension", ["png", "svg", "pdf"])
def test_files(tmp_path, extension) -> None:
    path = tmp_path / f"curve.{extension}"
    save_figure(success_plot(CURVES), path)
    assert path.stat().st_size > 1000
    with pytest.raises(UsageError, match="exists"):
        save_figure(success_plot(CURVES), path)
    first = path.read_bytes()
    save_figure(success_plot(CURVES), path, overwrite=True)
    assert path.read_bytes() == first
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UsageError):
        save_figure(success_plot({}), tmp_path / "curve.txt")

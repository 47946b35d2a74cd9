"""Curves as figures. Knows matplotlib's object interface (no pyplot, no global state); computes no score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vltrack.core.errors import UsageError
from vltrack.core.files import atomic_path


def success_plot(curves: Mapping[str, ArrayLike], title: str = "Success") -> Figure:
    """Share of frames above each overlap threshold, a line a name, best first, with the area in the legend.

    Args:
        curves: name -> (T,) success at T evenly spaced thresholds from 0 to 1
        (``metrics.success.success_curve``).
        title: written above.

    Raises:
        ValueError: a curve is not one row of at least two numbers.
    """
    figure = Figure(figsize=(5.6, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rows = {name: np.asarray(curve, dtype=np.float64) for name, curve in curves.items()}
    for name, curve in rows.items():
        if curve.ndim != 1 or len(curve) < 2:
            raise ValueError(
                f"the curve of {name!r} has shape {curve.shape}; one row of thresholds is needed"
            )
    for place, (name, curve) in enumerate(sorted(rows.items(), key=lambda row: (-row[1].mean(), row[0]))):
        # Names are data: a dollar sign is no formula, and a leading underscore must not hide the line.
        label = f"\u200b{name}  {curve.mean():.3f}".replace("$", r"\$")
        style = ("-", "--", "-.", ":")[(place // 10) % 4]
        axes.plot(
            np.linspace(0, 1, len(curve)), curve, style, color=f"C{place % 10}", linewidth=1.8, label=label
        )
    axes.set(
        xlim=(0, 1), ylim=(0, 1), xlabel="overlap threshold", ylabel="share of frames above it", title=title
    )
    axes.grid(alpha=0.3)
    if rows:
        axes.legend(fontsize="small", loc="lower left")
    return figure


def save_figure(figure: Figure, path: Path | str, overwrite: bool = False) -> None:
    """Write ``.png``, ``.svg`` or ``.pdf``, whole or not at all; the same figure gives the same bytes.

    Raises:
        UsageError: another extension, or the file exists and ``overwrite`` is false.
        ResourceError: it cannot be written.
    """
    file = Path(path)
    stamps: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    kind = file.suffix.lower()
    if kind not in stamps:
        raise UsageError(f"cannot write a figure as {file.name!r}.", hint="Name it .png, .svg or .pdf.")
    if file.exists() and not overwrite:
        raise UsageError(f"{file} exists already.", hint="Choose another name, or give overwrite=True.")
    # Else matplotlib numbers the parts of an SVG at random.
    with rc_context({"svg.hashsalt": "vltrack"}), atomic_path(file) as temporary:
        figure.savefig(temporary, format=kind[1:], metadata=stamps[kind])

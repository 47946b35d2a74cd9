"""An audit as lines for people and as panels of a picture. Computes nothing new."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vltrack.cli.console import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vltrack.core.types import Mode
    from vltrack.evaluation.audit_report import Audit
    from vltrack.evaluation.audit_twins import TwinAudit
    from vltrack.metrics.bootstrap import Interval
    from vltrack.plots.audit import Panel


def sentences(audit: Audit) -> list[str]:
    """A block a mode: verdict, then a line for each other sentence."""
    lines: list[str] = []
    for mode, result in audit.modes.items():
        auc = "" if result.auc is None else f"; success AUC with the true sentence {result.auc:.2f}"
        refused = f"; {result.refused} starts by words refused" if result.refused else ""
        lines.append(f"{mode}: {result.told}{auc}{refused}")
        rows = [["instead of the sentence", "moved (1 - overlap)", "in target sizes", "gain of the sentence"]]
        for variant, total in result.totals.items():
            gain = "no truth" if total.gain is None else total.gain.told()
            rows.append([str(variant), _ends(total.moved, 3), _ends(total.distance, 2), gain])
        lines += [f"  {line}" for line in columns(rows)]
    count = len(audit.heard)
    lines.append(
        "one target: no interval."
        if count == 1
        else f"{count} targets; intervals: 95 %, paired bootstrap over targets."
    )
    if audit.left_out:
        lines.append(f"left out, no sentence: {len(audit.left_out)}")
    lines += [f"failed: {shown(one.name)}: {shown(one.error.message)}" for one in audit.failed]
    return lines


def twins(audit: TwinAudit) -> list[str]:
    """The verdict and every number of twin scenes."""
    rows = [
        ["frames on the twin that is named", _ends(audit.named, 3)],
        ["frames on the other one", _ends(audit.other, 3)],
        ["lead (0: does not read, 1: reads)", _ends(audit.lead, 3)],
        ["scenes that flip with the sentence", _ends(audit.flip, 3)],
        ["moved (1 - overlap)", _ends(audit.moved, 3)],
        ["starts refused", f"{audit.refused} of {2 * len(audit.scenes)}"],
    ]
    count = len(audit.scenes)
    last = (
        "one scene: no interval."
        if count == 1
        else f"{count} scenes; intervals: 95 %, bootstrap over scenes."
    )
    return [f"twins: {audit.told}", *(f"  {line}" for line in columns(rows)), last]


def columns(rows: list[list[str]]) -> list[str]:
    """Cells below each other, two blanks apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _ends(interval: Interval, digits: int) -> str:
    if interval.sequences == 0:
        return "-"
    if not interval.is_interval:
        return f"{interval.mean:.{digits}f}"
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def panels_of(audit: Audit, model: str) -> Figure | None:
    """The picture: gain of the true sentence target by target over the other one that the verdict rests on;
    without truth the movement by every other sentence. None where nothing was followed."""
    from vltrack.plots.audit import audit_figure

    panels: list[Panel] = []
    for mode, result in audit.modes.items():
        against = result.decided_by
        gain = None if against is None else result.totals[against].gain
        panel = _movements(audit, mode) if gain is None else _gains(audit, mode, str(against), gain)
        if panel is not None:
            panels.append(panel)
    if not panels:
        return None
    verdict = "; ".join(f"{mode}: {result.told}" for mode, result in audit.modes.items())
    return audit_figure(f"What the sentence does for {model}", verdict, panels)


def _gains(audit: Audit, mode: Mode, against: str, gain: Interval) -> Panel:
    from vltrack.plots.audit import Panel

    values = {
        one.name: math.nan if effect.gain is None else effect.gain
        for one in audit.heard
        for effect in one.effects
        if (effect.mode, effect.variant) == (mode, against)
    }
    return Panel(
        title=f"{mode}: the true sentence over a {against} one",
        told=gain.told().replace("sequence", "target"),
        unit="points of success AUC",
        names=list(values),
        values_S=list(values.values()),
        interval=(gain.low, gain.high) if gain.is_interval else None,
    )


def _movements(audit: Audit, mode: Mode) -> Panel | None:
    from vltrack.plots.audit import Panel

    several = len(audit.heard) > 1
    values = {
        f"{one.name} {effect.variant}" if several else str(effect.variant): effect.moved
        for one in audit.heard
        for effect in one.effects
        if effect.mode is mode and math.isfinite(effect.moved)
    }
    if not values:
        return None
    return Panel(
        title=f"{mode}: how far another sentence moves the box",
        told="no truth: whether it helps is not known",
        unit="1 - overlap with the true run",
        names=list(values),
        values_S=list(values.values()),
        limits=(0.0, 1.0),
    )


def twin_panels(audit: TwinAudit, model: str) -> Figure:
    """The picture of twin scenes: the lead of each."""
    from vltrack.plots.audit import Panel, audit_figure

    lead = audit.lead
    panel = Panel(
        title="twins: frames on the named one minus frames on the other",
        told=lead.told().replace("sequence", "scene"),
        unit="share of frames, mean of both sentences",
        names=[_twin_name(*scene.sentences) for scene in audit.scenes],
        values_S=[scene.lead for scene in audit.scenes],
        interval=(lead.low, lead.high) if lead.is_interval else None,
        limits=(-1.0, 1.0),
    )
    return audit_figure(f"Does {model} follow the words?", audit.told, [panel])


def _twin_name(one: str, two: str) -> str:
    """``the red star``, ``the blue star`` -> ``red, blue star``."""
    first, second = one.split(), two.split()
    own = " ".join(word for word in first if word not in second)
    return f"{own}, {' '.join(second[1:])}"

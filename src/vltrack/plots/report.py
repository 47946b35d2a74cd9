"""The report: all figures, each as SVG and PNG, and one HTML page that makes no request and runs no script.

Names, sentences and commands come from data; the template escapes them, and figures are data URIs in ``img``
elements, where nothing in them can run. The page's own policy (CSP) forbids everything else as well.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from vltrack.core.files import printable
from vltrack.core.types import Floats, Image
from vltrack.plots import contact_sheet, figures, timelines
from vltrack.plots import report_table as tables
from vltrack.plots.report_data import MEASURES, PairedDifference, ReportData
from vltrack.plots.report_table import LEADING

PAIRED = ("auc", "precision", "norm_precision")
"""The measures whose differences have intervals."""
_SHEET = contact_sheet.WIDTH / contact_sheet.LETTERS * figures.PLAIN / 72
"""Width of a sheet in inches at which its letters have the size of the other figures' letters."""
_MIMES = {"svg": "image/svg+xml", "png": "image/png", "jpeg": "image/jpeg"}


# -- figures ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReportFigure:
    """One figure: the name of its file without extension, its section and texts, and its bytes by kind.

    ``page`` is the kind that a page shows; a contact sheet has a JPEG for that, without its title. ``width``
    is that of the paper in inches: shown by it, letters have one size in all figures.
    """

    name: str
    section: str
    alt: str
    caption: str
    data: dict[str, bytes]
    page: str
    width: float


def draw_figures(report: ReportData, kinds: Sequence[str] = ("svg", "png")) -> list[ReportFigure]:
    """All figures of the report in the order of a page. The same report gives the same bytes.

    Args:
        report: the data.
        kinds: of files that are wanted, of ``svg``, ``png``, ``pdf`` and ``pgf``; the kind that a page shows is always
            included. A contact sheet has no ``pdf`` and ``pgf``.
    """
    return [
        _encoded(drawing, kinds) for draw in (_curves, _gains, _attributes, _worst, _speed) for drawing in draw(report)
    ]


class _Drawing(NamedTuple):
    """A figure before it is encoded, or the pixels of a sheet, with and without its title."""

    name: str
    section: str
    alt: str
    made: Figure | tuple[Image, Image]
    caption: str = ""


def _encoded(drawing: _Drawing, kinds: Sequence[str]) -> ReportFigure:
    name, section, alt, made, caption = drawing
    if isinstance(made, Figure):
        page, width = "svg", float(made.get_size_inches()[0])
        data = {kind: figures.encoded(made, kind) for kind in dict.fromkeys(("svg", *kinds))}
    else:
        page, width, data = "jpeg", _SHEET, _encoded_sheet(*made)
    return ReportFigure(name=name, section=section, alt=alt, caption=caption, data=data, page=page, width=width)


def _encoded_sheet(sheet: Image, bare: Image) -> dict[str, bytes]:
    """A sheet as PNG, as an SVG that holds the PNG, and without its title as the JPEG that a page shows."""
    png = cv2.imencode(".png", sheet[:, :, ::-1])[1].tobytes()
    jpeg = cv2.imencode(".jpg", bare[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    height, width = sheet.shape[:2]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><image width="{width}" height="{height}" '
        f'href="data:image/png;base64,{base64.b64encode(png).decode("ascii")}"/></svg>\n'
    )
    return {"svg": svg.encode("ascii"), "png": png, "jpeg": jpeg}


def _note(report: ReportData) -> str:
    """Rule, data and number of sequences, for every figure with a number."""
    title = report.entries[0].rules[report.rule].title
    return f"{title} \u00b7 {tables.set_of(report)} \u00b7 {report.count}"


def _curves(report: ReportData) -> Iterator[_Drawing]:
    for kind in figures.CURVE_KINDS:
        curves = [
            figures.Curve(t, entry.name, *scores.curves[kind.curve], scores.numbers[kind.number])
            for t, entry in enumerate(report.entries)
            if kind.curve in (scores := entry.rules[report.rule]).curves and kind.number in scores.numbers
        ]
        if curves:
            upper_bound = report.entries[0].rules[report.rule].upper_bound.get(kind.number)
            figure = figures.curve_figure(kind, curves, _note(report), upper_bound)
            yield _Drawing(kind.key, "curves", f"{kind.title} curves", figure)


def _gains(report: ReportData) -> Iterator[_Drawing]:
    b = report.against
    if b is None:
        return
    each = [entry.rules[report.rule].per_sequence.get(LEADING) for entry in report.entries]
    names, theirs = [entry.name for entry in report.entries], each[b]
    for a, ours in enumerate(each):
        pair = tables.pair_of(report, a, b)
        if a == b or ours is None or theirs is None or pair is None:
            continue
        both = np.flatnonzero(np.isfinite(ours) & np.isfinite(theirs))
        if both.size:
            figure = figures.gain_figure(
                (a, names[a]),
                (b, names[b]),
                [report.sequences[s] for s in both],
                ours[both] - theirs[both],
                _mean_gain(report, pair),
                f"success AUC per sequence, worst first \u00b7 {_note(report)}",
            )
            alt = f"Gain of {names[a]} over {names[b]} by sequence"
            yield _Drawing(f"gain-{a + 1}-over-{b + 1}", "gains", alt, figure)


def _mean_gain(report: ReportData, pair: PairedDifference) -> str:
    mean = f"mean {tables.signed(pair.mean)}"
    if pair.low is not None and pair.high is not None:
        mean += f" [{tables.signed(pair.low)}, {tables.signed(pair.high)}]"
    mean += f" on {report.count}"
    if pair.sequences < tables.FEWEST:
        return mean + f": not distinguishable, {tables.TOO_FEW}"
    mean += "" if tables.is_significant(pair) else ": not distinguishable"
    return mean + "; paired 95 % bootstrap interval"


def _attributes(report: ReportData) -> Iterator[_Drawing]:
    attributes = tables.attributes_of(report)
    if len(attributes) < figures.FEWEST:
        return
    rules = [entry.rules[report.rule] for entry in report.entries]
    scores = [[rule.attributes[name][1][LEADING] for name, _ in attributes] for rule in rules]
    names = [(t, entry.name) for t, entry in enumerate(report.entries)]
    title = "Success AUC by attribute"
    figure = figures.radar_figure(attributes, names, scores, title, _note(report))
    yield _Drawing("attributes", "attributes", title, figure)


def _worst(report: ReportData) -> Iterator[_Drawing]:
    names = [entry.name for entry in report.entries]
    for place, sequence in enumerate(report.worst, 1):
        note = f"\u201c{sequence.sentence}\u201d \u00b7 " if sequence.sentence else ""
        note += f"{sequence.frames} frames"
        alt = f"Overlap and score over time: {sequence.name}"
        rows = list(zip(names, sequence.overlaps, sequence.scores, strict=True))
        figure = timelines.overlap_timeline(sequence.name, note, sequence.frames, sequence.absent, rows)
        mean = sequence.frames / len(sequence.overlaps[0])
        caption = "" if mean == 1 else f"Each point is the mean of about {mean:.1f} frames."
        yield _Drawing(f"strip-{place}", "films", alt, figure, caption)
        if sequence.snapshots:
            sheets = (
                contact_sheet.sequence_sheet(sequence.name, note, names, sequence.snapshots),
                contact_sheet.sequence_sheet("", "", names, sequence.snapshots),
            )
            yield _Drawing(f"sheet-{place}", "films", f"Keyframes of {sequence.name}", sheets)


def _speed(report: ReportData) -> Iterator[_Drawing]:
    entries = report.entries
    scores = [entry.rules[report.rule].numbers.get(LEADING) for entry in entries]
    points = [
        figures.SpeedPoint(t, entry.name, entry.fps, score)
        for t, (entry, score) in enumerate(zip(entries, scores, strict=True))
        if entry.fps is not None and entry.fps > 0 and score is not None
    ]
    if points:
        figure = figures.speed_figure(points, "success AUC", _note(report))
        left = len(entries) - len(points)
        caption = f"{left} of {len(entries)} trackers have no times." if left else ""
        yield _Drawing("speed", "speed", "Speed against success AUC", figure, caption)
    if report.similarity is not None:
        names = [(None, "ground truth"), *((t, entry.name) for t, entry in enumerate(entries))]
        shown: Floats = report.similarity.copy()
        np.fill_diagonal(shown, np.nan)
        figure = figures.similarity_figure(names, shown, report.similarity_note)
        yield _Drawing("likeness", "speed", "Mean overlap of each pair", figure)


# -- the page -----------------------------------------------------------------------------------------


def report_page(report: ReportData, drawn: Sequence[ReportFigure]) -> str:
    """The page as HTML text. The same report and figures give the same text."""
    environment = Environment(
        loader=PackageLoader("vltrack.plots"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": tables.number, "signed": tables.signed, "shown": printable}
    groups = tables.grouped(tables.columns_of(report))
    attributes = tables.attributes_of(report)
    rules = [entry.rules[report.rule] for entry in report.entries]
    return environment.get_template("report.html").render(
        report=report,
        set_name=tables.set_of(report),
        verdict=tables.verdict(report),
        places=tables.ranking(report),
        main_groups=[group for group in groups if group[1][0].measure in report.main],
        other_groups=[group for group in groups if group[1][0].measure not in report.main],
        titles=tables.titles_of(report),
        causes=tables.causes_of(report),
        attributes=attributes,
        best_of={name: tables.highest([r.attributes[name][1][LEADING] for r in rules]) for name, _ in attributes},
        pairs=_pairs(report),
        measures=MEASURES,
        paired=PAIRED,
        leading=LEADING,
        swatches=[to_hex(figures.tracker_color(t)) for t in range(len(report.entries))],
        figures={
            section: [(one, _uri(one)) for one in drawn if one.section == section]
            for section in {one.section for one in drawn}
        },
        latex=tables.latex_of(report),
        rows=_rows(report),
        spelled=tables.spelled([name for name, _ in attributes]),
        inch=6.8,  # rem on the page per inch of a figure: three curves fit in a row
        has_mode=any(entry.mode for entry in report.entries),
        has_fps=any(entry.fps is not None for entry in report.entries),
        has_first=any(entry.mode == "nl" for entry in report.entries),
    )


def _pairs(report: ReportData) -> list[tuple[int, int, list[PairedDifference | None], str, bool]]:
    """Each pair once, the better first: (A, B, difference by measure, verdict, whether significant)."""
    order = [rank.tracker for rank in tables.ranking(report)]
    rows = []
    for i, a in enumerate(order):
        for b in order[i + 1 :]:
            first = tables.pair_of(report, a, b)
            if first is not None:
                each = [tables.pair_of(report, a, b, measure) for measure in PAIRED]
                rows.append((a, b, each, tables.pair_verdict(report, first), tables.is_significant(first)))
    return rows


def _rows(report: ReportData) -> list[tuple[str, list[float | None]]]:
    """Every sequence with the leading measure of each tracker; worst mean first."""
    each = [entry.rules[report.rule].per_sequence.get(LEADING) for entry in report.entries]
    rows = [
        (name, [None if row is None or np.isnan(row[s]) else float(row[s]) for row in each])
        for s, name in enumerate(report.sequences)
    ]
    return sorted(rows, key=lambda row: (sum(v or 0.0 for v in row[1]), row[0]))


def _uri(figure: ReportFigure) -> str:
    data = base64.b64encode(figure.data[figure.page]).decode("ascii")
    return f"data:{_MIMES[figure.page]};base64,{data}"

"""One page that holds a whole report: no request, no script, nothing outside the file. Knows the template.

Whatever comes from data (names, sentences, commands) is escaped by the template; pictures are data URIs in
``img`` elements, where nothing in them can run. The page's own policy forbids everything else besides.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from vltrack.core.files import printable
from vltrack.core.types import Floats, Image
from vltrack.plots import contact_sheet as worst
from vltrack.plots import figures as curves
from vltrack.plots import figures as gains
from vltrack.plots import figures as paper
from vltrack.plots import figures as radar
from vltrack.plots import figures as standing
from vltrack.plots import report_table as tables
from vltrack.plots import timelines as strips
from vltrack.plots.report_data import MEASURES, Film, Report
from vltrack.plots.report_table import (
    FEWEST,
    LEADING,
    TOO_FEW,
    attributes_of,
    pair_of,
    set_of,
    signed,
    told_apart,
)

# MERGED plots/report.py
# All pictures of a report, each as SVG and as PNG. Knows which picture shows what of a ``Report``.


_SHEET = worst.WIDTH / worst.LETTERS * paper.PLAIN / 72
"""Inches: so wide its letters are those of the other pictures."""
SECTIONS = ("curves", "gains", "attributes", "films", "speed")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Picture:
    """One picture: its file's name without ending, where it belongs, what it shows, and its bytes by kind.

    ``page`` is the kind that a page shows; a sheet of photographs has a JPEG for that, without its title.
    ``width`` is that of the paper in inches: shown by it, letters are of one size in all pictures.
    """

    name: str
    section: str
    alt: str
    caption: str
    data: dict[str, bytes]
    page: str
    width: float


def draw_figures(report: Report, kinds: Sequence[str] = ("svg", "png")) -> list[Picture]:
    """Everything that can be drawn of the report, in the order of a page. The same report, the same bytes.

    Args:
        report: what is drawn.
        kinds: of files that are wanted, ``svg`` and ``png``; what a page shows is always among the bytes.
    """
    drawings = (_curves, _gains, _attributes, _films, _speed)
    return [_encoded(drawing, kinds) for draw in drawings for drawing in draw(report)]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Drawing:
    """A picture before it has bytes: ``made`` is a figure, or the pixels of a sheet of photographs, with and
    without its title.
    """

    name: str
    section: str
    alt: str
    made: Figure | tuple[Image, Image]
    caption: str = ""


def _encoded(drawing: _Drawing, kinds: Sequence[str]) -> Picture:
    if isinstance(drawing.made, Figure):
        page, width = "svg", float(drawing.made.get_size_inches()[0])
        data = {kind: paper.encoded(drawing.made, kind) for kind in dict.fromkeys(("svg", *kinds))}
    else:
        page, width, data = "jpeg", _SHEET, _photographs(*drawing.made)
    return Picture(
        name=drawing.name,
        section=drawing.section,
        alt=drawing.alt,
        caption=drawing.caption,
        data=data,
        page=page,
        width=width,
    )


def _note(report: Report) -> str:
    """Rule, data and number of sequences: said on every picture that shows a number."""
    title = report.entries[0].rules[report.rule].title
    return f"{title} \u00b7 {set_of(report)} \u00b7 {report.count}"


def _curves(report: Report) -> Iterator[_Drawing]:
    for kind in curves.CURVE_KINDS:
        key = kind.curve.removesuffix("_curve")
        lines = []
        for tracker, entry in enumerate(report.entries):
            ruled = entry.rules[report.rule]
            if key in ruled.curves and kind.number in ruled.numbers:
                thresholds, shares = ruled.curves[key]
                lines.append(
                    curves.Line(
                        tracker=tracker,
                        name=entry.name,
                        thresholds=thresholds,
                        shares=shares,
                        number=ruled.numbers[kind.number],
                    )
                )
        if lines:
            ceiling = report.entries[0].rules[report.rule].ceiling.get(kind.number)
            figure = curves.curve_figure(kind, lines, _note(report), ceiling)
            yield _Drawing(name=kind.key, section="curves", alt=f"{kind.title} curves", made=figure)


def _gains(report: Report) -> Iterator[_Drawing]:
    b = report.against
    if b is None:
        return
    theirs = report.entries[b].rules[report.rule].per_sequence.get(LEADING)
    for a, entry in enumerate(report.entries):
        ours = entry.rules[report.rule].per_sequence.get(LEADING)
        pair = pair_of(report, a, b)
        if a == b or ours is None or theirs is None or pair is None:
            continue
        both = np.flatnonzero(np.isfinite(ours) & np.isfinite(theirs))
        if not both.size:
            continue
        mean = f"mean {signed(pair.mean)}"
        if pair.low is not None and pair.high is not None:
            mean += f" [{signed(pair.low)}, {signed(pair.high)}]"
        mean += f" on {report.count}"
        if pair.sequences < FEWEST:
            mean += f": not told apart, {TOO_FEW}"
        else:
            mean += "" if told_apart(pair) else ": not told apart"
            mean += "; paired 95 % bootstrap interval"
        figure = gains.gain_figure(
            (a, entry.name),
            (b, report.entries[b].name),
            [report.sequences[s] for s in both],
            ours[both] - theirs[both],
            mean,
            f"success AUC a sequence, worst first \u00b7 {_note(report)}",
        )
        alt = f"Gain of {entry.name} over {report.entries[b].name} by sequence"
        yield _Drawing(name=f"gain-{a + 1}-over-{b + 1}", section="gains", alt=alt, made=figure)


def _attributes(report: Report) -> Iterator[_Drawing]:
    attributes = attributes_of(report)
    if len(attributes) < radar.FEWEST:
        return
    rules = [entry.rules[report.rule] for entry in report.entries]
    scores = [[ruled.attributes[name][1][LEADING] for name, _ in attributes] for ruled in rules]
    names = [(t, entry.name) for t, entry in enumerate(report.entries)]
    figure = radar.radar_figure(attributes, names, scores, "Success AUC by attribute", _note(report))
    yield _Drawing(name="attributes", section="attributes", alt="Success AUC by attribute", made=figure)


def _films(report: Report) -> Iterator[_Drawing]:
    names = [entry.name for entry in report.entries]
    for place, film in enumerate(report.films, 1):
        note = f"\u201c{film.sentence}\u201d \u00b7 " if film.sentence else ""
        note += f"{film.frames} frames"
        lanes = [
            strips.Lane(tracker=t, name=names[t], overlaps=film.overlaps[t], scores=film.scores[t])
            for t in range(len(names))
        ]
        figure = strips.strip_figure(film.name, note, film.frames, film.absent, lanes)
        yield _Drawing(
            name=f"strip-{place}",
            section="films",
            alt=f"Overlap and score over time: {film.name}",
            made=figure,
            caption=_points(film),
        )
        if film.snapshots:
            sheet = (
                worst.worst_sheet(film.name, note, names, film.snapshots),
                worst.worst_sheet("", "", names, film.snapshots),
            )
            yield _Drawing(name=f"sheet-{place}", section="films", alt=f"Moments of {film.name}", made=sheet)


def _points(film: Film) -> str:
    """Says so where a point of a strip stands for more than one frame."""
    points = len(film.overlaps[0])
    return (
        "" if points == film.frames else f"Each point is the mean of about {film.frames / points:.1f} frames."
    )


def _photographs(sheet: Image, bare: Image) -> dict[str, bytes]:
    """A sheet as PNG, as an SVG that holds the PNG, and as the JPEG that a page shows: without its title, as
    the strip above says the same.
    """
    bgr = sheet[:, :, ::-1]
    png = cv2.imencode(".png", bgr)[1].tobytes()
    jpeg = cv2.imencode(".jpg", bare[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    height, width = sheet.shape[:2]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><image width="{width}" height="{height}" '
        f'href="data:image/png;base64,{base64.b64encode(png).decode("ascii")}"/></svg>\n'
    )
    return {"svg": svg.encode("ascii"), "png": png, "jpeg": jpeg}


def _speed(report: Report) -> Iterator[_Drawing]:
    points = []
    for tracker, entry in enumerate(report.entries):
        score = entry.rules[report.rule].numbers.get(LEADING)
        if entry.fps is not None and entry.fps > 0 and score is not None:
            points.append(standing.Point(tracker=tracker, name=entry.name, fps=entry.fps, score=score))
    if points:
        figure = standing.speed_figure(points, "success AUC", _note(report))
        left = len(report.entries) - len(points)
        caption = f"{left} of {len(report.entries)} trackers have no times." if left else ""
        yield _Drawing(
            name="speed", section="speed", alt="Speed against success AUC", made=figure, caption=caption
        )
    if report.likeness is not None:
        names: list[tuple[int | None, str]] = [(None, "truth")]
        names += [(t, entry.name) for t, entry in enumerate(report.entries)]
        figure = standing.matrix_figure(names, _half(report.likeness), report.likeness_note)
        yield _Drawing(name="likeness", section="speed", alt="Mean overlap of each pair", made=figure)


def _half(matrix: Floats) -> Floats:
    """The matrix without its diagonal, which says nothing."""
    shown = matrix.copy()
    np.fill_diagonal(shown, np.nan)
    return shown


_MIMES = {"svg": "image/svg+xml", "png": "image/png", "jpeg": "image/jpeg"}
_INCH = 6.8
"""rem on the page for an inch of a picture: three curves stand beside each other."""
PAIRED = ("auc", "precision", "norm_precision")
"""The measures whose differences have intervals."""


def report_page(report: Report, pictures: Sequence[Picture]) -> str:
    """The page as HTML text. The same report and pictures give the same text."""
    environment = Environment(
        loader=PackageLoader("vltrack.plots"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": tables.number, "signed": tables.signed, "shown": printable}
    places = tables.places(report)
    groups = tables.grouped(tables.columns_of(report))
    return environment.get_template("report.html").render(
        report=report,
        set_name=tables.set_of(report),
        verdict=tables.verdict(report),
        places=places,
        main_groups=[group for group in groups if group[1][0].measure in report.main],
        other_groups=[group for group in groups if group[1][0].measure not in report.main],
        titles=tables.titles_of(report),
        causes=tables.causes_of(report),
        attributes=tables.attributes_of(report),
        best_of={name: _best(report, name) for name, _ in tables.attributes_of(report)},
        pairs=_pairs(report),
        measures=MEASURES,
        paired=PAIRED,
        leading=tables.LEADING,
        swatches=[_hex(t) for t in range(len(report.entries))],
        pictures={
            section: [(picture, _uri(picture)) for picture in pictures if picture.section == section]
            for section in {picture.section for picture in pictures}
        },
        latex=tables.latex_of(report),
        rows=_rows(report),
        spelled=tables.spelled([name for name, _ in tables.attributes_of(report)]),
        inch=_INCH,
        has_mode=any(entry.mode for entry in report.entries),
        has_fps=any(entry.fps is not None for entry in report.entries),
        has_first=any(entry.mode == "nl" for entry in report.entries),
    )


def _pairs(report: Report) -> list[tuple[int, int, list[object], str, bool]]:
    """Each pair once, the better first: (A, B, a pair a measure, verdict, whether told apart)."""
    order = [place.tracker for place in tables.places(report)]
    rows = []
    for i, a in enumerate(order):
        for b in order[i + 1 :]:
            first = tables.pair_of(report, a, b)
            if first is not None:
                each: list[object] = [tables.pair_of(report, a, b, measure) for measure in PAIRED]
                rows.append((a, b, each, tables.pair_verdict(report, first), tables.told_apart(first)))
    return rows


def _best(report: Report, attribute: str) -> str:
    """The highest number of an attribute, as it is written."""
    rules = [entry.rules[report.rule] for entry in report.entries]
    return tables.number(max(ruled.attributes[attribute][1][tables.LEADING] for ruled in rules))


def _rows(report: Report) -> list[tuple[str, list[float | None]]]:
    """Every sequence with the leading measure of each tracker; worst mean first."""
    each = [entry.rules[report.rule].per_sequence.get(tables.LEADING) for entry in report.entries]
    rows = []
    for s, name in enumerate(report.sequences):
        values = [None if row is None or row[s] != row[s] else float(row[s]) for row in each]
        rows.append((name, values))
    return sorted(rows, key=lambda row: (sum(v or 0.0 for v in row[1]), row[0]))


def _uri(picture: Picture) -> str:
    data = base64.b64encode(picture.data[picture.page]).decode("ascii")
    return f"data:{_MIMES[picture.page]};base64,{data}"


def _hex(tracker: int) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in paper.color(tracker))

"""All pictures of a report, each as SVG and as PNG. Knows which picture shows what of a ``Report``."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib.figure import Figure

from vltrack.core.types import Image
from vltrack.plots import gains, paper, radar, report_curves, standing, strips, worst
from vltrack.plots.report_data import Film, Floats, Report
from vltrack.plots.report_table import LEADING, attributes_of, pair_of, set_of, signed

SECTIONS = ("curves", "gains", "attributes", "films", "speed")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Picture:
    """One picture: its file's name without ending, where it belongs, what it shows, and its bytes by kind.

    ``page`` is the kind that a page shows; a sheet of photographs has a JPEG for that.
    """

    name: str
    section: str
    alt: str
    caption: str
    data: dict[str, bytes]
    page: str


def draw_pictures(report: Report) -> list[Picture]:
    """Everything that can be drawn of the report, in the order of a page. The same report, the same bytes."""
    return [*_curves(report), *_gains(report), *_attributes(report), *_films(report), *_speed(report)]


def _picture(name: str, section: str, alt: str, figure: Figure, caption: str = "") -> Picture:
    data = {kind: paper.encoded(figure, kind) for kind in ("svg", "png")}
    return Picture(name=name, section=section, alt=alt, caption=caption, data=data, page="svg")


def _note(report: Report) -> str:
    """Rule, data and number of sequences: said on every picture that shows a number."""
    title = report.entries[0].rules[report.rule].title
    return f"{title} \u00b7 {set_of(report)} \u00b7 {report.count}"


def _curves(report: Report) -> Iterator[Picture]:
    for kind in report_curves.KINDS:
        key = kind.curve.removesuffix("_curve")
        lines = []
        for tracker, entry in enumerate(report.entries):
            ruled = entry.rules[report.rule]
            if key in ruled.curves and kind.number in ruled.numbers:
                thresholds, shares = ruled.curves[key]
                lines.append(
                    report_curves.Line(
                        tracker=tracker,
                        name=entry.name,
                        thresholds=thresholds,
                        shares=shares,
                        number=ruled.numbers[kind.number],
                    )
                )
        if lines:
            ceiling = report.entries[0].rules[report.rule].ceiling.get(kind.number)
            figure = report_curves.curve_figure(kind, lines, _note(report), ceiling)
            yield _picture(kind.key, "curves", f"{kind.title} curves", figure)


def _gains(report: Report) -> Iterator[Picture]:
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
            mean += "" if pair.excludes_zero else ": not told apart"
        figure = gains.gain_figure(
            (a, entry.name),
            (b, report.entries[b].name),
            [report.sequences[s] for s in both],
            ours[both] - theirs[both],
            f"{mean} on {report.count}; paired 95 % bootstrap interval",
            f"success AUC a sequence, worst first \u00b7 {_note(report)}",
        )
        alt = f"Gain of {entry.name} over {report.entries[b].name} by sequence"
        yield _picture(f"gain-{a + 1}-over-{b + 1}", "gains", alt, figure)


def _attributes(report: Report) -> Iterator[Picture]:
    attributes = attributes_of(report)
    if len(attributes) < radar.FEWEST:
        return
    rules = [entry.rules[report.rule] for entry in report.entries]
    scores = [[ruled.attributes[name][1][LEADING] for name, _ in attributes] for ruled in rules]
    names = [(t, entry.name) for t, entry in enumerate(report.entries)]
    figure = radar.radar_figure(attributes, names, scores, "Success AUC by attribute", _note(report))
    yield _picture("attributes", "attributes", "Success AUC by attribute", figure)


def _films(report: Report) -> Iterator[Picture]:
    names = [entry.name for entry in report.entries]
    for place, film in enumerate(report.films, 1):
        note = f"\u201c{film.sentence}\u201d \u00b7 " if film.sentence else ""
        note += f"{film.frames} frames"
        lanes = [
            strips.Lane(tracker=t, name=names[t], overlaps=film.overlaps[t], scores=film.scores[t])
            for t in range(len(names))
        ]
        figure = strips.strip_figure(film.name, note, film.frames, film.absent, lanes)
        yield _picture(
            f"strip-{place}", "films", f"Overlap and score over time: {film.name}", figure, _points(film)
        )
        if film.snapshots:
            sheet = worst.worst_sheet(film.name, note, names, film.snapshots)
            yield _photographs(f"sheet-{place}", f"Moments of {film.name}", sheet)


def _points(film: Film) -> str:
    """Says so where a point of a strip stands for more than one frame."""
    points = len(film.overlaps[0])
    return (
        "" if points == film.frames else f"Each point is the mean of about {film.frames / points:.1f} frames."
    )


def _photographs(name: str, alt: str, sheet: Image) -> Picture:
    bgr = sheet[:, :, ::-1]
    png = cv2.imencode(".png", bgr)[1].tobytes()
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    height, width = sheet.shape[:2]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><image width="{width}" height="{height}" '
        f'href="data:image/png;base64,{base64.b64encode(png).decode("ascii")}"/></svg>\n'
    )
    data = {"svg": svg.encode("ascii"), "png": png, "jpeg": jpeg}
    return Picture(name=name, section="films", alt=alt, caption="", data=data, page="jpeg")


def _speed(report: Report) -> Iterator[Picture]:
    points = []
    for tracker, entry in enumerate(report.entries):
        score = entry.rules[report.rule].numbers.get(LEADING)
        if entry.fps is not None and entry.fps > 0 and score is not None:
            points.append(standing.Point(tracker=tracker, name=entry.name, fps=entry.fps, score=score))
    if points:
        figure = standing.speed_figure(points, "success AUC", _note(report))
        left = len(report.entries) - len(points)
        caption = f"{left} of {len(report.entries)} trackers have no times." if left else ""
        yield _picture("speed", "speed", "Speed against success AUC", figure, caption)
    if report.likeness is not None:
        names: list[tuple[int | None, str]] = [(None, "truth")]
        names += [(t, entry.name) for t, entry in enumerate(report.entries)]
        figure = standing.matrix_figure(names, _half(report.likeness), report.likeness_note)
        yield _picture("likeness", "speed", "Mean overlap of each pair", figure)


def _half(matrix: Floats) -> Floats:
    """The matrix without its diagonal, which says nothing."""
    shown = matrix.copy()
    np.fill_diagonal(shown, np.nan)
    return shown

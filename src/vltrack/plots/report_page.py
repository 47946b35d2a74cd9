"""One page that holds a whole report: no request, no script, nothing outside the file. Knows the template.

Whatever comes from data (names, sentences, commands) is escaped by the template; pictures are data URIs in
``img`` elements, where nothing in them can run. The page's own policy forbids everything else besides.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from vltrack.core.text import printable
from vltrack.plots import paper
from vltrack.plots import report_table as tables
from vltrack.plots.report_data import MEASURES, Report
from vltrack.plots.report_pictures import Picture

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
    return "#" + "".join(f"{round(255 * part):02x}" for part in paper.colour(tracker))

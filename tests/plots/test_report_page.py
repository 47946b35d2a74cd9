"""The page of a report: one file without requests, verdicts that the data supports, inert names."""

from __future__ import annotations

import base64
import copy
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from report_cases import document, pair, rule_scores, scores, spread
from vltrack.core.errors import DataError
from vltrack.datasets.layouts import LAYOUTS
from vltrack.plots import report_table as tables
from vltrack.plots.contact_sheet import snapshot
from vltrack.plots.report import draw_figures, report_page
from vltrack.plots.report_data import ReportData, read_report, snapshot_record

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}\u202e"


class Page(HTMLParser):
    """Elements with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def report(*trackers: dict[str, Any], **more: Any) -> ReportData:
    return read_report(document(*trackers, **more), "report.json")


def three(**more: Any) -> ReportData:
    """Two trackers that are not distinguishable, one significantly below them."""
    pairs = [pair(0, 1, 1.0, -0.5, 2.5), pair(0, 2, 20.0, 15.0, 25.0), pair(1, 2, 19.0, 14.0, 24.0)]
    names = [scores("best", spread(51)), scores("near", spread(50)), scores("far", spread(31))]
    return report(*names, pairs=pairs, **more)


def worst_sequence() -> dict[str, Any]:
    shot = snapshot(np.full((90, 120, 3), 80, np.uint8), 7, [10, 10, 30, 30], [[12, 10, 30, 30]], [0.8])
    return {
        "name": "clip-3",
        "sentence": HOSTILE,
        "frames": 30,
        "absent": [[4, 9]],
        "lanes": [{"overlaps": [0.5] * 30, "scores": [None] * 30}],
        "snapshots": [snapshot_record(shot)],
    }


def test_only_significant_differences_are_ranked() -> None:
    data = three()
    assert [(p.tracker, str(p)) for p in tables.ranking(data)] == [(0, "1\u20132"), (1, "1\u20132"), (2, "3")]
    assert tables.verdict(data) == (
        "Highest success AUC: best (51.00). best and near are not distinguishable on these 12 sequences."
    )
    page = Page(report_page(data, []))
    assert page.text.count("not distinguishable on these 12 sequences") == 2
    assert "best ahead" in page.text and "near ahead" in page.text and "far ahead" not in page.text
    assert "+1.00 [\u22120.50, +2.50]" in page.text


def test_a_clear_lead_is_reported() -> None:
    data = report(scores("a", spread(40)), scores("b", spread(60)), pairs=[pair(0, 1, -20.0, -22.0, -18.0)])
    assert tables.verdict(data).startswith("b is ahead of the other in success AUC (60.00)")
    assert [(p.tracker, str(p)) for p in tables.ranking(data)] == [(1, "1"), (0, "2")]
    turned = tables.pair_of(data, 1, 0)
    assert turned is not None and (turned.mean, turned.low, turned.high) == (20.0, 18.0, 22.0)
    assert "not distinguishable" not in report_page(data, [])


def test_without_an_interval_no_tracker_is_ahead() -> None:
    data = report(scores("a", [40.0], ["x"]), scores("b", [60.0], ["x"]), pairs=[pair(0, 1, -20.0, None, None)])
    assert [str(p) for p in tables.ranking(data)] == ["1\u20132", "1\u20132"]
    assert "not distinguishable on this 1 sequence" in report_page(data, [])


def test_few_sequences_are_not_enough_for_any_interval() -> None:
    for count, apart in ((5, False), (6, True)):
        names = [f"c{k}" for k in range(count)]
        trackers = [scores(n, spread(m, count=count), names) for n, m in (("a", 60), ("b", 40))]
        data = report(*trackers, pairs=[pair(0, 1, 20.0, 19.0, 21.0) | {"sequences": count}])
        assert [str(p) for p in tables.ranking(data)] == (["1", "2"] if apart else ["1\u20132"] * 2)
        assert ("fewer than 6 are not enough" in report_page(data, [])) is not apart


def test_conventions_are_shown_together_only_where_they_differ() -> None:
    columns = {(c.measure, c.head): c for c in tables.columns_of(three())}
    assert ("auc", "official = vlt-python") in columns and ("auc", "vlt-python") not in columns
    assert columns["precision", "official"].values == [46.0, 45.0, 26.0]
    assert columns["precision", "vlt-python"].values == [48.0, 47.0, 28.0]
    assert columns["norm_precision", "vlt-python"].upper_bound == pytest.approx(99.4)
    assert not any(measure == "norm_precision_at_20" for measure, _ in columns)  # the same number again
    page = Page(report_page(three(), []))
    for words in ("LaSOT toolkit", "Python code of papers", "a perfect tracker", "92.77", "99.40"):
        assert words in page.text
    assert "x or y is 0 or less" in page.text and "34" in page.text
    assert "count as hits in NP with any box (vlt-python)11" in page.text


def test_a_start_from_text_shows_its_own_first_frame() -> None:
    words = scores("words", spread(50), mode="nl")
    words["rules"]["own first frame"] = rule_scores("lasot", "LaSOT toolkit", spread(45))
    data = report(words, scores("box", spread(50)))
    columns = {(c.measure, c.head): c.values for c in tables.columns_of(data)}
    assert columns["auc", "own first frame"] == [45.0, None]
    assert ("precision", "own first frame") not in columns  # one measure says it
    page = Page(report_page(data, []))
    assert "first box" in page.text and "own first frame" in page.text


def test_a_subset_is_marked_at_every_number() -> None:
    page = Page(report_page(three(subset="common", of=280), []))
    cells = re.findall(r"\d\d\.\d\d12/280", page.text)
    assert len(cells) == 3 * len(tables.columns_of(three()))  # main and other measures
    assert "not distinguishable on these 12/280 sequences" in page.text and "Subset: common" in page.text
    assert "12/280 sequences" in tables.latex_of(three(subset="common", of=280))


@pytest.mark.fault("W22")
@pytest.mark.fault("P07")
def test_hostile_names_and_sentences_stay_inert() -> None:
    trackers = [scores(HOSTILE, spread(50), [HOSTILE, *(f"c{k}" for k in range(11))], mode=HOSTILE, split=HOSTILE)]
    data = report(*trackers, films=[worst_sequence()], command=HOSTILE, notes=[HOSTILE], worst_by=HOSTILE)
    figures = draw_figures(data)
    html = report_page(data, figures)
    page = Page(html)
    assert not [tag for tag, _ in page.elements if tag in ("script", "iframe", "object", "embed", "link")]
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert "<script>alert(1)</script>" in page.text and "{{ 7 * 7 }}" in page.text and "\u202e" not in html
    for figure in figures:
        svg = re.sub(r"<!--.*?-->", "", figure.data["svg"].decode(), flags=re.S)
        assert "<script" not in svg and "onerror" not in svg


def test_the_page_makes_no_request() -> None:
    data = report(scores("a", spread(50)), films=[worst_sequence()])
    figures = draw_figures(data)
    page = Page(report_page(data, figures))
    policy = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    sources = [a.get("src") or "" for tag, a in page.elements if "src" in a or "href" in a]
    assert len(sources) == len(figures) and all(source.startswith("data:image/") for source in sources)
    shown = [base64.b64decode(source.partition(",")[2]) for source in sources]
    assert shown == [figure.data[figure.page] for figure in figures]
    assert all(a.get("alt") for tag, a in page.elements if tag == "img")
    assert "url(" not in report_page(data, []) and "prefers-color-scheme: dark" in report_page(data, [])


def test_missing_data_has_no_column_or_heading() -> None:
    bare = report(scores("a", spread(50), mode="", speed=None), likeness=[None, 0.5, 0.5, None])
    page = Page(report_page(bare, draw_figures(bare)))
    for words in ("mode", "frames/s", "Speed", "Frames a second"):
        assert words not in page.text
    assert "Similarity" in page.text
    full = report(scores("a", spread(50)), likeness=[None, 0.5, 0.5, None])
    page = Page(report_page(full, draw_figures(full)))
    for words in ("mode", "frames/s", "Speed and similarity", "Frames a second"):
        assert words in page.text


def test_attributes_are_spelled_out() -> None:
    page = Page(report_page(three(), []))
    assert "IV illumination variation, OCC occlusion, SV scale variation, LR low resolution." in page.text
    assert "motion blur" not in page.text  # only those that occur


def test_names_of_all_attributes_are_known() -> None:
    codes = sorted({code for layout in LAYOUTS for code in layout.attributes})
    assert len(codes) > 20 and [code for code, _ in tables.spelled(codes)] == codes


def test_own_clips_are_named_after_their_folder() -> None:
    data = report(scores("a", spread(50), data="folder", split="all", place="my-<b>clips"))
    assert tables.set_of(data) == "my-<b>clips"
    assert "my-<b>clips, 12 sequences" in Page(report_page(data, [])).text
    assert tables.set_of(report(scores("a", spread(50), data="folder", split="all"))) == "folder all"
    half = report(scores("a", spread(50), data="folder", split="val", place="mine"))
    assert tables.set_of(half) == "mine val"
    assert tables.set_of(report(scores("a", spread(50), place="LaSOT-copy"))) == "lasot test"


def test_warnings_follow_the_scores_and_figures_have_one_scale() -> None:
    data = report(scores("a", spread(50)), films=[worst_sequence()], notes=["3 results were cut."])
    html = report_page(data, draw_figures(data))
    assert html.index("Scores</h2>") < html.index("3 results were cut.") < html.index("Curves</h2>")
    assert "invert(" not in html  # what is dark in a figure stays dark
    wide = {p.name: p.width for p in draw_figures(data)}
    assert wide["success"] == wide["speed"] and wide["strip-1"] == pytest.approx(2 * wide["success"], rel=0.05)
    assert f"width: {6.8 * wide['success']:.2f}rem" in html


def test_same_document_same_page() -> None:
    first, second = (report(scores("a", spread(50)), films=[worst_sequence()]) for _ in range(2))
    assert report_page(first, draw_figures(first)) == report_page(second, draw_figures(second))


def test_figures_of_a_report() -> None:
    names = [figure.name for figure in draw_figures(three())]
    assert names == ["success", "precision", "norm-precision", "gain-1-over-3", "gain-2-over-3", "attributes", "speed"]
    alone = draw_figures(
        report(scores("a", spread(50), speed=None), films=[worst_sequence()], likeness=[None, 0.5, 0.5, None])
    )
    assert [p.name for p in alone][3:] == ["attributes", "strip-1", "sheet-1", "likeness"]
    for figure in alone:
        assert figure.data["png"].startswith(b"\x89PNG") and b"<svg" in figure.data["svg"]


DAMAGES = [
    (("format",), "vltrack.scores", "vltrack.report"),
    (("version",), 2, "version 1"),
    (("rule",), "pysot", "'pysot' is not among"),
    (("scores", 0, "rules", "official", "auc"), "high", "auc is text"),
    (("scores", 0, "rules", "official", "success_curve"), [1.0], "success_curve is not a row of 21"),
    (("scores", 0, "rules", "official", "per_sequence", "auc"), [1.0], "has 1 numbers, not 12"),
    (("scores", 1, "sequences", 0, "name"), "other", "not the same as those of the first"),
    (("scores", 0, "sequences"), {}, "is an object, not a list"),
    (("pairs", 0, "a"), 9, "a is 9, not an index below 2"),
    (("films",), [{"name": "x"}], "lanes is missing"),
    (("of",), True, "of is true or false"),
    (("likeness",), [1.0, 2.0], "likeness is not a row of 9"),
    (("scores",), [], "0 trackers"),
    (("main",), None, "main is missing"),
    (("scores", 0, "rules", "official", "op50"), 10**400, "not a number"),
    (("scores", 0, "rules", "official", "precision_curve", 3), True, "holds true or false at 3"),
    (("scores", 0, "sequences", 1, "name"), "clip-0", "one is named twice"),
    (("scores", 0, "sequences", 1, "attributes"), 5, "attributes is 5"),
]


@pytest.mark.parametrize(("place", "value", "words"), DAMAGES, ids=[words for *_, words in DAMAGES])
def test_damaged_documents_are_refused_by_place(place: tuple[Any, ...], value: Any, words: str) -> None:
    data = document(scores("a", spread(50)), scores("b", spread(40)), pairs=[pair(0, 1, 1.0, 0.5, 2.0)])
    data = copy.deepcopy(data)
    at: Any = data
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    with pytest.raises(DataError, match=re.escape(words)):
        read_report(data, "report.json")


def test_a_damaged_image_is_refused() -> None:
    broken = worst_sequence()
    broken["snapshots"][0]["jpeg"] = "\u00e9"
    with pytest.raises(DataError, match="jpeg"):
        report(scores("a", spread(50)), films=[broken])

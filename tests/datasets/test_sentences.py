"""Sentences in all their forms, and the row that the documentation shows."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

import pytest

from vltrack.core.errors import DataError
from vltrack.datasets.miniatures import sheet_bytes, write_video_miniature
from vltrack.datasets.reader import open_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def mgit(tmp_path: Path) -> Path:
    return write_video_miniature("mgit", tmp_path / "mgit")


def test_the_last_row_of_a_table_says_it(mgit: Path) -> None:
    path = mgit / "mgit_nlp" / "003.xlsx"
    rows = [
        ["head"] * 16,
        ["x"] * 14 + ["the first part", "y"],
        ["x"] * 14 + ["a < b & the \u732b, all of it", "y"],
    ]
    path.write_bytes(sheet_bytes(rows))
    assert open_dataset(mgit, split="val").sequences[0].sentence == "a < b & the \u732b, all of it"
    path.write_bytes(sheet_bytes([["too", "narrow"]]))
    dataset = open_dataset(mgit, split="val")
    assert dataset.sequences[0].sentence == ""
    assert [issue.where for issue in dataset.warnings] == [str(path)]


def test_what_reads_tables_is_not_installed(mgit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match=r"003.xlsx: the sentences of MGIT are tables.*vltrack\[mgit\]"):
        open_dataset(mgit, split="val")


def test_a_table_that_is_none(mgit: Path) -> None:
    path = mgit / "mgit_nlp" / "003.xlsx"
    path.write_bytes(b"no table")
    with pytest.raises(DataError, match=r"003.xlsx: is no .xlsx table"):
        open_dataset(mgit, split="val")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", "<x/>")
    with pytest.raises(DataError, match=r"003.xlsx: is no .xlsx table"):
        open_dataset(mgit, split="val")
    path.write_bytes(sheet_bytes([["x"]]).replace(b"</", b"<!"))
    with pytest.raises(DataError, match=r"003.xlsx: is no .xlsx table"):
        open_dataset(mgit, split="val")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(40 << 20))
    with pytest.raises(DataError, match="too large for a table"):
        open_dataset(mgit, split="val")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("the cat, the red one, not the dog\nsecond line\n", "the cat, the red one, not the dog"),
        ("  spaces around \r\n", "spaces around"),
        ("\ufeffwith a mark", "with a mark"),
        ("\nthe first line is empty", ""),
    ],
)
def test_a_sentence_is_the_first_line_as_it_stands(tmp_path: Path, written: str, read: str) -> None:
    root = write_video_miniature("tnl2k", tmp_path / "tnl2k")
    (root / "test" / "Cat_BBC_video_01-Done" / "language.txt").write_bytes(written.encode())
    found = {sequence.name: sequence.sentence for sequence in open_dataset(root, split="test").sequences}
    assert found["Cat_BBC_video_01-Done"] == read


def test_the_row_in_the_documentation_is_the_row_in_the_code() -> None:
    shown = re.search(
        r"```python\n(TNL2K = .*?)```", (ROOT / "docs" / "add-a-dataset.md").read_text(), re.DOTALL
    )
    assert shown is not None
    code = (ROOT / "src" / "vltrack" / "datasets" / "layouts_language.py").read_text()
    row, rest = shown[1].split("    source=")
    assert row in code
    assert rest.startswith("Source(...)")

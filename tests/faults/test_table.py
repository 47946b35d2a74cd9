"""The fault table of docs/faults.md: each row has a test that carries its id, and names errors that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vltrack.core import errors

TESTS = Path(__file__).resolve().parent.parent
PAGE = (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([A-Z]\d\d) \|.*\| ([^|]*) \|$", PAGE.replace("| |\n", "|  |\n"), re.MULTILINE))
"""Id -> last cell of its row."""
_MARK = re.compile(r'mark\.fault\(([^)]*)\)|^ *\(("[A-Z]\d\d"), \d, "\w+"\): \[', re.MULTILINE)
"""A mark, or the key of a table of cases that are marked by it."""


def marked() -> set[str]:
    """All ids in the ``fault`` marks of test files."""
    files = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    marks = [mark for path in files for mark in _MARK.findall(path.read_text(encoding="utf-8"))]
    return {found for mark in marks for found in re.findall(r'"([A-Z]\d\d)"', "".join(mark))}


@pytest.mark.parametrize(
    ("letter", "count"), {"V": 27, "P": 15, "B": 12, "D": 20, "C": 19, "T": 20, "E": 19, "S": 7, "A": 11}.items()
)
def test_every_row_of_the_page_has_a_test(letter: str, count: int) -> None:
    rows = {row: cell for row, cell in ROWS.items() if row.startswith(letter)}
    assert sorted(rows) == [f"{letter}{number:02d}" for number in range(1, count + 1)]
    assert {row for row, cell in rows.items() if cell != "not yet"} - marked() == set()


def test_the_errors_of_the_page_exist_with_their_exit_codes() -> None:
    for cell in ROWS.values():
        for name in re.findall(r"`(\w+)`", cell):
            assert name == "TypeError" or issubclass(getattr(errors, name), errors.VltrackError), name
    for code, names in re.findall(r"^\| (\d+) \|[^|]*\|([^|]*)\|$", PAGE, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            assert getattr(errors, name).exit_code == int(code), name


def test_no_mark_without_a_row() -> None:
    assert {mark for mark in marked() if not mark.startswith("W")} <= set(ROWS)

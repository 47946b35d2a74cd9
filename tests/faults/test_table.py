"""The fault table of docs/faults.md: each row has a test that carries its id and is not skipped, and names errors
that exist.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vltrack.core import errors

TESTS = Path(__file__).resolve().parent.parent
PAGE = (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([A-Z]\d\d) \|.*\| ([^|]*) \|$", PAGE.replace("| |\n", "|  |\n"), re.MULTILINE))
"""Id -> last cell of its row."""
COLLECT = """
import inspect, sys
import pytest
from _pytest.skipping import evaluate_skip_marks

class Rows:
    def pytest_collection_finish(self, session):
        rows, proven = set(), set()
        for item in session.items:
            marked = {row for mark in item.iter_markers("fault") for row in mark.args}
            rows |= marked
            may_skip = "shared" in item.fixturenames or "pytest.skip(" in inspect.getsource(item.function)
            rare = any(item.get_closest_marker(name) for name in ("slow", "interop", "cluster"))
            if not (may_skip or rare or evaluate_skip_marks(item)):
                proven |= marked
        print("ROWS", *sorted(rows))
        print("PROVEN", *sorted(proven))

sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *sys.argv[1:]], plugins=[Rows()]))
"""


@pytest.fixture(scope="module")
def marked() -> dict[str, set[str]]:
    """The ids in ``fault`` marks: ``ROWS`` of all tests, ``PROVEN`` of those that the default run does not skip."""
    files = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__) and "fault" in path.read_text("utf-8")]
    command = [sys.executable, "-c", COLLECT, *map(str, files)]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (line.split() for line in done.stdout.splitlines())
    return {words[0]: set(words[1:]) for words in lines if words and words[0] in ("ROWS", "PROVEN")}


@pytest.mark.parametrize(
    ("letter", "count"),
    {"V": 28, "P": 15, "B": 12, "D": 20, "C": 19, "T": 20, "E": 20, "S": 7, "A": 11, "W": 27}.items(),
)
def test_every_row_of_the_page_has_a_test(letter: str, count: int, marked: dict[str, set[str]]) -> None:
    rows = {row: cell for row, cell in ROWS.items() if row.startswith(letter)}
    assert sorted(rows) == [f"{letter}{number:02d}" for number in range(1, count + 1)]
    assert {row for row, cell in rows.items() if cell != "not yet"} - marked["PROVEN"] == set()


def test_the_errors_of_the_page_exist_with_their_exit_codes() -> None:
    for cell in ROWS.values():
        for name in re.findall(r"`(\w+)`", cell):
            assert name == "TypeError" or issubclass(getattr(errors, name), errors.VltrackError), name
    for code, names in re.findall(r"^\| (\d+) \|[^|]*\|([^|]*)\|$", PAGE, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            assert getattr(errors, name).exit_code == int(code), name


def test_no_mark_without_a_row(marked: dict[str, set[str]]) -> None:
    assert marked["ROWS"] <= set(ROWS)

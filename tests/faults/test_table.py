"""The fault table: every row that this version promises has at least one test that carries its id."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
PROMISED = {"V": 25, "P": 12, "B": 12, "A": 11, "D": 18, "E": 16}
_MARK = re.compile(r'mark\.fault\(\s*"([A-Z]\d\d)"')


def marked() -> set[str]:
    """All ids that stand in a ``fault`` mark of a test file."""
    files = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    return {found for path in files for found in _MARK.findall(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize(("letter", "count"), PROMISED.items())
def test_every_promised_row_has_a_test(letter: str, count: int) -> None:
    wanted = {f"{letter}{number:02d}" for number in range(1, count + 1)}
    assert wanted - marked() == set()

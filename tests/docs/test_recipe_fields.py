"""The table of recipe fields in docs/train.md is that of the code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_the_table_of_recipe_fields_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import recipe_fields

    page = recipe_fields.PAGE.read_text(encoding="utf-8")
    assert recipe_fields.updated(page) == page, "run: python docs/recipe_fields.py"
    assert "`losses.giou = 2.0`" in page
    del sys.modules["recipe_fields"]

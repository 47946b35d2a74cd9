"""Write the table of all recipe fields into docs/train.md, from the docstrings and defaults in the code.

``python docs/recipe_fields.py`` replaces what is between the two marks; the tests ask that it is up to date.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from vltrack.training.clips import ClipConfig
from vltrack.training.pairs.sampler import PairConfig
from vltrack.training.recipes import LossWeights, TrainConfig, keys

PAGE = Path(__file__).parent / "train.md"
BEGIN, END = "<!-- recipe fields: begin -->", "<!-- recipe fields: end -->"
_FIXED = ("model", "size", "pairs", "clips", "losses")


def descriptions(owner: type) -> dict[str, str]:
    """The texts of the section "Attributes" of a docstring, by field."""
    section = inspect.cleandoc(owner.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for names, text in re.findall(r"^    ([\w`][\w`, ]*): (.*(?:\n {6,}.*)*)", section, re.MULTILINE):
        found |= dict.fromkeys(names.replace("`", "").split(", "), " ".join(text.split()))
    return found


def rows(owner: type, prefix: str = "") -> list[str]:
    """One row of the table per field: key of ``--set``, default, meaning."""
    meaning, names = descriptions(owner), keys(owner)
    lines: dict[str, list[str]] = {}
    for one in fields(owner):
        if one.name in _FIXED or is_dataclass(one.type):
            continue
        lines.setdefault(meaning[one.name], []).append(f"`{prefix}{names[one.name]} = {_shown(one.default)}`")
    texts = {text: _with_keys(text, names) for text in lines}
    return [f"| {', '.join(cells)} | {texts[text][:1].upper()}{texts[text][1:]} |" for text, cells in lines.items()]


def _shown(value: Any) -> str:
    """A default as ``--set`` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return (
        {True: "true", False: "false", "": "none"}.get(value, str(value))
        if isinstance(value, bool | str)
        else str(value)
    )


def _with_keys(text: str, names: dict[str, str]) -> str:
    """The text with the names of fields as ``--set`` has them, in Markdown's marks."""
    return re.sub(r"``(.+?)``", lambda found: f"`{names.get(found[1], found[1])}`", text)


def table() -> str:
    """The whole table as Markdown."""
    lines = ["| key of `--set` = default | meaning |", "|---|---|"]
    for owner, prefix in ((TrainConfig, ""), (PairConfig, "pairs."), (ClipConfig, "clips."), (LossWeights, "losses.")):
        lines += rows(owner, prefix)
    return "\n".join(lines)


def updated(page: str) -> str:
    """The page with the table of now."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

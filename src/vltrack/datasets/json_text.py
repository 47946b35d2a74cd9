"""JSON from others, read without trust: bounded in size and depth, no key twice, no infinite number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vltrack.datasets.findings import wrong
from vltrack.datasets.text import decode, read_bytes

Hook = Callable[[dict[str, Any]], dict[str, Any]]


def read_json(path: Path, hook: Hook | None = None) -> dict[str, Any]:
    """The object in a file, each object in it passed through ``hook`` as soon as it is read.

    NaN is let through (UAV123 has it for "not there"). Raises ``DataError`` for everything else that is not
    one JSON object.
    """
    data = read_bytes(path)
    # Numbers take more room than the brackets around them: a file of brackets would fill the memory.
    if data.count(b"[") + data.count(b"{") > len(data) // 6 + 100:
        raise wrong("json", path, "is mostly brackets.", "Download the file again.")
    text = decode(data, path)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"the key {twice[:60]!r} stands twice in one object.")
        return found if hook is None else hook(found)

    try:
        found = json.loads(text, object_pairs_hook=once, parse_constant=_constant)
    except RecursionError as error:
        raise wrong("json", path, "is nested too deeply.") from error
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        raise wrong("json", where, f"is no JSON ({error.msg}).", "Download the file again.") from error
    except ValueError as error:
        raise wrong("json", path, f"{error}") from error
    if not isinstance(found, dict):
        raise wrong("json", path, "is no JSON object.")
    return found


def _constant(word: str) -> float:
    if word == "NaN":
        return float("nan")
    raise ValueError(f"{word} is no number that can be used.")

"""The annotation of a test set in pysot's one JSON file. Knows its fields; trusts none of them.

Of each video: ``gt_rect`` (rows of x, y, w, h, NaN where UAV123 has none), ``img_names``, and where known
``attr`` (names of attributes) and ``absent`` (1 = the target is *visible*). Pictures beside the file are
used.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.strict_json import walk_json
from vltrack.core.text import counted
from vltrack.datasets.findings import Findings, wrong
from vltrack.datasets.layout import Layout
from vltrack.datasets.sequences import Sequence
from vltrack.datasets.text import is_safe

_SHAPE = "A pysot file has, of each video, gt_rect and img_names."


def read_pysot(path: Path, layout: Layout, findings: Findings) -> list[Sequence]:
    """The sequences of a file, in its order; what is wrong goes to ``findings``."""
    sequences: list[Sequence] = []
    try:
        for name, video in walk_json(path, nan=True):
            sequence = findings.attempt(_sequence, path, layout, name, video)
            sequences += [] if sequence is None else [sequence]
    except DataError as error:  # no JSON: what was read before it may be wrong as well
        findings.error("json", path, error.message.removeprefix(f"{path} "), error.hint)
        return []
    if not sequences and not findings.errors:
        findings.error("empty", path, "holds no videos.", _SHAPE)
    return sequences


def _numbers(rows: Any) -> NDArray[np.float64] | str:
    """The rows as an array, or what is wrong with them."""
    if not isinstance(rows, list):
        return "no rows"
    flat = [value for row in rows for value in (row if isinstance(row, list) else [row])]
    if not all(type(value) in (int, float) for value in flat):
        return "something that is no number"
    try:
        table = np.array(rows, dtype=np.float64)
    except (ValueError, OverflowError):
        return "rows of different length"
    return "a number beyond all bounds" if np.isinf(table).any() else table


def _sequence(path: Path, layout: Layout, name: str, video: Any) -> Sequence:
    if not is_safe(name):
        raise wrong("name", path, f"{name[:80]!r} is no name of a sequence.")
    if not isinstance(video, dict):
        raise wrong("json", path, f"{name} is no object.", _SHAPE)
    boxes = _numbers(video.get("gt_rect"))
    if not isinstance(boxes, np.ndarray) or boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        said = boxes if isinstance(boxes, str) else "no rows of four numbers"
        raise wrong("json", path, f"{name}: gt_rect has {said}.", _SHAPE)
    visible = None if video.get("absent") is None else _numbers(video["absent"])
    if visible is None:
        absent = np.isnan(boxes).any(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)
    elif isinstance(visible, np.ndarray) and visible.shape == (len(boxes),):
        absent = visible == 0
    else:
        raise wrong("rows", path, f"{name}: absent is not one number for each of {len(boxes)} boxes.", _SHAPE)
    return Sequence(
        name=name,
        source=path,
        files=_images(path.parent, name, video.get("img_names"), len(boxes), path),
        boxes=boxes,
        absent=np.asarray(absent),
        attributes=_attributes(video.get("attr"), layout.attributes),
    )


def _images(root: Path, name: str, names: Any, count: int, path: Path) -> tuple[Path, ...]:
    """The pictures, if they lie beside the file; else ()."""
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise wrong("json", path, f"{name}: img_names is no list of names.", _SHAPE)
    if len(names) != count:
        said = f"{name}: {counted(count, 'box', 'boxes')} for {counted(len(names), 'image')}."
        raise wrong("rows", path, said, _SHAPE)
    if not all(map(is_safe, (part for one in names for part in one.split("/")))):
        raise wrong("name", path, f"{name}: an image's name leads out of the folder.", _SHAPE)
    files = tuple(root / PurePosixPath(one) for one in names)
    return files if files[0].is_file() else ()


def _attributes(titles: Any, short: tuple[str, ...]) -> tuple[str, ...]:
    """Short names: "Scale Variation" is SV, "Full Occlusion" FOC, "Deformation" DEF."""
    if not isinstance(titles, list) or not all(isinstance(title, str) for title in titles):
        return ()
    return tuple(_short(title, short) for title in titles)


def _short(title: str, known: tuple[str, ...]) -> str:
    words = [word for word in title.replace("-", " ").split() if word != "of"]
    initials = "".join(word[0] for word in words).upper() if len(words) > 1 else title[:3].upper()
    if title in known or initials in known:
        return title if title in known else initials
    longer = [one for one in known if one.startswith(initials)]
    return longer[0] if len(longer) == 1 else initials

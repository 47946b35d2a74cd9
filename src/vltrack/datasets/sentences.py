"""The sentence of a sequence: where it stands and in which form. Knows files; judges no language."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError
from zipfile import BadZipFile, ZipFile

from vltrack.datasets.findings import Findings, wrong
from vltrack.datasets.text import decode, read_bytes

if TYPE_CHECKING:
    from vltrack.datasets.tree import Tree

_META = ("root_class", "major_class", "object_class", "motion_class", "motion_adverb")
_MGIT_COLUMN = 14
_MAX_SHEET = 32 << 20
_NUMBERS_ONLY = re.compile(r"[\d\s.,;:+\-]*(nan[\d\s.,;:+\-]*)*", re.IGNORECASE)


def read_sentence(tree: Tree, name: str, findings: Findings) -> str:
    """What names the target; "" with a warning where the layout wants a sentence and there is none.

    A sentence of nothing but numbers (boxes that were pasted into the wrong file) is told too.
    """
    layout = tree.layout
    if not layout.sentence:
        return ""
    path = tree.find(layout.sentence, name)
    if path is None:
        if not layout.own:
            findings.warn("sentence", tree.expected(layout.sentence, name), "there is no sentence.")
        return ""
    sentence = findings.attempt(_READERS[layout.words], path)
    if sentence is None:
        return ""
    if not sentence:
        findings.warn("sentence", path, "the sentence is empty.", "Modes with language cannot start from it.")
    elif _NUMBERS_ONLY.fullmatch(sentence):
        findings.warn("sentence", path, f"the sentence is numbers: {sentence[:40]!r}.", "Look at the file.")
    return sentence


def read_meta(path: Path) -> dict[str, str]:
    """The "key: value" lines of a meta_info.ini. Raises ``DataError``."""
    found = {}
    for number, line in enumerate(decode(read_bytes(path), path).splitlines(), 1):
        if not line.strip() or line.startswith("["):
            continue
        key, colon, value = line.partition(":")
        if not colon:
            raise wrong("text", f"{path}:{number}", f"{line[:60]!r} is not key: value.")
        found[key.strip()] = value.strip()
    return found


def _first_line(path: Path) -> str:
    text = decode(read_bytes(path), path)
    return text.splitlines()[0].strip() if text else ""


def _whole_text(path: Path) -> str:
    return " ".join(decode(read_bytes(path), path).split())


def _from_meta(path: Path) -> str:
    """As vision-language trackers make it: root class, major class, object, motion, adverb."""
    meta = read_meta(path)
    return " ".join(meta[key] for key in _META if meta.get(key))


def _from_sheet(path: Path) -> str:
    """The last row's column 14 of an .xlsx table: the sentence of the whole video (MGIT)."""
    try:
        from openpyxl import load_workbook  # type: ignore[import-untyped]
        from openpyxl.utils.exceptions import InvalidFileException  # type: ignore[import-untyped]
    except ImportError as error:
        raise wrong(
            "extra", path, "the sentences of MGIT are tables.", "Install them: pip install 'vltrack[mgit]'"
        ) from error
    try:
        with ZipFile(path) as archive:  # a table of text is small; a bomb is not
            if sum(part.file_size for part in archive.infolist()) > _MAX_SHEET:
                raise wrong("size", path, "is too large for a table of sentences.")
        book = load_workbook(path, read_only=True, data_only=True)
        rows = [
            row for row in book.worksheets[0].iter_rows(values_only=True) if any(v is not None for v in row)
        ]
        book.close()
    except (OSError, LookupError, ValueError, InvalidFileException, BadZipFile, ParseError) as error:
        raise wrong("text", path, f"is no .xlsx table ({error}).") from error
    if not rows or len(rows[-1]) <= _MGIT_COLUMN:
        return ""
    return str(rows[-1][_MGIT_COLUMN] or "").strip()


_READERS: Mapping[str, Callable[[Path], str]] = {
    "line": _first_line,
    "text": _whole_text,
    "meta": _from_meta,
    "sheet": _from_sheet,
}

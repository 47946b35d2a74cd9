"""A table as .xlsx, as little as readers accept; same rows, same bytes. Knows no data set."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_LINKS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_TYPES = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_THEN = (1980, 1, 1, 0, 0, 0)


def sheet_bytes(rows: Sequence[Sequence[str]]) -> bytes:
    """The file with these rows of text, in one sheet."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _parts(rows):
            archive.writestr(zipfile.ZipInfo(name, _THEN), _HEAD + text)
    return buffer.getvalue()


def _parts(rows: Sequence[Sequence[str]]) -> Iterator[tuple[str, str]]:
    yield (
        "[Content_Types].xml",
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPES}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPES}.worksheet+xml"/></Types>',
    )
    yield "_rels/.rels", _links("officeDocument", "xl/workbook.xml")
    yield "xl/_rels/workbook.xml.rels", _links("worksheet", "worksheets/sheet1.xml")
    yield (
        "xl/workbook.xml",
        f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>'
        '<sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    )
    lines = "".join(
        f'<row r="{r}">{"".join(_cell(r, k, value) for k, value in enumerate(row))}</row>'
        for r, row in enumerate(rows, 1)
    )
    yield (
        "xl/worksheets/sheet1.xml",
        f'<worksheet xmlns="{_MAIN}"><sheetData>{lines}</sheetData></worksheet>',
    )


def _links(kind: str, target: str) -> str:
    link = f'<Relationship Id="rId1" Type="{_OFFICE}/{kind}" Target="{target}"/>'
    return f'<Relationships xmlns="{_LINKS}">{link}</Relationships>'


def _cell(row: int, column: int, value: str) -> str:
    return f'<c r="{chr(ord("A") + column)}{row}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'

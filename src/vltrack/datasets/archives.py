"""Boxes in a .zip of text files, as TrackingNet's devkit ships them. Unpacks nothing onto the disk."""

from __future__ import annotations

import re
import stat
import zipfile
from pathlib import Path

import numpy as np

from vltrack.core.errors import DataError
from vltrack.core.files import ZIP_DAMAGE
from vltrack.datasets.findings import Findings, wrong
from vltrack.datasets.layout import Layout
from vltrack.datasets.sequences import Sequence
from vltrack.datasets.text import MAX_BYTES, parse_table

_MAX_RATIO = 100
_UNPACK = "Unpack it and name the folder."


def read_zip(path: Path, layout: Layout, findings: Findings) -> list[Sequence]:
    """The sequences of an archive, by name; what is wrong goes to ``findings``."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = findings.attempt(_members, path, archive, layout) or []
            found = [findings.attempt(_sequence, path, archive, member) for member in members]
    except ZIP_DAMAGE as error:
        findings.error("archive", path, f"is no .zip that can be read ({error}).", "Copy it again.")
        return []
    return sorted((one for one in found if one is not None), key=lambda one: one.name)


def opens(path: Path, layout: Layout) -> bool:
    """Whether the archive holds boxes of the layout's sequences and nothing else; reads its index only."""
    try:
        with zipfile.ZipFile(path) as archive:
            _members(path, archive, layout)
    except (*ZIP_DAMAGE, DataError):
        return False
    return True


def _members(path: Path, archive: zipfile.ZipFile, layout: Layout) -> list[zipfile.ZipInfo]:
    """The members to read: plain text files at the top. Raises ``DataError`` for any other."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    total, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if total > MAX_BYTES or total > _MAX_RATIO * max(packed, 1):
        raise wrong(
            "archive", path, f"{total:,} bytes when unpacked, from {packed:,}.", "Check where it is from."
        )
    for member in members:
        name, dot, suffix = member.filename.rpartition(".")
        if (dot, suffix) != (".", "txt") or not re.fullmatch(layout.names, name):
            raise wrong(
                "archive", path, f"holds {member.filename[:80]!r}, no boxes of {layout.title}.", _UNPACK
            )
        if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & 1:
            raise wrong("archive", path, f"{member.filename} is a link or encrypted.", _UNPACK)
    if not members:
        raise wrong("archive", path, "is empty.", _UNPACK)
    return members


def _sequence(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Sequence:
    try:
        data = archive.read(member)
    except ZIP_DAMAGE as error:
        raise wrong("archive", path, f"{member.filename} is damaged.", "Copy the archive again.") from error
    boxes = parse_table(data, f"{path}/{member.filename}")
    return Sequence(
        name=member.filename.removesuffix(".txt"),
        source=path,
        files=(),
        boxes=boxes,
        absent=np.asarray(~(boxes[:, 2:] > 0).all(axis=1)),
    )

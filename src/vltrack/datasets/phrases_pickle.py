"""Plain data written as the pickles that sets of phrases come in. Writes only; knows no class.

Numbers, texts, None, lists, tuples and dictionaries become the few instructions of pickle's protocol 2 that
make them: enough for miniatures of REFER's and VLTVG's files.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from io import BytesIO


def plain_pickle(value: object) -> bytes:
    """The pickle of plain data. Raises ``TypeError`` for any other thing."""
    return b"\x80\x02" + b"".join(_parts(value)) + b"."


def torch_archive(value: object, name: str) -> bytes:
    """What ``torch.save`` makes of plain data: an archive with the pickle as ``NAME/data.pkl``."""
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for entry, data in (("data.pkl", plain_pickle(value)), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(zipfile.ZipInfo(f"{name}/{entry}"), data)  # no time of day in it
    return made.getvalue()


def _parts(value: object) -> list[bytes]:
    match value:
        case None:
            return [b"N"]
        case bool():
            return [b"\x88" if value else b"\x89"]
        case int():
            length = value.bit_length() // 8 + 1
            return [b"\x8a", bytes([length]), value.to_bytes(length, "little", signed=True)]
        case float():
            return [b"G", struct.pack(">d", value)]
        case str():
            data = value.encode()
            return [b"X", struct.pack("<I", len(data)), data]
        case list():
            return [b"](", *_all(value), b"e"]
        case tuple():
            return [b"(", *_all(value), b"t"]
        case dict():
            return [b"}(", *_all(part for pair in value.items() for part in pair), b"u"]
    raise TypeError(f"a {type(value).__name__} is no plain data")


def _all(values: Iterable[object]) -> list[bytes]:
    return [part for value in values for part in _parts(value)]

"""Width, height and completeness of image files from their bytes. Decodes no pixel."""

from __future__ import annotations

import struct

Size = tuple[int, int]
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def image_size(data: bytes) -> Size | None:
    """Stored (width, height) that an image file claims; ``None`` if it is no image that is read here.

    Reads JPEG, PNG, BMP, WebP, TIFF and PNM headers; works on hostile bytes.
    """
    try:
        for magic, parse in _PARSERS:
            if data.startswith(magic):
                return parse(data)
    except (struct.error, IndexError, ValueError):
        return None
    return None


def is_cut(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end marker (others: ``False``). Cut files decode to half-gray."""
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9", 2) < 0
    if data.startswith(b"\x89PNG"):
        return data.rfind(b"IEND") < 0
    return False


def _jpeg(data: bytes) -> Size | None:
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            place += 1
            continue
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker in _STANDALONE or marker == 0:
            place += 2
        elif marker in _SOF:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _png(data: bytes) -> Size | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _bmp(data: bytes) -> Size | None:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if data[8:12] != b"WEBP":
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff(data: bytes) -> Size | None:
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, place)
    found: dict[int, int] = {}
    for k in range(count):
        tag, kind = struct.unpack_from(order + "HH", data, place + 2 + 12 * k)
        if tag in (256, 257):
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, place + 10 + 12 * k)
    return (found[256], found[257]) if len(found) == 2 else None


def _pnm(data: bytes) -> Size | None:
    words: list[bytes] = []
    for line in data[2:512].split(b"\n"):
        words += line.split(b"#")[0].split()
    return int(words[0]), int(words[1])


_PARSERS = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    *((b"P%d" % k, _pnm) for k in range(1, 7)),
)

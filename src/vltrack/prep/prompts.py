"""Checks and conversions of what names a target: the sentence, the box, the image of the frame.

An invalid value raises an error that names it, or is corrected with a warning that describes the correction.
"""

from __future__ import annotations

import errno
import math
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vltrack.core.errors import (
    BoxInvalid,
    BoxOutside,
    ImageError,
    InputError,
    PromptEmpty,
    PromptInvalid,
    PromptTooLong,
    UsageError,
)
from vltrack.core.files import read_limited
from vltrack.core.types import Box, BoxLike, Image, clip_xywh, cxcywh_to_xywh, xyxy_to_xywh

MAX_BYTES = 4096
"""Longest sentence in UTF-8 bytes. Models read some forty word pieces."""

MAX_FILE_BYTES = 1 << 20
BOX_FORMATS = {"xywh": "x,y,w,h", "xyxy": "x1,y1,x2,y2", "cxcywh": "cx,cy,w,h"}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def clean_text(text: str) -> str:
    """Return the sentence in NFC, white space collapsed to single blanks; otherwise as typed.

    Raises:
        PromptTooLong: more than 4 KiB.
        PromptInvalid: a control character, NUL or half a surrogate pair.
        PromptEmpty: no letter, digit or pictograph in it.
    """
    if len(text) > MAX_BYTES:
        raise PromptTooLong(f"Sentence too long: {len(text)} characters. At most {MAX_BYTES} bytes are read.")
    for position, character in enumerate(text):
        category = unicodedata.category(character)
        if category == "Cs" or (category == "Cc" and character not in "\t\n\r"):
            kind = "broken Unicode" if category == "Cs" else "a control character"
            raise PromptInvalid(f"The sentence has {kind} at position {position}: U+{ord(character):04X}.")
    cleaned = " ".join(unicodedata.normalize("NFC", text).split())
    size = len(cleaned.encode("utf-8"))
    if size > MAX_BYTES:
        raise PromptTooLong(f"Sentence too long: {size} bytes. At most {MAX_BYTES} are read.")
    if not any(unicodedata.category(c)[0] in "LN" or unicodedata.category(c) == "So" for c in cleaned):
        raise PromptEmpty(f"No word in the sentence: {cleaned!r}.", hint="Say what to follow, such as 'the white car'.")
    return cleaned


def read_prompt_file(path: Path | str, line: int = 1) -> str:
    """Return line ``line`` (from 1) of a UTF-8 file, cleaned. BOM dropped, any line ending.

    Raises:
        InputError: the file cannot be read, or is not a regular one.
        PromptInvalid: it is not UTF-8.
        PromptTooLong: it is larger than 1 MiB.
        PromptEmpty: the line is empty or beyond the end.
        UsageError: ``line`` is below 1.
    """
    file = Path(path)
    if line < 1:
        raise UsageError(f"Invalid line number: {line}. Lines of {file} count from 1.")
    try:
        data = read_limited(file, MAX_FILE_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise PromptTooLong(f"The prompt file is larger than 1 MiB: {file}.") from error
        hint = "Save the sentence in a text file."
        raise InputError(f"Cannot read the prompt file {file}: {error.strerror}.", hint=hint) from error
    try:
        # str.splitlines would also split at form feeds and other separators.
        lines = re.split(r"\r\n|\r|\n", data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PromptInvalid(f"The prompt file is not UTF-8 text: {file}, byte {error.start}.") from error
    if lines[-1] == "":
        lines.pop()
    if line > len(lines):
        raise PromptEmpty(f"No line {line} in the prompt file {file}: it has {len(lines)} lines.")
    return clean_text(lines[line - 1])


def parse_box(text: str, fmt: str = "xywh") -> BoxLike:
    """Parse four numbers separated by commas, semicolons or blanks, also in brackets; they stay in the format ``fmt``.

    Raises:
        BoxInvalid: not four finite numbers (names the token and its position), or no positive size.
        UsageError: ``fmt`` is unknown.
    """
    order = _box_format(fmt)
    inside = re.sub(r"^\s*(?:\[(.*)\]|\((.*)\))\s*$", r"\1\2", text, flags=re.DOTALL).strip()
    tokens = re.split(r"\s*[,;]\s*|\s+", inside) if inside else []
    for position, token in enumerate(tokens, start=1):
        if not _NUMBER.fullmatch(token) or not math.isfinite(float(token)):
            raise BoxInvalid(
                f"Not a finite number: {token[:40]!r} at position {position} of the box {text[:80]!r}.",
                hint="Write four plain numbers such as 120,40,60.5,80 (a point for decimals, no units).",
            )
    if len(tokens) != 4:
        point = " with a point for decimals" if len(tokens) == 8 or {",", ";"} <= set(text) else ""
        raise BoxInvalid(
            f"The box {text[:80]!r} has {len(tokens)} numbers; four are needed.", hint=f"Write {order}{point}."
        )
    return _four(_checked([float(token) for token in tokens], fmt))


def convert_box(box: Sequence[float] | ArrayLike, fmt: str, unit: str, width: float, height: float) -> BoxLike:
    """Convert a box as the user gave it to x, y, w, h in pixels of the displayed frame.

    Args:
        box: four numbers.
        fmt: ``xywh``, ``xyxy`` or ``cxcywh``.
        unit: ``px``, or ``rel`` for fractions of the frame's width and height.
        width, height: of the displayed frame (rotation applied) in pixels.

    Raises:
        BoxInvalid: not four finite numbers, no positive size, or numbers above 2 given as fractions.
        UsageError: unknown ``fmt`` or ``unit``.
    """
    _box_format(fmt)
    values = _checked(box, fmt)
    if unit == "rel":
        if np.abs(values).max() > 2.0:
            raise BoxInvalid(
                f"Fractions of the frame above 2 in the box: {_shown(values)}.",
                hint="Choose the unit px for pixels (--box-unit).",
            )
        values = values * np.array([width, height, width, height], dtype=np.float64)
    elif unit != "px":
        raise UsageError(f"Unknown box unit: {unit!r}.", hint="Use px or rel.")
    if fmt == "xyxy":
        values = xyxy_to_xywh(values)
    elif fmt == "cxcywh":
        values = cxcywh_to_xywh(values)
    return _four(values)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedBox:
    """A start box that can be tracked.

    Attributes:
        box: (4,) xywh float64 inside the frame, sides at least 1 px (or the frame's side).
        original: the numbers as given.
        warnings: what was changed or looks odd, as sentences.
    """

    box: Box
    original: BoxLike
    warnings: tuple[str, ...]


def check_box(box: Sequence[float] | ArrayLike, width: int, height: int) -> CheckedBox:
    """Check an xywh box in pixels against its frame; clip it to the frame, raise sides below 1 px to 1 px.

    Raises:
        BoxInvalid: not four finite numbers or no positive size.
        BoxOutside: the box does not touch the frame.
    """
    values = _checked(box, "xywh")
    x, y, w, h = _four(values)
    other = _other_format(x, y, w, h, width, height)
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        hint = other or "Give it in pixels of its frame, or as shares of it (--box-unit rel)."
        raise BoxOutside(f"The box {_shown(values)} lies outside the frame of {width}x{height} pixels.", hint=hint)
    warnings = []
    grown = np.array([x + w / 2 - max(w, 1) / 2, y + h / 2 - max(h, 1) / 2, max(w, 1), max(h, 1)])
    if w < 1 or h < 1:
        warnings.append(
            f"the box {_shown(values)} is smaller than a pixel; sides of at least 1 pixel are used. {other}"
        )
    # A grown box is moved, not clipped, so that its side of one pixel remains at the frame's edge.
    grown[:2] = np.where(values[2:] < 1, np.clip(grown[:2], 0, (max(0, width - 1), max(0, height - 1))), grown[:2])
    if x < 0 or y < 0 or x + w > width or y + h > height:
        warnings.append(
            f"the box {_shown(values)} reaches over the frame of {width}x{height} pixels; "
            f"the part inside is used. {other}"
        )
    checked = clip_xywh(grown, width, height, min_side=min(1.0, width, height))
    # An overlap thinner than a pixel was widened beyond the edge; move it back inside.
    checked[:2] = np.minimum(checked[:2], np.array([width, height]) - checked[2:]).clip(min=0)
    return CheckedBox(box=checked, original=(x, y, w, h), warnings=tuple(text.strip() for text in warnings))


def check_image(image: Any) -> Image:
    """Convert any usual image to (H, W, 3) RGB uint8, contiguous. The input is not modified, copied only if needed.

    Unchanged: RGB uint8. Converted: gray (H, W) or (H, W, 1) is repeated; of RGBA the alpha is dropped; floats
    must lie in [0, 1] and are scaled by 255 and rounded; PIL images go through ``convert("RGB")``; anything
    that numpy can read (a torch tensor on the CPU) is read. The color order cannot be detected: convert BGR
    before.

    Raises:
        ImageError: anything else; the message describes it.
    """
    if image is None:
        raise ImageError("The frame is None, not an image.", hint="The reader gave no frame: has the video ended?")
    if isinstance(image, str | bytes | os.PathLike):
        raise ImageError(f"A {type(image).__name__} is not an image: {image!r:.60}.", hint="Read the file first.")
    if hasattr(image, "mode") and hasattr(image, "convert"):
        image = image.convert("RGB")
    try:
        array = np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ImageError(f"Cannot read a {type(image).__name__} as an image: {error}.") from error
    got = f"An array of shape {array.shape} and type {array.dtype}"
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "Put the channels last: transpose(1, 2, 0)." if first else "Give (height, width, 3) RGB uint8."
        raise ImageError(f"{got} is not an image.", hint=hint)
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):
            hint = "Floats must lie in 0..1; or give uint8."
            raise ImageError(f"{got} has values from {low:g} to {high:g}.", hint=hint)
        array = np.round(array.astype(np.float64) * 255.0).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(f"{got} is not an image; uint8, or floats in 0..1, are needed.")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    if array.shape[2] == 4:
        array = array[:, :, :3]
    return np.ascontiguousarray(array)


def _box_format(fmt: str) -> str:
    if fmt not in BOX_FORMATS:
        raise UsageError(f"Unknown box format: {fmt!r}.", hint=f"Use one of {', '.join(BOX_FORMATS)}.")
    return BOX_FORMATS[fmt]


def _checked(box: Sequence[float] | ArrayLike, fmt: str) -> Box:
    """Return a box as (4,) float64. BoxInvalid: not four finite numbers, or no positive size."""
    try:
        values = np.array(box, dtype=np.float64)
        switches = any(isinstance(side, bool | np.bool_) for side in np.array(box, dtype=object).flat)
    except (TypeError, ValueError, OverflowError) as error:
        raise BoxInvalid(f"Not four numbers: the box {box!r:.80}.") from error
    if values.shape != (4,) or switches:
        raise BoxInvalid(f"Not four numbers: the box {box!r:.80}.")
    a, b, c, d = _four(values)
    for position, value in enumerate((a, b, c, d), start=1):
        if not math.isfinite(value):
            raise BoxInvalid(f"Not a finite number: {value} at position {position} of the box.")
    if fmt == "xyxy":
        if c <= a or d <= b:
            hint = "It looks like x,y,w,h." if c > 0 and d > 0 else "Write x1,y1,x2,y2 with x2 > x1 and y2 > y1."
            raise BoxInvalid(f"Second corner of the box {_shown(values)} not right of and below the first.", hint=hint)
        return values
    for name, position, side in (("width", 3, c), ("height", 4, d)):
        if side <= 0:
            raise BoxInvalid(
                f"The box {_shown(values)} has a {name} of {side:g} at position {position}; it must be above 0.",
                hint=f"The order is {BOX_FORMATS[fmt]}; for two corners choose the format xyxy (--box-format).",
            )
    return values


def _four(values: Box) -> BoxLike:
    a, b, c, d = (float(value) for value in values)
    return a, b, c, d


def _other_format(x: float, y: float, w: float, h: float, width: int, height: int) -> str:
    """Return a hint if the numbers fit as two corners, or as fractions of the frame, but not as xywh pixels."""
    if x >= 0 and y >= 0 and x < w <= width and y < h <= height and (x + w > width or y + h > height):
        return "It looks like x1,y1,x2,y2: then choose the box format xyxy (--box-format)."
    if min(x, y) >= 0 and max(x, y, w, h) <= 1.0:
        return "It looks like fractions of the frame: then choose the box unit rel (--box-unit)."
    return ""


def _shown(box: Box) -> str:
    return ",".join(f"{v:g}" for v in box)

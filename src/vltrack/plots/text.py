"""Anti-aliased text on images, in matplotlib's own font DejaVu Sans, so that installed fonts do not matter.

Colors are RGB. A rendered text is cached, as videos repeat their labels in every frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray

from vltrack.core.files import printable
from vltrack.core.types import Image

FONT = "DejaVu Sans"
_LONGEST = 200  # characters that are rendered


@lru_cache(maxsize=32)
def _font(size: int, bold: bool) -> FT2Font:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    font = FT2Font(str(Path(get_data_path(), "fonts", "ttf", name)))
    font.set_size(size, 72)  # points are pixels
    return font


def drawable(text: str) -> str:
    """The text with characters that the font lacks replaced by squares, and control characters escaped."""
    font = _font(12, False)
    return "".join(c if font.get_char_index(ord(c)) else "\u25a1" for c in printable(text))


_SPECIAL = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
})  # fmt: skip


def escaped(text: str) -> str:
    """Text for LaTeX: special characters as commands, no line break."""
    return printable(text).translate(_SPECIAL)


def ellipsized(
    text: str, room: float, width: Callable[[str], float], cut: Callable[[str, int], str] | None = None
) -> str:
    """The text, shortened with an ellipsis until its ``width`` is at most ``room``.

    ``cut`` makes the text that keeps so many characters; default: the first ones.
    """
    cut = cut or (lambda text, keep: text[:keep].rstrip() + "\u2026" if keep else "")
    if width(text) <= room:
        return text
    return cut(text, bisect_right(range(1, len(text) + 1), room, key=lambda keep: width(cut(text, keep))))


def shortened(text: str, size: int, room: int, bold: bool = False) -> str:
    """The text for ``write``, ellipsized to ``room`` pixels."""
    return ellipsized(drawable(text)[:_LONGEST], room, lambda part: width_of(part, size, bold))


@lru_cache(maxsize=1024)
def mask_of(text: str, size: int, bold: bool = False) -> NDArray[np.float32]:
    """(h, w) coverage in [0, 1] of one line of text; ``h`` depends on ``size`` (pixels of an em) alone."""
    font = _font(size, bold)
    font.set_text(drawable(text)[:_LONGEST])
    font.draw_glyphs_to_bitmap(antialiased=True)
    glyphs = np.asarray(font.get_image(), dtype=np.float32) / 255
    height = round(size * 1.3)
    top = round(height * 0.73) - (glyphs.shape[0] - round(font.get_descent() / 64))  # the base line's row is fixed
    used = np.flatnonzero(glyphs.max(axis=0, initial=0))
    mask = np.zeros((height, int(used[-1]) + 1 if used.size else 1), dtype=np.float32)
    rows = glyphs[max(0, -top) : height - top, : mask.shape[1]]
    mask[max(0, top) : max(0, top) + len(rows), : rows.shape[1]] = rows
    mask.setflags(write=False)
    return mask


def pixels_of(figure: Any) -> Image:
    """A figure of matplotlib as (H, W, 3) RGB uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[:, :, :3].copy()


def width_of(text: str, size: int, bold: bool = False) -> int:
    """Width in pixels of what ``write`` draws."""
    return int(mask_of(text, size, bold).shape[1])


def write(
    image: Image, text: str, corner: tuple[int, int], size: int, color: tuple[int, int, int], bold: bool = False
) -> int:
    """Draw one line into ``image``, its top left corner at (x, y), clipped to the image; return its width."""
    mask = mask_of(text, size, bold)
    x, y = corner
    top, left = max(0, y), max(0, x)
    bottom, right = min(image.shape[0], y + mask.shape[0]), min(image.shape[1], x + mask.shape[1])
    if bottom > top and right > left:
        part = mask[top - y : bottom - y, left - x : right - x, None]
        place = image[top:bottom, left:right]
        place[:] = np.round(place * (1 - part) + np.asarray(color, dtype=np.float32) * part).astype(np.uint8)
    return int(mask.shape[1])


def number_width(text: str, size: int, bold: bool = False) -> int:
    """Width in pixels of what ``write_number`` draws."""
    return sum(width_of(c, size, bold) + 1 for c in text)


def write_number(
    image: Image, text: str, right: int, top: int, size: int, color: tuple[int, int, int], bold: bool = False
) -> None:
    """Draw a number that changes often, its right edge at ``right``, from its cached characters."""
    x = right - number_width(text, size, bold)
    for character in text:
        x += write(image, character, (x, top), size, color, bold) + 1

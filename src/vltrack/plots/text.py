"""Anti-aliased text on images, in matplotlib's own font DejaVu Sans, so that installed fonts do not matter.

Colors are RGB. A rendered text is cached, as videos repeat their labels in every frame.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray

from vltrack.core.files import printable
from vltrack.core.types import Image
from vltrack.plots.draw import ellipsized

FONT = "DejaVu Sans"
_DPI = 100
_LONGEST = 200  # characters that are rendered


def drawable(text: str) -> str:
    """The text with characters that the font lacks replaced by squares, and control characters escaped."""
    font = get_font(findfont(FontProperties(family=FONT)))
    return "".join(c if font.get_char_index(ord(c)) else "\u25a1" for c in printable(text))


def shortened(text: str, size: int, room: int, bold: bool = False) -> str:
    """The text for ``write``, ellipsized to ``room`` pixels."""
    return ellipsized(drawable(text)[:_LONGEST], room, lambda part: width_of(part, size, bold))


@lru_cache(maxsize=1024)
def mask_of(text: str, size: int, bold: bool = False) -> NDArray[np.float32]:
    """(h, w) coverage in [0, 1] of one line of text; ``h`` depends on ``size`` (pixels of an em) alone."""
    text = drawable(text)[:_LONGEST]
    weight = "bold" if bold else "normal"
    height = round(size * 1.3)
    width = max(1, round(len(text) * size * 1.1) + size)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    figure.text(0, 0.27, text, fontsize=size * 72 / _DPI, family=FONT, weight=weight, va="baseline", parse_math=False)
    alpha = (1 - pixels_of(figure)[:, :, 0] / 255).astype(np.float32)
    used = np.flatnonzero(alpha.max(axis=0) > 0)
    mask = alpha[:, : (int(used[-1]) + 1 if used.size else 1)]
    mask.setflags(write=False)
    return mask


def pixels_of(figure: Figure) -> Image:
    """A figure of matplotlib as (H, W, 3) RGB uint8."""
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

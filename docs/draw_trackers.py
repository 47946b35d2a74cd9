"""Draw docs/trackers/*.svg: the idea of each tracker, with numbers from the running code.

The base size of each tracker encodes a sentence, starts a target and locates a frame on torch's meta device;
``figures`` records the shapes and draws them. ``make figures`` calls this.

    python docs/draw_trackers.py
    python docs/draw_trackers.py litetrack --out folder
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

from figures import aitrack, all_in_one, bit_tracker, litetrack, sa_tracker
from figures.drawing import draw
from figures.layout import LayoutError
from figures.recording import TRAINING, Recording, TableError, millions

from vltrack.core.files import write_text

__all__ = ["FIGURES", "LayoutError", "Recording", "TableError", "draw", "millions", "recorded"]
FIGURES = {table.FIGURE.tracker: table.FIGURE for table in (aitrack, all_in_one, bit_tracker, litetrack, sa_tracker)}
FOLDER = Path(__file__).resolve().parent / "trackers"


@cache
def recorded(tracker: str) -> Recording:
    """Record a tracker's base size, in training too where its figure shows some of that."""
    return Recording(tracker, training=TRAINING in FIGURES[tracker].lanes)


def main() -> None:
    """Draw all figures, or the given ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of {', '.join(FIGURES)}")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER", help="where to write NAME.svg")
    options = parser.parse_args()
    if unknown := set(options.names) - set(FIGURES):
        parser.error(f"no figure is called {', '.join(sorted(unknown))}")
    for name in options.names or FIGURES:
        write_text(options.out / f"{name}.svg", draw(FIGURES[name], recorded(name)))


if __name__ == "__main__":
    main()

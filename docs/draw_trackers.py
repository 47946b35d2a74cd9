"""Draws docs/trackers/*.svg: the idea of each tracker, with numbers from the running code.

The base size of each tracker reads a sentence, remembers a start and locates a frame on torch's meta device,
without weights and memory; ``figures`` writes down what flows and draws it. ``make docs`` calls this.

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

__all__ = ["PICTURES", "LayoutError", "Recording", "TableError", "draw", "millions", "recorded"]
PICTURES = {
    table.PICTURE.tracker: table.PICTURE
    for table in (aitrack, all_in_one, bit_tracker, litetrack, sa_tracker)
}
FOLDER = Path(__file__).resolve().parent / "trackers"


@cache
def recorded(tracker: str) -> Recording:
    """What flows through a tracker's base size, in training, too, where its picture shows some of that."""
    return Recording(tracker, training=TRAINING in PICTURES[tracker].lanes)


def main() -> None:
    """Draw all pictures, or those that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of {', '.join(PICTURES)}")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER", help="where to write NAME.svg")
    options = parser.parse_args()
    if unknown := set(options.names) - set(PICTURES):
        parser.error(f"no picture is called {', '.join(sorted(unknown))}")
    for name in options.names or PICTURES:
        write_text(options.out / f"{name}.svg", draw(PICTURES[name], recorded(name)))


if __name__ == "__main__":
    main()

"""The index of an AVI file: which frame number a place in the file has. Knows no pixels.

AVI packets carry no time. Behind damage FFmpeg goes on counting as if nothing were lost; the index at the end
of the file still knows better.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# Packets begin behind their chunk header, index entries at it.
_CHUNK_HEADER = 8


class AviIndex:
    """Finds the packets that were skipped between two packets that were read.

    Args:
        entries: (place in the file, time stamp) of every packet in file order.
    """

    def __init__(self, entries: Iterable[tuple[int, int]]) -> None:
        table = np.array(list(entries), dtype=np.int64).reshape(-1, 2)
        self._places, self._stamps = table[:, 0] + _CHUNK_HEADER, table[:, 1]
        self.usable = len(table) > 0 and bool((np.diff(self._places) > 0).all())
        self._next = 0

    def packet(self, place: int | None) -> tuple[list[int], int | None]:
        """Time stamps of the packets lost before the one at ``place``, and its own if it is known."""
        if not self.usable or place is None:
            return [], None
        entry = int(np.searchsorted(self._places, place))
        if entry >= len(self._places) or self._places[entry] != place or entry < self._next:
            self._next += 1
            return [], None
        lost = self._stamps[self._next : entry].tolist()
        self._next = entry + 1
        return lost, int(self._stamps[entry])

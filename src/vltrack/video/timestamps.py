"""Frame numbers and times from packets and time stamps, and where frames are missing.

Container time stamps are hostile input: they may be absent, repeated, negative or run backwards.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass

MAX_GAP = 10_000
_B_PICTURE = 3
_NEAR = 16  # frames behind a damaged place that may have to do with it, as they leave a decoder some packets late


@dataclass(frozen=True, slots=True)
class Row:
    """Number (0-based) and time (seconds from the first frame) of one displayed frame."""

    index: int
    seconds: float


class Clock:
    """Seconds from the first frame, always rising.

    A missing stamp advances by one step. A stamp that is late advances by a fraction of a step until the stamps
    have caught up, or starts a new origin one step later: if it is more than a second late, or the stamps stepped
    back by more than a few frames (joined recordings, wrapped counters) or stay where they are.
    """

    def __init__(self, time_base: float, step: float) -> None:
        self._time_base, self._step = time_base, step
        self._origin: float | None = None
        self._last: float | None = None
        self._stamp, self._late = 0, False

    @property
    def last(self) -> float:
        """The time last returned, 0 before the first."""
        return self._last or 0.0

    def seconds(self, pts: int | None) -> float:
        """Seconds of a frame with this time stamp (in ticks of the time base)."""
        if self._last is None:
            self._last = 0.0
            if pts is not None:
                self._stamp, self._origin = pts, pts * self._time_base
            return 0.0
        if pts is None:
            self._last = max(self._last + self._step, math.nextafter(self._last, math.inf))
            return self._last
        if self._origin is None:
            self._origin = pts * self._time_base - self._last - self._step
        now = pts * self._time_base - self._origin
        late, back = now <= self._last, pts <= self._stamp
        if late and (now < self._last - 1 or (back and (self._late or now < self._last - 8 * self._step))):
            self._origin -= self._last + self._step - now
            now = self._last + self._step
        elif late:
            now = self._last + max(self._step / 8, 0.001)
        self._stamp, self._late, self._last = pts, late, max(now, math.nextafter(self._last, math.inf))
        return self._last


class MpegNumbers:
    """Display numbers that frames of MPEG-1 and MPEG-2 carry, from 0 in each group; finds where some are lost.

    The anchor is the latest I or P frame: B frames follow the one behind them in display order.
    """

    def __init__(self) -> None:
        self._count, self._anchor = 0, -1

    def lost(self, data: bytes) -> bool:
        """Return whether frames before this one are missing; ``data`` begins with its headers."""
        place = data.find(b"\0\0\1\0")
        if place < 0 or place + 6 > len(data):
            return False
        number, kind = data[place + 4] << 2 | data[place + 5] >> 6, data[place + 5] >> 3 & 7
        lost = kind != _B_PICTURE and self._count != self._anchor + 1  # by now all up to the anchor have come
        if data.find(b"\0\0\1\xb8", 0, place) >= 0:
            self._count, self._anchor = 0, -1
        if kind != _B_PICTURE:
            self._count, self._anchor = self._anchor + 1, number
        self._count += 1
        return lost


class Timeline:
    """Numbers frames in presentation order and finds those lost to damage.

    Every packet that a container lists is one expected frame. A packet that yields no frame becomes a gap row
    only if damage can be the reason: itself or a packet since the last key frame could not be decoded, or
    something was wrong close before. So invisible packets (VP8 alternate references) and frames cut off at
    the start of a broadcast recording are not gaps.

    Args:
        time_base: seconds of one tick.
        step: seconds of one frame where the container gives none.
        stamped: packets carry presentation stamps. Without (AVI with B-frames, raw streams) each damaged
            packet is one missing frame, placed before the next good one.
        joinable: pieces of the format are often joined (broadcast), so that a jump of the stamps up to a key
            frame means loss only where a packet could not be decoded.
        head_gaps: damaged packets before the first good frame count as frames (containers with an index do, a
            broadcast recording does not).
    """

    def __init__(
        self, *, time_base: float, step: float, stamped: bool, joinable: bool = False, head_gaps: bool
    ) -> None:
        self._clock = Clock(time_base, step)
        self.stamped, self._joinable, self._head_gaps = stamped, joinable, head_gaps
        self._pending: list[int] = []
        self._doubtful: set[int] = set()
        self._suspect = False
        self._alert = self._broken = 0
        self._owed = 0
        self._last_pts: int | None = None
        self._run_start: int | None = None
        self._run = 0
        self._next = 0
        # The latest gap rows, to detect a frame that the decoder returns out of order.
        self._given: deque[int] = deque(maxlen=64)
        self._started = False
        self.bad = 0
        self.dropped_gaps = 0

    @property
    def last_seconds(self) -> float:
        """Seconds of the last row."""
        return self._clock.last

    def packet(self, pts: int | None, *, key: bool) -> None:
        """A packet was read and will be decoded."""
        if key:
            self._suspect = False
        # A packet before the last frame already has its row.
        passed = self._last_pts is not None and pts is not None and pts <= self._last_pts
        if self.stamped and pts is not None and not passed and len(self._pending) < 100_000:
            heapq.heappush(self._pending, pts)
            if self._suspect:
                self._doubtful.add(pts)

    def damaged(self) -> None:
        """The packet just read, or the container at this place, cannot be decoded."""
        self.bad += 1
        self._suspect = True
        self.alert(broken=True)
        self._doubtful.update(self._pending)
        if not self.stamped:
            self._owed = min(self._owed + 1, MAX_GAP)

    def alert(self, *, broken: bool = False) -> None:
        """Something was wrong near this place: a jump of the stamps in the next frames means loss.

        Args:
            broken: an image was damaged, not only the container.
        """
        self._alert = _NEAR
        self._broken = _NEAR if broken else self._broken

    def lost(self, stamps: list[int]) -> None:
        """Packets that the container's index lists were not found."""
        for stamp in stamps[:MAX_GAP]:
            self.packet(stamp, key=False)
            self.damaged()

    def frame(self, pts: int | None, *, key: bool = False) -> list[Row]:
        """A frame came out: the gap rows before it, then its own row (the last of the list).

        Empty for a frame that the decoder returns out of order after damage: its row was a gap already.
        """
        if self._is_late(pts):
            return []
        stamp = pts if self.stamped else None
        rows = [*self._before(stamp, key=key), self._row(stamp)]
        self._started = True
        self._alert, self._broken = max(0, self._alert - 1), max(0, self._broken - 1)
        return rows

    def finish(self) -> list[Row]:
        """The stream has ended: gap rows for damaged packets after the last frame."""
        rows = [self._row(pts) for pts in sorted(self._pending) if pts in self._doubtful]
        rows += [self._row(None) for _ in range(self._owed)]
        self._pending, self._owed = [], 0
        return rows

    def _is_late(self, pts: int | None) -> bool:
        if pts is None or self._last_pts is None or not (self.stamped and self._alert):
            return False
        near = max(1.0, self._beat / 2)
        return pts < self._last_pts and any(abs(pts - given) < near for given in self._given)

    @property
    def _beat(self) -> float:
        """Ticks from frame to frame in the present steady run, 0 without one."""
        if self._run_start is None or self._last_pts is None or not self._run:
            return 0.0
        return (self._last_pts - self._run_start) / self._run

    def _row(self, pts: int | None) -> Row:
        row = Row(self._next, self._clock.seconds(pts))
        self._next += 1
        return row

    def _before(self, pts: int | None, *, key: bool) -> list[Row]:
        if pts is None:
            count, self._owed = self._owed, 0
            return [self._row(None) for _ in range(count)] if self._started or self._head_gaps else []
        lost = []
        while self._pending and self._pending[0] <= pts:
            earlier = heapq.heappop(self._pending)
            if earlier < pts and (self._alert or earlier in self._doubtful):
                lost.append(earlier)
            self._doubtful.discard(earlier)
        if not self._started:
            self._last_pts = pts
            return [self._row(stamp) for stamp in lost] if self._head_gaps else []
        joined = self._joinable and key and not lost and not self._broken
        stamps = self._with_vanished(lost, pts, joined=joined)
        self._given.extend(stamps)
        return [self._row(stamp) for stamp in stamps]

    def _with_vanished(self, lost: list[int], pts: int, *, joined: bool) -> list[int]:
        """Add frames whose packets are lost: near damage, a steady frame rate gives their number."""
        last, beat = self._last_pts if self._last_pts is not None else pts, self._beat
        self._last_pts = pts
        beats = round((pts - last) / beat) - 1 if beat > 0 else 0
        if self._alert and not joined and self._run >= 8 and beats > len(lost):
            self.dropped_gaps += max(0, beats - MAX_GAP)
            lost = [last + round(beat * (k + 1)) for k in range(min(beats, MAX_GAP))]
        frames = len(lost) + 1
        off = abs(pts - last - frames * beat)
        if self._run_start is not None and off <= max(1.5, 0.1 * beat) * frames:
            self._run += frames
        elif frames == 1:  # a new steady run begins
            self._run_start, self._run = last, 1
        return lost

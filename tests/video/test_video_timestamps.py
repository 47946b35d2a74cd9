"""Numbers and times of frames, from stamps alone: properties on made-up streams."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vltrack.video.decode import AviIndex
from vltrack.video.timestamps import MAX_GAP, Clock, MpegNumbers, Row, Timeline


def _timeline(**changes: bool) -> Timeline:
    return Timeline(time_base=0.001, step=0.04, **({"stamped": True, "head_gaps": True} | changes))


@given(st.lists(st.none() | st.integers(-(2**62), 2**62)))
def test_time_always_rises_whatever_the_stamps(stamps: list[int | None]) -> None:
    clock = Clock(0.001, 0.04)
    seconds = [clock.seconds(stamp) for stamp in stamps]
    assert all(a < b for a, b in pairwise(seconds))
    assert all(s == 0 for s in seconds[:1])


@pytest.mark.parametrize(
    ("stamps", "milliseconds"),
    [
        ([0, 40, 40, 80, 120], [0, 40, 45, 80, 120]),  # repeated
        ([0, 40, 80, 60, 120], [0, 40, 80, 85, 120]),  # out of order
        ([7, 7, 7, 7], [0, 5, 45, 85]),  # stamps that stand still
        ([None, None, None, 90, 130, 170], [0, 40, 80, 120, 160, 200]),  # the first one is missing
        ([0, None, None, 100, 140, 180], [0, 40, 80, 100, 140, 180]),
        ([0, None, None, 60, 100, 140], [0, 40, 80, 85, 100, 140]),  # a guess that was too far
        ([400, 440, 480, 0, 40, 80], [0, 40, 80, 120, 160, 200]),  # joined
        ([90_000, 90_040, 0, 40], [0, 40, 80, 120]),  # a counter that starts again
    ],
)
def test_seconds_of_stamps_that_are_not_right(stamps: list[int | None], milliseconds: list[int]) -> None:
    clock = Clock(0.001, 0.04)
    assert [clock.seconds(stamp) for stamp in stamps] == [pytest.approx(m / 1000, abs=1e-9) for m in milliseconds]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40))
def test_true_stamps_become_true_seconds(steps: list[int]) -> None:
    clock = Clock(0.001, 0.04)
    stamps = [7000 + sum(steps[:k]) for k in range(len(steps))]
    assert [round(clock.seconds(s) * 1000) for s in stamps] == [s - 7000 for s in stamps]


@given(
    st.lists(st.tuples(st.integers(-(2**40), 2**40), st.booleans(), st.booleans(), st.booleans()), max_size=60),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_rows_are_numbered_without_holes(
    packets: list[tuple[int, bool, bool, bool]], stamped: bool, head_gaps: bool, joinable: bool
) -> None:
    """Whatever the packets: numbers run 0, 1, 2, ... and time rises."""
    timeline = _timeline(stamped=stamped, head_gaps=head_gaps, joinable=joinable)
    rows: list[Row] = []
    for pts, key, bad, complained in packets:
        timeline.packet(pts, key=key)
        if complained:
            timeline.alert()
        if bad:
            timeline.damaged()
        else:
            rows += timeline.frame(pts)
    rows += timeline.finish()
    assert [row.index for row in rows] == list(range(len(rows)))
    assert all(a.seconds < b.seconds for a, b in pairwise(rows))
    assert len(rows) <= (len(packets) + 1) * (MAX_GAP + 1)


@given(st.lists(st.booleans(), min_size=2, max_size=80).filter(any), st.booleans())
def test_every_packet_of_a_damaged_stream_has_its_row(good: list[bool], stamped: bool) -> None:
    timeline = _timeline(stamped=stamped)
    rows: list[Row] = []
    shown = []
    for number, whole in enumerate(good):
        timeline.packet(number * 40, key=True)
        if whole:
            rows += timeline.frame(number * 40)
            shown.append(rows[-1].index)
        else:
            timeline.damaged()
    rows += timeline.finish()
    assert len(rows) == len(good)
    assert shown == [number for number, whole in enumerate(good) if whole]
    assert timeline.bad == good.count(False)


def test_invisible_packets_are_no_frames() -> None:
    timeline = _timeline()
    rows: list[Row] = []
    for number in range(10):
        timeline.packet(number * 40, key=number == 0)
        timeline.packet(number * 40 + 1, key=False)
        rows += timeline.frame(number * 40)
    assert len(rows) + len(timeline.finish()) == 10


def test_a_pause_in_an_undamaged_stream_is_no_gap_but_a_jump_after_damage_is() -> None:
    stamps = [*range(0, 800, 40), *range(2000, 2800, 40)]
    for complained, broken, joinable, expected in (
        (False, False, False, 40),
        (True, False, False, 70),
        (True, False, True, 40),  # a jump to a key frame of a broadcast: another piece
        (True, True, True, 70),
    ):
        timeline = _timeline(joinable=joinable)
        rows: list[Row] = []
        for stamp in stamps:
            timeline.packet(stamp, key=True)
            if complained and stamp == 2000:
                timeline.alert(broken=broken)
            rows += timeline.frame(stamp, key=True)
        assert len(rows) == expected


def test_a_hostile_jump_is_cut_short_and_owned_up_to() -> None:
    timeline = _timeline()
    for stamp in range(0, 800, 40):
        timeline.packet(stamp, key=True)
        timeline.frame(stamp)
    timeline.alert()
    assert len(timeline.frame(2**60)) == MAX_GAP + 1
    assert timeline.dropped_gaps > 0


def test_frames_of_mpeg_that_are_lost_leave_a_hole_in_their_numbers() -> None:
    def header(number: int, kind: str, *, group: bool) -> bytes:
        two = number << 6 | "?IPB".index(kind) << 3
        return (b"\0\0\1\xb8wxyz" if group else b"") + b"\0\0\1\0" + two.to_bytes(2, "big")

    groups = [
        [(2, "I"), (0, "B"), (1, "B"), (5, "P"), (3, "B"), (4, "B")],
        [(0, "I"), (1, "P"), (2, "P"), (3, "P")],
    ] * 3
    whole = [header(*frame, group=k == 0) for group in groups for k, frame in enumerate(group)]
    numbers = MpegNumbers()
    assert not any(map(numbers.lost, whole))
    for gone in range(1, len(whole) - 5):
        numbers = MpegNumbers()
        found = [numbers.lost(data) for place, data in enumerate(whole) if place != gone]
        last_of_group = whole[gone + 1].startswith(b"\0\0\1\xb8")
        assert any(found[gone - 1 : gone + 4]) or last_of_group, gone
    assert not MpegNumbers().lost(b"\0\0\1\0") and not MpegNumbers().lost(b"")


def test_an_avi_index_names_what_was_skipped() -> None:
    entries = [(100 * k, k) for k in range(10)]
    index = AviIndex(entries)
    assert index.packet(8) == ([], 0)
    assert index.packet(108) == ([], 1)
    assert index.packet(508) == ([2, 3, 4], 5)
    assert index.packet(555) == ([], None)
    assert index.packet(908) == ([7, 8], 9)
    assert index.packet(None) == ([], None)
    assert not AviIndex([]).usable
    assert not AviIndex([(5, 0), (3, 1)]).usable

"""Numbers and times of frames, from stamps alone: properties on made-up streams."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vltrack.video.decode import AviIndex
from vltrack.video.timestamps import MAX_GAP, Clock, Row, Timeline


def _timeline(**changes: bool) -> Timeline:
    return Timeline(time_base=0.001, step=0.04, **({"stamped": True, "head_gaps": True} | changes))


@given(st.lists(st.none() | st.integers(-(2**62), 2**62)))
def test_time_never_falls_whatever_the_stamps(stamps: list[int | None]) -> None:
    clock = Clock(0.001, 0.04)
    seconds = [clock.seconds(stamp) for stamp in stamps]
    assert seconds == sorted(seconds)
    assert all(s == 0 for s in seconds[:1])


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
    packets: list[tuple[int, bool, bool, bool]], stamped: bool, head_gaps: bool, steady: bool
) -> None:
    """Whatever the packets: numbers run 0, 1, 2, ... and time never falls."""
    timeline = _timeline(stamped=stamped, head_gaps=head_gaps, steady=steady)
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
    seconds = [row.seconds for row in rows]
    assert seconds == sorted(seconds)
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
    for complained, expected in ((False, 40), (True, 70)):
        timeline = _timeline()
        rows: list[Row] = []
        for stamp in stamps:
            timeline.packet(stamp, key=True)
            if complained and stamp == 2000:
                timeline.alert()
            rows += timeline.frame(stamp)
        assert len(rows) == expected


def test_a_hostile_jump_is_cut_short_and_owned_up_to() -> None:
    timeline = _timeline(steady=True)
    for stamp in range(0, 800, 40):
        timeline.packet(stamp, key=True)
        timeline.frame(stamp)
    assert len(timeline.frame(2**60)) == MAX_GAP + 1
    assert timeline.dropped_gaps > 0


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

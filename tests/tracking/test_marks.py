"""Marks of a person in a video: tracked from both ends, exact where they are, and nothing across "not here"."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from scripted import Spotter, scene, tracker
from vltrack.core.errors import ImageError
from vltrack.core.track import Mark
from vltrack.core.types import Frame, Status, Step, iou_xywh
from vltrack.tracking.doubt import doubt_of, next_rows
from vltrack.tracking.marks import follow_marks, join
from vltrack.video.spool import Spool

COUNT = 20


def place(row: int) -> tuple[float, float, float, float]:
    """Where the red rectangle is."""
    return (20.0 + 2 * row, 20.0 + row, 16.0, 12.0)


def video(blank: tuple[int, ...] = (), count: int = COUNT) -> Iterator[Frame]:
    for row in range(count):
        image = None if row in blank else scene(place(row))
        yield Frame(image=image, index=row, seconds=row / 25)


def followed(marks: list[Mark], frames: Iterator[Frame] | None = None, **options: object) -> list[Step]:
    following = tracker(Spotter(), search_again_every=0)
    return list(follow_marks(following, frames or video(), marks, **options))


def overlaps(steps: list[Step]) -> np.ndarray:
    return np.array([iou_xywh(step.box, place(step.index)) for step in steps])


def test_between_two_boxes_the_target_is_tracked_and_the_marks_are_exact() -> None:
    marks = [Mark(0, box=place(0)), Mark(12, box=(44.25, 32.5, 15, 11))]
    passes = []
    steps = followed(marks, done=lambda: passes.append(1))
    assert [step.index for step in steps] == list(range(COUNT))
    assert steps[12].box.tolist() == [44.25, 32.5, 15, 11]
    assert all(step.visible for step in steps)
    assert overlaps(steps).min() > 0.6
    assert [steps[0].extras["doubt"], steps[12].extras["doubt"]] == [0, 0]
    # Two starts; forward to 12 and to the end, backward to 0.
    assert len(passes) == 2 + (12 + 7) + 12


def test_not_here_ends_the_target_until_the_next_box() -> None:
    steps = followed([Mark(0, box=place(0)), Mark(5, absent=True), Mark(12, box=place(12))])
    states = [step.status for step in steps]
    assert states == [Status.OK] * 5 + [Status.LOST] * 7 + [Status.OK] * 8
    assert [step.visible for step in steps] == [state is Status.OK for state in states]
    alone = followed([Mark(0, box=place(0)), Mark(5, absent=True)])
    assert all((a.box == b.box).all() for a, b in zip(steps[:12], alone, strict=False))  # nothing comes from frame 12


def test_before_the_first_box_it_is_tracked_backward_if_asked() -> None:
    marks = [Mark(8, box=place(8))]
    assert [step.status for step in followed(marks)][:9] == [Status.WAITING] * 8 + [Status.OK]
    steps = followed(marks, backward=True)
    assert all(step.visible for step in steps)
    assert overlaps(steps).min() > 0.6


def test_a_sentence_finds_the_target_where_it_is_said() -> None:
    images = [scene((60, 40, 10, 10), place(row), colours="green red") for row in range(10)]
    frames = (Frame(image=image, index=row, seconds=row / 25) for row, image in enumerate(images))
    steps = followed([Mark(0, box=(60, 40, 10, 10)), Mark(4, text="the red one")], frames)
    assert overlaps(steps[4:]).min() > 0.5
    assert iou_xywh(steps[1].box, (60, 40, 10, 10)) > 0.5


def test_frames_that_are_not_decoded_are_missing_and_cannot_be_marked() -> None:
    marks = [Mark(0, box=place(0)), Mark(12, box=place(12))]
    steps = followed(marks, video(blank=(6, 15)))
    assert [step.index for step in steps if step.status is Status.MISSING] == [6, 15]
    with pytest.raises(ImageError, match="12"):
        followed(marks, video(blank=(12,)))


def test_frames_that_end_before_a_mark_leave_the_forward_pass() -> None:
    steps = followed([Mark(0, box=place(0)), Mark(12, box=place(12))], video(count=9))
    assert [step.index for step in steps] == list(range(9))
    assert overlaps(steps).min() > 0.6


def step_at(row: int, x: float, score: float = 0.9, visible: bool = True) -> Step:
    status = Status.OK if visible else Status.LOST
    box = np.array([x, 10.0, 20.0, 20.0])
    return Step(box=box, score=score, visible=visible, index=row, seconds=0.0, status=status)


def test_passes_that_differ_are_cut_once_where_the_sum_of_weights_is_greatest() -> None:
    going = [step_at(row, 0 if row < 10 else 100) for row in range(1, 11)]
    coming = [step_at(row, 100 if row else 0, score=0.9 if row > 3 else 0.2) for row in range(10)]
    found = list(join(step_at(0, 0), step_at(10, 100), going, coming))
    x = [step.box[0] for step in found]
    assert sorted(x) == x
    assert set(x) == {0, 100}
    assert all(step.extras["doubt"] >= 0.5 for step in found)
    lost = [step_at(row, 0, score=0.1, visible=False) for row in range(1, 11)]
    assert all(step.visible for step in list(join(step_at(0, 0), step_at(10, 100), lost, coming))[3:])
    # A pass that comes to the other mark is right where one does not.
    astray = [step_at(row, 300) for row in range(10)]
    assert [step.box[0] for step in join(step_at(0, 0), step_at(10, 100), going, astray)][:8] == [0] * 8


def test_where_passes_agree_the_box_goes_from_one_to_the_other() -> None:
    going = [step_at(row, 40.0) for row in range(1, 11)]
    coming = [step_at(row, 44.0) for row in range(10)]
    x = [step.box[0] for step in join(step_at(0, 0), step_at(10, 0), going, coming)]
    assert all(39 < one < 44 for one in x)
    assert x[0] < 41 < 42 < x[-1]


def test_small_wobbles_of_both_passes_are_taken_for_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, (2, 11))
    going = [step_at(row, noise[0, row]) for row in range(1, 11)]
    coming = [step_at(row, noise[1, row]) for row in range(10)]
    x = [step.box[0] for step in join(step_at(0, 0), step_at(10, 0), going, coming)]
    assert np.abs(x).mean() < 0.5 * np.abs(noise).mean()


def test_doubt_rises_with_each_sign_and_stays_in_its_range() -> None:
    least, signs = doubt_of(0.9), ({"scores": 0.4}, {"rivalry": 0.8}, {"near": 0.7}, {"apart": 0.6})
    assert float(least) == 0
    assert all(float(doubt_of(**{"scores": 0.9, **sign})) > 0 for sign in signs)
    assert 0.9 < float(doubt_of(0.0, 1.0, 1.0, 1.0)) + 0.3 <= 1.3
    assert doubt_of(np.array([0.9, 0.1])).tolist() == [0.0, pytest.approx(0.45)]


def test_rows_to_look_at_are_the_most_doubtful_and_spread_apart() -> None:
    doubt = np.zeros(100)
    doubt[40:60], doubt[80:84] = 0.9, 0.9
    rows = next_rows(doubt, [0], 6)
    assert 40 <= rows[0] < 60
    assert any(78 <= row < 84 for row in rows)
    assert min(abs(a - b) for a in rows for b in rows if a != b) > 1
    assert next_rows(np.zeros(9), [0, 8], 1) == [4]  # nothing known: the middle
    assert next_rows(doubt[:3], [0, 1, 2], 5) == []
    assert sorted(next_rows(doubt[:5], [2], 9)) == [0, 1, 3, 4]


def test_a_spool_gives_all_frames_back_in_reverse(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    frames = list(video(blank=(3,), count=8))
    size = frames[0].image.nbytes
    with Spool(memory=2 * size) as spool:
        for frame in frames:
            spool.add(frame)
        found = list(reversed(spool))
        assert [frame.index for frame in found] == list(range(7, -1, -1))
        assert found[-1] == frames[0]
        assert found[4].image is None
        assert np.abs(found[0].image.astype(int) - frames[7].image).mean() < 4  # a JPEG
        spool.clear()
        assert list(reversed(spool)) == []

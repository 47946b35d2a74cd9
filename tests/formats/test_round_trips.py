"""What is written in a format is read back: visible frames, boxes, names, marks; and absent stays absent."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vltrack
from vltrack.core.track import Track
from vltrack.core.types import Status
from vltrack.formats import FORMATS, detect
from vltrack.formats.base import TOLERANCE, Clip, keyframes, spacing

WIDTH, HEIGHT, FRAMES = 640, 360, 24
CLIP = Clip(name="clip.mp4", width=WIDTH, height=HEIGHT, frames=FRAMES, rate=25.0)
SUFFIX = {name: kind.suffixes[0] for name, kind in FORMATS.items()}
EXACT = {"yolo": 1e-4, "cvat": TOLERANCE + 0.011, "label-studio": TOLERANCE + 0.011}
NO_ABSENT = ("got10k-results",)
TEXT = ("coco", "label-studio", "lasot", "vot")
"""Formats that hold the sentence."""


def make(boxes: np.ndarray, visible: np.ndarray, indices: np.ndarray | None = None, **meta: object) -> Track:
    indices = np.arange(len(boxes)) if indices is None else indices
    facts = {"width": WIDTH, "height": HEIGHT, "source": "clip.mp4", "sentence": "the red car"}
    return Track(
        boxes=boxes,
        scores=np.where(visible, 1.0, 0.1),
        visible=visible,
        indices=indices,
        seconds=indices / 25,
        status=tuple(Status.OK if seen else Status.LOST for seen in visible),
        meta=facts | meta,
    )


def seen(track: Track) -> dict[int, list[float]]:
    """Visible boxes by frame."""
    return {step.index: step.box.tolist() for step in track if step.visible}


def check_same(found: Track, wanted: Track, tolerance: float = 0.011) -> None:
    boxes = seen(wanted)
    assert seen(found).keys() == boxes.keys()
    for frame, box in seen(found).items():
        np.testing.assert_allclose(box, boxes[frame], atol=tolerance)


def path_for(folder: Path, name: str) -> Path:
    return folder / f"written{SUFFIX[name]}"


@st.composite
def tracks(draw: st.DrawFn) -> Track:
    rows = draw(st.integers(1, FRAMES))
    number = st.floats(0, 200, allow_nan=False).map(lambda value: round(value, 2))
    boxes = np.array(draw(st.lists(st.tuples(number, number, number, number), min_size=rows, max_size=rows)))
    if draw(st.booleans()):  # straight lines, of which most rows are between keyframes
        boxes = np.linspace(boxes[0], boxes[-1], rows)
    boxes[:, 2:] += 0.5
    visible = np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    visible[draw(st.integers(0, rows - 1))] = True
    first = draw(st.integers(0, FRAMES - rows))
    return make(boxes, visible, np.arange(first, first + rows))


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in (*NO_ABSENT, "parquet")])
@settings(max_examples=40, deadline=None)
@given(several=st.lists(tracks(), min_size=1, max_size=3))
def test_visible_boxes_come_back(name: str, several: list[Track]) -> None:
    given_ = {str(number): track for number, track in enumerate(several, 1)}
    with tempfile.TemporaryDirectory() as folder:
        path = path_for(Path(folder), name)
        FORMATS[name].write(given_, path, CLIP)
        assert detect(path) == name
        found = FORMATS[name].read(path, Clip(width=WIDTH, height=HEIGHT))
    if len(given_) == 1:  # a folder or file of one target has no room for its name
        found = dict(zip(given_, found.values(), strict=True))
    assert found.keys() == given_.keys()
    for each, track in found.items():
        check_same(track, given_[each], EXACT.get(name, 0.011))
        if name in TEXT:
            assert track.meta["sentence"] == "the red car"
        assert track.meta["format"] == name
        rows = track.indices.tolist()
        # One file of the MOTChallenge does not say that frames between regular rows were looked at.
        step = spacing(frame for one in several for frame in seen(one)) if name == "mot" else 1
        assert rows == list(range(rows[0], rows[-1] + 1, step)) and rows[0] == min(seen(given_[each]))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("stride", [1, 5])
def test_what_is_known_of_the_video_is_kept(name: str, stride: int, tmp_path: Path) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    if stride > 1 and name in ("lasot", "got10k", "got10k-results", "vot"):
        pytest.skip("a line per frame leaves no room for frames that were not looked at")
    rows = np.arange(0, FRAMES, stride)
    boxes = np.column_stack([rows * 3.7 % 11, rows * 1.3 % 7, 20 + rows % 3, 30 + rows % 5]).astype(float) + 1
    track = make(boxes, np.ones(len(rows), dtype=bool), rows)
    path = path_for(tmp_path, name)
    vltrack.write_tracks(track, path, format=name)
    (found,) = FORMATS[name].read(path, Clip(width=WIDTH, height=HEIGHT)).values()
    last = found[found.visible]
    np.testing.assert_allclose(last.boxes[last.indices % stride == 0][: len(rows)], boxes, atol=0.011)
    if name == "cvat":  # linear between keyframes, as CVAT shows it; the last box stays to the end of the task
        middle = last.boxes[2] if stride == 5 else last.boxes[0]
        np.testing.assert_allclose(middle, boxes[0] + (boxes[1] - boxes[0]) * (0.4 if stride == 5 else 0), atol=0.011)
    assert (found.meta["width"], found.meta["height"]) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("name", ["cvat", "coco", "label-studio"])
def test_marks_are_keyframes_and_come_back(name: str, tmp_path: Path) -> None:
    rows = np.arange(FRAMES)
    boxes = np.column_stack([10 + 2.0 * rows, 20 + 1.0 * rows, np.full(FRAMES, 30.0), np.full(FRAMES, 40.0)])
    visible = (rows < 10) | (rows >= 15)
    marks = [{"frame": frame, "box": boxes[frame].tolist()} for frame in (0, 4, 15)]
    marks.insert(2, {"frame": 12, "absent": True})
    track = make(boxes, visible, marks=marks)
    path = path_for(tmp_path, name)
    FORMATS[name].write({"car": track}, path, CLIP)
    found = FORMATS[name].read(path, Clip())["car"]
    assert found.meta["marks"] == marks  # those of the person, not the ends of each run
    check_same(found, track)
    assert not found.visible[10:15].any()
    # Written once more, the same keyframes.
    FORMATS[name].write({"car": found}, again := path.with_name(f"again{path.suffix}"), CLIP)
    assert FORMATS[name].read(again, Clip())["car"] == found


def test_keyframes_are_only_where_a_line_between_others_would_be_off() -> None:
    noise = np.random.default_rng(3)
    rows = np.arange(400)
    center = np.column_stack([200 + 150 * np.sin(rows / 40), 150 + 90 * np.cos(rows / 60)])
    boxes = np.column_stack([center, np.full(400, 40.0), np.full(400, 30.0)]) + noise.normal(0, 0.05, (400, 4))
    track = make(boxes, np.ones(400, dtype=bool), marks=[{"frame": 7, "box": boxes[7].tolist()}])
    keys = keyframes(track)
    assert keys[[0, 7, 399]].all()
    assert keys.sum() < 400 / 4
    between = np.column_stack([np.interp(rows, rows[keys], side[keys]) for side in boxes.T])
    assert np.abs(between - boxes).max() <= TOLERANCE + 0.01  # the corners of keyframes have two decimals


@pytest.mark.parametrize("name", ["cvat", "label-studio"])
def test_boxes_of_a_tracker_are_no_marks(name: str, tmp_path: Path) -> None:
    track = make(np.full((5, 4), 9.0), np.ones(5, dtype=bool))
    FORMATS[name].write({"car": track}, path_for(tmp_path, name), CLIP)
    assert "marks" not in FORMATS[name].read(path_for(tmp_path, name), Clip())["car"].meta


def test_a_target_that_ends_before_the_video_is_outside_there(tmp_path: Path) -> None:
    track = make(np.full((5, 4), 9.0), np.array([True, True, False, True, True]))
    FORMATS["cvat"].write({"car": track}, path := tmp_path / "a.xml", CLIP)
    text = path.read_text()
    assert [f'<box frame="{frame}" keyframe="1" outside="1"' in text for frame in range(7)] == [
        frame in (2, 5) for frame in range(7)
    ]
    FORMATS["cvat"].write({"car": track}, path, Clip(width=WIDTH, height=HEIGHT))  # the length is not known
    assert 'frame="5"' not in path.read_text()  # CVAT refuses a file with a frame that its task does not have


def test_submissions_repeat_the_last_box(tmp_path: Path) -> None:
    boxes = np.arange(20.0).reshape(5, 4) + 1
    track = make(boxes, np.array([False, True, False, False, True]))
    vltrack.write_tracks(track, tmp_path / "seq", format="got10k-results")
    assert np.loadtxt(tmp_path / "seq" / "seq_001.txt", delimiter=",")[:, 0].tolist() == [5, 5, 5, 5, 17]
    assert detect(tmp_path / "seq") == "got10k-results"


def test_boxes_in_every_tenth_frame_are_marks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"{frame},7,{frame},2,30,40,1,1,1\n" for frame in (1, 11, 31)))
    found = vltrack.read_tracks(tmp_path / "a.txt")["7"]
    assert found.indices.tolist() == [0, 10, 20, 30]
    assert found.visible.tolist() == [True, True, False, True]
    assert [mark["frame"] for mark in found.meta["marks"]] == [0, 10, 30]


def test_targets_of_different_length_fit_one_table(tmp_path: Path) -> None:
    a = make(np.full((3, 4), 5.0), np.ones(3, dtype=bool))
    b = make(np.full((2, 4), 6.0), np.ones(2, dtype=bool), np.array([2, 3]))
    vltrack.write_tracks({"a": a, "b": b}, tmp_path / "t.csv")
    found = vltrack.read_tracks(tmp_path / "t.csv")
    assert found == {"a": a, "b": b}
    rows = [line.split(",")[:2] for line in (tmp_path / "t.csv").read_text().splitlines()[4:]]
    assert rows == [["a", "0"], ["a", "1"], ["a", "2"], ["b", "2"], ["b", "3"]]

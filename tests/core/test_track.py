"""A track survives its files as far as their decimals go, and a damaged file is a clear error."""

from __future__ import annotations

import copy
import csv
import json
import pickle
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.errors import BoxInvalid, DataError, ResourceError, UsageError
from vltrack.core.track import COLUMNS, Mark, Track
from vltrack.core.types import Status, Step

META = {
    "source": "clip.mp4",
    "sentence": "the white car",
    "box": [1.5, 2, 3, 4],
    "model": "litetrack-tiny",
    "width": 640,
    "height": 480,
    "warnings": [],
    "versions": {"vltrack": "0.1.0"},
}
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SIDE = st.floats(1e-300, 1e300)
ROWS = st.lists(
    st.tuples(
        *(FINITE, FINITE, SIDE, SIDE, st.floats(0, 1), st.booleans(), FINITE),
        *(st.sampled_from(list(Status)), st.integers(1, 9)),
    ),
    max_size=8,
)


def make(rows: list[tuple], meta: dict | None = None) -> Track:
    steps, index = [], -1
    for x, y, w, h, score, visible, seconds, status, jump in rows:
        index += jump
        box = np.array([x, y, w, h])
        steps.append(Step(box=box, score=score, visible=visible, index=index, seconds=seconds, status=status))
    return Track.from_steps(steps, META if meta is None else meta)


@pytest.fixture
def track() -> Track:
    rows = [(0.1 + i, 2 / 3, 10.0, 20.0, 0.9, True, i / 30, Status.OK, 1) for i in range(5)]
    rows[3] = (3.1, 2 / 3, 10.0, 20.0, 0.05, False, 0.1, Status.LOST, 1)
    return make(rows)


def rounded(track: Track) -> Track:
    """A track with the decimals that files have."""
    boxes = np.array([[round(v, 2) for v in box] for box in track.boxes.tolist()]).reshape(-1, 4)
    boxes[:, 2:] = boxes[:, 2:].clip(0.01)
    scores, seconds = ([round(v, n) for v in a.tolist()] for a, n in ((track.scores, 4), (track.seconds, 3)))
    return replace(track, boxes=boxes, scores=np.array(scores), seconds=np.array(seconds))


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, sentence=st.text(max_size=20), extension=st.sampled_from(["csv", "json"]))
def test_every_row_and_every_sentence_comes_back(tmp_path_factory, rows, sentence, extension) -> None:
    track = make(rows, {"sentence": sentence, "list": [sentence, 1.5, None, True], sentence: {"a,b": sentence}})
    path = tmp_path_factory.mktemp("track") / f"t.{extension}"
    track.save(path)
    kept = Track.load(path)
    assert kept == rounded(track)
    assert kept.to_csv() == track.to_csv()
    kept.save(path, overwrite=True)
    assert Track.load(path) == kept, "a second time changes nothing"


def test_numbers_have_the_decimals_that_they_are_worth() -> None:
    row = (1 / 3, -0.001, 100 / 3, 1e-9, 2 / 3, True, 1 / 30, Status.OK, 1)
    assert make([row]).to_csv().splitlines()[-1] == "0,0.033,0.33,0.0,33.33,0.01,0.6667,true,ok"


def test_rows_are_what_the_table_says(track, tmp_path) -> None:
    path = tmp_path / "t.csv"
    track.save(path)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    assert tuple(rows[0]) == COLUMNS == ("frame", "seconds", "x", "y", "w", "h", "score", "visible", "status")
    assert rows[3]["visible"] == "false"
    assert rows[3]["status"] == "lost"
    assert rows[2]["x"] == "2.1"
    data = json.loads(track.to_json())
    assert (data["format"], data["version"], data["meta"]) == ("vltrack.track", 1, META)
    assert data["rows"][3] == dict(zip(COLUMNS, (3, 0.1, 3.1, 0.67, 10.0, 20.0, 0.05, False, "lost"), strict=True))


def test_length_rows_and_slices(track) -> None:
    assert len(track) == 5
    assert track[-1].index == 4
    assert track[3].status is Status.LOST
    part = track[1:4]
    assert len(part) == 3
    assert part.indices.tolist() == [1, 2, 3]
    assert part.meta == track.meta
    assert [step.index for step in track[::2]] == [0, 2, 4]
    assert len(track[9:]) == 0
    assert len(Track.from_steps([])) == 0
    with pytest.raises(IndexError):
        track[5]
    with pytest.raises(ValueError, match="read-only"):
        track.boxes[0, 0] = 1


@pytest.mark.fault("B08")
@pytest.mark.parametrize(
    "change",
    [
        {"box": (np.nan, 0, 1, 1)},
        {"box": (0, 0, np.inf, 1)},
        {"box": (0, 0, 0, 1)},
        {"box": (0, 0, 1, -1)},
        {"score": 1.1},
        {"score": np.nan},
        {"seconds": np.nan},
        {"index": 0},
        {"index": -1},
    ],
)
def test_nothing_that_is_not_finite_becomes_a_track(change) -> None:
    good = {"box": np.ones(4), "score": 0.5, "visible": True, "index": 0, "seconds": 0.0}
    bad = good | {"index": 1} | change
    with pytest.raises(DataError, match="Row 2"):
        Track.from_steps([Step(**good), Step(**bad)])


def test_meta_must_be_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Track.from_steps([], {"score": float("nan")})
    with pytest.raises(TypeError):
        Track.from_steps([], {"array": np.zeros(3)})


def test_lengths_must_agree(track) -> None:
    with pytest.raises(DataError, match="scores"):
        replace(track, scores=track.scores[1:])


@pytest.mark.fault("P07")
@pytest.mark.parametrize(
    "sentence", ['=HYPERLINK("http://x","y")', "a,=1+1", "+1;-2;@SUM(A1)", "-a\t=b", "@x", "x\n=cmd()", "'=1"]
)
def test_no_cell_of_a_csv_is_a_formula(track, sentence) -> None:
    text = Track.from_steps(list(track), {"sentence": sentence, "more": [sentence, {sentence: sentence}]}).to_csv()
    for delimiter in ",;\t":
        for row in csv.reader(text.splitlines(), delimiter=delimiter):
            assert not [cell for cell in row if cell.lstrip()[:1] in tuple("=+-@")]


def test_saving_never_overwrites_silently(track, tmp_path) -> None:
    path = tmp_path / "t.json"
    track.save(path)
    with pytest.raises(UsageError, match="exists"):
        track.save(path)
    track[:2].save(path, overwrite=True)
    assert len(Track.load(path)) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["t.json"]
    with pytest.raises(UsageError, match=r"t\.txt"):
        track.save(tmp_path / "t.txt")
    with pytest.raises(UsageError, match=r"t\.txt"):
        Track.load(tmp_path / "t.txt")
    with pytest.raises(ResourceError, match="folder"):
        track.save(tmp_path / "none" / "t.csv")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# vltrack.track 1", "# vltrack.track 2", "version 2"),
        ("# vltrack.track 1", "# vltrack.track x", "'x'"),
        ("# vltrack.track 1\n", "", "line 1"),
        ("frame,seconds", "frame,time", "header"),
        ("2.1,", "nan,", "x is nan"),
        ("2.1,", "1e999,", "x is inf"),
        ("2.1,", "two,", "'two'"),
        ("2.1,", "2_1,", "'2_1'"),
        ("2.1,", "2.1,7,", "10 cells"),
        ("false", "no", "'no'"),
        ("lost", "gone", "'gone'"),
        ("\n3,", "\n1,", "ow 4"),
        ("\n3,", "\n3.5,", "'3.5'"),
        ("10.0,20.0,0.05", "10.0,0.0,0.05", "ow 4"),
        ("0.05", "1.05", "ow 4"),
        ('# "width": 640', "# width", "line 6"),
        ('# "width": 640', '# "width": NaN', "line 6"),
        ("\n3,", "\n\n3,", "1 cells"),
    ],
)
def test_a_damaged_csv_is_named(track, tmp_path, old, new, said) -> None:
    path = tmp_path / "t.csv"
    text = track.to_csv()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=said) as caught:
        Track.load(path)
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{", "", r"t\.json"),
        ("2.1", "NaN", r"t\.json"),
        ("2.1", "1e999", "x is inf"),
        ("2.1", '"2.1 "', "not a number"),
        ("2.1", "true", "not a number"),
        ("2.1", "[2]", "not a number"),
        ("false", "0", "visible"),
        ("false", '"no"', "visible"),
        ("vltrack.track", "other", "format"),
        ('"version": 1', '"version": 7', "version 7"),
        ('"meta": {', '"m": {', "'meta'"),
        ('"lost"', "[]", "status"),
        ('"frame": 3, ', "", "ow 4"),
        ('"frame": 3', '"frame": -3', "-3"),
    ],
)
def test_a_damaged_json_is_named(track, tmp_path, old, new, said) -> None:
    path = tmp_path / "t.json"
    text = track.to_json()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=said) as caught:
        Track.load(path)
    assert str(path) in caught.value.message


def test_other_damage(tmp_path) -> None:
    with pytest.raises(DataError, match="No such file"):
        Track.load(tmp_path / "none.csv")
    for name, data in (
        ("a.csv", b"\xff\xfe"),
        ("b.json", b"[" * 100_000),
        ("c.csv", b""),
        ("d.json", b"[]"),
        ("e.json", b"1"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            Track.load(tmp_path / name)


def test_windows_line_ends_and_bom_are_read(track, tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + track.to_csv().replace("\n", "\r\n").encode())
    assert Track.load(path) == rounded(track)


def test_a_source_name_that_is_not_utf8(track, tmp_path) -> None:
    odd = Track.from_steps(list(track), {"source": b"clip\xff.mp4".decode("utf-8", "surrogateescape")})
    for name in ("t.csv", "t.json"):
        odd.save(tmp_path / name)
        assert Track.load(tmp_path / name) == rounded(odd)


@pytest.mark.parametrize("act", [lambda t: pickle.loads(pickle.dumps(t)), copy.copy, copy.deepcopy])  # noqa: S301
def test_a_copy_is_equal_and_read_only(track, act) -> None:
    other = act(track)
    assert other == track
    assert hash(other) == hash(track)
    for name in ("boxes", "scores", "visible", "indices", "seconds"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(other, name)[0] = 0
    other.meta["source"] = "changed"
    assert track.meta["source"] == "clip.mp4"
    assert replace(track, scores=track.scores / 2) != track
    assert track != "a track"


def test_rows_are_chosen_by_number_slice_mask_or_list(track) -> None:
    assert track[track.visible].indices.tolist() == track.indices[track.visible].tolist()
    assert track[[0, 2]].status == (track.status[0], track.status[2])
    assert track[np.array([1, 3])] == track[1:4:2]
    assert len(track[[]]) == 0
    assert track[np.int64(-1)] == track[4]
    for wrong in ("a", 1.0, True, (0, 1), None):
        with pytest.raises(TypeError, match="whole number"):
            track[wrong]
    with pytest.raises(IndexError):
        track[[True]]
    with pytest.raises(DataError, match="rise"):
        track[[2, 0]]


def test_a_track_prints_in_one_line(track) -> None:
    assert repr(track) == "Track(5 rows, visible in 4, source='clip.mp4', model='litetrack-tiny')"
    assert repr(Track.from_steps([])) == "Track(0 rows, visible in 0)"


def test_corners(track) -> None:
    np.testing.assert_allclose(track.xyxy[0], [0.1, 2 / 3, 10.1, 20 + 2 / 3])


def test_tables_of_other_packages(track, monkeypatch) -> None:
    """What the packages are called with; they are no dependencies, so stand-ins take their place."""
    frames = []
    pandas = SimpleNamespace(DataFrame=lambda rows, columns: frames.append((list(rows), columns)) or "frame")
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert track.to_df() == "frame"
    assert frames == [(list(track.rows()), COLUMNS)]

    class Detections(SimpleNamespace):
        @classmethod
        def empty(cls) -> str:
            return "empty"

    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=Detections))
    found = track.to_supervision()
    assert len(found) == 5
    assert found[3] == "empty", "not visible"
    assert found[1].xyxy.shape == (1, 4)
    np.testing.assert_allclose(found[1].xyxy[0], track.xyxy[1], rtol=1e-6)
    assert found[1].confidence.tolist() == pytest.approx([0.9])
    assert found[1].tracker_id.tolist() == [1]
    for name, call in (("pandas", track.to_df), ("supervision", track.to_supervision)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=f"pip install {name}"):
            call()


def test_a_plot_shows_the_scores_and_where_the_target_was_lost(track) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    assert track.plot(axes) is axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.stack([track.seconds, track.scores], axis=1))
    assert len(axes.collections) == 1


def test_a_mark_says_one_thing_about_one_frame() -> None:
    assert Mark(np.int64(3), box=np.array([1, 2, 3, 4])) == Mark(3, box=(1.0, 2.0, 3.0, 4.0))
    for error, said in (
        (UsageError, {}),
        (UsageError, {"box": (1, 2, 3, 4), "absent": True}),
        (UsageError, {"absent": True, "text": "the dog"}),
        (BoxInvalid, {"box": (1, 2, 0, 4)}),
        (BoxInvalid, {"box": (1, 2, 3)}),
        (BoxInvalid, {"box": (1, 2, 3, float("nan"))}),
        (TypeError, {"text": 5}),
    ):
        with pytest.raises(error):
            Mark(0, **said)
    with pytest.raises(UsageError, match="-1"):
        Mark(-1, absent=True)
    with pytest.raises(TypeError, match="frame"):
        Mark(1.5, absent=True)


def test_the_marks_of_a_track_are_in_its_head_or_are_its_start(tmp_path) -> None:
    steps = [Step(box=np.ones(4), score=1, visible=True, index=row, seconds=row / 25) for row in (4, 6)]
    marks = [Mark(4, box=(1, 1, 1, 1)), Mark(5, absent=True), Mark(6, text="the dog, left")]
    Track.from_steps(steps, {"marks": [mark.record() for mark in reversed(marks)]}).save(tmp_path / "a.csv")
    assert list(Track.load(tmp_path / "a.csv").marks) == marks
    assert Track.from_steps(steps, META).marks == (Mark(4, box=(1.5, 2, 3, 4)),)
    assert Track.from_steps(steps, {"sentence": "the dog"}).marks == (Mark(4, text="the dog"),)
    assert Track.from_steps(steps).marks == Track.from_steps([], META).marks == ()
    for wrong in (5, [5], [{"frame": 1}], [{"frame": 1, "absent": True}] * 2, [{"frame": 1, "size": 3}]):
        with pytest.raises(DataError, match="marks"):
            _ = Track.from_steps(steps, {"marks": wrong}).marks


def test_a_doubt_is_kept_in_copies_parts_and_files(tmp_path) -> None:
    plain = Step(box=np.ones(4), score=1, visible=True, index=0, seconds=0)
    steps = [replace(plain, index=row, extras={"doubt": row / 8}) for row in range(4)]
    track = Track.from_steps(steps, META)
    assert track.columns == (*COLUMNS, "doubt")
    for kind in ("csv", "json"):
        track.save(tmp_path / f"a.{kind}")
        assert Track.load(tmp_path / f"a.{kind}") == track
    assert pickle.loads(pickle.dumps(track)) == copy.deepcopy(track) == track  # noqa: S301
    assert track[1:3].doubt.tolist() == [0.125, 0.25]
    assert track[2].extras == {"doubt": 0.25}
    assert Track.from_steps([*steps, replace(plain, index=9)]).doubt is None
    text = (tmp_path / "a.csv").read_text()
    (tmp_path / "b.csv").write_text(text.replace("0.375", "1.5"))
    with pytest.raises(DataError, match="doubt"):
        Track.load(tmp_path / "b.csv")

"""``vltrack correct``, ``review`` and ``track --keyframes``: what is tracked again, and what stays to the byte."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import vltrack
from scripted import Spotter, scene, tracker
from vltrack.api import correct as job
from vltrack.api import keyframes
from vltrack.api.keyframes import read_keyframes
from vltrack.core.errors import BoxFrameOutOfRange, BoxOutside, DataError, NothingFits, PartialResult, UsageError
from vltrack.core.track import Mark, Track
from vltrack.tracking.tracker import Tracker
from vltrack.video.writer import VideoWriter

COUNT = 30


def place(row: int) -> tuple[float, float, float, float]:
    return (20.0 + 2 * row, 20.0, 16.0, 12.0)


@pytest.fixture
def images() -> list[np.ndarray]:
    return [scene(place(row), size=(128, 96)) for row in range(COUNT)]


@pytest.fixture
def spotter(monkeypatch: pytest.MonkeyPatch) -> Tracker:
    """The tracker of every run here: it sees what is red."""
    seen = tracker(Spotter(), search_again_every=0)
    for module in (job, keyframes):
        monkeypatch.setattr(module, "load_as", lambda *_, **__: seen)
    monkeypatch.setattr(vltrack.api.track, "_load", lambda *_, **__: vltrack.MultiTracker(seen))
    return seen


@pytest.fixture
def video(tmp_path: Path, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with VideoWriter(tmp_path / "red.mp4", width=128, height=96, rate=25) as writer:
        for row, image in enumerate(images):
            writer.write(image, row / 25)
    return Path("red.mp4")


def body(track: Track) -> list[str]:
    """The rows of its CSV."""
    return [line for line in track.to_csv().splitlines() if not line.startswith("#")][1:]


def changed(old: Track, new: Track) -> list[int]:
    return [row for row, (a, b) in enumerate(zip(body(old), body(new), strict=True)) if a != b]


def test_only_the_frames_next_to_a_changed_mark_are_tracked_again(spotter: Tracker, images: list[np.ndarray]) -> None:
    marks = [Mark(row, box=place(row)) for row in (0, 10, 20)]
    track = vltrack.track(images, keyframes=marks, doubt=True)
    assert list(track.marks) == marks
    moved = Mark(15, box=(52.5, 22, 15, 11))
    passes: list[tuple[int, int]] = []
    new = track.correct(15, box=moved.box, source=images, progress=lambda *done: passes.append(done))
    assert passes == [(count, 3 + 2 * 10) for count in range(1, 24)]  # three starts; ten frames forward and backward
    assert changed(track, new)[0] > 10
    assert changed(track, new)[-1] < 20
    assert 15 in changed(track, new)
    assert new.boxes[15].tolist() == [52.5, 22, 15, 11]
    assert list(new.marks) == [*marks[:2], moved, marks[2]]
    assert new.to_csv() != track.to_csv()
    assert vltrack.correct(new, images, marks).to_csv() == track.to_csv()  # undone, to the byte
    again = vltrack.correct(track, images, marks)
    assert again.to_csv() == track.to_csv()


def test_the_last_mark_moves_all_that_follows_and_not_here_ends_it(spotter: Tracker, images: list[np.ndarray]) -> None:
    track = vltrack.track(images, box=place(0))
    assert track.marks == (Mark(0, box=place(0)),)
    gone = track.correct(12, absent=True, source=images)
    assert gone.visible.tolist() == [True] * 12 + [False] * 18
    assert changed(track, gone) == list(range(12, 30))
    back = gone.correct(20, box=place(20), source=images)
    assert changed(gone, back) == list(range(20, 30))
    assert back.visible.sum() == 22


def test_a_saved_track_is_corrected_later_from_its_file(spotter: Tracker, video: Path) -> None:
    vltrack.track(video, box=place(0), stride=3, doubt=True).save("red.csv")
    track = Track.load("red.csv")
    assert track.indices.tolist() == list(range(0, COUNT, 3))
    assert track.doubt is not None
    new = vltrack.correct("red.csv", marks=[*track.marks, Mark(12, box=place(12))])
    new.save("new.json")
    assert Track.load("new.json").marks == (Mark(0, box=place(0)), Mark(12, box=place(12)))
    assert new.indices.tolist() == track.indices.tolist()
    assert vltrack.correct("new.json", video, track.marks).to_csv().count("\n") == track.to_csv().count("\n") + 1


def test_a_target_that_was_waited_for_is_corrected_from_where_it_came(
    spotter: Tracker, images: list[np.ndarray]
) -> None:
    track = vltrack.track(images, keyframes=[Mark(0, box=place(0))])
    waiting = Track(
        boxes=track.boxes, scores=track.scores, indices=track.indices, seconds=track.seconds,
        visible=np.arange(COUNT) >= 5, status=("waiting",) * 5 + track.status[5:],
        meta={**track.meta, "box": None, "sentence": "the red block", "marks": None},
    )  # fmt: skip
    assert waiting.marks == (Mark(0, text="the red block"),)
    new = waiting.correct(15, box=place(15), source=images)
    assert min(changed(waiting, new)) > 5


def test_marks_that_cannot_be_used_are_named(spotter: Tracker, images: list[np.ndarray], video: Path) -> None:
    track = vltrack.track(images, box=place(0))
    cases = [
        (BoxFrameOutOfRange, "30", [Mark(0, box=place(0)), Mark(30, box=place(9))]),
        (BoxOutside, "500", [Mark(0, box=(500, 0, 5, 5))]),
        (UsageError, "two marks", [Mark(0, box=place(0)), Mark(0, absent=True)]),
        (UsageError, "No mark", []),
        (UsageError, "No mark", [Mark(0, absent=True)]),
    ]
    for error, said, marks in cases:
        with pytest.raises(error, match=said):
            vltrack.correct(track, images, marks)
    with pytest.raises(TypeError, match="Mark"):
        vltrack.correct(track, images, [(0, 1, 2, 3)])
    with pytest.raises(PartialResult, match="20 of the 30"):
        track.correct(25, box=place(25), source=images[:20])
    small = [image[:64] for image in images]
    with pytest.raises(UsageError, match="128x64"):
        track.correct(25, box=place(25), source=small)
    with pytest.raises(UsageError, match="Both"):
        vltrack.track(images, box=place(0), keyframes=[Mark(0, box=place(0))])
    with pytest.raises(UsageError, match="frame 7"):
        vltrack.track(images, keyframes=[Mark(0, box=place(0)), Mark(7, box=place(7))], stride=2)
    with pytest.raises(BoxFrameOutOfRange, match="40"):
        vltrack.track(video, keyframes=[Mark(40, box=place(0))])


def test_what_was_done_is_kept_when_a_run_is_stopped(spotter: Tracker, video: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        assert total == 1 + 2 * 10 + 1 + 19
        if done == 30:
            raise KeyboardInterrupt

    marks = [Mark(0, box=place(0)), Mark(10, box=place(10))]
    with pytest.raises(KeyboardInterrupt) as stopped:
        vltrack.track(video, keyframes=marks, progress=stop, outputs="part.csv")
    assert len(stopped.value.result) == len(Track.load("part.csv")) == 18
    track = vltrack.track(video, keyframes=marks)
    with pytest.raises(KeyboardInterrupt):
        track.correct(20, absent=True, progress=lambda done, total: stop(done + 29, 41))


def test_backward_gives_the_frames_before_too(spotter: Tracker, images: list[np.ndarray]) -> None:
    track = vltrack.track(images, box=place(10), start=10, backward=True)
    assert track.indices.tolist() == list(range(COUNT))
    assert track.visible.all()
    assert track.marks == (Mark(10, box=place(10)),)
    new = track.correct(5, box=place(5), source=images)
    assert max(changed(track, new)) < 10
    assert new.visible[:5].all()


def test_doubt_is_a_last_column_and_is_written_only_where_asked(spotter: Tracker, video: Path) -> None:
    for name in ("plain", "more"):
        vltrack.track(video, box=place(0), outputs=f"{name}.csv", doubt=name == "more")
    plain, more = (Path(f"{name}.csv").read_text().splitlines() for name in ("plain", "more"))
    assert [line.rpartition(",")[0] if line[0] != "#" else line for line in more] == plain
    both = vltrack.track(video, targets={"a": vltrack.Target(box=place(0)), "b": vltrack.Target(box=place(0))},
                         outputs=["both.csv", "both.json"], doubt=True)  # fmt: skip
    for file in ("both.csv", "both.json"):
        found = vltrack.api.outputs.load_tracks(Path(file))
        assert all(np.allclose(found[name].doubt, both[name].doubt, atol=1e-4) for name in both)


def test_the_command_corrects_and_takes_back(command, spotter: Tracker, video: Path) -> None:
    box = ",".join(map(str, place(0)))
    command("track", video, "--box", box, "-o", "a.csv", "--doubt").ends(0)
    done = command("correct", "a.csv", "--at", "12", "--box", "40,20,16,12", "-o", "b.csv", "-o", "b.png", "--json")
    done.ends(0)
    assert done.json["marks"] == [{"frame": 0, "box": [*place(0)]}, {"frame": 12, "box": [40.0, 20.0, 16.0, 12.0]}]
    assert done.json["changed"] == len(changed(Track.load("a.csv"), Track.load("b.csv"))) > 0
    command("correct", "b.csv", video, "--at", "12", "--clear", "-o", "c.csv").ends(0, "1 mark")
    assert changed(Track.load("a.csv"), Track.load("c.csv")) == []
    command("correct", "b.csv", "--at", "0.8s", "--absent", "-o", "c.csv", "--overwrite").ends(0)
    assert Track.load("c.csv").marks[-1] == Mark(20, absent=True)
    command("correct", "b.csv", "--at", "12", "-o", "d.csv").ends(2, "--at FRAME")
    command("correct", "b.csv", "--at", "12", "--absent").ends(2, "-o")
    command("correct", "b.csv", "--at", "9", "--clear", "-o", "d.csv").ends(2, "0, 12")
    command("correct", "b.csv", "--at", "3", "--absent", "-o", "a.csv").ends(2, "exists")
    command("track", video, "--box", box, "--doubt").ends(2, "-o")


def test_the_command_takes_marks_from_files(command, spotter: Tracker, video: Path) -> None:
    Path("marks.csv").write_text("object,Frame,x,y,w,h\nred,3,26,20,16,12\nred,20,absent\nsame,6,32,20,16,12\n")
    command("track", video, "--keyframes", "marks.csv", "-o", "two.csv", "-o", "two.png").ends(0, "red in 17")
    found = vltrack.api.outputs.load_tracks(Path("two.csv"))
    assert [track.indices[0] for track in found.values()] == [3, 3]
    assert found["same"].status[:3] == ("waiting",) * 3
    Path("one.csv").write_text("3,26,20,16,12\n20,60,20,16,12\n")
    rows = command("track", video, "--keyframes", "one.csv", "--json").ends(0)
    assert [json.loads(line)["frame"] for line in rows.out.splitlines()] == list(range(3, COUNT))
    command("track", video, "--keyframes", "one.csv", "--box", "1,2,3,4").ends(2, "--keyframes")
    Path("late.csv").write_text(f"3,26,20,16,12\n{COUNT},absent\n")
    command("track", video, "--keyframes", "late.csv", "-o", "late.json").ends(3, f"has {COUNT} frames")
    assert not Path("late.json").exists()
    command("track", video, video, "--keyframes", "one.csv").ends(2, "one video")
    command("track", video, "--keyframes", "one.csv", "-o", "one.json").ends(0)
    assert read_keyframes(Path("one.json")) == read_keyframes(Path("one.csv"))
    command("correct", "one.json", "--keyframes", "one.json", "-o", "same.json").ends(0, "0 of 27 rows")


def test_names_and_sentences_of_marked_targets_are_kept(command, spotter: Tracker, video: Path) -> None:
    Path("marks.csv").write_text("car,3,26,20,16,12,the red one\ncar,20,absent\n")
    command("track", video, "--keyframes", "marks.csv", "-o", "car.csv", "-o", "car.json", "-o", "car.xml").ends(0)
    for name in ("car.csv", "car.json", "car.xml"):
        assert list(vltrack.read_tracks(name)) == ["car"]
    assert Track.load("car.csv").meta["sentence"] == "the red one"
    found, sentences = read_keyframes(Path("car.json"))
    assert (list(found), sentences) == (["car"], {"car": "the red one"})
    Path("two.csv").write_text("target,frame,x,y,w,h,text\na,3,26,20,16,12,the one\nb,3,26,20,16,12,the other\n")
    command("track", video, "--keyframes", "two.csv", "-o", "two.json").ends(0)
    both = vltrack.read_tracks("two.json")
    assert {name: track.meta["sentence"] for name, track in both.items()} == {"a": "the one", "b": "the other"}
    with pytest.raises(UsageError, match="needs keyframes"):
        vltrack.track(video, text={"a": "the one"})  # type: ignore[call-overload]


def test_what_is_wrong_with_a_correction_is_said_in_its_own_flags(
    command, spotter: Tracker, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = ",".join(map(str, place(0)))
    command("track", video, "--box", box, "-o", "a.csv").ends(0)
    command("correct", "a.csv", "--at", "0:00.8", "--absent", "-o", "b.csv").ends(0)
    assert Track.load("b.csv").marks[-1] == Mark(20, absent=True)
    command("correct", "a.csv", "--at", "0:61", "--absent", "-o", "c.csv").ends(2, "0:12.5, or the number of a frame")
    command("correct", "a.csv", "--at", "1:00", "--absent", "-o", "c.csv").ends(3, "ends before 60 s")
    command("correct", video, "a.csv", "--at", "3", "--absent", "-o", "c.csv").ends(2, "The track comes first")
    mark = ("correct", "a.csv", "--at", "12", "-o", "c.csv", "--overwrite", "--box")
    command(*mark, "300,20,9,9").ends(3, "--box-unit rel")
    command(*mark, "0.3125,0.25,0.125,0.125", "--box-unit", "rel").ends(0)
    assert Track.load("c.csv").marks[-1] == Mark(12, box=(40, 24, 16, 12))
    command(*mark, "40,24,56,36", "--box-format", "xyxy").ends(0)
    assert Track.load("c.csv").marks[-1] == Mark(12, box=(40, 24, 16, 12))

    def nothing(*_: object, **__: object) -> None:
        raise NothingFits("Nothing fits.", hint="Wait (--wait).")

    monkeypatch.setattr(vltrack, "correct", nothing)
    done = command("correct", "a.csv", "--at", "12", "--text", "the dog", "-o", "d.csv")
    done.ends(10, "or give --box")
    assert "--wait" not in done.err


def test_a_review_of_another_video_is_refused(command, spotter: Tracker, video: Path, images: list[np.ndarray]) -> None:
    command("track", video, "--box", ",".join(map(str, place(0))), "-o", "a.csv").ends(0)
    for name, part in (("small.mp4", [image[:64] for image in images]), ("short.mp4", images[:10])):
        with VideoWriter(Path(name), width=128, height=part[0].shape[0], rate=25) as writer:
            for row, image in enumerate(part):
                writer.write(image, row / 25)
    command("review", "a.csv", "small.mp4").ends(2, "128x64 pixels")
    command("review", "a.csv", "small.mp4", "-o", "look.png").ends(2, "128x64 pixels")
    command("review", "a.csv", "short.mp4").ends(2, "10 frames, and the track goes on to frame 29")
    command("review", "a.csv", "short.mp4", "-o", "look.png").ends(2, "of this track")
    command("review", video, "a.csv").ends(2, "vltrack review a.csv red.mp4")
    Path("gt.txt").write_text("1,1,10,10,20,20,1,1,1\n2,1,11,10,20,20,1,1,1\n")
    command("convert", "gt.txt", "-o", "gt.csv").ends(0, "--video")
    command("correct", "gt.csv", "--at", "1", "--absent", "-o", "b.csv").ends(2, "does not name its video")
    command("review", "gt.csv", "-o", "b.png").ends(2, "does not name its video")
    command("track", video, "--keyframes", video).ends(4, "red.mp4 is not a file of marks")
    assert not Path("look.png").exists()


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("car,5,1,2,3,4\n", [Mark(5, box=(1, 2, 3, 4))]),
        ("5,1,2,3,4\n", [Mark(5, box=(1, 2, 3, 4))]),
        ('\ufeffframe,box\n5,"1 2 3 4"\n', [Mark(5, box=(1, 2, 3, 4))]),
        (
            "frame,absent,left,top,width,height\n1,,1,2,3,4\n9,yes,,,,\n",
            [Mark(1, box=(1, 2, 3, 4)), Mark(9, absent=True)],
        ),
        ("5,1,2,3,4\n9,absent\n", [Mark(5, box=(1, 2, 3, 4)), Mark(9, absent=True)]),
        ("frame,x,y,w,h\n5,1,2,3,4\n9,absent\n", [Mark(5, box=(1, 2, 3, 4)), Mark(9, absent=True)]),
        ("# notes\ncar,5,the red one\n\ncar,6,absent\n", [Mark(5, text="the red one"), Mark(6, absent=True)]),
    ],
)
def test_files_of_marks_are_read_in_several_forms(tmp_path: Path, text: str, marks: list[Mark]) -> None:
    (tmp_path / "marks.csv").write_text(text)
    assert list(read_keyframes(tmp_path / "marks.csv")[0].values()) == [marks]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no marks"),
        ("car,5\n", "line 1: it has 2 cells"),
        ("car,five,1,2,3,4\n", "line 1: frame is 'five'"),
        ("car,5,1,2,3,4\n\ncar,5,absent\n", "line 3: frame 5 of 'car' is there twice"),
        ("frame,absent\n1,maybe\n", "line 2: absent is 'maybe'"),
        ("frame,x,y,w,h\n1,,,,\n", "line 2: The mark of frame 1"),
        ("car,5,1,2,3,4,a dog\ncar,6,1,2,3,4,a cat\n", "line 2: 'car' has two sentences"),
    ],
)
def test_a_file_that_holds_no_marks_is_named_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "marks.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_keyframes(tmp_path / "marks.csv")


def test_review_names_the_next_frame_and_draws_all(command, spotter: Tracker, video: Path) -> None:
    box = ",".join(map(str, place(0)))
    command("track", video, "--box", box, "-o", "a.csv", "--doubt").ends(0)
    found = vltrack.review("a.csv", count=4, output="look.png")
    assert found.next == found.frames[0]
    assert len(set(found.frames)) == 4
    assert 0 not in found.frames
    assert Path("look.png").stat().st_size > 1000
    done = command("review", "a.csv", "--count", "4", "--json").ends(0)
    assert done.json["frames"] == found.to_dict()["frames"]
    lines = command("review", "a.csv", "--count", "4").ends(0, f"look at frame {found.next} next")
    assert lines.out.splitlines()[1].startswith(f"{found.next},")
    command("review", "a.csv", "-o", "look.png").ends(2, "exists")
    command("review", "a.csv", "-o", "look.mp4").ends(2, ".png")
    command("track", video, "--box", box, "-o", "plain.csv").ends(0)
    command("review", "plain.csv").ends(0, "no doubts")
    with pytest.raises(UsageError, match="count"):
        vltrack.review("a.csv", count=0)

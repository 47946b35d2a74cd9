"""``vltrack convert``, ``read_tracks``, ``write_tracks``, ``Track.save``."""

from __future__ import annotations

import builtins
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_round_trips import make, seen

import vltrack
from vltrack.api.convert import starts_of
from vltrack.cli import main
from vltrack.core.errors import DataError, ResourceError, UsageError
from vltrack.core.json_io import parse_json
from vltrack.formats import FORMATS
from vltrack.formats.base import TOLERANCE


@pytest.fixture
def two() -> dict[str, vltrack.Track]:
    """The first target is there from frame 2 on, the second from frame 0; each leaves once."""
    boxes = np.arange(24.0).reshape(6, 4) + 5
    return {
        "car": make(boxes, np.array([1, 1, 0, 0, 1, 1], dtype=bool), np.arange(2, 8)),
        "dog": make(boxes, np.array([1, 0, 1, 1, 1, 0], dtype=bool)),
    }


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main.main([str(word) for word in words])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


def test_the_command_says_what_the_input_is(two: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vltrack.write_tracks(two, tmp_path / "a.csv")
    code, out, err = run(capsys, "convert", tmp_path / "a.csv", "-o", tmp_path / "a.xml")
    assert (code, out) == (0, "")
    assert "a.csv is csv: 2 targets, 8 boxes" in err and "as cvat" in err
    words = ("--to", "coco", "--target", "dog", "--label", "animal", "--json", "-q")
    code, out, err = run(capsys, "convert", tmp_path / "a.xml", "-o", tmp_path / "a.json", *words)
    assert (code, err) == (0, "")
    assert parse_json(out, "") == {
        "input": str(tmp_path / "a.xml"), "format": "cvat", "output": str(tmp_path / "a.json"), "to": "coco",
        "targets": ["dog"], "boxes": 4,
    }  # fmt: skip
    (found,) = vltrack.read_tracks(tmp_path / "a.json").values()
    assert found.meta["label"] == "dog"  # the name of the track; its category is the label
    assert '"name": "animal"' in (tmp_path / "a.json").read_text()
    assert seen(found) == seen(two["dog"])


def test_boxes_of_another_video_are_refused(two: Any, tmp_path: Path) -> None:
    clip = files("vltrack") / "clips" / "car-shadow.mp4"
    for name in ("a.csv", "a.xml"):
        vltrack.write_tracks(two, tmp_path / name)
        with pytest.raises(UsageError, match="854x480 pixels, the boxes are of one with 640x360"):
            vltrack.convert(tmp_path / name, tmp_path / "yolo", to="yolo", video=Path(str(clip)))
    assert not (tmp_path / "yolo").exists()


def test_label_studio_keeps_which_keyframes_a_person_set(two: Any, tmp_path: Path) -> None:
    marks = [{"frame": 3, "box": [9.0, 10.0, 11.0, 12.0]}]
    car = make(two["car"].boxes, two["car"].visible, two["car"].indices, marks=marks)
    vltrack.write_tracks(car, tmp_path / "a.json", format="label-studio")
    (found,) = vltrack.read_tracks(tmp_path / "a.json").values()
    assert found.meta["marks"] == marks


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("a.csv", "-o", "b.zip"), 2, "--to"),
        (("a.csv", "-o", "b.xml", "--to", "cvta"), 2, "cvat"),
        (("a.csv", "-o", "b.xml", "--to", "coco"), 2, ".json"),
        (("a.csv", "-o", "a.csv", "--overwrite"), 2, "input itself"),
        (("a.csv", "-o", "there.xml"), 2, "--overwrite"),
        (("a.csv", "-o", "full", "--to", "yolo"), 2, "--overwrite"),
        (("a.csv", "-o", "b.xml", "--target", "cat"), 2, "car, dog"),
        (("a.csv", "-o", "no/b.xml"), 6, "folder"),
        (("no.csv", "-o", "b.xml"), 4, "no such file"),
        (("a.csv", "-o", "b.xml", "--video", "no.mp4"), 3, "no.mp4"),
        (("a.csv", "-o", "b.xml", "--from", "cvat"), 4, "XML"),
        (("a.csv", "-o", "b.txt", "--to", "vot"), 2, "2"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    words: tuple[str, ...], code: int, said: str, two: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    vltrack.write_tracks(two, "a.csv")
    Path("there.xml").write_text("mine")
    Path("full").mkdir()
    Path("full", "mine.txt").write_text("mine")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    got, _, err = run(capsys, "convert", *words)
    assert got == code, err
    assert said in err and err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_folder_is_replaced_file_by_file(two: Any, tmp_path: Path) -> None:
    for name, track in two.items():
        vltrack.write_tracks(track, tmp_path / "out", format="lasot", overwrite=name == "dog")
        (tmp_path / "out" / "mine.txt").write_text("kept")
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"
    (found,) = vltrack.read_tracks(tmp_path / "out").values()
    assert seen(found) == seen(two["dog"])
    with pytest.raises(UsageError, match="not empty"):
        vltrack.write_tracks(two["car"], tmp_path / "out", format="lasot")


def test_a_folder_with_fewer_frames_leaves_no_old_ones(two: Any, tmp_path: Path) -> None:
    vltrack.write_tracks(two, tmp_path / "y", format="yolo")
    vltrack.write_tracks(two["dog"], tmp_path / "y", format="yolo", overwrite=True)
    assert len(list((tmp_path / "y" / "labels").iterdir())) == 6


def test_track_saves_and_functions_agree(two: Any, tmp_path: Path) -> None:
    two["car"].save(tmp_path / "a.xml")
    two["car"].save(tmp_path / "b.json", format="coco")
    vltrack.write_tracks(two["car"], tmp_path / "c.xml")
    assert (tmp_path / "a.xml").read_bytes() == (tmp_path / "c.xml").read_bytes()
    assert seen(vltrack.read_tracks(tmp_path / "b.json")["1"]) == seen(two["car"])
    with pytest.raises(UsageError, match="exists already"):
        two["car"].save(tmp_path / "a.xml")
    with pytest.raises(UsageError, match="No track"):
        vltrack.write_tracks({}, tmp_path / "d.xml")


def test_names_that_no_folder_can_have(two: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        vltrack.write_tracks({"../up": two["car"], "b": two["dog"]}, tmp_path / "out", format="vot")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_folder(two: Any, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vltrack.formats.layouts.write_text", full)
    with pytest.raises(ResourceError, match="disk is full"):
        vltrack.write_tracks(two["car"], tmp_path / "out", format="lasot")
    assert not list(tmp_path.iterdir())


def test_parquet_without_pandas_says_how_to_get_it(two: Any, tmp_path: Path, monkeypatch: Any) -> None:
    original = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr("vltrack.formats.table.import_module", missing)
    with pytest.raises(ImportError, match="pip install pandas"):
        vltrack.write_tracks(two, tmp_path / "a.parquet")


def test_start_boxes(two: Any, tmp_path: Path) -> None:
    starts = starts_of(two)
    assert {name: frame for name, (frame, _) in starts.items()} == {"car": 2, "dog": 0}
    assert starts["car"][1] == vltrack.Target(box=(5, 6, 7, 8), text="the red car")
    hidden = make(two["car"].boxes, np.zeros(6, dtype=bool))
    with pytest.raises(UsageError, match="visible in any frame"):
        starts_of({"car": hidden})


OPEN = ("davis_car-shadow", "otb_Jogging-1", "vot_bag", "tld_pedestrian3", "perm_dog")


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("to", ["cvat", "coco", "mot", "label-studio", "yolo", "got10k", "vot"])
def test_real_annotations_there_and_back(name: str, to: str, shared: Path, tmp_path: Path) -> None:
    source = shared / "real" / "open" / name
    video = next(path for path in (source / "img", *source.glob("video.*")) if path.exists())
    suffix = FORMATS[to].suffixes[0]
    there = vltrack.convert(source, tmp_path / f"there{suffix}", to=to, video=video)
    assert (there.format, there.to) == ("lasot", to)
    back = vltrack.convert(there.path, tmp_path / "back", to="lasot", video=video)
    assert back.format == to
    (wanted,), (found,) = vltrack.read_tracks(source).values(), vltrack.read_tracks(tmp_path / "back").values()
    assert len(found) == len(wanted) > 30
    np.testing.assert_array_equal(found.visible, wanted.visible)
    tolerance = TOLERANCE + 0.011 if to in ("cvat", "label-studio") else 0.011  # those are read from keyframes
    np.testing.assert_allclose(found.boxes[found.visible], wanted.boxes[wanted.visible], atol=tolerance)


def test_a_whole_set_of_sequences_is_not_one_video(shared: Path) -> None:
    with pytest.raises(DataError, match="sequences"):
        vltrack.read_tracks(shared / "real" / "open")

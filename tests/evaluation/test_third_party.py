"""Third-party results: every accepted form, and errors that name the line."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vltrack.core.errors import DataError
from vltrack.core.track import Track
from vltrack.core.types import Step
from vltrack.evaluation.summary import rename_results
from vltrack.evaluation.third_party import match_names, read_third_party

BOXES = np.array([[1.0, 2, 30, 40], [1.5, 2.25, 30, 40], [2, 3, 31.125, 40]])


def rows(separator: str = ",") -> str:
    return "\n".join(separator.join(f"{v:g}" for v in row) for row in BOXES) + "\n"


@pytest.mark.parametrize("separator", [",", "\t", " ", ", "])
def test_one_text_file_per_sequence(tmp_path: Path, separator: str) -> None:
    folder = tmp_path / "ATOM"
    folder.mkdir()
    (folder / "bike-1.txt").write_text(rows(separator))
    (folder / "bike-1_time.txt").write_text("0.5\n0.25\n0.25\n")
    (folder / "bike-1_confidence.txt").write_text("not numbers at all\n")
    found = read_third_party(folder)
    assert found.tracker == "ATOM"
    assert list(found.boxes) == ["bike-1"]
    assert np.array_equal(found.boxes["bike-1"], BOXES)
    assert found.seconds["bike-1"].tolist() == [0.5, 0.25, 0.25]


def test_got10k_folders_take_the_first_run(tmp_path: Path) -> None:
    name = "GOT-10k_Val_000001"
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{name}_001.txt").write_text(rows())
    (tmp_path / name / f"{name}_002.txt").write_text("9,9,9,9\n")
    (tmp_path / name / f"{name}_time.txt").write_text("0.5\n0.25\n0.25\n")
    found = read_third_party(tmp_path)
    assert np.array_equal(found.boxes[name], BOXES)
    assert found.notes == ("2 runs per sequence; the first one is scored.",)
    assert len(found.seconds[name]) == 3


def test_npz_zip_json_and_tracks(tmp_path: Path) -> None:
    twice = np.concatenate([BOXES, BOXES[:2]])
    np.savez(tmp_path / "a.npz", names=np.array(["x", "y"]), lens=np.array([3, 2]), boxes=twice)
    assert {name: len(b) for name, b in read_third_party(tmp_path / "a.npz").boxes.items()} == {"x": 3, "y": 2}
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("x.txt", rows())
    assert np.array_equal(read_third_party(tmp_path / "b.zip").boxes["x"], BOXES)
    folder = tmp_path / "struck"
    folder.mkdir()
    (folder / "x.json").write_text(json.dumps([{"seqName": "x", "res": BOXES.tolist()}]))
    assert np.array_equal(read_third_party(folder).boxes["x"], BOXES)


def test_an_empty_row_or_a_single_zero_means_absent(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1,2,3,4\n\n0\n1,2,3,4\n")
    boxes = read_third_party(tmp_path).boxes["x"]
    assert np.isnan(boxes).all(axis=1).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4\n1,2,3\n", r"x\.txt:2"),
        ("1,2,3,4\n\n1,2,x,4\n", r"x\.txt:3"),
        ("1,2,3,4\n1,2,1e999,4\n", r"x\.txt:2"),
        ("\n\n", r"No box in any row of .*x\.txt"),
    ],
)
def test_a_row_that_is_not_a_box_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_third_party(tmp_path)


def test_what_is_not_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No tracking results"):
        read_third_party(tmp_path)
    with pytest.raises(DataError, match="No tracking results"):
        read_third_party(tmp_path / "nowhere")
    (tmp_path / "trackers" / "ATOM").mkdir(parents=True)
    (tmp_path / "trackers" / "ATOM" / "x.txt").write_text(rows())
    with pytest.raises(DataError, match="several folders of results, such as ATOM"):
        read_third_party(tmp_path / "trackers")
    (tmp_path / "a.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="names, lens and boxes"):
        read_third_party(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", names=np.array([object()], dtype=object), lens=[1], boxes=[[1, 2, 3, 4]])
    with pytest.raises(DataError, match="names, lens and boxes"):
        read_third_party(tmp_path / "b.npz")
    (tmp_path / "c.zip").write_bytes(b"PK\x05\x06")
    with pytest.raises(DataError, match="as a zip"):
        read_third_party(tmp_path / "c.zip")
    with zipfile.ZipFile(tmp_path / "e.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.txt", rows() * 100)
    damaged = bytearray((tmp_path / "e.zip").read_bytes())
    damaged[40:52] = bytes(12)  # inside the packed rows
    (tmp_path / "e.zip").write_bytes(damaged)
    with pytest.raises(DataError, match="as a zip"):
        read_third_party(tmp_path / "e.zip")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("../x.txt", rows())
    with pytest.raises(DataError, match=r"\.\./x\.txt"):
        read_third_party(tmp_path / "d.zip")


def test_names_are_matched_however_they_are_spelled() -> None:
    names = ["Human4-2", "Jogging-1", "Basketball", "bike1", "car-2", "car-22"]
    results = ["Human4", "jogging_1", "BasketBall", "uav_bike1", "car-22", "car2"]
    assert match_names(names, results) == {
        "Human4-2": "Human4",
        "Jogging-1": "jogging_1",
        "Basketball": "BasketBall",
        "bike1": "uav_bike1",
        "car-2": "car2",
        "car-22": "car-22",
    }
    assert match_names(["a"], ["b"]) == {}
    assert match_names(["car-1", "dog_2"], ["car-1_ATOM_x", "dog_2_ATOM_x"]) == {
        "car-1": "car-1_ATOM_x",
        "dog_2": "dog_2_ATOM_x",
    }
    assert match_names(["car_ATOM", "b"], ["car_ATOM", "dog_ATOM"]) == {"car_ATOM": "car_ATOM"}
    with pytest.raises(DataError, match="both match the sequence car-2"):
        match_names(["car-2"], ["car2", "car_2"])


# -- what people have -------------------------------------------------------------------------------------------


def zipped(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            info = zipfile.ZipInfo("placeholder")
            info.filename = name  # as written: ZipInfo itself would change separators on Windows
            archive.writestr(info, text)
    return path


@pytest.mark.fault("E18")
def test_side_files_and_logs_are_passed_over_by_name(tmp_path: Path) -> None:
    (tmp_path / "car-1.txt").write_text(rows())
    sides = ("all_boxes", "all_scores", "object_presence_scores", "prob", "confidence", "scores")
    for side in sides:
        (tmp_path / f"car-1_{side}.txt").write_text("1,2,3,4,5,6,7,8\n")
    (tmp_path / "car-1_time.txt").write_text("0.5\n0.5\n0.5\n")
    (tmp_path / "._car-1.txt").write_bytes(b"\0\5\x16\7Mac OS X")
    (tmp_path / "log.txt").write_text("epoch 12, loss 0.3\n")
    (tmp_path / "AUC.TXT").write_text("63.1\n")
    (tmp_path / "README.txt").write_text("made by me\n")
    (tmp_path / "LOGS").mkdir()
    (tmp_path / "LOGS" / "a.txt").write_text("more\n")
    found = read_third_party(tmp_path)
    assert list(found.boxes) == ["car-1"]
    assert found.seconds["car-1"].tolist() == [0.5] * 3
    others = {"log.txt", "AUC.TXT", "README.txt", "LOGS/a.txt"}
    assert set(found.passed_over) == {f"car-1_{side}.txt" for side in sides} | others
    (note,) = rename_results(["car-1"], found).notes
    assert "AUC.TXT" in note
    with pytest.raises(DataError, match=r"log\.txt:1"):  # of a sequence, a file has to be a result
        rename_results(["car-1", "log"], found)


@pytest.mark.fault("E18")
@pytest.mark.parametrize("name", ["ATOM/x.txt", "ATOM\\x.txt", "x.TXT", "x.csv", "a/b\\x.CSV"])
def test_zips_of_macos_and_windows(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "r.zip", **{name: rows(), "__MACOSX/ATOM/._x.txt": "\0", "ATOM/._x.txt": "\0"})
    assert np.array_equal(read_third_party(path).boxes["x"], BOXES)
    for outside in ("..\\x.txt", "C:\\x.txt", "/x.txt"):
        with pytest.raises(DataError, match="outside"):
            read_third_party(zipped(tmp_path / "bad.zip", **{outside: rows()}))


@pytest.mark.fault("E18")
@pytest.mark.parametrize(
    "text",
    [
        rows(),
        "x,y,w,h\n" + rows(),
        "Left;Top;Width;Height\n" + rows(";").replace(".", ","),
        "xmin,ymin,xmax,ymax,label\n" + "".join(f"{x},{y},{x + w},{y + h},car\n" for x, y, w, h in BOXES.tolist()),
        "frame,x,y,w,h\n" + "".join(f"{k}," + line + "\n" for k, line in enumerate(rows().splitlines(), 1)),
        ",x,y,w,h\n" + "".join(f"{k}," + line + "\n" for k, line in enumerate(rows().splitlines())),
    ],
)
def test_tables_with_and_without_a_header(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv").write_bytes(text.encode("utf-16"))
    boxes = read_third_party(tmp_path).boxes
    assert np.array_equal(boxes["a"], BOXES)
    assert np.array_equal(boxes["b"], BOXES)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("target,frame,x,y,w,h\na,0,1,2,3,4\n", "several targets"),
        ("frame,x,y,w,h\n5,1,2,3,4\n", "begin at 5"),
        ("frame,x,y,w,h\n0,1,2,3,4\n99999999,1,2,3,4\n", "99,999,999"),
        ("frame,x,y,w,h\n1,1,2,3,4\n1,1,2,3,4\n", "rises"),
        ("a,b,c,d\n1,2,3,4\n", "a,b,c,d"),
    ],
)
def test_tables_that_say_something_else_are_refused(tmp_path: Path, text: str, value: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=value):
        read_third_party(tmp_path)


@pytest.mark.fault("E19")
def test_a_track_is_read_by_its_frame_numbers(tmp_path: Path) -> None:
    steps = [
        Step(box=box, score=0.5, visible=True, index=index, seconds=index / 25)
        for index, box in zip((2, 4, 5), BOXES, strict=True)
    ]
    for kind in ("csv", "json"):
        (tmp_path / kind).mkdir()
        Track.from_steps(steps, {"source": "a, b.mp4"}).save(tmp_path / kind / f"x.{kind}")
        boxes = read_third_party(tmp_path / kind).boxes["x"]
        assert len(boxes) == 6
        assert boxes[[2, 4, 5]] == pytest.approx(BOXES, abs=0.005)
        assert np.isposinf(boxes[[0, 1, 3]]).all()


@pytest.mark.fault("E18")
def test_the_prefix_of_the_data_set_wins() -> None:
    there = ["car1_1", "car11", "Car1", "otb_Car1", "uav_car1_1", "uav_car11", "nfs_car1", "airplane-1", "lasot_bus-2"]
    assert match_names(["car1_1", "car11"], there, "uav123") == {"car1_1": "uav_car1_1", "car11": "uav_car11"}
    assert match_names(["Car1"], there, "otb100") == {"Car1": "otb_Car1"}
    assert match_names(["Car1"], ["uav_car1", "nfs_car1"], "otb100") == {}
    assert match_names(["car1"], ["uav_car1"], "folder") == {"car1": "uav_car1"}
    assert match_names(["airplane-1", "bus-2"], there, "lasot") == {"airplane-1": "airplane-1", "bus-2": "lasot_bus-2"}
    assert match_names(["bee"], ["nfs_bee", "bee"], "nfs") == {"bee": "nfs_bee"}


@pytest.mark.fault("E18")
def test_the_trackers_name_in_front() -> None:
    there = ["ATOM_50_car-1", "ATOM_50_dog_2"]
    assert match_names(["car-1", "dog_2"], there) == {"car-1": "ATOM_50_car-1", "dog_2": "ATOM_50_dog_2"}

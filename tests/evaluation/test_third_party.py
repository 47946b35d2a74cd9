"""Third-party results: every accepted form, and errors that name the line."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vltrack.core.errors import DataError
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

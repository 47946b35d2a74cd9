"""Detecting and reading video data sets: levels, odd starts, shared folders, other names, sentences."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vltrack.core.errors import DataError
from vltrack.datasets.check import check_dataset
from vltrack.datasets.layouts import LAYOUTS, OTB100, UAV123, UAV123_10FPS
from vltrack.datasets.miniatures import draw_miniature, sheet_bytes, write_video_miniature
from vltrack.datasets.published import published
from vltrack.datasets.reader import open_dataset, read_ground_truth
from vltrack.datasets.sequences import ImageList, Sequence
from vltrack.datasets.synthetic import write_image

ROOT = Path(__file__).resolve().parents[2]
BOX = "10,20,30,40"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def images(folder: Path, numbers: range, name: str = "{:04d}.jpg") -> None:
    """Make empty files with names of images; they are not decoded here."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / name.format(number)).touch()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    for name in ("lasot", "tnl2k", "got10k", "webuav3m", "mgit", "trackingnet"):
        write_video_miniature(name, root / "data" / name)
    return root


def refused(path: Path, *values: object, **choice: str) -> DataError:
    """Return the error of strict reading, whose text has all ``values``."""
    with pytest.raises(DataError) as caught:
        open_dataset(path, **choice)
    assert caught.value.exit_code == 4
    for value in values:
        assert str(value) in str(caught.value)
    return caught.value


# -- levels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inside", "split"),
    [("tnl2k/test", "test"), ("got10k/val", "val"), ("webuav3m/Test", "test"), ("trackingnet/TEST", "test")],
)
def test_the_folder_of_a_split_is_that_split(small: Path, inside: str, split: str) -> None:
    path = small / "data" / inside
    dataset = open_dataset(path)
    assert (dataset.name, dataset.split) == (inside.split("/")[0], split)
    assert dataset.root == small / "data" / dataset.name
    refused(path, path, dataset.root, split="train")


def test_another_level_says_where_the_data_set_begins(small: Path) -> None:
    data = small / "data"
    refused(data, f"LaSOT in {data / 'lasot'}", f"TNL2K in {data / 'tnl2k'}")
    refused(small, f"LaSOT in {data / 'lasot'}")
    refused(data / "tnl2k" / "test" / "Cat_BBC_video_01-Done", f"begins at {data / 'tnl2k'}")


def test_a_split_that_is_unknown_or_missing(small: Path, tmp_path: Path) -> None:
    refused(small / "data" / "lasot", "'tets'", "Did you mean test?", "test, train, all", split="tets")
    shutil.copytree(small / "data" / "lasot", tmp_path / "lasot")
    (tmp_path / "lasot" / "testing_set.txt").unlink()
    assert open_dataset(tmp_path / "lasot").split == "train"
    refused(tmp_path / "lasot", "split test", "testing_set.txt", split="test")
    (tmp_path / "lasot" / "training_set.txt").unlink()
    everything = open_dataset(tmp_path / "lasot")
    assert (everything.split, len(everything.sequences)) == ("all", 4)


def test_a_name_overrides_detection(small: Path) -> None:
    data = small / "data"
    clip = data / "lasot" / "airplane" / "airplane-1"
    assert open_dataset(clip, name="folder").sequences[0].name == "airplane-1"
    refused(data / "got10k" / "val" / "GOT-10k_Val_000001", "TNL2K", "<seq>/groundtruth.txt", name="tnl2k")
    refused(clip, "'lasott'", "Did you mean lasot", name="lasott")
    refused(data / "tnl2k", "TNL2K, not LaSOT", "give tnl2k", name="lasot")
    assert open_dataset(clip.parent, name="folder").name == "folder"


# -- odd starts, shared folders, other names -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["BlurCar3", "Football1"])
def test_only_the_images_that_count(tmp_path: Path, name: str) -> None:
    span = OTB100.spans[name]
    images(tmp_path / name / "img", range(1, span.last + 9))
    rows = span.last - span.first + 1
    write(tmp_path / name / "groundtruth_rect.txt", f"{BOX}\n" * rows)
    (sequence,) = open_dataset(tmp_path).sequences
    assert (len(sequence), len(sequence.boxes)) == (rows, rows)
    assert sequence.files[0].stem == f"{span.first:04d}"
    assert sequence.files[-1].stem == f"{span.last:04d}"


@pytest.mark.parametrize("rows", [349, 354])
def test_tiger1_begins_at_image_6_however_many_rows_it_has(tmp_path: Path, rows: int) -> None:
    images(tmp_path / "Tiger1" / "img", range(1, 355))
    write(tmp_path / "Tiger1" / "groundtruth_rect.txt", "".join(f"{t},2,3,4\n" for t in range(rows)))
    (sequence,) = open_dataset(tmp_path).sequences
    assert len(sequence) == len(sequence.boxes) == 349
    assert sequence.files[0].name == "0006.jpg"
    assert sequence.boxes[0, 0] == rows - 349
    write(tmp_path / "Tiger1" / "groundtruth_rect.txt", f"{BOX}\n" * 350)
    refused(tmp_path, "350 rows for the 349 images")


def test_uav123_parts_share_a_folder_by_the_built_in_table(tmp_path: Path) -> None:
    images(tmp_path / "data_seq" / "UAV123" / "bird1", range(1, 300), "{:06d}.jpg")
    images(tmp_path / "data_seq" / "UAV123" / "person8", range(1070, 1530), "{:06d}.jpg")
    for name in ("bird1_1", "person8_2"):
        rows = UAV123.spans[name].last - UAV123.spans[name].first + 1
        write(tmp_path / "anno" / "UAV123" / f"{name}.txt", f"{BOX}\n" * (rows - 1) + "NaN,NaN,NaN,NaN\n")
    one, two = open_dataset(tmp_path).sequences
    assert (one.files[0].name, one.files[-1].name) == ("000001.jpg", "000253.jpg")
    assert (two.files[0].name, two.files[-1].name) == ("001075.jpg", "001525.jpg")
    assert two.absent.nonzero()[0].tolist() == [450]
    assert UAV123_10FPS.spans["bird1_2"].first == 259  # every third image: (775 - 1) / 3 + 1


def test_one_video_with_several_targets_is_several_sequences(tmp_path: Path) -> None:
    for name in ("Jogging", "Human4"):
        images(tmp_path / name / "img", range(1, 4))
        for number in (1, 2):
            write(tmp_path / name / f"groundtruth_rect.{number}.txt", f"{number},2,3,4\n" * 3)
    found = {sequence.name: sequence for sequence in open_dataset(tmp_path).sequences}
    assert list(found) == ["Human4-2", "Jogging-1", "Jogging-2"]
    assert found["Jogging-2"].boxes[0, 0] == 2
    assert found["Jogging-1"].files == found["Jogging-2"].files


@pytest.mark.parametrize(
    ("data", "name", "rows", "flags"), [("lasot", "monkey-17", 2300, 2260), ("lasot_ext", "paddle-1", 30, 25)]
)
def test_toolkits_of_lasot_and_its_extension_cut_one_sequence(
    tmp_path: Path, data: str, name: str, rows: int, flags: int
) -> None:
    write(tmp_path / "annos" / f"{name}.txt", f"{BOX}\n" * rows)
    write(tmp_path / "absent" / f"{name}.txt", "0\n" * flags)
    write(tmp_path / "testing_set.txt", name)
    dataset = open_dataset(tmp_path)
    (sequence,) = dataset.sequences
    assert dataset.name == data
    assert len(sequence) == len(sequence.boxes) == len(sequence.absent) == flags


def test_webuav_in_doubled_folders_with_sentences_elsewhere(tmp_path: Path, small: Path) -> None:
    for split in ("Train", "Test"):
        shutil.copytree(small / "data" / "webuav3m" / split, tmp_path / split.lower() / split)
        for sentence in (tmp_path / split.lower() / split).glob("*/language.txt"):
            target = tmp_path / "language" / "Language" / split / sentence.parent.name / "language.txt"
            target.parent.mkdir(parents=True)
            sentence.rename(target)
    for split in ("test", "train"):
        wanted = {
            one.clip.name: one.annotation.sentence for one in draw_miniature("webuav3m") if one.clip.split == split
        }
        read = open_dataset(tmp_path, split=split).sequences
        assert {sequence.name: sequence.sentence for sequence in read} == wanted


def test_vasttrack_with_other_file_names_and_without_class_folders(tmp_path: Path) -> None:
    for name, truth, folder in (("Air Hockey-1", "groundtruth.txt", "img"), ("Owl-2", "Groundtruth.txt", "imgs")):
        home = tmp_path / "test" / name
        images(home / folder, range(1, 4), "{:08d}.jpg")
        write(home / truth, f"{BOX}\n0,0,0,0\n{BOX}\n")
        write(home / "nlp.txt", "something")
    found = open_dataset(tmp_path, name="vasttrack").sequences
    assert [sequence.name for sequence in found] == ["Air Hockey-1", "Owl-2"]
    assert found[0].absent.tolist() == [False, True, False]


def test_parts_of_got10k_by_positions_in_the_list(tmp_path: Path, small: Path) -> None:
    shutil.copytree(small / "data" / "got10k", tmp_path / "got10k")
    lists = tmp_path / "got10k" / "data_specs"
    write(lists / "got10k_vot_train_split.txt", "0\n")
    assert [s.name for s in open_dataset(tmp_path / "got10k", split="vot_train").sequences] == ["GOT-10k_Train_000001"]
    write(lists / "got10k_vot_train_split.txt", "0\n7\n")
    refused(tmp_path / "got10k", "split.txt:2: '7'", split="vot_train")


def test_got10k_says_cover_and_size(small: Path) -> None:
    sequence = open_dataset(small / "data" / "got10k", split="val").sequences[0]
    assert sequence.size == (160, 120)
    assert np.array_equal(sequence.cover == 0, sequence.absent)
    assert sequence.sentence.startswith("thing figure ")


# -- annotations without images ------------------------------------------------------------------------------


def pysot(tmp_path: Path, name: str = "LaSOT.json", **changed: object) -> Path:
    video = {
        "video_dir": "a-1",
        "init_rect": [1, 2, 3, 4],
        "img_names": ["a-1/img/1.jpg", "a-1/img/2.jpg"],
        "gt_rect": [[1, 2, 3, 4], [0, 0, 0, 0]],
        "attr": ["Full Occlusion", "Scale Variation", "Deformation"],
        "absent": [1, 0],
    }
    return write(tmp_path / name, json.dumps({"a-1": video | changed}))


def test_pysot_json_by_file_or_folder(tmp_path: Path) -> None:
    path = pysot(tmp_path)
    for where in (path, tmp_path):
        dataset = open_dataset(where)
        (sequence,) = dataset.sequences
        assert (dataset.name, sequence.name) == ("lasot", "a-1")
        assert sequence.absent.tolist() == [False, True]  # 1 is visible there
        assert sequence.attributes == ("FOC", "SV", "DEF")
        assert sequence.files == ()
        with pytest.raises(DataError, match="no images"):
            next(sequence.frames())
    images(tmp_path / "a-1" / "img", range(1, 3), "{}.jpg")
    assert [file.name for file in open_dataset(path).sequences[0].files] == ["1.jpg", "2.jpg"]
    path = pysot(tmp_path, "UAV123.json", gt_rect=[[1, 2, 3, 4], [float("nan")] * 4], absent=None)
    assert open_dataset(path).sequences[0].absent.tolist() == [False, True]


def test_an_archive_of_boxes_as_the_devkit_ships_it(tmp_path: Path) -> None:
    path = tmp_path / "GT.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a3In51YCqMg_0.txt", " 1.00,102.00,245.00,174.00\r\n 0.43,102.17,245.73,176.10\r\n")
    dataset = open_dataset(path)
    assert dataset.name == "trackingnet"
    assert dataset.sequences[0].boxes.tolist() == [[1, 102, 245, 174], [0.43, 102.17, 245.73, 176.1]]
    assert not dataset.sequences[0].annotations_withheld
    refused(tmp_path, f"such as {path}")
    shutil.copy(path, tmp_path / "results.zip")
    (tmp_path / "frames.zip").write_bytes(b"not an archive")
    refused(tmp_path, "GT.zip, results.zip.", f"such as {path}")
    refused(tmp_path, "GT.zip", "Unpack them first", name="lasot")


def test_the_toolkits_annotation_says_that_train_is_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "annos" / "zebra-1.txt", f"{BOX}\n")
    write(tmp_path / "absent" / "zebra-1.txt", "0\n")
    refused(tmp_path, "'train' of LaSOT", "toolkit", "fetch-help lasot", split="train")


def test_ground_truth_next_to_an_absent_txt(tmp_path: Path) -> None:
    path = write(tmp_path / "groundtruth.txt", f"{BOX}\n{BOX}\n0,0,0,0\n")
    write(tmp_path / "absent.txt", "0\n1\n0\n")
    boxes, absent = read_ground_truth(path)
    assert absent.tolist() == [False, True, True]
    assert boxes.shape == (3, 4)


def test_paths_of_images_are_made_when_asked_for(tmp_path: Path) -> None:
    found = ImageList(tmp_path, ("1.jpg", "2.jpg", "3.jpg"))
    assert (len(found), found[-1], list(found[1:])) == (3, tmp_path / "3.jpg", list(found)[1:])
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301
    assert found != found[:2]


def test_frames_of_withheld_annotations_are_counted_by_images() -> None:
    files = (Path("1.jpg"), Path("2.jpg"))
    held = Sequence(name="a", source=Path(), files=files, boxes=np.ones((1, 4)), absent=np.zeros(1, bool))
    assert (len(held), held.annotations_withheld) == (2, True)


# -- sentences -----------------------------------------------------------------------------------------------


@pytest.fixture
def mgit(tmp_path: Path) -> Path:
    return write_video_miniature("mgit", tmp_path / "mgit")


def test_the_sentence_is_in_the_last_row_of_a_table(mgit: Path) -> None:
    path = mgit / "mgit_nlp" / "003.xlsx"
    rows = [["head"] * 16, ["x"] * 14 + ["the first part", "y"], ["x"] * 14 + ["a < b & the \u732b, all of it", "y"]]
    path.write_bytes(sheet_bytes(rows))
    assert open_dataset(mgit, split="val").sequences[0].sentence == "a < b & the \u732b, all of it"
    path.write_bytes(sheet_bytes([["too", "narrow"]]))
    dataset = open_dataset(mgit, split="val")
    assert dataset.sequences[0].sentence == ""
    assert [issue.where for issue in dataset.warnings] == [str(path)]


def test_openpyxl_is_not_installed(mgit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    refused(mgit, "003.xlsx", "vltrack[mgit]", split="val")


def test_a_damaged_table(mgit: Path) -> None:
    path = mgit / "mgit_nlp" / "003.xlsx"
    path.write_bytes(b"not a table")
    refused(mgit, "003.xlsx", split="val")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", "<x/>")
    refused(mgit, "003.xlsx", split="val")
    path.write_bytes(sheet_bytes([["x"]]).replace(b"</", b"<!"))
    refused(mgit, "003.xlsx", split="val")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(40 << 20))
    refused(mgit, "003.xlsx", "41,943,040", split="val")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("the cat, the red one, not the dog\nsecond line\n", "the cat, the red one, not the dog"),
        ("  spaces around \r\n", "spaces around"),
        ("\ufeffwith a mark", "with a mark"),
        ("\nthe first line is empty", ""),
    ],
)
def test_a_sentence_is_the_first_line(tmp_path: Path, written: str, read: str) -> None:
    root = write_video_miniature("tnl2k", tmp_path / "tnl2k")
    (root / "test" / "Cat_BBC_video_01-Done" / "language.txt").write_bytes(written.encode())
    found = {sequence.name: sequence.sentence for sequence in open_dataset(root, split="test").sequences}
    assert found["Cat_BBC_video_01-Done"] == read


# -- documentation and shared material -----------------------------------------------------------------------


def test_the_row_in_the_documentation_is_the_row_in_the_code() -> None:
    page = (ROOT / "docs" / "add-a-dataset.md").read_text()
    shown = re.search(r"```python\n(TNL2K = .*?)    download=Download\(...\)", page, re.DOTALL)
    assert shown is not None
    assert shown[1] in (ROOT / "src" / "vltrack" / "datasets" / "layouts.py").read_text()


@pytest.mark.parametrize(
    ("folder", "name", "sequences", "frames", "absent"),
    [
        ("lasot", "lasot", 280, 685_360, 18_346),
        ("tnl2k", "tnl2k", 700, 516_038, 65_253),
        ("uav123", "uav123", 123, 112_578, 2_683),
        ("otb100", "otb100", 100, 59_035, 2),
        ("trackingnet/dummy_GT.zip", "trackingnet", 9, 4_500, 0),
    ],
)
def test_the_toolkits_annotation_is_complete(
    shared: Path, folder: str, name: str, sequences: int, frames: int, absent: int
) -> None:
    dataset = open_dataset(shared / "results" / folder)
    assert (dataset.name, dataset.split, len(dataset.sequences)) == (name, "test", sequences)
    assert sum(len(sequence) for sequence in dataset.sequences) == frames
    assert sum(int(sequence.absent.sum()) for sequence in dataset.sequences) == absent
    assert all(sequence.files == () for sequence in dataset.sequences)
    assert any(sequence.attributes for sequence in dataset.sequences) == (name != "trackingnet")


# -- clips of one's own, as people have them ---------------------------------------------------------------------

CORNERS = np.array([[10, 20, 30, 40], [12, 21, 31, 40], [15, 24, 31, 42.5]])


def written(boxes: np.ndarray, separator: str = ",") -> str:
    return "".join(separator.join(f"{value:g}" for value in row) + "\n" for row in boxes)


def clip(root: Path, text: str | bytes, file: str = "groundtruth.txt", folder: str = "img") -> Path:
    images(root / "clip" / folder, range(1, 4))
    (root / "clip" / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


@pytest.mark.fault("D19")
@pytest.mark.parametrize("file", ["GroundTruth.txt", "groundtruth_rect.txt", "gt.txt", "GT.TXT", "groundtruth.csv"])
@pytest.mark.parametrize("folder", ["img", "Img", "IMG", "frames", "Images", "color", ""])
def test_any_usual_name_of_boxes_and_images(tmp_path: Path, file: str, folder: str) -> None:
    root = clip(tmp_path, written(CORNERS), file, folder)
    for where in (root, root / "clip"):
        dataset = open_dataset(where)
        (sequence,) = dataset.sequences
        assert (dataset.name, sequence.name, len(sequence.files)) == ("folder", "clip", 3)
        assert np.array_equal(sequence.boxes, CORNERS)


@pytest.mark.fault("E17")
@pytest.mark.parametrize("file", ["GroundTruth.txt", "Groundtruth.txt", "groundtruth_rect.txt", "groundtruth.txt"])
def test_clips_with_the_files_of_a_benchmark_are_ones_own(tmp_path: Path, file: str) -> None:
    for name in ("clip-1", "clip_2"):
        images(tmp_path / name / "imgs", range(1, 4))
        for other, text in ((file, written(CORNERS)), ("absent.txt", "0\n0\n1\n"), ("language.txt", "the dog\n")):
            write(tmp_path / name / other, text)
        write(tmp_path / name / "nlp.txt", "the dog\n")
    dataset = open_dataset(tmp_path)
    assert (dataset.name, len(dataset.sequences)) == ("folder", 2)
    assert dataset.sequences[0].sentence == "the dog"


@pytest.mark.fault("D19")
@pytest.mark.parametrize("video", ["video.mp4", "My Film.MP4", "clip.mkv"])
def test_a_video_of_any_name(tmp_path: Path, video: str) -> None:
    root = tmp_path / "root"
    write(root / "clip" / "gt.txt", written(CORNERS))
    path = write(root / "clip" / video, "")
    write(root / "clip" / f"._{video}", "")
    (sequence,) = open_dataset(root).sequences
    assert (sequence.source, sequence.files) == (path, None)
    write(root / "clip" / "other.avi", "")
    refused(root, "Keep one video")


@pytest.mark.fault("D19")
@pytest.mark.parametrize(
    "text",
    [
        written(CORNERS + 0.5, ";").replace(".", ","),
        written(CORNERS + 0.5, "; "),
        written(CORNERS + 0.5, "\t").replace(".", ","),
        written(CORNERS + 0.5).encode("utf-16"),
        "x,y,w,h\n" + written(CORNERS + 0.5),
        "frame,x,y,w,h\n" + written(np.c_[[0, 1, 2], CORNERS + 0.5]),
        written(np.c_[[1, 2, 3], CORNERS + 0.5, [0, 0, 0]], "\t"),
    ],
)
def test_boxes_in_any_usual_form(tmp_path: Path, text: str | bytes) -> None:
    (sequence,) = open_dataset(clip(tmp_path, text)).sequences
    assert np.array_equal(sequence.boxes, CORNERS + 0.5)
    assert not sequence.absent.any()


@pytest.mark.fault("D19")
@pytest.mark.parametrize(
    "text",
    [
        written(np.c_[[1, 2, 3], CORNERS, [0, 1, 0]]),
        written(np.c_[CORNERS, [0, 1, 0]]),
        "frame,x,y,w,h,lost\n" + written(np.c_[[1, 2, 3], CORNERS, [0, 1, 0]]),
        "Absent;x;y;w;h\n" + written(np.c_[[0, 1, 0], CORNERS], ";"),
        "x1 y1 x2 y2 visible\n" + written(np.c_[CORNERS[:, :2], CORNERS[:, :2] + CORNERS[:, 2:], [1, 0, 1]], " "),
        "x,y,w,h,full_occlusion,out of view\n" + written(np.c_[CORNERS, [0, 0, 0], [0, 1, 0]]),
        "x,y,w,h,present\n" + "".join(f"{row},{k != 1}\n" for k, row in enumerate(written(CORNERS).split())),
    ],
)
def test_a_column_that_says_lost(tmp_path: Path, text: str) -> None:
    dataset = open_dataset(clip(tmp_path, text))
    assert dataset.sequences[0].absent.tolist() == [False, True, False]
    assert np.array_equal(dataset.sequences[0].boxes[[0, 2]], CORNERS[[0, 2]])
    assert dataset.warnings == ()


@pytest.mark.fault("D19")
def test_other_columns_are_named_and_odd_flags_refused(tmp_path: Path) -> None:
    (warning,) = open_dataset(clip(tmp_path, "x,y,w,h,Score\n" + written(np.c_[CORNERS, [0.5, 0, 1]]))).warnings
    assert (warning.kind, "score" in warning.message) == ("columns", True)
    refused(clip(tmp_path, "x,y,w,h,lost\n" + written(np.c_[CORNERS, [0, 2, 1]])), "groundtruth.txt:3", "'lost'")


@pytest.mark.fault("E12")
def test_a_clip_of_which_no_frame_counts_is_named(tmp_path: Path) -> None:
    (warning,) = open_dataset(clip(tmp_path, written(CORNERS * [1, 1, 1, 0]))).warnings
    assert (warning.kind, warning.where.endswith("clip/groundtruth.txt")) == ("absent", True)


@pytest.mark.fault("D19")
def test_polygons_are_read_with_a_warning_and_unclear_commas_refused(tmp_path: Path) -> None:
    x, y, w, h = CORNERS.T
    polygon = np.stack([x, y, x + w, y, x + w, y + h, x, y + h], axis=1)
    dataset = open_dataset(clip(tmp_path, written(polygon)))
    assert np.array_equal(dataset.sequences[0].boxes, CORNERS)
    assert [issue.kind for issue in dataset.warnings] == ["box"]
    for text in ("1,5 2,5 3,5 4,5\n", "74,50, 86,50, 56,50, 48,50\n"):
        refused(clip(tmp_path, text * 3), "groundtruth.txt:1", "decimal commas")
    refused(clip(tmp_path, "left,right,a,b\n" + written(CORNERS)), "groundtruth.txt:1", "left,right,a,b")


@pytest.mark.fault("D19")
def test_shares_and_corners_are_warned_of(tmp_path: Path) -> None:
    move = np.linspace(0, 30, 12)[:, None] * [1, 0.5, 0, 0] + [40, 30, 20, 24]
    corners = move.copy()
    corners[:, 2:] += corners[:, :2]
    for boxes, said in ((move, None), (move / 100, "shares"), (corners, "corners")):
        images(tmp_path / "clip" / "img", range(1, 13))
        write(tmp_path / "clip" / "groundtruth.txt", written(boxes))
        for warnings in (open_dataset(tmp_path).warnings, check_dataset(tmp_path).issues.warnings):
            assert [issue.kind for issue in warnings] == (["units"] if said else [])
            assert all(said in issue.message for issue in warnings)
    # A target that stands still: only the size of the frame tells corners from sizes.
    standing = np.tile([60.0, 50, 90, 80], (12, 1))
    write(tmp_path / "clip" / "groundtruth.txt", written(standing))
    assert open_dataset(tmp_path).warnings == ()
    for number in range(1, 13):
        write_image(tmp_path / "clip" / "img" / f"{number:04d}.jpg", np.zeros((90, 120, 3), np.uint8))
    assert [issue.kind for issue in open_dataset(tmp_path).warnings] == ["units"]


# -- names of benchmarks -----------------------------------------------------------------------------------------


@pytest.mark.fault("E17")
@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("Basketball", "Walking", "Jogging", "Human4-2"), "otb100"),
        (("Animal1", "Basketball", "BMX2", "Car2", "ChasingDrones"), "dtb70"),
        (("Alladin", "Aquarium1", "Ballet", "Basketball"), "folder"),
    ],
)
def test_another_data_set_is_not_called_otb(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    for name in names:
        images(tmp_path / name / "img", range(1, 4))
        write(tmp_path / name / "groundtruth_rect.txt", written(CORNERS))
    assert open_dataset(tmp_path).name == found
    if found == "folder":
        assert open_dataset(tmp_path / names[0]).name == "folder"


@pytest.mark.fault("E17")
def test_an_otb_file_of_other_sequences_is_refused(tmp_path: Path) -> None:
    refused(pysot(tmp_path, "OTB100.json"), "OTB100")


@pytest.mark.fault("E17")
def test_published_splits_have_their_numbers(tmp_path: Path, small: Path) -> None:
    assert (published("lasot", "test"), published("lasot", "all"), published("folder", "all")) == (280, 1400, 0)
    assert {layout.name for layout in LAYOUTS if not published(layout.name, "all")} == {"folder"}
    dataset = open_dataset(small / "data" / "lasot")
    assert (len(dataset.sequences), dataset.of) == (3, 280)

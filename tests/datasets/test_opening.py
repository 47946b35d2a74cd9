"""Which data set a folder holds and at which level; odd starts, shared folders, other spellings."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vltrack.core.errors import DataError
from vltrack.datasets.layouts import OTB_SPANS, UAV123_10FPS_SPANS, UAV123_SPANS
from vltrack.datasets.miniatures import draw, write_video_miniature
from vltrack.datasets.reader import open_dataset, read_ground_truth
from vltrack.datasets.sequences import ImageList, Sequence

BOX = "10,20,30,40"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def images(folder: Path, numbers: range, name: str = "{:04d}.jpg") -> None:
    """Files that are called like images; nobody decodes them here."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / name.format(number)).touch()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    for name in ("lasot", "tnl2k", "got10k", "webuav3m", "mgit", "trackingnet"):
        write_video_miniature(name, root / "data" / name)
    return root


# -- levels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inside", "split"),
    [("tnl2k/test", "test"), ("got10k/val", "val"), ("webuav3m/Test", "test"), ("trackingnet/TEST", "test")],
)
def test_the_folder_of_a_split_is_that_split(small: Path, inside: str, split: str) -> None:
    dataset = open_dataset(small / "data" / inside)
    assert (dataset.name, dataset.split) == (inside.split("/")[0], split)
    assert dataset.root == small / "data" / dataset.name
    with pytest.raises(DataError, match="is a part of"):
        open_dataset(small / "data" / inside, split="train")


def test_one_level_too_high_says_where(small: Path) -> None:
    with pytest.raises(DataError, match=r"no data set in .*LaSOT in .*lasot.*TNL2K in .*tnl2k"):
        open_dataset(small / "data")
    with pytest.raises(DataError, match=r"LaSOT in .*data/lasot"):
        open_dataset(small)


@pytest.mark.parametrize("inside", ["tnl2k/test/Cat_BBC_video_01-Done", "lasot/rubicCube/rubicCube-1"])
def test_too_low_says_where_it_begins(small: Path, inside: str) -> None:
    with pytest.raises(DataError, match=r"is a part of .*, which begins at .*/data/"):
        open_dataset(small / "data" / inside)


def test_a_split_that_is_not_known_or_not_there(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no split 'tets'.*Did you mean test\? It has test, train, all"):
        open_dataset(small / "data" / "lasot", split="tets")
    shutil.copytree(small / "data" / "lasot", tmp_path / "lasot")
    (tmp_path / "lasot" / "testing_set.txt").unlink()
    assert open_dataset(tmp_path / "lasot").split == "train"
    with pytest.raises(DataError, match=r"list of split test is missing \(testing_set.txt"):
        open_dataset(tmp_path / "lasot", split="test")
    (tmp_path / "lasot" / "training_set.txt").unlink()
    everything = open_dataset(tmp_path / "lasot")
    assert (everything.split, len(everything.sequences)) == ("all", 4)


def test_all_takes_every_split(small: Path) -> None:
    assert len(open_dataset(small / "data" / "tnl2k", split="all").sequences) == 5
    assert len(open_dataset(small / "data" / "got10k", split="all").sequences) == 5


def test_a_name_overrides(small: Path) -> None:
    clip = small / "data" / "lasot" / "airplane" / "airplane-1"
    assert open_dataset(clip, name="folder").sequences[0].name == "airplane-1"
    with pytest.raises(DataError, match=r"no sequence of TNL2K in .*<seq>/groundtruth.txt"):
        open_dataset(small / "data" / "got10k" / "val" / "GOT-10k_Val_000001", name="tnl2k")
    with pytest.raises(DataError, match="Did you mean lasot"):
        open_dataset(clip, name="lasott")
    with pytest.raises(DataError, match=r"tnl2k looks like TNL2K, not LaSOT\. .*--name tnl2k"):
        open_dataset(small / "data" / "tnl2k", name="lasot")
    assert open_dataset(clip.parent, name="folder").name == "folder"


# -- odd starts, shared folders, other names -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["BlurCar3", "Football1"])
def test_only_the_images_that_count(tmp_path: Path, name: str) -> None:
    span = OTB_SPANS[name]
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
    with pytest.raises(DataError, match="350 rows for the 349 images"):
        open_dataset(tmp_path)


def test_uav123_parts_share_a_folder_by_the_built_in_table(tmp_path: Path) -> None:
    images(tmp_path / "data_seq" / "UAV123" / "bird1", range(1, 300), "{:06d}.jpg")
    images(tmp_path / "data_seq" / "UAV123" / "person8", range(1070, 1530), "{:06d}.jpg")
    for name in ("bird1_1", "person8_2"):
        rows = UAV123_SPANS[name].last - UAV123_SPANS[name].first + 1
        write(tmp_path / "anno" / "UAV123" / f"{name}.txt", f"{BOX}\n" * (rows - 1) + "NaN,NaN,NaN,NaN\n")
    one, two = open_dataset(tmp_path).sequences
    assert (one.files[0].name, one.files[-1].name) == ("000001.jpg", "000253.jpg")
    assert (two.files[0].name, two.files[-1].name) == ("001075.jpg", "001525.jpg")
    assert two.absent.nonzero()[0].tolist() == [450]
    assert UAV123_10FPS_SPANS["bird1_2"].first == 259  # every third image: (775 - 1) / 3 + 1


def test_one_video_with_several_targets_is_several_sequences(tmp_path: Path) -> None:
    for name in ("Jogging", "Human4"):
        images(tmp_path / name / "img", range(1, 4))
        for number in (1, 2):
            write(tmp_path / name / f"groundtruth_rect.{number}.txt", f"{number},2,3,4\n" * 3)
    found = {sequence.name: sequence for sequence in open_dataset(tmp_path).sequences}
    assert list(found) == ["Human4-2", "Jogging-1", "Jogging-2"]
    assert found["Jogging-2"].boxes[0, 0] == 2
    assert found["Jogging-1"].files == found["Jogging-2"].files


def test_lasot_counts_2260_frames_of_monkey_17(tmp_path: Path) -> None:
    write(tmp_path / "annos" / "monkey-17.txt", f"{BOX}\n" * 2300)
    write(tmp_path / "absent" / "monkey-17.txt", "0\n" * 2260)
    write(tmp_path / "testing_set.txt", "monkey-17")
    (sequence,) = open_dataset(tmp_path).sequences
    assert (len(sequence), len(sequence.boxes), len(sequence.absent)) == (2260, 2260, 2260)


def test_the_toolkits_annotation_of_lasot_ext_is_told_from_that_of_lasot(tmp_path: Path) -> None:
    write(tmp_path / "annos" / "paddle-1.txt", f"{BOX}\n" * 30)
    write(tmp_path / "absent" / "paddle-1.txt", "0\n" * 25)
    dataset = open_dataset(tmp_path)
    assert (dataset.name, len(dataset.sequences[0])) == ("lasot_ext", 25)


def test_webuav_in_doubled_folders_with_sentences_elsewhere(tmp_path: Path, small: Path) -> None:
    for split in ("Train", "Test"):
        shutil.copytree(small / "data" / "webuav3m" / split, tmp_path / split.lower() / split)
        for sentence in (tmp_path / split.lower() / split).glob("*/language.txt"):
            target = tmp_path / "language" / "Language" / split / sentence.parent.name / "language.txt"
            target.parent.mkdir(parents=True)
            sentence.rename(target)
    for split in ("test", "train"):
        wanted = {one.clip.name: one.sentence for one in draw("webuav3m") if one.clip.split == split}
        read = open_dataset(tmp_path, split=split).sequences
        assert {sequence.name: sequence.sentence for sequence in read} == wanted


def test_vasttrack_with_other_file_names_and_without_class_folders(tmp_path: Path) -> None:
    for home, truth, folder in (
        ("test/Air Hockey-1", "groundtruth.txt", "img"),
        ("test/Owl-2", "Groundtruth.txt", "imgs"),
    ):
        images(tmp_path / home / folder, range(1, 4), "{:08d}.jpg")
        write(tmp_path / home / truth, f"{BOX}\n0,0,0,0\n{BOX}\n")
        write(tmp_path / home / "nlp.txt", "something")
    found = open_dataset(tmp_path, name="vasttrack").sequences
    assert [sequence.name for sequence in found] == ["Air Hockey-1", "Owl-2"]
    assert found[0].absent.tolist() == [False, True, False]


def test_parts_of_got10k_by_places_in_the_list(tmp_path: Path, small: Path) -> None:
    shutil.copytree(small / "data" / "got10k", tmp_path / "got10k")
    lists = tmp_path / "got10k" / "data_specs"
    write(lists / "got10k_vot_train_split.txt", "0\n")
    assert [s.name for s in open_dataset(tmp_path / "got10k", split="vot_train").sequences] == [
        "GOT-10k_Train_000001"
    ]
    write(lists / "got10k_vot_train_split.txt", "0\n7\n")
    with pytest.raises(DataError, match=r"split.txt:2: '7' is not a place"):
        open_dataset(tmp_path / "got10k", split="vot_train")


def test_got10k_says_cover_and_size(small: Path) -> None:
    sequence = open_dataset(small / "data" / "got10k", split="val").sequences[0]
    assert sequence.size == (160, 120)
    assert np.array_equal(sequence.cover == 0, sequence.absent)
    assert sequence.sentence.startswith("thing figure ")


# -- annotation without pictures -----------------------------------------------------------------------------


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
        with pytest.raises(DataError, match="there are no pictures"):
            next(sequence.frames())


def test_pysot_json_beside_its_pictures(tmp_path: Path) -> None:
    path = pysot(tmp_path)
    images(tmp_path / "a-1" / "img", range(1, 3), "{}.jpg")
    assert [file.name for file in open_dataset(path).sequences[0].files] == ["1.jpg", "2.jpg"]


def test_nan_rows_of_a_pysot_json_are_absent(tmp_path: Path) -> None:
    nan = float("nan")
    path = pysot(tmp_path, "UAV123.json", gt_rect=[[1, 2, 3, 4], [nan] * 4], absent=None)
    assert open_dataset(path).sequences[0].absent.tolist() == [False, True]


def test_an_archive_of_boxes_as_the_devkit_ships_it(tmp_path: Path) -> None:
    path = tmp_path / "GT.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a3In51YCqMg_0.txt", " 1.00,102.00,245.00,174.00\r\n 0.43,102.17,245.73,176.10\r\n")
    dataset = open_dataset(path)
    assert dataset.name == "trackingnet"
    assert dataset.sequences[0].boxes.tolist() == [[1, 102, 245, 174], [0.43, 102.17, 245.73, 176.1]]
    assert not dataset.sequences[0].annotations_withheld
    with pytest.raises(DataError, match=r"holds archives.*GT\.zip opens as it is: give .*/GT\.zip"):
        open_dataset(tmp_path)
    shutil.copy(path, tmp_path / "results.zip")
    (tmp_path / "frames.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"as they are: GT\.zip, results\.zip\. Give the one with the truth"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="Unpack them first"):
        open_dataset(tmp_path, name="lasot")


def test_the_toolkits_annotation_says_that_train_is_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "annos" / "zebra-1.txt", f"{BOX}\n")
    write(tmp_path / "absent" / "zebra-1.txt", "0\n")
    said = r"holds no split 'train' of LaSOT \(the toolkit's annotation, no pictures\).*fetch-help lasot"
    with pytest.raises(DataError, match=said):
        open_dataset(tmp_path, split="train")


def test_the_truth_beside_an_absent_txt(tmp_path: Path) -> None:
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


def test_frames_of_a_held_back_truth_are_counted_by_images() -> None:
    files = (Path("1.jpg"), Path("2.jpg"))
    held = Sequence(name="a", source=Path(), files=files, boxes=np.ones((1, 4)), absent=np.zeros(1, bool))
    assert (len(held), held.annotations_withheld) == (2, True)


# -- what lies in ../shared ----------------------------------------------------------------------------------


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
def test_the_toolkits_annotation_is_whole(
    shared: Path, folder: str, name: str, sequences: int, frames: int, absent: int
) -> None:
    dataset = open_dataset(shared / "results" / folder)
    assert (dataset.name, dataset.split, len(dataset.sequences)) == (name, "test", sequences)
    assert sum(len(sequence) for sequence in dataset.sequences) == frames
    assert sum(int(sequence.absent.sum()) for sequence in dataset.sequences) == absent
    assert all(sequence.files == () for sequence in dataset.sequences)
    assert any(sequence.attributes for sequence in dataset.sequences) == (name != "trackingnet")

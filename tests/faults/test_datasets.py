"""Faults D01-D12 and D15-D18 (docs/faults.md): every way in which a video data set is wrong on disk.

``open_dataset`` raises an error of exit code 4; ``check_dataset`` lists the issues with their places.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from video_samples import write_video

from vltrack.core.errors import DataError
from vltrack.datasets.check import check_dataset
from vltrack.datasets.detect import detect
from vltrack.datasets.miniatures import write_video_miniature
from vltrack.datasets.parsing import MAX_BYTES, Issue, Issues
from vltrack.datasets.reader import Dataset, open_dataset, read_detected
from vltrack.datasets.sequences import Sequence

ROW = "10,20,30,40\n"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faults")
    for name in ("tnl2k", "lasot", "trackingnet", "folder"):
        write_video_miniature(name, root / name)
    return root


@pytest.fixture
def tnl2k(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "tnl2k", tmp_path / "tnl2k")


@pytest.fixture
def lasot(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "lasot", tmp_path / "lasot")


@pytest.fixture
def clips(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "folder", tmp_path / "clips")


def refused(path: Path, *values: object, **choice: str) -> DataError:
    """Return the error of strict reading, whose text has all ``values``."""
    with pytest.raises(DataError) as caught:
        open_dataset(path, **choice)
    assert caught.value.exit_code == 4
    assert caught.value.hint
    for value in values:
        assert str(value) in str(caught.value)
    return caught.value


def issues_of(path: Path, kind: str, severity: str = "error") -> list[Issue]:
    """Return the issues of a kind; strict reading must fail exactly where there are errors."""
    report = check_dataset(path)
    found = [one for one in report.issues.found if (one.kind, one.severity) == (kind, severity)]
    assert found, report.issues.found
    failed = [dataset for dataset in report.datasets if not opens(path, dataset.split)]
    assert bool(failed) == bool(report.issues.errors)
    return found


def opens(path: Path, split: str) -> bool:
    try:
        open_dataset(path, split=split)
    except DataError:
        return False
    return True


def sequence_of(dataset: Dataset, name: str) -> Sequence:
    return next(sequence for sequence in dataset.sequences if sequence.name == name)


# -- the root ------------------------------------------------------------------------------------------------


@pytest.mark.fault("D01")
def test_no_root(tmp_path: Path) -> None:
    refused(tmp_path / "gone", tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path / "empty")
    refused(tmp_path / "empty", tmp_path / "empty", name="lasot")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x.md").write_text("x")
    refused(tmp_path / "notes", tmp_path / "notes", "fetch-help")


@pytest.mark.fault("D01")
def test_links_in_a_circle(tmp_path: Path, clips: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    refused(tmp_path / "a", "circle", tmp_path / "a")
    (clips / "my-dog" / "again").symlink_to(clips)  # harmless inside of the data set
    assert len(open_dataset(clips).sequences) == 3


@pytest.mark.fault("D01")
def test_wrong_level_says_the_right_one(lasot: Path) -> None:
    refused(lasot.parent, f"LaSOT in {lasot}")
    refused(lasot / "airplane" / "airplane-1", f"begins at {lasot}")


# -- annotation as text --------------------------------------------------------------------------------------


@pytest.mark.fault("D02")
@pytest.mark.fault("D03")
@pytest.mark.parametrize(
    ("row", "spot"),
    [("# a comment", "3"), ("1;2;3;4", "3"), ("1,2,3,\uff14", "3:7"), ("1,2,x,4", "3:5"), ("1,2,inf,4", "3:5"),
     ("", "3"), ("   ", "3"), ("1,2,3", "3"), ("1,2,3,4,5", "3")],
)  # fmt: skip
def test_a_row_that_is_not_four_numbers_is_named_and_never_dropped(tnl2k: Path, row: str, spot: str) -> None:
    path = tnl2k / "test" / "Cat_BBC_video_01-Done" / "groundtruth.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], row, *lines[3:]]) + "\n")
    (issue,) = issues_of(tnl2k, "text")
    assert issue.where == f"{path}:{spot}"


@pytest.mark.fault("D04")
@pytest.mark.parametrize("change", [-2, 3])
def test_other_rows_than_frames(tnl2k: Path, change: int) -> None:
    path = tnl2k / "train" / "Fight_video_6-Done" / "groundtruth.txt"
    path.write_text("".join([*path.read_text().splitlines(keepends=True), *[ROW] * 9][: 12 + change]))
    (issue,) = issues_of(tnl2k, "rows")
    assert f"{12 + change} rows for the 12 images" in issue.message
    assert open_dataset(tnl2k, split="test").sequences  # the other split is complete


@pytest.mark.fault("D04")
def test_only_documented_sequences_are_cut(tnl2k: Path) -> None:
    home = tnl2k / "test" / "advSamp_monitor_bikeyellow"
    assert len(list((home / "imgs").iterdir())) == 13
    read = sequence_of(open_dataset(tnl2k), "advSamp_monitor_bikeyellow")
    assert len(read) == len(read.boxes) == 12
    home.rename(home.with_name("another"))
    issues_of(tnl2k, "rows")


@pytest.mark.fault("D04")
@pytest.mark.parametrize("name", ["full_occlusion.txt", "out_of_view.txt"])
def test_other_flags_than_frames(lasot: Path, name: str) -> None:
    path = lasot / "airplane" / "airplane-1" / name
    path.write_text("0,0,1")
    (issue,) = issues_of(lasot, "rows")
    assert issue.where == str(path)
    assert "3 values for 12 boxes" in issue.message
    path.unlink()
    assert issues_of(lasot, "missing")[0].where == str(path)


@pytest.mark.fault("D05")
@pytest.mark.parametrize("text", ["", "\n", " \n \n", None])
def test_an_empty_sentence_is_listed_and_loads(tnl2k: Path, text: str | None) -> None:
    path = tnl2k / "test" / "Cat_BBC_video_01-Done" / "language.txt"
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert str(path) in {issue.where for issue in issues_of(tnl2k, "sentence", "warning")}
    dataset = open_dataset(tnl2k)
    assert sequence_of(dataset, "Cat_BBC_video_01-Done").sentence == ""
    assert [issue.where for issue in dataset.warnings] == [str(path)]
    assert check_dataset(tnl2k).issues.errors == []


@pytest.mark.fault("D06")
@pytest.mark.parametrize("text", ["10,20,30,40", "366\t103\t45 16", "1, nan, 3"])
def test_boxes_pasted_into_the_sentence(tnl2k: Path, text: str) -> None:
    path = tnl2k / "test" / "Cat_BBC_video_01-Done" / "language.txt"
    path.write_text(text)
    found = [one for one in issues_of(tnl2k, "sentence", "warning") if one.where == str(path)]
    assert repr(text[:40]) in found[0].message
    path.write_text("car number 7, the 2nd from the left")
    assert not any(one.where == str(path) for one in check_dataset(tnl2k).issues.found)


# -- images ------------------------------------------------------------------------------------------------


@pytest.mark.fault("D07")
def test_a_truncated_image_is_named(tnl2k: Path) -> None:
    path = tnl2k / "test" / "test_015_Sord_video_Q01_done" / "imgs" / "00007.png"
    path.write_bytes(path.read_bytes()[:900])
    assert check_dataset(tnl2k, split="test").issues.errors == []  # images are decoded on request only
    (issue,) = check_dataset(tnl2k, split="test", images=True).issues.errors
    assert (issue.kind, issue.where) == ("image", str(path))
    with pytest.raises(DataError, match=r"00007\.png"):
        list(sequence_of(open_dataset(tnl2k), "test_015_Sord_video_Q01_done").frames())


@pytest.mark.fault("D07")
def test_a_first_image_of_no_format_is_reported_without_decoding(clips: Path) -> None:
    (clips / "my-dog" / "img" / "00000001.jpg").write_bytes(b"not an image")
    (issue,) = check_dataset(clips).issues.errors
    assert (issue.kind, Path(issue.where).name) == ("image", "00000001.jpg")


@pytest.mark.fault("D07")
def test_images_of_another_size_are_reported(clips: Path) -> None:
    path = clips / "my-dog" / "img" / "00000005.jpg"
    cv2.imwrite(str(path), np.zeros((60, 80, 3), dtype=np.uint8))
    found = check_dataset(clips, images=True).issues.warnings
    assert any("1 image of another size" in one.message for one in found)


@pytest.mark.fault("D07")
@pytest.mark.parametrize("images", [False, True])
def test_a_video_is_opened_and_its_frames_are_counted(clips: Path, images: bool) -> None:
    shutil.rmtree(clips / "my-dog" / "img")
    video = clips / "my-dog" / "film.mp4"
    for frames, kinds in ((12, []), (9, ["rows"]), (0, ["image"])):
        write_video(video, count=frames) if frames else video.write_bytes(b"no video at all" * 99)
        found = [one for one in check_dataset(clips, images=images).issues.errors if one.where == str(video)]
        assert [one.kind for one in found] == kinds


@pytest.mark.fault("D08")
def test_missing_boxes_are_absent_or_counted(lasot: Path, clips: Path) -> None:
    (zebra,) = [one for one in issues_of(lasot, "box", "warning") if "zebra-10" in one.where]
    assert "in 1 frame, first in frame 5" in zebra.message
    path = clips / "my-dog" / "groundtruth.txt"
    rows = path.read_text().splitlines()
    path.write_text("\n".join(["500,500,9,9", "nan,nan,nan,nan", "3,3,0,7", *rows[3:]]) + "\n")
    read = open_dataset(clips)
    assert sequence_of(read, "my-dog").absent.tolist() == [False, True, True] + [False] * 9
    assert "160x120: 1 box, first in frame 1" in issues_of(clips, "box", "warning")[0].message
    path.write_text("\n".join(["0,0,0,0", *rows[1:]]) + "\n")
    assert "my-dog" in issues_of(clips, "start", "warning")[0].where
    path.write_text("\n".join([*rows[:3], "3,3,-1,7", *rows[4:]]) + "\n")
    assert issues_of(clips, "box")[0].where == f"{path}:4"


@pytest.mark.fault("D09")
def test_unpadded_names_come_in_the_order_of_their_numbers(originals: Path) -> None:
    for sequence in open_dataset(originals / "trackingnet").sequences:
        assert [int(file.stem) for file in sequence.files] == list(range(len(sequence)))


@pytest.mark.fault("D09")
def test_files_that_are_not_frames(clips: Path) -> None:
    folder = clips / "my-dog" / "img"
    (folder / ".hidden.jpg").touch()
    (folder / "Thumbs.db").touch()
    assert "1 file among the images not read, such as 'Thumbs.db'" in issues_of(clips, "foreign", "warning")[0].message
    assert len(sequence_of(open_dataset(clips), "my-dog")) == 12
    (folder / "00000012.jpg").rename(folder / "00000099.jpg")
    assert "87 numbers are missing" in issues_of(clips, "numbers", "warning")[0].message
    shutil.copy(folder / "00000003.jpg", folder / "3.png")
    assert "00000003.jpg and 3.png" in issues_of(clips, "numbers")[0].message


@pytest.mark.fault("D09")
def test_a_first_number_that_is_not_the_data_sets(lasot: Path) -> None:
    folder = lasot / "airplane" / "airplane-1" / "img"
    (folder / "00000001.jpg").rename(folder / "00000013.jpg")
    assert "00000002.jpg, not number 1" in issues_of(lasot, "numbers")[0].message


# -- names and lists -----------------------------------------------------------------------------------------


@pytest.mark.fault("D10")
@pytest.mark.parametrize("name", ["../airplane-1", "a/b", "..", "C:x-1", "a\\b-1", "", "a\x00b"])
def test_a_name_that_leads_elsewhere_is_never_joined_to_a_path(lasot: Path, name: str) -> None:
    (lasot / "testing_set.txt").write_text(f"airplane-1\n{name}\nzebra-10\n")
    (issue,) = issues_of(lasot, "name")
    assert issue.where == f"{lasot / 'testing_set.txt'}:2"


@pytest.mark.fault("D10")
def test_names_twice_or_in_other_case(lasot: Path) -> None:
    (lasot / "testing_set.txt").write_text("airplane-1\nzebra-10\nairplane-1\n")
    assert "'airplane-1' is also in line 1" in issues_of(lasot, "duplicate")[0].message
    (lasot / "testing_set.txt").write_text("airplane-1\nrubiccube-1\n")
    assert "only rubicCube-1 is there" in issues_of(lasot, "missing")[0].message
    (lasot / "testing_set.txt").unlink()
    shutil.copytree(lasot / "rubicCube", lasot / "RUBICCUBE")
    (lasot / "RUBICCUBE" / "rubicCube-1").rename(lasot / "RUBICCUBE" / "RUBICCUBE-1")
    refused(lasot, "'RUBICCUBE-1' and 'rubicCube-1'", split="all")


@pytest.mark.fault("D11")
def test_every_listed_sequence_that_is_missing_is_named(lasot: Path) -> None:
    shutil.rmtree(lasot / "zebra")
    shutil.rmtree(lasot / "rubicCube" / "rubicCube-1" / "img")
    (lasot / "airplane" / "airplane-1" / "groundtruth.txt").unlink()
    found = issues_of(lasot, "missing")
    assert len(found) == 3
    assert any("zebra-10" in one.message for one in found)
    error = refused(lasot, "and 2 more issues", "vltrack datasets check")
    assert len(error.context["issues"]) == 3


@pytest.mark.fault("D11")
def test_everything_is_reported_at_once(lasot: Path) -> None:
    (lasot / "airplane" / "airplane-1" / "groundtruth.txt").write_text("1,2,3\n")
    (lasot / "zebra" / "zebra-10" / "full_occlusion.txt").write_text("7")
    (lasot / "rubicCube" / "rubicCube-1" / "nlp.txt").write_text("")
    (lasot / "airplane" / "airplane-2" / "out_of_view.txt").unlink()
    report = check_dataset(lasot)
    assert [one.kind for one in report.issues.errors] == ["text", "text", "missing"]
    assert {one.kind for one in report.issues.warnings} == {"sentence"}


# -- the disk ------------------------------------------------------------------------------------------------


def state(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in [root, *root.rglob("*")]}


@pytest.mark.fault("D15")
def test_nothing_is_written_next_to_the_data(lasot: Path) -> None:
    before = state(lasot)
    folders = [path for path in [lasot, *lasot.rglob("*")] if path.is_dir()]
    for folder in folders:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        for sequence in open_dataset(lasot).sequences:
            next(iter(sequence.frames()))
        check_dataset(lasot, images=True)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert state(lasot) == before


@pytest.mark.fault("D16")
def test_a_change_of_the_data_is_seen_at_once(clips: Path) -> None:
    """Nothing is cached between two openings, so not even a change of same size and time is missed."""
    path = clips / "my-dog" / "groundtruth.txt"
    before = open_dataset(clips).sequences[0].boxes
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[1], lines[0], *lines[2:]]))
    os.utime(path, ns=times)
    after = open_dataset(clips).sequences[0].boxes
    assert np.array_equal(after, before[[1, 0, *range(2, 12)]])


@pytest.mark.fault("D17")
@pytest.mark.parametrize("name", ["lasot.zip", "got10k.tar.gz", "data.mdb", "x.tar"])
def test_an_archive_is_to_be_unpacked_first(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("airplane-1/groundtruth.txt", ROW)
    refused(path, name, "Unpack it")
    refused(tmp_path, name, "Unpack")


def zipped(path: Path, member: str | zipfile.ZipInfo, data: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, data)
    return path


@pytest.mark.fault("D17")
def test_members_that_lead_out_of_an_archive(tmp_path: Path) -> None:
    for number, name in enumerate(("../../aaaaaaaaaaa_0.txt", "/aaaaaaaaaaa_0.txt", "a/aaaaaaaaaaa_0.txt")):
        refused(zipped(tmp_path / f"{number}.zip", name, ROW), repr(name))
    link = zipfile.ZipInfo("aaaaaaaaaaa_0.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = zipped(tmp_path / "link.zip", link, "/etc/passwd")
    refused(path, "'aaaaaaaaaaa_0.txt' is a link")
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:-30])
    refused(tmp_path / "cut.zip", "cut.zip")


@pytest.mark.fault("D17")
def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    refused(zipped(tmp_path / "bomb.zip", "aaaaaaaaaaa_0.txt", b"0,0,0,0\n" * 2_000_000), "16,000,000")


@pytest.mark.fault("D17")
def test_a_damaged_member_of_an_archive_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "damaged.zip", "aaaaaaaaaaa_0.txt", "1,2,30,40\n" * 100)
    data = bytearray(path.read_bytes())
    data[50:62] = bytes(12)  # inside the packed rows, whose table of contents stays whole
    path.write_bytes(data)
    refused(path, "'aaaaaaaaaaa_0.txt' is damaged")


@pytest.mark.fault("D18")
@pytest.mark.parametrize("name", ["language.txt", "groundtruth.txt"])
def test_the_byte_that_is_not_utf8_is_named(tnl2k: Path, name: str) -> None:
    path = tnl2k / "test" / "Cat_BBC_video_01-Done" / name
    path.write_bytes(b"1,2,3,4\nthe " + "狗".encode("gbk"))
    (issue,) = issues_of(tnl2k, "encoding")
    assert issue.where == f"{path}:2:5"
    assert "0xB9" in issue.message


# -- hostile JSON --------------------------------------------------------------------------------------------

GOOD = {"img_names": ["a/1.jpg"], "gt_rect": [[1, 2, 3, 4]]}


@pytest.mark.fault("D12")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"a": 1}',
        '{"a": {"gt_rect": [[1,2,3,4]]}}',
        '{"a": {"gt_rect": [[1,2,3]], "img_names": ["a/1.jpg"]}}',
        '{"a": {"gt_rect": [[1,2,3,"4"]], "img_names": ["a/1.jpg"]}}',
        '{"a": {"gt_rect": [[1,2,3,true]], "img_names": ["a/1.jpg"]}}',
        '{"a": {"gt_rect": [[1,2,3,1e999]], "img_names": ["a/1.jpg"]}}',
        '{"a": {"gt_rect": [[1,2,3,Infinity]], "img_names": ["a/1.jpg"]}}',
        '{"a": {"gt_rect": [[1,2,3,4],[1,2]], "img_names": ["a/1.jpg", "a/2.jpg"]}}',
        '{"a": {"gt_rect": [[1,2,3,4]], "img_names": [1]}}',
        '{"a": {"gt_rect": [[1,2,3,4]], "img_names": ["a/1.jpg", "a/2.jpg"]}}',
        '{"a": {"gt_rect": [[1,2,3,4]], "img_names": ["../../etc/passwd"]}}',
        '{"a": {"gt_rect": [[1,2,3,4]], "img_names": ["/etc/passwd"]}}',
        '{"a": {"gt_rect": [[1,2,3,4]], "img_names": ["a/1.jpg"], "absent": [1, 1]}}',
        '{"../a": {"gt_rect": [[1,2,3,4]], "img_names": ["a/1.jpg"]}}',
        '{"a": ' + json.dumps(GOOD) + ', "a": ' + json.dumps(GOOD) + "}",
        '{"a": ' + "[" * 100_000,
        '{"a": ' + '{"b":' * 100_000,
    ],
)
def test_a_pysot_json_is_not_trusted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "OTB100.json"
    path.write_text(text)
    refused(path, "OTB100.json")


@pytest.mark.fault("D12")
def test_annotation_of_gigabytes_is_refused_by_its_size(lasot: Path) -> None:
    path = lasot / "airplane" / "airplane-1" / "groundtruth.txt"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # takes no room on the disk
    assert f"{MAX_BYTES:,}" in issues_of(lasot, "size")[0].message


def test_reading_with_issues_returns_sequences_without_errors(lasot: Path) -> None:
    (lasot / "airplane" / "airplane-1" / "groundtruth.txt").write_text("1,2,3\n")
    issues = Issues()
    dataset = read_detected(detect(lasot, split="test"), issues)
    assert [sequence.name for sequence in dataset.sequences] == ["rubicCube-1", "zebra-10"]
    assert len(issues.errors) == 1

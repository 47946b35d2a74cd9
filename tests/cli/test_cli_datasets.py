"""``vltrack datasets``: what is printed, what is JSON, how it ends."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest

from hostile import Malicious
from vltrack.datasets.catalogue import videos
from vltrack.datasets.images import ImageSet


@pytest.fixture
def tnl2k(command, tmp_path: Path) -> Path:
    assert command("datasets", "mimic", "tnl2k", "--out", tmp_path / "tnl2k").code == 0
    return tmp_path / "tnl2k"


def test_list_names_every_set(command) -> None:
    done = command("datasets", "list")
    names = [line.split()[0] for line in done.out.splitlines()[1:]]
    assert {"lasot", "tnl2k", "otb99", "mgit", "folder", "coco2017", "refcoco+"} <= set(names)
    found = [json.loads(line) for line in command("datasets", "list", "--json").out.splitlines()]
    assert [row["name"] for row in found] == names
    (lasot,) = (row for row in found if row["name"] == "lasot")
    assert (lasot["splits"], lasot["attributes"]) == (["test", "train"], 14)
    assert lasot["absent"] == "full_occlusion.txt or out_of_view.txt"


@pytest.mark.parametrize("name", [*videos(), "coco2017", "refcoco", "visual-genome"])
def test_fetch_help_says_what_from_where_to_where(command, name: str) -> None:
    done = command("datasets", "fetch-help", name)
    assert (done.code, done.err) == (0, "")
    assert done.out.count("ROOT/") >= 2
    assert f"vltrack datasets check ROOT --name {name}" in done.out
    found = command("datasets", "fetch-help", name, "--json").json
    assert re.search(r"[\w-]+\.[\w.-]+/|your own disk|got-10k\.", found["page"]) or name not in videos()
    assert found["parts"]
    assert found["tree"]
    assert not any("{seq}" in line for line in found["tree"])


def test_an_unknown_name_has_its_nearest(command) -> None:
    command("datasets", "fetch-help", "lasott").ends(4, "Did you mean lasot?")


def test_check_of_a_whole_set(command, tnl2k: Path) -> None:
    done = command("datasets", "check", tnl2k).ends(0)
    assert "test: 3 sequences, 36 frames, absent in 2; 0 without a sentence" in done.out
    assert "warning: " in done.out
    assert "INF_run1/language.txt: " in done.out
    assert "0 errors, 1 warning\n" in done.err
    found = command("datasets", "check", tnl2k, "--split", "test", "--json").json
    assert (found["name"], found["errors"], found["warnings"], found["findings"]) == ("tnl2k", 0, 0, [])


def test_check_tells_everything_and_ends_with_4(command, tnl2k: Path) -> None:
    for number, folder in enumerate(sorted((tnl2k / "test").iterdir()), 1):
        (folder / "groundtruth.txt").write_text("1,2,3,4\n" * number)
    done = command("datasets", "check", tnl2k).ends(4)
    assert done.out.count("error: ") == 2  # the third is a sequence that is cut to the shorter
    found = command("datasets", "check", tnl2k, "--json").json
    assert (found["errors"], {one["kind"] for one in found["findings"]}) == (2, {"rows", "sentence"})
    assert all({"kind", "severity", "where", "message", "hint"} == set(one) for one in found["findings"])


def test_many_of_a_kind_are_counted(command, tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / "a" / f"clip-{number:02d}" / "img").mkdir(parents=True)
        (tmp_path / "a" / f"clip-{number:02d}" / "groundtruth.txt").write_text("1,2,3\n")
    done = command("datasets", "check", tmp_path / "a", "--name", "folder").ends(4)
    assert "error: 5 more of the kind text (--json lists all)" in done.out
    assert "50 errors" in done.err


def test_check_of_damaged_pictures(command, tnl2k: Path) -> None:
    image = next((tnl2k / "train" / "INF_run1" / "imgs").iterdir())
    image.write_bytes(image.read_bytes()[:500])
    assert command("datasets", "check", tnl2k, "--split", "test", "--images").code == 0
    done = command("datasets", "check", tnl2k, "--split", "train", "--images").ends(4)
    assert str(image) in done.out


def test_check_says_what_it_is_where_it_is_not_at_the_root(command, tnl2k: Path) -> None:
    done = command("datasets", "check", tnl2k.parent).ends(4, f"TNL2K in {tnl2k}")
    done = command("datasets", "check", tnl2k.parent, "--json")
    assert json.loads(done.err.splitlines()[-1])["error"]["exit_code"] == 4
    done = command("datasets", "check", tnl2k / "test")
    assert (done.code, "test: 3 sequences" in done.out, "train:" in done.out) == (0, True, False)


def test_pictures_with_phrases_are_checked_by_the_same_command(command, tmp_path: Path) -> None:
    assert command("datasets", "mimic", "refcoco", "--out", tmp_path / "rc").code == 0
    assert command("datasets", "check", tmp_path / "rc").code == 0
    shutil.rmtree(tmp_path / "rc" / "train2014", ignore_errors=True)
    assert command("datasets", "check", tmp_path / "rc", "--name", "refcoco").code == 4


def test_mimic_wants_an_empty_folder(command, tnl2k: Path, tmp_path: Path) -> None:
    done = command("datasets", "mimic", "lasot", "--out", tnl2k)
    assert (done.code, "not empty" in done.err) == (2, True)
    (tmp_path / "file").touch()
    assert command("datasets", "mimic", "lasot", "--out", tmp_path / "file").code == 6
    assert command("datasets", "mimic", "lassot", "--out", tmp_path / "x").code == 4
    made = command("datasets", "mimic", "nfs", "--out", tmp_path / "n", "--seed", "3", "--json").json
    assert (made["name"], made["seed"]) == ("nfs", 3)
    assert made["files"] == sum(path.is_file() for path in (tmp_path / "n").rglob("*"))


# -- referring expressions --------------------------------------------------------------------------


def test_a_miniature_is_made_checked_and_converted_again(command, tmp_path: Path) -> None:
    root = tmp_path / "small"
    command("datasets", "mimic", "refcocog", "--out", root).ends(0)
    lines = root / "split" / "data" / "gref" / "gref_val.jsonl"
    first, pickled = lines.read_bytes(), lines.with_suffix(".pth")
    command("datasets", "check", root).ends(0)
    for file in root.rglob("*.jsonl"):
        file.unlink()
    assert "Convert it once: vltrack datasets convert" in command("datasets", "check", root).ends(4).out
    command("datasets", "convert", pickled).ends(0, "wrote 12 referring expressions (val 12) to ")
    assert lines.read_bytes() == first
    command("datasets", "convert", pickled).ends(2, "--overwrite")
    said = command("datasets", "convert", pickled, "--overwrite", "--json").ends(0).json
    assert (said["phrases"], said["splits"]) == (12, {"val": 12})


@pytest.mark.fault("D13")
def test_what_cannot_be_converted(command, tmp_path: Path) -> None:
    file = tmp_path / "refs(unc).p"
    file.write_bytes(pickle.dumps([{"ann_id": Malicious(tmp_path / "mark")}]))
    said = command("datasets", "convert", file).ends(4, "could run code", "posix.system").err
    assert "Traceback" not in said
    command("datasets", "convert", tmp_path / "no.pth").ends(4)
    command("datasets", "convert", file, "--out", tmp_path / "x.txt").ends(2)
    file = tmp_path / "mine.pth"
    file.write_bytes(pickle.dumps([("a.jpg", 0, [1, 2, 11, 22], "a man", 0)]))
    command("datasets", "convert", file).ends(2, "--boxes xywh")
    command("datasets", "convert", file, "--boxes", "xyxy").ends(0)
    assert json.loads(file.with_suffix(".jsonl").read_text())["box"] == [1, 2, 10, 20]
    assert not (tmp_path / "mark").exists()


def test_coco_becomes_images_to_train_on(command, tmp_path: Path) -> None:
    coco, out = tmp_path / "coco", tmp_path / "made" / "images"
    command("datasets", "mimic", "coco2017", "--out", coco).ends(0)
    words = ("datasets", "export-pictures", coco, "--out", out, "--min-side", "15")
    command(*words).ends(0, "listed 3 images")
    assert len(ImageSet.load(out)) == 3
    command(*words).ends(2)
    command(*words, "--overwrite", "--split", "test").ends(4, "'test'")

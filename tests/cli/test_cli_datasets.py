"""``vltrack datasets``: what is printed, what is JSON, how it ends."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from vltrack.datasets.catalogue import videos


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

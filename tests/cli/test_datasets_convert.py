"""``vltrack datasets convert``, and pictures with phrases in ``check`` and ``mimic``."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from hostile import Malicious
from vltrack.cli.main import main
from vltrack.datasets.images import ImageSet


def test_a_miniature_is_made_checked_and_converted_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "small"
    assert main(["datasets", "mimic", "refcocog", "--out", str(root)]) == 0
    lines = root / "split" / "data" / "gref" / "gref_val.jsonl"
    first = lines.read_bytes()
    pickled = str(lines.with_suffix(".pth"))
    assert main(["datasets", "check", str(root)]) == 0
    for file in root.rglob("*.jsonl"):
        file.unlink()
    capsys.readouterr()
    assert main(["datasets", "check", str(root)]) == 4
    assert "Convert it once: vltrack datasets convert" in capsys.readouterr().out
    assert main(["datasets", "convert", pickled]) == 0
    assert "wrote 12 referring expressions (val 12) to " in capsys.readouterr().err
    assert lines.read_bytes() == first
    assert main(["datasets", "convert", pickled]) == 2
    assert "exists already. Add --overwrite" in capsys.readouterr().err
    assert main(["datasets", "convert", pickled, "--overwrite", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["phrases"], said["splits"]) == (12, {"val": 12})


@pytest.mark.fault("D13")
def test_what_cannot_be_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "refs(unc).p"
    file.write_bytes(pickle.dumps([{"ann_id": Malicious(tmp_path / "mark")}]))
    assert main(["datasets", "convert", str(file)]) == 4
    said = capsys.readouterr().err
    assert "could run code" in said
    assert "posix.system" in said
    assert "Traceback" not in said
    assert main(["datasets", "convert", str(tmp_path / "no.pth")]) == 4
    assert main(["datasets", "convert", str(file), "--out", str(tmp_path / "x.txt")]) == 2
    file = tmp_path / "mine.pth"
    file.write_bytes(pickle.dumps([("a.jpg", 0, [1, 2, 11, 22], "a man", 0)]))
    assert main(["datasets", "convert", str(file)]) == 2
    assert "--boxes xywh" in capsys.readouterr().err
    assert main(["datasets", "convert", str(file), "--boxes", "xyxy"]) == 0
    assert json.loads(file.with_suffix(".jsonl").read_text())["box"] == [1, 2, 10, 20]
    assert not (tmp_path / "mark").exists()


def test_coco_becomes_pictures_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco, out = str(tmp_path / "coco"), tmp_path / "made" / "pictures"
    assert main(["datasets", "mimic", "coco2017", "--out", coco]) == 0
    command = ["datasets", "export-pictures", coco, "--out", str(out), "--min-side", "15"]
    assert main(command) == 0
    assert "listed 3 images" in capsys.readouterr().err
    assert len(ImageSet.load(out)) == 3
    assert main(command) == 2
    assert main([*command, "--overwrite", "--split", "test"]) == 4
    assert "split 'test'" in capsys.readouterr().err

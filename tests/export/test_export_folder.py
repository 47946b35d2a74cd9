"""``vltrack export``: a folder of graphs that tracks as the weights do, whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vltrack
from vltrack.checkpoints.cards import model_names
from vltrack.cli import main
from vltrack.core.errors import CheckpointCorrupt, CheckpointMismatch, CheckpointVersion, ResourceError, UsageError
from vltrack.export import folder as folders

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(model_names()["sa-tracker-tiny"] is None, reason="no weights in this checkout"),
]
CLIP = Path(vltrack.__file__).parent / "clips" / "car-shadow.mp4"
BOX, TEXT = (313, 88, 342, 194), "the silver car"
MODEL = "sa-tracker-tiny"


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exports")
    return {kind: vltrack.export_model(MODEL, kind, root / kind).out for kind in folders.KINDS}


@pytest.fixture
def copied(exports: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(exports["onnx"], tmp_path / "copied"))


def boxes(model: str | Path, backend: str, end: int = 14, **target: Any) -> np.ndarray:
    """Boxes of enough frames for an update of the memory."""
    return vltrack.track(CLIP, model=model, backend=backend, precision="fp32", threads=1, end=end, **target).boxes


def check_boxes(model: str, exported: dict[str, Path]) -> None:
    for target in ({"box": BOX}, {"box": BOX, "text": TEXT}):
        wanted = boxes(model, "openvino", **target)
        assert np.abs(wanted[-1] - wanted[0]).max() > 1
        for kind, backend in (("onnx", "openvino"), ("onnx", "onnx"), ("openvino", "openvino")):
            if backend == "onnx":
                pytest.importorskip("onnxruntime")
            np.testing.assert_allclose(boxes(exported[kind], backend, **target), wanted, atol=0.25)


def test_an_exported_folder_tracks_as_the_weights_do(exports: dict[str, Path]) -> None:
    check_boxes(MODEL, exports)


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(name for name in model_names() if name.endswith("-tiny") and name != MODEL))
def test_every_tiny_tracker_is_exported(model: str, tmp_path: Path) -> None:
    exported = {kind: vltrack.export_model(model, kind, tmp_path / kind).out for kind in folders.KINDS}
    check_boxes(model, exported)


def test_the_folder_is_run_without_weights_by_its_path(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copied.parent)
    tracker = vltrack.load("copied")
    assert tracker.card["tracker"] == "sa-tracker"
    assert tracker.runtime.startswith("openvino ")
    assert main.main(["track", str(CLIP), "--model", "copied", "--box", "313,88,342,194", "--end", "2", "-q"]) == 0
    copied.rename("sa-tracker-tiny")  # a model's name wins
    assert vltrack.load("sa-tracker-tiny", backend="torch").runtime == "torch fp32"
    assert vltrack.load("./sa-tracker-tiny").runtime.startswith("openvino ")


def test_graphs_run_only_where_they_can(exports: dict[str, Path]) -> None:
    for kind, options in (
        ("openvino", {"backend": "onnx"}), ("onnx", {"backend": "torch"}), ("onnx", {"device": "cuda"})
    ):  # fmt: skip
        with pytest.raises(UsageError, match=r"holds graphs for .* not for"):
            vltrack.load(exports[kind], **options)
    with pytest.raises(UsageError, match="no int8 graphs"):
        vltrack.load(exports["onnx"], precision="int8")


def test_the_command_prints_calls(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["export", MODEL, "-o", str(tmp_path / "graphs")]
    assert main.main([*words, "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["kind"] == "onnx"
    assert found["files"] == {
        file.name: file.stat().st_size for file in (tmp_path / "graphs").iterdir() if file.name != "graphs.json"
    }
    assert found["calls"][0] == "text (text.onnx): ids -> text.tokens_BLC"
    assert "step_nlbbox" in said.err
    assert main.main(words) == 2
    assert main.main([*words, "--overwrite", "-q"]) == 0


def test_the_grounder_is_exported(tmp_path: Path) -> None:
    done = vltrack.export_model("grounder", "openvino", tmp_path / "graphs")
    assert set(done.manifest["calls"]) == {"detect", "heads", "rank"}
    with pytest.raises(CheckpointMismatch, match="grounder"):
        vltrack.load(done.out)


def test_a_folder_that_holds_something_else_is_kept(copied: Path, tmp_path: Path) -> None:
    before = sorted(copied.iterdir())
    with pytest.raises(UsageError, match="not empty"):
        vltrack.export_model(MODEL, "onnx", copied)
    (copied / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        vltrack.export_model(MODEL, "onnx", copied, overwrite=True)
    assert sorted(copied.iterdir()) == sorted([*before, copied / "notes.txt"])
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("")
    with pytest.raises(UsageError, match="mine"):
        vltrack.export_model(MODEL, "onnx", other, overwrite=True)
    with pytest.raises(UsageError, match="is a file"):
        vltrack.export_model(MODEL, "onnx", other / "mine", overwrite=True)
    with pytest.raises(ResourceError, match="folder does not exist"):
        vltrack.export_model(MODEL, "onnx", tmp_path / "missing" / "graphs")
    with pytest.raises(UsageError, match="an export already"):
        vltrack.export_model(copied, "onnx", tmp_path / "again")
    with pytest.raises(UsageError, match=r"'onx'.*Did you mean onnx"):
        vltrack.export_model(MODEL, "onx", tmp_path / "again")


def test_a_failed_export_leaves_the_former_one(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in copied.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    rename = Path.rename
    for step in ("copyfile", "rename"):
        with monkeypatch.context() as patch:
            if step == "copyfile":
                patch.setattr(folders.shutil, "copyfile", full)
            else:
                patch.setattr(Path, "rename", lambda old, new: full() if old.name == "made" else rename(old, new))
            with pytest.raises(ResourceError, match="disk is full"):
                vltrack.export_model(MODEL, "onnx", copied, overwrite=True)
        assert {file.name: file.read_bytes() for file in copied.iterdir()} == before
        assert list(copied.parent.iterdir()) == [copied]


def test_damaged_folders_are_refused(copied: Path) -> None:
    manifest = copied / "graphs.json"
    whole = manifest.read_text()
    with (copied / "weights.bin").open("r+b") as file:
        file.seek(5000)
        file.write(b"\1\2\3")
    with pytest.raises(CheckpointCorrupt, match=r"weights\.bin is damaged"):
        vltrack.load(copied)
    (copied / "text.onnx").unlink()
    with pytest.raises(CheckpointCorrupt, match=r"text\.onnx: No such file"):
        vltrack.load(copied)
    read = json.loads(whole)
    with pytest.raises(CheckpointVersion):
        manifest.write_text(json.dumps({**read, "format": 2}))
        vltrack.load(copied)
    graphs = {**read["graphs"], "text": {**read["graphs"]["text"], "file": "../weights.bin"}}
    outside = {"../weights.bin": "0" * 64}
    for text in (
        "{", "[]", "{}", json.dumps({**read, "kind": "torch"}), json.dumps({**read, "graphs": graphs}),
        json.dumps({**read, "files": outside, "sha256": outside}), json.dumps({**read, "graphs": {"text": 5}}),
    ):  # fmt: skip
        manifest.write_text(text)
        with pytest.raises(CheckpointCorrupt, match="not the manifest"):
            vltrack.load(copied)

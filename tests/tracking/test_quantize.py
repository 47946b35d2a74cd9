"""int8 graphs: near the fp32 graphs on both backends, the same at every run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.model_cases import CONFIGS, make, small

import vltrack
from vltrack.core.errors import ResourceError
from vltrack.export import prepare
from vltrack.export.graphs import write_graphs
from vltrack.nn import runtime
from vltrack.nn.runtime import Graph
from vltrack.tracking import quantize
from vltrack.video.source import open_source

pytestmark = pytest.mark.timeout(600)
needs_int8 = pytest.mark.skipif(runtime.has_amx(), reason="OpenVINO's int8 is refused on processors with AMX")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs of a small LiteTrack with random weights, fp32 and int8."""
    folder = tmp_path_factory.mktemp("graphs")
    config = small(replace(CONFIGS["litetrack narrow base"](), split_layers=2, joint_layers=1, contrast_from=1))
    manifest = write_graphs(make(config), folder)
    files = {file.name: file.stat().st_size for file in folder.iterdir() if file.name != prepare.MANIFEST}
    (folder / prepare.MANIFEST).write_text(json.dumps({**manifest, "files": files}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "FRAMES", 4)
        patch.setattr(quantize, "OTHERS", quantize.OTHERS[:1])
        quantize.write_int8(folder)
    return folder


def manifests(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    fp32, int8 = (json.loads((folder / name).read_bytes()) for name in (prepare.MANIFEST, prepare.MANIFEST_INT8))
    return fp32, int8


def test_only_graphs_of_every_frame_are_int8(folder: Path) -> None:
    fp32, int8 = manifests(folder)
    changed = {name for name, each in int8["graphs"].items() if each != fp32["graphs"][name]}
    assert changed == {f"{call}_{mode}" for call in ("step", "select_step") for mode in ("bbox", "nlbbox")}
    for name, size in int8["files"].items():
        assert (folder / name).stat().st_size == size
    for name in changed:
        nodes = onnx.load(folder / int8["graphs"][name]["file"]).graph.node
        assert any(node.op_type == "QuantizeLinear" for node in nodes), name


@pytest.mark.parametrize("backend", [pytest.param("openvino", marks=needs_int8), "onnx"])
def test_near_fp32(folder: Path, backend: str) -> None:
    fp32, int8 = manifests(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "FRAMES", 3)
        patch.setattr(quantize, "OTHERS", ())
        feeds = quantize.record(folder, fp32)
    name = "step_bbox"
    inputs, outputs = ([port["name"] for port in fp32["graphs"][name][side]] for side in ("inputs", "outputs"))
    for read in feeds[name]:
        # ONNX Runtime's int64 is C's long long, which OpenVINO does not know.
        feed = {port: array.astype(array.dtype.name) for port, array in read.items()}
        exact, near = (
            Graph(folder / manifest["graphs"][name]["file"], inputs, outputs, backend, "fp32", 1)(feed)
            for manifest in (fp32, int8)
        )
        apart = [np.abs(near[output] - exact[output]).max() for output in ("center_BSS", "presence_BSS", "boxes_BSS4")]
        assert 0 < max(apart) < 0.05


def test_same_files_at_every_run(folder: Path, tmp_path: Path) -> None:
    fp32, _ = manifests(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "FRAMES", 3)
        patch.setattr(quantize, "OTHERS", ())
        feeds = quantize.record(folder, fp32)["step_bbox"]
    for name in ("a.onnx", "b.onnx"):
        quantize.quantize(folder / fp32["graphs"]["step_bbox"]["file"], feeds, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLTRACK_CACHE", str(tmp_path))
    monkeypatch.setattr(prepare, "find_spec", lambda _: None)
    with pytest.raises(ResourceError, match=r"onnxruntime, which is not installed.*vltrack\[fast\]"):
        prepare.graphs_of(Path("tiny.safetensors"), "0" * 64, "int8")
    assert list(tmp_path.iterdir()) == []


@needs_int8
@pytest.mark.usefixtures("graphs")
def test_a_tracker_follows_in_int8() -> None:
    about = json.loads(quantize.CLIP.with_suffix(".json").read_bytes())
    with open_source(quantize.CLIP.with_suffix(".mp4"), end=5) as source:
        frames = [frame.image for frame in source if frame.image is not None]
    boxes = {}
    for precision in ("fp32", "int8"):
        tracker = vltrack.load("all-in-one-tiny", backend="openvino", precision=precision, threads=1)
        assert tracker.engine.network.runtime == f"openvino {precision}"
        tracker.init(frames[0], box=about["box"], text=about["text"])
        boxes[precision] = np.array([tracker.update(frame).box for frame in frames[1:]])
    difference = np.abs(boxes["int8"] - boxes["fp32"]).max()
    assert 0 < difference < 8

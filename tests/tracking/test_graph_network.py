"""Trackers as graphs: the boxes of torch, without torch; made once by one of several processes, anew if damaged."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vltrack
from vltrack.checkpoints import cards
from vltrack.checkpoints.cards import model_names
from vltrack.core.errors import CheckpointCorrupt, CheckpointNonFinite, ResourceError, UsageError
from vltrack.core.types import Target, iou_xywh
from vltrack.export import prepare
from vltrack.nn import runtime
from vltrack.tracking.graph_network import GraphNetwork
from vltrack.tracking.grounding import Grounding
from vltrack.tracking.saved import pack, unpack
from vltrack.tracking.tracker import MultiTracker

NAME = "sa-tracker-tiny"
BOX, TEXT = (313, 88, 342, 194), "the silver car"


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    from vltrack.api.inputs import demo_clip

    with vltrack.open_source(demo_clip()[0], end=12) as source:
        return [frame.image for frame in source if frame.image is not None]


def followed(tracker: Any, frames: list[np.ndarray], **start: Any) -> np.ndarray:
    return np.array([tracker.init(frames[0], **start).box, *(tracker.update(frame).box for frame in frames[1:])])


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
@pytest.mark.parametrize("start", [{"box": BOX}, {"box": BOX, "text": TEXT}])
def test_boxes_are_those_of_torch(frames: list[np.ndarray], backend: str, start: dict[str, Any]) -> None:
    graphs = vltrack.load(NAME, backend=backend, precision="fp32", threads=1)
    assert graphs.runtime == f"{backend} fp32"
    expected = followed(vltrack.load(NAME, backend="torch", threads=1), frames, **start)
    assert np.abs(followed(graphs, frames, **start) - expected).max() <= 0.5


def test_the_default_runs_graphs_and_loads_no_torch(graphs: None, tmp_path: Path) -> None:
    script = (
        "import sys, vltrack\n"
        f"tracker = vltrack.load({NAME!r})\n"
        "with vltrack.open_source(sys.argv[1], end=2) as frames:\n"
        f"    tracker.init(next(frames), box={BOX}), tracker.update(next(frames))\n"
        "print(tracker.runtime, sorted({'torch', 'onnx', 'openvino_telemetry'} & set(sys.modules)))\n"
    )
    clip = next((Path(vltrack.__file__).parent / "clips").glob("*.mp4"))
    done = subprocess.run([sys.executable, "-c", script, str(clip)], capture_output=True, text=True, check=True)
    assert done.stdout.split(" ", 1)[0] == "openvino"
    assert done.stdout.endswith("[]\n")


def test_targets_side_by_side_have_the_boxes_of_one_alone(frames: list[np.ndarray]) -> None:
    boxes = {"a": BOX, "b": (100, 100, 80, 60), "c": (500, 200, 90, 90)}
    together = MultiTracker(vltrack.load(NAME, backend="openvino", threads=3), distinct=False)
    assert together.engine.network.targets_at_once == 3
    together.init(frames[0], {name: Target(box=box) for name, box in boxes.items()})
    steps = [together.update(frame) for frame in frames[1:]]
    alone = vltrack.load(NAME, backend="openvino", threads=1)
    for name, box in boxes.items():
        assert np.array_equal(followed(alone, frames, box=box)[1:], [step[name].box for step in steps])


def test_a_state_of_graphs_can_be_saved(frames: list[np.ndarray]) -> None:
    tracker = vltrack.load(NAME, backend="openvino", threads=1)
    followed(tracker, frames[:4], box=BOX, text=TEXT)
    state = unpack(pack({"state": tracker.state}))["state"]
    expected = [tracker.update(frame).box for frame in frames[4:]]
    tracker.restore(state)
    assert np.array_equal([tracker.update(frame).box for frame in frames[4:]], expected)


def test_one_graph_may_run_in_several_threads(frames: list[np.ndarray]) -> None:
    network = vltrack.load(NAME, backend="openvino", threads=1).engine.network
    crop = np.ascontiguousarray(frames[0][:224, :224])
    text = network.read_text(np.arange(1000, 1006), np.ones(6, dtype=bool))
    expected, found = network.ground(crop, text).maps.center, []
    threads = [threading.Thread(target=lambda: found.append(network.ground(crop, text).maps.center)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(each, expected) for each in found)


def test_a_fork_of_a_process_with_openvino_is_refused(tmp_path: Path) -> None:
    """Its threads are not there: OpenVINO would wait for them for ever."""
    script = (
        "import multiprocessing, numpy, vltrack\n"
        "image, box = numpy.zeros((120, 160, 3), numpy.uint8), (20, 20, 40, 30)\n"
        "def follow(_):\n"
        "    try:\n"
        f"        vltrack.load({NAME!r}, backend='openvino', threads=1).init(image, box=box)\n"
        "    except vltrack.VltrackError as error:\n"
        "        return error.code, error.message\n"
        "follow(0)\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n"
        "    print(pool.map_async(follow, [0]).get(timeout=60))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert "StateError" in done.stdout
    assert "is a fork" in done.stdout


# -- the cache of graphs ----------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str, Path]:
    """Weights, their checksum, and a cache of their own that holds their graphs."""
    path = cards.find_file(NAME)
    sha256 = cards.identify(path)["sha256"]
    folder, _ = prepare.graphs_of(path, sha256)
    monkeypatch.setenv("VLTRACK_CACHE", str(tmp_path))
    copy = prepare.folder_of(path, sha256)
    shutil.copytree(folder, copy)
    return path, sha256, copy


def test_graphs_are_made_once(copied: tuple[Path, str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, sha256, folder = copied

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(os, "utime", read_only)  # graphs that are there are used, too, where nothing can be written
    monkeypatch.setattr(prepare, "_make", lambda *_: pytest.fail("made again"))
    assert prepare.graphs_of(path, sha256)[0] == folder


@pytest.mark.parametrize("damage", ["short", "gone", "no manifest", "other manifest"])
def test_damaged_graphs_are_made_anew(
    copied: tuple[Path, str, Path], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sha256, folder = copied
    whole = shutil.copytree(folder, folder.with_name("whole"))
    manifest = folder / prepare.MANIFEST
    if damage == "short":
        with (folder / "weights.bin").open("r+b") as file:
            file.truncate(100)
    elif damage == "gone":
        (folder / "weights.bin").unlink()
    else:
        manifest.write_text("{" if damage == "no manifest" else "{}")
    assert prepare.find_graphs(path, sha256) is None
    made = []

    def make(path: Path, module: str, resolved: Path, sha256: str, folder: Path) -> None:
        made.append(sha256)
        shutil.copytree(whole, folder)

    monkeypatch.setattr(prepare, "_make", make)
    assert prepare.graphs_of(path, sha256)[0] == folder
    assert made == [sha256]


def test_processes_wait_for_the_one_that_makes_them(
    copied: tuple[Path, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sha256, folder = copied
    whole = folder.rename(folder.with_name("whole"))
    made = []

    def make(path: Path, module: str, resolved: Path, sha256: str, folder: Path) -> None:
        made.append(sha256)
        shutil.copytree(whole, folder)

    monkeypatch.setattr(prepare, "_make", make)
    threads = [threading.Thread(target=prepare.graphs_of, args=(path, sha256)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [sha256]
    assert [each.name for each in folder.parent.iterdir() if each.name.startswith(".")] == []


def test_what_making_them_says_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    for suffix in (".safetensors", ".json"):
        shutil.copy(cards.find_file(NAME).with_suffix(suffix), path.with_suffix(suffix))
    with pytest.raises(CheckpointCorrupt, match="was changed while"):
        prepare._make(path, "export.prepare", path, "ab" * 32, tmp_path / "made")
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(ResourceError, match="ended with exit status 1"):
        prepare._make(path, "export.prepare", path, "ab" * 32, tmp_path / "made")


def test_weights_that_are_not_finite_have_no_graphs(tmp_path: Path) -> None:
    import torch
    from tests.scripted import tiny_weights

    from vltrack.checkpoints import store

    path = tiny_weights(tmp_path)
    model, _ = store.load(path)
    with torch.no_grad():
        model.cls_token[0, 0, 0] = 1e9
    store.save(path, model, tracker="litetrack", size="tiny", card={})
    data = bytearray(path.read_bytes())
    at = data.index(np.float32(1e9).tobytes())
    data[at : at + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    card = json.loads(path.with_suffix(".json").read_text())
    card["sha256"] = prepare.hashlib.sha256(data).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(CheckpointNonFinite, match="cls_token"):
        GraphNetwork.load(path, card, "openvino", "fp32", 1)


def test_an_unwritable_cache_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("VLTRACK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ResourceError, match="the cache of graphs") as caught:
        vltrack.load(NAME, backend="openvino")
    assert "VLTRACK_CACHE" in caught.value.hint


def test_without_a_cache_auto_is_torch(
    graphs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("VLTRACK_CACHE", str(tmp_path / "cache"))
    tracker = vltrack.load(NAME, threads=1)
    assert tracker.runtime.startswith("torch ")  # bf16 where the CPU computes it in hardware
    assert "cache of graphs" in caplog.text
    assert Grounding.load().proposer is not None
    with pytest.raises(ResourceError):
        vltrack.load(NAME, precision="int8")


def test_bf16_is_refused_where_it_would_be_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_fast_bf16", lambda: False)
    with pytest.raises(ResourceError, match="bf16"):
        runtime.choose_runtime("openvino", "bf16", "cpu")


def test_int8_is_refused_where_openvino_damages_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_amx", lambda: True)
    with pytest.raises(ResourceError, match="AMX"):
        runtime.choose_runtime("openvino", "int8", "cpu")
    assert runtime.choose_runtime("onnx", "int8", "cpu") == ("onnx", "int8")
    assert runtime.choose_runtime("openvino", "fp32", "cpu") == ("openvino", "fp32")


@pytest.mark.parametrize("name", [name for name, file in model_names().items() if file is not None])
def test_the_default_precision_gives_the_boxes_of_fp32(name: str, graphs: None) -> None:
    """In a process of its own: OpenVINO's kernels for AMX, which are not used, ended it."""
    code = (
        "import sys, vltrack\n"
        "from vltrack.api.inputs import demo_clip\n"
        "clip, target = demo_clip()\n"
        f"for precision in ('fp32', 'auto'):\n"
        f"    tracker = vltrack.load({name!r}, precision=precision, threads=1)\n"
        "    assert tracker.runtime.startswith('openvino')\n"
        "    print(*[list(step.box) for step in tracker.stream(clip, box=target.box, end=6)][-1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    one, other = (np.array(line.split(), dtype=np.float64) for line in done.stdout.splitlines())
    assert iou_xywh(one, other) > 0.9


# -- the choice -------------------------------------------------------------------------------------------------


def test_the_choice_of_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLTRACK_BACKEND")
    assert runtime.choose_runtime("auto", "fp32", "cpu") == ("openvino", "fp32")
    assert runtime.choose_runtime("auto", "auto", "cuda") == ("torch", "fp32")
    assert runtime.choose_runtime("torch", "auto", "cpu") == ("torch", "fp32")
    monkeypatch.setattr(runtime, "has_fast_bf16", lambda: True)
    assert runtime.choose_runtime("auto", "auto", "cpu") == ("openvino", "bf16")
    monkeypatch.setenv("VLTRACK_BACKEND", "onnx")
    assert runtime.choose_runtime("auto", "auto", "cpu") == ("onnx", "fp32")
    monkeypatch.delenv("VLTRACK_BACKEND")
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    assert runtime.choose_runtime("auto", "auto", "cpu") == ("torch", "fp32")
    with pytest.raises(ResourceError, match="onnx is not installed"):
        runtime.choose_runtime("onnx", "auto", "cpu")


@pytest.mark.parametrize(
    ("backend", "precision", "device", "said"),
    [
        ("tensorrt", "auto", "cpu", "'tensorrt'"),
        ("auto", "fp16", "cpu", "'fp16'"),
        ("openvino", "auto", "cuda", "cuda"),
        ("torch", "int8", "cpu", "int8"),
        ("onnx", "bf16", "cpu", "bf16"),
    ],
)
def test_a_choice_that_does_not_exist(backend: str, precision: str, device: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        runtime.choose_runtime(backend, precision, device)


def test_bf16_in_torch_follows_too(frames: list[np.ndarray]) -> None:
    tracker = vltrack.load(NAME, backend="torch", precision="bf16", threads=1)
    assert tracker.runtime == "torch bf16"
    followed(tracker, frames[:3], box=BOX, text=TEXT)
    state = unpack(pack({"state": tracker.state}))["state"]
    expected = tracker.update(frames[3]).box
    tracker.restore(state)
    assert np.array_equal(tracker.update(frames[3]).box, expected)


def test_a_large_network_gives_all_threads_to_one_target() -> None:
    names = ("template_size", "template_factor", "search_size", "search_factor", "max_words", "history", "mask_padding")
    sizes = {**dict.fromkeys(names, 1), "vocabulary": "bert"}
    manifest: dict[str, Any] = {"sizes": sizes, "calls": {}, "memory": {}, "graphs": {}, "files": {"w": 200 << 20}}
    assert GraphNetwork(Path(os.devnull), manifest, "openvino", "fp32", 4).targets_at_once == 1
    manifest["files"] = {"w": 5 << 20}
    assert GraphNetwork(Path(os.devnull), manifest, "openvino", "fp32", 4).targets_at_once == 4

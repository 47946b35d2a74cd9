"""Our checkpoints: written whole or not at all, found by name or path, and read only as what they are."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as write_safetensors

from model_cases import make, narrow_base, small
from vltrack.checkpoints import cards, store
from vltrack.core import files
from vltrack.core.archives import Safetensors
from vltrack.core.errors import (
    CheckpointCorrupt,
    CheckpointIncomplete,
    CheckpointMismatch,
    CheckpointNonFinite,
    ModelNotFound,
    ResourceError,
    UsageError,
)
from vltrack.core.files import sha256_of
from vltrack.models import MODELS, build, config_of
from vltrack.models.grounder import Grounder, GrounderConfig
from vltrack.models.litetrack import LiteTrack, LiteTrackConfig


def little_config() -> LiteTrackConfig:
    return replace(
        small(narrow_base()), width=8, heads=2, table_width=8, split_layers=1, joint_layers=1, contrast_from=0
    )


@pytest.fixture(scope="module")
def model() -> LiteTrack:
    return make(little_config())


def save(folder: Path, model: LiteTrack, **changes) -> Path:
    path = folder / "weights.safetensors"
    store.save(path, model, **{"tracker": "litetrack", "size": "base", "card": {}, **changes})
    return path


def test_the_card_tells_what_the_file_is(tmp_path, model: LiteTrack) -> None:
    path = save(tmp_path, model, card={"data": "none", "figures": {"auc": 0.1}})
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["format"] == store.FORMAT
    assert (card["tracker"], card["size"], card["data"]) == ("litetrack", "base", "none")
    assert card["sha256"] == sha256_of(path)
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert card["config"]["width"] == 8
    assert cards.read_card(path) == card


def test_the_same_weights_are_the_same_bytes(tmp_path, model: LiteTrack) -> None:
    first = save(tmp_path, model).read_bytes()
    assert save(tmp_path, model).read_bytes() == first


def test_a_loaded_model_has_its_own_configuration(tmp_path, model: LiteTrack) -> None:
    loaded, card = store.load(save(tmp_path, model, half=True))
    assert loaded.config == little_config()
    assert card["dtypes"]["float16"] > 0
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


@pytest.mark.parametrize("name", [*MODELS, "grounder"])
def test_a_network_built_without_numbers_has_them_all(name: str) -> None:
    """Also those that no file holds, such as fixed positions."""
    if name == "grounder":
        loaded, drawn = store.load_grounder()[0], Grounder(GrounderConfig()).eval()
    else:
        loaded, drawn = store.load(name)[0], build(MODELS[name], config_of(MODELS[name], "tiny")).eval()
    before = torch.random.get_rng_state()
    store.load_strictly(drawn, loaded.state_dict(), Path(name))
    assert torch.equal(torch.random.get_rng_state(), before)
    for own, other in ((loaded.named_parameters, drawn.named_parameters), (loaded.named_buffers, drawn.named_buffers)):
        expected = dict(other())
        assert dict(own()).keys() == expected.keys()
        for key, tensor in own():
            assert torch.equal(tensor, expected[key]), key
            assert tensor.requires_grad == expected[key].requires_grad, key


MEASURED = """
import re, sys
from pathlib import Path
from vltrack.checkpoints import store
def peak():  # getrusage's is at least that of the process that started this one
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
store.load(Path(sys.argv[1]))
before = peak()
store.load(Path(sys.argv[2]))
print(peak() - before, "sympy" in sys.modules)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("half", [False, True])
def test_loading_takes_little_more_memory_than_the_weights(tmp_path, model: LiteTrack, half: bool) -> None:
    """And does not load torch's compiler, which torch does where random numbers are drawn without memory."""
    large = make(replace(little_config(), table_width=512))
    store.save(tmp_path / "large.safetensors", large, tracker="litetrack", size="base", card={}, half=half)
    weights = sum(4 * tensor.numel() for tensor in large.state_dict().values())
    command = [sys.executable, "-c", MEASURED, str(save(tmp_path, model)), str(tmp_path / "large.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=110)
    grown, compiler = done.stdout.split()
    assert 0.8 * weights < int(grown) < 1.25 * weights
    assert compiler == "False"


WITHOUT_TORCH = """
import sys
from pathlib import Path
from vltrack.checkpoints import cards
path = Path(sys.argv[1])
card = cards.identify(path)
print(card["tracker"], card["size"], card["config"]["width"], len(cards.shapes_of(path)), "torch" in sys.modules)
"""


def test_weights_are_identified_without_torch(tmp_path, model: LiteTrack) -> None:
    path = save(tmp_path, model)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=110)
    assert done.stdout.split() == ["litetrack", "base", "8", str(len(model.state_dict())), "False"]
    assert cards.shapes_of(path) == {name: tuple(own.shape) for name, own in model.state_dict().items()}
    with pytest.raises(CheckpointMismatch, match="'litetrack', not of the grounder"):
        cards.identify(path, of="grounder")
    assert cards.identify(path)["sha256"] == sha256_of(path)


@pytest.mark.fault("C11")
def test_a_file_that_is_cut_while_it_is_read(tmp_path, model: LiteTrack) -> None:
    """Mapped into memory, it would end the process by a signal."""
    path = save(tmp_path, model)
    size = path.stat().st_size

    def take(file: Safetensors) -> None:
        os.truncate(path, size // 2)
        file.read(memoryview(bytearray(size)))

    with pytest.raises(CheckpointCorrupt, match="sha256"):
        cards.identify(path, take=take)


HEADERS = {
    "a hole": '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
    "an overlap": '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},'
    ' "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
    "too long": '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}',
    "negative": '{"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}',
    "a fraction": '{"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}',
    "true": '{"a": {"dtype": "U64", "shape": [true], "data_offsets": [0, 8]}}',
    "unknown kind": '{"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}',
    "empty and huge": '{"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},'
    ' "b": {"dtype": "U8", "shape": [0, 1000000000000, 1000000000000], "data_offsets": [8, 8]}}',
}


@pytest.mark.fault("C05")
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_does_not_account_for_every_byte_is_refused(tmp_path, header: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8))
    with pytest.raises(CheckpointCorrupt, match=r"w\.safetensors is not a safetensors file"):
        cards.shapes_of(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.json"])
def test_either_file_names_the_checkpoint(tmp_path, model: LiteTrack, name: str) -> None:
    path = save(tmp_path, model)
    assert cards.find_file(path.with_name(name)) == path


@pytest.mark.fault("C18")
@pytest.mark.parametrize("failing", ["write", "card", "flush"])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, model: LiteTrack, monkeypatch, failing: str) -> None:
    path = save(tmp_path, model)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="disk is full"):
        if failing == "write":
            patch.setattr(store, "bytes_of", _disk_full)
        elif failing == "card":
            patch.setattr(Path, "write_text", _disk_full)
        else:
            patch.setattr(files.os, "fsync", _disk_full)
        save(tmp_path, make(little_config(), seed=1))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    store.load(path)


def _disk_full(*arguments: object, **named: object) -> int:
    raise OSError(28, "No space left on device")


@pytest.mark.fault("C18")
def test_a_real_limit_on_file_size_leaves_the_old_checkpoint(tmp_path, model: LiteTrack) -> None:
    """The system's own error, half-way through the tensors."""
    path = save(tmp_path, model)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
    try:
        with pytest.raises(ResourceError, match="size limit"):
            save(tmp_path, make(little_config(), seed=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


KILLED = """
import os, signal, sys
from pathlib import Path
from vltrack.checkpoints import store
path = Path(sys.argv[1])
model, card = store.load(path)
store.bytes_of = lambda tensor: os.kill(os.getpid(), signal.SIGKILL)
store.save(path, model, tracker="litetrack", size="base", card={})
"""


@pytest.mark.fault("C18")
def test_a_kill_leaves_the_old_checkpoint_and_the_next_run_cleans_up(tmp_path, model: LiteTrack) -> None:
    path = save(tmp_path, model)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=110)
    assert killed.returncode == -signal.SIGKILL
    left = {file for file in tmp_path.iterdir() if file.name not in before}
    assert len(left) == 2
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    with files.atomic_path(path):  # that of a living writer stays
        save(tmp_path, model)
        assert len(list(tmp_path.iterdir())) == 3
    assert {file.name for file in tmp_path.iterdir()} == before.keys()


def test_the_file_is_what_the_library_would_write(tmp_path, model: LiteTrack) -> None:
    path = save(tmp_path, model, half=True)
    with safe_open(path, "pt") as file:
        theirs = write_safetensors(load_file(path), metadata=file.metadata())
    (own_size, own), (size, header) = (
        (int.from_bytes(data[:8], "little"), data[8:]) for data in (path.read_bytes(), theirs)
    )
    assert own_size == size
    assert list(json.loads(own[:size]).items()) == list(json.loads(header[:size]).items())
    assert own[size:] == header[size:]
    kinds = (torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    tensors = {str(kind): torch.arange(3).to(kind) for kind in kinds} | {
        "flags": torch.tensor([True, False]),
        "one": torch.tensor(2.0),
        "none": torch.zeros(0, 3),
    }
    store._write(tensors, tmp_path / "kinds.safetensors", "{}")
    loaded = load_file(tmp_path / "kinds.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_a_start_for_training_is_no_tracker(tmp_path, model: LiteTrack) -> None:
    path = save(tmp_path, model, card={"complete": False})
    with pytest.raises(CheckpointIncomplete, match="only a start") as caught:
        store.load(path)
    assert caught.value.exit_code == 5
    assert store.load(path, start=True)[1]["complete"] is False
    assert store.load(save(tmp_path, model, card={"complete": True}))


@pytest.mark.fault("C18")
def test_a_stop_between_the_two_renames_leaves_new_weights_with_their_card(tmp_path, model: LiteTrack) -> None:
    path = save(tmp_path, model, card={"steps": 1})
    old = path.with_suffix(".json").read_bytes()
    save(tmp_path, make(little_config(), seed=1), card={"steps": 2})
    new = store.load(path)[1]
    path.with_suffix(".json").write_bytes(old)
    assert store.load(path)[1] == new
    assert (new["steps"], new["sha256"]) == (2, sha256_of(path))
    assert cards.find_weights(path).sha256 == sha256_of(path)
    path.with_suffix(".json").unlink()
    assert store.load(path)[1] == new


def test_weights_are_never_written_with_numbers_that_could_not_be_read(tmp_path) -> None:
    model = make(little_config())
    with torch.no_grad():
        model.blocks[0].mlp.fc1.weight[1, 1] = 1e5  # fine as float32, infinite as float16
    save(tmp_path, model)
    with pytest.raises(CheckpointNonFinite, match=r"blocks\.0\.mlp\.fc1\.weight"):
        save(tmp_path, model, half=True)
    store.load(tmp_path / "weights.safetensors")  # the one before is still there


def test_only_safetensors_are_written(tmp_path, model: LiteTrack) -> None:
    with pytest.raises(UsageError, match=r"weights\.pth"):
        store.save(tmp_path / "weights.pth", model, tracker="litetrack", size="base", card={})


def test_names_without_weights(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cards, "PACKAGED", tmp_path)
    with pytest.raises(ModelNotFound, match="litetrack-base"):
        cards.find_file("litetrack-base")
    with pytest.raises(ModelNotFound, match="litetrak-tiny") as caught:
        cards.find_file("litetrak-tiny")
    assert "litetrack-tiny" in caught.value.hint


def test_packaged_weights_are_those_of_their_name(tmp_path, model: LiteTrack, monkeypatch) -> None:
    monkeypatch.setattr(cards, "PACKAGED", tmp_path)
    store.save(tmp_path / "litetrack-base.safetensors", model, tracker="litetrack", size="base", card={})
    assert store.load("litetrack-base")[1]["size"] == "base"
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"litetrack-base{suffix}").rename(tmp_path / f"litetrack-tiny{suffix}")
    with pytest.raises(CheckpointMismatch, match="litetrack-base"):
        store.load("litetrack-tiny")


def test_shared_tensors_are_left_out_and_come_back(tmp_path: Path) -> None:
    model, _ = store.load("litetrack-tiny")
    whole, shared = tmp_path / "whole.safetensors", tmp_path / "shared.safetensors"
    for path in (whole, shared):
        store.save(path, model, tracker="litetrack", size="tiny", card={}, half=True, share=path == shared)
    assert shared.stat().st_size < whole.stat().st_size - 4_500_000
    assert json.loads(shared.with_suffix(".json").read_text())["shared"] == sha256_of(store.SHARED)
    again, expected = store.load(shared)[0].state_dict(), store.load(whole)[0].state_dict()
    for name, tensor in expected.items():
        if name == store.WORD_TABLE:  # 8 bits a number
            assert torch.allclose(again[name], tensor, atol=0.01)
            assert torch.equal(again[name], store.word_vectors())
        else:
            assert torch.equal(again[name], tensor), name


def test_a_tensor_of_its_own_is_kept(tmp_path: Path) -> None:
    model, _ = store.load("litetrack-tiny")
    with torch.no_grad():
        model.state_dict()["stem.trunk.convs.0.bias"][0] += 1
    store.save(tmp_path / "a.safetensors", model, tracker="litetrack", size="tiny", card={}, share=True)
    kept = cards.shapes_of(tmp_path / "a.safetensors")
    assert [name for name in kept if name.startswith("stem.trunk.")] == ["stem.trunk.convs.0.bias"]
    assert torch.equal(
        store.load(tmp_path / "a.safetensors")[0].state_dict()["stem.trunk.convs.0.bias"],
        model.state_dict()["stem.trunk.convs.0.bias"],
    )


@pytest.mark.fault("C03")
@pytest.mark.parametrize(
    ("change", "error"), [("missing", ModelNotFound), ("cut", CheckpointCorrupt), ("other", CheckpointMismatch)]
)
def test_a_damaged_or_missing_shared_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, error: type[Exception]
) -> None:
    model, _ = store.load("litetrack-tiny")
    store.save(tmp_path / "a.safetensors", model, tracker="litetrack", size="tiny", card={}, share=True)
    data, other = store.SHARED.read_bytes(), tmp_path / "shared.safetensors"
    if change != "missing":
        other.write_bytes(data[:-9] if change == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    monkeypatch.setattr(store, "SHARED", other)
    with pytest.raises(error, match="shared"):
        store.load(tmp_path / "a.safetensors")


def test_a_new_shared_file_leaves_the_weights_that_ship_loadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged, litetrack = tmp_path / "weights", cards.PACKAGED / "litetrack-tiny.safetensors"
    packaged.mkdir()
    monkeypatch.setattr(cards, "PACKAGED", packaged)
    for name in ("shared", "bit-tracker-tiny"):
        for kind in ("safetensors", "json"):
            (packaged / f"{name}.{kind}").write_bytes((store.SHARED.parent / f"{name}.{kind}").read_bytes())
    monkeypatch.setattr(store, "SHARED", packaged / "shared.safetensors")
    path, before = packaged / "bit-tracker-tiny.safetensors", store.load(litetrack)[0]
    expected, old = store.load(path)[0].state_dict(), store.SHARED.read_bytes()
    with torch.no_grad():
        before.state_dict()["stem.trunk.convs.0.bias"][0] += 1  # a stem that was trained anew
    store.save_shared(before, store.load_grounder()[0], {})
    assert store.SHARED.read_bytes() != old
    again = store.load(path)[0].state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())

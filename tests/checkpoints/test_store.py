"""Our checkpoints: written whole or not at all, found by name or path, and read only as what they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model_cases import make, narrow_base, small
from vltrack.checkpoints import store
from vltrack.core import files
from vltrack.core.errors import (
    CheckpointCorrupt,
    CheckpointMismatch,
    CheckpointNonFinite,
    ModelNotFound,
    ResourceError,
    UsageError,
)
from vltrack.core.files import sha256_of
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
    assert store.read_card(path) == card


def test_the_same_weights_are_the_same_bytes(tmp_path, model: LiteTrack) -> None:
    first = save(tmp_path, model).read_bytes()
    assert save(tmp_path, model).read_bytes() == first


def test_a_loaded_model_has_its_own_configuration(tmp_path, model: LiteTrack) -> None:
    loaded, card = store.load(save(tmp_path, model, half=True), tracker="litetrack")
    assert loaded.config == little_config()
    assert card["dtypes"]["float16"] > 0
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.json"])
def test_either_file_names_the_checkpoint(tmp_path, model: LiteTrack, name: str) -> None:
    path = save(tmp_path, model)
    assert store.find(path.with_name(name)) == path


@pytest.mark.fault("C18")
@pytest.mark.parametrize("failing", ["write", "flush"])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, model: LiteTrack, monkeypatch, failing: str) -> None:
    path = save(tmp_path, model)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="disk is full"):
        if failing == "write":
            patch.setattr(Path, "write_bytes", _disk_full)
        else:
            patch.setattr(files.os, "fsync", _disk_full)
        save(tmp_path, make(little_config(), seed=1))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    store.load(path)


def _disk_full(*arguments: object) -> int:
    raise OSError(28, "No space left on device")


def test_a_stop_between_the_two_renames_is_noticed(tmp_path, model: LiteTrack) -> None:
    path = save(tmp_path, model)
    card = path.with_suffix(".json").read_bytes()
    save(tmp_path, make(little_config(), seed=1))
    path.with_suffix(".json").write_bytes(card)
    with pytest.raises(CheckpointCorrupt, match="sha256"):
        store.load(path)


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
    monkeypatch.setattr(store, "PACKAGED", tmp_path)
    with pytest.raises(ModelNotFound, match="litetrack-base"):
        store.find("litetrack-base")
    with pytest.raises(ModelNotFound, match="litetrak-tiny") as caught:
        store.find("litetrak-tiny")
    assert "litetrack-tiny" in caught.value.hint


def test_packaged_weights_are_those_of_their_name(tmp_path, model: LiteTrack, monkeypatch) -> None:
    monkeypatch.setattr(store, "PACKAGED", tmp_path)
    store.save(tmp_path / "litetrack-base.safetensors", model, tracker="litetrack", size="base", card={})
    assert store.load("litetrack-base")[1]["size"] == "base"
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"litetrack-base{suffix}").rename(tmp_path / f"litetrack-tiny{suffix}")
    with pytest.raises(CheckpointMismatch, match="litetrack-base"):
        store.load("litetrack-tiny")

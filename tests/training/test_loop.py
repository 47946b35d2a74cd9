"""The loop: a resumed run is the run that was never stopped, to the bit; bad runs are refused in words."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from model_cases import CONFIGS, make
from vltrack.checkpoints import store
from vltrack.core.errors import CheckpointCorrupt, ConfigError, DataError, Diverged, ModelNotFound, StateError
from vltrack.core.types import Mode
from vltrack.datasets.cutouts import build_cutouts
from vltrack.datasets.images import ImageSet
from vltrack.models.base import MODE_IDS
from vltrack.training import loop as run
from vltrack.training.checkpoint import PlateauUnfreezer, averaged, freeze
from vltrack.training.data import PairDataset
from vltrack.training.init import fresh_model
from vltrack.training.launch import configured, main_train
from vltrack.training.pairs.sampler import PairConfig
from vltrack.training.publish import publish
from vltrack.training.recipes import LITETRACK_TEXT, TrainConfig, litetrack_tiny, litetrack_tiny_text


def short(**changes: Any) -> TrainConfig:
    """The shipped recipe cut to seconds."""
    return replace(
        litetrack_tiny(),
        word_init="random",
        steps=4,
        batch=2,
        save_every=2,
        validate_every=99,
        warmup=2,
        **changes,
    )


def bytes_of(out: Path) -> bytes:
    """The tensors of a run's last checkpoint."""
    return (out / json.loads((out / "last.json").read_text())["file"]).read_bytes()


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.fault("T02")
def test_a_stopped_and_resumed_run_equals_one_that_was_not_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run.train(short(), data=data, out=whole, resume=False, device="cpu", workers=0)
    real_step = run._Loop._step
    calls = []

    def stops(self: Any, wrapped: nn.Module, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real_step(self, wrapped, batch)

    monkeypatch.setattr(run._Loop, "_step", stops)
    with pytest.raises(KeyboardInterrupt):
        run.train(short(), data=data, out=broken, resume=False, device="cpu", workers=0)
    assert json.loads((broken / "last.json").read_text())["step"] == 2
    monkeypatch.setattr(run._Loop, "_step", real_step)
    run.train(short(), data=data, out=broken, resume=True, device="cpu", workers=0)
    assert bytes_of(broken) == bytes_of(whole)

    publish(broken, tmp_path / "w.safetensors")
    model, card = store.load(tmp_path / "w.safetensors")
    assert card["steps"] == 4
    assert card["recipe"]["batch"] == 2
    assert not model.training


@pytest.mark.fault("T05")
def test_a_run_is_not_overwritten_mixed_or_invented(data: Path, tmp_path: Path) -> None:
    run.train(
        replace(short(), steps=1, save_every=1),
        data=data,
        out=tmp_path / "r",
        resume=False,
        device="cpu",
        workers=0,
    )
    with pytest.raises(StateError, match="holds a run already"):
        run.train(short(), data=data, out=tmp_path / "r", resume=False)
    with pytest.raises(StateError, match="learning_rate"):
        run.train(replace(short(), steps=1, learning_rate=0.5), data=data, out=tmp_path / "r", resume=True)
    with pytest.raises(StateError, match="no run to resume"):
        run.train(short(), data=data, out=tmp_path / "none", resume=True)


@pytest.mark.fault("T06")
def test_a_damaged_checkpoint_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    run.train(
        replace(short(), steps=1, save_every=1), data=data, out=out, resume=False, device="cpu", workers=0
    )
    path = out / json.loads((out / "last.json").read_text())["file"]
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(CheckpointCorrupt):
        run.train(replace(short(), steps=1, save_every=1), data=data, out=out, resume=True, workers=0)
    with pytest.raises(CheckpointCorrupt):
        publish(out, tmp_path / "w.safetensors")


@pytest.mark.fault("T07")
def test_a_gradient_that_is_not_finite_stops_the_run_and_keeps_the_good_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda parameters, norm: torch.tensor(float("nan")))
    with pytest.raises(Diverged, match="not finite"):
        run.train(
            replace(short(), steps=9), data=data, out=tmp_path / "r", resume=False, device="cpu", workers=0
        )


def test_the_log_has_a_line_a_period_and_no_line_twice_after_a_resume(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOG_EVERY", 1)
    out = tmp_path / "r"
    run.train(short(), data=data, out=out, resume=False, device="cpu", workers=0)
    with (out / "log.csv").open("a") as file:
        file.write("5,lost line\n")
    run.train(short(), data=data, out=out, resume=True, device="cpu", workers=0)
    rows = table(out / "log.csv")
    assert [int(r["step"]) for r in rows] == [1, 2, 3, 4]
    assert all(np.isfinite(float(r["total"])) for r in rows)
    assert [r["step"] for r in table(out / "validation.csv")] == ["4"]


def test_the_rate_warms_up_and_falls_to_its_floor() -> None:
    config = replace(litetrack_tiny(), steps=1000, warmup=100)
    rates = [run.schedule(config, step) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0)
    assert rates[1000] == pytest.approx(config.final_rate)


def test_plateaus_set_layers_free_in_order_and_a_resume_keeps_them_free() -> None:
    layers = [nn.Linear(2, 2) for _ in range(3)]
    norm = nn.LayerNorm(2)
    freeze([nn.Sequential(*layers, norm)])
    assert all(p.requires_grad for p in norm.parameters())
    plan = PlateauUnfreezer(list(layers), patience=2, delta=0.01)
    freed = [plan.period(loss, step) for step, loss in enumerate([1.0, 0.5, 0.5, 0.5, 0.5, 0.5])]
    assert freed == [False, False, False, True, False, True]
    assert [layer.weight.requires_grad for layer in layers] == [True, True, False]
    again = [nn.Linear(2, 2).requires_grad_(False) for _ in range(3)]
    distractor = PlateauUnfreezer(list(again), patience=2, delta=0.01)
    distractor.restore(plan.state())
    assert [layer.weight.requires_grad for layer in again] == [True, True, False]
    assert distractor.history == [3, 5]


def test_settings_of_the_command_reach_the_recipe_and_unknown_ones_are_named() -> None:
    options = {
        "model": "litetrack",
        "size": "tiny",
        "settings": {"pairs.negative_share": "0.2", "bf16": "false"},
    }
    config = configured({**options, "steps": 7, "seed": 3})
    assert (config.pairs.negative_share, config.bf16, config.steps, config.seed) == (0.2, False, 7, 3)
    with pytest.raises(ConfigError, match="learning_rate"):
        configured({**options, "settings": {"learning_rat": "1"}})
    with pytest.raises(ConfigError, match="no float"):
        configured({**options, "settings": {"clip": "much"}})
    with pytest.raises(ModelNotFound):
        configured({**options, "size": "huge"})


def test_without_the_stem_the_remedy_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mobilenet_v2_stem"):
        fresh_model(short(), tmp_path)


def test_the_second_part_changes_what_listens_and_nothing_else(data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run.train(short(), data=data, out=first, resume=False, device="cpu", workers=0)
    config = replace(
        litetrack_tiny_text(str(first)), word_init="random", steps=2, batch=2, save_every=2, warmup=1
    )
    run.train(config, data=data, out=second, resume=False, device="cpu", workers=0)
    before, after = averaged(first), averaged(second)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert {name for name in changed if not name.startswith(LITETRACK_TEXT)} == set()
    publish(second, tmp_path / "w.safetensors")
    card = (tmp_path / "w.json").read_text()
    assert json.loads(card)["recipe"]["start"]["steps"] == 4
    assert str(tmp_path) not in card


def test_later_shares_hold_from_their_index_on(data: Path, tmp_path: Path) -> None:
    build_cutouts(ImageSet.load(data), tmp_path / "cut.npz")
    boxes = PairConfig(scene_share=0.0, text_share=0.0, template_size=112, search_size=224)
    words = replace(boxes, scene_share=1.0)
    pairs = PairDataset(boxes, data, tmp_path / "cut.npz", 1, 24, later=(4, words))
    assert [int(pairs[index]["flag"]) for index in range(4)] == [MODE_IDS[Mode.BBOX]] * 4
    assert MODE_IDS[Mode.NL] in [int(pairs[index]["flag"]) for index in range(4, 8)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_and_publish(data: Path, tmp_path: Path) -> None:
    options = {"model": "litetrack", "size": "tiny", "data": data, "out": tmp_path / "r", "processes": 2}
    settings = {"words": "random", "save_every": "2"}
    assert main_train({**options, "steps": 2, "batch": 2, "device": "cpu", "settings": settings}) == 0
    assert (tmp_path / "r" / "litetrack-tiny.safetensors").exists()


@pytest.mark.parametrize("name", ["litetrack narrow base", "bit-tracker tiny", "bit-tracker narrow base"])
def test_pairs_are_cut_as_the_model_cuts(name: str) -> None:
    model = make(CONFIGS[name]())
    pairs = run.cut_for(model, PairConfig(negative_share=0.25, search_factor=3.0, search_size=100))
    assert (pairs.template_size, pairs.template_factor) == (model.template_size, model.template_factor)
    assert (pairs.search_size, pairs.search_factor) == (model.search_size, model.search_factor)
    assert pairs.negative_share == 0.25

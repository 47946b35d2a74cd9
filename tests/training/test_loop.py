"""The training loop: log, schedule, unfreezing, parts of a training; faults are in tests/faults."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import small_training as small
from model_cases import CONFIGS, make
from small_training import train, use_toy
from vltrack.checkpoints import store
from vltrack.core.errors import GroundingFailed, ModelNotFound
from vltrack.core.types import Mode, Target
from vltrack.datasets.synthetic import synthesize_clip
from vltrack.models.base import MODE_IDS
from vltrack.training import loop, validation
from vltrack.training.checkpoint import PlateauUnfreezer, averaged, freeze
from vltrack.training.data import Material, PairDataset, TextEncoding, open_data
from vltrack.training.launch import configured, main_train
from vltrack.training.pairs.sampler import PairConfig
from vltrack.training.publish import publish
from vltrack.training.recipes import LITETRACK_TEXT, litetrack_tiny, litetrack_tiny_text, to_dict
from vltrack.training.sources import find_sources


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_log_has_a_line_per_period_and_none_twice_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_toy(monkeypatch)
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    out, calls = tmp_path / "run", []
    train(small.short(steps=4), out, progress=lambda *given: calls.append(given))
    assert [(step, steps) for step, steps, note in calls if "pairs/s" in note] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [note for _, _, note in calls[4:]] == [
        "tracking synthetic clips", "overlap on synthetic clips: bbox 0.500, nlbbox 0.500, nl 0.500",
    ]  # fmt: skip
    with (out / "log.csv").open("a") as file:
        file.write("5,lost line\n")
    train(small.short(steps=4), out, resume=True)
    rows = table(out / "log.csv")
    assert [int(r["step"]) for r in rows] == [1, 2, 3, 4]
    assert all(np.isfinite(float(r["total"])) for r in rows)
    assert [r["step"] for r in table(out / "validation.csv")] == ["4"]


def test_validation_counts_a_text_that_finds_nothing_as_no_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(image: object, target: Target) -> None:
        raise GroundingFailed("nothing found")

    clip = synthesize_clip(7_000, 2)
    assert validation._overlap(SimpleNamespace(start=start), clip, Mode.NL) == 0.0


def test_the_rate_warms_up_and_falls() -> None:
    config = replace(litetrack_tiny(), steps=1000, warmup=100)
    rates = [loop.schedule(config, step) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0)
    assert rates[1000] == pytest.approx(config.final_rate)
    steps = [loop.schedule(replace(config, rate_drop_at=0.8), step) for step in (99, 100, 799, 800, 999)]
    assert steps == [1.0, 1.0, 1.0, 0.1, 0.1]


def test_accumulated_parts_give_the_step_of_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to rounding, for a loss that is a mean over samples."""
    use_toy(monkeypatch)
    monkeypatch.setattr(small.Toy, "train", lambda self, mode=True: nn.Module.train(self, False))  # no batch statistics
    for accumulate in (1, 4):
        train(small.short(batch=4, accumulate=accumulate, bf16=False), tmp_path / str(accumulate))
    whole, parts = (averaged(tmp_path / str(accumulate)) for accumulate in (1, 4))
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)
    assert any(not torch.equal(whole[name], small.Toy().state_dict()[name]) for name in whole)


def test_plateaus_unfreeze_layers_in_order_and_a_resume_keeps_them_unfrozen() -> None:
    layers = [nn.Linear(2, 2) for _ in range(3)]
    norm = nn.LayerNorm(2)
    freeze([nn.Sequential(*layers, norm)])
    assert all(p.requires_grad for p in norm.parameters())
    plan = PlateauUnfreezer(list(layers), patience=2, delta=0.01)
    freed = [plan.period(loss, step) for step, loss in enumerate([1.0, 0.5, 0.5, 0.5, 0.5, 0.5])]
    assert freed == [False, False, False, True, False, True]
    assert [layer.weight.requires_grad for layer in layers] == [True, True, False]
    again = [nn.Linear(2, 2).requires_grad_(False) for _ in range(3)]
    restored = PlateauUnfreezer(list(again), patience=2, delta=0.01)
    restored.restore(plan.state())
    assert [layer.weight.requires_grad for layer in again] == [True, True, False]
    assert restored.history == [3, 5]


def test_settings_of_the_command_reach_the_recipe() -> None:
    settings = {"pairs.negative_share": "0.2", "bf16": "false", "slow_rate": "0.5", "pairs.twin_share": "1"}
    options = {"model": "litetrack", "size": "tiny", "settings": settings}
    config = configured({**options, "steps": 7, "seed": 3})
    assert (config.pairs.negative_share, config.bf16, config.steps, config.seed) == (0.2, False, 7, 3)
    assert (config.low_lr_factor, config.pairs.distractor_share) == (0.5, 1.0)
    stored = to_dict(config)
    assert (stored["slow_rate"], stored["pairs"]["twin_share"]) == (0.5, 1.0)
    with pytest.raises(ModelNotFound, match="litetrack-huge"):
        configured({**options, "size": "huge"})


def test_the_second_part_changes_the_text_modules_and_nothing_else(data: Path, tmp_path: Path) -> None:
    """Two real runs, with rendered samples; the weights of the second are published and load."""
    first, second = tmp_path / "first", tmp_path / "second"
    short = {"word_init": "random", "batch": 2, "save_every": 2, "warmup": 1}
    config = replace(litetrack_tiny(), steps=3, **short)
    loop.train(config, sources=find_sources([data]), out=first, resume=False, device="cpu", workers=0)
    config = replace(litetrack_tiny_text(), start=str(first), steps=2, **short)
    loop.train(config, sources=find_sources([data]), out=second, resume=False, device="cpu", workers=0)
    before, after = averaged(first), averaged(second)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert {name for name in changed if not name.startswith(LITETRACK_TEXT)} == set()
    publish(second, tmp_path / "w.safetensors")
    model, card = store.load(tmp_path / "w.safetensors")
    assert not model.training
    assert (card["steps"], card["recipe"]["batch"], card["recipe"]["start"]["steps"]) == (2, 2, 3)
    assert str(tmp_path) not in (tmp_path / "w.json").read_text()


def test_later_shares_hold_from_their_index_on(data: Path) -> None:
    boxes = PairConfig(scene_share=0.0, text_share=0.0, template_size=112, search_size=224)
    words = replace(boxes, scene_share=1.0)
    texts = TextEncoding(vocabulary="bert", length=24)
    pairs = PairDataset(boxes, Material(stills=(data,)), texts, 1, later=(4, words))
    assert [int(pairs[index]["flag"]) for index in range(4)] == [MODE_IDS[Mode.BBOX]] * 4
    assert MODE_IDS[Mode.NL] in [int(pairs[index]["flag"]) for index in range(4, 8)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_and_publish(data: Path, tmp_path: Path) -> None:
    options = {"model": "litetrack", "size": "tiny", "data": [data], "out": tmp_path / "r", "processes": 2}
    settings = {"words": "random", "save_every": "2"}
    main_train({**options, "steps": 2, "batch": 2, "device": "cpu", "settings": settings})
    assert (tmp_path / "r" / "litetrack-tiny.safetensors").exists()


@pytest.mark.parametrize("name", ["litetrack narrow base", "bit-tracker tiny", "bit-tracker narrow base"])
def test_pairs_have_the_crops_of_the_model(name: str, data: Path, tmp_path: Path) -> None:
    model = make(CONFIGS[name]())
    model.vocabulary = "bert"
    config = small.short(pairs=PairConfig(negative_share=0.25, search_factor=3.0, search_size=100))
    pairs = open_data(config, find_sources([data]), model, tmp_path).config
    assert (pairs.template_size, pairs.template_factor) == (model.template_size, model.template_factor)
    assert (pairs.search_size, pairs.search_factor) == (model.search_size, model.search_factor)
    assert pairs.negative_share == 0.25

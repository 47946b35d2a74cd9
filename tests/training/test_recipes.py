"""Distractor fine-tuning: what it trains, what it starts from, what its card says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vltrack.checkpoints import cards, store
from vltrack.core.errors import ConfigError, ModelNotFound
from vltrack.core.types import Target
from vltrack.datasets.synthetic import synthesize_clip
from vltrack.models import MODELS, build, config_of
from vltrack.tracking.engine import Engine
from vltrack.tracking.postprocess import Policy
from vltrack.tracking.torch_network import TorchNetwork
from vltrack.training import loop
from vltrack.training.checkpoint import averaged
from vltrack.training.init import freezing, starting_model
from vltrack.training.launch import DISTRACTOR_RECIPES, configured
from vltrack.training.publish import publish
from vltrack.training.sources import find_sources


@pytest.mark.parametrize("name", sorted(DISTRACTOR_RECIPES))
def test_box_only_tracking_never_reads_what_the_part_trains(name: str) -> None:
    """With noise in all of it, box-only tracking stays unchanged to the bit; text-only tracking does not."""
    model, _ = store.load(name)
    clip = synthesize_clip(1_000_003, 4)
    x, y, w, h = (float(v) for v in clip.boxes[0])

    def outcome(target: Target) -> list[float]:
        engine = Engine(TorchNetwork(model.eval()), Policy(refresh_every=1, refresh_above=0.0))
        state, _ = engine.start(clip.frames[0], target)
        found = [*state.box, state.score]
        for image in clip.frames[1:]:
            (state,) = engine.step(image, [state])
            found += [*state.box, state.score]
        return found

    by_box, by_text = Target(box=(x, y, w, h)), Target(text=clip.sentence)
    before, from_text = outcome(by_box), outcome(by_text)
    only, generator = DISTRACTOR_RECIPES[name]().trainable, torch.Generator().manual_seed(0)
    touched = [p for n, p in model.named_parameters() if n.startswith(only)]
    with torch.no_grad():
        for parameter in touched:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    assert sum(parameter.numel() for parameter in touched) > 400_000
    assert outcome(by_box) == before
    assert outcome(by_text) != from_text


@pytest.mark.parametrize("tracker", MODELS)
def test_the_joint_part_leaves_the_stem_and_the_word_table_as_litetrack_has_them(tracker: str, tmp_path: Path) -> None:
    config = configured({"model": tracker, "size": "tiny", "part": "joint", "start": f"{tracker}-tiny"})
    model, litetrack = starting_model(config, tmp_path), store.load("litetrack-tiny")[0].state_dict()
    assert freezing(model, config).order == []
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert still == {n for n in model.state_dict() if n.startswith("stem.trunk.") or n == store.WORD_TABLE}
    assert all(torch.equal(model.state_dict()[name], litetrack[name]) for name in still)


def test_the_part_starts_from_weights_or_a_run(tmp_path: Path) -> None:
    options = {"model": "litetrack", "size": "tiny", "part": "twins"}
    with pytest.raises(ConfigError, match="--start"):
        configured(options)
    by_run = configured({**options, "start": tmp_path})
    assert (by_run.start, by_run.init_from) == (str(tmp_path), "")
    file = tmp_path / "w.safetensors"
    by_file = configured({**options, "start": file})
    assert (by_file.start, by_file.init_from) == (str(file), "")
    assert by_run.trainable == by_file.trainable != ()
    with pytest.raises(ModelNotFound, match="litetrack-base"):
        configured({**options, "size": "base", "start": file})


@pytest.mark.parametrize("name", sorted(set(DISTRACTOR_RECIPES) - {"litetrack-tiny"}))
def test_the_others_start_from_their_own_weights_and_text_modules_of_litetrack(
    name: str, data: Path, tmp_path: Path
) -> None:
    config = configured(
        {"model": name[: -len("-tiny")], "size": "tiny", "part": "twins", "start": cards.find_file(name)}
    )
    own, litetrack = (store.load(of)[0].state_dict() for of in (name, "litetrack-tiny"))
    model = starting_model(config, tmp_path)
    for key, tensor in model.state_dict().items():
        source = litetrack if any(re.match(pattern, key) for pattern in config.init_patterns) else own
        assert torch.equal(tensor, source[key]), key
    assert any(key.startswith("word_matcher.") for key in own)
    assert all(parameter.requires_grad for parameter in model.embed.text_correlation.parameters())
    freezing(model, config)
    trained = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert {"word_matcher", "bert"} < trained
    assert not trained & {"stem", "blocks", "encoder", "decoder", "head", "score_head", "matcher"}


def test_the_part_trains_from_a_file_that_its_card_names(data: Path, tmp_path: Path) -> None:
    start = tmp_path / "before.safetensors"
    card = MODELS["litetrack"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = build(card, config_of(card, "tiny"))
    about = {"recipe": {"steps": 3}, "steps": 3}
    store.save(start, model, tracker="litetrack", size="tiny", card=about, half=True)
    config = configured({"model": "litetrack", "size": "tiny", "part": "twins", "start": start})
    short = replace(config, steps=2, batch=2, save_every=2, validate_every=9, warmup=1)
    out = tmp_path / "run"
    loop.train(short, sources=find_sources([data]), out=out, resume=False, device="cpu", workers=0)
    before, after = store.load(start)[0].state_dict(), averaged(out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(config.trainable) for name in changed)
    publish(out, tmp_path / "after.safetensors")
    found = json.loads((tmp_path / "after.json").read_text())
    sha256 = json.loads(start.with_suffix(".json").read_text())["sha256"]
    assert found["recipe"]["start"] == {"weights": "before", "sha256": sha256, **about}
    assert str(tmp_path) not in json.dumps(found)

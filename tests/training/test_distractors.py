"""Samples in which the words decide, and the part of the training that they are for."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vltrack.checkpoints import cards, store
from vltrack.core.errors import ConfigError, ModelNotFound
from vltrack.core.types import Target, iou_xywh
from vltrack.datasets.cutouts import CutoutSet, build_cutouts
from vltrack.datasets.images import ImageSet
from vltrack.datasets.synthetic import COLORS, synthesize_clip
from vltrack.models import MODELS, build, config_of
from vltrack.tracking.engine import Engine
from vltrack.tracking.postprocess import Policy
from vltrack.training import loop as run
from vltrack.training.checkpoint import averaged
from vltrack.training.init import freezing, starting_model
from vltrack.training.launch import DISTRACTOR_RECIPES, configured
from vltrack.training.pairs.objects import Library
from vltrack.training.pairs.sampler import DISTRACTOR_SEEDS, PairConfig, PairSampler, Sample
from vltrack.training.publish import publish

ONLY = PairConfig(scene_share=1.0, text_share=0.0, distractor_share=1.0, split="all")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, CutoutSet]:
    """The tiny picture set of tests/datasets and its cut-outs."""
    path = Path(__file__).parent.parent / "datasets" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_pictures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = module.make_image_set(tmp_path_factory.mktemp("distractors"))
    pictures = ImageSet.load(root)
    return pictures, build_cutouts(pictures, root / "cut.npz")


def same(a: Sample, b: Sample) -> bool:
    pairs = zip(dataclasses.astuple(a), dataclasses.astuple(b), strict=True)
    return all(np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in pairs)


def test_a_scene_comes_with_its_two_sentences(material: tuple[ImageSet, CutoutSet]) -> None:
    sampler = PairSampler(ONLY, *material)
    for index in range(0, 24, 2):
        one, other = sampler.sample(3, 0, index), sampler.sample(3, 0, index + 1)
        assert one.mode == other.mode == "nl"
        assert one.text != other.text
        assert one.present.all()
        assert (iou_xywh(one.boxes.astype(float), other.boxes.astype(float)) < 0.3).all()
        # one picture: light and lens are shared, noise alone is not
        assert np.abs(one.searches.astype(int) - other.searches).mean() < 12


def test_a_twin_depends_on_nothing_but_its_numbers(material: tuple[ImageSet, CutoutSet]) -> None:
    one, two = PairSampler(ONLY, *material), PairSampler(ONLY, *material)
    backwards = [two.sample(1, 0, index) for index in reversed(range(6))][::-1]
    assert all(same(one.sample(1, 0, index), backwards[index]) for index in range(6))
    assert not np.array_equal(one.sample(2, 0, 0).searches, backwards[0].searches)


def test_the_box_holds_the_colour_that_the_sentence_names(material: tuple[ImageSet, CutoutSet]) -> None:
    """Looks change light and saturation: the middle of the box still is nearest to the color named."""
    sampler, right, asked = PairSampler(ONLY, *material), 0, 0
    for index in range(60):
        sample = sampler.sample(5, 0, index)
        word = next((w for w in sample.text.replace("dark", "black").split() if w in COLORS), None)
        if word not in ("red", "green", "blue") or "ring" in sample.text:
            continue
        x, y, w, h = sample.boxes[0]
        middle = sample.searches[0][int(y + 0.45 * h) : int(y + 0.6 * h) + 1, int(x + w / 2) - 1 :][:, :3]
        asked += 1
        right += int(middle.reshape(-1, 3).mean(axis=0).argmax() == ("red", "green", "blue").index(word))
    assert asked > 10
    assert right / asked > 0.85  # another shape may lie over the middle


def test_shares_hold_and_without_twins_nothing_changes(material: tuple[ImageSet, CutoutSet]) -> None:
    half, none = (
        PairSampler(
            PairConfig(scene_share=0.8, text_share=0.2, distractor_share=share, split="all"), *material
        )
        for share in (0.5, 0.0)
    )
    changed = [not same(half.sample(0, 0, i), none.sample(0, 0, i)) for i in range(0, 80, 2)]
    assert 0.2 < np.mean(changed) < 0.6
    assert none.sample(0, 0, 1).mode == half.sample(0, 0, 1).mode


def test_training_never_draws_the_scenes_of_validation_and_audit() -> None:
    from vltrack.training.loop import CLIPS, FIRST_SEED

    assert FIRST_SEED + CLIPS <= DISTRACTOR_SEEDS[0] < DISTRACTOR_SEEDS[1] <= 1_000_000


def test_a_recoloured_cut_out_has_another_clear_colour(material: tuple[ImageSet, CutoutSet]) -> None:
    library, found = Library(*material, "all"), 0
    for seed in range(20):
        distractors = library.draw_recolored(np.random.default_rng(seed))
        if distractors is None:
            continue
        found += 1
        first, second = distractors
        assert first.name == second.name != "person"
        assert first.color
        assert second.color
        assert first.color != second.color
    assert found > 5


@pytest.mark.parametrize(
    "bad", [{"distractor_share": 1.2}, {"distractor_share": -0.1}, {"recolor_share": 2.0}]
)
def test_impossible_shares_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="shares of pairs"):
        PairConfig(**bad)


@pytest.mark.parametrize("name", sorted(DISTRACTOR_RECIPES))
def test_what_the_twins_part_trains_is_never_read_with_a_box_alone(name: str) -> None:
    """All of it filled with noise: box mode stays to the bit, and a start by words does not."""
    model, _ = store.load(name)
    clip = synthesize_clip(1_000_003, 4)
    x, y, w, h = (float(v) for v in clip.boxes[0])

    def outcome(target: Target) -> list[float]:
        engine = Engine(model.eval(), torch.device("cpu"), Policy(refresh_every=1, refresh_above=0.0))
        state, _ = engine.start(clip.frames[0], target)
        told = [*state.box, state.score]
        for image in clip.frames[1:]:
            (state,) = engine.step(image, [state])
            told += [*state.box, state.score]
        return told

    by_box, by_words = Target(box=(x, y, w, h)), Target(text=clip.sentence)
    before, heard = outcome(by_box), outcome(by_words)
    only, generator = DISTRACTOR_RECIPES[name]().trainable, torch.Generator().manual_seed(0)
    touched = [p for n, p in model.named_parameters() if n.startswith(only)]
    with torch.no_grad():
        for parameter in touched:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    assert sum(parameter.numel() for parameter in touched) > 400_000
    assert outcome(by_box) == before
    assert outcome(by_words) != heard


def test_the_part_starts_from_weights_or_a_run_and_from_nothing_else(tmp_path: Path) -> None:
    options = {"model": "litetrack", "size": "tiny", "part": "twins"}
    with pytest.raises(ConfigError, match="--start"):
        configured(options)
    by_run = configured({**options, "start": tmp_path})
    assert (by_run.start, by_run.init_from) == (str(tmp_path), "")
    file = tmp_path / "w.safetensors"
    by_file = configured({**options, "start": file})
    assert (by_file.start, by_file.init_from) == (str(file), "")
    assert by_run.trainable == by_file.trainable != ()
    with pytest.raises(ModelNotFound, match="part twins for litetrack-base"):
        configured({**options, "size": "base", "start": file})


@pytest.mark.parametrize("name", sorted(set(DISTRACTOR_RECIPES) - {"litetrack-tiny"}))
def test_the_others_start_from_their_own_weights_with_ears_of_litetrack(
    name: str, data: Path, tmp_path: Path
) -> None:
    config = configured(
        {"model": name[: -len("-tiny")], "size": "tiny", "part": "twins", "start": cards.find_file(name)}
    )
    own, ears = (store.load(of)[0].state_dict() for of in (name, "litetrack-tiny"))
    model = starting_model(config, data)
    for key, tensor in model.state_dict().items():
        source = ears if any(re.match(pattern, key) for pattern in config.init_patterns) else own
        assert torch.equal(tensor, source[key]), key
    assert any(key.startswith("word_matcher.") for key in own)
    assert all(parameter.requires_grad for parameter in model.embed.text_correlation.parameters())
    freezing(model, config)
    trained = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert {"word_matcher", "bert"} < trained
    assert not trained & {"stem", "blocks", "encoder", "decoder", "head", "score_head", "matcher"}


def test_the_part_trains_from_a_file_and_its_card_says_from_which(data: Path, tmp_path: Path) -> None:
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
    run.train(short, data=data, out=out, resume=False, device="cpu", workers=0)
    before, after = store.load(start)[0].state_dict(), averaged(out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(config.trainable) for name in changed)
    publish(out, tmp_path / "after.safetensors")
    told = json.loads((tmp_path / "after.json").read_text())
    sha256 = json.loads(start.with_suffix(".json").read_text())["sha256"]
    assert told["recipe"]["start"] == {"weights": "before", "sha256": sha256, **about}
    assert str(tmp_path) not in json.dumps(told)

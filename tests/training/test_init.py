"""Start of a run: parts of other weights by name, whole weights; every tracker trains and resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model_cases import make
from small_training import use_noise
from vltrack.api.reporter import Reporter
from vltrack.api.train import train
from vltrack.checkpoints import store
from vltrack.checkpoints.cards import INIT
from vltrack.core.errors import CheckpointMismatch, CheckpointUnsafe, ModelNotFound, UsageError
from vltrack.models import MODELS, build, config_of
from vltrack.models.litetrack import tiny
from vltrack.nn.backbones import ResNet
from vltrack.prep.tokenizers import ARCHIVE
from vltrack.training import init, loop
from vltrack.training.init import copy_parts, freezing, init_parts, starting_model
from vltrack.training.launch import RECIPES, configured
from vltrack.training.recipes import BLOCKS, EMBEDDING

TINY = [f"{name}-tiny" for name in MODELS]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """LiteTrack tiny with random weights."""
    path = tmp_path / "other.safetensors"
    store.save(path, make(tiny(), seed=4), tracker="litetrack", size="tiny", card={})
    return path


def fresh(name: str) -> torch.nn.Module:
    card = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        model: torch.nn.Module = build(card, config_of(card, "tiny"))
    return model


def test_matching_parts_are_copied_and_nothing_else(other: Path) -> None:
    given, model = store.load(other)[0].state_dict(), fresh("all-in-one")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    names = copy_parts(str(other), model, EMBEDDING + BLOCKS)
    after = model.state_dict()
    assert any(name.startswith("stem.") for name in names)
    assert any(name.startswith("blocks.3.") for name in names)
    for name, tensor in after.items():
        assert torch.equal(tensor, given[name] if name in names else before[name]), name


def test_parameters_that_are_missing_are_named(other: Path) -> None:
    model = fresh("all-in-one")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointMismatch, match=r"norm\.weight"):
        copy_parts(str(other), model, (r"stem\.", r"norm\."))
    with pytest.raises(CheckpointMismatch, match="no_such_part"):
        copy_parts(str(other), model, (r"stem\.", "no_such_part"))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    with pytest.raises(ModelNotFound):
        copy_parts("litetrack-base", model, EMBEDDING)


def test_tiny_starts_from_the_imagenet_stem_and_the_words_that_ship(tmp_path: Path, shared: Path) -> None:
    with np.load(shared / "train" / "mobilenet_v2_stem.npz", allow_pickle=False) as published:
        model = starting_model(RECIPES["litetrack-tiny"](), tmp_path)
        for number, conv in enumerate(model.embed.stem.backbone.convs):
            for name, own in conv.named_parameters():
                assert np.array_equal(own.detach().numpy(), published[f"{number:02d}.{name}"].astype(np.float32))
    words = "bert.embeddings.word_embeddings.weight"
    table = store.word_vectors()
    assert torch.equal(model.state_dict()[words], table)
    random = starting_model(replace(RECIPES["litetrack-tiny"](), word_init="random"), tmp_path)
    assert not torch.equal(random.state_dict()[words], table)


def test_weights_can_be_the_start_of_a_run(other: Path, tmp_path: Path) -> None:
    config = configured({"model": "litetrack", "size": "tiny", "start": other})
    assert config.word_init == "random"
    source = store.load(other)[0].state_dict()
    model = starting_model(config, tmp_path)
    assert all(torch.equal(source[name], tensor) for name, tensor in model.state_dict().items())


def test_a_start_that_does_not_fit_leaves_nothing(other: Path, tmp_path: Path) -> None:
    """The folder of the run stays free, so that the corrected command can use it."""
    foreign = tmp_path / "theirs.pth"
    foreign.write_bytes(b"x")
    with pytest.raises(CheckpointUnsafe, match=r"theirs\.pth"):
        configured({"model": "aitrack", "size": "tiny", "start": foreign})
    config = configured({"model": "aitrack", "size": "tiny", "start": other})
    with pytest.raises(CheckpointMismatch, match="litetrack"):
        loop.train(config, sources=(), out=tmp_path / "run", resume=False, device="cpu")
    assert not (tmp_path / "run").exists()


def test_there_is_a_recipe_for_every_tracker() -> None:
    for name in MODELS:
        for size in ("tiny", "base"):
            assert RECIPES[f"{name}-{size}"]().model == name
    with pytest.raises(ModelNotFound, match="sa-tracker-tiny"):
        configured({"model": "sa-tracker", "size": "tiny", "start": "some/run"})


@pytest.mark.parametrize("name", [name for name in TINY if name != "litetrack-tiny"])
def test_recipes_of_the_tiny_sizes_find_their_parts(name: str) -> None:
    """The shipped weights of LiteTrack fit the other tiny trackers."""
    config = RECIPES[name]()
    model = fresh(config.model)
    names = copy_parts(config.init_from, model, config.init_patterns)
    assert sum(model.state_dict()[n].numel() for n in names) > 2_000_000
    unfreezer = freezing(model, config)
    assert not model.embed.stem.backbone.convs[0].weight.requires_grad
    assert len(unfreezer.order) == 2


@pytest.mark.fault("T02")
@pytest.mark.parametrize("name", TINY)
def test_every_tracker_trains_and_a_stopped_run_continues_to_the_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_noise(monkeypatch)
    config = replace(RECIPES[name](), word_init="random", steps=2, batch=2, save_every=1, validate_every=99, warmup=1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    loop.train(config, sources=(), out=whole, resume=False, device="cpu", workers=0)
    real_step, calls = loop._Loop._step, []

    def stops(self, *given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real_step(self, *given)

    monkeypatch.setattr(loop._Loop, "_step", stops)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, sources=(), out=broken, resume=False, device="cpu", workers=0)
    monkeypatch.setattr(loop._Loop, "_step", real_step)
    loop.train(config, sources=(), out=broken, resume=True, device="cpu", workers=0)
    first, second = ((out / "step-2.safetensors").read_bytes() for out in (whole, broken))
    assert first == second


def test_published_files_become_the_start_of_a_run(tmp_path: Path) -> None:
    config, out = RECIPES["bit-tracker-base"](), tmp_path / "run"
    network = ResNet(101).state_dict()
    torch.save(network, tmp_path / "resnet.pth")
    init_parts(config, {"resnet": tmp_path / "resnet.pth"}, out)
    model, converted = starting_model(config, out).state_dict(), load_file(out / INIT)
    key = "stem.body.layer3.5.conv2.weight"
    assert torch.equal(model[key], network[key.removeprefix("stem.body.")])
    other = next(name for name in model if name.startswith("encoder") and model[name].ndim > 1)
    assert not torch.equal(model[other], converted[other]), "what no file sets depends on the seed of the run"


@pytest.mark.parametrize(
    ("model", "kind", "error", "said"),
    [
        ("bit-tracker-base", "mae", UsageError, "Unknown kind of weights for bit-tracker-base: 'mae'"),
        ("bit-tracker-base", "resnet", ModelNotFound, "No such file"),
        ("litetrack-tiny", "mae", UsageError, "No published weights fit 'litetrack-tiny'"),
        ("litetrack-base", "vocabulary", UsageError, "ships with vltrack"),
        ("aitrack-base", "vocabulary", ModelNotFound, "No CLIP vocabulary"),
    ],
)
def test_published_files_that_do_not_fit_leave_nothing(
    model: str, kind: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        init_parts(RECIPES[model](), {kind: tmp_path / "missing.pth"}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_that_does_not_ship_goes_into_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RECIPES["aitrack-base"]()
    with pytest.raises(ModelNotFound, match="does not ship"):
        init_parts(config, {}, tmp_path / "run")
    monkeypatch.setattr(init, "load_tokenizer", lambda *given: None)
    (tmp_path / ARCHIVE).write_bytes(b"pieces")
    init_parts(config, {"vocabulary": tmp_path / ARCHIVE}, tmp_path / "run")
    assert (tmp_path / "run" / ARCHIVE).read_bytes() == b"pieces"
    init_parts(replace(config, start=str(tmp_path / "run")), {}, tmp_path / "next")
    assert (tmp_path / "next" / ARCHIVE).read_bytes() == b"pieces"


def test_a_model_that_ships_can_be_started_from_by_name(tmp_path: Path) -> None:
    options = {"model": "litetrack", "size": "tiny", "start": "litetrack-tiny"}
    assert configured(options).init_from == "litetrack-tiny"
    config = configured({**options, "own_clips": True})
    assert (config.start, config.learning_rate, config.batch) == ("litetrack-tiny", 2e-4, 16)
    source = store.load("litetrack-tiny")[0].state_dict()
    assert all(torch.equal(source[k], v) for k, v in starting_model(config, tmp_path).state_dict().items())
    with pytest.raises(ModelNotFound, match="litetrack-tiny"):
        starting_model(configured({**options, "start": "litetrak-tiny"}), tmp_path)


def test_a_base_size_without_its_published_files_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    reporter = Reporter()
    monkeypatch.setattr(reporter, "warn", said.append)

    def stops(options: dict[str, object], progress: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vltrack.training.launch.main_train", stops)
    torch.save(ResNet(101).state_dict(), tmp_path / "resnet.pth")
    for name, size, given in (
        ("bit-tracker", "base", {}),
        ("bit-tracker", "tiny", {}),
        ("bit-tracker", "base", {"resnet": tmp_path / "resnet.pth"}),
    ):
        with pytest.raises(KeyboardInterrupt):
            train(name, size=size, data=use_images(tmp_path), out=tmp_path / "run", init=given, reporter=reporter)
    assert said == ["bit-tracker-base starts from random numbers; published weights for it: --init resnet=FILE."]
    assert (tmp_path / "run" / INIT).exists()
    # The same command again: what a stopped one has converted does not count as a run.
    with pytest.raises(KeyboardInterrupt):
        train("bit-tracker", data=use_images(tmp_path), out=tmp_path / "run")
    assert not (tmp_path / "run" / INIT).exists()


def use_images(root: Path) -> Path:
    """A folder with an index of images, which no test here reads."""
    (root / "images").mkdir(exist_ok=True)
    (root / "images" / "index.jsonl").write_text("")
    return root / "images"

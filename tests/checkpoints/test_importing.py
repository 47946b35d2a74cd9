"""Published weights become ours: recognized, mapped, written with a card that keeps nothing to itself."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_cases import CONFIGS
from vltrack.checkpoints import importing, store
from vltrack.checkpoints.importing import Imported, import_weights
from vltrack.checkpoints.sources import MODES, SOURCES
from vltrack.core.errors import CheckpointIncomplete, CheckpointMismatch, ModelNotFound, UsageError
from vltrack.models import ModelCard, build, split_name

PAIRS = [(kind, name) for kind, source in SOURCES.items() for name in source.maps]
WORDS = "ab" * 32


def narrow_config(card: ModelCard, size: str) -> Any:
    """In place of ``models.config_of``: the same network with every width cut down."""
    return CONFIGS[f"{card.name} narrow {size}"]()


@cache
def shapes_of(name: str) -> dict[str, torch.Size]:
    """Every parameter of one of ours, narrow."""
    card, size = split_name(name)
    model = build(card, narrow_config(card, size))
    return {own: tensor.shape for own, tensor in model.state_dict().items()}


def published(kind: str, name: str, seed: int = 0) -> dict[str, Tensor]:
    """The tensors of a file of this kind that fits ``name``, drawn anew."""
    keymap = SOURCES[kind].maps[name]
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for own, shape in shapes_of(name).items():
        there = keymap.published(own)
        if there is not None:
            tensors[keymap.wrapper + there] = torch.rand(shape, generator=random) + 0.1
    return tensors | beside(kind, tensors)


def beside(kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the file holds that has no place with us."""
    if not kind.startswith("all-in-one"):
        return {}
    width = len(tensors["net.backbone.patch_embed.proj.bias"])
    table = "net.language_embeddings."
    return {
        f"{table}word_embeddings.weight": torch.ones(200, width),
        f"{table}position_embeddings.weight": torch.rand(40, width),
        f"{table}token_type_embeddings.weight": torch.zeros(2, width),
        f"{table}LayerNorm.weight": torch.ones(width),
        f"{table}LayerNorm.bias": torch.zeros(width),
    }


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "config_of", narrow_config)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "ours.safetensors"


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path)
    return path


def brought(folder: Path, kind: str, name: str, **options: Any) -> Imported:
    file = saved(folder / f"{kind}.safetensors", published(kind, name))
    return import_weights([file], name, folder / "ours.safetensors", vocabulary_sha256=WORDS, **options)


def test_every_name_in_the_table_is_one_of_ours() -> None:
    for kind, name in PAIRS:
        card, size = split_name(name)
        assert narrow_config(card, size), kind
    for source in SOURCES.values():
        assert set(source.starts) <= set(source.maps)
        assert set(source.trained) <= set(MODES)


def test_the_first_mark_in_a_file_is_its_own() -> None:
    for kind, source in SOURCES.items():
        given = published(kind, next(iter(source.maps)))
        first = next(s for s in SOURCES.values() if any(re.search(s.mark, name) for name in given))
        assert first.title == source.title


@pytest.mark.parametrize(("kind", "name"), PAIRS, ids=[" as ".join(pair) for pair in PAIRS])
def test_each_kind_is_recognised_loaded_and_accounted_for(tmp_path: Path, kind: str, name: str) -> None:
    source = SOURCES[kind]
    done = brought(tmp_path, kind, name, kinds=[kind] if source.ambiguous else [])
    (part,) = done.parts
    assert part.kind == kind
    model, card = store.load(done.path, start=True)
    state, given = model.state_dict(), published(kind, name)
    assert set(part.loaded) | set(done.kept_fresh) == set(state)
    assert not set(part.loaded) & set(done.kept_fresh)
    assert part.loaded
    for own in part.loaded:
        there = source.maps[name].wrapper + str(source.maps[name].published(own))
        assert source.prepared or torch.equal(state[own], given[there]), own
    trained = bool(source.trained) and name not in source.starts
    assert (card["complete"], bool(card["modes"]), done.complete) == (trained,) * 3
    assert done.kept_fresh == tuple(card["kept_fresh"])
    if trained:
        store.load(done.path)
    else:
        with pytest.raises(CheckpointIncomplete):
            store.load(done.path)


def test_the_card_says_where_the_numbers_come_from(tmp_path: Path, out: Path) -> None:
    given = published("mae", "litetrack-base")
    given |= {"model.pos_embed": torch.zeros(1, 197, 64), "model.norm.weight": torch.ones(64)}
    given["model.blocks.0.norm1.bias"] = given["model.blocks.0.norm1.bias"].half()
    content = {"model": OrderedDict((n.removeprefix("model."), t) for n, t in given.items()), "epoch": 3}
    content["optimizer"] = {"state": {0: {"exp_avg": torch.zeros(3)}}}
    file = tmp_path / "mae_pretrain_vit_base.pth"
    torch.save(content, file)
    import_weights([file], "litetrack-base", out, vocabulary_sha256=WORDS)
    card = json.loads(out.with_suffix(".json").read_text())
    (part,) = card["imported"]
    assert part["file"] == file.name
    assert part["sha256"] == importing.sha256_of(file)
    assert part["bytes"] == file.stat().st_size
    assert (part["kind"], part["licence"]) == ("mae", "CC-BY-NC-4.0")
    assert part["number_types"] == {"float32": len(given) - 1, "float16": 1}
    assert set(part["ignored"]) == {"pos_embed", "norm.weight"}
    assert part["loaded"] == len(given) - 2
    assert card["complete"] is False
    assert card["vocabulary_sha256"] == WORDS
    assert "head.prompter.queries" in card["kept_fresh"]
    assert str(tmp_path) not in out.with_suffix(".json").read_text()


def test_several_files_fill_one_network(tmp_path: Path, out: Path) -> None:
    mae = saved(tmp_path / "mae.safetensors", published("mae", "litetrack-base"))
    bert = saved(tmp_path / "bert.safetensors", published("bert", "litetrack-base", seed=1))
    done = import_weights([mae, bert], "litetrack-base", out)
    assert [part.kind for part in done.parts] == ["mae", "bert"]
    assert {name.partition(".")[0] for name in done.parts[1].loaded} == {"bert"}
    assert not any(name.startswith(("bert.", "blocks.0.norm1")) for name in done.kept_fresh)
    first = load_file(out)
    again = load_file(import_weights([bert, mae], "litetrack-base", tmp_path / "again.safetensors").path)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first), "the same files in another order"
    with pytest.raises(CheckpointMismatch, match=rf"{mae.name} and .*{mae.name} both hold \d+ parameters"):
        import_weights([mae, bert, mae], "litetrack-base", tmp_path / "twice.safetensors")
    assert not (tmp_path / "twice.safetensors").exists()


def test_the_towers_of_clip_come_beside_a_tracker(tmp_path: Path, out: Path) -> None:
    name = "aitrack-base"
    files = [
        saved(tmp_path / f"{kind}.safetensors", published(kind, name, seed))
        for seed, kind in enumerate(("artrack", "alpha-clip", "clip"))
    ]
    done = import_weights(files, name, out)
    assert [part.kind for part in done.parts] == ["artrack", "alpha-clip", "clip"]
    assert {key.partition(".")[0] for key in done.kept_fresh} == {"align"}
    assert not done.complete
    with pytest.raises(CheckpointMismatch, match="both hold"):
        import_weights(files, name, out, kinds=["artrack", "alpha-clip", "clip-both"])


def test_random_numbers_of_the_caller_stay(tmp_path: Path) -> None:
    name = "all-in-one-ostrack-base"
    file = saved(tmp_path / "ostrack.safetensors", published("ostrack", name))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    import_weights([file], name, tmp_path / "ours.safetensors", vocabulary_sha256=WORDS)
    assert torch.equal(torch.rand(2), expected)


def test_all_in_one_keeps_its_constant_sentence(tmp_path: Path) -> None:
    """The released tracker scales all patches by one vector: here that stands in the patch embedding."""
    done = brought(tmp_path, "all-in-one", "all-in-one-base")
    given = published("all-in-one", "all-in-one-base")["net.backbone.patch_embed.proj.weight"]
    ours = store.load(done.path)[0].state_dict()["stem.patch_embed.proj.weight"]
    gain = (ours / given).flatten(1)
    assert torch.allclose(gain, gain[:, :1].expand_as(gain), rtol=1e-4)
    assert float((gain - 1).norm(dim=0)[0]) == pytest.approx(1, abs=1e-3)
    assert "folded" in json.loads(done.path.with_suffix(".json").read_text())["imported"][0]["prepared"]
    assert all(name.startswith(("bert.", "head.")) for name in done.kept_fresh)
    assert done.modes == ("bbox",)


def test_what_is_left_out_is_left_out_by_name(tmp_path: Path, out: Path) -> None:
    name = "all-in-one-ostrack-base"
    given = published("ostrack", name)
    head = {key for key in given if key.startswith("net.box_head.")}
    cut = saved(tmp_path / "cut.safetensors", {k: v for k, v in given.items() if k not in head})
    with pytest.raises(CheckpointMismatch, match=f"{len(head)} missing"):
        import_weights([cut], name, out)
    done = import_weights([cut], name, out, partial=["head."])
    assert all(key.startswith("head.") for key in done.kept_fresh)
    assert not done.complete
    assert json.loads(out.with_suffix(".json").read_text())["partial"] == ["head."]
    # The other way round: it is there, and shall not be taken; or it is more than we know.
    whole = saved(tmp_path / "whole.safetensors", {**given, "net.extra.weight": torch.ones(2)})
    with pytest.raises(CheckpointMismatch, match=r"1 unexpected .*extra\.weight"):
        import_weights([whole], name, out)
    for extra in ("extra.", "net.extra."):
        done = import_weights([whole], name, out, partial=[extra, "head.centre."])
        assert "extra.weight" in done.parts[0].ignored
        assert "box_head.conv5_ctr.weight" in done.parts[0].ignored
        assert {key.rpartition(".")[0].split(".")[1] for key in done.kept_fresh} >= {"centre"}
        assert "head.size.out.weight" in done.parts[0].loaded


def test_one_network_of_a_file_with_two(tmp_path: Path, out: Path) -> None:
    """Training code may keep a running mean of the network beside it."""
    name = "all-in-one-ostrack-base"
    given = published("ostrack", name)
    mean = {f"model.module.{key.removeprefix('net.')}": tensor + 1 for key, tensor in given.items()}
    file = saved(tmp_path / "two.safetensors", given | mean)
    with pytest.raises(CheckpointMismatch, match=r"holds two networks: ") as caught:
        import_weights([file], name, out)
    assert caught.value.hint.endswith("--partial model.module.")
    for left_out, sign in (("model.module.", 0), ("model.", 0), ("net.", 1)):
        done = import_weights([file], name, out, partial=[left_out])
        assert done.complete
        assert len(done.parts[0].ignored) == len(given)
        assert all(key.startswith(left_out) for key in done.parts[0].ignored)
        state = store.load(out)[0].state_dict()
        assert torch.equal(state["norm.weight"], given["net.backbone.norm.weight"] + sign)
    with pytest.raises(UsageError, match=r"'module\.'"):
        import_weights([saved(tmp_path / "one.safetensors", given)], name, out, partial=["module."])


def test_what_was_asked_for_wrongly(tmp_path: Path, out: Path) -> None:
    file = saved(tmp_path / "f.safetensors", published("ostrack", "all-in-one-ostrack-base"))
    name = "all-in-one-ostrack-base"
    for options, said in (
        ({"partial": ["haed."]}, r"'haed\.'"),
        ({"partial": [""]}, "empty prefix"),
        ({"kinds": ["uvltrack"]}, "all-in-one-ostrack-base: 'uvltrack'"),
        ({"kinds": ["ostrack", "mae"]}, "2 kinds for 1 files"),
    ):
        with pytest.raises(UsageError, match=said):
            import_weights([file], name, out, **options)
    with pytest.raises(UsageError, match="litetrack-tiny"):
        import_weights([file], "litetrack-tiny", out)
    with pytest.raises(ModelNotFound, match="'ostrack'"):
        import_weights([file], "ostrack", out)
    assert not out.exists()


def test_a_kind_can_be_asked_for(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "all-in-one-ostrack-base"
    file = saved(tmp_path / "f.safetensors", published("ostrack", name))
    monkeypatch.setitem(SOURCES, "twin", SOURCES["ostrack"])
    with pytest.raises(CheckpointMismatch, match="could be ostrack or twin") as caught:
        import_weights([file], name, out)
    assert "--kind" in caught.value.hint
    assert import_weights([file], name, out, kinds=["twin"]).parts[0].kind == "twin"


def test_clip_with_both_towers_only_when_asked(tmp_path: Path, out: Path) -> None:
    file = saved(tmp_path / "ViT-L-14.safetensors", published("clip-both", "aitrack-base"))
    done = import_weights([file], "aitrack-base", out)
    assert {name.partition(".")[0] for name in done.parts[0].loaded} == {"clip_text"}
    assert all(name.startswith("visual.") for name in done.parts[0].ignored)
    done = import_weights([file], "aitrack-base", out, kinds=["clip-both"])
    assert {name.partition(".")[0] for name in done.parts[0].loaded} == {"clip_text", "roi"}


def test_a_start_is_for_training(tmp_path: Path) -> None:
    from vltrack.training.init import copy_parts

    done = brought(tmp_path, "mae", "sa-tracker-base")
    card, size = split_name("sa-tracker-base")
    model = build(card, narrow_config(card, size))
    copy_parts(str(done.path), model, ("",))
    started = store.load(done.path, start=True)[0].state_dict()
    assert all(torch.equal(tensor, started[name]) for name, tensor in model.state_dict().items())

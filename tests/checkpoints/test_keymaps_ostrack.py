"""OSTrack's and All-in-One's published weights: the names fit, and the same weights give the same boxes.

The other side of the comparison is a straight line of torch functions over published names, written from the
facts of the released code; no part of ours is in it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from published_shapes import all_in_one_shapes, balanced, bert_shapes, mae_shapes, ostrack_shapes
from torch import Tensor
from torch.nn import functional as F

from model_cases import boxed, make, pictures, sentences
from vltrack.checkpoints.key_maps import (
    ALL_IN_ONE,
    MAE_BACKBONE,
    OSTRACK,
    KeyMap,
    apply_key_map,
    bert,
    fold_constant_sentence,
)
from vltrack.checkpoints.sources import SOURCES
from vltrack.core.errors import CheckpointMismatch
from vltrack.models.all_in_one import AllInOne, AllInOneConfig, base, ostrack_base

WIDTH, HEADS, CHANNELS = 48, 4, (16, 8, 4, 2)
NARROW: dict[str, Any] = {
    "width": WIDTH,
    "heads": HEADS,
    "head_channels": CHANNELS,
    "table_width": WIDTH,
    "align_width": 32,
}


def published_forward(
    p: dict[str, Tensor],
    template: Tensor,
    search: Tensor,
    *,
    gain: Tensor | None = None,
    asked: int = 3 * 8 + 3,
    eliminate: tuple[int, ...] = (3, 6, 9),
) -> tuple[Tensor, Tensor]:
    """OSTrack-256 from published names: center map (B, 16, 16), and the box at its peak as cx, cy, w, h."""
    p = {name.removeprefix("net."): tensor.double() for name, tensor in p.items()}
    patch = p["backbone.patch_embed.proj.weight"], p["backbone.patch_embed.proj.bias"]
    z, x = (F.conv2d(i.double(), *patch, stride=16).flatten(2).mT for i in (template, search))
    if gain is not None:
        z, x = z * gain, x * gain
    b, _, c = x.shape
    tokens = torch.cat([z + p["backbone.pos_embed_z"], x + p["backbone.pos_embed_x"]], dim=1)
    places = torch.arange(256).expand(b, -1)
    for i in range(12):
        w = {n.removeprefix(f"backbone.blocks.{i}."): t for n, t in p.items() if f"blocks.{i}." in n}
        h = F.layer_norm(tokens, (c,), w["norm1.weight"], w["norm1.bias"], 1e-6)
        qkv = F.linear(h, w["attn.qkv.weight"], w["attn.qkv.bias"])
        q, k, v = qkv.view(b, -1, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        attention = (q @ k.mT * (c // HEADS) ** -0.5).softmax(dim=-1)
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        tokens = tokens + F.linear(mixed, w["attn.proj.weight"], w["attn.proj.bias"])
        if i in eliminate:
            scores = attention[:, :, asked, 64:].mean(dim=1)
            best = scores.argsort(dim=1, descending=True)[:, : math.ceil(0.7 * scores.shape[1])]
            places = places.gather(1, best)
            kept = tokens[:, 64:].gather(1, best[..., None].expand(-1, -1, c))
            tokens = torch.cat([tokens[:, :64], kept], dim=1)
        h = F.layer_norm(tokens, (c,), w["norm2.weight"], w["norm2.bias"], 1e-6)
        h = F.gelu(F.linear(h, w["mlp.fc1.weight"], w["mlp.fc1.bias"]))
        tokens = tokens + F.linear(h, w["mlp.fc2.weight"], w["mlp.fc2.bias"])
    tokens = F.layer_norm(tokens, (c,), p["backbone.norm.weight"], p["backbone.norm.bias"], 1e-6)
    grid = torch.zeros(b, 256, c, dtype=torch.float64)
    for sample in range(b):
        grid[sample, places[sample]] = tokens[sample, 64:]
    maps = {t: tower(p, grid.mT.reshape(b, c, 16, 16), t) for t in ("ctr", "offset", "size")}
    center, size = (maps[t].sigmoid().clamp(1e-4, 1 - 1e-4) for t in ("ctr", "size"))
    peak = center.flatten(1).argmax(dim=1)
    offset, extent = (m.flatten(2)[torch.arange(b), :, peak] for m in (maps["offset"], size))
    corner = torch.stack([peak % 16, peak // 16], dim=1)
    return center[:, 0], torch.cat([(corner + offset) / 16, extent], dim=1)


def tower(p: dict[str, Tensor], x: Tensor, name: str) -> Tensor:
    for layer in range(1, 5):
        conv, norm = (f"box_head.conv{layer}_{name}.{part}." for part in (0, 1))
        x = F.conv2d(x, p[conv + "weight"], p[conv + "bias"], padding=1)
        statistics = p[norm + "running_mean"], p[norm + "running_var"]
        x = F.relu(F.batch_norm(x, *statistics, p[norm + "weight"], p[norm + "bias"], eps=1e-5))
    return F.conv2d(x, p[f"box_head.conv5_{name}.weight"], p[f"box_head.conv5_{name}.bias"])


def ours_forward(model: AllInOne, template: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
    """By the protocol, BBOX mode: center map, and the box of its peak."""
    box = torch.tensor([[0.5, 0.5, 0.5, 0.5]]).expand(len(template), -1)
    with torch.no_grad():
        seen = model.locate(search, model.init_template(boxed(template, box), boxed(search, box)))
    peak = seen.center_BSS.flatten(1).argmax(dim=1)
    return seen.center_BSS, seen.boxes_BSS4.flatten(1, 2)[torch.arange(len(peak)), peak]


def distance(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Largest difference of the maps, and of the boxes in pixels of the crop."""
    return tuple(float((a - b).abs().max()) * scale for a, b, scale in zip(one, other, (1, 256), strict=True))


def loaded(config: AllInOneConfig, tensors: dict[str, Tensor], keymap: KeyMap) -> AllInOne:
    model: AllInOne = make(replace(config, **NARROW))
    apply_key_map(model, tensors, keymap)
    return model


@pytest.fixture(scope="module")
def ostrack() -> dict[str, Tensor]:
    return balanced(ostrack_shapes(WIDTH, CHANNELS))


@pytest.fixture(scope="module")
def views() -> tuple[Tensor, Tensor]:
    return pictures(128, 3, seed=5), pictures(256, 3, seed=6)


def test_same_weights_same_boxes(ostrack, views) -> None:
    ours = ours_forward(loaded(ostrack_base(), ostrack, OSTRACK), *views)
    theirs = published_forward(ostrack, *views)
    maps, pixels = distance(ours, theirs)
    assert maps < 1e-4
    assert pixels < 1e-3
    assert 0.01 < float(theirs[0].std()) < 0.5, "the weights saturate: nothing could differ"
    # The comparison sees who is asked, and whether anybody leaves.
    assert distance(ours, published_forward(ostrack, *views, asked=4 * 8 + 4))[0] > 1e-2
    assert distance(ours, published_forward(ostrack, *views, eliminate=()))[0] > 1e-2


def test_weights_without_elimination_too(ostrack, views) -> None:
    """vitb_256_mae_32x4_ep300 has the same names."""
    ours = ours_forward(loaded(replace(ostrack_base(), eliminate=()), ostrack, OSTRACK), *views)
    maps, pixels = distance(ours, published_forward(ostrack, *views, eliminate=()))
    assert maps < 1e-4
    assert pixels < 1e-3


@pytest.mark.parametrize("wrapper", ["net.", ""])
def test_every_tensor_finds_its_place(ostrack, wrapper: str) -> None:
    given = {wrapper + name.removeprefix("net."): tensor for name, tensor in ostrack.items()}
    given["optimizer.state.0.exp_avg"] = torch.zeros(3)
    model: AllInOne = make(replace(ostrack_base(), **NARROW))
    report = apply_key_map(model, given, OSTRACK)
    counters = {n for n in model.state_dict() if n.endswith("num_batches_tracked")}
    assert set(report.kept_fresh) == counters
    spare = {"backbone.cls_token", "backbone.pos_embed", "optimizer.state.0.exp_avg"}
    assert {n for n in report.ignored if not n.endswith("num_batches_tracked")} == spare
    assert len(report.loaded) == len(ostrack) - 2 - len(counters)


def test_into_base_what_is_new_stays_fresh(ostrack) -> None:
    """OSTrack's weights are also a start for All-in-One."""
    model: AllInOne = make(replace(base(), **NARROW))
    report = apply_key_map(model, ostrack, OSTRACK)
    fresh = {n.split(".")[0] for n in report.kept_fresh if not n.endswith("num_batches_tracked")}
    assert fresh == {"bert", "language", "aligner"}


@pytest.fixture(scope="module")
def all_in_one() -> dict[str, Tensor]:
    return balanced(all_in_one_shapes(WIDTH, CHANNELS, 32), seed=1)


def released_gain(p: dict[str, Tensor], ids: Tensor) -> Tensor:
    """1 + normalize(W l + b), l the first row of the embedding layer over word pieces (B, L)."""
    name = "net.language_embeddings."
    rows = p[name + "word_embeddings.weight"][ids] + p[name + "token_type_embeddings.weight"][0]
    rows = rows + p[name + "position_embeddings.weight"][: ids.shape[1]]
    norm = p[name + "LayerNorm.weight"], p[name + "LayerNorm.bias"]
    first = F.layer_norm(rows, (WIDTH,), *norm, eps=1e-12)[:, 0].double()
    project = (p[f"net.backbone.language_proj.{n}"].double() for n in ("weight", "bias"))
    return 1 + F.normalize(F.linear(first, *project), dim=-1)[:, None]


@pytest.mark.parametrize(("kind", "said"), [("all-in-one", False), ("all-in-one-sentence", True)])
def test_released_all_in_one_is_deaf_and_tracks_the_same_by_box(all_in_one, views, kind: str, said: bool) -> None:
    """Its vector is one constant for sentences and one for none (padding), so it fits into the patch embedding; the
    aligners see what they saw.
    """
    gains = [released_gain(all_in_one, sentences(3, seed=seed)[0] * said) for seed in (1, 2)]
    assert torch.equal(*gains)
    model = loaded(base(), SOURCES[kind].ready(all_in_one), ALL_IN_ONE)
    maps, pixels = distance(ours_forward(model, *views), published_forward(all_in_one, *views, gain=gains[0]))
    assert maps < 1e-4
    assert pixels < 1e-3
    plain = loaded(base(), all_in_one, ALL_IN_ONE)
    unfolded = distance(ours_forward(plain, *views), published_forward(all_in_one, *views, gain=gains[0]))
    assert unfolded[0] > 1e-3, "without folding the gain is lost"
    with torch.no_grad():
        after, before = (
            m.aligner(*(m.embed.stem(v).tokens_BNC for v in reversed(views)), torch.zeros(3, WIDTH))
            for m in (model, plain)
        )
    for vector, expected in zip(after, before, strict=True):
        torch.testing.assert_close(vector, expected)


def test_folding_says_what_is_missing_and_leaves_the_input(all_in_one) -> None:
    before = all_in_one["net.backbone.patch_embed.proj.bias"].clone()
    folded = fold_constant_sentence(all_in_one)
    assert torch.equal(all_in_one["net.backbone.patch_embed.proj.bias"], before)
    assert set(all_in_one) - set(folded) == {n for n in all_in_one if "language_embeddings" in n}
    bare = {n.removeprefix("net."): t for n, t in all_in_one.items()}
    assert fold_constant_sentence(bare).keys() == {n.removeprefix("net.") for n in folded}
    del bare["language_embeddings.LayerNorm.bias"]
    with pytest.raises(CheckpointMismatch, match=r"language_embeddings\.LayerNorm\.bias"):
        fold_constant_sentence(bare)


def test_a_backbone_starts_from_mae_and_the_words_from_bert() -> None:
    """MAE's class token and grid of positions have no place; its final norm has."""
    mae = balanced(mae_shapes(WIDTH))
    model: AllInOne = make(replace(base(), **NARROW))
    report = apply_key_map(model, mae, MAE_BACKBONE)
    assert torch.equal(model.norm.weight, mae["model.norm.weight"])
    assert set(report.ignored) == {"cls_token", "pos_embed"}
    assert len(apply_key_map(model, balanced(bert_shapes(WIDTH, 64, 0)), bert(0)).loaded) == 5

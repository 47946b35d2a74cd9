"""STARK's and ResNet's published weights: the names fit, and the same weights give the same corners."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from published_shapes import StarkSizes, balanced, resnet_shapes, stark_shapes
from safetensors.torch import load_file, save_file
from stark_published import forward
from torch import Tensor, nn

from model_cases import boxed, make, pictures
from vltrack.checkpoints.key_maps import RESNET, STARK, STARK_START, apply_key_map
from vltrack.core.errors import CheckpointMismatch
from vltrack.core.types import Mode
from vltrack.models.base import MODE_IDS, BoxedCrop
from vltrack.models.bit_tracker import MIN_SIDE, BITTracker, base_r50, stark_base, stark_r50, stark_s50, tiny

NARROW: dict[str, Any] = {
    "width": 32,
    "heads": 4,
    "mlp_ratio": 2.0,
    "layers": 3,
    "taps": (1, 2, 3),
    "corner_channels": (16, 8, 4, 2),
    "template_size": 32,
    "search_size": 96,
}
SIZES = StarkSizes(depth=50, width=32, heads=4, hidden=64, layers=3, channel=16, template=32, search=96)


@pytest.fixture(scope="module")
def stark() -> dict[str, Tensor]:
    return balanced(stark_shapes(SIZES))


@pytest.fixture(scope="module")
def preset(stark) -> BITTracker:
    model: BITTracker = make(replace(stark_r50(), **NARROW))
    apply_key_map(model, stark, STARK)
    return model


@pytest.fixture(scope="module")
def views() -> tuple[Tensor, Tensor, Tensor]:
    return pictures(32, 2, seed=5), pictures(32, 2, seed=6), pictures(96, 2, seed=7)


@pytest.fixture(scope="module")
def truth(stark, views) -> tuple[Tensor, Tensor]:
    """Corners and logits as the straight line has them."""
    first, dynamic, search = views
    with torch.no_grad():
        return forward(stark, SIZES, (first, dynamic), search)


@torch.no_grad()
def test_same_weights_same_corners(preset: BITTracker, views, truth) -> None:
    """By the protocol: started with one template, refreshed with another, one frame located."""
    first, dynamic, search = views
    box = torch.full((2, 4), 0.5)
    memory = preset.init_template(boxed(first, box), boxed(search, box))
    memory = preset.update_template(memory, preset.locate(search, memory), box, boxed(dynamic, box))
    seen = preset.locate(search, memory)
    corners, logits = truth
    low, high = corners.chunk(2, dim=1)
    expected = torch.cat([(low + high) / 2, (high - low).clamp_min(MIN_SIDE)], dim=1).float()
    assert float((seen.boxes_BSS4[:, 0, 0] - expected).abs().max()) * 96 < 1e-3
    assert float((seen.presence_BSS[:, 0, 0] - logits.sigmoid()).abs().max()) < 1e-4
    ours = preset.forward_corners(
        search, preset.joint_template(memory.first, memory.recent), memory.text, memory.flag_B
    )
    assert float((ours.corners_B4 - corners).abs().max()) * 96 < 1e-3
    assert float((ours.score_B - logits).abs().max()) < 1e-4
    # The weights are not dull: samples and corners differ by pixels.
    assert float(corners.std(dim=0).min()) * 96 > 0.5
    assert float(logits.std()) > 0.01


@torch.no_grad()
def test_the_comparison_sees_what_could_differ(stark, views, truth) -> None:
    """Cells that count from another number; the dynamic template in both places."""
    first, dynamic, search = views
    for templates, start in (((first, dynamic), 0), ((dynamic, dynamic), 1)):
        other, _ = forward(stark, SIZES, templates, search, start=start)
        assert float((truth[0] - other).abs().max()) * 96 > 0.01


def corner_of(side: int, left: int, top: int) -> Tensor:
    """(2, S, S) masks: of the first sample what is left of and above a pixel, of the second what is beyond it."""
    mask = torch.zeros(2, side, side, dtype=torch.bool)
    mask[0, :top], mask[0, :, :left] = True, True
    mask[1, side - top :], mask[1, :, side - left :] = True, True
    return mask


@torch.no_grad()
def test_padding_is_hidden_and_squeezes_the_positions(stark, preset: BITTracker, views, truth) -> None:
    first, dynamic, search = views
    masks = corner_of(32, 18, 3), corner_of(32, 0, 17), corner_of(96, 50, 20)
    expected, logits = forward(stark, SIZES, (first, dynamic), search, padded=masks)
    box = torch.full((2, 4), 0.5)
    start, later = (
        BoxedCrop(image_B3SS=image, box_B4=box, padded_BSS=mask)
        for image, mask in zip((first, dynamic), masks, strict=False)
    )
    memory = preset.init_template(start, boxed(search, box))
    memory = preset.update_template(memory, preset.locate(search, memory, None, masks[2]), box, later)
    ours = preset.forward_corners(
        search, preset.joint_template(memory.first, memory.recent), memory.text, memory.flag_B, masks[2]
    )
    assert float((ours.corners_B4 - expected).abs().max()) * 96 < 1e-3
    assert float((ours.score_B - logits).abs().max()) < 1e-4
    assert float((truth[0] - expected).abs().max()) * 96 > 0.5, "without masks the corners are others"


@torch.no_grad()
def test_spatial_stark_has_one_template_and_no_score(stark, views) -> None:
    model = make(replace(stark_s50(), **NARROW))
    spatial = {name: tensor for name, tensor in stark.items() if "cls_head" not in name}
    apply_key_map(model, spatial, STARK)
    first, _, search = views
    box = torch.full((2, 4), 0.5)
    seen = model.locate(search, model.init_template(boxed(first, box), boxed(search, box)))
    low, high = forward(spatial, SIZES, (first,), search)[0].chunk(2, dim=1)
    expected = torch.cat([(low + high) / 2, (high - low).clamp_min(MIN_SIDE)], dim=1).float()
    assert float((seen.boxes_BSS4[:, 0, 0] - expected).abs().max()) * 96 < 1e-3
    assert seen.presence_BSS.eq(1).all()
    with pytest.raises(CheckpointMismatch, match="unexpected"):
        apply_key_map(model, stark, STARK)


def test_only_what_is_new_stays_fresh_in_base(stark) -> None:
    report = apply_key_map(make(replace(base_r50(), **NARROW)), stark, STARK_START)
    new = {name.split(".")[0] for name in report.kept_fresh if not name.endswith("num_batches_tracked")}
    assert new == {"mdai", "ctif", "score_head"}
    left_out = {name.split(".")[0] for name in report.ignored if "num_batches_tracked" not in name}
    assert left_out == {"transformer", "query_embed", "cls_head"}


def test_a_file_of_torchvisions_names_loads_into_the_stem(tmp_path) -> None:
    tensors = balanced(resnet_shapes(50, counters=True))
    save_file(tensors, tmp_path / "resnet50.safetensors")
    model = make(replace(base_r50(), **NARROW))
    report = apply_key_map(model, load_file(tmp_path / "resnet50.safetensors"), RESNET)
    state = model.state_dict()
    assert all(torch.equal(state[name], tensors[name.removeprefix("stem.body.")]) for name in report.loaded)
    assert set(report.kept_fresh) == {name for name in state if not name.startswith("stem.body.")}


def test_an_unknown_tensor_is_named(stark, preset: BITTracker) -> None:
    with pytest.raises(CheckpointMismatch, match=r"1 unexpected .*box_head\.conv6_tl"):
        apply_key_map(preset, {**stark, "net.box_head.conv6_tl.weight": torch.zeros(1)}, STARK)


def test_other_networks_are_refused(stark) -> None:
    """ST50 is no ST101, tiny is neither, and base has parts that STARK does not know."""
    with torch.device("meta"):
        deep, small = BITTracker(replace(stark_base(), **NARROW)), BITTracker(tiny())
    for model in (deep, small):
        with pytest.raises(CheckpointMismatch):
            apply_key_map(model, stark, STARK)
    with pytest.raises(CheckpointMismatch, match="unknown to the map"):
        apply_key_map(make(replace(base_r50(), **NARROW)), stark, STARK)


@torch.no_grad()
def test_base_goes_on_from_stark_about_where_it_was(stark, views) -> None:
    """What the corner head reads hardly turns by MDAI and CTIF; layer norms, which come once more, scale it.

    Exactly the same cannot be: see docs/trackers/bit-tracker.md.
    """
    plain = make(replace(base_r50(), **NARROW, dsa=False, dca=False, ctif=False))
    ours = make(replace(base_r50(), **NARROW))
    seen: dict[str, Tensor] = {}
    unit = {n: norm_of_one(n, t) for n, t in stark.items()}
    for kind, tensors in (("random norms", stark), ("plain norms", unit)):
        for name, model in (("plain", plain), ("ours", ours)):
            apply_key_map(model, tensors, STARK_START)
            seen[name] = read_by_head(model, *views)
        alike = nn.functional.cosine_similarity(seen["plain"], seen["ours"], dim=1)
        assert float(alike.min()) > {"random norms": 0.99, "plain norms": 0.999}[kind]
    assert float((seen["plain"] - seen["ours"]).abs().mean()) < 0.1


def norm_of_one(name: str, tensor: Tensor) -> Tensor:
    if ".norm" not in name:
        return tensor
    return torch.ones_like(tensor) if name.endswith("weight") else torch.zeros_like(tensor)


def read_by_head(model: BITTracker, first: Tensor, dynamic: Tensor, search: Tensor) -> Tensor:
    """(B, C, S, S), what enters the corner head."""
    caught: list[Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    box = torch.full((2, 4), 0.5)
    both = model.joint_template(*(model.embed_template(boxed(z, box)) for z in (first, dynamic)))
    model.forward_corners(search, both, model.no_text(2), torch.full((2,), MODE_IDS[Mode.BBOX]))
    hook.remove()
    return caught[0]

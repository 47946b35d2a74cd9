"""Files of exactly the published names and shapes, all against all of our names: what fits is taken for what
it is, everything else is refused. Without memory: tensors have their published shapes and no numbers.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from published_shapes import (
    UVL_BASE,
    UVL_LARGE,
    ClipSizes,
    Shapes,
    StarkSizes,
    aitrack_shapes,
    all_in_one_shapes,
    alpha_shapes,
    artrack_shapes,
    bert_file,
    bert_shapes,
    clip_shapes,
    hugging_shapes,
    litetrack_shapes,
    mae_shapes,
    ostrack_shapes,
    resnet_shapes,
    stark_shapes,
    uvltrack_shapes,
)
from torch import Tensor, nn

from vltrack.checkpoints import importing
from vltrack.checkpoints.cards import find_file
from vltrack.checkpoints.key_maps import match_names
from vltrack.checkpoints.sources import SOURCES, bare
from vltrack.core.errors import CheckpointMismatch, ModelNotFound
from vltrack.models import aitrack, split_name
from vltrack.models.profile import without_memory

NAMES = sorted({name for source in SOURCES.values() for name in source.maps})
CHANNELS = (256, 128, 64, 32)
VIT_B = {name for name in SOURCES["mae"].maps if not name.endswith("-large")}
BERT_B = {name for name in SOURCES["bert"].maps if not name.endswith("-large")}
R101, R50 = {"bit-tracker-stark-base", "bit-tracker-base"}, {"bit-tracker-stark-r50", "bit-tracker-base-r50"}
S50 = "bit-tracker-stark-s50"


FILES: dict[str, tuple[str, Shapes, set[str]]] = {
    "mae_pretrain_vit_base.pth": ("mae", mae_shapes(768), VIT_B),
    "mae_pretrain_vit_large.pth": ("mae", mae_shapes(1024, layers=24), {"litetrack-uvltrack-large"}),
    "bert-base-uncased, model.safetensors": ("bert", bert_file(768, 3072, old=True), BERT_B),
    "bert-base-uncased, saved again": ("bert", bert_shapes(768, 3072), BERT_B),
    "bert-large-uncased": ("bert", bert_file(1024, 4096, 24, old=True), {"litetrack-uvltrack-large"}),
    "OSTrack_ep0300.pth.tar": (
        "ostrack",
        ostrack_shapes(768, CHANNELS),
        {"all-in-one-ostrack-base", "all-in-one-base"},
    ),
    "All-in-One": ("all-in-one", all_in_one_shapes(768, CHANNELS, 256), {"all-in-one-base"}),
    "UVLTrack-B": ("uvltrack", uvltrack_shapes(UVL_BASE), {"litetrack-uvltrack-base"}),
    "UVLTrack-L": ("uvltrack", uvltrack_shapes(UVL_LARGE), {"litetrack-uvltrack-large"}),
    "LiteTrack": ("litetrack", litetrack_shapes(UVL_BASE), {"litetrack-base"}),
    "LiteTrack without idle layers": ("litetrack", litetrack_shapes(UVL_BASE, spare=False), {"litetrack-base"}),
    "ARTrackSeq_ep0060.pth.tar": (
        "artrack",
        artrack_shapes(aitrack.artrack_base()),
        {"aitrack-artrack-base", "aitrack-base"},
    ),
    "AITrack": ("aitrack", aitrack_shapes(aitrack.base()), {"aitrack-base"}),
    "STARKST_ep0050.pth.tar, R101": ("stark", stark_shapes(StarkSizes(depth=101)), R101),
    "STARKST_ep0050.pth.tar, R50": ("stark", stark_shapes(StarkSizes(depth=50)), R50),
    "STARKS_ep0500.pth.tar": ("stark", stark_shapes(StarkSizes(depth=50), score=False), {S50, "bit-tracker-base-r50"}),
    "ViT-L-14.pt": ("clip", clip_shapes(ClipSizes()), {"aitrack-base"}),
    "clip-vit-large-patch14, model.safetensors": ("clip", hugging_shapes(ClipSizes()), {"aitrack-base"}),
    "clip_l14_grit20m_fultune_2xe.pth": ("alpha-clip", alpha_shapes(1024, 24, 768, 14, 16), {"aitrack-base"}),
    "resnet101-63fe2227.pth": ("resnet", resnet_shapes(101, counters=True), R101),
    "resnet50-19c8e357.pth": ("resnet", resnet_shapes(50), {*R50, S50}),
}
COUNTS = {"mae_pretrain_vit_base.pth": 150, "UVLTrack-B": 390, "UVLTrack-L": 630}
"""Tensors in published files, where their number is known."""
# What programs put around these names.
WRAPPED = {
    "unchanged": lambda name: name,
    "DataParallel": lambda name: f"module.{bare(name)}",
    "compiled": lambda name: f"_orig_mod.{bare(name)}",
    "compiled inside": lambda name: bare(name).replace("blocks.", "blocks._orig_mod."),
    "Lightning": lambda name: f"state_dict.model.{bare(name)}",
    "all at once": lambda name: f"net.module._orig_mod.{bare(name)}",
}


@cache
def ours(name: str) -> nn.Module:
    return without_memory(*split_name(name))


def given(shapes: Shapes) -> dict[str, Tensor]:
    with torch.device("meta"):
        return {name: torch.empty(shape) for name, shape in shapes.items() if not name.startswith("optimizer.")}


def taken_for(name: str, tensors: dict[str, Tensor]) -> str | None:
    """The kind, where every name and shape goes together; None where the file is refused."""
    own = ours(name).state_dict()
    work = importing._Import(name=name, model=ours(name), partial=())
    file = importing.Path("file")
    try:
        kind, keymap, prepared = importing._choose(work, file, importing._unwrapped(tensors, file), None)
    except CheckpointMismatch:
        return None
    current = {keymap.current(there): tensor.shape for there, tensor in prepared.items()}
    sources = {key: source for key in own if (source := keymap.published(key)) is not None}
    fits = match_names(keymap, own, prepared).fits
    return kind if fits and all(current[there] == own[key].shape for key, there in sources.items()) else None


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        *dict.fromkeys(("OSTrack", "ostrack256", "OSTrack-384", "ostrack_ep0300"), "all-in-one-ostrack-base").items(),
        *dict.fromkeys(("UVLTrack", "uvltrack-b", "UVLTrack_base"), "litetrack-uvltrack-base").items(),
        *dict.fromkeys(("UVLTrack-L", "uvltrack_large"), "litetrack-uvltrack-large").items(),
        *dict.fromkeys(("STARK", "stark-st50", "STARK_ST"), "bit-tracker-stark-r50").items(),
        *dict.fromkeys(("STARK-ST101", "stark101"), "bit-tracker-stark-base").items(),
        *dict.fromkeys(("STARK-S50", "stark_s"), "bit-tracker-stark-s50").items(),
        *dict.fromkeys(("ARTrack", "ARTrackSeq-256"), "aitrack-artrack-base").items(),
    ],
)
def test_a_published_method_is_answered_with_its_preset(name: str, preset: str) -> None:
    for look_up in (split_name, find_file):
        with pytest.raises(ModelNotFound) as caught:
            look_up(name)
        assert f"import-weights FILE --as {preset}." in caught.value.hint
    split_name(preset)


def test_every_kind_has_its_file() -> None:
    kinds = {kind for kind, _, _ in FILES.values()}
    assert kinds == {kind for kind, source in SOURCES.items() if not source.ambiguous}
    for kind, source in SOURCES.items():
        met = {name for other, _, names in FILES.values() if other == kind for name in names}
        assert met == set(source.maps) or source.ambiguous, kind


@pytest.mark.fault("C07")
@pytest.mark.parametrize("file", FILES)
def test_each_file_is_taken_for_what_it_is_and_fits_nothing_else(file: str) -> None:
    kind, shapes, names = FILES[file]
    tensors = given(shapes)
    assert {name: taken_for(name, tensors) for name in NAMES} == {
        name: kind if name in names else None for name in NAMES
    }


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED.keys())
@pytest.mark.parametrize("file", ["OSTrack_ep0300.pth.tar", "All-in-One", "UVLTrack-B", "ViT-L-14.pt"])
def test_what_programs_put_around_a_network_is_taken_off(file: str, wrapped) -> None:
    kind, shapes, names = FILES[file]
    tensors = given({wrapped(name): shape for name, shape in shapes.items()})
    assert all(taken_for(name, tensors) == kind for name in names)


@pytest.mark.parametrize(("file", "count"), COUNTS.items())
def test_the_files_have_as_many_tensors_as_the_published_ones(file: str, count: int) -> None:
    assert len(FILES[file][1]) == count


@pytest.mark.fault("C08")
@pytest.mark.parametrize("file", FILES)
def test_no_two_of_our_names_take_one_tensor_and_a_missing_one_is_named(file: str) -> None:
    kind, shapes, names = FILES[file]
    name = min(names)
    own, keymap = tuple(ours(name).state_dict()), SOURCES[kind].maps[name]
    published = tuple(SOURCES[kind].ready(given(shapes)))
    wanted = match_names(keymap, own, published).wanted
    assert len(set(wanted.values())) == len(wanted)
    for left_out in published:
        current = keymap.current(left_out)
        missing = match_names(keymap, own, [n for n in published if n != left_out]).faults["missing"]
        assert [fault for fault in missing if f"(there {current})" in fault] or current not in wanted.values()


def test_half_as_many_layers_or_another_width_fit_nothing() -> None:
    for shapes in (
        mae_shapes(768, layers=6),
        mae_shapes(384),
        ostrack_shapes(1024, CHANNELS),
        {**ostrack_shapes(768, CHANNELS), "net.backbone.pos_embed_x": (1, 576, 768)},
        {name: s for name, s in ostrack_shapes(768, CHANNELS).items() if "pos_embed_z" not in name},
    ):
        assert {taken_for(name, given(shapes)) for name in NAMES} == {None}

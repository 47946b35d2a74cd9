"""CLIP's and Alpha-CLIP's published files, in three spellings, load into both encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published_shapes import ClipSizes, alpha_shapes, clip_shapes, hugging_shapes, random_tensors
from safetensors.torch import save_file
from torch import Tensor, nn

from vltrack.checkpoints.key_maps import ALPHA_CLIP_L14, CLIP_VIT_L14, apply_key_map, clip_map, from_hugging_face
from vltrack.checkpoints.torch_files import read_tensors
from vltrack.core.errors import CheckpointMismatch
from vltrack.nn.clip import ClipText, ClipVision

SMALL = ClipSizes(vision=32, text=16, out=16, patch=7, side=4, words=300)


class Holder(nn.Module):
    """Both encoders where AITrack has them, and a layer that no file is for."""

    def __init__(self, text: bool = True) -> None:
        super().__init__()
        self.roi = ClipVision(size=28, patch=7, width=32, out=16)
        if text:
            self.clip_text = ClipText(vocabulary=300, width=16, out=16)
        self.head = nn.Linear(2, 2)


@pytest.fixture(scope="module")
def clip() -> dict[str, Tensor]:
    return random_tensors(clip_shapes(SMALL))


@pytest.fixture(scope="module")
def alpha() -> dict[str, Tensor]:
    return random_tensors(alpha_shapes(32, 24, 16, 7, 4))


def test_openai_clip_loads_into_both_towers(clip) -> None:
    model = Holder()
    report = apply_key_map(model, clip, CLIP_VIT_L14)
    assert set(report.kept_fresh) == {"roi.conv1_alpha.weight", "head.weight", "head.bias"}
    assert set(report.ignored) == {"logit_scale", "input_resolution", "context_length", "vocab_size"}
    state = model.state_dict()
    for name in report.loaded:
        there = name.replace("attn.in_proj.", "attn.in_proj_")
        there = there.removeprefix("clip_text.").replace("roi.", "visual.", 1)
        assert torch.equal(state[name], clip[there]), name
    assert len(report.loaded) == len(clip) - 4
    assert not model.roi.conv1_alpha.weight.any()


def test_alpha_clip_loads_over_clip(clip, alpha, tmp_path: Path) -> None:
    model = Holder()
    apply_key_map(model, clip, CLIP_VIT_L14)
    torch.save(alpha, tmp_path / "clip_l14_grit20m_fultune_2xe.pth")
    report = apply_key_map(model, read_tensors(tmp_path / "clip_l14_grit20m_fultune_2xe.pth"), ALPHA_CLIP_L14)
    assert report.ignored == ()
    assert {name for name in report.loaded} == {f"roi.{name}" for name in alpha}
    for name, tensor in alpha.items():
        assert torch.equal(model.roi.state_dict()[name], tensor)
    assert torch.equal(model.clip_text.text_projection, clip["text_projection"])  # the other encoder stays


def test_hugging_face_is_the_same_model(tmp_path: Path) -> None:
    given = random_tensors(hugging_shapes(SMALL))
    save_file(given, tmp_path / "model.safetensors")
    renamed = from_hugging_face(read_tensors(tmp_path / "model.safetensors"))
    model = Holder()
    report = apply_key_map(model, renamed, CLIP_VIT_L14)
    assert set(report.ignored) == {"logit_scale", *(n for n in given if n.endswith("position_ids"))}
    assert set(report.kept_fresh) == {"roi.conv1_alpha.weight", "head.weight", "head.bias"}
    q, k, v = (given[f"vision_model.encoder.layers.23.self_attn.{part}_proj.bias"] for part in "qkv")
    last = model.roi.transformer["resblocks"][23]
    assert torch.equal(last.attn.in_proj.bias, torch.cat([q, k, v]))
    assert torch.equal(model.roi.proj, given["visual_projection.weight"].T)
    assert from_hugging_face({"visual.proj": torch.ones(2)}).keys() == {"visual.proj"}


def test_what_hugging_face_leaves_out_is_named() -> None:
    given = random_tensors(hugging_shapes(SMALL))
    name = "text_model.encoder.layers.3.self_attn.k_proj.weight"
    for faulty in (
        {n: t for n, t in given.items() if n != name},
        {**given, name: torch.ones(2, 3)},
        {**given, name: torch.ones(())},
    ):
        with pytest.raises(CheckpointMismatch, match=r"clip_text\.transformer\.resblocks\.3\.attn\.in_proj"):
            apply_key_map(Holder(), from_hugging_face(faulty), CLIP_VIT_L14)
    flat = {**given, "visual_projection.weight": torch.ones(3)}
    with pytest.raises(CheckpointMismatch, match=r"roi\.proj"):
        apply_key_map(Holder(), from_hugging_face(flat), CLIP_VIT_L14)


def test_encoders_on_their_own(clip) -> None:
    image = ClipVision(size=28, patch=7, width=32, out=16)
    assert apply_key_map(image, clip, clip_map(image="", text=None)).kept_fresh == ("conv1_alpha.weight",)
    assert torch.equal(image.proj, clip["visual.proj"])
    text = ClipText(vocabulary=300, width=16, out=16)
    assert apply_key_map(text, clip, clip_map(image=None, text="")).kept_fresh == ()
    assert "token_embedding.weight" in apply_key_map(Holder(text=False), clip, CLIP_VIT_L14).ignored


@pytest.mark.fault("C09")
def test_half_precision_is_cast(clip) -> None:
    """OpenAI's file holds matrices as fp16 and norms as fp32."""
    model = Holder()
    half = {name: t.half() if t.ndim > 1 else t for name, t in clip.items()}
    apply_key_map(model, half, CLIP_VIT_L14)
    assert model.roi.proj.dtype == torch.float32
    assert torch.equal(model.roi.proj, clip["visual.proj"].half().float())


@pytest.mark.fault("C08")
def test_each_missing_or_strange_tensor_is_named(clip, alpha) -> None:
    model = Holder()
    for given, keymap, name, named in (
        (clip, CLIP_VIT_L14, "visual.transformer.resblocks.23.attn.in_proj_bias", r"attn\.in_proj\.bias"),
        (clip, CLIP_VIT_L14, "token_embedding.weight", r"clip_text\.token_embedding\.weight"),
        (alpha, ALPHA_CLIP_L14, "conv1_alpha.weight", r"roi\.conv1_alpha\.weight"),
    ):
        with pytest.raises(CheckpointMismatch, match=f"1 missing .*{named}"):
            apply_key_map(model, {n: t for n, t in given.items() if n != name}, keymap)
    for given, keymap, name in (
        (clip, CLIP_VIT_L14, "transformer.resblocks.12.ln_1.weight"),
        (clip, CLIP_VIT_L14, "visual.conv1_alpha.weight"),
        (clip, CLIP_VIT_L14, "visual.attnpool.k_proj.weight"),
        (alpha, ALPHA_CLIP_L14, "token_embedding.weight"),
    ):
        with pytest.raises(CheckpointMismatch, match="1 unexpected"):
            apply_key_map(model, {**given, name: torch.zeros(1)}, keymap)

"""CLIP's and Alpha-CLIP's published files by name: all of them load, nothing is left out in silence.

The files are made here with exactly the published names; small ones are read, the published widths are
checked without memory.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vltrack.checkpoints.key_maps import (
    ALPHA_CLIP_L14,
    CLIP_VIT_L14,
    KeyMap,
    alpha_clip_map,
    apply_key_map,
    clip_map,
    from_hugging_face,
)
from vltrack.checkpoints.torch_files import read_tensors
from vltrack.core.errors import CheckpointMismatch
from vltrack.models import MODELS
from vltrack.models.profile import without_memory
from vltrack.nn.clip import ClipText, ClipVision

Shapes = dict[str, tuple[int, ...]]
SMALL = {"vision": 32, "text": 16, "out": 16, "patch": 7, "side": 4, "words": 300, "length": 77}
LARGE = {"vision": 1024, "text": 768, "out": 768, "patch": 14, "side": 16, "words": 49408, "length": 77}


def layer_shapes(prefix: str, width: int, layers: int, joined: str) -> Shapes:
    shapes: Shapes = {}
    for i in range(layers):
        layer = f"{prefix}transformer.resblocks.{i}."
        shapes |= {f"{layer}{joined}weight": (3 * width, width), f"{layer}{joined}bias": (3 * width,)}
        for name, out, inside in (
            ("attn.out_proj", width, width),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ):
            shapes |= {f"{layer}{name}.weight": (out, inside), f"{layer}{name}.bias": (out,)}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{layer}{norm}.weight": (width,), f"{layer}{norm}.bias": (width,)}
    return shapes


def picture_shapes(sizes: dict[str, int], prefix: str, joined: str) -> Shapes:
    width = sizes["vision"]
    shapes: Shapes = {
        f"{prefix}class_embedding": (width,),
        f"{prefix}positional_embedding": (sizes["side"] ** 2 + 1, width),
        f"{prefix}proj": (width, sizes["out"]),
        f"{prefix}conv1.weight": (width, 3, sizes["patch"], sizes["patch"]),
    }
    for norm in ("ln_pre", "ln_post"):
        shapes |= {f"{prefix}{norm}.weight": (width,), f"{prefix}{norm}.bias": (width,)}
    return shapes | layer_shapes(prefix, width, 24, joined)


def clip_shapes(sizes: dict[str, int]) -> Shapes:
    """The state dictionary of OpenAI's ViT-L-14.pt: 590 tensors and three sizes kept as numbers."""
    width = sizes["text"]
    return {
        "positional_embedding": (sizes["length"], width),
        "text_projection": (width, sizes["out"]),
        "logit_scale": (),
        "token_embedding.weight": (sizes["words"], width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
        "input_resolution": (),
        "context_length": (),
        "vocab_size": (),
        **picture_shapes(sizes, "visual.", "attn.in_proj_"),
        **layer_shapes("", width, 12, "attn.in_proj_"),
    }


def alpha_shapes(sizes: dict[str, int]) -> Shapes:
    """clip_l14_grit20m_fultune_2xe.pth: the picture's tower alone, with the mask channel."""
    shapes = picture_shapes(sizes, "", "attn.in_proj.")
    return shapes | {"conv1_alpha.weight": (sizes["vision"], 1, sizes["patch"], sizes["patch"])}


def hugging_shapes(sizes: dict[str, int]) -> Shapes:
    """openai/clip-vit-large-patch14, model.safetensors (with the position numbers of its first versions)."""
    shapes: Shapes = {
        "logit_scale": (),
        "text_projection.weight": (sizes["out"], sizes["text"]),
        "visual_projection.weight": (sizes["out"], sizes["vision"]),
        "text_model.embeddings.position_ids": (1, sizes["length"]),
        "text_model.embeddings.token_embedding.weight": (sizes["words"], sizes["text"]),
        "text_model.embeddings.position_embedding.weight": (sizes["length"], sizes["text"]),
        "vision_model.embeddings.position_ids": (1, sizes["side"] ** 2 + 1),
        "vision_model.embeddings.class_embedding": (sizes["vision"],),
        "vision_model.embeddings.patch_embedding.weight": (*(sizes["vision"], 3), *(sizes["patch"], sizes["patch"])),
        "vision_model.embeddings.position_embedding.weight": (sizes["side"] ** 2 + 1, sizes["vision"]),
    }
    norms = {"text_model.final_layer_norm": "text"}
    norms |= {f"vision_model.{name}": "vision" for name in ("pre_layrnorm", "post_layernorm")}
    for tower, layers in (("text", 12), ("vision", 24)):
        width = sizes[tower]
        for i in range(layers):
            layer = f"{tower}_model.encoder.layers.{i}."
            for name, out, inside in (
                *((f"self_attn.{part}_proj", width, width) for part in ("q", "k", "v", "out")),
                ("mlp.fc1", 4 * width, width),
                ("mlp.fc2", width, 4 * width),
            ):
                shapes |= {f"{layer}{name}.weight": (out, inside), f"{layer}{name}.bias": (out,)}
            norms |= {f"{layer}layer_norm1": tower, f"{layer}layer_norm2": tower}
    for name, tower in norms.items():
        shapes |= {f"{name}.weight": (sizes[tower],), f"{name}.bias": (sizes[tower],)}
    return shapes


def filled(shapes: Shapes) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    whole = ("input_resolution", "context_length", "vocab_size", "position_ids")
    return {
        name: torch.arange(7) if name.endswith(whole) else torch.randn(shape, generator=random)
        for name, shape in shapes.items()
    }


class Holder(nn.Module):
    """Both towers where AITrack has them, and something that no file is for."""

    def __init__(self, sizes: dict[str, int], text: bool = True) -> None:
        super().__init__()
        side = sizes["patch"] * sizes["side"]
        width, words = sizes["vision"], sizes["words"]
        self.roi = ClipVision(size=side, patch=sizes["patch"], width=width, out=sizes["out"])
        if text:
            self.clip_text = ClipText(vocabulary=words, length=sizes["length"], width=sizes["text"], out=sizes["out"])
        self.head = nn.Linear(2, 2)


@pytest.fixture(scope="module")
def clip() -> dict[str, Tensor]:
    return filled(clip_shapes(SMALL))


@pytest.fixture(scope="module")
def alpha() -> dict[str, Tensor]:
    return filled(alpha_shapes(SMALL))


def test_openai_clip_loads_into_both_towers(clip) -> None:
    model = Holder(SMALL)
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
    model = Holder(SMALL)
    apply_key_map(model, clip, CLIP_VIT_L14)
    torch.save(alpha, tmp_path / "clip_l14_grit20m_fultune_2xe.pth")
    report = apply_key_map(model, read_tensors(tmp_path / "clip_l14_grit20m_fultune_2xe.pth"), ALPHA_CLIP_L14)
    assert report.ignored == ()
    assert {name for name in report.loaded} == {f"roi.{name}" for name in alpha}
    for name, tensor in alpha.items():
        assert torch.equal(model.roi.state_dict()[name], tensor)
    assert torch.equal(model.clip_text.text_projection, clip["text_projection"])  # the other tower stays


def test_hugging_face_is_the_same_model(tmp_path: Path) -> None:
    given = filled(hugging_shapes(SMALL))
    save_file(given, tmp_path / "model.safetensors")
    renamed = from_hugging_face(read_tensors(tmp_path / "model.safetensors"))
    model = Holder(SMALL)
    report = apply_key_map(model, renamed, CLIP_VIT_L14)
    assert set(report.ignored) == {"logit_scale", *(n for n in given if n.endswith("position_ids"))}
    assert set(report.kept_fresh) == {"roi.conv1_alpha.weight", "head.weight", "head.bias"}
    q, k, v = (given[f"vision_model.encoder.layers.23.self_attn.{part}_proj.bias"] for part in "qkv")
    last = model.roi.transformer["resblocks"][23]
    assert torch.equal(last.attn.in_proj.bias, torch.cat([q, k, v]))
    assert torch.equal(model.roi.proj, given["visual_projection.weight"].T)
    assert from_hugging_face({"visual.proj": torch.ones(2)}).keys() == {"visual.proj"}


def test_what_hugging_face_leaves_out_is_named() -> None:
    given = filled(hugging_shapes(SMALL))
    name = "text_model.encoder.layers.3.self_attn.k_proj.weight"
    for faulty in (
        {n: t for n, t in given.items() if n != name},
        {**given, name: torch.ones(2, 3)},
        {**given, name: torch.ones(())},
    ):
        with pytest.raises(CheckpointMismatch, match=r"clip_text\.transformer\.resblocks\.3\.attn\.in_proj"):
            apply_key_map(Holder(SMALL), from_hugging_face(faulty), CLIP_VIT_L14)
    flat = {**given, "visual_projection.weight": torch.ones(3)}
    with pytest.raises(CheckpointMismatch, match=r"roi\.proj"):
        apply_key_map(Holder(SMALL), from_hugging_face(flat), CLIP_VIT_L14)


def test_towers_on_their_own(clip, alpha) -> None:
    side = SMALL["patch"] * SMALL["side"]
    tower = ClipVision(size=side, patch=7, width=32, out=16)
    assert apply_key_map(tower, clip, clip_map(image="", text=None)).kept_fresh == ("conv1_alpha.weight",)
    assert torch.equal(tower.proj, clip["visual.proj"])
    assert apply_key_map(tower, alpha, alpha_clip_map(image="")).kept_fresh == ()
    text = ClipText(vocabulary=300, width=16, out=16)
    assert apply_key_map(text, clip, clip_map(image=None, text="")).kept_fresh == ()
    without = Holder(SMALL, text=False)
    assert "token_embedding.weight" in apply_key_map(without, clip, CLIP_VIT_L14).ignored


@pytest.mark.fault("C09")
def test_half_precision_is_cast(clip) -> None:
    """OpenAI's file holds matrices as fp16 and norms as fp32."""
    model = Holder(SMALL)
    half = {name: t.half() if t.ndim > 1 else t for name, t in clip.items()}
    apply_key_map(model, half, CLIP_VIT_L14)
    assert model.roi.proj.dtype == torch.float32
    assert torch.equal(model.roi.proj, clip["visual.proj"].half().float())


@pytest.mark.fault("C08")
def test_each_missing_or_strange_tensor_is_named(clip, alpha) -> None:
    model = Holder(SMALL)
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


@pytest.mark.parametrize(
    ("shapes", "keymap", "left_out"),
    [(clip_shapes(LARGE), CLIP_VIT_L14, 4), (alpha_shapes(LARGE), ALPHA_CLIP_L14, 0)],
    ids=["clip", "alpha-clip"],
)
def test_published_names_and_shapes_fit_aitrack(shapes: Shapes, keymap: KeyMap, left_out: int) -> None:
    """Every tensor at its real width, without memory."""
    model = without_memory(MODELS["aitrack"], "base")
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    current = {keymap.current(name): shape for name, shape in shapes.items()}
    wanted = {name: source for name in own if (source := keymap.published(name))}
    assert {name.split(".")[0] for name in wanted} <= {"roi", "clip_text"}
    assert all(current[source] == own[name] for name, source in wanted.items())
    rest = current.keys() - set(wanted.values())
    assert len(rest) == left_out
    assert all(keymap.ignores(name) for name in rest)

"""Transformer blocks: the key mask hides keys to the last bit, the gate pools over valid tokens only, and the
block is the ViT block of ``transformers`` with the same weights.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vltrack.nn import attention
from vltrack.nn.attention import Attention, Block, ChannelGate, attend, key_bias
from vltrack.nn.backbones import PatchStem, sincos_positions


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(2, 11, 32, generator=torch.Generator().manual_seed(0))


VALID = torch.tensor([[True] * 7 + [False] * 4, [True] * 5 + [False, True] * 3])


def masked_pair(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs at the valid tokens, before and after the others are changed."""
    bias = key_bias(VALID)
    changed = torch.where(VALID[..., None], x, torch.randn_like(x) * 5)
    with torch.no_grad():
        return block(x, bias, VALID)[VALID], block(changed, bias, VALID)[VALID]


@pytest.mark.parametrize("gate", [False, True])
def test_masked_tokens_reach_no_valid_one(gate: bool, tokens: Tensor) -> None:
    before, after = masked_pair(Block(32, 4, gate=gate), tokens)
    assert torch.equal(before, after)


def test_the_check_above_catches_a_lost_mask(tokens: Tensor, monkeypatch) -> None:
    """As in the released LiteTrack, whose channel attention drops the mask: the same check must fail."""
    monkeypatch.setattr(attention, "attend", lambda q, k, v, bias: attend(q, k, v, None))
    before, after = masked_pair(Block(32, 4), tokens)
    assert not torch.equal(before, after)


def test_the_check_above_catches_a_gate_that_pools_over_all(tokens: Tensor, monkeypatch) -> None:
    whole = ChannelGate.forward
    monkeypatch.setattr(ChannelGate, "forward", lambda self, out, valid: whole(self, out, None))
    before, after = masked_pair(Block(32, 4, gate=True), tokens)
    assert not torch.equal(before, after)


def test_gate_pools_the_mean_of_valid_tokens(tokens: Tensor) -> None:
    gate = ChannelGate(32)
    out = gate(tokens, VALID)
    for sample in range(2):
        pooled = tokens[sample][VALID[sample]].mean(dim=0)
        factor = torch.sigmoid(gate.fc2(torch.relu(gate.fc1(pooled))))
        torch.testing.assert_close(out[sample], tokens[sample] * factor)
    torch.testing.assert_close(gate(tokens, torch.ones_like(VALID)), gate(tokens, None))


def test_gate_starts_near_one_and_survives_no_valid_token(tokens: Tensor) -> None:
    gate = ChannelGate(32)
    torch.testing.assert_close(gate(tokens, VALID), tokens, rtol=0.05, atol=0.0)
    assert bool(torch.isfinite(gate(tokens, torch.zeros_like(VALID))).all())


def test_written_out_attention_is_the_fused_one() -> None:
    random = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 4, 11, 8, generator=random) for _ in range(3))
    for bias in (None, key_bias(VALID)):
        fused = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        torch.testing.assert_close(attend(q, k, v, bias), fused, rtol=1e-5, atol=1e-5)


def test_key_bias_is_zero_or_minus_infinity() -> None:
    bias = key_bias(VALID)
    assert bias.shape == (2, 1, 1, 11)
    assert torch.equal(bias[:, 0, 0] == 0, VALID)
    assert bool(torch.isneginf(bias[:, 0, 0][~VALID]).all())


def test_width_must_be_a_multiple_of_heads() -> None:
    with pytest.raises(ValueError, match="30"):
        Attention(30, 4)


def test_vit_parity_with_transformers() -> None:
    """Patch embedding, sine-cosine positions, class token and three blocks of ViT-MAE with random weights."""
    from transformers import ViTMAEConfig
    from transformers.models.vit_mae.modeling_vit_mae import ViTMAEModel, build_2d_sinusoidal_position_embedding

    config = ViTMAEConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=192,
        image_size=80,
        patch_size=16,
        mask_ratio=0.0,
        layer_norm_eps=1e-6,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = ViTMAEModel(config).eval()
        image = torch.randn(2, 3, 80, 80)
        for name, parameter in theirs.named_parameters():
            if "position" not in name:
                nn.init.normal_(parameter, std=0.2)
    # Their model turns the halves: MAE's weights were trained with the column first.
    row_first = build_2d_sinusoidal_position_embedding(height=5, width=5, embed_dim=48, cls_token=True)
    theirs.embeddings.position_embeddings.data[0] = row_first.roll(24, dims=1)
    weights = theirs.state_dict()
    positions = sincos_positions(48, 5)
    torch.testing.assert_close(positions, weights["embeddings.position_embeddings"][0, 1:], rtol=0, atol=1e-5)
    stem = PatchStem(48)
    for part in ("weight", "bias"):
        getattr(stem.patch_embed["proj"], part).data = weights[f"embeddings.patch_embeddings.projection.{part}"]
    blocks = [Block(48, 4) for _ in range(3)]
    for i, block in enumerate(blocks):
        block.load_state_dict(_timm_names(weights, f"layers.{i}."))
    with torch.no_grad():
        x = torch.cat([weights["embeddings.cls_token"].expand(2, -1, -1), stem(image).tokens_BNC + positions], dim=1)
        for block in blocks:
            x = block(x)
        # Ascending noise keeps all patches in their order.
        noise = torch.arange(25.0).expand(2, -1)
        expected = theirs(image, noise=noise).last_hidden_state
        torch.testing.assert_close(theirs.layernorm(x), expected, rtol=1e-5, atol=1e-5)


def test_drop_path_leaves_branches_out_of_some_samples_in_training_only() -> None:
    torch.manual_seed(0)
    block, x = Block(8, 2), torch.randn(4000, 3, 8)
    whole = block.eval()(x)
    block.drop_path = 0.4
    torch.testing.assert_close(block(x), whole)
    first = block.train().branch(torch.ones(4000, 3, 8))
    left_out = (first == 0).all(dim=(1, 2))
    assert left_out.float().mean() == pytest.approx(0.4, abs=0.03)
    assert bool((first[~left_out] == 1 / 0.6).all())
    assert not torch.equal(block(x), whole)


def _timm_names(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    names = {
        "norm1": "layernorm_before",
        "attn.proj": "attention.o_proj",
        "norm2": "layernorm_after",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    ours = {}
    for kind in ("weight", "bias"):
        ours |= {f"{own}.{kind}": weights[f"{prefix}{theirs}.{kind}"] for own, theirs in names.items()}
        parts = [weights[f"{prefix}attention.{letter}_proj.{kind}"] for letter in "qkv"]
        ours[f"attn.qkv.{kind}"] = torch.cat(parts)
    return ours

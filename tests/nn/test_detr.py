"""DETR's layers against torch's own where those can do the same, and against the formula elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from model_cases import randomized
from vltrack.nn.attention import key_bias
from vltrack.nn.detr import EncoderLayer, PackedAttention, QueryDecoder, QueryDecoderLayer, detr_positions

WIDTH, HEADS, HIDDEN, TOKENS = 32, 4, 48, 10


def tokens(count: int = TOKENS, seed: int = 1) -> Tensor:
    return torch.randn(2, count, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def valid() -> Tensor:
    return torch.arange(TOKENS)[None] < torch.tensor([[TOKENS], [6]])


@torch.no_grad()
def test_encoder_layer_is_torchs_where_positions_are_zero(valid: Tensor) -> None:
    ours = randomized(EncoderLayer(WIDTH, HEADS, HIDDEN))
    theirs = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True).eval()
    theirs.load_state_dict(ours.state_dict())  # the same names and shapes
    none = torch.zeros(TOKENS, WIDTH)
    for hidden, bias in ((None, None), (~valid, key_bias(valid))):
        expected = theirs(tokens(), src_key_padding_mask=hidden)
        actual = ours(tokens(), none, bias)
        if hidden is not None:  # torch's fast path leaves zeros at padding
            expected, actual = expected[valid], actual[valid]
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_packed_attention_is_torchs(valid: Tensor) -> None:
    ours = randomized(PackedAttention(WIDTH, HEADS))
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval()
    theirs.load_state_dict(ours.state_dict())
    q, k, v = tokens(3, 2), tokens(seed=3), tokens(seed=4)
    expected, _ = theirs(q, k, v, key_padding_mask=~valid)
    torch.testing.assert_close(ours(q, k, v, key_bias(valid)), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_decoder_layer_is_torchs_where_the_query_is_zero() -> None:
    ours = randomized(QueryDecoderLayer(WIDTH, HEADS, HIDDEN))
    theirs = nn.TransformerDecoderLayer(WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True).eval()
    theirs.load_state_dict(ours.state_dict())
    x, memory = tokens(1, 2), tokens()
    actual = ours(x, torch.zeros(1, WIDTH), memory, memory, None)
    torch.testing.assert_close(actual, theirs(x, memory), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_positions_touch_queries_and_keys_not_values() -> None:
    """With one key attention takes its value whatever the positions are; with several they choose."""
    layer = randomized(EncoderLayer(WIDTH, HEADS, HIDDEN))
    pos = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(5))
    one = tokens(1)
    assert torch.allclose(layer(one, pos[:1]), layer(one, 5 * pos[:1]), atol=1e-6)
    assert not torch.allclose(layer(tokens(), pos), layer(tokens(), 5 * pos), atol=1e-2)
    packed = layer.self_attn
    x = tokens()
    by_formula = layer.norm1(x + packed(x + pos, x + pos, x))
    by_formula = layer.norm2(by_formula + layer.linear2(torch.relu(layer.linear1(by_formula))))
    assert torch.allclose(layer(x, pos), by_formula, atol=1e-6)


@torch.no_grad()
def test_the_query_reads_valid_memory_only(valid: Tensor) -> None:
    decoder = randomized(QueryDecoder(WIDTH, HEADS, HIDDEN, 2))
    pos = torch.zeros(TOKENS, WIDTH)
    memory = tokens()
    other = memory.masked_fill(~valid[..., None], 7.0)
    before = decoder(memory, pos, key_bias(valid))
    assert before.shape == (2, WIDTH)
    assert torch.equal(before, decoder(other, pos, key_bias(valid)))
    assert not torch.equal(before[1], decoder(other, pos)[1])
    assert not torch.equal(before, decoder(memory, pos + 0.3, key_bias(valid)))


def test_positions_are_detrs_normalised_sines() -> None:
    width, side = 16, 5
    positions = detr_positions(width, torch.ones(1, side, side, dtype=torch.bool)).view(side, side, width)
    for row, column, channel in ((0, 0, 0), (2, 4, 3), (4, 1, 6), (3, 2, 9), (1, 3, 12), (4, 4, 15)):
        place = row if channel < width // 2 else column
        inner = channel % (width // 2)
        angle = (place + 1) / (side + 1e-6) * 2 * math.pi / 10000 ** (2 * (inner // 2) / (width // 2))
        expected = math.cos(angle) if inner % 2 else math.sin(angle)
        assert float(positions[row, column, channel]) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="multiple of 4"):
        detr_positions(18, torch.ones(1, 5, 5))


def test_dropout_acts_in_training_only() -> None:
    layer = randomized(EncoderLayer(WIDTH, HEADS, HIDDEN, dropout=0.5))
    pos = torch.zeros(TOKENS, WIDTH)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        first = layer(tokens(), pos)
        assert torch.equal(first, layer(tokens(), pos))
        layer.train()
        assert not torch.equal(layer(tokens(), pos), layer(tokens(), pos))


def test_attention_alone_where_no_hidden_width_is_given() -> None:
    layer = EncoderLayer(WIDTH, HEADS, 0)
    assert {name.split(".")[0] for name in layer.state_dict()} == {"self_attn", "norm1"}
    assert layer(tokens(), torch.zeros(TOKENS, WIDTH)).shape == tokens().shape


def test_widths_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple of heads"):
        PackedAttention(30, 4)

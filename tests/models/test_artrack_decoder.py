"""Box tokens, fusion encoder and decoder against plain references; cached against uncached decoding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model_cases import randomized
from vltrack.models.artrack_decoder import (
    BoxTokenizer,
    FusionEncoder,
    RelativeBias,
    SequenceDecoder,
    confidence,
    relative_index,
)

C, HEADS = 32, 4
TOKENS, PUBLISHED = BoxTokenizer(bins=40), BoxTokenizer()


def decoder(history: int = 7, layers: int = 2) -> SequenceDecoder:
    module = SequenceDecoder(C, HEADS, 2.0, layers, tokenizer=TOKENS, history=history)
    randomized(module)
    return module


def memory_of(batch: int = 3, cells: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, cells, C, generator=generator), torch.randn(1, cells, C, generator=generator)


def past(batch: int = 3, history: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return 0.2 + 0.4 * torch.rand(batch, history, 4, generator=generator)


# -- positions and the encoder --------------------------------------------------------------------------


def test_relative_numbers_ascend_with_the_offset() -> None:
    """The published tables are in the order of ``torch.unique`` over (rows, columns)."""
    for side, other in ((3, 3), (2, 4), (4, 2)):
        first = torch.cartesian_prod(torch.arange(side), torch.arange(side))
        second = torch.cartesian_prod(torch.arange(other), torch.arange(other))
        offsets = (first[:, None] - second[None]).flatten(0, 1)
        _, numbers = torch.unique(offsets, dim=0, return_inverse=True)
        assert torch.equal(relative_index(side, other).flatten(), numbers)
        assert RelativeBias(HEADS, side, other).relative_position_bias_table.shape == (HEADS, (side + other - 1) ** 2)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Head by head."""
    heads = []
    for h, (q, k, v) in enumerate(zip(*(t.chunk(HEADS, dim=-1) for t in (query, key, value)), strict=True)):
        heads.append(((q @ k.transpose(1, 2)) / (C / HEADS) ** 0.5 + bias[h]).softmax(-1) @ v)
    return torch.cat(heads, dim=-1)


def test_encoder_follows_the_published_order_of_updates() -> None:
    torch.manual_seed(3)
    encoder = FusionEncoder(C, HEADS, 2.0, 1, sides=(2, 3))
    randomized(encoder)
    z, x = torch.randn(2, 4, C), torch.randn(2, 9, C)
    found_z, found_x = encoder(z, x)

    def places(part: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        side = len(part.pos["w_pos"])
        grid = torch.stack([part.pos["h_pos"][i] + part.pos["w_pos"][j] for i in range(side) for j in range(side)])
        grid = part.norm(grid)
        q, k = part.pos_q_linear(grid) / (C / HEADS) ** 0.5, part.pos_k_linear(grid)
        return list(q.chunk(HEADS, dim=-1)), list(k.chunk(HEADS, dim=-1))

    def bias(a: nn.Module, b: nn.Module, table: nn.Module) -> Tensor:
        (q, _), (_, k) = places(a), places(b)
        return torch.stack([q[h] @ k[h].T for h in range(HEADS)]) + table()

    zp, xp, layer = encoder.z_pos_enc, encoder.x_pos_enc, encoder.layers[0]

    def itself(part: nn.Module, t: Tensor, b: Tensor) -> Tensor:
        return part.proj(plain_attention(*part.qkv(t).chunk(3, dim=-1), b))

    def other(part: nn.Module, t: Tensor, u: Tensor, b: Tensor) -> Tensor:
        return part.proj(plain_attention(part.q(t), *part.kv(u).chunk(2, dim=-1), b))

    z = z + itself(layer.z_self_attn, layer.z_norm1(z), bias(zp, zp, encoder.z_rel_pos_bias_table))
    x = x + itself(layer.x_self_attn, layer.x_norm1(x), bias(xp, xp, encoder.x_rel_pos_bias_table))
    zx, xz = bias(zp, xp, encoder.z_x_rel_pos_bias_table), bias(xp, zp, encoder.x_z_rel_pos_bias_table)
    z = z + other(layer.z_x_cross_attention, layer.z_norm2_1(z), layer.x_norm2_1(x), zx)
    x = x + other(layer.x_z_cross_attention, layer.x_norm2_2(x), layer.z_norm2_2(z), xz)
    z = z + layer.z_mlp(layer.z_norm3(z))
    x = x + layer.x_mlp(layer.x_norm3(x))
    assert torch.allclose(found_z, z, atol=1e-5)
    assert torch.allclose(found_x, x, atol=1e-5)


def test_two_equal_templates_are_seen_like_one() -> None:
    """Softmax over twice the same keys is the same mean: the second template only shares the weight."""
    one = FusionEncoder(C, HEADS, 2.0, 2, sides=(2, 3))
    two = FusionEncoder(C, HEADS, 2.0, 2, sides=(2, 3), templates=2)
    randomized(one)
    two.load_state_dict(one.state_dict())
    torch.manual_seed(4)
    z, x = torch.randn(2, 4, C), torch.randn(2, 9, C)
    z_one, x_one = one(z, x)
    z_two, x_two = two.eval()(torch.cat([z, z], dim=1), x)
    assert torch.allclose(x_one, x_two, atol=1e-4)
    assert torch.allclose(torch.cat([z_one, z_one], dim=1), z_two, atol=1e-4)


# -- the decoder ----------------------------------------------------------------------------------------


def reference(module: SequenceDecoder, tokens: Tensor, memory: Tensor, places: Tensor) -> Tensor:
    """With torch's own multi-head attention, over the whole sequence at once."""

    def attention(part: nn.Module) -> nn.MultiheadAttention:
        own = nn.MultiheadAttention(C, HEADS, batch_first=True)
        own.load_state_dict(
            {
                "in_proj_weight": part.in_proj.weight,
                "in_proj_bias": part.in_proj.bias,
                "out_proj.weight": part.out_proj.weight,
                "out_proj.bias": part.out_proj.bias,
            }
        )
        return own

    table = module.word_embeddings.weight.detach().clone()
    logits_table = table.clone()
    x = nn.functional.embedding(tokens, table, max_norm=1.0)  # scales ``table`` in place
    positions = torch.cat([module.prev_position_embeddings.weight, module.position_embeddings.weight])
    positions = positions[: tokens.shape[1]]
    later = torch.ones(tokens.shape[1], tokens.shape[1]).triu(1).bool()
    for layer in module.layers:
        q = layer.norm_1(x) + positions
        x = x + attention(layer.self_attn1)(q, q, x, attn_mask=later, need_weights=False)[0]
        k = layer.norm_2_memory(memory) + places
        q = layer.norm_2_query(x) + positions
        x = x + attention(layer.multihead_attn)(q, k, memory, need_weights=False)[0]
        x = x + layer.mlpz(layer.norm_3(x))
    return module.norm(x) @ logits_table.T + module.output_bias


@torch.no_grad()
def test_decoder_equals_the_reference() -> None:
    module, (memory, places) = decoder(), memory_of()
    tokens = torch.randint(0, TOKENS.coordinates, (3, 33), generator=torch.Generator().manual_seed(5))
    found = module(tokens, module.keys_values(memory, places))
    assert float(module.word_embeddings.weight.norm(dim=1).min()) > 1  # every row is scaled down when read
    assert torch.allclose(found, reference(module, tokens, memory, places), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("history", [7, 2, 0])
@pytest.mark.parametrize("batch", [1, 3])
def test_cached_generation_equals_the_whole_sequence_again(history: int, batch: int) -> None:
    module, (memory, places) = decoder(history), memory_of(batch)
    seen = module.keys_values(memory, places)
    prompt = module.start_sequence(past(batch, history))
    tokens, logits = module.generate(prompt, seen)
    sequence = prompt
    for i in range(4):
        again = module(sequence, seen)[:, -1]
        assert torch.allclose(again, logits[:, i], atol=1e-5)
        assert torch.equal(again.argmax(dim=-1), tokens[:, i])
        sequence = torch.cat([sequence, tokens[:, i : i + 1]], dim=1)
    # One causal pass over what was written gives the same four again: how training sees it.
    whole = module(sequence[:, :-1], seen)[:, -4:]
    assert torch.allclose(whole, logits, atol=1e-5)


@torch.no_grad()
def test_a_batch_equals_its_singles_and_tokens_depend_on_what_they_should() -> None:
    module, (memory, places) = decoder(), memory_of()
    prompt = module.start_sequence(past())
    tokens, logits = module.generate(prompt, module.keys_values(memory, places))
    for i in range(3):
        one = module.generate(prompt[i : i + 1], module.keys_values(memory[i : i + 1], places))
        assert torch.equal(one[0], tokens[i : i + 1])
        assert torch.allclose(one[1], logits[i : i + 1], atol=1e-5)
    moved = module.generate(module.start_sequence(past() + 0.1), module.keys_values(memory, places))[1]
    assert float((moved - logits).abs().max()) > 1e-3
    other = module.generate(prompt, module.keys_values(memory.flip(1), places))[1]
    assert float((other - logits).abs().max()) > 1e-3


@torch.no_grad()
def test_no_token_attends_to_a_later_one() -> None:
    module, (memory, places) = decoder(), memory_of()
    seen = module.keys_values(memory, places)
    tokens = torch.randint(0, 80, (3, 33), generator=torch.Generator().manual_seed(6))
    changed = tokens.clone()
    changed[:, 30] = (changed[:, 30] + 1) % 80
    before, after = module(tokens, seen), module(changed, seen)
    assert torch.equal(before[:, :30], after[:, :30])
    assert float((before[:, 30:] - after[:, 30:]).abs().max()) > 1e-4


def test_the_sequence_starts_with_past_boxes_and_the_start_token() -> None:
    module = decoder(history=2)
    boxes = past(1, 2)
    prompt = module.start_sequence(boxes)
    assert prompt.shape == (1, 9)
    assert torch.equal(prompt[0, :4], TOKENS.encode(boxes[0, 0]))
    assert torch.equal(prompt[0, 4:8], TOKENS.encode(boxes[0, 1]))
    assert int(prompt[0, 8]) == TOKENS.coordinates


def test_decoding_writes_nothing() -> None:
    module, (memory, places) = decoder(), memory_of()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.generate(module.start_sequence(past()), module.keys_values(memory, places))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_the_box_is_of_the_likeliest_tokens_or_their_expectation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words 420 to 560 of 800 are 0.05 to 0.40 of the crop; the third is torn between 500 and 540."""
    module = SequenceDecoder(C, HEADS, 2.0, 1, tokenizer=BoxTokenizer(), history=0)
    logits = torch.full((1, 4, 802), -1e4)
    for place, word in enumerate((420, 440, 500, 560)):
        logits[0, place, word] = 1.0
    logits[0, 2, 540] = 1.0
    tokens = torch.tensor([[420, 440, 500, 560]])
    monkeypatch.setattr(module, "generate", lambda start, memory: (tokens, logits))
    greedy, sure = module.predict_box(torch.zeros(1, 1), [])
    assert torch.equal(greedy, module.tokenizer.decode(tokens))
    assert torch.equal(sure, confidence(tokens, logits))
    expected, _ = module.predict_box(torch.zeros(1, 1), [], expected=True)
    assert torch.allclose(expected, module.tokenizer.decode(torch.tensor([[420, 440, 520, 560]])), atol=1e-6)
    logits[0, 2] = logits[0, 0]  # corners in one place
    thin, _ = module.predict_box(torch.zeros(1, 1), [], expected=True)
    assert float(thin[0, 2]) == pytest.approx(1 / 399)


def test_confidence_counts_near_tokens_only() -> None:
    logits = torch.full((1, 4, 802), -100.0)
    logits[0, :, 400] = logits[0, :, 408] = 0.0
    tokens = torch.full((1, 4), 400)
    assert float(confidence(tokens, logits)) == pytest.approx(1.0)
    logits[0, 0, 408], logits[0, 0, 409] = -100.0, 0.0
    assert float(confidence(tokens, logits)) == pytest.approx((0.5 + 3) / 4)


def test_every_parameter_learns_from_a_teacher_forced_pass() -> None:
    module, (memory, places) = decoder(), memory_of()
    module.train()
    target = torch.randint(0, 80, (3, 4), generator=torch.Generator().manual_seed(7))
    tokens = torch.cat([module.start_sequence(past()), target], dim=1)
    logits = module(tokens, module.keys_values(memory, places))[:, -5:]
    logits.square().mean().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in module.parameters())


# -- box tokens ---------------------------------------------------------------------------------------


def test_published_sizes() -> None:
    assert (PUBLISHED.coordinates, PUBLISHED.size, PUBLISHED.margin) == (800, 802, 0.5)


def test_tokens_of_a_box_by_hand() -> None:
    """x1 = .375 -> (.375 + .5) * 399 = 349.125; the part after the point is cut off, as released."""
    box = torch.tensor([[0.5, 0.6, 0.25, 0.2]])  # corners .375 .5 .625 .7
    assert PUBLISHED.encode(box).tolist() == [[349, 399, 448, 478]]
    assert torch.allclose(PUBLISHED.values(torch.tensor([0, 399, 798])), torch.tensor([-0.5, 0.5, 1.5]))


def test_corners_far_outside_are_clamped() -> None:
    assert PUBLISHED.encode(torch.tensor([[0.5, 0.5, 9.0, 9.0]])).tolist() == [[0, 0, 798, 798]]


def test_there_and_back_is_less_than_a_step_off() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.cat(
        [torch.rand(500, 2, generator=generator), 0.05 + 0.4 * torch.rand(500, 2, generator=generator)], 1
    )
    back = PUBLISHED.decode(PUBLISHED.encode(boxes))
    assert float((back - boxes).abs().max()) <= 1 / 399 + 1e-6
    # Words of decoded boxes are the same tokens, if half a word is added against rounding.
    again = PUBLISHED.encode(back + torch.tensor([0.5 / 399, 0.5 / 399, 0, 0]))
    assert torch.equal(again, PUBLISHED.encode(boxes))


def test_corners_in_the_wrong_order_give_the_smallest_box() -> None:
    box = PUBLISHED.decode(torch.tensor([[500, 500, 300, 520]]))
    assert box[0, 2] == pytest.approx(1 / 399)
    assert box[0, 3] == pytest.approx(20 / 399)
    assert box[0, 0] == pytest.approx(400 / 399 - 0.5)


def test_expectation_of_certain_tokens_is_the_decoded_box() -> None:
    tokens = torch.tensor([[349, 399, 448, 478]])
    logits = torch.nn.functional.one_hot(tokens, PUBLISHED.size) * 200.0
    assert torch.allclose(PUBLISHED.soft_argmax(logits), PUBLISHED.decode(tokens), atol=1e-6)


def test_expectation_between_two_tokens_and_without_start_and_end() -> None:
    logits = torch.full((1, 4, PUBLISHED.size), -200.0)
    logits[0, :, 400] = logits[0, :, 402] = 0.0
    logits[0, 2:, 400] = logits[0, 2:, 402] = -200.0
    logits[0, 2:, 500] = 0.0
    logits[0, :, 800:] = 50.0  # these two are no coordinates
    box = PUBLISHED.soft_argmax(logits)[0]
    low, high = 401 / 399 - 0.5, 500 / 399 - 0.5
    expected = [(low + high) / 2] * 2 + [high - low] * 2
    assert box.tolist() == pytest.approx(expected, abs=1e-5)


def test_refuses_sizes_that_mean_nothing() -> None:
    with pytest.raises(ValueError, match="bins"):
        BoxTokenizer(bins=1)

"""The BERT encoder is that of ``transformers`` with the same weights and names, and padding has no say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vltrack.nn.attention import key_bias
from vltrack.nn.bert import Bert

LENGTH = 12


@pytest.fixture
def words() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(1, 500, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    valid = torch.arange(LENGTH)[None] < torch.tensor([[LENGTH], [5]])
    return ids.masked_fill(~valid, 0), valid


def small(**changes) -> Bert:
    sizes = {"width": 48, "layers": 3, "heads": 4, "hidden": 96, "table_width": 48, "positions": 40}
    return Bert(**{**sizes, **changes}).eval()


def test_parity_with_transformers(words) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=30522,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=40,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = BertModel(config, add_pooling_layer=False).eval()
        for parameter in theirs.parameters():
            nn.init.normal_(parameter, std=0.2)
    ours = small()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.endswith("position_ids")})
    ids, valid = words
    with torch.no_grad():
        expected = theirs(ids, attention_mask=valid.long()).last_hidden_state
        actual = ours(ids, key_bias(valid))
    torch.testing.assert_close(actual[valid], expected[valid], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("table_width", [48, 16])
def test_padding_has_no_say(words, table_width: int) -> None:
    ids, valid = words
    bert = small(table_width=table_width)
    other = torch.where(valid, ids, torch.full_like(ids, 77))
    with torch.no_grad():
        before, after = bert(ids, key_bias(valid))[valid], bert(other, key_bias(valid))[valid]
        unmasked = bert(other)[valid]
    assert torch.equal(before, after)
    assert not torch.equal(before, unmasked)  # the check can fail


def test_longer_padding_changes_nothing(words) -> None:
    ids, valid = words
    bert = small()
    longer = nn.functional.pad(ids, (0, 7)), nn.functional.pad(valid, (0, 7))
    with torch.no_grad():
        torch.testing.assert_close(
            bert(longer[0], key_bias(longer[1]))[:, :LENGTH][valid],
            bert(ids, key_bias(valid))[valid],
            rtol=1e-5,
            atol=1e-5,
        )


def test_a_narrow_word_table_is_projected_and_costs_less() -> None:
    wide, narrow = small(), small(table_width=16)
    assert wide.embeddings.embeddings_project is None
    assert narrow.embeddings.word_embeddings.weight.shape == (30522, 16)
    assert "embeddings.embeddings_project.weight" in narrow.state_dict()
    assert len(wide.layers) == 3

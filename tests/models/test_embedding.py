"""The input embedding: correlation with the template and with the text, masks by mode, skip features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model_cases import boxed, boxes, make, pictures, small
from vltrack.models.base import Template, Text
from vltrack.models.embedding import TemplateCorrelation, TextCorrelation
from vltrack.models.litetrack import tiny


def features(keys: Tensor, pooled: Tensor, fine: Tensor) -> Template:
    empty = torch.zeros(1, 0, 0)
    return Template(tokens_BMC=empty, inside_BM=empty, keys_BKPF=keys, pooled_BKF=pooled, fine_BKF=fine)


def correlation(templates: int = 1) -> TemplateCorrelation:
    return TemplateCorrelation(6, 4, 9, templates, 5).eval()


def test_correlation_peaks_at_the_target() -> None:
    """Before any training the similarity to the target's pooled features peaks where these features are."""
    random = torch.Generator().manual_seed(0)
    coarse, fine = torch.randn(1, 9, 6, generator=random), torch.randn(1, 36, 4, generator=random)
    inside = torch.zeros(1, 9)
    inside[0, 4] = 1.0
    net = correlation()
    with torch.no_grad():
        keys, pooled, fine_pooled = net.describe(coarse, fine, inside)
        search = torch.randn(1, 16, 6, generator=random)
        search[0, 11] = 3 * coarse[0, 4]
        similarity = torch.nn.functional.normalize(net.key(search), dim=-1) @ pooled[0]
    assert int(similarity[0].argmax()) == 11
    assert float(similarity[0, 11]) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(keys[0].abs().sum(dim=1) > 0, inside[0] > 0)  # background of the template is weighted out
    # The four fine cells of a template cell lie together.
    four = torch.nn.functional.normalize(fine[0, 16:20], dim=-1).sum(dim=0)
    torch.testing.assert_close(fine_pooled[0], torch.nn.functional.normalize(four, dim=0))


@torch.no_grad()
def test_two_templates_are_correlated_each_in_its_place() -> None:
    random = torch.Generator().manual_seed(1)
    net = correlation(templates=2)
    parts = []
    for _ in range(2):
        described = net.describe(
            torch.randn(1, 9, 6, generator=random),
            torch.randn(1, 36, 4, generator=random),
            torch.rand(1, 9, generator=random),
        )
        parts.append([tensor[:, None] for tensor in described])
    both = [torch.cat(pair, dim=1) for pair in zip(*parts, strict=True)]
    search = torch.randn(1, 16, 6, generator=random), torch.randn(1, 64, 4, generator=random)
    template = features(*both)
    out = net(*search, template)
    assert out.shape == (1, 16, 5)
    swapped = net(*search, features(*(tensor.flip(1) for tensor in both)))
    assert float((out - swapped).abs().max()) > 1e-4  # the order tells first from recent


def test_correlation_without_a_box_is_zero() -> None:
    net = correlation()
    described = net.describe(torch.randn(1, 9, 6), torch.randn(1, 36, 4), torch.zeros(1, 9))
    assert all(float(tensor.detach().abs().sum()) == 0 for tensor in described)


@torch.no_grad()
def test_text_correlation_starts_at_zero_and_ignores_padding() -> None:
    random = torch.Generator().manual_seed(2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = TextCorrelation(6, 4, 5).eval()
    cells = torch.randn(1, 9, 6, generator=random), torch.randn(1, 36, 4, generator=random)
    tokens, valid = torch.randn(1, 4, 5, generator=random), torch.tensor([[True, True, False, False]])
    added, similarity = net(*cells, Text(tokens_BLC=tokens, valid_BL=valid))
    assert not bool(added.any())
    other = torch.where(valid[..., None], tokens, 7.0)
    assert torch.equal(similarity, net(*cells, Text(tokens_BLC=other, valid_BL=valid))[1])
    assert float((similarity - net(*cells, Text(tokens_BLC=other, valid_BL=valid | True))[1]).abs().max()) > 0


@torch.no_grad()
def test_a_mode_decides_which_correlation_counts() -> None:
    """Template correlation unless the sample is text-only, text correlation only then; plus positions."""
    model = make(small(tiny()))
    template = model.embed_template(boxed(pictures(64, 2), boxes(2)))
    both = model.joint_template(template, template)
    text = model.read_text(torch.tensor([[101, 2417, 102]] * 2), torch.ones(2, 3, dtype=torch.bool))
    search = pictures(128, 2, 5)
    with_box, text_only, mixed = (
        model.embed.search(search, both, text, torch.tensor(flags), model.pos_embed_x).tokens_BNC
        for flags in ([False, False], [True, True], [False, True])
    )
    plain = model.embed.stem(search).tokens_BNC + model.pos_embed_x
    assert float((with_box - plain).abs().max()) > 1e-4
    assert float((text_only - plain).abs().max()) > 1e-4
    assert torch.equal(mixed[0], with_box[0])
    assert torch.equal(mixed[1], text_only[1])

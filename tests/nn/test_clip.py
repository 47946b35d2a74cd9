"""CLIP's towers are those of ``transformers`` with the same weights; a new mask channel has no effect."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model_cases import randomized
from vltrack.checkpoints.key_maps import apply_key_map, clip_map, from_hugging_face
from vltrack.nn.clip import CLIP_MEAN, CLIP_STD, ClipText, ClipVision, to_clip_input

END = 299
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "projection_dim": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
WHOLE = torch.ones(2, 1, 28, 28)


def small_vision(**changes) -> ClipVision:
    sizes = {"size": 28, "patch": 7, "width": 128, "layers": 3, "out": 32}
    return ClipVision(**{**sizes, **changes}).eval()


def small_text() -> ClipText:
    return ClipText(vocabulary=END + 1, length=12, width=128, layers=3, out=32).eval()


def pictures(count: int = 2, size: int = 28, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def words() -> tuple[Tensor, Tensor]:
    ids = torch.randint(1, END - 1, (3, 12), generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([[12], [5], [8]])
    valid = torch.arange(12)[None] < lengths
    ids[:, 0] = END - 1
    return ids.scatter(1, lengths - 1, END).masked_fill(~valid, 0), valid


def test_the_picture_tower_is_that_of_transformers() -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(**SIZES, image_size=28, patch_size=7, attn_implementation="eager")
    with torch.random.fork_rng(devices=[]):
        theirs = randomized(CLIPVisionModelWithProjection(config), std=0.2)
    ours = small_vision()
    apply_key_map(ours, from_hugging_face(theirs.state_dict()), clip_map(image="", text=None))
    with torch.no_grad():
        expected = theirs(pictures())
        torch.testing.assert_close(ours(pictures(), WHOLE), expected.image_embeds, rtol=1e-5, atol=1e-5)


def test_the_sentence_tower_is_that_of_transformers(words) -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=END + 1,
        **SIZES,
        max_position_embeddings=12,
        bos_token_id=END - 1,
        eos_token_id=END,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        theirs = randomized(CLIPTextModelWithProjection(config), std=0.2)
    ours = small_text()
    apply_key_map(ours, from_hugging_face(theirs.state_dict()), clip_map(image=None, text=""))
    ids, valid = words
    with torch.no_grad():
        expected = theirs(ids).text_embeds
        torch.testing.assert_close(ours(ids, valid), expected, rtol=1e-5, atol=1e-5)


def test_padding_has_no_say(words) -> None:
    ids, valid = words
    tower = randomized(small_text(), std=0.2)
    other = torch.where(valid, ids, torch.full_like(ids, 77))
    with torch.no_grad():
        before = tower(ids, valid)
        assert torch.equal(before, tower(other, valid))
        torch.testing.assert_close(tower(ids[1:2, :5], valid[1:2, :5]), before[1:2], rtol=1e-5, atol=1e-5)
        ids[1, 3] = 7
        assert not torch.allclose(before[1], tower(ids, valid)[1])  # the check can fail
    with pytest.raises(ValueError, match="13 word pieces"):
        tower(nn.functional.pad(ids, (0, 1)), nn.functional.pad(valid, (0, 1)))


def test_a_new_mask_channel_has_no_effect_and_a_trained_one_has() -> None:
    assert not small_vision().conv1_alpha.weight.any()
    tower = randomized(small_vision(), std=0.2)
    trained = tower.conv1_alpha.weight.clone()
    left = torch.zeros(2, 1, 28, 28)
    left[..., :14] = 1
    with torch.no_grad():
        tower.conv1_alpha.weight.zero_()
        plain = tower(pictures(), left)
        assert torch.equal(plain, tower(pictures(), WHOLE))
        tower.conv1_alpha.weight.copy_(trained)
        assert not torch.allclose(tower(pictures(), left), tower(pictures(), left.flip(-1)))
        assert not torch.allclose(tower(pictures(), left), tower(pictures(), WHOLE))
        # The mask is normalised as in the released code: the share 0.5 adds nothing.
        assert torch.equal(tower(pictures(), torch.full_like(left, 0.5)), plain)


def test_the_defaults_are_vit_l_14() -> None:
    """OpenAI's model has 427,616,513 parameters; one of them is the temperature of its loss."""
    with torch.device("meta"):
        towers = ClipVision(), ClipText()
    vision, text = (sum(p.numel() for p in tower.parameters()) for tower in towers)
    assert vision - 1024 * 14 * 14 + text + 1 == 427_616_513  # less the mask channel


def test_a_picture_gets_the_numbers_and_the_size_of_clip() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    plain = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    theirs = (plain - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    wanted = (plain - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
    torch.testing.assert_close(to_clip_input(theirs, mean, std, 32), wanted, rtol=1e-5, atol=1e-5)
    assert to_clip_input(theirs, mean, std, 28).shape == (2, 3, 28, 28)
    white = (torch.ones(1, 3, 32, 32) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(
        to_clip_input(white, mean, std, 28)[0, :, 14, 14], (1 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    )


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="multiple of patch 7"):
        small_vision(size=30)

"""Coordinates as words: what a word stands for, cutting off, clamping, expectation, and the way back."""

from __future__ import annotations

import pytest
import torch

from vltrack.models.artrack_decoder import Vocabulary

WORDS = Vocabulary()


def test_published_sizes() -> None:
    assert (WORDS.coordinates, WORDS.start, WORDS.end, WORDS.size, WORDS.margin) == (800, 800, 801, 802, 0.5)


def test_words_of_a_box_by_hand() -> None:
    """x1 = .375 -> (.375 + .5) * 399 = 349.125; the part after the point is cut off, as released."""
    box = torch.tensor([[0.5, 0.6, 0.25, 0.2]])  # corners .375 .5 .625 .7
    assert WORDS.words(box).tolist() == [[349, 399, 448, 478]]
    assert torch.allclose(WORDS.values(torch.tensor([0, 399, 798])), torch.tensor([-0.5, 0.5, 1.5]))


def test_corners_far_outside_are_clamped() -> None:
    assert WORDS.words(torch.tensor([[0.5, 0.5, 9.0, 9.0]])).tolist() == [[0, 0, 798, 798]]


def test_there_and_back_is_less_than_a_word_off() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.cat(
        [torch.rand(500, 2, generator=generator), 0.05 + 0.4 * torch.rand(500, 2, generator=generator)], 1
    )
    back = WORDS.box(WORDS.words(boxes))
    assert float((back - boxes).abs().max()) <= 1 / 399 + 1e-6
    # Words of decoded boxes are the same words, if half a word is added against rounding.
    again = WORDS.words(back + torch.tensor([0.5 / 399, 0.5 / 399, 0, 0]))
    assert torch.equal(again, WORDS.words(boxes))


def test_corners_in_the_wrong_order_give_the_smallest_box() -> None:
    box = WORDS.box(torch.tensor([[500, 500, 300, 520]]))
    assert box[0, 2] == pytest.approx(1 / 399)
    assert box[0, 3] == pytest.approx(20 / 399)
    assert box[0, 0] == pytest.approx(400 / 399 - 0.5)


def test_expectation_of_certain_words_is_the_decoded_box() -> None:
    words = torch.tensor([[349, 399, 448, 478]])
    logits = torch.nn.functional.one_hot(words, WORDS.size) * 200.0
    assert torch.allclose(WORDS.expected(logits), WORDS.box(words), atol=1e-6)


def test_expectation_between_two_words_and_without_start_and_end() -> None:
    logits = torch.full((1, 4, WORDS.size), -200.0)
    logits[0, :, 400] = logits[0, :, 402] = 0.0
    logits[0, 2:, 400] = logits[0, 2:, 402] = -200.0
    logits[0, 2:, 500] = 0.0
    logits[0, :, 800:] = 50.0  # these two are no coordinates
    box = WORDS.expected(logits)[0]
    low, high = 401 / 399 - 0.5, 500 / 399 - 0.5
    expected = [(low + high) / 2] * 2 + [high - low] * 2
    assert box.tolist() == pytest.approx(expected, abs=1e-5)


def test_refuses_sizes_that_mean_nothing() -> None:
    with pytest.raises(ValueError, match="bins"):
        Vocabulary(bins=1)

"""Normalised tensors equal the formula, lie as channels_last, and leave the pictures alone."""

from __future__ import annotations

import numpy as np
import torch

from vltrack.prep.crops import IMAGENET_MEAN, IMAGENET_STD, images_to_tensor


def test_formula_and_layout() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    before = batch.copy()
    tensor = images_to_tensor(batch)
    want = ((batch / 255.0 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)).transpose(0, 3, 1, 2)
    assert tensor.dtype == torch.float32
    assert tensor.shape == (2, 3, 8, 8)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert np.abs(tensor.numpy() - want).max() < 1e-5
    assert (batch == before).all()


def test_a_list_is_a_batch_and_views_are_fine() -> None:
    batch = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    flipped = [picture[:, ::-1] for picture in batch]
    assert torch.equal(images_to_tensor(flipped), images_to_tensor(batch[:, :, ::-1]))
    assert torch.equal(images_to_tensor(batch)[1:2], images_to_tensor([batch[1]]))
    assert torch.equal(
        images_to_tensor(batch, (0, 0, 0), (1, 1, 1)).mul(255).round().byte().permute(0, 2, 3, 1),
        torch.from_numpy(batch),
    )

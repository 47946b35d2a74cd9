"""Pictures to normalised tensors. Knows torch and the mean and deviation; knows no crop and no network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vltrack.core.types import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB mean and deviation of ImageNet in [0, 1], as in torchvision; all public image trunks were trained with
them.
"""


def images_to_tensor(
    crops: Sequence[Image] | NDArray[np.uint8],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> torch.Tensor:
    """``(x / 255 - mean) / std`` of equally large pictures.

    Args:
        crops: B pictures (S, S, 3) RGB uint8, or one array (B, S, S, 3); not modified.
        mean, std: three numbers each, in [0, 1].

    Returns:
        (B, 3, S, S) float32, ``channels_last`` in memory (the order in which the pixels already lie).
    """
    batch = torch.from_numpy(np.stack(list(crops)))
    count, height, width, _ = batch.shape
    deviation = torch.tensor(std, dtype=torch.float32)
    gain = 1.0 / (255.0 * deviation)
    shift = -torch.tensor(mean, dtype=torch.float32) / deviation
    # Whole rows at once: a last axis of three would cost ten times as much.
    rows = batch.view(count, height, width * 3).to(torch.float32)
    rows.mul_(gain.repeat(width)).add_(shift.repeat(width))
    return rows.view(count, height, width, 3).permute(0, 3, 1, 2)

"""Find what sentences name in an image: proposals of the detector, ranked by the grounder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch

from vltrack.core.types import Candidate, Image


class Grounding:
    """A loaded grounder with its vocabulary, on a device."""

    @classmethod
    def load(cls, device: torch.device) -> Self:
        """Load the weights that ship. Raises ``ModelNotFound`` where they are missing."""
        raise NotImplementedError

    def find(self, image: Image, texts: Sequence[str]) -> list[list[Candidate]]:
        """Return per sentence distinct candidates, best first; 1 - sum(scores) is the probability that none fits."""
        raise NotImplementedError

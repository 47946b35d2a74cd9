"""Dataclasses of tensors whose first axis is the target. Knows no meaning of the tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor


class Batched:
    """Joined and taken apart for several targets.

    Entries that are no tensors (a prediction's ``logits``) are passed on from the first part as they are.
    """

    def pick(self, indices: Sequence[int] | Tensor) -> Self:
        """The targets ``indices`` of the batch."""
        index = torch.as_tensor(indices, dtype=torch.long)
        picked: Self = _map([self], lambda tensors: tensors[0][index.to(tensors[0].device)])
        return picked

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """One batch from several."""
        joined: Self = _map(list(parts), lambda tensors: torch.cat(tensors, dim=0))
        return joined


def _map(parts: list[Any], function: Any) -> Any:
    changed: dict[str, Any] = {}
    for entry in dataclasses.fields(parts[0]):
        values = [getattr(part, entry.name) for part in parts]
        if isinstance(values[0], Tensor):
            changed[entry.name] = function(values)
        elif isinstance(values[0], Batched):
            changed[entry.name] = _map(values, function)
        else:
            changed[entry.name] = values[0]
    return dataclasses.replace(parts[0], **changed)

"""Which parameters of a module are held still when it is frozen. Knows no tracker and no plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn


def freezable(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """All parameters of these modules but those of their layer norms, which go on training (LiteTrack)."""
    for module in modules:
        for part in module.modules():
            if not isinstance(part, nn.LayerNorm):
                yield from part.parameters(recurse=False)

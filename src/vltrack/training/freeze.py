"""Layer freezing that a plateau of the loss undoes step by step (LiteTrack idea 1).

The released code defines such a plan and never executes it. Here a plan is executed: the loss of each period
is compared with the best so far, and after ``patience`` periods without a gain of ``delta`` the next module
is set free.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from vltrack.nn.frozen import freezable


def freeze(modules: list[nn.Module]) -> None:
    """Stop the gradients of all parameters but those of normalisation layers."""
    for parameter in freezable(modules):
        parameter.requires_grad_(False)


@dataclass
class PlateauUnfreezer:
    """Counts periods without progress. State is plain numbers, so that a resumed run goes on as it was."""

    order: list[nn.Module]
    patience: int
    delta: float
    best: float = float("inf")
    waited: int = 0
    freed: int = 0
    history: list[int] = field(default_factory=list)

    def period(self, loss: float, step: int) -> bool:
        """Tell the mean loss of one period; True if a module was set free."""
        if loss < self.best * (1 - self.delta):
            self.best, self.waited = loss, 0
            return False
        self.waited += 1
        if self.waited < self.patience or self.freed >= len(self.order):
            return False
        self._free(self.order[self.freed])
        self.freed += 1
        self.waited = 0
        self.history.append(step)
        return True

    def state(self) -> dict[str, Any]:
        """Numbers to store."""
        best = self.best if self.best != float("inf") else None
        return {"best": best, "waited": self.waited, "freed": self.freed, "history": self.history}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from stored numbers, with the same modules free."""
        self.best = state["best"] if state["best"] is not None else float("inf")
        self.waited, self.freed, self.history = state["waited"], state["freed"], list(state["history"])
        for module in self.order[: self.freed]:
            self._free(module)

    @staticmethod
    def _free(module: nn.Module) -> None:
        for parameter in module.parameters():
            parameter.requires_grad_(True)

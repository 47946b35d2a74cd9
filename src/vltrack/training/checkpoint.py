"""A run's state on disk: weights, average and optimizer as safetensors, counters as JSON; and the layer
freezing that a plateau of the loss undoes step by step (LiteTrack).

The released code of LiteTrack defines a freeze plan and never executes it. Here the loss of each period is
compared with the best so far; after ``patience`` periods without a gain of ``delta`` the next module of the
plan is unfrozen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from vltrack.core.errors import CheckpointCorrupt, ConfigError, DataError, StateError
from vltrack.core.files import sha256_bytes, write_bytes, write_text
from vltrack.core.json_io import read_json
from vltrack.nn.device import freezable
from vltrack.training.recipes import to_dict

MAX_CONFIG_BYTES = 1 << 20


def freeze(modules: list[nn.Module]) -> None:
    """Stop the gradients of all parameters except those of layer norms."""
    for parameter in freezable(modules):
        parameter.requires_grad_(False)


@dataclass
class PlateauUnfreezer:
    """Counts periods without progress; its state is plain numbers, which a checkpoint holds."""

    order: list[nn.Module]
    patience: int
    delta: float
    best: float = float("inf")
    waited: int = 0
    freed: int = 0
    history: list[int] = field(default_factory=list)

    def period(self, loss: float, step: int) -> bool:
        """Count a period by its mean loss; True if a module was unfrozen."""
        if loss < self.best * (1 - self.delta):
            self.best, self.waited = loss, 0
            return False
        self.waited += 1
        if self.waited < self.patience or self.freed >= len(self.order):
            return False
        self.order[self.freed].requires_grad_(True)
        self.freed += 1
        self.waited = 0
        self.history.append(step)
        return True

    def state(self) -> dict[str, Any]:
        """Numbers for the checkpoint."""
        best = self.best if self.best != float("inf") else None
        return {"best": best, "waited": self.waited, "freed": self.freed, "history": self.history}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the numbers, and unfreeze the same modules."""
        self.best = state["best"] if state["best"] is not None else float("inf")
        self.waited, self.freed, self.history = state["waited"], state["freed"], list(state["history"])
        for module in self.order[: self.freed]:
            module.requires_grad_(True)


@dataclass
class RunState:
    """Everything that changes while training."""

    model: Any
    average: Any
    optimizer: torch.optim.Optimizer
    unfreezer: PlateauUnfreezer
    step: int = 0


def save_state(out: Path, state: RunState, config: Any) -> None:
    """Write step-N.safetensors, then last.json with its name, sha256 and ``config``, then remove the one before.

    Raises ``ResourceError`` where it cannot be written; the checkpoint before is kept.
    """
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.state_dict().items()}
    tensors |= _optimizer_tensors(state)
    data = save_bytes({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    path = out / f"step-{state.step}.safetensors"
    write_bytes(path, data)
    record = {
        "step": state.step,
        "file": path.name,
        "sha256": sha256_bytes(data),
        "unfreezer": state.unfreezer.state(),
        "config": to_dict(config),
    }
    write_text(out / "last.json", json.dumps(record, indent=2) + "\n")
    for old in out.glob("step-*.safetensors"):
        if old != path:
            old.unlink()


def restore_state(out: Path, state: RunState) -> None:
    """Load the checkpoint of last.json. A run that was stopped before its first one starts at step 0.

    Raises:
        CheckpointCorrupt: the file or last.json is damaged.
        StateError: last.json names a file that is missing.
    """
    if not (out / "last.json").exists():
        return
    record, tensors = _read(out)
    state.unfreezer.restore(record["unfreezer"])
    _fill(state.model, tensors, "model.")
    _fill(state.average, tensors, "average.")
    _fill_optimizer(state, tensors)
    state.step = record["step"]
    _cut_log(out / "log.csv", state.step)


def averaged(run: Path) -> dict[str, Tensor]:
    """The averaged weights of a run's last checkpoint, under the model's own names.

    Raises:
        StateError: ``run`` holds no checkpoint, or names one that is missing.
        CheckpointCorrupt: it is damaged.
    """
    if not (run / "last.json").exists():
        raise StateError(f"{run} holds no checkpoint.", hint="Train first, with `vltrack train`.")
    prefix = "average."
    return {k[len(prefix) :]: v for k, v in _read(run)[1].items() if k.startswith(prefix)}


def read_config(path: Path) -> dict[str, Any]:
    """Read config.json of a run. Raises ``ConfigError``: no strict JSON object, or larger than 1 MiB."""
    try:
        found = read_json(path, max_bytes=MAX_CONFIG_BYTES)
    except DataError as error:
        raise ConfigError(f"{path} is not a configuration: {error.message}", hint="Start a new run.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is not a configuration: {type(found).__name__}.", hint="Start a new run.")
    return found


def read_record(run: Path) -> dict[str, Any]:
    """Read last.json of a run. Raises ``CheckpointCorrupt``: it is damaged."""
    path = run / "last.json"
    try:
        record = read_json(path, max_bytes=MAX_CONFIG_BYTES)
        if {"step", "file", "sha256", "unfreezer", "config"} <= set(record):
            return dict(record)
        reason = "fields are missing"
    except (DataError, TypeError) as error:
        reason = str(error)
    raise CheckpointCorrupt(f"{path} is damaged: {reason}", hint="Start a new run.")


def _read(run: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """last.json and the tensors of its checkpoint."""
    record = read_record(run)
    path = run / record["file"]
    if not path.exists():
        raise StateError(f"{path} is missing; last.json names it.", hint="Start a new run.")
    data = path.read_bytes()
    if sha256_bytes(data) != record["sha256"]:
        raise CheckpointCorrupt(f"{path} is damaged (sha256 differs).", hint="Start a new run.")
    return record, load_bytes(data)


def _fill(module: Any, tensors: dict[str, Tensor], prefix: str) -> None:
    module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})


def _optimizer_tensors(state: RunState) -> dict[str, Tensor]:
    names = {parameter: name for name, parameter in state.model.named_parameters()}
    return {
        f"optimizer.{names[parameter]}.{key}": torch.as_tensor(value)
        for parameter, entries in state.optimizer.state.items()
        for key, value in entries.items()
    }


def _fill_optimizer(state: RunState, tensors: dict[str, Tensor]) -> None:
    by_name = dict(state.model.named_parameters())
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            name, entry = key[len("optimizer.") :].rsplit(".", 1)
            parameter = by_name[name]
            value = value if entry == "step" else value.to(parameter.device)
            state.optimizer.state[parameter][entry] = value


def _cut_log(path: Path, step: int) -> None:
    """Remove the lines after the checkpoint: they will be written again."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines[1:] if int(line.split(",", 1)[0]) <= step]
        write_text(path, "".join([*lines[:1], *kept]))

"""A run's state on disk: weights, average and optimizer as safetensors, counters as JSON; and the layer
freezing that a plateau of the loss undoes step by step (LiteTrack).

The two newest checkpoints are kept: a damaged one costs the steps since the one before.

The released code of LiteTrack defines a freeze plan and never executes it. Here the loss of each period is
compared with the best so far; after ``patience`` periods without a gain of ``delta`` the next module of the
plan is unfrozen.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from vltrack.core.errors import CheckpointCorrupt, ConfigError, DataError, ResourceError, StateError
from vltrack.core.files import counted, read_checksummed, read_limited, sha256_bytes, write_bytes, write_checksummed
from vltrack.core.json_io import read_json
from vltrack.nn.device import freezable
from vltrack.training.recipes import to_dict

log = logging.getLogger(__name__)
MAX_CONFIG_BYTES = 1 << 20
_CHECKPOINT_BYTES = 32 << 30
FORMAT = "vltrack-checkpoint"
KEPT = 2
_COUNTERS = ("loss_sum", "loss_count", "skipped")


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
    """Everything that changes while training.

    Attributes:
        loss_sum, loss_count: of the steps since the unfreezer's last period.
        skipped: steps skipped in a row.
    """

    model: Any
    average: Any
    optimizer: torch.optim.Optimizer
    unfreezer: PlateauUnfreezer
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    skipped: int = 0


def save_state(out: Path, state: RunState, config: Any) -> None:
    """Write step-N.safetensors, then step-N.json with its sha256 and ``config``; keep two checkpoints.

    Raises ``ResourceError`` where it cannot be written; those before are kept.
    """
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.state_dict().items()}
    tensors |= _optimizer_tensors(state)
    data = save_bytes({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    write_bytes(out / f"step-{state.step}.safetensors", data)
    record = {
        "format": FORMAT,
        "step": state.step,
        "sha256": sha256_bytes(data),
        "unfreezer": state.unfreezer.state(),
        "config": json.loads(json.dumps(to_dict(config))),
        **{name: getattr(state, name) for name in _COUNTERS},
    }
    write_checksummed(out / f"step-{state.step}.json", record)
    finished = [step for step in _steps(out, ".json") if step <= state.step]
    # The record first: a file of tensors without one does not count.
    for path in (path for suffix in (".json", ".safetensors") for path in out.glob(f"step-*{suffix}")):
        if path.stem not in {f"step-{step}" for step in finished[:KEPT]}:
            path.unlink()


def check_space(out: Path, model: nn.Module) -> None:
    """Raise ``ResourceError`` where the disk has no room for the checkpoints: those kept, and one in work."""
    state = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    there = sum(path.stat().st_size for path in out.glob("step-*.safetensors"))
    # Weights, their average and two moments of the optimizer
    needed, free = 4 * state * (KEPT + 1) - there, shutil.disk_usage(out).free
    if free < needed:
        raise ResourceError(
            f"The checkpoints of this run need {needed / 1e6:,.0f} MB; {out} has {free / 1e6:,.0f} MB free.",
            hint="Free some space, or use another --out.",
        )


def restore_state(out: Path, state: RunState) -> None:
    """Load the newest checkpoint, or the one before with a warning. A run without any starts at step 0.

    Raises:
        CheckpointCorrupt: all checkpoints are damaged.
        StateError: the run is of an older version.
    """
    found = _newest(out)
    if found is None:
        return
    record, tensors = found
    state.unfreezer.restore(record["unfreezer"])
    _fill(state.model, tensors, "model.")
    _fill(state.average, tensors, "average.")
    _fill_optimizer(state, tensors)
    for name in ("step", *_COUNTERS):
        setattr(state, name, record[name])


def has_checkpoint(run: Path) -> bool:
    """Return whether a run has a checkpoint, which may be damaged."""
    return bool(_steps(run, ".json"))


def read_checkpoint(run: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record (step, config, unfreezer) and the averaged weights of a run's newest checkpoint.

    The weights have the model's own names. Raises as ``restore_state``, and ``StateError`` without a checkpoint.
    """
    found = _newest(run)
    if found is None:
        raise StateError(f"{run} holds no checkpoint.", hint="Train first, with `vltrack train`.")
    prefix = "average."
    return found[0], {k[len(prefix) :]: v for k, v in found[1].items() if k.startswith(prefix)}


def averaged(run: Path) -> dict[str, Tensor]:
    """The averaged weights of ``read_checkpoint``."""
    return read_checkpoint(run)[1]


def read_config(path: Path) -> dict[str, Any]:
    """Read config.json of a run. Raises ``ConfigError``: no strict JSON object, or larger than 1 MiB."""
    try:
        found = read_json(path, max_bytes=MAX_CONFIG_BYTES)
    except DataError as error:
        raise ConfigError(f"{path} is not a configuration: {error.message}", hint="Start a new run.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is not a configuration: {type(found).__name__}.", hint="Start a new run.")
    return found


def _steps(run: Path, *suffixes: str) -> list[int]:
    """Steps of the checkpoint files with these suffixes, newest first."""
    found = [re.fullmatch(r"step-(\d+)(\.\w+)", path.name) for path in run.glob("step-*")]
    return sorted({int(match[1]) for match in found if match and match[2] in suffixes}, reverse=True)


def _newest(run: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Record and tensors of the newest good checkpoint; None before the first one."""
    steps, problems = _steps(run, ".json", ".safetensors"), []
    if (run / "last.json").exists() and not _steps(run, ".json"):
        raise StateError(f"{run} is a run of an older version of vltrack (last.json).", hint="Start a new run.")
    damaged: CheckpointCorrupt | None = None
    for step in steps:
        if not (run / f"step-{step}.json").exists():
            problems.append(f"The checkpoint of step {step} in {run} is unfinished.")
            continue
        try:
            found = _read(run, step)
        except CheckpointCorrupt as error:
            damaged = damaged or error
            problems.append(error.message)
            continue
        if problems:
            lost = counted(steps[0] - step, "step")
            log.warning("%s The one of step %d is used; lost: %s.", " ".join(problems), step, lost)
        return found
    if damaged is not None or len(problems) > 1:  # a kill leaves one checkpoint at most without its record
        raise CheckpointCorrupt(" ".join(problems), hint="Start a new run.") from damaged
    return None


def _read(run: Path, step: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    path = run / f"step-{step}.safetensors"
    try:
        record, data = read_checksummed(path.with_suffix(".json"), FORMAT), read_limited(path, _CHECKPOINT_BYTES)
    except OSError as error:
        raise CheckpointCorrupt(f"Cannot read {path}: {error.strerror}.") from error
    except StateError as error:
        raise CheckpointCorrupt(f"{path.with_suffix('.json')} is damaged.") from error
    if sha256_bytes(data) != record["sha256"]:
        raise CheckpointCorrupt(f"{path} is damaged (sha256 differs).")
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
            if entry != "step" or state.optimizer.defaults["fused"]:
                value = value.to(parameter.device)
            state.optimizer.state[parameter][entry] = value

"""The training loop, for one process or several under torchrun.

A run can be resumed after any kill, with the same result: the data of a step depend on (seed, index) alone;
weights, average, optimizer and counters are in the checkpoint.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from vltrack.core.errors import ConfigError, DataError, Diverged, GroundingFailed, ResourceError, StateError
from vltrack.core.files import as_resource_error, write_text
from vltrack.core.types import Mode, Target, iou_xywh
from vltrack.datasets.synthetic import SyntheticClip, synthesize_clip
from vltrack.nn.device import choose_device, mixed_precision, use_threads
from vltrack.tracking.engine import Engine
from vltrack.tracking.postprocess import Policy
from vltrack.tracking.tracker import default_policy
from vltrack.training.checkpoint import RunState, read_config, restore_state, save_state
from vltrack.training.data import Batch, loader, open_data, prepare_data, step_samples
from vltrack.training.init import freezing, starting_model
from vltrack.training.losses import TERMS, PairObjective
from vltrack.training.recipes import TrainConfig, to_dict
from vltrack.training.rollout import ClipObjective
from vltrack.training.sources import Source

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
COLUMNS = ("step", "rate", "total", *TERMS, "iou", "pairs_per_s")
LOG_EVERY = 25
SKIPS_ALLOWED = 3
CLIPS, FRAMES, FIRST_SEED = 6, 24, 7_000
"""Synthetic clips of the validation curve; training draws scenes of other seeds."""


@dataclass(frozen=True, kw_only=True)
class DistributedContext:
    """Rank of this process, number of processes, and device."""

    rank: int
    world: int
    device: torch.device


def join_job(device: str) -> DistributedContext:
    """Join the job that torchrun started, if any."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    rank = dist.get_rank() if world > 1 else 0
    if chosen.type == "cuda" and world > 1:
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return DistributedContext(rank=rank, world=world, device=chosen)


def train(
    config: TrainConfig,
    *,
    sources: Sequence[Source],
    out: Path,
    resume: bool,
    device: str = "auto",
    workers: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Train until ``config.steps``.

    Writes into ``out``: config.json, step-N.safetensors, last.json, log.csv, validation.csv and, for pairs,
    cutouts.npz.

    Args:
        config: the recipe.
        sources: data to train on.
        out: folder of the run.
        resume: continue from the last checkpoint in ``out``.
        device: ``auto``, ``cpu`` or ``cuda``.
        workers: processes that render samples for this one; 0 renders in this process.
        progress: called with finished steps, all steps and a line of losses; None writes it to the log.

    Raises:
        StateError: ``out`` holds a run and ``resume`` is False, or another configuration; or it is in use.
        ConfigError: ``batch`` is smaller than the number of processes; config.json is damaged.
        DataError: an image cannot be read; a sample holds NaN.
        ResourceError: no such device, no memory, no disk space; a worker process died.
        Diverged: the gradient was not finite several times in a row; the last checkpoint is kept.
    """
    context = join_job(device)
    use_threads(1 if context.device.type == "cpu" and context.world > 1 else torch.get_num_threads())
    if config.batch < context.world:
        raise ConfigError(f"train.batch is {config.batch} for {context.world} processes.", hint="Raise --batch.")
    if context.rank == 0:
        _check_folder(config, out, resume=resume)
    torch.manual_seed(config.seed)
    model = starting_model(config, out)
    if context.rank == 0 and not resume:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise as_resource_error(error, out) from error
        write_text(out / "config.json", json.dumps(to_dict(config), indent=2, sort_keys=True) + "\n")
    if context.world > 1:
        dist.barrier()
    unfreezer = freezing(model, config)
    average = _copy_of(model)
    model.to(context.device)
    average.to(context.device)
    optimizer = _optimizer(model, config)
    state = RunState(model=model, average=average, optimizer=optimizer, unfreezer=unfreezer)
    with _locked(out / "config.json") if context.rank == 0 else nullcontext():
        if resume:
            restore_state(out, state)
        _Loop(config, state, context, sources, out, workers, progress).run()


class _Loop:
    """The steps of one run."""

    def __init__(
        self,
        config: TrainConfig,
        state: RunState,
        context: DistributedContext,
        sources: Sequence[Source],
        out: Path,
        workers: int,
        progress: Callable[[int, int, str], None] | None,
    ) -> None:
        self.config, self.state, self.context, self.out = config, state, context, out
        self.workers, self.progress = workers, progress or partial(log.info, "step %d of %d  %s")
        if context.rank == 0:
            prepare_data(config, sources, out)
        if context.world > 1:
            dist.barrier()
        self.dataset = open_data(config, sources, state.model, out)
        objective = ClipObjective if config.clips.frames else PairObjective
        self.objective: nn.Module = objective(state.model, config.losses)
        self.period_loss: list[float] = []
        self.skipped = 0
        self.tables_fail = False

    def run(self) -> None:
        """Run all remaining steps."""
        self.objective.train()
        freeze_bn_stats(self.state.model)
        wrapped = self._wrap()
        began, since = time.monotonic(), self.state.step
        for batch in self._batches():
            terms = self._step(wrapped, batch)
            self.state.step += 1
            if self.state.step % LOG_EVERY == 0:
                elapsed = max(time.monotonic() - began, 1e-9)
                # Two search views per sample
                self._log(terms, 2 * self.config.batch * (self.state.step - since) / elapsed)
                began, since = time.monotonic(), self.state.step
            if self._unfreeze(float(terms["total"].detach())):
                wrapped = self._wrap()
            last = self.state.step == self.config.steps
            if self.state.step % self.config.save_every == 0 or last:
                self._save()
            if self.state.step % self.config.validate_every == 0 or last:
                self._validate()

    def _batches(self) -> Iterator[Batch]:
        batches = loader(
            self.dataset,
            batch=self.config.batch,
            first=self.state.step,
            steps=self.config.steps,
            rank=self.context.rank,
            world=self.context.world,
            workers=self.workers,
        )
        try:
            for step, batch in enumerate(batches, self.state.step):
                self._check_finite(step, batch)
                yield batch
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            raise ResourceError(
                f"A process that renders samples died at step {self.state.step}: {error}.",
                hint="Is there enough memory? --resume continues from the last checkpoint.",
            ) from error

    def _check_finite(self, step: int, batch: Batch) -> None:
        """Refuse NaN in a batch: the gradient of a position that is not a number crashes the process."""
        for name, values in batch.items():
            finite_B = torch.isfinite(values).flatten(1).all(dim=1) if values.is_floating_point() else None
            if finite_B is not None and not bool(finite_B.all()):
                sample = self._samples(step)[int(finite_B.int().argmin())]
                raise DataError(f"Sample {sample} is not finite: {name}.", hint="Check the annotations.")

    def _samples(self, step: int) -> range:
        return step_samples(step, self.config.batch, self.context.rank, self.context.world)

    def _wrap(self) -> nn.Module:
        if self.context.world == 1:
            return self.objective
        # A batch of clips may have no sentence: then the text encoder has no gradient.
        some = bool(self.config.clips.frames)
        return nn.parallel.DistributedDataParallel(self.objective, find_unused_parameters=some)

    def _step(self, wrapped: nn.Module, batch: Batch) -> dict[str, Tensor]:
        config, state, device = self.config, self.state, self.context.device
        for group in state.optimizer.param_groups:
            group["lr"] = group["full_rate"] * schedule(config, state.step)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        select = bool(torch.rand((), generator=generator) < config.select_share)
        state.optimizer.zero_grad(set_to_none=True)
        try:
            batch = {k: v.to(device) for k, v in batch.items()}
            with mixed_precision(device, enabled=config.bf16):
                terms: dict[str, Tensor] = wrapped(batch, select)
            terms["total"].backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"{device} has not enough memory for train.batch {config.batch}.",
                hint="Lower --batch or use another --device.",
            ) from error
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.grad_clip)
        if not bool(torch.isfinite(norm)):
            self._skip_step()
            return terms
        self.skipped = 0
        state.optimizer.step()
        self._update_average()
        return terms

    def _skip_step(self) -> None:
        self.skipped += 1
        if self.skipped > SKIPS_ALLOWED:
            samples = self._samples(self.state.step)
            raise Diverged(
                f"The gradient was not finite {self.skipped} times in a row, last at step {self.state.step} "
                f"(samples {samples[0]} to {samples[-1]}).",
                hint="Lower --set learning_rate; the last checkpoint is good.",
            )

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average follows quickly, else it would keep a share of the random start.
        keep = min(self.config.ema, (1 + self.state.step) / (10 + self.state.step))
        average, model = self.state.average.state_dict(), self.state.model.state_dict()
        for slow, fast in zip(average.values(), model.values(), strict=True):
            if slow.is_floating_point():
                slow.lerp_(fast, 1 - keep)
            else:
                slow.copy_(fast)

    def _unfreeze(self, total: float) -> bool:
        self.period_loss.append(total)
        if len(self.period_loss) < self.config.save_every:
            return False
        mean = torch.tensor(sum(self.period_loss) / len(self.period_loss))
        if self.context.world > 1:
            dist.all_reduce(mean)
            mean /= self.context.world
        self.period_loss.clear()
        return self.state.unfreezer.period(float(mean), self.state.step)

    def _log(self, terms: dict[str, Tensor], speed: float) -> None:
        if self.context.rank:
            return
        row = {"step": self.state.step, "rate": schedule(self.config, self.state.step), "pairs_per_s": speed}
        row |= {k: float(v.detach()) for k, v in terms.items()}
        self._append("log.csv", COLUMNS, row)
        note = f"loss {row['total']:.3f}  overlap {row['iou']:.3f}  {speed:.0f} pairs/s"
        self.progress(self.state.step, self.config.steps, note)

    def _validate(self) -> None:
        if self.context.rank == 0:
            policy = default_policy(self.config.model, self.config.size)
            row = {"step": self.state.step, **validate(self.state.average, self.context.device, policy)}
            self._append("validation.csv", ("step", "bbox", "nlbbox", "nl"), row)

    def _append(self, name: str, columns: tuple[str, ...], row: dict[str, Any]) -> None:
        """Append a line to a CSV table; the training continues where that fails, with one warning."""
        path = self.out / name
        try:
            new = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
                if new:
                    writer.writeheader()
                writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})
        except OSError as error:
            if not self.tables_fail:
                log.warning("%s", as_resource_error(error, path))
            self.tables_fail = True

    def _save(self) -> None:
        if self.context.rank == 0:
            save_state(self.out, self.state, self.config)
        if self.context.world > 1:
            dist.barrier()


def validate(model: Any, device: torch.device, policy: Policy | None = None) -> dict[str, float]:
    """Mean overlap on synthetic clips by mode (``bbox``, ``nlbbox``, ``nl``), over frames with a target.

    The model must be in eval mode; it is not changed.
    """
    engine = Engine(model, device, policy or Policy())
    clips = [synthesize_clip(FIRST_SEED + i, FRAMES) for i in range(CLIPS)]
    return {str(mode): float(np.mean([_overlap(engine, clip, mode) for clip in clips])) for mode in Mode}


def _overlap(engine: Engine, clip: SyntheticClip, mode: Mode) -> float:
    x, y, w, h = (float(v) for v in clip.boxes[0])
    target = Target(box=None if mode is Mode.NL else (x, y, w, h), text=None if mode is Mode.BBOX else clip.sentence)
    try:
        state, _ = engine.start(clip.frames[0], target)
    except GroundingFailed:  # early weights may find nothing from the text alone
        return 0.0
    boxes = [state.box]
    for image in clip.frames[1:]:
        (state,) = engine.step(image, [state])
        boxes.append(state.box)
    return float(iou_xywh(np.stack(boxes), clip.boxes)[~clip.absent].mean())


def schedule(config: TrainConfig, step: int) -> float:
    """Factor on the learning rate: linear warm-up, then cosine to ``final_rate``."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def freeze_bn_stats(model: nn.Module) -> None:
    """Keep the running statistics of frozen batch norms."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def _copy_of(model: Any) -> Any:
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval().requires_grad_(False)


def _optimizer(model: Any, config: TrainConfig) -> torch.optim.AdamW:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        low_lr = name.startswith(config.low_lr_prefixes)
        groups.setdefault((low_lr, parameter.ndim > 1), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "full_rate": config.learning_rate * (config.low_lr_factor if low_lr else 1.0),
            "weight_decay": config.weight_decay if matrix else 0.0,
        }
        for (low_lr, matrix), parameters in groups.items()
    ]
    return torch.optim.AdamW(settings, lr=config.learning_rate, betas=config.betas)


def _check_folder(config: TrainConfig, out: Path, *, resume: bool) -> None:
    """Check that ``out`` is free, or holds this very run to be resumed. Writes nothing."""
    path = out / "config.json"
    if path.exists() and not resume:
        raise StateError(f"{out} holds a run already.", hint="Continue it with --resume, or use another --out.")
    if resume and not path.exists():
        raise StateError(f"{out} holds no run to resume.", hint="Leave --resume out.")
    if resume:
        old, new = read_config(path), json.loads(json.dumps(to_dict(config)))
        changed = sorted(k for k in new if new[k] != old.get(k) and k not in ("save_every", "validate_every"))
        if changed:
            values = ", ".join(f"{key} ({old.get(key)}, now {new[key]})" for key in changed)
            raise StateError(f"{out} was started with other values of {values}.", hint="Use another --out.")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock a file for this process. Raises ``StateError`` where another process holds the lock."""
    with path.open("rb") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StateError(
                    f"Another process trains in {path.parent}.", hint="Wait for it, or use another --out."
                ) from error
        yield

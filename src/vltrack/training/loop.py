"""The training loop, for one process or several under torchrun.

A run can be resumed after any kill, with the same result. Nothing random is carried from step to step: the samples
of a step depend on (seed, index) alone, and before every part of a batch torch, numpy and random are seeded by
(seed, step, rank, part). What else changes is in the checkpoint: weights, average, optimizer, unfreezer, counters.
On the CPU the result is the same to the bit, for the same number of processes and threads; on a GPU up to the order
of its sums.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vltrack.core.errors import ConfigError, DataError, Diverged, ResourceError, StateError
from vltrack.core.files import write_text
from vltrack.nn.device import keep_freed_memory, mixed_precision, use_threads
from vltrack.tracking.postprocess import default_policy
from vltrack.training.checkpoint import RunState, check_space, has_checkpoint, read_config, restore_state, save_state
from vltrack.training.data import Batch, loader, open_data, prepare_data, step_samples
from vltrack.training.init import freezing, starting_model
from vltrack.training.losses import PairObjective
from vltrack.training.monitor import Monitor
from vltrack.training.optimizer import freeze_bn_stats, make_optimizer, running_stats, schedule
from vltrack.training.processes import (
    STOPS,
    DistributedContext,
    StopRequest,
    check_lock,
    join_job,
    locked,
    process_device,
)
from vltrack.training.recipes import TrainConfig, to_dict
from vltrack.training.rollout import ClipObjective
from vltrack.training.sources import Source
from vltrack.training.validation import validate

LOG_EVERY = 25
SKIPS_ALLOWED = 3
_FREELY_CHANGED = ("save_every", "validate_every")


def check_start(config: TrainConfig, out: Path, *, resume: bool, device: str, world: int) -> None:
    """Check all that a run of ``world`` processes on this machine needs but its data. Writes nothing.

    Raises as ``train`` does.
    """
    process_device(device, world, world - 1)
    _check_batch(config, world)
    _check_folder(config, out, resume=resume)
    starting_model(config, out)


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

    Writes into ``out``: config.json; the two newest checkpoints, step-N.safetensors with step-N.json; and what
    ``prepare_data`` and ``Monitor`` write. Under torchrun all processes call it, with one ``out`` for all
    machines. The first Ctrl-C or SIGTERM in the main thread saves at the end of the running step, then acts as it
    would outside; a second one does so at once.

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
        ConfigError: ``batch`` cannot be shared evenly among processes and parts; config.json is damaged.
        CheckpointCorrupt: all checkpoints are damaged.
        DataError: an image cannot be read; a sample holds NaN.
        ResourceError: no such device, no memory, no disk space; a worker process died.
        Diverged: the gradient was not finite several times in a row; the last checkpoint is kept.
    """
    context = join_job(device)
    use_threads(1 if context.device.type == "cpu" and context.world > 1 else torch.get_num_threads())
    keep_freed_memory()
    _check_batch(config, context.world)
    if resume and context.rank == 0 and not out.is_dir():
        raise StateError(f"{out} holds no run to resume.", hint="Leave --resume out.")
    with locked(out) if context.rank == 0 else nullcontext(False) as killed:
        if context.rank == 0:
            # A run that was killed before config.json was written has not begun.
            resume = resume and ((out / "config.json").exists() or not killed)
            _check_folder(config, out, resume=resume)
        torch.manual_seed(config.seed)
        model = starting_model(config, out)
        if context.rank == 0:
            check_space(out, model)
            prepare_data(config, sources, out)
            write_text(out / "config.json", json.dumps(to_dict(config), indent=2, sort_keys=True) + "\n")
        context.wait()
        unfreezer = freezing(model, config)
        average = _copy_of(model)
        model.to(context.device)
        average.to(context.device)
        state = RunState(model=model, average=average, optimizer=make_optimizer(model, config), unfreezer=unfreezer)
        restore_state(out, state)
        monitor = None
        if context.rank == 0:
            monitor = Monitor(out, config, progress=progress)
            if resume:
                monitor.rewind(state.step)
        dataset = open_data(config, sources, model, out)
        try:
            _Loop(config, state, context, dataset, out, workers, monitor).run()
        finally:
            if monitor is not None:
                monitor.close()
            if context.world > 1:
                dist.destroy_process_group()


class _Loop:
    """The steps of one run."""

    def __init__(
        self,
        config: TrainConfig,
        state: RunState,
        context: DistributedContext,
        dataset: Any,
        out: Path,
        workers: int,
        monitor: Monitor | None,
    ) -> None:
        self.config, self.state, self.context, self.out = config, state, context, out
        self.dataset, self.workers, self.monitor = dataset, workers, monitor
        objective = ClipObjective if config.clips.frames else PairObjective
        self.objective: nn.Module = objective(state.model, config.losses)
        self.shown: Batch = {}
        self.waited = 0.0

    def run(self) -> None:
        """Run all remaining steps."""
        config, state = self.config, self.state
        wrapped, began, since = self._wrap(), time.monotonic(), state.step
        with self._connected(), StopRequest() as stop, closing(self._batches()) as batches:
            if self._validation_due() and self.monitor is not None and not self.monitor.validated(state.step):
                self._validate(stop)  # a kill prevented it
            while state.step < config.steps:
                terms = self._step(wrapped, batches)
                state.step += 1
                terms["total"] = self._agree(terms["total"], stop)
                asked, last = stop.number, state.step == config.steps
                if state.step % LOG_EVERY == 0 or state.step == 1 or last:
                    self._log(terms, time.monotonic() - began, state.step - since)
                    began, since = time.monotonic(), state.step
                if self._unfreeze(terms["total"]):
                    wrapped = self._wrap()
                if save := state.step % config.save_every == 0 or last or asked is not None:
                    self._save()
                if self._validation_due() and asked is None:
                    self._validate(stop)
                    asked = stop.number if self.context.world == 1 else None
                if asked is not None:
                    if not save:
                        self._save()
                    stop.leave()

    def _validation_due(self) -> bool:
        config, step = self.config, self.state.step
        return step > 0 and (step % config.validate_every == 0 or step == config.steps)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Report a lost connection to another process as such: what happened there is its own error."""
        try:
            yield
        except RuntimeError as error:
            if self.context.world == 1 or not (isinstance(error, dist.DistError) or "onnection" in str(error)):
                raise
            raise ResourceError(
                f"Process {self.context.rank} lost its connection to the others at step {self.state.step}.",
                hint="The error of another one says why; --resume continues from the last checkpoint.",
                follows=True,
            ) from error

    def _batches(self) -> Generator[Batch]:
        """Checked batches, ``config.accumulate`` for each step."""
        config, context = self.config, self.context
        batches = loader(
            self.dataset,
            batch=config.batch,
            first=self.state.step,
            steps=config.steps,
            rank=context.rank,
            world=context.world,
            workers=self.workers,
            accumulate=config.accumulate,
            pinned=context.device.type == "cuda",
        )
        first = self.state.step * config.accumulate
        try:
            for number, batch in enumerate(batches, first):
                self._check_finite(*divmod(number, config.accumulate), batch)
                yield batch
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error) and "killed by signal" not in str(error):
                raise
            raise ResourceError(
                f"A process that renders samples died at step {self.state.step}: {error}.",
                hint="Is there enough memory? --resume continues from the last checkpoint.",
            ) from error

    def _check_finite(self, step: int, part: int, batch: Batch) -> None:
        """Refuse NaN in a batch: the gradient of a position that is not a number crashes the process."""
        for name, values in batch.items():
            for row, value in enumerate(values):
                if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                    sample = self._samples(step, part)[row]
                    raise DataError(f"Sample {sample} is not finite: {name}.", hint="Check the annotations.")

    def _samples(self, step: int, part: int) -> range:
        parts = self.config.accumulate
        return step_samples(step, self.config.batch, self.context.rank * parts + part, self.context.world * parts)

    def _wrap(self) -> nn.Module:
        """The objective for training; again after parameters were unfrozen."""
        self.objective.train()
        freeze_bn_stats(self.state.model)
        if self.context.world == 1:
            return self.objective
        # A batch without a sentence gives the text encoder no gradient.
        return nn.parallel.DistributedDataParallel(self.objective, find_unused_parameters=True)

    def _step(self, wrapped: nn.Module, batches: Iterator[Batch]) -> dict[str, float]:
        """One optimizer step; returns the loss terms."""
        config, state, context = self.config, self.state, self.context
        for group in state.optimizer.param_groups:
            group["lr"] = group["full_rate"] * schedule(config, state.step)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        select = bool(torch.rand((), generator=generator) < config.select_share)
        state.optimizer.zero_grad(set_to_none=True)
        before = running_stats(state.model)
        terms: dict[str, Tensor] = {}
        for part in range(config.accumulate):
            asked = time.monotonic()
            self.shown = next(batches)
            self.waited += time.monotonic() - asked
            seed_all(config.seed, state.step, context.rank, part)
            whole = context.world == 1 or part == config.accumulate - 1
            with nullcontext() if whole else wrapped.no_sync():  # type: ignore[operator]
                found = self._backward(wrapped, self.shown, select)
            terms = {k: v.detach() / config.accumulate + terms.get(k, 0) for k, v in found.items()}
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.grad_clip)
        if bool(torch.isfinite(norm)):
            state.skipped = 0
            state.optimizer.step()
            self._update_average()
        else:
            for buffer, value in before:
                buffer.copy_(value)
            self._skip_step()
        return {k: float(v) for k, v in terms.items()}

    def _backward(self, wrapped: nn.Module, batch: Batch, select: bool) -> dict[str, Tensor]:
        """Loss terms of a part of the batch; their gradient is added."""
        config, device = self.config, self.context.device
        try:
            moved = {name: _to(values, device) for name, values in batch.items()}
            with mixed_precision(device, enabled=config.bf16):
                terms: dict[str, Tensor] = wrapped(moved, select)
            (terms["total"] / config.accumulate).backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"{device} has not enough memory for train.batch {config.batch} in {config.accumulate} parts.",
                hint="Raise --set accumulate, which keeps the batch, lower --batch, or use another --device.",
            ) from error
        return terms

    def _skip_step(self) -> None:
        state = self.state
        state.skipped += 1
        if state.skipped > SKIPS_ALLOWED:
            first, last = self._samples(state.step, 0)[0], self._samples(state.step, self.config.accumulate - 1)[-1]
            raise Diverged(
                f"The gradient was not finite {state.skipped} times in a row, last at step {state.step} "
                f"(samples {first} to {last}).",
                hint="Lower --set learning_rate; the last checkpoint is good.",
            )

    def _agree(self, total: float, stop: StopRequest) -> float:
        """Mean loss of all processes; a stop that one was asked for becomes that of all."""
        if self.context.world == 1:
            return total
        shared = torch.tensor([total, *(float(stop.number == number) for number in STOPS)], device=self.context.device)
        dist.all_reduce(shared)
        mean, *asked = shared.tolist()
        if any(asked):
            stop.number = STOPS[asked.index(max(asked))]
        return float(mean / self.context.world)

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average follows quickly, else it would keep a share of the random start.
        keep = min(self.config.ema, (1 + self.state.step) / (10 + self.state.step))
        average, model = (each.state_dict().values() for each in (self.state.average, self.state.model))
        pairs = list(zip(average, model, strict=True))
        slow, fast = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        get_ema_multi_avg_fn(keep)(slow, fast, 0)  # type: ignore[no-untyped-call]
        for counted, count in pairs:
            if not counted.is_floating_point():
                counted.copy_(count)

    def _unfreeze(self, total: float) -> bool:
        """Count a step's loss; True if modules were unfrozen. Skipped steps do not count."""
        state = self.state
        if state.skipped or not math.isfinite(total):
            return False
        state.loss_sum += total
        state.loss_count += 1
        if state.loss_count < self.config.save_every:
            return False
        mean, state.loss_sum, state.loss_count = state.loss_sum / state.loss_count, 0.0, 0
        return state.unfreezer.period(mean, state.step)

    def _log(self, terms: dict[str, float], seconds: float, steps: int) -> None:
        """Report the last ``steps``, which took ``seconds``."""
        config, step, waited = self.config, self.state.step, self.waited
        self.waited = 0.0
        if self.monitor is None:
            return
        samples = config.batch * steps * (1 if config.clips.frames else 2)  # two search views per sample
        seconds = max(seconds, 1e-9)
        rate = config.learning_rate * schedule(config, step - 1)
        self.monitor.log(step, terms, rate=rate, pairs_per_s=samples / seconds, waiting=min(1.0, waited / seconds))
        self.monitor.preview(step, self.shown, self.state.average)

    def _validate(self, stop: StopRequest) -> None:
        """Add a point to the validation curve, unless the run is asked to stop; then it is added after the resume."""
        if self.monitor is None:
            return
        self.monitor.show(self.state.step, "tracking synthetic clips")
        policy = default_policy(self.config.model, self.config.size)
        alone = self.context.world == 1  # other processes wait for this one in their next step
        row = validate(self.state.average, self.context.device, policy, lambda: alone and stop.number is not None)
        if row:
            self.monitor.validation(self.state.step, row)

    def _save(self) -> None:
        if self.monitor is not None:
            check_lock(self.out)
            self.monitor.flush()
            save_state(self.out, self.state, self.config)
        if self.context.world > 1:
            dist.barrier()


def seed_all(*numbers: int) -> None:
    """Seed the global generators of torch, numpy and random by several numbers."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def _to(values: Any, device: torch.device) -> Any:
    """A tensor or a list of tensors on a device."""
    if isinstance(values, list):
        return [_to(value, device) for value in values]
    return values.to(device, non_blocking=device.type == "cuda")


def _copy_of(model: Any) -> Any:
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval().requires_grad_(False)


def _check_batch(config: TrainConfig, world: int) -> None:
    """Raise ``ConfigError`` where processes and parts cannot get equally many samples."""
    if config.batch % (world * config.accumulate):
        raise ConfigError(
            f"train.batch {config.batch} cannot be shared evenly by {world} processes "
            f"with train.accumulate {config.accumulate}.",
            hint=f"Use a multiple of {world * config.accumulate} for --batch, or another --set accumulate.",
        )


def _check_folder(config: TrainConfig, out: Path, *, resume: bool) -> None:
    """Check that ``out`` is free, or holds this very run to be resumed. Writes nothing."""
    path = out / "config.json"
    if not resume and (path.exists() or has_checkpoint(out)):
        raise StateError(f"{out} holds a run already.", hint="Continue it with --resume, or use another --out.")
    if resume and not path.exists():
        raise StateError(f"{out} holds no run to resume.", hint="Leave --resume out.")
    if resume:
        old, new = read_config(path), json.loads(json.dumps(to_dict(config)))
        old, new = _flat(old), _flat(new)
        changed = sorted(k for k in new if new[k] != old.get(k) and k not in _FREELY_CHANGED)
        if changed:
            values = ", ".join(f"{key} ({old.get(key)}, now {new[key]})" for key in changed)
            raise StateError(f"{out} was started with other values of {values}.", hint="Use another --out.")


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Settings by their names on the command line: ``pairs.twin_share``."""
    groups = {key: value for key, value in values.items() if isinstance(value, dict)}
    inner = {f"{key}.{name}": value for key, group in groups.items() for name, value in group.items()}
    return {key: value for key, value in values.items() if key not in groups} | inner

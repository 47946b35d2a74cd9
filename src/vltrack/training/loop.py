"""The training loop: one process or several under torchrun, resumable after any kill, the same result either
way.

A step's data depends on (seed, index) alone; weights, average, optimizer and counters are in the checkpoint.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Dataset

from vltrack.core.errors import Diverged, StateError
from vltrack.core.files import write_text
from vltrack.core.types import Mode, Target, iou_xywh
from vltrack.datasets.cutouts import build_cutouts
from vltrack.datasets.images import ImageSet
from vltrack.datasets.synthetic import SyntheticClip, synthesize_clip
from vltrack.nn.device import choose_device, mixed_precision, use_threads
from vltrack.tracking.engine import Engine
from vltrack.tracking.postprocess import Policy
from vltrack.tracking.tracker import default_policy
from vltrack.training.checkpoint import RunState, restore_state, save_state
from vltrack.training.data import Batch, ClipDataset, PairDataset, loader
from vltrack.training.init import freezing, starting_model
from vltrack.training.losses import TERMS, PairObjective
from vltrack.training.pairs.sampler import PairConfig
from vltrack.training.recipes import TrainConfig
from vltrack.training.rollout import ClipObjective

# MERGED training/loop.py
# The validation curve: the averaged model follows targets of procedural clips that no training picture
# shows.


CLIPS, FRAMES, FIRST_SEED = 6, 24, 7_000


def validate(model: Any, device: torch.device, policy: Policy | None = None) -> dict[str, float]:
    """Mean overlap over all frames with a visible target, by mode: ``bbox``, ``nlbbox``, ``nl``.

    The model must be in eval mode; it is not changed.
    """
    engine = Engine(model, device, policy or Policy())
    clips = [synthesize_clip(FIRST_SEED + i, FRAMES) for i in range(CLIPS)]
    return {str(mode): float(np.mean([_overlap(engine, clip, mode) for clip in clips])) for mode in Mode}


def _overlap(engine: Engine, clip: SyntheticClip, mode: Mode) -> float:
    x, y, w, h = (float(v) for v in clip.boxes[0])
    target = Target(
        box=None if mode is Mode.NL else (x, y, w, h), text=None if mode is Mode.BBOX else clip.sentence
    )
    state, _ = engine.start(clip.frames[0], target)
    boxes = [state.box]
    for image in clip.frames[1:]:
        (state,) = engine.step(image, [state])
        boxes.append(state.box)
    return float(iou_xywh(np.stack(boxes), clip.boxes)[~clip.absent].mean())


log = logging.getLogger(__name__)
COLUMNS = ("step", "rate", "total", *TERMS, "iou", "pairs_per_s")
LOG_EVERY = 25
SKIPS_ALLOWED = 3


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this process stands among those of the job."""

    rank: int
    world: int
    device: torch.device


def place(device: str) -> Place:
    """Join the job that torchrun started, if any."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    rank = dist.get_rank() if world > 1 else 0
    if chosen.type == "cuda" and world > 1:
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return Place(rank=rank, world=world, device=chosen)


def train(
    config: TrainConfig,
    *,
    data: Path,
    out: Path,
    resume: bool,
    device: str = "auto",
    workers: int = 1,
    bar: bool = False,
) -> None:
    """Train until ``config.steps``; writes ``out``/last.json, step-N.safetensors, log.csv, validation.csv,
    config.json.

    ``workers`` processes render pairs for this one; 0 renders in it. ``bar`` shows progress on a terminal.

    Raises:
        StateError: ``out`` holds a run already and ``resume`` is False, or another configuration.
        Diverged: the loss was not finite several times in a row; the last good checkpoint is kept.
    """
    here = place(device)
    use_threads(1 if here.device.type == "cpu" and here.world > 1 else torch.get_num_threads())
    if here.rank == 0:
        _check_claim(config, out, resume=resume)
    torch.manual_seed(config.seed)
    model = starting_model(config, data)
    if here.rank == 0 and not resume:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "config.json", _settings(config))
    if here.world > 1:
        dist.barrier()
    unfreezer = freezing(model, config)
    average = _copy_of(model)
    model.to(here.device)
    average.to(here.device)
    optimizer = _optimizer(model, config)
    state = RunState(model=model, average=average, optimizer=optimizer, unfreezer=unfreezer)
    if resume:
        restore_state(out, state)
    with _progress(config, state, shown=bar and here.rank == 0) as tell:
        _Loop(config, state, here, data, out, workers, tell).run()


class _Loop:
    """The steps of one run."""

    def __init__(
        self,
        config: TrainConfig,
        state: RunState,
        here: Place,
        data: Path,
        out: Path,
        workers: int,
        tell: Callable[[int, str], None],
    ) -> None:
        self.config, self.state, self.here, self.out = config, state, here, out
        self.workers, self.tell = workers, tell
        self.dataset: Dataset[dict[str, Any]]
        if config.clips.frames:
            words, vocabulary = state.model.max_words, state.model.vocabulary
            self.dataset = ClipDataset(config.clips, data, config.seed, words, vocabulary)
            self.objective: nn.Module = ClipObjective(state.model, config.losses)
        else:
            self.dataset = _pairs(config, state.model, here, data, out / "cutouts.npz")
            self.objective = PairObjective(state.model, config.losses)
        self.period_loss: list[float] = []
        self.skipped = 0

    def run(self) -> None:
        """All remaining steps."""
        self.objective.train()
        _still(self.state.model)
        wrapped = self._wrap()
        batches = loader(
            self.dataset,
            batch=self.config.batch,
            first=self.state.step,
            steps=self.config.steps,
            rank=self.here.rank,
            world=self.here.world,
            workers=self.workers,
        )
        began, since = time.monotonic(), self.state.step
        for batch in batches:
            terms = self._step(wrapped, batch)
            self.state.step += 1
            if self.state.step % LOG_EVERY == 0:
                speed = 2 * self.config.batch * (self.state.step - since) / (time.monotonic() - began)
                self._log(terms, speed)
                began, since = time.monotonic(), self.state.step
            if self._unfreeze(float(terms["total"].detach())):
                wrapped = self._wrap()
            last = self.state.step == self.config.steps
            if self.state.step % self.config.save_every == 0 or last:
                self._save()
            if self.state.step % self.config.validate_every == 0 or last:
                self._validate()

    def _wrap(self) -> nn.Module:
        if self.here.world == 1:
            return self.objective
        # A batch of clips may have no sentence: then what reads sentences has no gradient.
        some = bool(self.config.clips.frames)
        return nn.parallel.DistributedDataParallel(self.objective, find_unused_parameters=some)

    def _step(self, wrapped: nn.Module, batch: Batch) -> dict[str, Tensor]:
        config, state = self.config, self.state
        for group in state.optimizer.param_groups:
            group["lr"] = group["full_rate"] * schedule(config, state.step)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        select = bool(torch.rand((), generator=generator) < config.select_share)
        batch = {k: v.to(self.here.device) for k, v in batch.items()}
        state.optimizer.zero_grad(set_to_none=True)
        with mixed_precision(self.here.device, enabled=config.bf16):
            terms: dict[str, Tensor] = wrapped(batch, select)
        terms["total"].backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.clip)
        if not bool(torch.isfinite(norm)):
            self.skipped += 1
            if self.skipped > SKIPS_ALLOWED:
                raise Diverged(
                    f"the gradient was not finite {self.skipped} times in a row at step {state.step}.",
                    hint="Lower --set learning_rate; the last checkpoint is good.",
                )
            return terms
        self.skipped = 0
        state.optimizer.step()
        self._update_average()
        return terms

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average follows quickly, else it would remember the random start.
        keep = min(self.config.ema, (1 + self.state.step) / (10 + self.state.step))
        for slow, fast in zip(
            self.state.average.state_dict().values(), self.state.model.state_dict().values(), strict=True
        ):
            if slow.is_floating_point():
                slow.lerp_(fast, 1 - keep)
            else:
                slow.copy_(fast)

    def _unfreeze(self, total: float) -> bool:
        self.period_loss.append(total)
        if len(self.period_loss) < self.config.save_every:
            return False
        mean = torch.tensor(sum(self.period_loss) / len(self.period_loss))
        if self.here.world > 1:
            dist.all_reduce(mean)
            mean /= self.here.world
        self.period_loss.clear()
        return self.state.unfreezer.period(float(mean), self.state.step)

    def _log(self, terms: dict[str, Tensor], speed: float) -> None:
        if self.here.rank:
            return
        row = {"step": self.state.step, "rate": schedule(self.config, self.state.step), "pairs_per_s": speed}
        row |= {k: float(v.detach()) for k, v in terms.items()}
        _append(self.out / "log.csv", COLUMNS, row)
        self.tell(self.state.step, f"loss {row['total']:.3f}  overlap {row['iou']:.3f}  {speed:.0f} pairs/s")

    def _validate(self) -> None:
        if self.here.rank == 0:
            policy = default_policy(self.config.model, self.config.size)
            row = {"step": self.state.step, **validate(self.state.average, self.here.device, policy)}
            _append(self.out / "validation.csv", ("step", "bbox", "nlbbox", "nl"), row)

    def _save(self) -> None:
        if self.here.rank == 0:
            save_state(self.out, self.state, self.config)
        if self.here.world > 1:
            dist.barrier()


def cut_for(model: Any, pairs: PairConfig) -> PairConfig:
    """``pairs`` with the model's own sizes and factors: training sees what running sees."""
    names = ("template_size", "search_size", "template_factor", "search_factor")
    return replace(pairs, **{name: getattr(model, name) for name in names})


def _pairs(config: TrainConfig, model: Any, here: Place, data: Path, cache: Path) -> PairDataset:
    """Samples cut as the model cuts; makes the cache of cut-out objects where there is none."""
    pairs = cut_for(model, config.pairs)
    wordy = replace(pairs, scene_share=config.later_scene_share, text_share=config.later_text_share)
    later = (config.later_from * config.batch, wordy) if config.later_from else None
    if here.rank == 0 and not cache.exists():
        log.info("cutting objects out of the pictures, once a run: some minutes")
        build_cutouts(ImageSet.load(data), cache, progress=_tell_cut)
    if here.world > 1:
        dist.barrier()
    return PairDataset(pairs, data, cache, config.seed, model.max_words, later, model.vocabulary)


def _tell_cut(done: int, pictures: int) -> None:
    if done % 500 == 0 or done == pictures:
        log.info("cut out of %d of %d pictures", done, pictures)


def _append(path: Path, columns: tuple[str, ...], row: dict[str, Any]) -> None:
    """One more line of a table, whose first line names the columns."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})


@contextmanager
def _progress(config: TrainConfig, state: RunState, *, shown: bool) -> Iterator[Callable[[int, str], None]]:
    """A bar on a terminal, lines in the log elsewhere."""
    if not shown or not sys.stderr.isatty():
        yield lambda step, note: log.info("step %d of %d  %s", step, config.steps, note)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=config.steps, completed=state.step, note="")
        yield lambda step, note: progress.update(task, completed=step, note=note)


def schedule(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then cosine to ``final_rate``."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _still(model: nn.Module) -> None:
    """Batch norms that are not trained keep their statistics too."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def _copy_of(model: Any) -> Any:
    twin = type(model)(model.config)
    twin.load_state_dict(model.state_dict())
    return twin.eval().requires_grad_(False)


def _optimizer(model: Any, config: TrainConfig) -> torch.optim.AdamW:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith(config.slow), parameter.ndim > 1), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "full_rate": config.learning_rate * (config.slow_rate if slow else 1.0),
            "weight_decay": config.weight_decay if matrix else 0.0,
        }
        for (slow, matrix), parameters in groups.items()
    ]
    return torch.optim.AdamW(settings, lr=config.learning_rate, betas=config.betas)


def _settings(config: TrainConfig) -> str:
    return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True) + "\n"


def _check_claim(config: TrainConfig, out: Path, *, resume: bool) -> None:
    """Whether ``out`` is free, or holds this very run to be resumed. Writes nothing."""
    path = out / "config.json"
    if path.exists() and not resume:
        raise StateError(f"{out} holds a run already.", hint="Give --resume to go on, or another --out.")
    if resume and not path.exists():
        raise StateError(f"{out} holds no run to resume.", hint="Leave --resume out.")
    if resume:
        old = json.loads(path.read_text())
        new = json.loads(_settings(config))
        changed = sorted(k for k in new if new[k] != old.get(k) and k not in ("save_every", "validate_every"))
        if changed:
            raise StateError(
                f"{out} was started with other values of {', '.join(changed)}.", hint="Use another --out."
            )

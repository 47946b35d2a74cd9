"""``vltrack.ablate``: each idea of a tracker switched off, at one small budget, over several seeds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from vltrack.api import inputs
from vltrack.api.reporter import QUIET, Reporter
from vltrack.core.errors import DataError, UsageError
from vltrack.core.files import printable, write_text
from vltrack.core.json_io import read_json
from vltrack.core.types import Floats
from vltrack.datasets.reader import open_dataset
from vltrack.metrics.bootstrap import Interval, paired_bootstrap
from vltrack.models import MODELS

MODES = ("bbox", "nlbbox")
WHOLE = "all ideas"
_RESULT = "success.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    """Success AUC of every variant.

    Attributes:
        targets: names of the validation targets.
        steps: of every training.
        auc: (tracker, idea that is off, or ``WHOLE``) -> (seeds, modes, targets), in points.
    """

    targets: tuple[str, ...]
    steps: int
    auc: dict[tuple[str, str], Floats]

    def gain(self, model: str, idea: str, mode: str) -> Interval:
        """What an idea adds: AUC with all ideas minus AUC without it, targets paired, their mean over the seeds."""
        with_it, without = (self.auc[model, one][:, MODES.index(mode)].mean(axis=0) for one in (WHOLE, idea))
        return paired_bootstrap(with_it, without)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row per variant and mode: AUC, its deviation over the seeds, and what the idea adds."""
        for (model, idea), auc in self.auc.items():
            for number, mode in enumerate(MODES):
                by_seed = auc[:, number].mean(axis=1)
                row = {"model": model, "off": "" if idea == WHOLE else idea, "mode": mode, "auc": float(by_seed.mean())}
                row["seeds"], row["deviation"] = len(by_seed), float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None
                if idea != WHOLE:
                    found = self.gain(model, idea, mode)
                    row |= {"adds": found.mean, "low": found.low, "high": found.high}
                yield row


def ablate(
    models: str | Sequence[str] | None = None,
    *,
    data: Sequence[str | Path] | str | Path,
    clips: str | Path,
    out: str | Path,
    steps: int = 300,
    seeds: int = 3,
    jobs: int | None = None,
    skip: Sequence[str] = (),
    reporter: Reporter = QUIET,
) -> Ablation:
    """Train every tiny tracker with all of its ideas, and with each one off (``ModelCard.ideas``); compare on clips.

    All start from the ImageNet stem and random numbers, on the same samples (``recipes.ablation``). A call that was
    stopped goes on where it was: what is finished in ``out`` is not trained again.

    Args:
        models: trackers; None: all.
        data: folders of training data, as of ``vltrack.train``.
        clips: a data set or folder of annotated clips with sentences.
        out: folder of the runs.
        steps, seeds: optimizer steps of each training, and trainings of each variant.
        jobs: trainings at once, one thread each, 0 for one per core; None: one.
        skip: names of targets to leave out.
        reporter: shows the progress.

    Raises:
        UsageError: an unknown tracker. DataError: the data cannot be read. And what ``vltrack.train`` raises.

    Examples:
        >>> import vltrack
        >>> found = vltrack.ablate("litetrack", data="images", clips="open", out="runs/ablation")  # doctest: +SKIP
    """
    names = [models] if isinstance(models, str) else list(models or MODELS)
    for name in names:
        inputs.check_choice("model", name, tuple(MODELS))
    if min(steps, seeds) < 1:
        raise UsageError("An ablation needs a step and a seed at least.")
    folders = [data] if isinstance(data, str | Path) else list(data)
    targets = [one.name for one in open_dataset(Path(clips)).sequences if one.name not in skip]
    if not targets:
        raise DataError(f"{printable(clips)} has no target.")
    wanted = [
        (name, idea, changes, seed)
        for seed in range(1, seeds + 1)
        for name in names
        for idea, changes in {WHOLE: "", **MODELS[name].ideas}.items()
    ]
    runs = {key: Path(out) / f"{key[0]}-{key[1].replace(' ', '-')}-{key[3]}" for key in wanted}
    missing = [key for key in wanted if not (runs[key] / _RESULT).exists()]
    workers = (1 if jobs is None else jobs) or os.cpu_count() or 1
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool,
        reporter.bar("ablating", len(wanted)) as bar,
    ):
        tasks = {
            pool.submit(_run, *key, steps, [str(folder) for folder in folders], str(clips), targets, runs[key]): key
            for key in missing
        }
        done = len(wanted) - len(missing)
        for future in as_completed(tasks):
            future.result()
            done += 1
            bar.show(done, f"{done} of {len(wanted)}: {tasks[future][0]}, {tasks[future][1]}", force=True)
    found: dict[tuple[str, str], list[Floats]] = {}
    for name, idea, _, _ in wanted:
        found.setdefault((name, idea), [])
    for key in wanted:
        record = read_json(runs[key] / _RESULT, max_bytes=1 << 22)
        if (record["steps"], record["targets"]) != (steps, targets):
            raise UsageError(f"{printable(runs[key])} was made with other steps or targets.", hint="Use another --out.")
        found[key[0], key[1]].append(np.array(record["auc"]))
    return Ablation(targets=tuple(targets), steps=steps, auc={key: np.stack(runs) for key, runs in found.items()})


def _run(
    name: str,
    idea: str,
    changes: str,
    seed: int,
    steps: int,
    data: list[str],
    clips: str,
    targets: list[str],
    out: Path,
) -> None:
    """Train one variant and track the clips with it, with one thread."""
    import torch

    torch.set_num_threads(1)

    from vltrack.evaluation.tune import follow
    from vltrack.evaluation.workers import Task
    from vltrack.tracking.postprocess import default_policy
    from vltrack.training.loop import train
    from vltrack.training.publish import publish
    from vltrack.training.recipes import ablation
    from vltrack.training.sources import find_sources

    config = ablation(name, (changes,) if changes else (), seed, steps)
    resume = (out / "config.json").exists()
    train(config, sources=find_sources(data), out=out, resume=resume, device="cpu", workers=0, progress=_silent)
    weights = out / f"{name}-tiny.safetensors"
    publish(out, weights)
    sequences = {one.name: one for one in open_dataset(Path(clips)).sequences}
    auc = []
    for mode in MODES:
        row = []
        for target in targets:
            sequence = sequences[target]
            x, y, w, h = (float(value) for value in sequence.boxes[0])
            text = sequence.sentence if mode == "nlbbox" else None
            task = Task(mode=mode, sequence=sequence, box=(x, y, w, h), text=text)
            row.append(100 * follow(str(weights), default_policy(name, "tiny"), "cpu", task))
        auc.append(row)
    record = {"model": name, "off": idea, "seed": seed, "steps": steps, "targets": targets, "auc": auc}
    write_text(out / _RESULT, json.dumps(record) + "\n")


def _silent(_done: int, _total: int, _text: str) -> None:
    """Show nothing: several trainings run at once."""

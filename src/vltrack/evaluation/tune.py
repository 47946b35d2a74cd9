"""Search for a tracking policy: one option after the other, each value on all models and targets.

A value is taken where the mean gain in success AUC over what was best before exceeds its own standard error over
the targets. A target counts once, with the mean over the models: models fail together on one. Choose on validation
data and report on other data: the policy has seen the targets. (Unpublished; our design.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

from vltrack.core.types import Floats
from vltrack.evaluation.workers import Task, TrackerSpec, load_tracker, track_sequence
from vltrack.metrics.success import success_auc
from vltrack.tracking.postprocess import Policy

if TYPE_CHECKING:
    from vltrack.tracking.tracker import Tracker

Values = Mapping[str, Any]
_Box = tuple[float, float, float, float]
TRIES: Mapping[str, Sequence[Any]] = {
    "window": (0.15, 0.35),
    "penalty": (0.05, 0.2),
    "smooth": (0.4, 0.8),
    "follow_rivals": (False, True),
    "refresh_every": (0, 5, 20),
    "refresh_above": (0.4, 0.6, 0.7),
    "refresh_overlap": (0.0, 0.5),
    "refresh_agreement": (0.0, 0.6),
    "lost_below": (0.2, 0.4),
    "hold_below": (0.05, 0.2),
    "grow": (1.0, 1.05),
    "search_again_every": (0, 10),
    "search_again_above": (0.5, 0.7),
}
"""What is tried where nothing else is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One policy on all models and targets.

    Attributes:
        changes: options that differ from the policy that was best before; {} is the policy at the start.
        auc: (models, targets) success AUC in [0, 1], NaN where a target failed.
        gain, error: mean over the targets of the gain over the best before, and its standard error.
        taken: whether it is the best since.
    """

    changes: dict[str, Any]
    auc: Floats
    gain: float = 0.0
    error: float = 0.0
    taken: bool = False


def search(
    policies: Mapping[str, Policy],
    tasks: Sequence[Task],
    tries: Sequence[Sequence[Values]],
    *,
    jobs: int = 1,
    starts: int = 1,
    device: str = "cpu",
    done: Callable[[int], None] = lambda _: None,
) -> Iterator[Trial]:
    """Yield the trial of the policies as they are, then each one tried.

    Args:
        policies: of each model at the start, by the path of its weights.
        tasks: what they track.
        tries: groups of alternatives; of each group at most one is taken, before the next one is tried.
        jobs: processes.
        starts: from how many boxes each target is tracked (``moved``).
        device: of the networks.
        done: called with the number of targets that are done.
    """
    count = 0
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:

        def measured(changed: Mapping[str, Policy]) -> Floats:
            nonlocal count
            futures = [
                pool.submit(follow, path, policy, device, task, starts)
                for path, policy in changed.items()
                for task in tasks
            ]
            found = []
            for future in futures:
                found.append(future.result())
                count += 1
                done(count)
            return np.array(found).reshape(len(changed), len(tasks))

        best = Trial(changes={}, auc=measured(policies), taken=True)
        yield best
        for group in tries:
            trials = []
            for values in group:
                changed = {path: policy.changed(values) for path, policy in policies.items()}
                if changed == policies:
                    continue
                auc = measured(changed)
                gain, error = difference(auc, best.auc)
                trials.append(Trial(changes=dict(values), auc=auc, gain=gain, error=error))
            chosen = max(trials, key=lambda one: one.gain, default=None)
            for one in trials:
                if one is chosen and one.gain > max(one.error, 1e-9):
                    best = replace(one, taken=True)
                    policies = {path: policy.changed(one.changes) for path, policy in policies.items()}
                    yield best
                else:
                    yield one


def difference(auc: Floats, before: Floats) -> tuple[float, float]:
    """Mean over the targets of the gain, and its standard error; NaN for one target."""
    gains = np.nanmean(auc - before, axis=0)
    gains = gains[np.isfinite(gains)]
    error = float(gains.std(ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else math.nan
    return float(gains.mean()) if len(gains) else math.nan, error


def follow(weights: str, policy: Policy, device: str, task: Task, starts: int = 1) -> float:
    """Success AUC of a tracker on one sequence, mean over the starts. Raises as ``track_sequence``."""
    tracker = _loaded(weights, device).with_policy(policy)
    found = []
    for box in moved(task.box, starts):
        boxes = np.array([row[:4] for row in track_sequence(tracker, replace(task, box=box))])
        found.append(success_auc(boxes, task.sequence.boxes, task.sequence.absent))
    return float(np.mean(found))


def moved(box: _Box | None, starts: int) -> list[_Box | None]:
    """A box and, for more starts, the box moved by up to 2 % of its sides: what of a result is chance averages out."""
    if box is None:
        return [None]
    x, y, w, h = box
    shifts = np.random.default_rng(0).uniform(-0.02, 0.02, (starts, 2)) * (np.arange(starts) > 0)[:, None]
    return [(float(x + dx * w), float(y + dy * h), w, h) for dx, dy in shifts]


@lru_cache(maxsize=1)
def _loaded(weights: str, device: str) -> Tracker:
    return load_tracker(TrackerSpec(weights=weights, policy={}, device=device))

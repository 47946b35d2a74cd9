"""``vltrack.tune``: choose options of the tracking policy on annotated videos."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltrack.api import inputs
from vltrack.api.reporter import QUIET, Reporter
from vltrack.core.errors import UsageError
from vltrack.core.json_io import finite_or_none
from vltrack.core.types import Mode
from vltrack.datasets.reader import open_dataset
from vltrack.evaluation.plan import make_plan

if TYPE_CHECKING:
    from vltrack.evaluation.tune import Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneResult:
    """A search for a tracking policy.

    Attributes:
        models, targets: names, in the order of ``Trial.auc``.
        mode: of the starts.
        trials: in the order in which they were run; the first is the policy at the start.
    """

    models: tuple[str, ...]
    targets: tuple[str, ...]
    mode: str
    trials: tuple[Trial, ...]

    @property
    def policy(self) -> dict[str, Any]:
        """Options that were changed for the better."""
        return {key: value for one in self.trials if one.taken for key, value in one.changes.items()}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row per trial for pandas: changes, AUC per model and over all in points, gain, error, taken."""
        for one in self.trials:
            means = {name: 100 * float(row.mean()) for name, row in zip(self.models, one.auc, strict=True)}
            yield {
                "changes": ";".join(f"{key}={value}" for key, value in one.changes.items()) or "start",
                **means,
                "auc": 100 * float(one.auc.mean()),
                "gain": finite_or_none(100 * one.gain),
                "error": finite_or_none(100 * one.error),
                "taken": one.taken,
            }

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "format": "vltrack.tune", "version": 1, "models": list(self.models), "targets": list(self.targets),
            "mode": self.mode, "policy": self.policy, "trials": list(self.rows()),
        }  # fmt: skip


def tune(
    models: str | Path | Sequence[str | Path],
    *,
    data: str | Path,
    split: str | None = None,
    mode: str = "bbox",
    tries: Sequence[Sequence[Mapping[str, Any]]] | None = None,
    policy: Mapping[str, Any] | None = None,
    skip: Sequence[str] = (),
    starts: int = 1,
    jobs: int | None = None,
    device: str = "cpu",
    reporter: Reporter = QUIET,
) -> TuneResult:
    """Search the tracking policy of one or several models, one option after the other (``evaluation.tune``).

    A value is taken where its mean gain in success AUC exceeds the standard error of that gain over the targets.
    The policy has then seen these videos: report it on others.

    Args:
        models: names of models or paths of weights. All get the same changes, each to its own policy.
        data, split: a data set or folder of annotated clips.
        mode: ``bbox``, ``nlbbox`` or ``nl``: how the targets are given.
        tries: groups of alternative changes; None tries ``evaluation.tune.TRIES``.
        policy: changes before the search.
        skip: names of targets to leave out.
        starts: tracks of each target, all but the first from a box moved by up to 2 %; their mean counts.
        jobs: worker processes, one thread each, 0 for one per core; None: one.
        device, reporter: as in ``vltrack.track``.

    Raises:
        UsageError, ModelNotFound, DataError: unknown options, models or data.

    Examples:
        >>> import tempfile, vltrack
        >>> from pathlib import Path
        >>> from vltrack.datasets.synthetic import synthesize
        >>> folder = tempfile.mkdtemp()
        >>> _ = synthesize(Path(folder), 2, 6, 1)
        >>> found = vltrack.tune("litetrack-tiny", data=folder, tries=[[{"window": 0.2}]])
        >>> [row["changes"] for row in found.rows()]
        ['start', 'window=0.2']
    """
    from vltrack.evaluation.tune import TRIES, search
    from vltrack.tracking.postprocess import Policy

    given = [models] if isinstance(models, str | Path) else list(models)
    inputs.check_choice("mode", mode, tuple(Mode))
    groups = tries if tries is not None else [[{key: value} for value in TRIES[key]] for key in TRIES]
    for changes in (policy or {}, *(one for group in groups for one in group)):
        inputs.check_policy(changes)
    dataset = open_dataset(Path(data), split=split)
    plans = [make_plan(dataset, inputs.check_model(one), [mode], Path(), policy, device=device) for one in given]
    unknown = set(skip) - {task.sequence.name for task in plans[0].modes[0].tasks}
    if unknown:
        raise UsageError(f"No target is called {', '.join(sorted(unknown))}.", hint="Leave them out of skip (--skip).")
    tasks = [task for task in plans[0].modes[0].tasks if task.sequence.name not in skip]
    tasks.sort(key=lambda task: -len(task.sequence))  # no process waits for another at the end
    policies = {plan.spec.weights: Policy(**plan.spec.policy) for plan in plans}
    count = len(plans) * len(tasks) * (1 + sum(map(len, groups)))
    with reporter.bar("tuning", count) as bar:
        trials = tuple(
            search(
                policies,
                tasks,
                groups,
                jobs=(1 if jobs is None else jobs) or os.cpu_count() or 1,
                starts=starts,
                device=device,
                done=lambda number: bar.show(number, f"{number} of {count} targets"),
            )
        )
    return TuneResult(
        models=tuple(plan.tracker for plan in plans),
        targets=tuple(task.sequence.name for task in tasks),
        mode=mode,
        trials=trials,
    )

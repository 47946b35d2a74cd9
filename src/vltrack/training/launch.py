"""Start a training run from options: recipe and overrides, in one process or in several."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from vltrack.checkpoints.outside import find_outside
from vltrack.core.errors import CheckpointUnsafe, ConfigError, ModelNotFound, UsageError, did_you_mean
from vltrack.core.process import show_log
from vltrack.core.rank import global_rank, launched
from vltrack.models import MODELS
from vltrack.training import recipes
from vltrack.training.init import are_weights
from vltrack.training.loop import check_start, train
from vltrack.training.processes import run_processes, start_rank
from vltrack.training.publish import publish
from vltrack.training.recipes import TrainConfig, keys
from vltrack.training.sources import find_sources

Recipe = TypeVar("Recipe")
"""A frozen dataclass of settings: ``TrainConfig``, or the grounder's."""
Progress = Callable[[int, int, str], None]
"""Called with the finished steps, all steps, and a line of losses and speed."""

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "litetrack-tiny": recipes.litetrack_tiny,
    "litetrack-base": recipes.litetrack_base,
    "aitrack-tiny": recipes.aitrack_tiny,
    "aitrack-base": recipes.aitrack_base,
    "all-in-one-tiny": recipes.all_in_one_tiny,
    "all-in-one-base": recipes.all_in_one_base,
    "bit-tracker-tiny": recipes.bit_tracker_tiny,
    "bit-tracker-base": recipes.bit_tracker_base,
    "sa-tracker-tiny": recipes.sa_tracker_tiny,
    "sa-tracker-base": recipes.sa_tracker_base,
}
SECOND_RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "litetrack-tiny": recipes.litetrack_tiny_text,
    "aitrack-tiny": recipes.aitrack_tiny_clips,
    "aitrack-base": recipes.aitrack_base_clips,
    "bit-tracker-base": recipes.bit_tracker_base_score,
}
"""Second parts, which start from the folder of an earlier run."""
DISTRACTOR_RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "litetrack-tiny": recipes.litetrack_tiny_distractors,
    "aitrack-tiny": recipes.aitrack_tiny_distractors,
    "all-in-one-tiny": recipes.all_in_one_tiny_distractors,
    "bit-tracker-tiny": recipes.bit_tracker_tiny_distractors,
    "sa-tracker-tiny": recipes.sa_tracker_tiny_distractors,
}
PARTS: dict[str, dict[str, Callable[[], TrainConfig]]] = {
    "twins": DISTRACTOR_RECIPES,
    "joint": {f"{name}-tiny": partial(recipes.tiny_joint, name) for name in MODELS},
}
"""Later parts (``--part``), which start from a run or from weights."""


def main_train(options: Mapping[str, Any], progress: Progress | None = None) -> None:
    """Train and write the weights into the run's folder.

    Under torchrun this process is one of the job, and only that of rank 0 writes; else it starts ``processes``.

    Args:
        options: model, size, data, out, start, part, resume, own_clips (whether some data are clips of one's own),
            settings (text by key), steps, batch, accumulate, seed, processes, device, quiet.
        progress: replaces the progress lines of the log; with several processes these are always logged.

    Raises:
        ConfigError: an unknown setting or a value out of range. UsageError: ``processes`` under torchrun.
        Other errors: as ``loop.train`` and ``processes.run_processes``.
    """
    config, out = configured(options), Path(options["out"])
    processes = options.get("processes") or 1
    if processes > 1 and launched():
        raise UsageError(f"torchrun started this process, which cannot start {processes}.", hint="Omit --processes.")
    if processes > 1:
        find_sources(options["data"])
        # What is missing is reported once, before a process starts.
        check_start(
            config,
            out,
            resume=bool(options.get("resume")),
            device=str(options.get("device") or "auto"),
            world=processes,
        )
        run_processes("vltrack.training.launch", options, processes)
    else:
        _run(config, options, progress)
    if global_rank() == 0:
        publish(out, out / f"{config.model}-{config.size}.safetensors")


def configured(options: Mapping[str, Any]) -> TrainConfig:
    """The recipe with the command's overrides.

    Raises:
        ConfigError: an unknown setting (the nearest known one is named) or a bad value.
        ModelNotFound: no such recipe. CheckpointUnsafe: ``start`` is a file of another format.
    """
    outside = find_outside(options["model"])  # registered in this process, too
    model, size, start = outside.card.name if outside else options["model"], options["size"], options.get("start")
    name, start = f"{MODELS[model].recipes or model}-{size}", str(start or "")
    weights = bool(start) and are_weights(start)
    if start and not weights and Path(start).is_file():
        raise CheckpointUnsafe(
            f"{start} is not a .safetensors file; other formats can run code and are not opened.",
            hint="Convert it with `vltrack import-weights`.",
        )
    config = _recipe(name, start, options.get("part"), own_clips=bool(options.get("own_clips")))
    config = replace(config, model=model)
    if weights and not config.start:
        config = replace(config, init_from=start, init_patterns=("",), word_init="random")
    for key in ("steps", "batch", "accumulate", "seed"):
        if options.get(key) is not None:
            config = replace(config, **{key: options[key]})
    for key, text in (options.get("settings") or {}).items():
        config = with_setting(config, key, text)
    return config


def _recipe(name: str, start: str, later: str | None, *, own_clips: bool) -> TrainConfig:
    """The first part of a model's training, the second where ``start`` is a run, or the one that ``later`` names.

    With a start and clips of one's own: fine-tuning.
    """
    if later and not start:
        raise ConfigError(
            f"`--part {later}` continues from finished weights.", hint="Name them, or their run, with --start."
        )
    part, known = "recipe", RECIPES
    if later:
        part, known = f"`--part {later}`", PARTS[later]
    elif start and not own_clips and not are_weights(start):
        part, known = "second part", SECOND_RECIPES
    if name not in known:
        raise ModelNotFound(f"There is no {part} for {name!r}.", hint=f"Known: {', '.join(known)}.")
    config = known[name]()
    if known is RECIPES:
        return replace(recipes.finetune(config), start=start) if start and own_clips else config
    return replace(config, start=start)


def with_setting(config: Recipe, key: str, text: str) -> Recipe:
    """``config`` with one setting changed: ``steps`` or, one level down, ``pairs.negative_share``."""
    group, _, name = key.rpartition(".")
    owner: Any = config if not group else getattr(config, group) if group in keys(config) else None
    fields = {}
    if is_dataclass(owner):
        fields = {k: f for f, k in keys(owner).items() if not is_dataclass(getattr(owner, f))}
    if name not in fields or name in ("model", "size"):
        near = did_you_mean(name, fields) if fields else ""
        raise ConfigError(f"train has no setting {key!r}.", hint=f"{near} docs/train.md lists all.".strip())
    changed: Any = replace(owner, **{fields[name]: _value(f"train.{key}", text, getattr(owner, fields[name]))})
    return replace(config, **{group: changed}) if group else changed  # type: ignore[type-var]


def _value(key: str, text: str, old: Any) -> Any:
    """``text`` as a value of the type of ``old``; a tuple is given with commas between its elements."""
    if isinstance(old, tuple):
        kind: Any = float if key == "train.betas" else str
        return tuple(_value(key, part, kind()) for part in text.split(",") if part)
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        value = type(old)(text)
    except (KeyError, ValueError):
        raise ConfigError(f"{key} is {text!r}.", hint=f"Give a value of type {type(old).__name__}.") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} is {text!r}.", hint="Give a finite number.")
    return value


def _run(config: TrainConfig, options: Mapping[str, Any], progress: Progress | None = None) -> None:
    if not options.get("quiet"):
        show_log()
    train(
        config,
        sources=find_sources(options["data"]),
        out=Path(options["out"]),
        resume=bool(options.get("resume")),
        device=str(options.get("device") or "auto"),
        progress=progress,
    )


if __name__ == "__main__":
    start_rank()
    given = json.loads(sys.argv[1])
    _run(configured(given), given)

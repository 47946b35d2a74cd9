"""From the command's options to a training: recipe and overrides, one process or several under torchrun."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from vltrack.core.errors import CheckpointUnsafe, ConfigError, ModelNotFound, did_you_mean
from vltrack.core.threads import PASSIVE
from vltrack.training import recipes
from vltrack.training import recipes as recipes_twins
from vltrack.training.clips import ClipConfig
from vltrack.training.pairs.sampler import PairConfig
from vltrack.training.publish import publish
from vltrack.training.recipes import LossWeights, TrainConfig

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
# Second parts: they start from the folder of an earlier run.
SECOND: dict[str, Callable[[str], TrainConfig]] = {
    "litetrack-tiny": recipes.litetrack_tiny_words,
    "aitrack-tiny": recipes.aitrack_tiny_clips,
    "aitrack-base": recipes.aitrack_base_clips,
    "bit-tracker-base": recipes.bit_tracker_base_score,
}
# The last part of the tiny sizes, ``part="twins"``: starts from a run or from weights.
TWINS: dict[str, Callable[[], TrainConfig]] = {
    "litetrack-tiny": recipes_twins.litetrack_tiny,
    "aitrack-tiny": recipes_twins.aitrack_tiny,
    "all-in-one-tiny": recipes_twins.all_in_one_tiny,
    "bit-tracker-tiny": recipes_twins.bit_tracker_tiny,
    "sa-tracker-tiny": recipes_twins.sa_tracker_tiny,
}
PARTS = {"pairs": PairConfig, "clips": ClipConfig, "losses": LossWeights}
"""Settings of ``TrainConfig`` that have settings of their own."""


def main_train(options: dict[str, Any]) -> int:
    """Train as asked and write the weights beside the run; returns the exit code.

    ``options``: model, size, data, out, start, part, resume, settings (text by name), steps, batch, seed,
    processes, device.
    Raises ``ConfigError`` for an unknown setting, and what ``run.train`` raises.
    """
    config = configured(options)
    out = Path(options["out"])
    job: dict[str, Any] = {
        "config": asdict(config),
        "data": str(options["data"]),
        "out": str(out),
        "resume": bool(options.get("resume")),
        "device": str(options.get("device") or "auto"),
        "bar": not options.get("quiet"),
    }
    processes = options.get("processes") or 1
    code = _torchrun(job, processes) if processes > 1 else _run(job)
    if code == 0:
        publish(out, out / f"{config.model}-{config.size}.safetensors")
    return code


def configured(options: dict[str, Any]) -> TrainConfig:
    """The recipe with the command's overrides. ConfigError names an unknown key and the nearest known one."""
    name, start = f"{options['model']}-{options['size']}", str(options.get("start") or "")
    weights = start.endswith(".safetensors")
    if start and not weights and Path(start).is_file():
        raise CheckpointUnsafe(
            f"{start} is no .safetensors file; other formats can run code and are not opened.",
            hint="`vltrack import-weights` makes one of it.",
        )
    config = _recipe(name, start, twins=options.get("part") == "twins")
    if weights and not config.start:
        config = replace(config, borrow=start, borrowed=("",), words="random")
    for key in ("steps", "batch", "seed"):
        if options.get(key) is not None:
            config = replace(config, **{key: options[key]})
    for key, text in (options.get("settings") or {}).items():
        config = _with(config, key, text)
    return config


def _recipe(name: str, start: str, *, twins: bool) -> TrainConfig:
    """The first part of a model's training; the second where ``start`` is a run; the last for ``twins``."""
    if twins and not start:
        raise ConfigError(
            "the part twins goes on from finished weights.", hint="Name them, or their run, with --start."
        )
    run = bool(start) and not start.endswith(".safetensors")
    known: dict[str, Any] = TWINS if twins else SECOND if run else RECIPES
    if name not in known:
        part = "part twins" if twins else "second part" if run else "recipe"
        raise ModelNotFound(f"there is no {part} for {name}.", hint=f"Known: {', '.join(known)}.")
    if twins:
        return replace(TWINS[name](), start=start)
    return SECOND[name](start) if run else RECIPES[name]()


def _with(config: TrainConfig, key: str, text: str) -> TrainConfig:
    """One setting changed: ``steps=900`` or one level down ``pairs.negative_share=0.1``, by the old type."""
    group, _, name = key.rpartition(".")
    owner: Any = config if not group else {name: getattr(config, name) for name in PARTS}.get(group)
    known = (
        [] if owner is None else [f.name for f in fields(owner) if not is_dataclass(getattr(owner, f.name))]
    )
    if name not in known or name in ("model", "size"):
        raise ConfigError(
            f"train has no setting {key!r}.",
            hint=f"{did_you_mean(name, known)} See TrainConfig in training/recipes.py.",
        )
    old = getattr(owner, name)
    try:
        value = _bool(text) if isinstance(old, bool) else type(old)(text)
    except (TypeError, ValueError):
        raise ConfigError(f"train.{key}: {text!r} is no {type(old).__name__}.") from None
    changed = replace(owner, **{name: value})
    return replace(config, **{group: changed}) if group else changed


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _torchrun(job: dict[str, Any], processes: int) -> int:
    """One machine, several processes; torchrun stops all when one fails."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "vltrack.training.launch", json.dumps(job)]
    environment = {"OMP_NUM_THREADS": "1", **PASSIVE, **os.environ}
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603


def _run(job: dict[str, Any]) -> int:
    from vltrack.training.loop import train

    if job["bar"]:
        _speak()
    config = TrainConfig(
        **{
            **job["config"],
            **{name: kind(**job["config"][name]) for name, kind in PARTS.items()},
            **{name: tuple(job["config"][name]) for name in ("betas", "only", "slow", "borrowed")},
        }
    )
    train(
        config,
        data=Path(job["data"]),
        out=Path(job["out"]),
        resume=job["resume"],
        device=job["device"],
        bar=job["bar"],
    )
    return 0


def _speak() -> None:
    """Progress goes to standard error, line by line, where no bar shows it."""
    voice = logging.getLogger("vltrack")
    if not voice.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        voice.addHandler(handler)
    voice.setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(_run(json.loads(sys.argv[1])))

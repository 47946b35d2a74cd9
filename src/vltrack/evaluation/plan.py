"""What is to be run: sequences, modes, weights, and where the results go. Checks all that is cheap to check.

Runs nothing and loads no torch: whatever is wrong is told before a minute is spent.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

import vltrack
from vltrack.checkpoints.cards import Weights, find_weights
from vltrack.core.errors import DataError, UsageError
from vltrack.core.types import Mode
from vltrack.evaluation.results import check_names, label_of
from vltrack.evaluation.workers import OUR_LOADER, THREADS, Task, TrackerSpec
from vltrack.models import MODELS
from vltrack.tracking.postprocess import Policy

if TYPE_CHECKING:
    from vltrack.datasets import sequences as annotated


# MERGED evaluation/plan.py
# What results depend on, as sha256 and versions. Knows files and packages; runs nothing, loads no torch.


CODE = (
    "core",
    "video",
    "prep",
    "nn",
    "models",
    "checkpoints",
    "tracking",
    "datasets/sequences.py",
    "datasets/sequences.py",
    "evaluation/workers.py",
)
"""What a box goes through on its way from a file of pictures to a file of results. Left out is what only
reads results or never sees them: cli, metrics, plots, serve, training, the other parts of datasets and
evaluation. Files that are data (``.txt``, ``.json``) count where they lie among the code."""

PACKAGES = ("numpy", "torch", "opencv-python-headless", "av", "safetensors", "tokenizers")


@lru_cache(maxsize=1)
def code_sha256() -> str:
    """sha256 over names and bytes of the source files in ``CODE``."""
    root = Path(vltrack.__file__).resolve().parent
    found = [path for name in CODE for path in _files(root / name)]
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [p for p in path.rglob("*") if p.suffix in (".py", ".txt", ".json") and p.is_file()]


@lru_cache(maxsize=1)
def versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that compute."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not known"


def data_sha256(sequences: Iterable[annotated.Sequence]) -> str:
    """sha256 over names, numbers of frames, sentences, boxes and absences; the pictures are not read."""
    digest = hashlib.sha256()
    for sequence in sequences:
        boxes = np.array(sequence.boxes, dtype="<f8")
        boxes[np.isnan(boxes)] = np.nan  # there are many NaN, and one is as good as another
        head = [sequence.name, len(sequence), sequence.sentence, list(boxes.shape)]
        digest.update(json.dumps(head).encode())
        digest.update(boxes.tobytes())
        digest.update(np.asarray(sequence.absent, dtype=np.bool_).tobytes())
    return digest.hexdigest()


def differences(old: Any, new: Any, at: str = "") -> list[str]:
    """``name: old value, now new value`` for everything in which two fingerprints differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted(old.keys() | new.keys())
        return [d for key in keys for d in differences(old.get(key), new.get(key), f"{at}.{key}".strip("."))]
    return [] if old == new else [f"{at}: {_short(old)}, now {_short(new)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."


Missing = Literal["refuse", "skip", "box"]
_LISTED = 20


class Data(Protocol):
    """What a plan needs of a data set (``datasets.reader.Dataset``)."""

    @property
    def name(self) -> str:
        """Short name of the data set, as result folders are called."""
        ...

    @property
    def split(self) -> str:
        """Which part of it."""
        ...

    @property
    def sequences(self) -> Sequence[annotated.Sequence]:
        """The annotated sequences, in the data set's order."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModePlan:
    """One mode: its folder and its tasks.

    Attributes:
        mode: ``nl``, ``bbox`` or ``nlbbox``.
        folder: where its results go.
        run: content of ``run.json``.
        tasks: one a sequence, in the data set's order.
        left_out: names of sequences without a sentence, left out on the user's wish.
    """

    mode: Mode
    folder: Path
    run: dict[str, Any]
    tasks: tuple[Task, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What ``run`` does. ``frames`` counts the frames of all tasks."""

    tracker: str
    spec: TrackerSpec
    modes: tuple[ModePlan, ...]

    @property
    def folders(self) -> dict[str, Path]:
        """The folder of results by mode."""
        return {str(part.mode): part.folder for part in self.modes}

    @property
    def frames(self) -> int:
        """Frames of all tasks together."""
        return sum(len(task.sequence) for part in self.modes for task in part.tasks)


def make_plan(
    dataset: Data,
    weights: str | Path,
    modes: Sequence[str],
    out: Path,
    policy: Mapping[str, Any] | None = None,
    missing_sentence: Missing = "refuse",
    *,
    name: str | None = None,
    device: str = "cpu",
    loader: str = OUR_LOADER,
) -> Plan:
    """What has to be run so that ``out/<tracker>/<data set>_<mode>/`` holds results of every sequence.

    Args:
        dataset: a name, a split and the sequences.
        weights: a model's name or the path of a .safetensors file.
        modes: ``nl`` (the sentence alone names the target), ``bbox`` (the box of frame 1), ``nlbbox`` (both).
        out: folder of results of all trackers.
        policy: options of the tracking policy that differ from the tracker's own.
        missing_sentence: what to do in modes with words where a sequence has none: ``refuse``; ``skip`` the
            sequence; or name its target by the ``box`` of frame 1 alone.
        name: how the tracker's folder is called, if not like the weights.
        device: ``cpu``, ``cuda`` or ``mps``; ``auto`` is one of them and loads torch to find out which.
        loader: ``module:function`` that makes the tracker in each worker; another one is for tests and for
            trackers that are not ours.

    Raises:
        DataError: no sequence, a sequence without frames, names that cannot be file names, no sentence where
            one is needed, no usable box in frame 1 where one is needed (lists the sequences).
        UsageError: an unknown mode or one that the weights never learnt.
        ConfigError: the policy has no such option.
        ModelNotFound, CheckpointCorrupt, CheckpointIncomplete, CheckpointMismatch: see ``weights``.
    """
    wanted = _modes(modes)
    if missing_sentence not in ("refuse", "skip", "box"):
        raise UsageError(f"{missing_sentence!r} is not refuse, skip or box.")
    found = find_weights(weights)
    options = Policy().changed(MODELS[found.tracker].policies.get(found.size, {})).changed(policy or {})
    _check_learnt(found, wanted)
    if device == "auto":
        from vltrack.nn.device import choose_device

        device = choose_device().type
    _check_sequences(dataset)
    tracker = name or found.name
    root = getattr(dataset, "root", None)
    label = label_of(dataset.name, dataset.split, root.resolve().name if isinstance(root, Path) else "")
    check_names([tracker, label])
    depends = {
        "weights": {
            "name": found.name,
            "tracker": found.tracker,
            "size": found.size,
            "sha256": found.sha256,
            "config_sha256": found.config_sha256,
        },
        "policy": asdict(options),
        "missing_sentence": missing_sentence,
        "data": {
            "name": dataset.name,
            "split": dataset.split,
            "sequences": len(dataset.sequences),
            "sha256": data_sha256(dataset.sequences),
        },
        "code": code_sha256(),
        "versions": dict(versions()),
        "loader": loader,
        "device": device,
        "dtype": "float32",
        "threads": THREADS,
    }
    parts = []
    for mode in wanted:
        tasks, left_out = _tasks(dataset, mode, missing_sentence)
        run = {
            "tracker": tracker,
            "fingerprint": {**depends, "mode": str(mode)},
            "sequences": [task.sequence.name for task in tasks],
            "left_out": list(left_out),
        }
        folder = out / tracker / f"{label}_{mode}"
        parts.append(ModePlan(mode=mode, folder=folder, run=run, tasks=tasks, left_out=left_out))
    spec = TrackerSpec(
        weights=str(found.path.resolve()), policy=asdict(options), device=device, loader=loader
    )
    return Plan(tracker=tracker, spec=spec, modes=tuple(parts))


def _modes(modes: Sequence[str]) -> tuple[Mode, ...]:
    known = [str(mode) for mode in Mode]
    for mode in modes:
        if mode not in known:
            raise UsageError(f"there is no mode {mode!r}.", hint=f"Known: {', '.join(known)}.")
    if not modes or len(set(modes)) < len(modes):
        raise UsageError("name each mode once.", hint=f"Known: {', '.join(known)}.")
    return tuple(Mode(mode) for mode in modes)


def _check_learnt(found: Weights, wanted: tuple[Mode, ...]) -> None:
    never = [str(mode) for mode in wanted if mode not in found.modes]
    if never:
        raise UsageError(
            f"{found.name} cannot be run in mode {', '.join(never)}: its weights never learnt words.",
            hint=f"It can in: {', '.join(found.modes)}.",
        )


def _check_sequences(dataset: Data) -> None:
    if not dataset.sequences:
        raise DataError(f"{dataset.name} has no sequence.", hint="Check the path and the split.")
    check_names(sequence.name for sequence in dataset.sequences)
    bare = [s.name for s in dataset.sequences if s.files == ()]
    if bare:
        which = "this" if len(bare) == len(dataset.sequences) else _listed(bare)
        said = f"{which} is annotation without pictures; a tracker needs the pictures."
        raise DataError(said, hint=_where_from(dataset.name))
    empty = [s.name for s in dataset.sequences if len(s) < 1]
    if empty:
        raise DataError(
            f"no pictures of {_listed(empty)}.", hint="Check the data set: vltrack datasets check."
        )


def _where_from(name: str) -> str:
    """What tells where the pictures of a data set are from."""
    from vltrack.datasets.catalogue import videos

    if name in videos():
        return f"Where they are from: vltrack datasets fetch-help {name}"
    return "Give the folder that holds them too."


def _tasks(dataset: Data, mode: Mode, missing: Missing) -> tuple[tuple[Task, ...], tuple[str, ...]]:
    """The tasks of one mode, and the names that are left out. Raises ``DataError``."""
    wordless = [s.name for s in dataset.sequences if not s.sentence.strip()] if mode != Mode.BBOX else []
    if wordless and missing == "refuse":
        raise DataError(
            f"{len(wordless)} of {len(dataset.sequences)} sequences have no sentence, which mode {mode} "
            f"needs: {_listed(wordless)}.",
            hint="Leave them out with --missing-sentence skip, or name their target by its box with "
            "--missing-sentence box.",
        )
    left_out = set(wordless) if missing == "skip" else set()
    tasks, boxless = [], []
    for sequence in dataset.sequences:
        if sequence.name in left_out:
            continue
        box = None
        if mode != Mode.NL or sequence.name in wordless:
            box = _first_box(sequence)
            if box is None:
                boxless.append(sequence.name)
        text = None if mode == Mode.BBOX else sequence.sentence.strip() or None
        tasks.append(Task(mode=str(mode), sequence=sequence, box=box, text=text))
    if boxless:
        raise DataError(
            f"no target in frame 1 of {_listed(boxless)} (no finite box with width and height), which mode "
            f"{mode} starts with.",
            hint="Correct the annotation, or evaluate in mode nl.",
        )
    if not tasks:
        raise DataError(f"no sequence of {dataset.name} is left for mode {mode}: none has a sentence.")
    return tuple(tasks), tuple(name for name in wordless if name in left_out)


def _first_box(sequence: annotated.Sequence) -> tuple[float, float, float, float] | None:
    """The annotated box of frame 1, as it is; None where it is no box."""
    x, y, w, h = (float(v) for v in sequence.boxes[0])
    return (x, y, w, h) if np.isfinite([x, y, w, h]).all() and w > 0 and h > 0 else None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more

"""Plan an evaluation: sequences, modes, weights, folders of results, and what the results depend on.

Everything that can be checked cheaply is checked here, before anything runs; torch is not loaded.
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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import vltrack
from vltrack.checkpoints.cards import find_weights
from vltrack.core.errors import DataError, UsageError
from vltrack.core.types import Mode
from vltrack.evaluation.results import check_names, label_of
from vltrack.evaluation.workers import OUR_LOADER, THREADS, Task, TrackerSpec
from vltrack.metrics.annotations import is_box, listed
from vltrack.models import MODELS
from vltrack.nn.runtime import choose_cpu_or_gpu, choose_runtime
from vltrack.tracking.postprocess import default_policy

if TYPE_CHECKING:
    from vltrack.datasets import sequences as annotated
    from vltrack.datasets.reader import Dataset

Missing = Literal["refuse", "skip", "box"]


@dataclass(frozen=True, kw_only=True)
class ModePlan:
    """One mode: its folder and its tasks.

    Attributes:
        mode: ``nl``, ``bbox`` or ``nlbbox``.
        folder: of its results.
        run: content of ``run.json``; ``left_out`` in it names sequences without a sentence that the user left out.
        tasks: one per sequence, in the data set's order.
    """

    mode: Mode
    folder: Path
    run: dict[str, Any]
    tasks: tuple[Task, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Plan that ``run`` executes: a tracker, how to load it, and the tasks of each mode."""

    tracker: str
    spec: TrackerSpec
    modes: tuple[ModePlan, ...]

    @property
    def folders(self) -> dict[str, Path]:
        """Folder of results by mode."""
        return {str(part.mode): part.folder for part in self.modes}

    @property
    def frames(self) -> int:
        """Number of frames of all tasks together."""
        return sum(len(task.sequence) for part in self.modes for task in part.tasks)


def make_plan(
    dataset: Dataset,
    weights: str | Path,
    modes: Sequence[str],
    out: Path,
    policy: Mapping[str, Any] | None = None,
    missing_sentence: Missing = "refuse",
    *,
    name: str | None = None,
    device: str = "cpu",
    backend: str = "auto",
    precision: str = "fp32",
    loader: str = OUR_LOADER,
) -> Plan:
    """Plan runs that fill ``out/<tracker>/<data set>_<mode>/`` with results of every sequence.

    Args:
        dataset: the data set, opened.
        weights: name of a model or path of a .safetensors file.
        modes: ``nl`` (text-only initialization), ``bbox`` (the box of frame 1), ``nlbbox`` (both).
        out: folder of results of all trackers.
        policy: options of the tracking policy that differ from the tracker's defaults.
        missing_sentence: in modes with text, for sequences without a sentence: ``refuse`` to run; ``skip``
            them; or initialize from the ``box`` of frame 1 alone.
        name: name of the tracker's folder, by default that of the weights.
        device: ``cpu``, ``cuda``, ``mps``, or ``auto``, which chooses one of them.
        backend, precision: as of ``Tracker.load``.
        loader: ``module:function`` that loads the tracker in each worker; another one is for tests and for
            third-party trackers.

    Raises:
        DataError: no sequence, a sequence without frames, names that cannot be file names, no sentence where
            one is needed, no usable box in frame 1 where one is needed (the sequences are listed).
        UsageError: an unknown mode or one that the weights were not trained for.
        ConfigError: the policy has no such option.
        ModelNotFound, CheckpointCorrupt, CheckpointIncomplete, CheckpointMismatch: see ``weights``.
    """
    wanted = _check_modes(modes)
    if missing_sentence not in ("refuse", "skip", "box"):
        raise UsageError(f"Unknown missing_sentence: {missing_sentence!r}.", hint="Known: refuse, skip, box.")
    found = find_weights(weights)
    if policy and not found.tracker:
        raise UsageError(f"{found.name} has no tracking policy of vltrack to change.", hint="Leave out --set.")
    options = default_policy(found.tracker, found.size).changed(policy or {})
    untrained = [str(mode) for mode in wanted if mode not in found.modes]
    if untrained:
        raise UsageError(
            f"{found.name} does not support mode {', '.join(untrained)}: it was trained without language.",
            hint=f"Supported: {', '.join(found.modes)}.",
        )
    if device == "auto":
        device = choose_cpu_or_gpu(device)
    if not found.tracker:
        backend = precision = "its own"
    else:
        if backend == "auto" and not MODELS[found.tracker].packaged:
            backend = "torch"
        backend, precision = choose_runtime(backend, precision, device)
    _check_sequences(dataset)
    tracker = name or found.name
    label = label_of(dataset.name, dataset.split, dataset.root.resolve().name)
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
        "backend": backend,
        "dtype": precision,
        "threads": THREADS,
    }
    parts = []
    for mode in wanted:
        tasks, left_out = _tasks(dataset, mode, missing_sentence)
        run = {
            "tracker": tracker,
            "fingerprint": {**depends, "mode": str(mode)},
            "sequences": [task.sequence.name for task in tasks],
            "left_out": left_out,
        }
        parts.append(ModePlan(mode=mode, folder=out / tracker / f"{label}_{mode}", run=run, tasks=tasks))
    spec = TrackerSpec(
        weights=found.spec, policy=asdict(options), device=device, backend=backend, precision=precision,
        loader=loader,
    )  # fmt: skip
    return Plan(tracker=tracker, spec=spec, modes=tuple(parts))


def _check_modes(modes: Sequence[str]) -> tuple[Mode, ...]:
    hint = f"Known: {', '.join(Mode)}."
    for mode in modes:
        if mode not in list(Mode):
            raise UsageError(f"Unknown mode: {mode!r}.", hint=hint)
    if not modes or len(set(modes)) < len(modes):
        raise UsageError(f"Repeated or no modes: {', '.join(modes) or 'none'}. Name each mode once.", hint=hint)
    return tuple(map(Mode, modes))


def _check_sequences(dataset: Dataset) -> None:
    if not dataset.sequences:
        raise DataError(f"No sequences in {dataset.name}.", hint="Check the path and the split.")
    check_names(sequence.name for sequence in dataset.sequences)
    bare = [s.name for s in dataset.sequences if s.files == ()]
    if bare:
        from vltrack.datasets.catalogue import videos

        which = "any sequence" if len(bare) == len(dataset.sequences) else listed(bare, 20)
        hint = "Give the folder that holds them too."
        if dataset.name in videos():
            hint = f"See where to get them: vltrack datasets fetch-help {dataset.name}"
        raise DataError(f"There are annotations but no images of {which}; a tracker needs them.", hint=hint)
    empty = [s.name for s in dataset.sequences if len(s) < 1]
    if empty:
        raise DataError(f"No images of {listed(empty, 20)}.", hint="Check the data set: vltrack datasets check.")


def _tasks(dataset: Dataset, mode: Mode, missing: Missing) -> tuple[tuple[Task, ...], list[str]]:
    """Return the tasks of one mode, and the names that are left out. Raises ``DataError``."""
    no_text = [s.name for s in dataset.sequences if not s.sentence.strip()] if mode != Mode.BBOX else []
    if no_text and missing == "refuse":
        raise DataError(
            f"{len(no_text)} of {len(dataset.sequences)} sequences have no sentence, which mode {mode} "
            f"needs: {listed(no_text, 20)}.",
            hint="Set missing-sentence (--missing-sentence): skip leaves them out, box starts from their box.",
        )
    left_out = no_text if missing == "skip" else []
    tasks, no_box = [], []
    for sequence in dataset.sequences:
        if sequence.name in left_out:
            continue
        box = None
        if mode != Mode.NL or sequence.name in no_text:
            x, y, w, h = (float(v) for v in sequence.boxes[0])
            box = (x, y, w, h)
            if not is_box(sequence.boxes[:1]).all():
                no_box.append(sequence.name)
        text = None if mode == Mode.BBOX else sequence.sentence.strip() or None
        tasks.append(Task(mode=str(mode), sequence=sequence, box=box, text=text))
    if no_box:
        raise DataError(
            f"No target in frame 1 of {listed(no_box, 20)} (no finite box with width and height), which mode "
            f"{mode} starts from.",
            hint="Correct the annotation, or evaluate in mode nl.",
        )
    if not tasks:
        raise DataError(f"No sequence of {dataset.name} is left for mode {mode}: none has a sentence.")
    return tuple(tasks), left_out


# -- fingerprint --------------------------------------------------------------------------------------------

CODE = ("core", "video", "prep", "nn", "models", "checkpoints", "tracking", "datasets/sequences.py",
        "evaluation/workers.py", "weights/grounder-tiny.json")  # fmt: skip
"""Code that a box depends on, from reading the images to writing the results. What only reads results is left
out. Data files (``.txt``, ``.json``) among the code count, and the grounder's card, with the sum of its weights."""

PACKAGES = ("numpy", "torch", "openvino", "opencv-python-headless", "av", "safetensors", "tokenizers")


@lru_cache(maxsize=1)
def code_sha256() -> str:
    """sha256 over names and bytes of the source files in ``CODE``."""
    root = Path(vltrack.__file__).resolve().parent
    files = [path for name in CODE for path in ((root / name).rglob("*") if (root / name).is_dir() else [root / name])]
    digest = hashlib.sha256()
    for path in sorted(file for file in files if file.suffix in (".py", ".txt", ".json") and file.is_file()):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not known"
    return found


def data_sha256(sequences: Iterable[annotated.Sequence]) -> str:
    """sha256 over names, numbers of frames, sentences, boxes and absences; the images are not read."""
    digest = hashlib.sha256()
    for sequence in sequences:
        boxes = np.array(sequence.boxes, dtype="<f8")
        boxes[np.isnan(boxes)] = np.nan  # every NaN becomes the same bit pattern
        head = [sequence.name, len(sequence), sequence.sentence, list(boxes.shape)]
        digest.update(json.dumps(head).encode())
        digest.update(boxes.tobytes())
        digest.update(np.asarray(sequence.absent, dtype=np.bool_).tobytes())
    return digest.hexdigest()


def differences(old: Any, new: Any, at: str = "") -> list[str]:
    """List ``name: old value, now new value`` for everything in which two fingerprints differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted(old.keys() | new.keys())
        return [d for key in keys for d in differences(old.get(key), new.get(key), f"{at}.{key}".strip("."))]
    if old == new:
        return []
    shown = [text if len(text := str(value)) <= 60 else f"{text[:12]}..." for value in (old, new)]
    return [f"{at}: {shown[0]}, now {shown[1]}"]

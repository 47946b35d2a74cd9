"""What results depend on, as sha256 and versions. Knows files and packages; runs nothing, loads no torch."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import vltrack

if TYPE_CHECKING:
    from vltrack.datasets.sequences import Sequence

CODE = (
    "core",
    "video",
    "prep",
    "nn",
    "models",
    "checkpoints",
    "tracking",
    "datasets/sequences.py",
    "datasets/frames.py",
    "evaluation/worker.py",
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


def data_sha256(sequences: Iterable[Sequence]) -> str:
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

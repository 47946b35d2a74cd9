"""Stand-ins until the helpers' parts are in (removed before the issue is done)."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vltrack.datasets.cutouts import CutoutSet, build_cutouts
from vltrack.datasets.images import ImageSet

try:
    from vltrack.datasets.images import load_clips
except ImportError:

    def load_clips(root: Path) -> tuple[Any, ...]:
        raise NotImplementedError


try:
    from vltrack.datasets.cutouts import cached_cutouts
except ImportError:

    def cached_cutouts(images: ImageSet, progress: Callable[[int, int], None] = lambda a, b: None) -> CutoutSet:
        key = hashlib.sha256((images.root / "index.jsonl").read_bytes()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"shim-{key}.npz"
        return CutoutSet.load(path) if path.exists() else build_cutouts(images, path, progress=progress)


def load_images(roots: Any) -> ImageSet:
    return ImageSet.load(*roots)


try:
    from vltrack.training.own_clips import has_tracks, training_targets
except ImportError:

    def has_tracks(root: Path) -> bool:
        return False

    def training_targets(root: Path, out: Path) -> Iterator[Any]:
        from vltrack.training.sources import Source, read_targets

        return read_targets(Source(name="folder", root=root), None)

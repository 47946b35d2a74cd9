"""An environment with third-party harnesses, and miniature data in their layouts."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vltrack
from vltrack.datasets.synthetic import SyntheticClip, synthesize_clip, write_clip

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "harnesses"
REQUIREMENTS = EXAMPLES / "requirements.txt"
FRAMES = 10
UNKNOWN, STARTED = (0,), (1,)
"""Codes in the toolkit's binary files."""


def harness_python(otherwise: Path) -> Path:
    """Path of Python in an environment with the harnesses, made if it does not exist yet.

    It sees the packages of the environment that runs the tests (torch is not fetched again), and this
    checkout. ``VLTRACK_INTEROP_VENV`` names a folder that is kept; else it is made in ``otherwise``. Skips
    where the packages cannot be fetched.
    """
    home = Path(os.environ.get("VLTRACK_INTEROP_VENV", otherwise))
    python = home / "bin" / "python"
    mark = home / "installed"
    want = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True, capture_output=True)
    site = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    ours = [str(Path(np.__file__).parents[1]), str(Path(vltrack.__file__).parents[1])]
    (site / "vltrack-checkout.pth").write_text("\n".join(ours) + "\n")
    if not mark.is_file() or mark.read_text() != want:
        done = subprocess.run(
            [python, "-m", "pip", "install", "-q", "--no-deps", "--retries", "1", "-r", REQUIREMENTS],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            pytest.skip(f"the harnesses cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        mark.write_text(want)
    return python


def environment(python: Path) -> dict[str, str]:
    """Environment variables: one thread, no window, ``python`` from the environment first."""
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


def call(python: Path, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the environment's Python."""
    return subprocess.run(
        [python, *words], cwd=cwd, env=environment(python), capture_output=True, text=True, timeout=300
    )


def clips() -> list[SyntheticClip]:
    """Two short clips whose targets never leave."""
    found = [clip for seed in range(20) if not (clip := synthesize_clip(seed, FRAMES)).absent.any()]
    return found[:2]


def _images(clip: SyntheticClip, folder: Path, images: str) -> None:
    """Write the clip's images to ``folder/images`` and its annotation next to it."""
    write_clip(clip, folder / "made")
    target = folder / images
    target.parent.mkdir(parents=True, exist_ok=True)
    (folder / "made" / "img").rename(target)
    (folder / "made" / "groundtruth.txt").rename(folder / "groundtruth.txt")
    for left in (folder / "made").iterdir():
        left.unlink()
    (folder / "made").rmdir()


def otb(root: Path, names: list[str]) -> dict[str, SyntheticClip]:
    """OTB's layout. The package fetches what has no folder and passes over folders without annotation, so all
    ``names`` get one and the first two a clip.
    """
    for name in names:
        (root / name).mkdir(parents=True)
    made = dict(zip(names, clips(), strict=False))
    for name, clip in made.items():
        _images(clip, root / name, "img")
        (root / name / "groundtruth.txt").rename(root / name / "groundtruth_rect.txt")
    return made


def got10k(root: Path) -> dict[str, SyntheticClip]:
    """The validation part of GOT-10k; the target of one frame in four counts as not seen (cover 0)."""
    names = [f"GOT-10k_Val_{number:06d}" for number in (1, 2)]
    made = dict(zip(names, clips(), strict=True))
    for name, clip in made.items():
        folder = root / "val" / name
        _images(clip, folder, "images")
        for image in (folder / "images").iterdir():
            image.rename(folder / image.name)
        (folder / "images").rmdir()
        for label, values in labels(clip).items():
            (folder / f"{label}.label").write_text("\n".join(map(str, values)) + "\n")
        height, width = clip.frames.shape[1:3]
        (folder / "meta_info.ini").write_text(f"[METAINFO]\nresolution: ({width}, {height})\nanno_fps: 10Hz\n")
    (root / "val" / "list.txt").write_text("\n".join(names) + "\n")
    return made


def labels(clip: SyntheticClip) -> dict[str, list[int]]:
    """GOT-10k's labels per frame: visible share (0 to 8), absent or not, cut or not."""
    cover = [0 if number % 4 == 3 else 8 for number in range(len(clip.boxes))]
    return {"cover": cover, "absence": [int(seen == 0) for seen in cover], "cut_by_image": [0] * len(cover)}


def vot(root: Path) -> dict[str, SyntheticClip]:
    """A workspace of the VOT toolkit with the trackers and the experiment of ``examples/harnesses``."""
    made = dict(zip(("first", "second"), clips(), strict=True))
    for name, clip in made.items():
        folder = root / "sequences" / name
        _images(clip, folder, "color")
        (folder / "sequence").write_text(f"name={name}\nfps=30\nchannels.color=color/%08d.jpg\n")
    (root / "sequences" / "list.txt").write_text("\n".join(made) + "\n")
    for file in ("trackers.ini", "stack.yaml", "config.yaml"):
        (root / file).write_text((EXAMPLES / file).read_text())
    return made


def read_bin(path: Path) -> list[tuple[float, ...]]:
    """The rows of the toolkit's binary results: one number is a code, four are a rectangle."""
    data, rows = path.read_bytes(), []
    version, count = struct.unpack_from("<hI", data)
    assert version == 1
    at = struct.calcsize("<hI")
    for _ in range(count):
        form = {0: "<I", 1: "<4f"}[data[at]]
        rows.append(struct.unpack_from(form, data, at + 1))
        at += 1 + struct.calcsize(form)
    assert at == len(data)
    return rows

"""``vltrack doctor``: is everything here that the main job needs? Knows how to look, and what to do about
each lack.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from vltrack import __version__
from vltrack.cli.console import emit, shown
from vltrack.cli.track import AsJson, Debug
from vltrack.core.errors import ResourceError, VltrackError

PACKAGES = (
    "numpy",
    "torch",
    "opencv-python-headless",
    "av",
    "safetensors",
    "tokenizers",
    "typer",
    "rich",
    "matplotlib",
)
OPENCV_WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
Seconds = Annotated[float, typer.Option(min=0.1, help="How long the self test may track.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One look at one thing.

    Attributes:
        name: what was looked at.
        good: whether the main job can do with it.
        found: what was found, in a few words.
        remedy: what to do where it is not good.
    """

    name: str
    good: bool
    found: str
    remedy: str = ""


def doctor(seconds: Seconds = 3.0, json: AsJson = False, debug: Debug = False) -> None:
    """Check versions, devices, codecs, OpenCV, weights and speed, and say what to do. Exit code 0 or 6."""
    looks: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
        ("versions", _versions),
        ("opencv", _opencv),
        ("devices", _devices),
        ("codecs", _codecs),
        ("weights", _weights),
        ("self test", lambda: [_self_test(seconds)]),
    )
    findings: list[Finding] = []
    for name, look in looks:
        try:
            found = look()
        except (ImportError, OSError, RuntimeError, VltrackError) as error:
            remedy = getattr(error, "hint", "") or "Install again: pip install --force-reinstall vltrack."
            found = [Finding(name=name, good=False, found=f"{type(error).__name__}: {error}", remedy=remedy)]
        for finding in found:
            _tell(finding, as_json=json)
        findings.extend(found)
    bad = [finding.name for finding in findings if not finding.good]
    if bad:
        raise ResourceError(f"not ready: {', '.join(bad)}.", hint="What to do stands with each of them.")


def _tell(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        emit({"name": finding.name, "good": finding.good, "found": finding.found, "remedy": finding.remedy})
        return
    line = f"{'ok ' if finding.good else 'BAD'}  {finding.name}: {finding.found}"
    sys.stdout.write(shown(f"{line}  -> {finding.remedy}" if finding.remedy else line) + "\n")
    sys.stdout.flush()


def _versions() -> list[Finding]:
    here = (
        f"vltrack {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    findings = [Finding(name="system", good=True, found=here)]
    for name in PACKAGES:
        try:
            findings.append(Finding(name=name, good=True, found=metadata.version(name)))
        except metadata.PackageNotFoundError:
            # Another OpenCV wheel gives the same module; _opencv judges that.
            if name not in OPENCV_WHEELS:
                findings.append(Finding(name=name, good=False, found="missing", remedy=f"pip install {name}"))
    return findings


def _opencv() -> list[Finding]:
    """Several OpenCV wheels overwrite each other's files; exactly one must be installed."""
    names = {(dist.metadata["Name"] or "").lower().replace("_", "-") for dist in metadata.distributions()}
    wheels = [name for name in OPENCV_WHEELS if name in names]
    import cv2

    if len(wheels) == 1:
        return [Finding(name="opencv", good=True, found=f"one wheel, {wheels[0]} {cv2.__version__}")]
    remedy = f"pip uninstall -y {' '.join(wheels)} && pip install opencv-python-headless"
    return [
        Finding(name="opencv", good=False, found=f"{len(wheels)} wheels: {' '.join(wheels)}", remedy=remedy)
    ]


def _devices() -> list[Finding]:
    import torch

    names = [f"cpu ({torch.get_num_threads()} threads)"]
    if torch.cuda.is_available():
        names += [
            f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())
        ]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [Finding(name="devices", good=True, found=", ".join(names))]


def _codecs() -> list[Finding]:
    """Encode a few frames as H.264, read them back, compare: count and colour."""
    import numpy as np

    from vltrack.video.source import open_source
    from vltrack.video.writer import VideoWriter

    picture = np.zeros((48, 64, 3), dtype=np.uint8)
    picture[:, :, 0] = 200
    with tempfile.TemporaryDirectory(prefix="vltrack-") as folder:
        path = Path(folder) / "test.mp4"
        with VideoWriter(path, width=64, height=48, rate=10.0) as writer:
            for index in range(5):
                writer.write(picture, index / 10)
        with open_source(str(path)) as source:
            frames = [frame.image for frame in source if frame.image is not None]
    red = float(frames[0][:, :, 0].mean()) if frames else 0.0
    good = len(frames) == 5 and abs(red - 200) < 10
    found = f"H.264 written and read, {len(frames)} of 5 frames, red {red:.0f} of 200"
    return [
        Finding(
            name="codecs", good=good, found=found, remedy="" if good else "pip install --force-reinstall av"
        )
    ]


def _weights() -> list[Finding]:
    from vltrack.cli.names import model_names
    from vltrack.core.files import sha256_of

    findings = [
        Finding(name=f"weights {name}", good=True, found=f"sha256 {sha256_of(path)}")
        for name, path in model_names().items()
        if path is not None and path.is_file()
    ]
    if findings:
        return findings
    return [Finding(name="weights", good=False, found="none", remedy="make weights (docs/train.md)")]


def _self_test(seconds: float) -> Finding:
    """Track the demo's clip again and again for ``seconds``; frames a second of decoding and tracking
    together.
    """
    from vltrack.cli.demo import CLIP, clip_and_target
    from vltrack.cli.track import DEFAULT_MODEL
    from vltrack.tracking.tracker import Tracker

    tracker = Tracker.load(DEFAULT_MODEL)
    clip, target = clip_and_target(CLIP)
    frames, seen, began = 0, 0, time.monotonic()
    while time.monotonic() - began < seconds:
        for step in tracker.stream(str(clip), box=target.box, text=target.text):
            frames += 1
            seen += int(step.visible)
            if time.monotonic() - began >= seconds:
                break
    rate = frames / (time.monotonic() - began)
    good = seen >= 0.5 * frames
    found = f"{frames} frames, {rate:.1f} a second with decoding, target seen in {seen}"
    return Finding(
        name="self test", good=good, found=found, remedy="" if good else "The weights do not work here."
    )

"""``vltrack doctor``: is everything here that the main job needs? Knows how to look, and what to do about
each lack.
"""

from __future__ import annotations

import json as json_format
import platform
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vltrack import __version__
from vltrack.api.console import emit, say, shown
from vltrack.api.inputs import meant, model_names, nearest
from vltrack.cli.track import AsJson, Debug
from vltrack.core.errors import ModelNotFound, ResourceError, VltrackError

if TYPE_CHECKING:
    from vltrack.models import ModelCard


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
    from vltrack.api.inputs import model_names
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
    from vltrack.cli.track import CLIP, DEFAULT_MODEL, clip_and_target
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


# MERGED cli/doctor.py
# ``vltrack models``: which trackers there are, whose weights are at hand, and how large they are.
#
# Knows the list and the table of counts beside it; loads no torch.


Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these trackers or sizes of trackers.")
]
HEADS = {
    "name": "name",
    "year": "year",
    "modes": "modes",
    "weights": "weights",
    "parameters": "parameters",
    "parameters_trained": "trained",
    "parameters_running": "running",
    "frame": "frame",
    "ground": "by words",
}
LEGEND = (
    "trained: at the start of training. running: what a tracker reads. frame, by words: multiplications with "
    "their additions (papers call them FLOPs) of a tracked frame and of one searched by words alone."
)


def models(names: Names = None, json: AsJson = False, debug: Debug = False) -> None:
    """List the trackers: paper, modes, weights at hand, how large, what each claims and what is ours."""
    rows = list(_rows(names or []))
    if json:
        for row in rows:
            emit(row)
        return
    for line in _table([{**row, **(row["multiplications"] or {})} for row in rows]):
        sys.stdout.write(line + "\n")
    for line in _notes(rows):
        sys.stdout.write(line + "\n")
    say(LEGEND)


def _rows(names: list[str]) -> Iterator[dict[str, Any]]:
    """One row a size that is asked for."""
    from vltrack.models import MODELS

    weights = model_names()
    known = [*MODELS, *weights]
    names = [meant(name, known) for name in names]
    for name in names:
        if name not in known:
            raise ModelNotFound(f"no model is called {shown(name)!r}.", hint=nearest(name, known))
    counted = json_format.loads((files("vltrack.models") / "counted.json").read_text(encoding="utf-8"))
    for card in MODELS.values():
        for size in card.sizes:
            name = f"{card.name}-{size}"
            if not names or name in names or card.name in names:
                yield _row(card, size, weights[name], counted.get(name, {}))


def _row(card: ModelCard, size: str, file: Path | None, counts: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"{card.name}-{size}",
        "tracker": card.title,
        "paper": card.paper,
        "year": card.year,
        "modes": list(card.modes_of(size)),
        "size": size,
        "weights": None if file is None else str(file),
        "parameters": counts.get("total"),
        "parameters_trained": counts.get("trainable"),
        "parameters_running": counts.get("running"),
        "multiplications": counts.get("work"),
        "claims": card.claims,
        "ours": card.ours,
    }


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Columns of equal width, numbers to the right."""
    cells = [tuple(HEADS.values()), *(tuple(_cell(key, row.get(key)) for key in HEADS) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADS))]
    right = [_is_count(key) for key in HEADS]
    for line in cells:
        aligned = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        )
        yield "  ".join(aligned).rstrip()


def _is_count(key: str) -> bool:
    return key.startswith("parameters") or key in ("frame", "ground")


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "weights":
        return "at hand"
    if key.startswith("parameters"):
        return f"{value / 1e6:.2f} M"
    if key in ("frame", "ground"):
        return f"{value / 1e9:.2f} G"
    return " ".join(value) if isinstance(value, list) else str(value)


def _notes(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Paper, claims and what is ours, once a tracker, as wide as the terminal."""
    width = max(60, min(shutil.get_terminal_size().columns, 110))
    for row in {row["tracker"]: row for row in rows}.values():
        yield ""
        yield f"{row['tracker']} ({row['year']})"
        for head in ("paper", "claims", "ours"):
            first = f"  {head:<8}"
            yield from textwrap.wrap(
                row[head], width, initial_indent=first, subsequent_indent=" " * len(first)
            )

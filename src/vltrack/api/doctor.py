"""Checks of the installation, the list of models, and what they cost on this machine."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from itertools import cycle
from pathlib import Path
from typing import Any

from vltrack import __version__
from vltrack.api.inputs import demo_clip
from vltrack.checkpoints.cards import DEFAULT_MODEL, known_name, model_names
from vltrack.core.errors import ModelNotFound, ResourceError, VltrackError
from vltrack.core.files import cache_folder, counted, printable, sha256_of

PACKAGES = (
    "numpy", "torch", "openvino", "onnx", "opencv-python-headless", "av", "safetensors", "tokenizers", "typer", "rich",
    "matplotlib",
)  # fmt: skip
_COUNTS = {
    "parameters": "total", "parameters_trained": "trainable", "parameters_running": "running",
    "multiplications": "work",
}  # fmt: skip
OPENCV_WHEELS = tuple(
    f"opencv-{contrib}python{headless}" for contrib in ("", "contrib-") for headless in ("", "-headless")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """One check of the installation.

    Attributes:
        name: of what was checked.
        good: whether tracking works with it.
        found: in a few words.
        remedy: what to do where it is not good.
    """

    name: str
    good: bool
    found: str
    remedy: str = ""


def diagnose(seconds: float = 3.0) -> Iterator[Diagnosis]:
    """Yield the checks of system, packages, devices, codecs, weights and speed, and a self test of ``seconds``."""
    checks: tuple[tuple[str, Callable[[], Sequence[Diagnosis]]], ...] = (
        ("system", _system),
        ("versions", _versions),
        ("opencv", _opencv),
        ("devices", _devices),
        ("backend", _backend),
        ("codecs", _codecs),
        ("weights", _weights),
        ("cache", _cache),
        ("speed", _speed),
        ("self test", lambda: [_self_test(seconds)]),
    )
    for name, check in checks:
        try:
            yield from check()
        except (ImportError, OSError, RuntimeError, VltrackError) as error:
            remedy = getattr(error, "hint", "") or "Install again: pip install --force-reinstall vltrack."
            yield Diagnosis(name=name, good=False, found=f"{type(error).__name__}: {error}", remedy=remedy)


def _system() -> list[Diagnosis]:
    """Check the operating system: the decoder process needs ``fcntl``, ``resource`` and inherited files."""
    from vltrack.video.decoder_main import protections

    system = platform.system()
    found = f"vltrack {__version__}, Python {platform.python_version()}, {system} {platform.machine()}"
    remedy = "" if system == "Linux" else "Only Linux is tested; macOS is POSIX too and may work."
    if system == "Windows":
        remedy = "Windows lacks what the decoder process needs (fcntl, resource): use Linux or WSL."
    limited = {on: ", ".join(k for k, v in protections().items() if v is on) for on in (True, False)}
    limits = f"limited: {limited[True] or 'nothing'}; not limited: {limited[False] or 'nothing'}"
    return [
        Diagnosis(name="system", good=system != "Windows", found=found, remedy=remedy),
        Diagnosis(name="decoder limits", good=True, found=limits),
    ]


def _versions() -> list[Diagnosis]:
    found = []
    for name in PACKAGES:
        try:
            found.append(Diagnosis(name=name, good=True, found=metadata.version(name)))
        except metadata.PackageNotFoundError:
            # Another OpenCV wheel provides the same module; _opencv judges that.
            if name not in OPENCV_WHEELS:
                found.append(Diagnosis(name=name, good=False, found="missing", remedy=f"pip install {name}"))
    return found


def _opencv() -> list[Diagnosis]:
    """Count the OpenCV wheels: they overwrite each other's files, so exactly one must be installed."""
    names = {(dist.metadata["Name"] or "").lower().replace("_", "-") for dist in metadata.distributions()}
    wheels = [name for name in OPENCV_WHEELS if name in names]
    import cv2

    if len(wheels) == 1:
        return [Diagnosis(name="opencv", good=True, found=f"one wheel, {wheels[0]} {cv2.__version__}")]
    remedy = f"pip uninstall -y {' '.join(wheels)} && pip install opencv-python-headless"
    found = f"{len(wheels)} wheels: {' '.join(wheels)}"
    return [Diagnosis(name="opencv", good=False, found=found, remedy=remedy)]


def _devices() -> list[Diagnosis]:
    import torch

    names = [f"cpu ({torch.get_num_threads()} threads)"]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names += [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(count)]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [Diagnosis(name="devices", good=True, found=", ".join(names))]


def _backend() -> list[Diagnosis]:
    """What the backend and precision ``auto`` are on the CPU, and why."""
    from vltrack.nn.runtime import choose_runtime, has_backend, has_fast_bf16

    backend, precision = choose_runtime("auto", "auto", "cpu")
    own = os.environ.get("VLTRACK_BACKEND", "auto")
    why = (
        "$VLTRACK_BACKEND" if own != "auto" else "the fastest on a CPU" if backend == "openvino" else "no openvino here"
    )
    if backend == "openvino":
        why += f"; this CPU has {'' if has_fast_bf16() else 'no '}bf16 in hardware"
    other = metadata.version("onnxruntime") if has_backend("onnx") else "not installed, and not needed"
    found = f"auto on the CPU is {backend} {precision} ({why})"
    return [Diagnosis(name="onnxruntime", good=True, found=other), Diagnosis(name="backend", good=True, found=found)]


def _cache() -> list[Diagnosis]:
    """Where graphs are kept, and how large they are."""
    folder = cache_folder()
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    found = f"{printable(folder)}, {counted(len(sizes), 'file')}, {sum(sizes) / 1e6:.0f} MB"
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    good = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    remedy = "" if good else "It cannot be written: set VLTRACK_CACHE to a folder that can."
    return [Diagnosis(name="cache", good=good, found=found, remedy=remedy)]


def _speed() -> list[Diagnosis]:
    """Median milliseconds of a frame on one thread: torch against what ``auto`` chooses, frame by frame in turn."""
    from vltrack.nn.runtime import choose_runtime
    from vltrack.tracking.tracker import Tracker
    from vltrack.video.source import open_source

    backends = dict.fromkeys(("torch", choose_runtime("auto", "auto", "cpu")[0]))
    trackers = [Tracker.load(DEFAULT_MODEL, device="cpu", threads=1, backend=each) for each in backends]
    clip, target = demo_clip()
    spent: list[list[float]] = [[] for _ in trackers]
    with open_source(clip, end=13) as frames:
        for number, frame in enumerate(frames):
            for tracker, times in zip(trackers, spent, strict=True):
                began = time.perf_counter()
                tracker.update(frame) if number else tracker.init(frame, box=target.box)
                times.append(1000 * (time.perf_counter() - began))
    # The first update compiles.
    rates = [f"{one.runtime} {statistics.median(times[2:]):.1f}" for one, times in zip(trackers, spent, strict=True)]
    found = f"{DEFAULT_MODEL}, one thread, ms a frame: {', '.join(rates)}"
    return [Diagnosis(name="speed", good=True, found=found)]


def _codecs() -> list[Diagnosis]:
    """Encode a few frames as H.264, read them back and compare count and color."""
    import numpy as np

    from vltrack.video.source import open_source
    from vltrack.video.writer import VideoWriter

    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[:, :, 0] = 200
    with tempfile.TemporaryDirectory(prefix="vltrack-") as folder:
        path = Path(folder) / "test.mp4"
        with VideoWriter(path, width=64, height=48, rate=10.0) as writer:
            for index in range(5):
                writer.write(image, index / 10)
        with open_source(path) as source:
            frames = [frame.image for frame in source if frame.image is not None]
    red = float(frames[0][:, :, 0].mean()) if frames else 0.0
    good = len(frames) == 5 and abs(red - 200) < 10
    found = f"H.264 written and read, {len(frames)} of 5 frames, red {red:.0f} of 200"
    remedy = "" if good else "pip install --force-reinstall av"
    return [Diagnosis(name="codecs", good=good, found=found, remedy=remedy)]


def _weights() -> list[Diagnosis]:
    found = [
        Diagnosis(name=f"weights {name}", good=True, found=f"sha256 {sha256_of(path)}")
        for name, path in model_names().items()
        if path is not None
    ]
    missing = Diagnosis(name="weights", good=False, found="none", remedy="make weights (docs/train.md)")
    return found or [missing]


def _self_test(seconds: float) -> Diagnosis:
    """Track the demo clip repeatedly for ``seconds``; measure frames per second of decoding and tracking."""
    from vltrack.tracking.tracker import Tracker

    tracker = Tracker.load(DEFAULT_MODEL)
    clip, target = demo_clip()
    for _ in tracker.stream(clip, box=target.box, text=target.text, end=2):
        pass  # compiled now, not on the clock
    frames, seen, began = 0, 0, time.monotonic()
    while time.monotonic() - began < seconds:
        for step in tracker.stream(clip, box=target.box, text=target.text):
            frames += 1
            seen += int(step.visible)
            if time.monotonic() - began >= seconds:
                break
    rate = frames / (time.monotonic() - began)
    good = seen >= 0.5 * frames
    found = f"{frames} frames, {rate:.1f} frames/s with decoding, target visible in {seen}"
    remedy = "" if good else "The weights do not work here."
    return Diagnosis(name="self test", good=good, found=found, remedy=remedy)


def list_models(names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return one row per size of the named trackers (all without ``names``), for pandas; loads no torch.

    Raises:
        ModelNotFound: an unknown name.
    """
    from vltrack.models import MODELS, hint_for

    weights = model_names()
    known = [*MODELS, *weights]
    names = [known_name(name, known) for name in names]
    for name in names:
        if name not in known:
            raise ModelNotFound(f"No model is called {printable(name)!r}.", hint=hint_for(name, known))
    counts = json.loads((files("vltrack.models") / "counted.json").read_text(encoding="utf-8"))
    figures = json.loads((files("vltrack.models") / "figures.json").read_text(encoding="utf-8"))
    sizes = [(card, size, f"{card.name}-{size}") for card in MODELS.values() for size in card.sizes]
    return [
        {
            "name": name,
            "tracker": card.title,
            "paper": card.paper,
            "year": card.year,
            "modes": list(card.modes_of(size)),
            "size": size,
            "weights": None if weights[name] is None else str(weights[name]),
            **{key: counts.get(name, {}).get(counted) for key, counted in _COUNTS.items()},
            "claims": card.claims,
            "ours": card.ours,
            "figures": [figure for figure in figures if figure["model"] == name],
        }
        for card, size, name in sizes
        if not names or name in names or card.name in names
    ]


def published_on(data: str) -> list[dict[str, Any]]:
    """Figures that others have published on a data set, by its name in any spelling: ``lasot`` or ``LaSOT``."""

    def plain(name: str) -> str:
        return "".join(letter for letter in name.lower() if letter.isalnum())

    return [
        figure
        for row in list_models()
        for figure in row["figures"]
        if figure["by"] == "published" and plain(figure["data"]) == plain(data)
    ]


def measure_models(names: Sequence[str] = (), seconds: float = 2.0) -> Iterator[dict[str, Any]]:
    """Yield what each model with weights costs on this machine: one thread, frames of the packaged clip, a box.

    Each is loaded by a process of its own, twice: the first time makes what is cached. Rows have ``name``, ``runtime``
    (backend and number type), ``milliseconds`` (of a frame, median), ``frames_per_second``, ``peak_mb`` (memory of
    the process) and ``load_seconds``.

    Args:
        names: as for ``list_models``.
        seconds: how long each may track.

    Raises:
        ModelNotFound: an unknown name, or no weights for any of them.
        ResourceError: a process was killed, as when memory runs out. And what ``Tracker.load`` raises.
    """
    rows = list_models(names)
    found = [row for row in rows if row["weights"] is not None]
    if not found:
        hint = f"Import or train some: vltrack import-weights FILE --as {rows[0]['name']}."
        raise ModelNotFound(f"No weights of {printable(names[0])} are at hand.", hint=hint)
    for row in found:
        for last in (False, True):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                try:
                    measured = fresh.submit(_measured, row["weights"], seconds if last else 0.0).result()
                except BrokenProcessPool:
                    why = f"The process that measures {row['name']} was killed."
                    raise ResourceError(why, hint="Close other programs: memory may have run out.") from None
        yield {"name": row["name"], **measured}


def _measured(weights: str, seconds: float) -> dict[str, Any]:
    """What a model costs in this process, which does nothing else."""
    from vltrack.tracking.tracker import Tracker
    from vltrack.video.source import open_source

    begin = time.perf_counter()
    tracker = Tracker.load(weights, device="cpu", threads=1)
    loaded = time.perf_counter() - begin
    clip, target = demo_clip()
    with open_source(clip, end=12) as frames:
        images = [frame.image for frame in frames if frame.image is not None]
    tracker.init(images[0], box=target.box)
    spent: list[float] = []
    for image in cycle(images[1:] + images[-2::-1]):  # back and forth: the target never jumps
        began = time.perf_counter()
        tracker.update(image)
        spent.append(1000 * (time.perf_counter() - began))
        if sum(spent) >= 1000 * seconds and len(spent) > 2:
            break
    middle = statistics.median(spent[1:])
    return {
        "runtime": tracker.engine.network.runtime, "milliseconds": round(middle, 2),
        "frames_per_second": round(1000 / middle, 1), "peak_mb": round(_peak_mb()), "load_seconds": round(loaded, 2),
    }  # fmt: skip


def _peak_mb() -> float:
    """Largest memory of this process; on Linux not by getrusage, which begins with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

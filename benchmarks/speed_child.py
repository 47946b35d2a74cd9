"""A child process of ``speed.py``: times the vltrack that PYTHONPATH names. JSON lines in, JSON lines out.

Loads as little as possible itself: with ``--once`` its memory and its seconds are those of the tracker.
"""

from __future__ import annotations

import inspect
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

BEFORE, NANO = "before", "nanotrack"
TARGETS = 8
KEPT = 0.6875
"""Share of search tokens that random weights keep: half a bucket below the 0.7 (in whole buckets) of training."""
PARTS = {
    "crop": ("mean_color", "cut", "cut_published", "padded_published"),
    "network": ("images_to_tensor", "_maps"),  # where the tracking loop itself converts from and to tensors
}
"""Functions in ``tracking.engine`` that are timed, besides the network's own."""
SHAPES = ((320, 768, 3072), (512, 1024, 1024), (1024, 1024, 1024))
"""Matrix products (rows, columns in, columns out) of which the fastest is the machine's rate."""
CRITERIA = {"bf16": {"avx512_bf16", "amx_bf16"}, "int8": {"avx512_vnni", "avx_vnni", "amx_int8"}}
"""Instructions of which a processor needs one for fast products of these numbers."""

Work = Callable[[], object]


def cpu_ms(work: Work) -> float:
    """CPU milliseconds of one call, of all threads of this process."""
    begin = time.process_time()
    work()
    return 1000 * (time.process_time() - begin)


class Clock:
    """CPU milliseconds of functions by the part that they belong to; a nested call counts for its own part alone."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(PARTS, 0.0)
        self._inner = [0.0]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time counts for the part."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            begin = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                whole = 1000 * (time.process_time() - begin)
                self.spent[part] += whole - self._inner.pop()
                self._inner[-1] += whole

        return call


class Timed:
    """A network whose ``locate`` is timed."""

    def __init__(self, network: Any, clock: Clock) -> None:
        self._network = network
        self.locate = clock.timed("network", network.locate)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


class Server:
    """Answers the parent's requests.

    Args:
        frames: .npy file of RGB frames (N, H, W, 3).
        box, text: the target in the first one.
    """

    def __init__(self, frames: str, box: Sequence[float], text: str) -> None:
        self.images = list(np.load(frames))
        self.box, self.text, self.clock = tuple(box), text, Clock()
        self.trackers: dict[str, Any] = {}
        self.groups: dict[str, Any] = {}
        self.held: dict[str, Any] = {}
        self.at: dict[str, int] = {}

    def next_images(self, key: str, count: int) -> list[Any]:
        """The next frames of a tracker: back and forth, so that the target never jumps."""
        begin, period = self.at.get(key, 0) + 1, 2 * len(self.images) - 2
        self.at[key] = begin + count - 1
        return [self.images[min(n % period, period - n % period)] for n in range(begin, begin + count)]

    def load(self, key: str, name: str, text: bool, targets: bool, hold: bool) -> dict[str, Any]:
        """Load and start a variant of a model, or NanoTrack's networks from the folder ``name``.

        With ``hold`` every update begins at the start: random weights would follow the border of the frame.
        """
        if key == NANO:
            import cv2
            from peers.run_opencv import make

            cv2.setNumThreads(1)
            self.trackers[key] = make("nanotrack", name)
            self.trackers[key].init(self.images[0], tuple(round(v) for v in self.box))
            return {}
        tracker, sentence = load_variant(key, name), self.text if text else None
        self._instrument(tracker.engine)
        tracker.init(self.images[0], box=self.box, text=sentence)
        self.trackers[key] = tracker
        if hold:
            self.held[key] = tracker.state
        if targets:
            import vltrack

            x, y, w, h = self.box
            self.groups[key] = vltrack.MultiTracker(tracker)
            self.groups[key].init(
                self.images[0], {str(n): vltrack.Target(box=(x + n, y, w, h), text=sentence) for n in range(TARGETS)}
            )
        return {}

    def _instrument(self, engine: Any) -> None:
        """Time this engine's network, and once in this process the functions of ``PARTS``."""
        from vltrack.tracking import engine as module

        for part, names in PARTS.items():
            for name in names if not self.trackers else ():
                if hasattr(module, name):
                    setattr(module, name, self.clock.timed(part, getattr(module, name)))
        own = "network" if hasattr(engine, "network") else "model"
        setattr(engine, own, Timed(getattr(engine, own), self.clock))

    def frames(self, key: str, count: int) -> dict[str, list[float]]:
        """CPU milliseconds of updates, and of their parts."""
        found: dict[str, list[float]] = {part: [] for part in ("update", *PARTS, "rest")}
        for image in self.next_images(key, count):
            if key in self.held:
                self.trackers[key].restore(self.held[key])
            self.clock.spent = dict.fromkeys(PARTS, 0.0)
            whole = cpu_ms(partial(self.trackers[key].update, image))
            rest = whole - sum(self.clock.spent.values())
            for part, spent in {"update": whole, **self.clock.spent, "rest": rest}.items():
                found[part].append(spent)
        return found

    def targets(self, key: str, count: int) -> dict[str, list[float]]:
        """Milliseconds of updates of several targets at once, of CPU and by the clock, and of one by the clock."""
        found: dict[str, list[float]] = {name: [] for name in ("targets", "targets_wall", "one_wall")}
        images = zip(self.next_images(f"{key} all", count), self.next_images(key, count), strict=True)
        for together, alone in images:
            begin = time.perf_counter()
            found["targets"].append(cpu_ms(partial(self.groups[key].update, together)))
            middle = time.perf_counter()
            self.trackers[key].update(alone)
            found["targets_wall"].append(1000 * (middle - begin))
            found["one_wall"].append(1000 * (time.perf_counter() - middle))
        return found

    def find(self, key: str, count: int) -> dict[str, list[float]]:
        """CPU milliseconds of finding the sentence in a frame, without a first time, which may load the grounder."""
        from vltrack.core.errors import GroundingFailed

        def once() -> None:
            with suppress(GroundingFailed):  # by random weights, after all was computed
                self.trackers[key].find(self.images[0], self.text)

        if f"{key} find" not in self.at:
            self.at[f"{key} find"] = 1
            once()
        return {"find": [cpu_ms(once) for _ in range(count)]}

    def matmul(self) -> dict[str, float]:
        """10^9 operations a second of matrix products, by library and number type: of the fastest shape."""
        return {name: max(rate(work, operations) for work, operations in each) for name, each in products()}

    def write(self, name: str, path: str) -> dict[str, Any]:
        """Write random weights; LiteTrack's threshold keeps the share of tokens that training aims at."""
        import torch

        from vltrack.checkpoints import store
        from vltrack.models import build, config_of, split_name

        card, size = split_name(name)
        torch.manual_seed(0)
        model = build(card, config_of(card, size)).eval()
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        store.save(place, model, tracker=card.name, size=size, card={})
        selector = getattr(model, "selector", None)
        if selector is None:
            return {}
        tracker, seen = load_variant(BEFORE, path), list[Any]()
        network = getattr(tracker.engine, "network", tracker.engine)
        network.model.selector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float()))
        tracker.init(self.images[0], box=self.box, text=self.text)
        tracker.update(self.images[1])
        with torch.inference_mode():
            unit = torch.nn.functional.normalize(seen[-1][0], dim=-1)
            earlier = (unit @ unit.T).tril(-1) - 2 * torch.ones(len(unit), len(unit)).triu()
            wanted = earlier.amax(dim=1).quantile(KEPT) - selector.offset(seen[-1].mean(dim=1))[0, 0]
            selector.theta.fill_(wanted.clamp(-0.9999999, 0.9999999).atanh())
        store.save(place, model, tracker=card.name, size=size, card={})
        return {}


def load_variant(key: str, name: str) -> Any:
    """A tracker on one thread: ``before``, and a tree without a choice of backends, give eager fp32."""
    from vltrack.tracking.tracker import Tracker

    more: dict[str, Any] = {"device": "cpu", "threads": 1}
    if "backend" in inspect.signature(Tracker.load).parameters:
        backend, _, precision = ("torch-fp32" if key == BEFORE else key).partition("-")
        more |= {"backend": backend, "precision": precision}
    return Tracker.load(name, **more)


def products() -> Iterator[tuple[str, list[tuple[Work, float]]]]:
    """Matrix products of each library and number type that this processor has, with their 10^6 operations."""
    import torch

    torch.set_num_threads(1)
    flags = processor_flags()
    fast = {kind: bool(flags & names) for kind, names in CRITERIA.items()}

    def linear(m: int, k: int, n: int, dtype: torch.dtype) -> tuple[Work, float]:
        x, w = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
        return partial(torch.nn.functional.linear, x, w), 2e-6 * m * k * n

    def packed(m: int, k: int, n: int) -> tuple[Work, float]:
        ready = torch.ops.mkldnn._reorder_linear_weight(torch.randn(n, k), m)
        work = partial(torch.ops.mkldnn._linear_pointwise, torch.randn(m, k), ready, None, "none", [], "")
        return work, 2e-6 * m * k * n

    def whole(m: int, k: int, n: int) -> tuple[Work, float]:
        a, b = torch.ones(m, k, dtype=torch.int8), torch.ones(k, n, dtype=torch.int8)
        return partial(torch._int_mm, a, b), 2e-6 * m * k * n

    yield "torch fp32", [linear(*shape, torch.float32) for shape in SHAPES]
    with suppress(AttributeError, RuntimeError, NotImplementedError):  # private operations of torch
        yield "torch packed fp32", [packed(*shape) for shape in SHAPES]
    if fast["bf16"]:
        yield "torch bf16", [linear(*shape, torch.bfloat16) for shape in SHAPES]
    if fast["int8"]:
        yield "torch int8", [whole(*shape) for shape in SHAPES]
    with suppress(ImportError):
        for precision in ("fp32", *(["bf16"] if fast["bf16"] else []), "int8"):
            yield f"openvino {precision}", [openvino_products(*shape, precision) for shape in SHAPES]


def openvino_products(m: int, k: int, n: int, precision: str) -> tuple[Work, float]:
    """Four products in a row with constant weights, compiled, and their 10^6 operations."""
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]  # conversion tools, with telemetry
    import openvino
    from openvino import opset13 as ops

    numbers = np.random.default_rng(0)
    given = node = ops.parameter([m, k], np.float32)
    limits = [ops.constant(np.float32(limit)) for limit in (-1, 1, -1, 1)]
    for rows, columns in 2 * ((k, n), (n, k)):
        weights = ops.constant(numbers.uniform(-1, 1, (rows, columns)).astype(np.float32))
        if precision == "int8":  # the plugin turns products of what fake quantization gives into integer ones
            node, weights = ops.fake_quantize(node, *limits, 256), ops.fake_quantize(weights, *limits, 255)
        node = ops.matmul(node, weights, False, False)
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    compiled = openvino.Core().compile_model(openvino.Model([node], [given]), "CPU", options)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(numbers.uniform(-1, 1, (m, k)).astype(np.float32)))
    return request.infer, 4 * 2e-6 * m * k * n


def rate(work: Work, operations: float, rounds: int = 7) -> float:
    """10^9 operations a second, median."""
    work()
    return operations / statistics.median(cpu_ms(work) for _ in range(rounds))


def processor_flags() -> set[str]:
    """Instruction sets of the processor, on Linux."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return set(line.partition(":")[2].split())
    return set()


def once(key: str, name: str, frames: str, box: str, text: str) -> None:
    """Load, start and track three frames: seconds of loading, and the peak of memory in MB."""
    images = np.load(frames, mmap_mode="r")
    begin, wall = time.process_time(), time.perf_counter()
    tracker = load_variant(key, name)
    seconds = {"load": time.process_time() - begin, "load_wall": time.perf_counter() - wall}
    tracker.init(np.array(images[0]), box=json.loads(box), text=text or None)
    for image in images[1:4]:
        tracker.update(np.array(image))
    # Not getrusage: on Linux a child begins with its parent's maximum.
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({**seconds, "peak": peak}))


def decode(path: str) -> None:
    """CPU milliseconds to read a frame of a video, of this process and its decoder, without starting them."""
    from vltrack.video.source import open_source

    spent, counts = [], []
    for end in (8, None):
        begin = os.times()
        with open_source(path, end=end) as frames:
            counts.append(sum(1 for _ in frames))
        spent.append(sum(b - a for a, b in zip(begin[:4], os.times()[:4], strict=True)))
    print(json.dumps({"ms": 1000 * (spent[1] - spent[0]) / (counts[1] - counts[0])}))


def main() -> None:
    """Answer requests until the input ends."""
    if sys.argv[1] in ("--once", "--decode"):
        return {"--once": once, "--decode": decode}[sys.argv[1]](*sys.argv[2:])
    import vltrack

    print(json.dumps({"versions": {"vltrack": vltrack.__version__}}), flush=True)
    frames, box, text = sys.argv[1:]
    server = Server(frames, json.loads(box), text)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(server, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001 - each backend has its own classes
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), flush=True)
    return None


if __name__ == "__main__":
    main()

"""Backends that run a network's graphs without torch: OpenVINO, or ONNX Runtime. Importing this loads neither."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from vltrack.core.errors import ResourceError, StateError, UsageError

Backend = Literal["auto", "torch", "openvino", "onnx"]
Precision = Literal["auto", "fp32", "bf16", "int8"]
Arrays = dict[str, NDArray[Any]]
Runner = Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]

_PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}
_HINTS = {"openvino": "pip install openvino", "onnx": "pip install 'vltrack[fast]'"}


def choose_runtime(backend: str, precision: str, device: str) -> tuple[str, str]:
    """Return the backend, ``torch``, ``openvino`` or ``onnx``, and the precision, ``fp32``, ``bf16`` or ``int8``.

    The backend ``auto`` is ``$VLTRACK_BACKEND`` where that is set; else OpenVINO on the CPU, if it is installed, and
    torch elsewhere. The precision ``auto`` is bf16 where OpenVINO computes it in hardware, else fp32.

    Raises:
        UsageError: an unknown name, or a combination that no backend has.
        ResourceError: the backend is not installed, or OpenVINO would run fp32 in place of bf16, or int8 on AMX.
    """
    for name, value, known in (("backend", backend, Backend), ("precision", precision, Precision)):
        if value not in get_args(known):
            raise UsageError(f"Unknown {name}: {value!r}.", hint=f"Known: {', '.join(get_args(known))}.")
    on_cpu = device == "cpu"
    if backend == "auto" and (own := os.environ.get("VLTRACK_BACKEND", "auto")) != "auto":
        return choose_runtime(own, precision, device)
    if backend == "auto":
        backend = "openvino" if on_cpu and has_backend("openvino") else "torch"
    if backend != "torch":
        if not on_cpu:
            raise UsageError(f"The backend {backend} runs on the CPU, not on {device}.", hint="Use --backend torch.")
        if not has_backend(backend):
            raise ResourceError(f"The backend {backend} is not installed.", hint=f"Run: {_HINTS[backend]}")
    usable = {"torch": ("fp32", "bf16"), "openvino": ("fp32", "bf16", "int8"), "onnx": ("fp32", "int8")}[backend]
    if precision not in ("auto", *usable):
        raise UsageError(f"The backend {backend} has no {precision}.", hint=f"It has {', '.join(usable)}.")
    if (backend, precision) == ("openvino", "bf16") and not has_fast_bf16():
        raise ResourceError(
            "This processor does not compute bf16 in hardware, and OpenVINO would run fp32 in its place.",
            hint="Use --precision fp32.",
        )
    if (backend, precision) == ("openvino", "int8") and has_amx():
        raise ResourceError(
            "On processors with AMX, OpenVINO's int8 graphs give wrong boxes and damage memory.",
            hint="Use --precision bf16, which is fast there, or --backend onnx.",
        )
    if precision == "auto":
        precision = "bf16" if backend == "openvino" and has_fast_bf16() else "fp32"
    return backend, precision


def choose_cpu_or_gpu(device: str) -> str:
    """The name of a device; ``auto`` is a GPU where torch can use one. Torch is loaded only if there may be one.

    Raises:
        ResourceError: this machine does not have the device.
    """
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    if device == "cpu" or (device == "auto" and sys.platform == "linux" and not any(map(os.path.exists, drivers))):
        return "cpu"
    from vltrack.nn.device import choose_device

    return str(choose_device(device))


def has_backend(name: str) -> bool:
    """Whether ``openvino`` or ``onnx`` is installed."""
    return find_spec(_PACKAGES[name]) is not None


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_fast_bf16() -> bool:
    """Whether OpenVINO computes bf16 in hardware here; else it would silently be fp32."""
    return "BF16" in _core()[0].get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def has_amx() -> bool:
    """Whether Linux says that this processor multiplies int8 matrices (Intel AMX)."""
    with suppress(OSError):
        return b" amx_int8" in Path("/proc/cpuinfo").read_bytes()
    return False


def save_ir(graph: Path, target: Path) -> None:
    """Write an ONNX graph as OpenVINO's IR, an .xml and a .bin beside it, with the same numbers."""
    read = _core()[0].read_model(str(graph))
    import openvino

    openvino.save_model(read, str(target), compress_to_fp16=False)


class Graph:
    """An ONNX graph on a backend, compiled on its first call, and again for each thread that calls it meanwhile.

    Args:
        path: the .onnx file; for OpenVINO also an .xml file.
        inputs, outputs: names of its tensors, in order.
        backend: ``openvino`` or ``onnx``.
        precision: ``bf16``, or what the file holds (``fp32``, ``int8``); what is not int8 in that is bf16 in hardware
            that has it.
        threads: of one call.
        cache: folder for compiled graphs (OpenVINO), or None.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[str],
        outputs: Sequence[str],
        backend: str,
        precision: str,
        threads: int,
        cache: Path | None = None,
    ) -> None:
        self.path, self._inputs, self._outputs = path, inputs, outputs
        self._compile = partial(_openvino if backend == "openvino" else _onnx, path, precision, threads, cache)
        self._idle: list[Runner] = []

    def __call__(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run on arrays by input name, of which there may be more; return the outputs by name."""
        try:
            runner = self._idle.pop()
        except IndexError:
            runner = self._compile()
        made = runner([feed[name] for name in self._inputs])
        self._idle.append(runner)
        return dict(zip(self._outputs, made, strict=True))

    def release(self) -> None:
        """Free the memory of the compiled graph; the next call compiles it anew."""
        self._idle.clear()


def open_graphs(
    folder: Path, manifest: Mapping[str, Any], backend: str, precision: str, threads: int, cache: Path | None = None
) -> dict[str, Graph]:
    """The graphs of a folder by name, as its manifest describes them (``export.graphs``); none is compiled yet."""
    made = {}
    for name, each in manifest["graphs"].items():
        inputs, outputs = ([port["name"] for port in each[side]] for side in ("inputs", "outputs"))
        made[name] = Graph(folder / each["file"], inputs, outputs, backend, precision, threads, cache)
    return made


@cache
def _core() -> tuple[Any, int]:
    """OpenVINO's core, and the process that loaded it."""
    if has_amx():  # where its bf16 kernels for AMX end in a segmentation fault or in wrong boxes: those for AVX-512
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    # Its conversion tools, which it imports where it finds them, double the time and bring telemetry.
    tools = "openvino.tools.ovc"
    blocked = "openvino" not in sys.modules and tools not in sys.modules
    if blocked:
        sys.modules[tools] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if blocked:
            del sys.modules[tools]
    return openvino.Core(), os.getpid()


def _openvino(path: Path, precision: str, threads: int, cache_folder: Path | None) -> Runner:
    in_bf16 = precision == "bf16" or (precision == "int8" and has_fast_bf16())
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if in_bf16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Pinned, several processes of one thread each would share the first core.
        "ENABLE_CPU_PINNING": False,
    }
    if cache_folder is not None and os.access(cache_folder.parent, os.W_OK):
        options["CACHE_DIR"] = str(cache_folder)
    core, process = _core()
    if "CACHE_DIR" in options and (kernels := os.environ.get("ONEDNN_MAX_CPU_ISA")):
        options["CACHE_DIR"] += f"-{kernels.lower()}"  # compiled for other kernels, a graph ends the process
    if process != os.getpid():  # its threads are not there: compiling would wait for ever
        raise StateError(
            f"OpenVINO was loaded in process {process}, of which this one is a fork.",
            hint="Start processes with spawn, or load with backend='torch'.",
        )
    request = core.compile_model(str(path), "CPU", options).create_infer_request()
    return lambda inputs: list(request.infer(dict(enumerate(inputs)), share_inputs=True).to_tuple())


def _onnx(path: Path, _precision: str, threads: int, _cache_folder: Path | None) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))

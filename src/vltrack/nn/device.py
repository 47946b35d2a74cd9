"""Choice of device, number type and threads, and which parameters freezing touches."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from vltrack.core.errors import ResourceError


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name; ``auto`` takes CUDA, then Apple MPS, then the CPU.

    Raises:
        ResourceError: this machine does not have the device; another one is not used silently.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = name.split(":")[0]
    if not present.get(kind, False):
        having = ", ".join(k for k, v in present.items() if v)
        raise ResourceError(f"No device {name!r} on this machine (it has: {having}).", hint="Use --device auto.")
    return torch.device(name)


def mixed_precision(device: torch.device, *, enabled: bool = True) -> AbstractContextManager[object]:
    """bf16 autocast for training; on the CPU only with bf16 instructions (else it is slower)."""
    if device.type == "cpu":
        enabled = enabled and torch.backends.cpu.get_cpu_capability() in ("AVX512", "AMX") and _cpu_has_bf16()
    if device.type == "mps":
        enabled = False
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def reduced_precision(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Autocast for inference: bf16 where ``precision`` says so, whether or not the device is fast at it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off: a threshold on rounded numbers would be another one."""
    # The meta device has no autocast to switch off.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _cpu_has_bf16() -> bool:
    check = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(check()) if check is not None else False


def use_threads(count: int) -> None:
    """Set torch's intra-op threads for this process (1 is best for small networks)."""
    torch.set_num_threads(max(1, count))


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for this process: on the CPU a training step is a fifth faster.

    Else glibc returns large tensors to the system, which clears the same pages for the next ones. Other C libraries
    are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 2**31 - 1)
        # Older versions refuse more than 32 MB.
        if not mallopt(mmap_threshold, 2**30):
            mallopt(mmap_threshold, 2**25)


def freezable(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """Yield the parameters of these modules but those of layer norms, which stay trainable (LiteTrack)."""
    for module in modules:
        for part in module.modules():
            if not isinstance(part, nn.LayerNorm):
                yield from part.parameters(recurse=False)

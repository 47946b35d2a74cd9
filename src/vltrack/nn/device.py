"""The one place where devices, number types and threads are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from vltrack.core.errors import ResourceError


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA, then Apple MPS, then the processor.

    Raises:
        ResourceError: a device that this machine does not have was asked for; there is no silent fallback.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = name.split(":")[0]
    if not present.get(kind, False):
        having = ", ".join(k for k, v in present.items() if v)
        raise ResourceError(
            f"no device {name!r} on this machine (it has: {having}).", hint="Use --device auto."
        )
    return torch.device(name)


def mixed_precision(device: torch.device, *, enabled: bool = True) -> AbstractContextManager[object]:
    """bf16 autocast for training; on the CPU only with bf16 instructions (else it is slower)."""
    if device.type == "cpu":
        enabled = enabled and torch.backends.cpu.get_cpu_capability() in ("AVX512", "AMX") and _cpu_has_bf16()
    if device.type == "mps":
        enabled = False
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast in here: a threshold on rounded numbers would be another one."""
    # Tensors without memory (``meta``) have no autocast to switch off.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _cpu_has_bf16() -> bool:
    check = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(check()) if check is not None else False


def use_threads(count: int) -> None:
    """Set torch's intra-op threads for this process (1 is best for small networks)."""
    torch.set_num_threads(max(1, count))


# MERGED nn/device.py
# Which parameters of a module are held still when it is frozen. Knows no tracker and no plan.


def freezable(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """All parameters of these modules but those of their layer norms, which go on training (LiteTrack)."""
    for module in modules:
        for part in module.modules():
            if not isinstance(part, nn.LayerNorm):
                yield from part.parameters(recurse=False)

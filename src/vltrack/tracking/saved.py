"""The state of a run as the bytes of a .safetensors file. Read back, it leads to the same boxes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

Arrays = dict[str, np.ndarray]


def pack(record: Mapping[str, Any]) -> bytes:
    """Encode plain values, arrays, tensors, and the dataclasses, tuples, sets and dicts that hold them."""
    arrays: Arrays = {}
    text = json.dumps(_encoded(dict(record), arrays))
    arrays["record"] = np.frombuffer(text.encode(), dtype=np.uint8)
    data: bytes = save(arrays)
    return data


def unpack(data: bytes, device: str = "cpu") -> dict[str, Any]:
    """Return what ``pack`` encoded, tensors on ``device``. Raises ``ValueError`` for anything else.

    No class but the dataclasses and enumerations of vltrack is made.
    """
    try:
        arrays = load(data)
        record: dict[str, Any] = _decoded(json.loads(arrays.pop("record").tobytes()), arrays, device)
    except (SafetensorError, KeyError, TypeError, AttributeError, ImportError, RecursionError) as error:
        raise ValueError(f"not a saved state: {error}") from error
    return record


def _encoded(value: Any, arrays: Arrays) -> Any:
    """JSON: plain values as they are, all else as a list of a kind and its parts."""
    if isinstance(value, Enum):
        return ["enum", _name_of(value), value.value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    key = str(len(arrays))
    if isinstance(value, np.ndarray):
        arrays[key] = np.asarray(value, order="C")
        return ["array", key]
    if (torch := sys.modules.get("torch")) is not None and isinstance(value, torch.Tensor):
        plain, kind = value.detach().cpu(), str(value.dtype).removeprefix("torch.")
        # NumPy has no bfloat16: its bits are stored.
        arrays[key] = np.asarray((plain.view(torch.int16) if kind == "bfloat16" else plain).numpy(), order="C")
        # The order in memory too: a product of another order may round differently.
        return ["tensor", key, kind, *(value.stride() if 0 not in value.stride() else ())]
    if is_dataclass(value):
        parts = {each.name: _encoded(getattr(value, each.name), arrays) for each in fields(value)}
        return ["object", _name_of(value), parts]
    if isinstance(value, dict):
        return ["dict", *([_encoded(key, arrays), _encoded(one, arrays)] for key, one in value.items())]
    kinds: dict[type, str] = {tuple: "tuple", list: "list", frozenset: "set"}
    return [kinds[type(value)], *(_encoded(one, arrays) for one in value)]


def _decoded(value: Any, arrays: Arrays, device: str) -> Any:
    if not isinstance(value, list):
        return value
    kind, *parts = value
    match kind:
        case "enum":
            return _class_of(parts[0])(parts[1])
        case "array":
            return arrays[parts[0]]
        case "tensor":
            import torch

            key, name, *strides = parts
            plain = torch.from_numpy(arrays[key]).view(getattr(torch, name))
            return (
                torch.empty_strided(plain.shape, strides or plain.stride(), dtype=plain.dtype).copy_(plain).to(device)
            )
        case "object":
            return _class_of(parts[0])(**{name: _decoded(one, arrays, device) for name, one in parts[1].items()})
        case "dict":
            return {_decoded(key, arrays, device): _decoded(one, arrays, device) for key, one in parts}
    return {"tuple": tuple, "list": list, "set": frozenset}[kind](_decoded(one, arrays, device) for one in parts)


def _name_of(value: object) -> str:
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _class_of(name: str) -> Any:
    module, _, kind = name.partition(":")
    found = getattr(import_module(module), kind) if module.startswith("vltrack.") else None
    if not (is_dataclass(found) or (isinstance(found, type) and issubclass(found, Enum))):
        raise TypeError(f"{name} does not belong to a state")
    return found

"""The state of a run as the bytes of a .safetensors file. Read back, it leads to the same boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor


def pack(record: Mapping[str, Any]) -> bytes:
    """Encode plain values, arrays, tensors, and the dataclasses, tuples, sets and dicts that hold them."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encoded(dict(record), tensors))
    tensors["record"] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    return save(tensors)


def unpack(data: bytes, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return what ``pack`` encoded, tensors on ``device``. Raises ``ValueError`` for anything else.

    No class but the dataclasses and enumerations of vltrack is made.
    """
    try:
        tensors = load(data)
        record: dict[str, Any] = _decoded(json.loads(tensors.pop("record").numpy().tobytes()), tensors, device)
    except (SafetensorError, KeyError, TypeError, AttributeError, ImportError, RecursionError) as error:
        raise ValueError(f"not a saved state: {error}") from error
    return record


def _encoded(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON: plain values as they are, all else as a list of a kind and its parts."""
    if isinstance(value, Enum):
        return ["enum", _name_of(value), value.value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | Tensor):
        key = str(len(tensors))
        plain = torch.from_numpy(value) if isinstance(value, np.ndarray) else value.detach().cpu()
        tensors[key] = plain.contiguous().clone()
        if isinstance(value, np.ndarray):
            return ["array", key]
        # The order in memory too: a product of another order may round differently.
        return ["tensor", key, *(plain.stride() if 0 not in plain.stride() else ())]
    if is_dataclass(value):
        parts = {each.name: _encoded(getattr(value, each.name), tensors) for each in fields(value)}
        return ["object", _name_of(value), parts]
    if isinstance(value, dict):
        return ["dict", *([_encoded(key, tensors), _encoded(one, tensors)] for key, one in value.items())]
    kinds: dict[type, str] = {tuple: "tuple", list: "list", frozenset: "set"}
    return [kinds[type(value)], *(_encoded(one, tensors) for one in value)]


def _decoded(value: Any, tensors: dict[str, Tensor], device: torch.device | str) -> Any:
    if not isinstance(value, list):
        return value
    kind, *parts = value
    match kind:
        case "enum":
            return _class_of(parts[0])(parts[1])
        case "array":
            return tensors[parts[0]].numpy()
        case "tensor":
            plain = tensors[parts[0]]
            return (
                torch.empty_strided(plain.shape, parts[1:] or plain.stride(), dtype=plain.dtype).copy_(plain).to(device)
            )
        case "object":
            return _class_of(parts[0])(**{name: _decoded(one, tensors, device) for name, one in parts[1].items()})
        case "dict":
            return {_decoded(key, tensors, device): _decoded(one, tensors, device) for key, one in parts}
    return {"tuple": tuple, "list": list, "set": frozenset}[kind](_decoded(one, tensors, device) for one in parts)


def _name_of(value: object) -> str:
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _class_of(name: str) -> Any:
    module, _, kind = name.partition(":")
    found = getattr(import_module(module), kind) if module.startswith("vltrack.") else None
    if not (is_dataclass(found) or (isinstance(found, type) and issubclass(found, Enum))):
        raise TypeError(f"{name} does not belong to a state")
    return found

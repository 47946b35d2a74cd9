"""Our checkpoint: ``NAME.safetensors`` with the tensors and ``NAME.json`` with everything else, sha256 included.

Nothing is ever unpickled. A file that was cut, changed or belongs to another model is refused with the reason.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from vltrack.core.errors import (
    CheckpointCorrupt,
    CheckpointMismatch,
    CheckpointNonFinite,
    CheckpointVersion,
    ModelNotFound,
)
from vltrack.core.files import sha256_bytes, write_bytes, write_text
from vltrack.models import MODELS, ModelCard, build, config_of, split_name

FORMAT = 1
PACKAGED = Path(__file__).parent.parent / "weights"


def save(path: Path, model: Any, *, tracker: str, size: str, card: dict[str, Any], half: bool = False) -> None:
    """Write ``path`` (.safetensors) and its card beside it. ``half`` stores matrices as fp16, vectors stay fp32.

    The card is written last: a file without one is not a checkpoint.
    """
    tensors = {k: _stored(v, half) for k, v in model.state_dict().items()}
    data = save_bytes(tensors)
    record = {
        "format": FORMAT,
        "tracker": tracker,
        "size": size,
        "sha256": sha256_bytes(data),
        "parameters": sum(p.numel() for p in model.parameters()),
        "config": dataclasses.asdict(model.config),
        **card,
    }
    path.with_suffix(".json").unlink(missing_ok=True)
    write_bytes(path, data)
    write_text(path.with_suffix(".json"), json.dumps(record, indent=2) + "\n")


def find(name_or_path: str | Path) -> Path:
    """The .safetensors file for a model's name (weights in the package) or a path.

    Raises:
        ModelNotFound: no such file; or a known model whose weights do not ship.
    """
    path = Path(name_or_path)
    if path.suffix == ".safetensors" or path.is_file():
        if not path.is_file():
            raise ModelNotFound(f"there are no weights at {path}.", hint="Check the path, or use `vltrack models`.")
        return path.with_suffix(".safetensors")
    split_name(str(name_or_path))
    packaged = PACKAGED / f"{name_or_path}.safetensors"
    if not packaged.is_file():
        raise ModelNotFound(
            f"no weights for {name_or_path} ship with vltrack.",
            hint="Train them (`vltrack train`) and give the path of the .safetensors file.",
        )
    return packaged


def read_card(path: Path) -> dict[str, Any]:
    """The JSON beside a .safetensors file. CheckpointCorrupt if it is missing or no JSON; CheckpointVersion if newer."""
    card_path = path.with_suffix(".json")
    try:
        card = json.loads(card_path.read_bytes())
    except FileNotFoundError:
        raise CheckpointCorrupt(
            f"{path} has no card ({card_path.name}) beside it.", hint="Copy both files together."
        ) from None
    except ValueError as error:
        raise CheckpointCorrupt(f"{card_path} is no JSON ({error}).", hint="Copy the file again.") from None
    if not isinstance(card, dict) or not {"format", "tracker", "size", "sha256", "config"} <= card.keys():
        raise CheckpointCorrupt(f"{card_path} is not a card of vltrack weights.", hint="Copy the file again.")
    if card["format"] > FORMAT:
        raise CheckpointVersion(
            f"{path} has format {card['format']}; this vltrack reads up to {FORMAT}.", hint="Update vltrack."
        )
    return card


def load(name_or_path: str | Path, *, tracker: str | None = None) -> tuple[Any, dict[str, Any]]:
    """The model in eval mode on the CPU, and its card.

    Raises:
        ModelNotFound, CheckpointCorrupt, CheckpointVersion, CheckpointMismatch, CheckpointNonFinite.
    """
    path = find(name_or_path)
    card = read_card(path)
    data = path.read_bytes()
    actual = sha256_bytes(data)
    if actual != card["sha256"]:
        raise CheckpointCorrupt(
            f"{path} is damaged: sha256 is {actual[:12]}..., its card says {card['sha256'][:12]}...",
            hint="Copy or download the file again.",
        )
    if card["tracker"] not in MODELS or (tracker is not None and card["tracker"] != tracker):
        raise CheckpointMismatch(f"{path} holds weights of {card['tracker']!r}, not of {tracker or 'a known tracker'}.")
    model_card = MODELS[card["tracker"]]
    model = build(model_card, _config(model_card, card, path))
    try:
        tensors = load_bytes(data)
    except SafetensorError as error:
        raise CheckpointCorrupt(f"{path} is no safetensors file ({error}).") from None
    load_strictly(model, tensors, path)
    return model.eval(), card


def load_strictly(model: torch.nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy tensors into a model: every key, every shape, every number finite. CheckpointMismatch, CheckpointNonFinite."""
    expected = model.state_dict()
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    shapes = [
        f"{k} {tuple(tensors[k].shape)} for {tuple(expected[k].shape)}"
        for k in expected.keys() & tensors.keys()
        if tensors[k].shape != expected[k].shape
    ]
    faults = {"missing": missing, "unexpected": extra, "of another shape": sorted(shapes)}
    if any(faults.values()):
        said = "; ".join(f"{len(v)} {k} (first: {', '.join(v[:10])})" for k, v in faults.items() if v)
        raise CheckpointMismatch(f"{path} does not fit the model: {said}.")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointNonFinite(f"{path}: tensor {name} holds NaN or infinity.", hint="Use another checkpoint.")
    with torch.no_grad():
        for name, own in expected.items():
            own.copy_(tensors[name])


def _config(model_card: ModelCard, card: dict[str, Any], path: Path) -> Any:
    if card["size"] not in model_card.sizes:
        raise CheckpointMismatch(f"{path}: {card['tracker']} has no size {card['size']!r}.")
    default = config_of(model_card, card["size"])
    hints = get_type_hints(type(default))
    unknown = sorted(card["config"].keys() - hints.keys())
    if unknown:
        raise CheckpointMismatch(f"{path}: unknown configuration {', '.join(unknown)}.", hint="Update vltrack.")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in card["config"].items()}
    return dataclasses.replace(default, **values)


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.is_floating_point() and tensor.ndim > 1 else tensor

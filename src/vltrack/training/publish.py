"""A finished run becomes weights with a card: the averaged model, matrices as fp16, and how it was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_bytes

from vltrack.checkpoints import store
from vltrack.core.errors import CheckpointCorrupt, StateError
from vltrack.core.files import sha256_bytes
from vltrack.models import build, config_of, split_name
from vltrack.prep.tokens import WordPieces


def publish(run: Path, out: Path, card: dict[str, Any] | None = None) -> None:
    """Write ``out`` (.safetensors) and its card from the run's last checkpoint.

    ``card`` adds what a run cannot know: data, licences, figures. Raises ``StateError`` for a folder without
    a run, ``CheckpointCorrupt`` for a damaged one.
    """
    if not (run / "last.json").exists():
        raise StateError(f"{run} holds no checkpoint.", hint="Train first: vltrack train.")
    record = json.loads((run / "last.json").read_text())
    data = (run / record["file"]).read_bytes()
    if sha256_bytes(data) != record["sha256"]:
        raise CheckpointCorrupt(
            f"{run / record['file']} is damaged (sha256 differs).", hint="Resume the run."
        )
    recipe = record["config"]
    model_card, size = split_name(f"{recipe['model']}-{recipe['size']}")
    model = build(model_card, config_of(model_card, size))
    prefix = "average."
    tensors = {k[len(prefix) :]: v for k, v in load_bytes(data).items() if k.startswith(prefix)}
    store.load_strictly(model, tensors, run / record["file"])
    about = {
        "recipe": recipe,
        "steps": record["step"],
        "unfrozen_at": record["unfreezer"]["history"],
        "vocabulary_sha256": WordPieces.load().sha256,
        **(card or {}),
    }
    store.save(out, model, tracker=model_card.name, size=size, card=about, half=True)

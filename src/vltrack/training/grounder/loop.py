"""Training of the grounder: heads of people, scenes with proposals, the ranking, its calibration."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vltrack.core.errors import DataError, StateError
from vltrack.core.files import atomic_path
from vltrack.models.grounder import Grounder, pairwise_iou
from vltrack.nn.picodet import MEAN, STD
from vltrack.prep.crops import fit_side
from vltrack.prep.tokenizers import WordPieceTokenizer
from vltrack.training.grounder.nouns import HEADS, NounSentences
from vltrack.training.grounder.phrases import Phrase, Rng, draw_phrase
from vltrack.training.grounder.records import Record, make_record, read_records, write_records
from vltrack.training.grounder.scenes import Material, Scene, draw_scene
from vltrack.training.init import minilm_word_table

SHARD = 100
"""Scenes per file."""
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class GrounderRecipe:
    """Numbers of a run.

    Attributes:
        scenes, val_scenes: scenes that are made, of the training and of the held-out images.
        head_scenes, head_steps: scenes and steps for the head regressor.
        steps: optimizer steps of the ranking.
        batch, phrases: scenes per step and sentences per scene.
        noun_batch: sentences per step that only the text encoder reads.
        learning_rate, weight_decay: of AdamW; the rate follows one cycle.
        drop_features: share of scenes whose features of the neck are hidden.
        average: decay of the moving average of the weights that are kept.
        seed: of everything drawn.
        split: ``train``, or ``all`` to learn from the held-out images too.
    """

    scenes: int = 16000
    val_scenes: int = 800
    head_scenes: int = 900
    head_steps: int = 1500
    steps: int = 6000
    batch: int = 32
    phrases: int = 4
    noun_batch: int = 96
    learning_rate: float = 1e-3
    weight_decay: float = 0.03
    drop_features: float = 0.15
    average: float = 0.999
    seed: int = 0
    split: str = "train"


def fresh_grounder(detector: Path) -> Grounder:
    """A grounder with the published detector and MiniLM's word table. Raises ``DataError`` for a bad file."""
    grounder = Grounder()
    try:
        with np.load(detector, allow_pickle=False) as arrays:
            grounder.detector.load_numbered({k: torch.from_numpy(arrays[k]) for k in arrays.files if k != "ops"})
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"Cannot read the detector {detector}: {error}.", hint="docs/train.md names the file."
        ) from error
    table = minilm_word_table(grounder.config.table_width)
    scale = table.abs().amax(dim=0).clamp_min(1e-6) / 127
    grounder.table.copy_((table / scale).round().to(torch.int8))
    grounder.table_scale.copy_(scale / table.std())  # deviation 1
    return grounder


# -- heads --------------------------------------------------------------------------------------------------------


def train_heads(grounder: Grounder, material: Material, recipe: GrounderRecipe) -> float:
    """Train the head regressor on people whose head is known; returns the last step's mean IoU."""
    rng = np.random.default_rng(recipe.seed + 17)
    torch.manual_seed(recipe.seed)
    examples = [
        example
        for _ in range(recipe.head_scenes)
        for example in _head_examples(grounder, draw_scene(material, rng), rng)
    ]
    if len(examples) < 20:
        raise DataError("Too few people with a visible head in the training images.")
    parameters = [*grounder.head_points.parameters(), *grounder.head_regressor.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.1)
    overlap = torch.zeros(1)
    for step in range(recipe.head_steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / recipe.head_steps)
        chosen = [examples[int(n)] for n in rng.integers(len(examples), size=128)]
        point, about, box, goal = (torch.stack(column) for column in zip(*chosen, strict=True))
        out = grounder.decode_heads(point + 0.1 * torch.randn_like(point), about, box, drop=0.3)
        side = (goal[:, 2:] - goal[:, :2]).repeat(1, 2).clamp_min(1e-3)
        overlap = torch.diagonal(pairwise_iou(out, goal))
        loss = functional.smooth_l1_loss(out / side, goal / side, beta=0.2) + (1 - overlap).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return float(overlap.detach().mean())


@torch.no_grad()
def _head_examples(grounder: Grounder, scene: Scene, rng: Rng) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Features, facts, box (a little off) and head of every person whose head is known; twice each."""
    people = [t for t in scene.things if t.head is not None and t.known]
    if not people:
        return []
    image, shape = fit_side(scene.image, grounder.config.scales[-1], MEAN, STD)
    levels = grounder.detector(image)
    height, width = scene.image.shape[:2]
    size = torch.tensor([width, height, width, height], dtype=torch.float32)
    found = []
    for thing in (*people, *people):
        box = torch.tensor(thing.box)
        off = torch.from_numpy(rng.normal(size=4) * 0.05).float() * (box[2:] - box[:2]).repeat(2)
        box_14 = ((box + off) / size).clamp(0, 1)[None]
        point, about = grounder.head_inputs(levels, shape, box_14)
        found.append((point[0], about[0], box_14[0], torch.tensor(thing.head) / size))
    return found


# -- scenes -------------------------------------------------------------------------------------------------------


def make_shard(path: Path, weights: Path, folders: Sequence[Path], split: str, seed: int) -> None:
    """Make the scenes of one file; the same seed makes the same scenes."""
    torch.set_num_threads(1)
    grounder, material = _worker(str(weights), tuple(str(f) for f in folders), split)
    rng = np.random.default_rng(seed)
    write_records(path, [make_record(grounder, draw_scene(material, rng)) for _ in range(SHARD)])


_WORKER: dict[Any, tuple[Grounder, Material]] = {}


def _worker(weights: str, folders: tuple[str, ...], split: str) -> tuple[Grounder, Material]:
    key = (weights, folders, split)
    if key not in _WORKER:
        grounder = Grounder().eval()
        grounder.load_state_dict(torch.load(weights, weights_only=True))
        _WORKER[key] = grounder, Material([Path(f) for f in folders], split)
    return _WORKER[key]


# -- ranking ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Scenes and sentences: S scenes with N boxes, Q sentences; ``scene_Q`` says which scene each is about."""

    box_SN4: Tensor
    aspect_S: Tensor
    logits_SNK: Tensor
    feature_SNF: Tensor
    color_SNG: Tensor
    kind_SN: Tensor
    owners_SN2: Tensor
    valid_SN: Tensor
    scene_Q: Tensor
    ids_QL: Tensor
    words_QL: Tensor
    target_QM: Tensor
    noun_QK: Tensor


def collate(
    records: Sequence[Record],
    phrases: Sequence[tuple[int, Phrase]],
    nouns: NounSentences,
    reader: WordPieceTokenizer,
    max_words: int,
) -> Batch | None:
    """Pad scenes to one length and encode sentences; None where no sentence has a right box."""
    longest = max(len(r.proposals.box_N4) for r in records)

    def padded(name: str) -> Tensor:
        parts = [getattr(r.proposals, name) for r in records]
        out = parts[0].new_zeros(len(parts), longest, *parts[0].shape[1:])
        for row, part in enumerate(parts):
            out[row, : len(part)] = part
        return out.float() if out.is_floating_point() else out

    kept, targets = [], []
    for scene, phrase in phrases:
        target = records[scene].target(phrase)
        if target is not None:
            row = torch.zeros(longest + 1)
            row[: len(target) - 1], row[-1] = target[:-1], target[-1]
            kept.append((scene, phrase))
            targets.append(row)
    if not kept:
        return None
    valid = torch.zeros(len(records), longest, dtype=torch.bool)
    for row, record in enumerate(records):
        valid[row, : len(record.proposals.box_N4)] = True
    encoded = [reader.encode(phrase.text, max_words) for _, phrase in kept]
    return Batch(
        box_SN4=padded("box_N4"), aspect_S=torch.tensor([r.proposals.aspect for r in records]),
        logits_SNK=padded("logits_NK"), feature_SNF=padded("feature_NF"), color_SNG=padded("color_NG"),
        kind_SN=padded("kind_N"), owners_SN2=padded("owners_N2"), valid_SN=valid,
        scene_Q=torch.tensor([scene for scene, _ in kept]),
        ids_QL=torch.from_numpy(np.stack([e.ids for e in encoded])),
        words_QL=torch.from_numpy(np.stack([e.mask for e in encoded])), target_QM=torch.stack(targets),
        noun_QK=torch.zeros(0),
    )  # fmt: skip


def scores(grounder: Grounder, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (Q, N + 1) and (Q, nouns) of a batch."""
    x_SNC = grounder.embed_boxes(
        batch.box_SN4,
        batch.aspect_S,
        batch.logits_SNK,
        batch.feature_SNF,
        batch.color_SNG,
        batch.kind_SN,
        batch.owners_SN2,
    )
    at = batch.scene_Q
    return grounder.rank(
        x_SNC[at], batch.logits_SNK[at], batch.kind_SN[at], batch.valid_SN[at], batch.ids_QL, batch.words_QL
    )


def draw_batch(
    records: Sequence[Record],
    recipe: GrounderRecipe,
    nouns: NounSentences,
    reader: WordPieceTokenizer,
    rng: Rng,
    max_words: int,
) -> Batch:
    """Random scenes with random sentences."""
    while True:
        chosen = [records[int(n)] for n in rng.integers(len(records), size=recipe.batch)]
        phrases = []
        for row, record in enumerate(chosen):
            for _ in range(recipe.phrases):
                phrase = draw_phrase(record.things, record.size, rng, complete=record.complete)
                if phrase is not None:
                    phrases.append((row, phrase))
        if phrases and (batch := collate(chosen, phrases, nouns, reader, max_words)) is not None:
            return batch

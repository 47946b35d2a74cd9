"""Training of the grounder: heads of people, scenes with proposals, the ranking, its calibration."""

from __future__ import annotations

import copy
import csv
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vltrack.checkpoints import store
from vltrack.core.archives import ZIP_DAMAGE, read_npz
from vltrack.core.errors import DataError, StateError
from vltrack.core.files import write_text
from vltrack.models.grounder import Grounder, pairwise_iou
from vltrack.prep.crops import fit_side
from vltrack.prep.tokenizers import WordPieceTokenizer
from vltrack.tracking.proposals import Proposer, maps_of
from vltrack.training.checkpoint import PlateauUnfreezer, RunState, read_config, restore_state, save_state
from vltrack.training.grounder.nouns import NounSentences, minilm_word_table
from vltrack.training.grounder.phrases import Phrase, Rng, draw_phrase
from vltrack.training.grounder.records import Record, make_record, read_records, write_records
from vltrack.training.grounder.scenes import Material, Scene, draw_scene
from vltrack.training.monitor import cut_table

SHARD = 100
"""Scenes per file."""
_DETECTOR_BYTES = 256 << 20
START = "start.safetensors"
"""Weights of a run before the ranking: detector, word table, heads."""
COLUMNS = ("step", "loss", "right", "absent_refused", "present_refused")
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class GrounderRecipe:
    """Numbers of a run; the defaults are those of the weights that ship.

    Attributes:
        scenes, val_scenes: scenes that are made, of the training and of the held-out images.
        head_scenes, head_steps: scenes and steps for the head regressor.
        noun_steps: first steps, in which only the text encoder learns, from nouns.
        steps: optimizer steps of the ranking.
        batch, phrases: scenes per step and sentences per scene.
        noun_batch: sentences per step that only the text encoder reads.
        learning_rate, weight_decay: of AdamW; the rate follows one cycle.
        drop_features: share of scenes whose features of the neck are hidden.
        average: decay of the moving average of the weights that are kept.
        seed: of everything drawn.
        split: ``train``, or ``all`` to learn from the held-out images too.
    """

    scenes: int = 4400
    val_scenes: int = 600
    head_scenes: int = 1400
    head_steps: int = 1500
    noun_steps: int = 300
    steps: int = 3300
    batch: int = 24
    phrases: int = 4
    noun_batch: int = 48
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
        arrays = read_npz(detector, _DETECTOR_BYTES)
        grounder.detector.load_numbered({k: torch.from_numpy(v) for k, v in arrays.items() if k != "ops"})
    except (KeyError, ValueError, *ZIP_DAMAGE) as error:
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
    rng, proposer = np.random.default_rng(recipe.seed + 17), Proposer.in_torch(grounder)
    torch.manual_seed(recipe.seed)
    examples = [
        example
        for _ in range(recipe.head_scenes)
        for example in _head_examples(proposer, draw_scene(material, rng), rng)
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


def _head_examples(proposer: Proposer, scene: Scene, rng: Rng) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Features, facts, box (a little off) and head of every person whose head is known; twice each."""
    people = [t for t in scene.things if t.head is not None and t.known]
    if not people:
        return []
    image, shape = fit_side(scene.image, proposer.sizes["scales"][-1], proposer.mean, proposer.std)
    maps = maps_of(proposer.run("detect", {"image": image})["position_NF"], image.shape[2:])
    height, width = scene.image.shape[:2]
    size = np.array([width, height, width, height], dtype=np.float32)
    found = []
    for thing in (*people, *people):
        box = np.array(thing.box, dtype=np.float32)
        off = (rng.normal(size=4) * 0.05).astype(np.float32) * np.tile(box[2:] - box[:2], 2)
        read = proposer.head_inputs(maps, shape, ((box + off) / size).clip(0, 1)[None])
        goal = np.array(thing.head, dtype=np.float32) / size
        point, about, person = (torch.from_numpy(array[0]) for array in read.values())
        found.append((point, about, person, torch.from_numpy(goal)))
    return found


# -- scenes -------------------------------------------------------------------------------------------------------


def make_scenes(out: Path, folders: Sequence[Path], recipe: GrounderRecipe, workers: int, progress: Progress) -> None:
    """Make the files of scenes that are missing, in processes; the recipe's seed decides what is in each."""
    tasks = [
        (out / f"{kind}-{number:04d}.npz", split, recipe.seed * 100_003 + at + number)
        for kind, split, count, at in (
            ("train", recipe.split, recipe.scenes, 0),
            ("val", "val", recipe.val_scenes, 50_000),
        )
        for number in range(-(-count // SHARD))
    ]  # fmt: skip
    missing = [task for task in tasks if not task[0].exists()]
    done = len(tasks) - len(missing)
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(_make_file, path, out, tuple(folders), split, seed) for path, split, seed in missing]
        for future in as_completed(futures):
            future.result()
            done += 1
            progress(done, len(tasks), "files of scenes")


def _make_file(path: Path, out: Path, folders: tuple[Path, ...], split: str, seed: int) -> None:
    proposer, material = _opened(out, folders, split)
    rng = np.random.default_rng(seed)
    write_records(path, [make_record(proposer, draw_scene(material, rng)) for _ in range(SHARD)])


@lru_cache(maxsize=2)
def _opened(out: Path, folders: tuple[Path, ...], split: str) -> tuple[Proposer, Material]:
    return Proposer.in_torch(store.load_grounder(out / START)[0]), Material(folders, split)


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


def encode_all(reader: WordPieceTokenizer, texts: Sequence[str], max_words: int) -> tuple[Tensor, Tensor]:
    """Word pieces (Q, L) and mask of sentences; L is that of the longest."""
    encoded = [reader.encode(text, max_words) for text in texts]
    ids, mask = (torch.from_numpy(np.stack([getattr(e, name) for e in encoded])) for name in ("ids", "mask"))
    longest = int(mask.sum(dim=1).max())
    return ids[:, :longest], mask[:, :longest]


def collate(
    records: Sequence[Record], phrases: Sequence[tuple[int, Phrase]], reader: WordPieceTokenizer, max_words: int
) -> Batch | None:
    """Pad scenes to one length and encode sentences; None where no sentence has a right box."""
    longest = max(len(r.proposals.box_N4) for r in records)

    def stacked(name: str) -> Tensor:
        parts = [torch.from_numpy(getattr(r.proposals, name)) for r in records]
        out = parts[0].new_zeros(len(parts), longest, *parts[0].shape[1:])
        for n, part in enumerate(parts):
            out[n, : len(part)] = part
        padded: Tensor = out.float() if out.is_floating_point() else out
        return padded

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
    for n, record in enumerate(records):
        valid[n, : len(record.proposals.box_N4)] = True
    ids, mask = encode_all(reader, [phrase.text for _, phrase in kept], max_words)
    return Batch(
        box_SN4=stacked("box_N4"), aspect_S=torch.tensor([r.proposals.aspect for r in records]),
        logits_SNK=stacked("logits_NK"), feature_SNF=stacked("feature_NF"), color_SNG=stacked("color_NG"),
        kind_SN=stacked("kind_N"), owners_SN2=stacked("owners_N2"), valid_SN=valid,
        scene_Q=torch.tensor([scene for scene, _ in kept]),
        ids_QL=ids, words_QL=mask, target_QM=torch.stack(targets),
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
    records: Sequence[Record], phrases: int, reader: WordPieceTokenizer, rng: Rng, max_words: int
) -> Batch | None:
    """Scenes with up to ``phrases`` random sentences each."""
    drawn = [
        (row, draw_phrase(record.things, record.size, rng, complete=record.complete))
        for row, record in enumerate(records)
        for _ in range(phrases)
    ]
    return collate(records, [(row, phrase) for row, phrase in drawn if phrase is not None], reader, max_words)


class _Ranking:
    """The training of everything but the detector and the heads."""

    def __init__(self, grounder: Grounder, out: Path, recipe: GrounderRecipe) -> None:
        self.out, self.recipe = out, recipe
        self.reader = WordPieceTokenizer.load()
        self.records, self.held_out = (
            [record for path in sorted(out.glob(f"{split}-*.npz")) for record in read_records(path)]
            for split in ("train", "val")
        )
        self.nouns = NounSentences(sorted({thing.name for record in self.records for thing in record.things}))
        frozen = ("detector.", "head_points.", "head_regressor.")
        for name, parameter in grounder.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        self.parameters = [p for p in grounder.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(self.parameters, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
        self.state = RunState(
            model=grounder, average=copy.deepcopy(grounder), optimizer=optimizer, unfreezer=PlateauUnfreezer([], 0, 0.0)
        )
        restore_state(out, self.state)
        cut_table(out / "log.csv", COLUMNS, self.state.step)

    def run(self, progress: Progress) -> Grounder:
        """All steps that are left; returns the averaged network."""
        recipe, state, began, first = self.recipe, self.state, time.monotonic(), self.state.step
        while state.step < recipe.noun_steps + recipe.steps:
            rng = np.random.default_rng((recipe.seed, state.step))
            torch.manual_seed(recipe.seed * 1_000_003 + state.step)
            loss = self._step(rng)
            state.step += 1
            if state.step % 200 == 0 or state.step == recipe.noun_steps + recipe.steps:
                right, refused, wrongly = self.validate()
                row = [state.step, round(loss, 4), round(right, 4), round(refused, 4), round(wrongly, 4)]
                self._log(row)
                speed = (state.step - first) / (time.monotonic() - began)
                text = f"loss {loss:.2f}, right {right:.0%}, refused {refused:.0%} absent, {wrongly:.0%} present"
                text += f", {speed:.1f} steps/s"
                progress(state.step, recipe.noun_steps + recipe.steps, text)
                save_state(self.out, state, recipe)
        return state.average  # type: ignore[no-any-return]

    def _log(self, row: list[Any]) -> None:
        path = self.out / "log.csv"
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(COLUMNS)
            writer.writerow(row)

    def _step(self, rng: Rng) -> float:
        """One optimizer step: sentences about scenes, after the first steps, and nouns alone; returns the loss."""
        recipe, state = self.recipe, self.state
        joint = state.step - recipe.noun_steps
        if joint < 0:
            rate, loss = recipe.learning_rate, self._noun_loss(2 * recipe.noun_batch, rng)
        else:
            share = 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * joint / recipe.steps))
            rate = recipe.learning_rate * share * min(1.0, (joint + 1) / 100)
            loss = self._scene_loss(rng) + 0.3 * self._noun_loss(recipe.noun_batch, rng)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        state.optimizer.step()
        decay = min(recipe.average, (state.step + 1) / (state.step + 10))
        with torch.no_grad():
            for mean, own in zip(state.average.parameters(), state.model.parameters(), strict=True):
                mean.lerp_(own, 1 - decay)
        return float(loss.detach())

    def _noun_loss(self, count: int, rng: Rng) -> Tensor:
        drawn = [self.nouns.draw(rng) for _ in range(count)]
        ids, mask = encode_all(self.reader, [text for text, _ in drawn], self.state.model.config.max_words)
        logits = self.state.model.read_text(ids, mask)[1]
        return functional.cross_entropy(logits, torch.stack([target for _, target in drawn]))

    def _scene_loss(self, rng: Rng) -> Tensor:
        recipe, batch = self.recipe, None
        while batch is None:
            chosen = [self.records[int(n)] for n in rng.integers(len(self.records), size=recipe.batch)]
            batch = draw_batch(chosen, recipe.phrases, self.reader, rng, self.state.model.config.max_words)
        seen = (torch.rand(len(batch.feature_SNF), 1, 1) > recipe.drop_features).float()
        batch = replace(
            batch,
            feature_SNF=(batch.feature_SNF + 0.05 * torch.randn_like(batch.feature_SNF)) * seen,
            color_SNG=batch.color_SNG + 0.02 * torch.randn_like(batch.color_SNG),
        )
        return functional.cross_entropy(scores(self.state.model, batch)[0], batch.target_QM)

    # -- held-out scenes ----------------------------------------------------------------------------------------

    @torch.inference_mode()
    def logits(self) -> tuple[Tensor, Tensor]:
        """Logits and targets (Q, N + 1) of fixed sentences about the held-out scenes, by the averaged network."""
        rng = np.random.default_rng(5)
        rows = []
        for at in range(0, len(self.held_out), 20):
            batch = draw_batch(self.held_out[at : at + 20], 4, self.reader, rng, self.state.average.config.max_words)
            if batch is not None:
                rows.append((scores(self.state.average, batch)[0], batch.target_QM))
        widest = max(target.shape[1] for _, target in rows)

        def widened(table: Tensor, fill: float) -> Tensor:
            extra = table.new_full((len(table), widest - table.shape[1]), fill)
            return torch.cat([table[:, :-1], extra, table[:, -1:]], dim=1)

        return torch.cat([widened(a, -1e4) for a, _ in rows]), torch.cat([widened(t, 0.0) for _, t in rows])

    def validate(self) -> tuple[float, float, float]:
        """Share of right answers, and of absent and of present targets that were refused."""
        logits, target = self.logits()
        absent, best = target[:, -1] > 0, logits.argmax(dim=1)
        refused = best == logits.shape[1] - 1
        right = target.gather(1, best[:, None])[:, 0] > 0
        return tuple(float(v.float().mean()) for v in (right[~absent], refused[absent], refused[~absent]))  # type: ignore[return-value]

    def calibrate(self) -> float:
        """The temperature at which stated probabilities of the held-out scenes fit best."""
        logits, target = self.logits()
        choices = torch.linspace(0.5, 3.0, 51)
        losses = [float(functional.cross_entropy(logits / t, target)) for t in choices]
        return float(choices[int(np.argmin(losses))])


def train_grounder(
    data: Sequence[Path], start: Path, out: Path, recipe: GrounderRecipe, *, workers: int = 1, progress: Progress
) -> Path:
    """Train a grounder; a run that was stopped continues where it was.

    Args:
        data: folders of training images (docs/train.md), each with its ``index.jsonl``, one with ``clips.jsonl``.
        start: the published weights of PicoDet-S as .npz; or a grounder (.safetensors), whose ranking goes on.
        out: folder of the run: scenes (about 120 kB each), log, checkpoints, weights.
        recipe: numbers of the run.
        workers: processes that make scenes.
        progress: called with finished steps, all steps and a line of text.

    Returns:
        The weights, with a card next to them.

    Raises:
        DataError: an image index or the detector cannot be used.
        ModelNotFound: all-MiniLM-L6-v2 is not installed.
        StateError: ``out`` holds a run with another recipe.
    """
    out.mkdir(parents=True, exist_ok=True)
    config = out / "config.json"
    if config.exists() and read_config(config) != asdict(recipe):
        raise StateError(f"{out} holds a run with another recipe.", hint="Choose another folder.")
    write_text(config, json.dumps(asdict(recipe), indent=2) + "\n")
    if not (out / START).exists() and start.suffix == ".safetensors":
        grounder, card = store.load_grounder(start)
        store.save(out / START, grounder, tracker="grounder", size="tiny", card={"start": card["sha256"]})
    elif not (out / START).exists():
        grounder = fresh_grounder(start)
        overlap = train_heads(grounder, Material(data, recipe.split), recipe)
        store.save(out / START, grounder, tracker="grounder", size="tiny", card={"head_iou": round(overlap, 3)})
    make_scenes(out, data, recipe, workers, progress)
    ranking = _Ranking(store.load_grounder(out / START)[0], out, recipe)
    grounder = ranking.run(progress)
    grounder.temperature.fill_(ranking.calibrate())
    right, refused, wrongly = ranking.validate()
    path = out / "grounder-tiny.safetensors"
    held_out = {"right": right, "absent_refused": refused, "present_refused": wrongly}
    card = {
        "recipe": asdict(recipe),
        "licence": "Apache-2.0",
        "material": MATERIAL,
        "vocabulary_sha256": ranking.reader.sha256,
        "held_out_scenes": {key: round(value, 4) for key, value in held_out.items()},
    }
    store.save(path, grounder, tracker="grounder", size="tiny", card=card, half=True)
    return path


MATERIAL = {
    "678 images of COCO 2017 (lightly-ai/coco128_yolo, Obmutescence/COCO-MINI, lizhogn/tiny_coco_dataset, "
    "Deci-AI/super-gradients, lightly-ai/dataset_examples_purple)": "annotations CC BY 4.0, images as on Flickr",
    "1,003 images of bearpaw/clothing-co-parsing": "Apache-2.0",
    "605 frames of 17 clips of DAVIS 2016 (MathLee/EOR-VOS)": "BSD",
    "346 frames of 6 clips (intel-iot-devkit/sample-videos, max810/XMem2, facebookresearch/sam2)": "CC BY 4.0",
    "3,417 images of Caltech-101": "CC BY 4.0",
    "158 images of google/dreambooth": "CC BY 4.0",
    "200 images of datitran/raccoon_dataset": "MIT",
    "234 images of marcusklasson/GroceryStoreDataset": "MIT",
    "240 images of alexeygrigorev/clothing-dataset-small": "CC0 1.0",
    "903 cut-outs of @lobehub/fluent-emoji-3d (Microsoft Fluent Emoji)": "MIT",
    "PicoDet-S of PaddleDetection, the detector": "Apache-2.0",
    "word vectors of all-MiniLM-L6-v2, 96 principal components, frozen; the model as teacher of nouns": "Apache-2.0",
    "vocabulary of bert-base-uncased": "Apache-2.0",
}
"""Training data of docs/train.md -> license, for the card."""

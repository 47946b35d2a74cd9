"""Data sets and the loader: rendered samples as batches, the same for any order and number of workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vltrack.core.types import Image, Mode, xywh_to_cxcywh
from vltrack.datasets.cutouts import CutoutSet, build_cutouts
from vltrack.datasets.images import ImageSet
from vltrack.models.base import MODE_IDS
from vltrack.prep.crops import cut, region_for
from vltrack.prep.tokenizers import TextTokenizer, load_tokenizer
from vltrack.training.clips import Clip, ClipConfig, clips_of
from vltrack.training.pairs.sampler import PairConfig, PairSampler, Sample
from vltrack.training.recipes import TrainConfig
from vltrack.training.sources import Source

log = logging.getLogger(__name__)
Batch = dict[str, Tensor]


def prepare_data(config: TrainConfig, sources: Sequence[Source], out: Path) -> None:
    """Make what all processes of a run read: the cut-out objects of still images. One process calls it."""
    if not config.clips.frames and not (out / "cutouts.npz").exists():
        log.info("cutting objects out of the images, once per run: some minutes")
        build_cutouts(ImageSet.load(sources[0].root), out / "cutouts.npz", progress=_log_cutouts)


def open_data(config: TrainConfig, sources: Sequence[Source], model: Any, out: Path) -> Dataset[dict[str, Any]]:
    """Return the samples of a run: item k is sample k of an endless stream, the same in every process."""
    root = sources[0].root if sources else out
    if config.clips.frames:
        return ClipDataset(config.clips, root, config.seed, model.max_words, model.vocabulary)
    crops = ("template_size", "search_size", "template_factor", "search_factor")
    pairs = replace(config.pairs, **{name: getattr(model, name) for name in crops})
    with_text = replace(pairs, scene_share=config.later_scene_share, text_share=config.later_text_share)
    later = (config.text_from_step * config.batch, with_text) if config.text_from_step else None
    return PairDataset(pairs, root, out / "cutouts.npz", config.seed, model.max_words, later, model.vocabulary)


def _log_cutouts(done: int, images: int) -> None:
    if done % 500 == 0 or done == images:
        log.info("cut out of %d of %d images", done, images)


class PairDataset(Dataset[dict[str, Any]]):
    """Rendered samples as arrays; images are opened on first use, in the process that uses them.

    Args:
        data: folder of training images, and of a vocabulary that does not ship.
        cache: file of cut-out objects.
        later: first index and configuration of the samples from there on.
    """

    def __init__(
        self,
        config: PairConfig,
        data: Path,
        cache: Path,
        seed: int,
        max_words: int,
        later: tuple[int, PairConfig] | None = None,
        vocabulary: str = "bert",
    ) -> None:
        self.config, self.data, self.cache, self.seed, self.max_words = config, data, cache, seed, max_words
        self.later, self.vocabulary = later, vocabulary
        load_tokenizer(vocabulary, data)  # fails here, not in a worker
        self._samplers: list[PairSampler] = []
        self._tokenizer: TextTokenizer | None = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample ``index`` of the endless stream of this seed."""
        if not self._samplers or self._tokenizer is None:
            cv2.setNumThreads(0)
            images, cutouts = ImageSet.load(self.data), CutoutSet.load(self.cache)
            configs = [self.config] if self.later is None else [self.config, self.later[1]]
            self._samplers = [PairSampler(config, images, cutouts) for config in configs]
            self._tokenizer = load_tokenizer(self.vocabulary, self.data)
        is_later = self.later is not None and index >= self.later[0]
        sample = self._samplers[-1 if is_later else 0].sample(self.seed, 0, index)
        rng = np.random.default_rng([self.seed, 1, index])
        tokens = self._tokenizer.encode(sample.text, self.max_words) if sample.text else None
        recent, recent_boxes = _recent_templates(sample, self.config, rng)
        empty = np.zeros(self.max_words, dtype=np.int64)
        return {
            "template": sample.template,
            "template_box": _relative(sample.template_box, self.config.template_size),
            "search": sample.searches,
            "box": _relative(sample.boxes, self.config.search_size),
            "recent": recent,
            "recent_box": _relative(recent_boxes, self.config.template_size),
            "present": sample.present,
            "ids": tokens.ids if tokens is not None else empty,
            "words": tokens.mask if tokens is not None else empty.astype(bool),
            "flag": np.int64(MODE_IDS[Mode(sample.mode)]),
        }


class ClipDataset(Dataset[dict[str, Any]]):
    """Clips as arrays of one length: short ones are padded with frames without the target."""

    def __init__(self, config: ClipConfig, data: Path, seed: int, max_words: int, vocabulary: str = "bert") -> None:
        self.config, self.data, self.seed, self.max_words, self.vocabulary = config, data, seed, max_words, vocabulary
        if config.text_share:
            load_tokenizer(vocabulary, data)  # fails here, not in a worker
        self._clips: Callable[[int], Clip] | None = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Clip ``index`` of the endless stream of this seed, for ``rollout.ClipObjective``."""
        if self._clips is None:
            cv2.setNumThreads(0)
            self._clips = clips_of(ImageSet.load(self.data), self.config.frames, self.seed)
        clip, share = self._clips(index), self.config.text_share
        ids = np.zeros(self.max_words, dtype=np.int64)
        words = ids.astype(bool)
        # Spread evenly, so that the share holds in every stretch of clips.
        if int((index + 1) * share) > int(index * share):
            tokens = load_tokenizer(self.vocabulary, self.data).encode(clip.sentence, self.max_words)
            ids, words = tokens.ids, tokens.mask
        missing = self.config.frames - len(clip.frames)
        return {
            "frames": np.concatenate([clip.frames, np.repeat(clip.frames[-1:], missing, axis=0)]),
            "boxes": np.concatenate([clip.boxes, np.zeros((missing, 4))]),
            "absent": np.concatenate([clip.absent, np.ones(missing, dtype=bool)]),
            "ids": ids,
            "words": words,
        }


def loader(
    dataset: Dataset[dict[str, Any]], *, batch: int, first: int, steps: int, rank: int, world: int, workers: int
) -> DataLoader[Any]:
    """Batches of steps ``first`` to ``steps`` for one process of ``world``, each with its own indices."""
    return DataLoader(
        dataset,
        batch_sampler=(list(step_samples(step, batch, rank, world)) for step in range(first, steps)),
        num_workers=workers,
        collate_fn=_collate,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )


def step_samples(step: int, batch: int, rank: int, world: int) -> range:
    """Sample indices of a step in one process: equally many in all processes, and disjoint."""
    count = batch // world
    begin = (step * world + rank) * count
    return range(begin, begin + count)


def _relative(box_xywh: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    return (xywh_to_cxcywh(box_xywh) / size).astype(np.float32)


def _recent_templates(
    sample: Sample, config: PairConfig, rng: np.random.Generator
) -> tuple[Image, np.ndarray[Any, Any]]:
    """For each search view a template from the other view, like a tracker's recent template, and its box.

    A quarter is the first template again (no confident update), some boxes are off (drift).
    """
    size, views, boxes = config.template_size, [], []
    for other in (1, 0):
        if not sample.present[other] or sample.mode == "nl" or rng.random() < 0.25:
            views.append(sample.template)
            boxes.append(np.asarray(sample.template_box, dtype=np.float64))
            continue
        box = np.asarray(sample.boxes[other], dtype=np.float64)
        spread = 0.5 if rng.random() < 0.08 else 0.05
        guess = box.copy()
        guess[2:] = box[2:] * np.exp(rng.normal(0, 0.08, 2))
        guess[:2] = box[:2] + box[2:] / 2 + rng.normal(0, spread, 2) * box[2:] - guess[2:] / 2
        guess[2:] = np.maximum(guess[2:], 4.0)
        crop = region_for(guess, config.template_factor, size)
        views.append(cut(sample.searches[other], crop))
        boxes.append(crop.to_crop(guess))
    return np.stack(views), np.stack(boxes)


def _collate(samples: list[dict[str, Any]]) -> Batch:
    return {key: torch.from_numpy(np.stack([np.asarray(s[key]) for s in samples])) for key in samples[0]}

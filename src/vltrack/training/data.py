"""Data sets and the loader: samples as batches, the same for any order and number of workers."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vltrack.core.errors import ConfigError, DataError, StateError, did_you_mean
from vltrack.core.files import write_text
from vltrack.core.json_io import read_json
from vltrack.core.types import Image, Mode, xywh_to_cxcywh
from vltrack.datasets.cutouts import CutoutSet, cached_cutouts
from vltrack.datasets.images import ImageSet
from vltrack.models.base import MODE_IDS
from vltrack.prep.crops import cut, region_for
from vltrack.prep.tokenizers import load_tokenizer
from vltrack.training.clips import Clip, ClipConfig, clips_of
from vltrack.training.own_clips import split_clips
from vltrack.training.pairs.rendering import Sensor
from vltrack.training.pairs.sampler import PairConfig, PairSampler, Sample, render_distractor_pair
from vltrack.training.processes import start_worker
from vltrack.training.recipes import TrainConfig
from vltrack.training.sources import KNOWN, OWN, STILLS, Source, as_target, read_targets
from vltrack.training.videos import AnnotatedTarget, TargetIndex, TargetSampler

log = logging.getLogger(__name__)
Batch = dict[str, Tensor]
RECORD, DATA = "data.json", "data"
"""File of a run that lists its data sets, and folder of their indexes."""


def prepare_data(config: TrainConfig, sources: Sequence[Source], out: Path) -> None:
    """Make what all processes of a run read: an index of each data set, cut-out objects of still images.

    One process calls it. data.json records what the run is trained on; a resumed run must be given the same.

    Raises:
        DataError: a data set cannot be read. StateError: the run was started with other data.
        ConfigError: no data for this stage.
    """
    used = _used(config, sources)
    given = [{"name": source.name, "root": str(source.root)} for source in used]
    if (out / RECORD).exists():
        before = [{key: entry.get(key) for key in ("name", "root")} for entry in read_data_record(out)]
        if before != given:
            was = ", ".join(f"{entry['name']} ({entry['root']})" for entry in before)
            raise StateError(f"{out} was started with other data: {was}.", hint="Give the same, or use another --out.")
    else:
        if missing := set(config.data_sets()) - {source.name for source in used}:
            log.info("the recipe also has, and this run has not: %s", ", ".join(sorted(missing)))
        try:
            made = [given[k] | _index(config, source, out / DATA / str(k)) for k, source in enumerate(used)]
        except DataError:  # the folder of a run that is refused stays empty
            shutil.rmtree(out / DATA, ignore_errors=True)
            raise
        write_text(out / RECORD, json.dumps(made, indent=2) + "\n")
    if stills := [source.root for source in used if source.name == STILLS]:
        cached_cutouts(ImageSet.load(*stills), progress=_log_cutouts)


def read_data_record(out: Path) -> list[dict[str, Any]]:
    """Read data.json of a run: name, root, split, number of targets and images of each data set; [] without it."""
    path = out / RECORD
    if not path.exists():
        return []
    try:
        record = read_json(path, max_bytes=1 << 20)
    except DataError as error:
        raise StateError(f"{path} is damaged: {error.message}", hint="Start a new run.") from error
    if not isinstance(record, list) or not all(isinstance(entry, dict) for entry in record):
        raise StateError(f"{path} is damaged: not a list of data sets.", hint="Start a new run.")
    return record


def _used(config: TrainConfig, sources: Sequence[Source]) -> list[Source]:
    """The data sets that the recipe draws from. Raises ``ConfigError`` without any, or for an unknown name."""
    for name in config.data_sets():
        if name not in KNOWN:
            raise ConfigError(f"train.ratios names an unknown data set: {name!r}.", hint=did_you_mean(name, KNOWN))
    used = [source for source in sources if config.ratio_of(source.name)[1] > 0]
    if config.clips.frames:
        videos = [source for source in used if source.is_video]
        used = videos or [source for source in used if source.name == STILLS]
    if not used:
        names = ", ".join(source.name for source in sources)
        raise ConfigError(f"Nothing to train on: {names}.", hint="Give videos, or raise a ratio (--set ratios).")
    return used


def _index(config: TrainConfig, source: Source, folder: Path) -> dict[str, Any]:
    """Index a data set into ``folder``; return what data.json says of it."""
    if source.name == STILLS:
        return {"images": len(ImageSet.load(source.root))}
    split, ratio = config.ratio_of(source.name)
    if source.name == OWN:
        train, held = split_clips(source.root, folder.parent.parent)
        log.info("held out: %s", "; ".join(clip.name for clip in held) or "nothing; too few frames with the target")
        targets: Iterable[AnnotatedTarget] = map(as_target, train)
    else:
        targets = read_targets(source, split)
    count = TargetIndex.build(targets, folder)
    if not count:
        raise DataError(f"{source.root} has no target to train on.", hint="See `vltrack datasets check`.")
    index = TargetIndex(folder)
    log.info("%s: %s targets in %s images, ratio %g", source.name, f"{count:,}", f"{index.images:,}", ratio)
    return {"split": split, "targets": count, "images": index.images}


def _log_cutouts(done: int, images: int) -> None:
    if done % 500 == 0 or done == images:
        log.info("cut out of %d of %d images", done, images)


def open_data(config: TrainConfig, sources: Sequence[Source], model: Any, out: Path) -> Dataset[dict[str, Any]]:
    """Return the samples of a run: item k is sample k of an endless stream, the same in every process."""
    used = _used(config, sources)
    ratios = [config.ratio_of(source.name)[1] for source in used]
    material = Material(
        stills=tuple(source.root for source in used if source.name == STILLS),
        stills_ratio=config.ratio_of(STILLS)[1],
        indexed={out / DATA / str(k): ratios[k] for k, source in enumerate(used) if source.name != STILLS},
    )
    texts = TextEncoding(vocabulary=model.vocabulary, length=model.max_words, folder=out)
    if config.clips.frames:
        return ClipDataset(config.clips, material, texts, config.seed)
    crops = ("template_size", "search_size", "template_factor", "search_factor")
    pairs = replace(config.pairs, **{name: getattr(model, name) for name in crops})
    with_text = replace(pairs, scene_share=config.later_scene_share, text_share=config.later_text_share)
    later = (config.text_from_step * config.batch, with_text) if config.text_from_step else None
    return PairDataset(pairs, material, texts, config.seed, later)


@dataclass(frozen=True, kw_only=True)
class Material:
    """What samples are drawn from: folders of still images, and indexes of other data sets with their ratios."""

    stills: tuple[Path, ...] = ()
    stills_ratio: float = 1.0
    indexed: Mapping[Path, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TextEncoding:
    """Sentences as ids: the model's vocabulary, its length, and the folder of a vocabulary that does not ship."""

    vocabulary: str
    length: int
    folder: Path | None = None

    def encode(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids (L,) of the word pieces, and a mask (L,) of those that are not padding: none without a text."""
        if not text:
            return np.zeros(self.length, dtype=np.int64), np.zeros(self.length, dtype=bool)
        tokens = load_tokenizer(self.vocabulary, self.folder).encode(text, self.length)
        return tokens.ids, tokens.mask


class _Mixture:
    """Draws the pairs of one ``PairConfig`` from all data sets, by their ratios."""

    def __init__(
        self,
        config: PairConfig,
        material: Material,
        targets: Sequence[TargetSampler],
        stills: tuple[ImageSet, CutoutSet] | None,
    ) -> None:
        self.config, self.targets, self.sensor = config, targets, Sensor()
        self.ratios = list(material.indexed.values())
        self.with_text = [ratio * one.has_text for ratio, one in zip(self.ratios, targets, strict=True)]
        self.stills: dict[Mode, PairSampler] = {}
        if stills is not None:
            self.ratios.append(material.stills_ratio)
            self.with_text.append(material.stills_ratio)
            for mode in Mode:
                scene, text = float(mode is Mode.NL), float(mode is Mode.NLBBOX)
                only = replace(config, scene_share=scene, text_share=text, distractor_share=0.0)
                self.stills[mode] = PairSampler(only, *stills)

    def sample(self, seed: int, index: int) -> Sample:
        """Samples 2k and 2k + 1 are of one mode and one data set."""
        shared = np.random.default_rng([seed, 2, index // 2])
        chance, config = shared.random(), self.config
        mode = Mode.NL if chance < config.scene_share else Mode.NLBBOX
        mode = mode if chance < config.scene_share + config.text_share else Mode.BBOX
        rng = np.random.default_rng([seed, 0, index])
        if mode is Mode.NL and chance < config.scene_share * config.distractor_share:
            return render_distractor_pair(config, self.sensor, shared, rng, index % 2)
        ratios = np.array(self.with_text if mode is Mode.NL else self.ratios)
        if not ratios.any():
            mode, ratios = Mode.BBOX, np.array(self.ratios)
        which = int(shared.choice(len(ratios), p=ratios / ratios.sum()))
        if which == len(self.targets):
            return self.stills[mode].sample(seed, 0, index)
        return self.targets[which].sample(config, mode, rng)


class PairDataset(Dataset[dict[str, Any]]):
    """Pairs as arrays; data are opened on first use, in the process that uses them.

    ``later`` is the first index and the configuration of the samples from there on.
    """

    def __init__(
        self,
        config: PairConfig,
        material: Material,
        texts: TextEncoding,
        seed: int,
        later: tuple[int, PairConfig] | None = None,
    ) -> None:
        self.config, self.material, self.texts, self.seed, self.later = config, material, texts, seed, later
        if later or config.scene_share + config.text_share:
            texts.encode("a")  # a missing vocabulary fails here, not in a worker
        self._mixtures: list[_Mixture] = []

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample ``index`` of the endless stream of this seed."""
        if not self._mixtures:
            cv2.setNumThreads(0)
            targets = [TargetSampler(TargetIndex(folder)) for folder in self.material.indexed]
            images = ImageSet.load(*self.material.stills) if self.material.stills else None
            stills = None if images is None else (images, cached_cutouts(images))
            configs = [self.config] if self.later is None else [self.config, self.later[1]]
            self._mixtures = [_Mixture(config, self.material, targets, stills) for config in configs]
        is_later = self.later is not None and index >= self.later[0]
        sample = self._mixtures[-1 if is_later else 0].sample(self.seed, index)
        recent, recent_boxes = _recent_templates(sample, self.config, np.random.default_rng([self.seed, 1, index]))
        ids, words = self.texts.encode(sample.text)
        return {
            "template": sample.template,
            "template_box": _relative(sample.template_box, self.config.template_size),
            "search": sample.searches,
            "box": _relative(sample.boxes, self.config.search_size),
            "recent": recent,
            "recent_box": _relative(recent_boxes, self.config.template_size),
            "present": sample.present,
            "ids": ids,
            "words": words,
            "flag": np.int64(MODE_IDS[Mode(sample.mode)]),
        }


class ClipDataset(Dataset[dict[str, Any]]):
    """Clips as arrays of one length: short ones are padded with frames without the target.

    From videos where there are any; else from still images (``training.clips``).
    """

    def __init__(self, config: ClipConfig, material: Material, texts: TextEncoding, seed: int) -> None:
        self.config, self.material, self.texts, self.seed = config, material, texts, seed
        if config.text_share:
            texts.encode("a")  # a missing vocabulary fails here, not in a worker
        self._clips: Callable[[int], Clip] | None = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Clip ``index`` of the endless stream of this seed, for ``rollout.ClipObjective``."""
        if self._clips is None:
            cv2.setNumThreads(0)
            self._clips = self._open()
        clip, share = self._clips(index), self.config.text_share
        # Spread evenly, so that the share holds in every stretch of clips.
        with_text = int((index + 1) * share) > int(index * share)
        ids, words = self.texts.encode(clip.sentence if with_text else "")
        missing = self.config.frames - len(clip.frames)
        return {
            "frames": np.concatenate([clip.frames, np.repeat(clip.frames[-1:], missing, axis=0)]),
            "boxes": np.concatenate([clip.boxes, np.zeros((missing, 4))]),
            "absent": np.concatenate([clip.absent, np.ones(missing, dtype=bool)]),
            "ids": ids,
            "words": words,
        }

    def _open(self) -> Callable[[int], Clip]:
        if self.material.stills:
            return clips_of(ImageSet.load(*self.material.stills), self.config.frames, self.seed)
        samplers = [TargetSampler(TargetIndex(folder)) for folder in self.material.indexed]
        ratios = np.array(list(self.material.indexed.values()))

        def clip(number: int) -> Clip:
            rng = np.random.default_rng([self.seed, 3, number])
            return samplers[int(rng.choice(len(samplers), p=ratios / ratios.sum()))].clip(self.config.frames, rng)

        return clip


def loader(
    dataset: Dataset[dict[str, Any]],
    *,
    batch: int,
    first: int,
    steps: int,
    rank: int,
    world: int,
    workers: int,
    accumulate: int = 1,
    pinned: bool = False,
) -> DataLoader[Any]:
    """Batches of steps ``first`` to ``steps`` for one process of ``world``, ``accumulate`` for each step.

    All have indices of their own. ``pinned``: in memory from which a GPU copies faster.
    """
    parts = range(rank * accumulate, (rank + 1) * accumulate)
    return DataLoader(
        dataset,
        batch_sampler=(
            list(step_samples(step, batch, part, world * accumulate)) for step in range(first, steps) for part in parts
        ),
        num_workers=workers,
        collate_fn=_collate,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=start_worker,
        pin_memory=pinned,
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


def _collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the samples; the frames of clips stay a list, as their sizes differ."""
    clips = {"frames": [torch.from_numpy(s.pop("frames")) for s in samples]} if "frames" in samples[0] else {}
    return clips | {key: torch.from_numpy(np.stack([np.asarray(s[key]) for s in samples])) for key in samples[0]}

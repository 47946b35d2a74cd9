"""Training configuration and the recipes: functions that return a full configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from vltrack.core.errors import ConfigError
from vltrack.training.clips import ClipConfig
from vltrack.training.pairs.sampler import PairConfig


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the loss terms, which have the same names in ``losses.TERMS`` and in log.csv; 0 leaves one out.

    Attributes:
        ``centre``: focal loss of the center map.
        giou, l1: of the box in every cell that learns boxes.
        layer_contrast, prompt_contrast: LiteTrack's contrast of cells, per layer and in the head (UVLTrack).
        word_contrast: similarity of the sentence to the cells of the target (ours).
        selection: share of kept search tokens against ``keep_ratio`` (LiteTrack).
        score: BIT-Tracker's score head.
        sequence, siou: AITrack's coordinate tokens, and their expected box.
        dense_match: SATracker's dense matching.
        alignment_search_words, alignment_template_words, alignment_views: All-in-One's NT-Xent of search view,
            template and sentence.
        keep_ratio: share of search tokens that token pruning aims at.
        box_cells: share of the box whose cells learn boxes; 0: only the cell of its center (published).
    """

    centre: float = 1.0
    giou: float = 2.0
    l1: float = 5.0
    layer_contrast: float = 0.1
    prompt_contrast: float = 1.0
    word_contrast: float = 1.0
    selection: float = 1.0
    score: float = 1.0
    sequence: float = 2.0
    siou: float = 2.0
    dense_match: float = 1.0
    alignment_search_words: float = 0.25
    alignment_template_words: float = 0.25
    alignment_views: float = 0.5
    keep_ratio: float = 0.7
    box_cells: float = 0.5


def _setting(key: str, default: Any) -> Any:
    """A field that ``--set``, config.json and cards call ``key``."""
    return field(default=default, metadata={"key": key})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the outcome of a training run, except the data.

    Attributes:
        model, size: the tracker; fixed by the command.
        variant: options of the network that differ from its size's, such as ``select=false``.
        pairs, clips, losses: what samples are like, clips of the second stage, and weights of the loss terms.
            Crops have the model's sizes, whatever ``pairs`` says.
        ratios: how often each data set is drawn, such as ``lasot=1``; ``got10k:vot_train=1`` names the split. Those
            that are not listed have 1; listed ones that are not at hand are left out.
        samples_per_epoch: of the published recipe, to count epochs; 0: none.
        steps: optimizer steps in all.
        batch: samples per step over all processes: one template and two search views, or one clip.
        accumulate: parts of a batch that each process handles one after the other, to fit into memory.
        learning_rate: the highest one, of AdamW.
        low_lr_prefixes, low_lr_factor: parameters whose names start so learn at this share of the rate; 0: not at all.
        betas, weight_decay: of AdamW; biases and norms do not decay.
        grad_clip: largest norm of the gradient.
        warmup: steps in which the rate rises from zero.
        final_rate: share of the rate at the end of the cosine.
        rate_drop_at: share of the steps after which the rate is a tenth; 0: it falls along a cosine.
        ema: decay of the moving average of the weights, which is what is validated and published; 0: no average.
        word_init: word table of a small text encoder: ``minilm`` (64 principal components of all-MiniLM-L6-v2)
            or ``random``.
        bf16: mixed precision, where the device has it.
        drop_path: stochastic depth: share of samples that the last ViT block leaves out, less in earlier ones.
        select_share: share of steps with token pruning, so that the weights work with and without it.
        plateau_patience, plateau_delta: periods of ``save_every`` steps without a gain of this share in the loss
            after which LiteTrack unfreezes a block.
        text_from_step: from this step on (0: never) samples have the shares ``later_scene_share`` and
            ``later_text_share``: a network first learns to follow a box, then to use the text.
        later_scene_share, later_text_share: see ``text_from_step``.
        init_from, init_patterns: weights of another tracker, and regular expressions of the parameters to
            copy from it; every parameter of the model that matches must be there.
        start: folder of an earlier run, whose averaged weights are the start, or a file of weights.
        trainable: prefixes of the parameters to train (they may be new); all others stay unchanged to the
            bit. Empty: all.
        seed: of everything random.
        save_every, validate_every: steps between checkpoints, and between points of the validation curve.

    Raises:
        ConfigError: a value out of range.
    """

    model: str
    size: str
    variant: tuple[str, ...] = ()
    pairs: PairConfig = field(default_factory=PairConfig)
    clips: ClipConfig = field(default_factory=ClipConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    ratios: tuple[str, ...] = ()
    samples_per_epoch: int = 0
    steps: int = 5400
    batch: int = 16
    accumulate: int = 1
    learning_rate: float = 1e-3
    low_lr_prefixes: tuple[str, ...] = _setting("slow", ("stem.trunk.",))
    low_lr_factor: float = _setting("slow_rate", 0.1)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.02
    grad_clip: float = _setting("clip", 1.0)
    warmup: int = 200
    final_rate: float = 0.01
    rate_drop_at: float = 0.0
    ema: float = 0.999
    word_init: Literal["minilm", "random"] = _setting("words", "minilm")
    bf16: bool = True
    drop_path: float = 0.0
    select_share: float = 0.5
    plateau_patience: int = 3
    plateau_delta: float = 0.01
    text_from_step: int = _setting("later_from", 0)
    later_scene_share: float = 0.35
    later_text_share: float = 0.35
    init_from: str = _setting("borrow", "")
    init_patterns: tuple[str, ...] = _setting("borrowed", ())
    start: str = ""
    trainable: tuple[str, ...] = _setting("only", ())
    seed: int = 1
    save_every: int = 250
    validate_every: int = 1000

    def __post_init__(self) -> None:
        for key in ("steps", "batch", "accumulate", "save_every", "validate_every"):
            if getattr(self, key) < 1:
                raise ConfigError(f"train.{key} is {getattr(self, key)}.", hint="Give 1 or more.")
        for key in ("learning_rate", "grad_clip"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"train.{keys(self)[key]} is {value}.", hint="Give a number above 0.")
        for text in self.ratios:
            _split_and_ratio(text)
        for key in ("rate_drop_at", "drop_path"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"train.{key} is {getattr(self, key)}.", hint="Give a share from 0 to below 1.")
        if self.word_init not in ("minilm", "random"):
            raise ConfigError(f"train.words is {self.word_init!r}.", hint="Use minilm or random.")

    def data_sets(self) -> list[str]:
        """Names of the data sets in ``ratios``."""
        return [_split_and_ratio(text)[0] for text in self.ratios]

    def ratio_of(self, name: str) -> tuple[str | None, float]:
        """Split (None: the one for training) and ratio of a data set; 1 where it is not listed."""
        parsed = dict(map(_split_and_ratio, self.ratios))
        return parsed.get(name, (None, 1.0))


def _split_and_ratio(text: str) -> tuple[str, tuple[str | None, float]]:
    """Name, split and ratio of ``NAME=NUMBER`` or ``NAME:SPLIT=NUMBER``. Raises ``ConfigError``."""
    key, _, number = text.partition("=")
    name, _, split = key.partition(":")
    try:
        ratio = float(number)
    except ValueError:
        ratio = -1.0
    if not name or not 0 <= ratio < math.inf:
        raise ConfigError(f"train.ratios has {text!r}.", hint="Give NAME=NUMBER, such as lasot=1.")
    return name, (split or None, ratio)


def keys(settings: Any) -> dict[str, str]:
    """Field name -> key of ``--set`` and JSON, for a dataclass of settings."""
    return {f.name: f.metadata.get("key", f.name) for f in fields(settings)}


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as config.json and cards hold them."""
    values = {key: getattr(settings, name) for name, key in keys(settings).items()}
    return {key: to_dict(value) if is_dataclass(value) else value for key, value in values.items()}


BACKBONE = ("stem.", "blocks.", "bert.")
"""Prefixes of the backbone, which learns at a tenth of the rate (published)."""


def litetrack_tiny() -> TrainConfig:
    """First part of the weights that ship (about two hours on two CPU cores)."""
    return TrainConfig(model="litetrack", size="tiny", steps=5400, text_from_step=3250)


LITETRACK_TEXT = (
    "word_matcher.",
    "bert.encoder.",
    "bert.embeddings.embeddings_project.",
    "star_text.",
    "head.conv_bbox_grounding.",
)


def litetrack_tiny_text() -> TrainConfig:
    """Second part of LiteTrack tiny: only the text modules learn; box-only tracking stays unchanged.

    Half of the scenes hold look-alikes that only the text distinguishes; each scene has two sentences.
    """
    return TrainConfig(
        model="litetrack",
        size="tiny",
        trainable=LITETRACK_TEXT,
        pairs=PairConfig(scene_share=0.75, text_share=0.25),
        steps=700,
        warmup=50,
        seed=2,
    )


EMBEDDING = (r"stem\.", r"matcher\.", r"inside_embed", r"word_matcher\.", r"detail\.")
BLOCKS = (r"blocks\.\d\.(norm[12]|mlp|attn\.(qkv|proj))\.",)
TEXT_ENCODER = (r"bert\.embeddings\.", r"bert\.encoder\.layer\.[01]\.")
"""Parameters that all tiny trackers have in common: stem and correlation, ViT blocks, text encoder."""


def _from_litetrack(model: str, patterns: tuple[str, ...], **changes: Any) -> TrainConfig:
    """A tiny tracker whose common parts start from LiteTrack tiny (ours)."""
    recipe = TrainConfig(
        model=model,
        size="tiny",
        pairs=PairConfig(text_share=0.35, scene_share=0.25, negative_share=0.1),
        steps=1500,
        learning_rate=7e-4,
        warmup=100,
        word_init="random",
        init_from="litetrack-tiny",
        init_patterns=patterns,
        seed=3,
        validate_every=500,
    )
    return replace(recipe, **changes)


def all_in_one_tiny() -> TrainConfig:
    """First weights of All-in-One tiny: candidates are eliminated in most steps."""
    return _from_litetrack("all-in-one", EMBEDDING + BLOCKS + TEXT_ENCODER, select_share=0.75)


def sa_tracker_tiny() -> TrainConfig:
    """First weights of SATracker tiny."""
    return _from_litetrack("sa-tracker", EMBEDDING + BLOCKS + TEXT_ENCODER, steps=1000)


def bit_tracker_tiny() -> TrainConfig:
    """First weights of BIT-Tracker tiny: box and score learn together (ours)."""
    return _from_litetrack("bit-tracker", EMBEDDING + TEXT_ENCODER, steps=1000)


COORDINATE_LOSSES = LossWeights(giou=0.0, l1=0.0)
"""Coordinate tokens learn from their cross-entropy and SIoU; GIoU and L1 are not published for them."""


def aitrack_tiny() -> TrainConfig:
    """First weights of AITrack tiny. No negative views: it has no loss on them."""
    pairs = PairConfig(text_share=0.35, scene_share=0.25, negative_share=0.0)
    return _from_litetrack(
        "aitrack", EMBEDDING + BLOCKS + TEXT_ENCODER, losses=COORDINATE_LOSSES, pairs=pairs, steps=1400
    )


BOX_SETS = ("lasot=1", "got10k:vot_train=1", "coco2017=1", "trackingnet=1")
"""Data of STARK and ARTrack; ``vot_train`` leaves out the videos of GOT-10k that VOT tests on."""
TEXT_SETS = (*BOX_SETS, "tnl2k=1", "otb99=0.2", "refcocog=5")
"""Data of UVLTrack and LiteTrack."""


def _base(model: str, epochs: int, samples: int, batch: int, **changes: Any) -> TrainConfig:
    """A published recipe; the optimizer, and the rate that falls once after 80 % of the steps, are the same in most.

    As published, every view shows its target, the weights are not averaged, and the rate does not warm up.
    """
    published: dict[str, Any] = {
        "pairs": PairConfig(negative_share=0.0), "betas": (0.9, 0.999), "weight_decay": 1e-4, "grad_clip": 0.1,
        "warmup": 0, "rate_drop_at": 0.8, "ema": 0.0, "low_lr_prefixes": BACKBONE, "word_init": "random",
    }  # fmt: skip
    return TrainConfig(
        model=model, size="base", steps=epochs * samples // batch, samples_per_epoch=samples, batch=batch,
        **published | changes,
    )  # fmt: skip


def aitrack_base() -> TrainConfig:
    """ARTrack's first stage: 240 epochs, box only, with the batch of one device. Starts from MAE and CLIP."""
    return _base(
        "aitrack",
        240,
        60_000,
        50,
        ratios=BOX_SETS,
        pairs=PairConfig(negative_share=0.0, text_share=0.0, scene_share=0.0),
        losses=COORDINATE_LOSSES,
        learning_rate=8e-5,
        drop_path=0.1,
    )


def aitrack_tiny_clips() -> TrainConfig:
    """Stage 2 for a laptop: shorter and fewer clips, some of them with a sentence (ours)."""
    return replace(
        aitrack_base_clips(),
        size="tiny",
        clips=ClipConfig(frames=12, text_share=0.35),
        steps=100,
        batch=4,
        learning_rate=4e-5,
        low_lr_prefixes=("stem.trunk.",),
        ratios=(),
        samples_per_epoch=0,
        drop_path=0.0,
        ema=0.999,
        validate_every=50,
        save_every=25,
    )


def aitrack_base_clips() -> TrainConfig:
    """AITrack's second stage: 60 epochs of 1,000 clips, rolled out by the tracker's own boxes, constant rate."""
    return _base(
        "aitrack",
        60,
        1000,
        8,
        ratios=("lasot=1", "got10k:vot_train=1", "trackingnet=1"),
        clips=ClipConfig(frames=36),
        losses=COORDINATE_LOSSES,
        learning_rate=4e-6,
        drop_path=0.1,
        weight_decay=0.05,
        grad_clip=100.0,
        rate_drop_at=0.0,
        final_rate=1.0,
    )


def all_in_one_base() -> TrainConfig:
    """All-in-One's released ``vitb_256_mae_ce_32x4_ep300``: a sentence wherever the data have one. Starts from MAE.

    Published for TrackingNet: the class as a sentence, which its annotations do not have.
    """
    return _base(
        "all-in-one",
        300,
        60_000,
        128,
        ratios=(
            "lasot=1", "got10k:train_full=1", "coco2017=1", "trackingnet=1", "visual-genome=1", "refcocog=1",
        ),
        pairs=PairConfig(negative_share=0.0, text_share=1.0, scene_share=0.0),
        losses=LossWeights(box_cells=0.0),
        low_lr_prefixes=("stem.", "blocks.", "pos_embed_", "norm.", "language.", "aligner."),
        learning_rate=4e-4,
        drop_path=0.1,
        select_share=1.0,
    )  # fmt: skip


def sa_tracker_base() -> TrainConfig:
    """OSTrack's schedule on UVLTrack's data (ours; nothing is published). Starts from MAE and BERT."""
    return _base(
        "sa-tracker",
        300,
        60_000,
        128,
        ratios=TEXT_SETS,
        losses=LossWeights(box_cells=0.0),
        learning_rate=4e-4,
        drop_path=0.1,
        select_share=1.0,
    )


def bit_tracker_base() -> TrainConfig:
    """Stage 1 of STARK-ST101, which BIT-Tracker builds on: 500 epochs, box only. Starts from ResNet-101 or STARK."""
    return _base(
        "bit-tracker",
        500,
        60_000,
        128,
        ratios=BOX_SETS,
        pairs=PairConfig(negative_share=0.0, text_share=0.0, scene_share=0.0, center_jitter=4.5, scale_jitter=0.5),
        losses=LossWeights(score=0.0),
        low_lr_prefixes=("stem.",),
        learning_rate=1e-4,
    )


def bit_tracker_base_score() -> TrainConfig:
    """Stage 2: only the score head, half of the views without the target."""
    first = bit_tracker_base()
    return replace(
        first,
        trainable=("score_head.",),
        losses=LossWeights(giou=0.0, l1=0.0),
        pairs=replace(first.pairs, negative_share=0.5),
        steps=50 * 60_000 // first.batch,
    )


def litetrack_base() -> TrainConfig:
    """LiteTrack, as UVLTrack: 300 epochs, task mix .45 box, .44 box and text, .11 text. Starts from MAE and BERT.

    Published: 8 samples per device, the number of devices is not; 128 is OSTrack's at the same rate.
    """
    return _base(
        "litetrack",
        300,
        30_000,
        128,
        ratios=TEXT_SETS,
        pairs=PairConfig(negative_share=0.0, center_jitter=3.5, scale_jitter=0.5),
        losses=LossWeights(box_cells=0.0),
        learning_rate=4e-4,
        rate_drop_at=0.0,
        final_rate=0.0,
    )


BERT = ("bert.encoder.", "bert.embeddings.embeddings_project.")
ONE_IMAGE = {"alignment_search_words": 0.0, "alignment_template_words": 0.0, "alignment_views": 0.0}
"""Distractor pairs share their image: aligning it with both sentences would be a contradiction."""
SHARED_TEXT = (r"word_matcher\.", r"bert\.encoder\.layer\.[01]\.", r"bert\.embeddings\.embeddings_project\.")
"""Text modules that all tiny sizes have in common."""


def litetrack_tiny_distractors() -> TrainConfig:
    """Distractor fine-tuning of LiteTrack tiny, after ``litetrack_tiny_text`` (ours).

    Nearly all samples are text only: half of them are synthetic scenes with a distractor pair, the rest real
    images and pasted objects. Only parameters that box-only tracking never reads are trained, so that mode
    stays unchanged to the bit.
    """
    return TrainConfig(
        model="litetrack",
        size="tiny",
        pairs=PairConfig(scene_share=0.85, text_share=0.15, distractor_share=0.5, recolor_share=0.35),
        trainable=LITETRACK_TEXT,
        steps=600,
        warmup=30,
        word_init="random",
        seed=4,
        save_every=100,
        validate_every=300,
    )


def _distractors_from_litetrack(model: str, trainable: tuple[str, ...], losses: LossWeights) -> TrainConfig:
    """Distractor fine-tuning of a tracker whose text modules were initialized from LiteTrack tiny.

    The text modules start from LiteTrack's fine-tuned ones; more samples have box and text.
    """
    first = litetrack_tiny_distractors()
    return replace(
        first,
        model=model,
        pairs=replace(first.pairs, scene_share=0.7, text_share=0.3),
        losses=losses,
        trainable=("word_matcher.", *BERT, *trainable),
        init_from="litetrack-tiny",
        init_patterns=SHARED_TEXT,
        steps=200,
        warmup=20,
        validate_every=200,
    )


def sa_tracker_tiny_distractors() -> TrainConfig:
    """Also trains the semantic aware modules, which are skipped without a sentence."""
    return _distractors_from_litetrack("sa-tracker", ("sam.",), LossWeights())


def all_in_one_tiny_distractors() -> TrainConfig:
    """Also trains the layer that turns the sentence into channel gains."""
    return _distractors_from_litetrack("all-in-one", ("language.",), LossWeights(**ONE_IMAGE))


def aitrack_tiny_distractors() -> TrainConfig:
    """Also trains the text condition's projection. Tried, not shipped: docs/train.md."""
    return _distractors_from_litetrack("aitrack", ("words.",), COORDINATE_LOSSES)


def bit_tracker_tiny_distractors() -> TrainConfig:
    """Also trains the text projection into the encoder. Tried, not shipped: docs/train.md."""
    return _distractors_from_litetrack("bit-tracker", ("text_project.", "text_type"), LossWeights())


def tiny_joint(model: str) -> TrainConfig:
    """Last part of a tiny size: all but the stem's features and the word table learn, from every kind of sample (ours).

    Box and sentence together see look-alikes that only the sentence excludes; half of the negative views show what is
    beside the target. The stem's features are those of LiteTrack tiny and stay: that takes less than half of the time,
    and all trackers ship them once.
    """
    pairs = PairConfig(
        text_share=0.3, scene_share=0.25, distractor_share=0.4, recolor_share=0.35, negative_share=0.12, max_gap=60
    )
    recipe = TrainConfig(
        model=model, size="tiny", pairs=pairs, ratios=("stills=1", "clips=0.15"), steps=6000, low_lr_factor=0.0,
        low_lr_prefixes=("stem.trunk.", "bert.embeddings.word_embeddings."),
        learning_rate=5e-4, warmup=100, word_init="random", seed=5, select_share=0.75, validate_every=3000,
    )  # fmt: skip
    if model != "litetrack":
        recipe = replace(
            recipe, init_from="litetrack-tiny", init_patterns=(r"stem\.trunk\.", r"bert\.embeddings\.word_embeddings")
        )
    if model == "aitrack":  # it has no loss on a view without the target
        return replace(recipe, losses=COORDINATE_LOSSES, pairs=replace(pairs, negative_share=0.0))
    return replace(recipe, losses=LossWeights(**ONE_IMAGE)) if model == "all-in-one" else recipe


def ablation(model: str, variant: tuple[str, ...], seed: int, steps: int) -> TrainConfig:
    """A small budget, the same for every tiny tracker and variant: from the ImageNet stem, which stays (ours)."""
    return replace(
        tiny_joint(model), variant=variant, seed=seed, steps=steps, warmup=50, learning_rate=1e-3, ema=0.99,
        word_init="minilm", init_from="", init_patterns=(), save_every=100, validate_every=steps + 1,
    )  # fmt: skip


def finetune(first: TrainConfig) -> TrainConfig:
    """Fine-tuning on clips of one's own (ours): a fifth of the rate of the training from scratch, and few steps.

    benchmarks/results/finetune-2026-11-29.md has what was tried.
    """
    return replace(
        first,
        pairs=replace(first.pairs, distractor_share=0.0, recolor_share=0.0),
        ratios=(),
        samples_per_epoch=0,
        drop_path=0.0,
        steps=300,
        batch=16,
        learning_rate=first.learning_rate / 5,
        warmup=20,
        rate_drop_at=0.0,
        ema=0.99,
        word_init="random",
        text_from_step=0,
        init_from="",
        init_patterns=(),
        save_every=100,
        validate_every=300,
    )

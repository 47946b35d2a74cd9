"""Recipes: functions that return a full training configuration. Knows numbers, not how they are used."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vltrack.training.clips import ClipConfig
from vltrack.training.pairs.sampler import PairConfig


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the loss terms; ``box_cells`` is the share of the box whose cells learn
    boxes.
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


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the outcome of a training.

    Crops are as large as the model's, whatever ``pairs`` says. ``batch`` counts samples (one template,
    two search views; or one clip) a step over all processes. With ``clips.frames`` it is a stage on clips
    (``training.rollout``), else one on pairs. From step ``later_from`` on (0: never) the shares of
    samples with words are the later ones: a network learns to follow a box first and to listen
    afterwards. ``select_share`` is the share of steps in which token selection is on, so that weights
    work either way. ``words`` says where the word table of a small text encoder starts: MiniLM's vectors
    (an optional package), or chance. ``start`` is the folder of an earlier run whose averaged weights to
    start from, or a file of weights, and ``only`` the beginnings of the names of the parameters that are
    then trained: everything else stays as it is to the bit (parameters of these names may be new). ``borrow``
    names weights of another tracker to start parts from, those whose names match ``borrowed`` (regular
    expressions; every parameter of ours that matches must be there). Parameters whose names begin as in
    ``slow`` learn at ``slow_rate`` times the rate.
    """

    model: str
    size: str
    pairs: PairConfig = field(default_factory=PairConfig)
    clips: ClipConfig = field(default_factory=ClipConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    steps: int = 5400
    batch: int = 16
    learning_rate: float = 1e-3
    slow: tuple[str, ...] = ("stem.trunk.",)
    slow_rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.02
    clip: float = 1.0
    warmup: int = 200
    final_rate: float = 0.01
    ema: float = 0.999
    words: Literal["minilm", "random"] = "minilm"
    bf16: bool = True
    select_share: float = 0.5
    plateau_patience: int = 3
    plateau_delta: float = 0.01
    later_from: int = 0
    later_scene_share: float = 0.35
    later_text_share: float = 0.35
    borrow: str = ""
    borrowed: tuple[str, ...] = ()
    start: str = ""
    only: tuple[str, ...] = ()
    seed: int = 1
    save_every: int = 250
    validate_every: int = 1000

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise ValueError("steps, batch and learning_rate must be positive")


TRUNK = ("stem.", "blocks.", "bert.")
"""What the papers call the backbone: it learns at a tenth of the rate."""


def litetrack_tiny() -> TrainConfig:
    """The recipe of the weights that ship (about two hours on two CPU cores)."""
    return TrainConfig(model="litetrack", size="tiny", steps=5400, later_from=3250)


LISTENING = (
    "word_matcher.",
    "bert.encoder.",
    "bert.embeddings.embeddings_project.",
    "star_text.",
    "head.conv_bbox_grounding.",
)


def litetrack_tiny_words(start: str) -> TrainConfig:
    """The second part: the text side learns on whole scenes; what follows a box stays as it is.

    Half of the scenes hold look-alikes that only the words tell apart; a scene comes with two sentences.
    """
    return TrainConfig(
        model="litetrack",
        size="tiny",
        start=start,
        only=LISTENING,
        pairs=PairConfig(scene_share=0.75, text_share=0.25),
        steps=700,
        warmup=50,
        seed=2,
    )


FRONT = (r"stem\.", r"matcher\.", r"inside_embed", r"word_matcher\.", r"detail\.")
BLOCKS = (r"blocks\.\d\.(norm[12]|mlp|attn\.(qkv|proj))\.",)
WORDS = (r"bert\.embeddings\.", r"bert\.encoder\.layer\.[01]\.")
"""Parts of the tiny sizes that all trackers have alike: stem and matching, ViT blocks, the text side."""


def _beside_litetrack(model: str, borrowed: tuple[str, ...], **changes: Any) -> TrainConfig:
    """A tiny tracker that starts from the parts of LiteTrack tiny and learns its own (ours)."""
    recipe = TrainConfig(
        model=model,
        size="tiny",
        pairs=PairConfig(text_share=0.35, scene_share=0.25, negative_share=0.1),
        steps=1500,
        learning_rate=7e-4,
        warmup=100,
        words="random",
        borrow="litetrack-tiny",
        borrowed=borrowed,
        seed=3,
        validate_every=500,
    )
    return replace(recipe, **changes)


def all_in_one_tiny() -> TrainConfig:
    """First weights of All-in-One tiny: candidates are eliminated in most steps."""
    return _beside_litetrack("all-in-one", FRONT + BLOCKS + WORDS, select_share=0.75)


def sa_tracker_tiny() -> TrainConfig:
    """First weights of SATracker tiny."""
    return _beside_litetrack("sa-tracker", FRONT + BLOCKS + WORDS, steps=1000)


def bit_tracker_tiny() -> TrainConfig:
    """First weights of BIT-Tracker tiny: box and score learn together (ours)."""
    return _beside_litetrack("bit-tracker", FRONT + WORDS, steps=1000)


# A box written as words learns by the words and by SIoU; GIoU and L1 are not published for it.
BY_WORDS = LossWeights(giou=0.0, l1=0.0)


def aitrack_tiny() -> TrainConfig:
    """First weights of AITrack tiny. A view without the target teaches it nothing: there are none."""
    pairs = PairConfig(text_share=0.35, scene_share=0.25, negative_share=0.0)
    return _beside_litetrack("aitrack", FRONT + BLOCKS + WORDS, losses=BY_WORDS, pairs=pairs, steps=1400)


def aitrack_base() -> TrainConfig:
    """The published numbers of ARTrack's first stage, on the pictures given.

    The batch is the one of a single device. Start from MAE ViT-B and CLIP.
    """
    return TrainConfig(
        model="aitrack",
        size="base",
        pairs=PairConfig(negative_share=0.0),
        losses=BY_WORDS,
        slow=TRUNK,
        steps=240 * 60_000 // 50,
        batch=50,
        learning_rate=8e-5,
        betas=(0.9, 0.999),
        weight_decay=1e-4,
        clip=0.1,
    )


def aitrack_tiny_clips(start: str) -> TrainConfig:
    """Stage 2 at the size that a laptop can do: shorter and fewer clips, some named by a sentence (ours)."""
    return replace(
        aitrack_base_clips(start),
        size="tiny",
        clips=ClipConfig(frames=12, text_share=0.35),
        steps=100,
        batch=4,
        learning_rate=4e-5,
        slow=("stem.trunk.",),
        words="random",
        validate_every=50,
        save_every=25,
    )


def aitrack_base_clips(start: str) -> TrainConfig:
    """Stage 2 with the published numbers: 60 epochs of 1000 clips, rolled out by the tracker's own boxes.

    The published bound of 100 on gradients hardly binds. The rate stays as it is.
    """
    return TrainConfig(
        model="aitrack",
        size="base",
        start=start,
        clips=ClipConfig(frames=36),
        losses=BY_WORDS,
        slow=TRUNK,
        steps=60 * 1000 // 8,
        batch=8,
        learning_rate=4e-6,
        betas=(0.9, 0.999),
        weight_decay=0.05,
        clip=100.0,
        warmup=0,
        final_rate=1.0,
    )


def all_in_one_base() -> TrainConfig:
    """The published numbers of ``vitb_256_mae_ce_32x4_ep300``, on the pictures given."""
    return TrainConfig(
        model="all-in-one",
        size="base",
        losses=LossWeights(box_cells=0.0),
        slow=("stem.", "blocks.", "pos_embed_", "norm.", "language.", "aligner."),
        steps=300 * 60_000 // 128,
        batch=128,
        learning_rate=4e-4,
        betas=(0.9, 0.999),
        weight_decay=1e-4,
        clip=0.1,
        select_share=1.0,
    )


def sa_tracker_base() -> TrainConfig:
    """Nothing is published: the schedule of OSTrack (ours)."""
    return replace(all_in_one_base(), model="sa-tracker", slow=TRUNK)


def bit_tracker_base() -> TrainConfig:
    """Stage 1 of STARK, on which BIT-Tracker stands, with a cosine instead of one drop."""
    return TrainConfig(
        model="bit-tracker",
        size="base",
        pairs=PairConfig(text_share=0.0, scene_share=0.0),
        losses=LossWeights(score=0.0),
        slow=("stem.",),
        steps=500 * 60_000 // 128,
        batch=128,
        learning_rate=1e-4,
        betas=(0.9, 0.999),
        weight_decay=1e-4,
        clip=0.1,
    )


def bit_tracker_base_score(start: str) -> TrainConfig:
    """Stage 2: the score head alone, half of the views without the target."""
    first = bit_tracker_base()
    return replace(
        first,
        start=start,
        only=("score_head.",),
        losses=LossWeights(giou=0.0, l1=0.0),
        pairs=replace(first.pairs, negative_share=0.5),
        steps=50 * 60_000 // 128,
    )


def litetrack_base() -> TrainConfig:
    """The published sizes and rates, on whatever pictures are given.

    The published data (five video sets, COCO, RefCOCOg) and 300 epochs of 30,000 samples are a matter of a
    cluster; this is the same loop with the published batch and learning rate. Start from MAE ViT-B and
    bert-base-uncased.
    """
    return TrainConfig(
        model="litetrack",
        size="base",
        losses=LossWeights(box_cells=0.0),
        slow=TRUNK,
        steps=300 * 30_000 // 128,
        batch=128,
        learning_rate=4e-4,
        betas=(0.9, 0.999),
        weight_decay=1e-4,
        clip=0.1,
    )


# MERGED training/recipes.py
# The last part of the tiny sizes: words learn to tell look-alikes apart. Knows numbers, no use of them.


BERT = ("bert.encoder.", "bert.embeddings.embeddings_project.")
ONE_PICTURE = {"alignment_search_words": 0.0, "alignment_template_words": 0.0, "alignment_views": 0.0}
"""Twins share their picture: aligning the whole picture with a sentence would contradict itself."""


HEARING = (r"word_matcher\.", r"bert\.encoder\.layer\.[01]\.", r"bert\.embeddings\.embeddings_project\.")
"""What the tiny sizes hear with, and have alike."""


def litetrack_tiny_twins() -> TrainConfig:
    """The third part of LiteTrack tiny, after ``recipes.litetrack_tiny_words``: the words learn to tell
    look-alikes apart (ours).

    Nearly all samples are named by the sentence alone: half of these are drawn scenes with twins, the rest
    real pictures and pasted things. Only what is never used when a box alone names the target is trained, so
    that mode stays as it is to the bit.
    """
    return TrainConfig(
        model="litetrack",
        size="tiny",
        pairs=PairConfig(scene_share=0.85, text_share=0.15, twin_share=0.5, recolour_share=0.35),
        only=LISTENING,
        steps=600,
        warmup=30,
        words="random",
        seed=4,
        save_every=100,
        validate_every=300,
    )


def _twins_beside_litetrack(model: str, only: tuple[str, ...], losses: LossWeights) -> TrainConfig:
    """The same for a tracker that has heard with LiteTrack's ears from the start: it takes what LiteTrack
    tiny has learned since, and gets used to it. More samples have a box as well, to which the words come.
    """
    first = litetrack_tiny_twins()
    return replace(
        first,
        model=model,
        pairs=replace(first.pairs, scene_share=0.7, text_share=0.3),
        losses=losses,
        only=("word_matcher.", *BERT, *only),
        borrow="litetrack-tiny",
        borrowed=HEARING,
        steps=200,
        warmup=20,
        validate_every=200,
    )


def sa_tracker_tiny_twins() -> TrainConfig:
    """The semantic aware modules are skipped without a sentence, so they learn as well."""
    return _twins_beside_litetrack("sa-tracker", ("sam.",), LossWeights())


def all_in_one_tiny_twins() -> TrainConfig:
    """With the layer that turns the sentence into gains."""
    return _twins_beside_litetrack("all-in-one", ("language.",), LossWeights(**ONE_PICTURE))


def aitrack_tiny_twins() -> TrainConfig:
    """With the layer that names the target by the sentence. Tried, not shipped: docs/train.md."""
    return _twins_beside_litetrack("aitrack", ("words.",), BY_WORDS)


def bit_tracker_tiny_twins() -> TrainConfig:
    """With what brings the words into the encoder; the rest stays. Tried, not shipped: docs/train.md."""
    return _twins_beside_litetrack("bit-tracker", ("text_project.", "text_type"), LossWeights())

"""Recipes: functions that return a full training configuration. Knows numbers, not how they are used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vltrack.training.pairs import PairConfig


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the loss terms (TRACKERS.md 2.1); ``box_cells`` is the share of the box whose cells learn
    boxes.
    """

    centre: float = 1.0
    giou: float = 2.0
    l1: float = 5.0
    layer_contrast: float = 0.1
    prompt_contrast: float = 1.0
    word_contrast: float = 1.0
    selection: float = 1.0
    dense_match: float = 1.0
    alignment_search_words: float = 0.25
    alignment_template_words: float = 0.25
    alignment_views: float = 0.5
    keep_ratio: float = 0.7
    box_cells: float = 0.5


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the outcome of a training.

    ``batch`` counts samples (one template, two search views) a step over all processes. From step
    ``later_from`` on (0: never) the shares of samples with words are the later ones: a network learns to
    follow a box first and to listen afterwards. ``select_share`` is the share of steps in which token
    selection is on, so that weights work either way. ``words`` says where the word table of a small text
    encoder starts: MiniLM's vectors (an optional package), or chance. ``start`` is the folder of an earlier
    run whose averaged weights to start from, and ``only`` the beginnings of the names of the parameters that
    are then trained: everything else stays as it is to the bit (parameters of these names may be new).
    """

    model: str
    size: str
    pairs: PairConfig = field(default_factory=PairConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    steps: int = 5400
    batch: int = 16
    learning_rate: float = 1e-3
    stem_rate: float = 0.1
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
    start: str = ""
    only: tuple[str, ...] = ()
    seed: int = 1
    save_every: int = 250
    validate_every: int = 1000

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise ValueError("steps, batch and learning_rate must be positive")


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


def litetrack_base() -> TrainConfig:
    """The published sizes and rates (TRACKERS.md 2.1), on whatever pictures are given.

    The published data (five video sets, COCO, RefCOCOg) and 300 epochs of 30,000 samples are a matter of a
    cluster; this is the same loop with the published batch and learning rate. Start from MAE ViT-B and
    bert-base-uncased.
    """
    return TrainConfig(
        model="litetrack",
        size="base",
        pairs=PairConfig(template_size=128, search_size=256),
        losses=LossWeights(box_cells=0.0),
        steps=300 * 30_000 // 128,
        batch=128,
        learning_rate=4e-4,
        betas=(0.9, 0.999),
        weight_decay=1e-4,
        clip=0.1,
    )

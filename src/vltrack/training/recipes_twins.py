"""The last part of the tiny sizes: words learn to tell look-alikes apart. Knows numbers, no use of them."""

from __future__ import annotations

from dataclasses import replace

from vltrack.training.pairs import PairConfig
from vltrack.training.recipes import BY_WORDS, LISTENING, LossWeights, TrainConfig

BERT = ("bert.encoder.", "bert.embeddings.embeddings_project.")
ONE_PICTURE = {"alignment_search_words": 0.0, "alignment_template_words": 0.0, "alignment_views": 0.0}
"""Twins share their picture: aligning the whole picture with a sentence would contradict itself."""


HEARING = (r"word_matcher\.", r"bert\.encoder\.layer\.[01]\.", r"bert\.embeddings\.embeddings_project\.")
"""What the tiny sizes hear with, and have alike."""


def litetrack_tiny() -> TrainConfig:
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


def _beside_litetrack(model: str, only: tuple[str, ...], losses: LossWeights) -> TrainConfig:
    """The same for a tracker that has heard with LiteTrack's ears from the start: it takes what LiteTrack
    tiny has learned since, and gets used to it. More samples have a box as well, to which the words come.
    """
    first = litetrack_tiny()
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


def sa_tracker_tiny() -> TrainConfig:
    """The semantic aware modules are skipped without a sentence, so they learn as well."""
    return _beside_litetrack("sa-tracker", ("sam.",), LossWeights())


def all_in_one_tiny() -> TrainConfig:
    """With the layer that turns the sentence into gains."""
    return _beside_litetrack("all-in-one", ("language.",), LossWeights(**ONE_PICTURE))


def aitrack_tiny() -> TrainConfig:
    """With the layer that names the target by the sentence. Tried, not shipped: docs/train.md."""
    return _beside_litetrack("aitrack", ("words.",), BY_WORDS)


def bit_tracker_tiny() -> TrainConfig:
    """With what brings the words into the encoder; the rest stays. Tried, not shipped: docs/train.md."""
    return _beside_litetrack("bit-tracker", ("text_project.", "text_type"), LossWeights())

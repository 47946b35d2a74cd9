"""The last part of the tiny sizes: words learn to tell look-alikes apart. Knows numbers, no use of them."""

from __future__ import annotations

from vltrack.training.pairs import PairConfig
from vltrack.training.recipes import BY_WORDS, LISTENING, LossWeights, TrainConfig

BERT = ("bert.encoder.", "bert.embeddings.embeddings_project.")
ONE_PICTURE = {"alignment_search_words": 0.0, "alignment_template_words": 0.0, "alignment_views": 0.0}
"""Twins share their picture: aligning the whole picture with a sentence would contradict itself."""


def _twins(model: str, only: tuple[str, ...], losses: LossWeights) -> TrainConfig:
    """The last part of every tiny size: the words learn to tell look-alikes apart (ours).

    Starts from finished weights (``--part twins --start``). Nearly all samples are named by the sentence
    alone: half of these are drawn scenes with twins, the rest real pictures and pasted things. Only what is
    never used when a box alone names the target is trained, so that mode stays as it is to the bit.
    """
    pairs = PairConfig(scene_share=0.85, text_share=0.15, twin_share=0.5, recolour_share=0.35)
    return TrainConfig(
        model=model,
        size="tiny",
        pairs=pairs,
        losses=losses,
        only=only,
        steps=600,
        warmup=30,
        words="random",
        seed=4,
        save_every=100,
        validate_every=300,
    )


def litetrack_tiny() -> TrainConfig:
    """The third part of LiteTrack tiny, after ``recipes.litetrack_tiny_words``."""
    return _twins("litetrack", LISTENING, LossWeights())


def sa_tracker_tiny() -> TrainConfig:
    """The semantic aware modules are skipped without a sentence, so they learn as well."""
    return _twins("sa-tracker", ("word_matcher.", *BERT, "sam."), LossWeights())


def all_in_one_tiny() -> TrainConfig:
    """With the layer that turns the sentence into gains."""
    return _twins("all-in-one", ("word_matcher.", *BERT, "language."), LossWeights(**ONE_PICTURE))


def aitrack_tiny() -> TrainConfig:
    """With the layer that names the target by the sentence; the decoder's words stay what they mean."""
    return _twins("aitrack", ("word_matcher.", *BERT, "words."), BY_WORDS)


def bit_tracker_tiny() -> TrainConfig:
    """With what brings the words into the encoder; the score head stays."""
    return _twins("bit-tracker", ("word_matcher.", *BERT, "text_project.", "text_type"), LossWeights())

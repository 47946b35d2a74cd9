"""Which vocabulary reads a sentence: BERT's, which ships, or CLIP's, which lies beside the weights.

A model says by name which one its word table was trained with. Knows vocabularies, no model and no weights.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Protocol

from vltrack.core.errors import ModelNotFound
from vltrack.prep.bpe import ARCHIVE, BytePairs
from vltrack.prep.tokens import Tokens, WordPieces


class Reader(Protocol):
    """Makes numbers of a sentence.

    Attributes:
        sha256: of the vocabulary; weights remember that of theirs.
        size: number of pieces.
        table: how the name of the parameter ends that has a row for each piece.
    """

    sha256: str
    size: int
    table: str

    def encode(self, text: str, max_tokens: int = ...) -> Tokens:
        """A sentence cut and padded to ``max_tokens``."""
        ...


@cache
def open_vocabulary(name: str, folder: Path | None = None) -> Reader:
    """The vocabulary ``bert`` or ``clip``; a file is read once a process.

    ``folder`` is where the weights lie, and with them what does not ship.

    Raises:
        ModelNotFound: it is not there; the message names the file and where to get it.
        TokenizerMismatch: the file is no such vocabulary.
        ValueError: there is no vocabulary of that name.
    """
    if name == "bert":
        return WordPieces.load()
    if name != "clip":
        raise ValueError(f"no vocabulary is called {name!r}")
    if folder is None:
        raise ModelNotFound(
            "this model reads sentences with CLIP's vocabulary, which does not ship.",
            hint=f"Save the weights, and put {ARCHIVE} from OpenAI's CLIP repository beside them.",
        )
    return BytePairs.load(folder)

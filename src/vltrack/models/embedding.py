"""Input embedding: images to tokens, and in tiny sizes their correlation with template and text.

Correlation with ImageNet features finds the target from the first minutes of training. Unpublished; our
design, for the tiny sizes.

Shapes: B targets, K templates, P template cells, M = K * P, N search cells, L word pieces, C width, F
features at stride 16, F' features at stride 8 (four per cell).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vltrack.models.base import STRIDE, Batched, BoxedCrop, Template, Text, TrackerConfig
from vltrack.nn.attention import all_traced
from vltrack.nn.backbones import STEMS, Patches
from vltrack.nn.boxes import box_coverage, box_mask

INITIAL_SCALE = 3.0
"""Scale of the similarities to the template at the start."""


@dataclass(frozen=True, kw_only=True)
class Search(Batched):
    """A search region before the backbone.

    Attributes:
        tokens_BNC: patch tokens, with positions where they were given, and with correlations.
        patches_BNC: patch tokens alone: a ViT's patch embedding, a CNN's features.
        skip_BNC: features for the head (``detail``), or None.
        text_similarity_BN: similarity of each cell to the sentence (``word_match``), or None.
    """

    tokens_BNC: Tensor
    patches_BNC: Tensor
    skip_BNC: Tensor | None
    text_similarity_BN: Tensor | None

    def add_skip(self, x_BNC: Tensor) -> Tensor:
        """Add the skip features, in sizes that have them."""
        return x_BNC if self.skip_BNC is None else x_BNC + self.skip_BNC


class InputEmbedding(nn.Module):
    """Stem, and in tiny sizes the correlations and the skip connection to the head.

    ``binary_mask``: without correlation a template cell belongs to the target or not, by its center, as in
    UVLTrack's released code; else ``inside_BM`` is the share of its area.
    """

    def __init__(self, config: TrackerConfig, *, binary_mask: bool = False) -> None:
        super().__init__()
        self.template_side, self.binary_mask = config.template_size // STRIDE, binary_mask
        self.stem = STEMS[config.stem](config.width)
        coarse, fine = self.stem.coarse, self.stem.fine
        self.correlation: TemplateCorrelation | None = None
        if config.match:
            templates = 2 if config.recent_template else 1
            cells = self.template_side**2
            self.correlation = TemplateCorrelation(coarse, fine, cells, templates, config.width)
            self.inside_embed = nn.Parameter(torch.randn(2, config.width) * 0.02)
        self.text_correlation = TextCorrelation(coarse, fine, config.width) if config.word_match else None
        self.skip = nn.Linear(coarse + 4 * fine, config.width) if config.detail else None

    def template(self, crop: BoxedCrop, pos_1PC: Tensor | float = 0.0) -> Template:
        """Embed one template per target, with positions added to its patches."""
        patches: Patches = self.stem(crop.image_B3SS)
        tokens_BPC = patches.tokens_BNC + pos_1PC
        inside_BP = box_coverage(crop.box_B4, self.template_side)
        if self.correlation is None:
            if self.binary_mask:
                inside_BP = box_mask(crop.box_B4, self.template_side).to(inside_BP.dtype)
            empty = tokens_BPC.new_zeros(len(tokens_BPC), 1, 0)
            keys_BKPF, pooled_BKF, fine_BKF = empty[..., None], empty, empty
        else:
            share = inside_BP[..., None]
            tokens_BPC = tokens_BPC + share * self.inside_embed[0] + (1 - share) * self.inside_embed[1]
            described = self.correlation.describe(patches.coarse_BNF, patches.fine_B4NF, inside_BP)
            keys_BKPF, pooled_BKF, fine_BKF = (part[:, None] for part in described)
        return Template(
            tokens_BMC=tokens_BPC, inside_BM=inside_BP, keys_BKPF=keys_BKPF, pooled_BKF=pooled_BKF, fine_BKF=fine_BKF
        )

    def search(
        self, image_B3SS: Tensor, template: Template, text: Text, text_only_B: Tensor, pos_1NC: Tensor | float = 0.0
    ) -> Search:
        """Embed a search crop or a letterboxed frame (B, 3, Sx, Sx), with positions added to its patches.

        ``text_only_B`` marks targets that are given by text alone.
        """
        # Patch tokens with positions
        patches: Patches = self.stem(image_B3SS)
        x_BNC = patches.tokens_BNC + pos_1NC
        text_only_B11, similarity_BN = text_only_B[:, None, None], None
        # Template correlation, unless the target is given by text alone
        if self.correlation is not None and not all_traced(text_only_B):
            channels = self.correlation(patches.coarse_BNF, patches.fine_B4NF, template)
            x_BNC = x_BNC + torch.where(text_only_B11, torch.zeros_like(channels), channels)
        # Text correlation, only then; in training it always runs, for the loss of its similarity
        has_tokens = bool(text.valid_BL.shape[1])
        if self.text_correlation is not None and has_tokens and (self.training or bool(text_only_B.any())):
            channels, similarity_BN = self.text_correlation(patches.coarse_BNF, patches.fine_B4NF, text)
            x_BNC = x_BNC + torch.where(text_only_B11, channels, torch.zeros_like(channels))
        # Skip features for the head
        skip_BNC = None
        if self.skip is not None:
            fine_BNF = patches.fine_B4NF.reshape(*x_BNC.shape[:2], -1)
            skip_BNC = self.skip(torch.cat([patches.coarse_BNF, fine_BNF], dim=-1))
        return Search(
            tokens_BNC=x_BNC, patches_BNC=patches.tokens_BNC, skip_BNC=skip_BNC, text_similarity_BN=similarity_BN
        )


class TemplateCorrelation(nn.Module):
    """Cosine similarity to every template cell and to the pooled target, as C channels per search token."""

    def __init__(self, coarse: int, fine: int, cells: int, templates: int, width: int) -> None:
        super().__init__()
        self.template_count = templates
        self.key = nn.Linear(coarse, coarse, bias=False)
        self.fine_key = nn.Linear(fine, fine, bias=False)
        nn.init.eye_(self.key.weight)
        nn.init.eye_(self.fine_key.weight)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.project = nn.Linear(templates * (cells + 5), width)

    def describe(self, coarse_BPF: Tensor, fine_B4PF: Tensor, inside_BP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Template side: unit keys (B, P, F) weighted by ``inside_BP``, pooled (B, F), pooled fine (B, F').

        ``fine_B4PF`` (B, 4P, F') are the features at stride 8, four per cell.
        """
        key_BPF = nn.functional.normalize(self.key(coarse_BPF).float(), dim=-1)
        fine_key = nn.functional.normalize(self.fine_key(fine_B4PF).float(), dim=-1)
        weight_BP1 = inside_BP[..., None].float()
        pooled_BF = nn.functional.normalize((key_BPF * weight_BP1).sum(dim=1), dim=-1)
        fine_weight = weight_BP1.repeat_interleave(4, dim=1)
        fine_pooled = nn.functional.normalize((fine_key * fine_weight).sum(dim=1), dim=-1)
        return key_BPF * weight_BP1, pooled_BF, fine_pooled

    def forward(self, coarse_BNF: Tensor, fine_B4NF: Tensor, template: Template) -> Tensor:
        """Search side: (B, N, C) to add to the search tokens."""
        b, n, _ = coarse_BNF.shape
        key_BNF = nn.functional.normalize(self.key(coarse_BNF).float(), dim=-1)
        fine_key = nn.functional.normalize(self.fine_key(fine_B4NF).float(), dim=-1)
        cells_BNM = key_BNF @ template.keys_BKPF.flatten(1, 2).transpose(1, 2)
        pooled_BNK = key_BNF @ template.pooled_BKF.transpose(1, 2)
        fine_BN4K = (fine_key @ template.fine_BKF.transpose(1, 2)).view(b, n, 4 * self.template_count)
        similarities = torch.cat([cells_BNM, pooled_BNK, fine_BN4K], dim=-1) * (INITIAL_SCALE * self.log_scale.exp())
        projected: Tensor = self.project(similarities)
        return projected


class TextCorrelation(nn.Module):
    """Cross-correlation of search features and word pieces, as C channels per search token.

    Each cell's features and place are compared with every word piece; learned weights of the pieces turn that
    into one similarity to the sentence. The output starts at zero.
    """

    def __init__(self, coarse: int, fine: int, width: int) -> None:
        super().__init__()
        self.cell_mlp = nn.Sequential(nn.Linear(coarse + 4 * fine + 4, width), nn.GELU(), nn.Linear(width, width))
        self.text_proj = nn.Linear(width, width)
        self.piece_weight = nn.Linear(width, 1)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.fuse = nn.Sequential(nn.Linear(2 * width + 2, width), nn.GELU())
        self.project = nn.Linear(width, width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, coarse_BNF: Tensor, fine_B4NF: Tensor, text: Text) -> tuple[Tensor, Tensor]:
        """Return (B, N, C) to add to the search tokens, and each cell's similarity to the sentence (B, N)."""
        b, n, _ = coarse_BNF.shape
        features = [coarse_BNF, fine_B4NF.reshape(b, n, -1), _places(b, n, coarse_BNF)]
        cells_BNC = self.cell_mlp(torch.cat(features, dim=-1))
        pieces_BLC = self.text_proj(text.tokens_BLC)
        unit_cells = nn.functional.normalize(cells_BNC.float(), dim=-1)
        unit_pieces = nn.functional.normalize(pieces_BLC.float(), dim=-1)
        similar_BNL = unit_cells @ unit_pieces.transpose(1, 2) * self.log_scale.exp()
        hidden_B1L = ~text.valid_BL[:, None, :]
        lowest = torch.finfo(similar_BNL.dtype).min
        # Similarity to the sentence: a weighted mean over its pieces
        weight_B1L = self.piece_weight(text.tokens_BLC).float().transpose(1, 2)
        weight_B1L = weight_B1L.masked_fill(hidden_B1L, lowest).softmax(dim=-1)
        sentence_BN1 = (similar_BNL * weight_B1L).masked_fill(hidden_B1L, 0.0).sum(dim=-1, keepdim=True)
        # Attention of each cell to the pieces
        attention_BNL = similar_BNL.masked_fill(hidden_B1L, lowest).softmax(dim=-1)
        context_BNC = attention_BNL @ pieces_BLC.float().masked_fill(~text.valid_BL[..., None], 0.0)
        below_best_BN1 = sentence_BN1 - sentence_BN1.amax(dim=1, keepdim=True)
        evidence = torch.cat([cells_BNC.float() * context_BNC, context_BNC, sentence_BN1, below_best_BN1], dim=-1)
        return self.project(self.fuse(evidence)), sentence_BN1[..., 0]


def _places(batch: int, cells: int, like: Tensor) -> Tensor:
    """(B, N, 4): column, row and their squares in [-1, 1], so that "left" and "middle" can be learned."""
    side = int(cells**0.5)
    steps = torch.linspace(-1, 1, side, device=like.device, dtype=like.dtype)
    columns, rows = steps[None, :].expand(side, side).flatten(), steps[:, None].expand(side, side).flatten()
    return torch.stack([columns, rows, columns**2, rows**2], dim=-1).expand(batch, -1, -1)

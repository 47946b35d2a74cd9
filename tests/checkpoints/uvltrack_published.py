"""UVLTrack computed from the tensors of a published file, in float64 and without any of our layers.

Written from the released code (OpenSpaceAI/UVLTrack), for comparison with our network.
"""

from __future__ import annotations

import math

import torch
from published_shapes import Shapes, UvlSizes
from torch import Tensor
from torch.nn import functional

Tensors = dict[str, Tensor]


def positions(width: int, side: int) -> Tensor:
    """(1, side * side, width): first half the column, second the row; of each half sines, then cosines."""
    table = torch.zeros(side * side, width, dtype=torch.float64)
    quarter = width // 4
    for row in range(side):
        for column in range(side):
            for half, place in enumerate((column, row)):
                for i in range(quarter):
                    angle = place / 10000 ** (i / quarter)
                    table[row * side + column, half * 2 * quarter + i] = math.sin(angle)
                    table[row * side + column, half * 2 * quarter + quarter + i] = math.cos(angle)
    return table[None]


def filled(shapes: Shapes, seed: int = 0) -> Tensors:
    """Random float32 tensors as a trained network could have them: variances positive, norms about one."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=random)
        if name.endswith("num_batches_tracked"):
            value = torch.tensor(1000)
        elif name.endswith("coodinate"):
            side = math.isqrt(shape[-1])
            columns = torch.arange(side).repeat(side)
            value = torch.stack([columns, torch.arange(side).repeat_interleave(side)])[None]
        elif "pos_embed" in name:
            value = positions(shape[2], math.isqrt(shape[1])).float()
        elif name.endswith("logit_scale"):
            value = 2.0 + 0.2 * value
        elif name.endswith("running_var"):
            value = 0.5 + value.abs()
        elif ("norm" in name.lower() or ".1.weight" in name) and name.endswith("weight"):
            value = 1.0 + 0.1 * value
        elif len(shape) > 1:
            value = value * math.prod(shape[1:]) ** -0.5
        else:
            value = 0.1 * value
        tensors[name] = value
    return tensors


# -- what the network computes ------------------------------------------------------------------------


class Published:
    """The released network in evaluation, from its own tensors. Flags: 0 box, 1 words, 2 both."""

    def __init__(self, tensors: Tensors, sizes: UvlSizes) -> None:
        self.t = {name: tensor.double() for name, tensor in tensors.items()}
        self.sizes = sizes
        self.zcells, self.xcells = (sizes.template // 16) ** 2, (sizes.search // 16) ** 2

    def linear(self, name: str, x: Tensor) -> Tensor:
        bias = self.t.get(f"{name}.bias")
        out = x @ self.t[f"{name}.weight"].T
        return out if bias is None else out + bias

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        variance = (x - mean).pow(2).mean(dim=-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + eps) * self.t[f"{name}.weight"] + self.t[f"{name}.bias"]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, closed: Tensor, closing: float) -> Tensor:
        """Heads of equal width; ``closed`` keys (B, N) get the number ``closing``, or lose that much."""
        b, n, c = q.shape
        d = c // self.sizes.heads
        q, k, v = (x.view(b, n, self.sizes.heads, d).transpose(1, 2) for x in (q, k, v))
        logits = q @ k.transpose(2, 3) / math.sqrt(d)
        closed = closed[:, None, None]
        logits = logits.masked_fill(closed, closing) if closing < -1e6 else logits + closing * closed
        return (logits.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c)

    def vit_block(self, i: int, x: Tensor, closed: Tensor) -> Tensor:
        name = f"backbone.vit.blocks.{i}."
        q, k, v = self.linear(f"{name}attn.qkv", self.norm(f"{name}norm1", x, 1e-6)).chunk(3, dim=-1)
        x = x + self.linear(f"{name}attn.proj", self.attend(q, k, v, closed, -1e10))
        hidden = functional.gelu(self.linear(f"{name}mlp.fc1", self.norm(f"{name}norm2", x, 1e-6)))
        return x + self.linear(f"{name}mlp.fc2", hidden)

    def bert_layer(self, i: int, x: Tensor, closed: Tensor) -> Tensor:
        name = f"backbone.bert.encoder.layer.{i}."
        q, k, v = (self.linear(f"{name}attention.self.{part}", x) for part in ("query", "key", "value"))
        x = x + self.linear(f"{name}attention.output.dense", self.attend(q, k, v, closed, -10000.0))
        x = self.norm(f"{name}attention.output.LayerNorm", x, 1e-12)
        hidden = functional.gelu(self.linear(f"{name}intermediate.dense", x))
        return self.norm(f"{name}output.LayerNorm", x + self.linear(f"{name}output.dense", hidden), 1e-12)

    def patches(self, image: Tensor) -> Tensor:
        weight, bias = (self.t[f"backbone.vit.patch_embed.proj.{part}"] for part in ("weight", "bias"))
        return functional.conv2d(image.double(), weight, bias, stride=16).flatten(2).transpose(1, 2)

    def words(self, ids: Tensor) -> Tensor:
        table = "backbone.bert.embeddings."
        x = self.t[f"{table}word_embeddings.weight"][ids]
        x = x + self.t[f"{table}position_embeddings.weight"][: ids.shape[1]]
        return self.norm(f"{table}LayerNorm", x + self.t[f"{table}token_type_embeddings.weight"][0], 1e-12)

    def backbone(self, template: Tensor, search: Tensor, ids: Tensor, mask: Tensor, flag: int) -> Tensors:
        """Tokens ``vis_token``, ``template``, ``search``, ``txt_token`` and ``logits`` of all layers."""
        b = len(search)
        z = self.patches(template) + self.t["backbone.vit.pos_embed_z"]
        x = self.patches(search) + self.t["backbone.vit.pos_embed_x"]
        seen = torch.cat([self.t["backbone.vit.cls_token"].expand(b, -1, -1), z, x], dim=1)
        said = self.words(ids)
        named = torch.full((b, 1 + self.zcells), flag == 1)
        closed_seen = torch.cat([named, torch.zeros(b, self.xcells, dtype=torch.bool)], dim=1)
        closed_said = ~mask if flag != 0 else torch.ones_like(mask)
        logits = []
        for i in range(self.sizes.layers):
            if i < self.sizes.split:
                seen, said = self.vit_block(i, seen, closed_seen), self.bert_layer(i, said, ~mask)
            else:
                modal = self.t["backbone.vit.modal_embed"]
                both = torch.cat([seen + modal[0], said + modal[1]], dim=1)
                both = self.vit_block(i, both, torch.cat([closed_seen, closed_said], dim=1))
                seen, said = both[:, : seen.shape[1]], both[:, seen.shape[1] :]
            logits.append(self.similarity(seen[:, 1 + self.zcells :], seen[:, 0], said[:, 0], flag))
        return {
            "vis_token": seen[:, 0],
            "template": seen[:, 1 : 1 + self.zcells],
            "search": seen[:, 1 + self.zcells :],
            "txt_token": said[:, 0],
            "logits": torch.stack(logits, dim=1),
        }

    def similarity(self, x: Tensor, vision: Tensor, text: Tensor, flag: int) -> Tensor:
        by = [
            (functional.normalize(x, dim=-1) * functional.normalize(u, dim=-1)[:, None]).sum(dim=-1)
            for u in (vision, text)
        ]
        return self.t["backbone.logit_scale"].exp() * [by[0], by[1], (by[0] + by[1]) / 2][flag]

    def prompts(self, out: Tensors, template_mask: Tensor, context_mask: Tensor, flag: int) -> Tensor:
        """(B, 3, C), one sample at a time: target, distractor, background."""
        vision, text = out["vis_token"], out["txt_token"]
        tokens = [vision, text, (vision + text) / 2][flag]
        rows = []
        for i, token in enumerate(tokens):
            source = self.t["box_head.prompter.query_embed.weight"].clone()
            source[0] += token
            if flag == 1:
                rows.append(source)
                continue
            keys = torch.cat([out["template"][i], out["search"][i]])
            inside = torch.cat([template_mask[i], context_mask[i]])
            cosines = torch.cosine_similarity(keys, token[None], dim=1)
            logits = self.t["box_head.prompter.logit_scale"].exp() * cosines
            others = logits.masked_fill(inside, -1e20).softmax(dim=0)
            ascending = others.sort().values
            least_distractor = ascending[ascending.cumsum(dim=0) >= 0.25].min()
            groups = [inside, ~inside & (others >= least_distractor), ~inside & (others < least_distractor)]
            pooled = [logits.masked_fill(~group, -1e20).softmax(dim=0) @ keys for group in groups]
            source = torch.stack(pooled) + source
            hidden = functional.gelu(self.linear("box_head.prompter.mlp.fc1", source))
            rows.append(source + self.linear("box_head.prompter.mlp.fc2", hidden))
        return torch.stack(rows)

    def tower(self, name: str, grid: Tensor) -> Tensor:
        for i in range(4):
            of = f"box_head.{name}.{i}."
            grid = functional.conv2d(grid, self.t[f"{of}0.weight"], self.t[f"{of}0.bias"], padding=1)
            mean, variance, gain, shift = (
                self.t[f"{of}1.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
            )
            grid = ((grid - mean) / torch.sqrt(variance + 1e-5) * gain + shift).clamp_min(0)
        return functional.conv2d(grid, self.t[f"box_head.{name}.4.weight"], self.t[f"box_head.{name}.4.bias"])

    def head(self, out: Tensors, prompts: Tensor, flag: int, *, grounding: bool) -> tuple[Tensor, ...]:
        """Center (B, S, S), presence (B, S, S), boxes (B, S, S, 4): cx, cy, w, h of the crop."""
        x = out["search"]
        b, n, c = x.shape
        side = math.isqrt(n)
        grid = x.transpose(1, 2).reshape(b, c, side, side)
        cosines = functional.normalize(x, dim=-1) @ functional.normalize(prompts, dim=-1).transpose(1, 2)
        scores = self.t["box_head.logit_scale"].exp() * cosines
        other = torch.maximum(scores[..., 1:].amax(dim=-1), torch.zeros(b, n, dtype=torch.float64))
        logits = [scores[..., 0], other] if grounding else [scores[..., 0], other, torch.zeros_like(other)]
        presence = torch.stack(logits, dim=-1).softmax(dim=-1)[..., 0].view(b, side, side)
        center = self.tower("conv_cls", grid)[:, 0].sigmoid()
        offset = self.tower("conv_offset", grid).sigmoid().flatten(2)
        size = self.tower("conv_bbox_grounding" if flag == 1 else "conv_bbox", grid).sigmoid().flatten(2)
        middle = (self.t["box_head.coodinate"] + offset) / side
        boxes = torch.cat([middle, size], dim=1).transpose(1, 2).view(b, side, side, 4)
        return center, presence, boxes


def box_mask(box_cxcywh: Tensor, side: int) -> Tensor:
    """(B, side * side): cells whose center is strictly inside, and the cell that holds the box's center."""
    mask = torch.zeros(len(box_cxcywh), side, side, dtype=torch.bool)
    for i, (cx, cy, w, h) in enumerate((box_cxcywh.double() * side).tolist()):
        for row in range(side):
            for column in range(side):
                across = cx - w / 2 < column + 0.5 < cx + w / 2
                mask[i, row, column] = across and cy - h / 2 < row + 0.5 < cy + h / 2
        mask[i, int(cy), int(cx)] = True
    return mask.flatten(1)

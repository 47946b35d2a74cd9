"""STARK-ST computed from the tensors of a published file, in float64 and without any of our layers.

Written from the released code (researchmm/Stark), for comparison with our network.
"""

from __future__ import annotations

import math

import torch
from published_shapes import STATISTICS, StarkSizes
from torch import Tensor
from torch.nn import functional as F

Tensors = dict[str, Tensor]


def forward(
    tensors: Tensors,
    sizes: StarkSizes,
    templates: tuple[Tensor, ...],
    search: Tensor,
    *,
    start: int = 1,
    padded: tuple[Tensor, ...] | None = None,
) -> tuple[Tensor, Tensor]:
    """Corners (B, 4) as x1, y1, x2, y2 in units of the crop, and the score's logit (B,), 0 without a score head.

    ``padded`` are the masks (B, S, S) of the templates (first, dynamic) and the search region. The number of the
    first cell (``start``) is there for tests to get wrong.
    """
    p = {name.removeprefix("net."): tensor.double() for name, tensor in tensors.items()}
    parts, places, hidden = [], [], []
    for number, image in enumerate((*templates, search)):
        x = _resnet({n[16:]: t for n, t in p.items() if n.startswith("backbone.0.body.")}, image.double())
        x = F.conv2d(x, p["bottleneck.weight"], p["bottleneck.bias"])
        parts.append(x.flatten(2).mT)
        mask = torch.zeros(len(x), *image.shape[2:], dtype=torch.bool) if padded is None else padded[number]
        mask = F.interpolate(mask[None].float(), size=x.shape[2:])[0] > 0
        places.append(torch.stack([_sines(sizes.width, ~one, start) for one in mask]))
        hidden.append(mask.flatten(1))
    x, pos, off = torch.cat(parts, dim=1), torch.cat(places, dim=1), torch.cat(hidden, dim=1)
    for i in range(sizes.layers):
        w = _under(p, f"transformer.encoder.layers.{i}.")
        x = _norm_(w, "norm1", x + _attend(w, "self_attn", sizes.heads, x + pos, x + pos, x, off))
        x = _norm_(w, "norm2", x + _ffn(w, x))
    query, found = p["query_embed.weight"], torch.zeros_like(x[:, :1])
    for i in range(sizes.layers):
        w, asking = _under(p, f"transformer.decoder.layers.{i}."), found + query
        found = _norm_(w, "norm1", found + _attend(w, "self_attn", sizes.heads, asking, asking, found))
        seen = _attend(w, "multihead_attn", sizes.heads, found + query, x + pos, x, off)
        found = _norm_(w, "norm2", found + seen)
        found = _norm_(w, "norm3", found + _ffn(w, found))
    found = _norm_(_under(p, "transformer.decoder."), "norm", found)
    side = sizes.search // 16
    region = x[:, -side * side :]
    weighed = region * (region @ found.mT)
    grid = weighed.mT.reshape(len(x), -1, side, side)
    corners = torch.cat([_corner(p, grid, name) for name in ("tl", "br")], dim=1)
    h = found[:, 0]
    if "cls_head.layers.0.weight" not in p:
        return corners, torch.zeros(len(x))
    for i in range(3):
        h = F.linear(h, p[f"cls_head.layers.{i}.weight"], p[f"cls_head.layers.{i}.bias"])
        h = h if i == 2 else F.relu(h)
    return corners, h[:, 0]


def _under(p: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in p.items() if name.startswith(prefix)}


def _resnet(p: Tensors, x: Tensor) -> Tensor:
    def norm(name: str, y: Tensor) -> Tensor:
        weight, bias, mean, var = (p[f"{name}.{part}"][:, None, None] for part in STATISTICS)
        return (y - mean) / (var + 1e-5).sqrt() * weight + bias

    x = F.max_pool2d(F.relu(norm("bn1", F.conv2d(x, p["conv1.weight"], stride=2, padding=3))), 3, 2, 1)
    for name in dict.fromkeys(n.rpartition(".conv1")[0] for n in p if ".conv1." in n):
        stride = 2 if name in ("layer2.0", "layer3.0") else 1
        y = F.relu(norm(f"{name}.bn1", F.conv2d(x, p[f"{name}.conv1.weight"])))
        y = F.conv2d(y, p[f"{name}.conv2.weight"], stride=stride, padding=1)
        y = F.conv2d(F.relu(norm(f"{name}.bn2", y)), p[f"{name}.conv3.weight"])
        if f"{name}.downsample.0.weight" in p:
            x = norm(f"{name}.downsample.1", F.conv2d(x, p[f"{name}.downsample.0.weight"], stride=stride))
        x = F.relu(norm(f"{name}.bn3", y) + x)
    return x


def _sines(width: int, seen: Tensor, start: int) -> Tensor:
    """Row half, then column half; sine and cosine alternate; seen cells start, start + 1, ... over a circle."""
    side = len(seen)
    pos = torch.zeros(side, side, width, dtype=torch.float64)
    half = width // 2
    for channel in range(width):
        inner = channel % half
        axis = 0 if channel < half else 1
        cells = seen.double().cumsum(axis) - 1 + start
        angle = cells / (cells.narrow(axis, -1, 1) + 1e-6) * 2 * math.pi / 10000 ** (2 * (inner // 2) / half)
        pos[..., channel] = angle.cos() if inner % 2 else angle.sin()
    return pos.view(side * side, width)


def _attend(w: Tensors, name: str, heads: int, q: Tensor, k: Tensor, v: Tensor, off: Tensor | None = None) -> Tensor:
    b, n, c = q.shape
    weights, shifts = w[f"{name}.in_proj_weight"].chunk(3), w[f"{name}.in_proj_bias"].chunk(3)
    q, k, v = (
        F.linear(t, *m).view(b, -1, heads, c // heads).transpose(1, 2)
        for t, m in zip((q, k, v), zip(weights, shifts, strict=True), strict=True)
    )
    logits = q @ k.mT / math.sqrt(c // heads)
    if off is not None:
        logits = logits.masked_fill(off[:, None, None], -math.inf)
    mixed = (logits.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c)
    return F.linear(mixed, w[f"{name}.out_proj.weight"], w[f"{name}.out_proj.bias"])


def _ffn(w: Tensors, x: Tensor) -> Tensor:
    inner = F.relu(F.linear(x, w["linear1.weight"], w["linear1.bias"]))
    return F.linear(inner, w["linear2.weight"], w["linear2.bias"])


def _norm_(w: Tensors, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)


def _corner(p: Tensors, x: Tensor, corner: str) -> Tensor:
    """Expected column and row, in pixels of cells 16 wide, over the side in pixels."""
    for layer in range(1, 5):
        name = f"box_head.conv{layer}_{corner}"
        x = F.conv2d(x, p[f"{name}.0.weight"], p[f"{name}.0.bias"], padding=1)
        weight, bias, mean, var = (p[f"{name}.1.{part}"] for part in STATISTICS)
        x = F.relu(F.batch_norm(x, mean, var, weight, bias, eps=1e-5))
    x = F.conv2d(x, p[f"box_head.conv5_{corner}.weight"], p[f"box_head.conv5_{corner}.bias"])
    side = x.shape[-1]
    share = x.flatten(1).softmax(dim=1)
    cells = torch.arange(side * side)
    pixels = torch.stack([cells % side, cells // side]).double() * 16
    return share @ pixels.mT / (side * 16)

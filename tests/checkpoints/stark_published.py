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
    tensors: Tensors, sizes: StarkSizes, templates: tuple[Tensor, Tensor], search: Tensor, *, start: int = 1
) -> tuple[Tensor, Tensor]:
    """Corners (B, 4) as x1, y1, x2, y2 in units of the crop, and the score's logit (B,).

    The templates (first, dynamic) and the search region have masks without padding. The number of the first
    cell (``start``) is there for tests to get wrong.
    """
    p = {name.removeprefix("net."): tensor.double() for name, tensor in tensors.items()}
    parts, places = [], []
    for image in (*templates, search):
        x = _resnet({n[16:]: t for n, t in p.items() if n.startswith("backbone.0.body.")}, image.double())
        x = F.conv2d(x, p["bottleneck.weight"], p["bottleneck.bias"])
        parts.append(x.flatten(2).mT)
        places.append(_sines(sizes.width, x.shape[-1], start))
    x, pos = torch.cat(parts, dim=1), torch.cat(places)
    for i in range(sizes.layers):
        w = _under(p, f"transformer.encoder.layers.{i}.")
        x = _norm_(w, "norm1", x + _attend(w, "self_attn", sizes.heads, x + pos, x + pos, x))
        x = _norm_(w, "norm2", x + _ffn(w, x))
    query, found = p["query_embed.weight"], torch.zeros_like(x[:, :1])
    for i in range(sizes.layers):
        w, asking = _under(p, f"transformer.decoder.layers.{i}."), found + query
        found = _norm_(w, "norm1", found + _attend(w, "self_attn", sizes.heads, asking, asking, found))
        seen = _attend(w, "multihead_attn", sizes.heads, found + query, x + pos, x)
        found = _norm_(w, "norm2", found + seen)
        found = _norm_(w, "norm3", found + _ffn(w, found))
    found = _norm_(_under(p, "transformer.decoder."), "norm", found)
    side = sizes.search // 16
    region = x[:, -side * side :]
    weighed = region * (region @ found.mT)
    grid = weighed.mT.reshape(len(x), -1, side, side)
    corners = torch.cat([_corner(p, grid, name) for name in ("tl", "br")], dim=1)
    h = found[:, 0]
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


def _sines(width: int, side: int, start: int) -> Tensor:
    """Row half, then column half; sine and cosine alternate; cells start, start + 1, ... over a circle."""
    pos = torch.zeros(side, side, width, dtype=torch.float64)
    half = width // 2
    for channel in range(width):
        inner = channel % half
        cells = torch.arange(start, side + start, dtype=torch.float64) / (side - 1 + start + 1e-6)
        angle = cells * 2 * math.pi / 10000 ** (2 * (inner // 2) / half)
        wave = angle.cos() if inner % 2 else angle.sin()
        pos[..., channel] = wave[:, None] if channel < half else wave[None, :]
    return pos.view(side * side, width)


def _attend(w: Tensors, name: str, heads: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, n, c = q.shape
    weights, shifts = w[f"{name}.in_proj_weight"].chunk(3), w[f"{name}.in_proj_bias"].chunk(3)
    q, k, v = (
        F.linear(t, *m).view(b, -1, heads, c // heads).transpose(1, 2)
        for t, m in zip((q, k, v), zip(weights, shifts, strict=True), strict=True)
    )
    mixed = ((q @ k.mT / math.sqrt(c // heads)).softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c)
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

"""STARK-ST as it is published: the names and shapes in its files, and what the network computes from them.

Written from the released code's facts (researchmm/Stark), one line of arithmetic after the other, in float64
and without any of our layers, so that tests can hold ours against it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Shapes = dict[str, tuple[int, ...]]
Tensors = dict[str, Tensor]
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STATISTICS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of a released network; ``channel`` halves with every layer of a tower, ``layers`` are of each stack."""

    depth: int = 101
    width: int = 256
    heads: int = 8
    hidden: int = 2048
    layers: int = 6
    channel: int = 256
    template: int = 128
    search: int = 320


def resnet_shapes(depth: int, stages: int = 4, *, counters: bool = False) -> Shapes:
    """torchvision's file, with ``stages=3`` STARK's ``backbone.0.body``."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7)} | _norm("bn1", 64, counters)
    inside = 64
    for stage, blocks in enumerate(BLOCKS[depth][:stages], start=1):
        channels = 32 << stage
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            for conv, shape in (
                (1, (channels, inside, 1, 1)),
                (2, (channels, channels, 3, 3)),
                (3, (4 * channels, channels, 1, 1)),
            ):
                shapes |= {f"{name}.conv{conv}.weight": shape}
                shapes |= _norm(f"{name}.bn{conv}", shape[0], counters)
            if block == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * channels, inside, 1, 1)}
                shapes |= _norm(f"{name}.downsample.1", 4 * channels, counters)
            inside = 4 * channels
    if stages == 4:
        shapes |= _linear("fc", 1000, 2048)
    return shapes


def stark_shapes(sizes: Sizes, wrapper: str = "net.") -> Shapes:
    """STARKST_ep0050.pth.tar: the entries under ``net``."""
    c = sizes.width
    shapes = {f"backbone.0.body.{name}": shape for name, shape in resnet_shapes(sizes.depth, 3).items()}
    shapes |= {"bottleneck.weight": (c, 1024, 1, 1), "bottleneck.bias": (c,), "query_embed.weight": (1, c)}
    for stack, attentions, norms in (("encoder", ("self_attn",), 2), ("decoder", ("self_attn", "multihead_attn"), 3)):
        for i in range(sizes.layers):
            layer = f"transformer.{stack}.layers.{i}."
            for attention in attentions:
                name = f"{layer}{attention}."
                shapes |= {f"{name}in_proj_weight": (3 * c, c), f"{name}in_proj_bias": (3 * c,)}
                shapes |= _linear(f"{name}out_proj", c, c)
            shapes |= _linear(f"{layer}linear1", sizes.hidden, c) | _linear(f"{layer}linear2", c, sizes.hidden)
            for norm in range(1, norms + 1):
                shapes |= {f"{layer}norm{norm}.weight": (c,), f"{layer}norm{norm}.bias": (c,)}
    shapes |= {"transformer.decoder.norm.weight": (c,), "transformer.decoder.norm.bias": (c,)}
    for corner in ("tl", "br"):
        inside = c
        for layer_ in range(1, 5):
            outside = sizes.channel >> (layer_ - 1)
            name = f"box_head.conv{layer_}_{corner}"
            shapes |= {f"{name}.0.weight": (outside, inside, 3, 3), f"{name}.0.bias": (outside,)}
            shapes |= _norm(f"{name}.1", outside, counters=True)
            inside = outside
        shapes |= {f"box_head.conv5_{corner}.weight": (1, inside, 1, 1), f"box_head.conv5_{corner}.bias": (1,)}
    for i, out in enumerate((c, c, 1)):
        shapes |= _linear(f"cls_head.layers.{i}", out, c)
    return {wrapper + name: shape for name, shape in shapes.items()}


def _norm(name: str, channels: int, counters: bool) -> Shapes:
    count: Shapes = {f"{name}.num_batches_tracked": ()} if counters else {}
    return {f"{name}.{part}": (channels,) for part in STATISTICS} | count


def _linear(name: str, out: int, inside: int) -> Shapes:
    return {f"{name}.weight": (out, inside), f"{name}.bias": (out,)}


def filled(shapes: Shapes, seed: int = 0) -> Tensors:
    """Random weights that keep activations of ordinary size, so that nothing saturates."""
    random, tensors = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=random)
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.zeros(shape, dtype=torch.long)
        elif name.endswith("running_var"):
            tensors[name] = 0.5 + drawn.abs()
        elif ".bn3." in name and name.endswith("weight"):
            tensors[name] = 0.3 + 0.1 * drawn  # residual parts smaller than the way around them
        elif len(shape) > 1 and "query" not in name:
            peaked = 0.5 if "conv5" in name else 1.4
            tensors[name] = peaked * drawn / math.sqrt(math.prod(shape[1:]))
        else:
            tensors[name] = 0.3 * drawn + (1.0 if len(shape) == 1 and name.endswith(".weight") else 0.0)
    return tensors


def forward(
    tensors: Tensors, sizes: Sizes, templates: tuple[Tensor, Tensor], search: Tensor, *, start: int = 1
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

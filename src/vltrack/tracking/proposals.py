"""Boxes that may be named in an image, and their rank for a sentence; our design (``models.grounder``).

The networks run in graphs (``export.graphs``) or in torch; what is between them is numpy.

Shapes: N boxes, K classes, F features of a position, P points of a box. Boxes are x0, y0, x1, y1 in shares of the
image's width and height.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.core.types import Image
from vltrack.nn.runtime import Arrays
from vltrack.prep.crops import fit_side

if TYPE_CHECKING:
    from vltrack.models.grounder import Grounder

Floats = NDArray[Any]
Shape = tuple[int, int]
BOX, HEAD, PAIR = 0, 1, 2
"""Kinds of proposals."""


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """Boxes of one image and what is known of each.

    Attributes:
        box_N4: x0, y0, x1, y1 in shares of the image.
        aspect: width of the image over its height.
        logits_NK: class logits of the detector; of parts and pairs those of what they belong to.
        feature_NF: features of the neck at the cell, and at ``models.grounder.POINTS`` of the box.
        color_NG: mean Lab colors of ``models.grounder.GRID``, divided by 100.
        kind_N: ``BOX``, ``HEAD`` or ``PAIR``.
        owners_N2: of a part its owner twice, of a pair its members, of other boxes -1.
    """

    box_N4: Floats
    aspect: float
    logits_NK: Floats
    feature_NF: Floats
    color_NG: Floats
    kind_N: NDArray[np.int64]
    owners_N2: NDArray[np.int64]


class Proposer:
    """Proposes boxes and ranks them. ``run`` is called with the name of one of ``Grounder.calls`` and its inputs."""

    def __init__(self, run: Callable[[str, Arrays], Arrays], sizes: Mapping[str, Any]) -> None:
        self.run, self.sizes = run, sizes
        self.mean, self.std = tuple(sizes["mean"]), tuple(sizes["std"])

    @classmethod
    def in_torch(cls, grounder: Grounder, device: str = "cpu") -> Self:
        """Around a grounder, which is moved to the device."""
        import torch

        calls = grounder.to(device).calls()

        @torch.inference_mode()
        def run(name: str, arrays: Arrays) -> Arrays:
            made = calls[name]({key: torch.from_numpy(array).to(device) for key, array in arrays.items()})
            return {key: tensor.cpu().numpy() for key, tensor in made.items()}

        return cls(run, grounder.sizes)

    def propose(self, image: Image) -> Proposals:
        """Find boxes in an image (H, W, 3) RGB uint8."""
        sizes = self.sizes
        inputs = [fit_side(image, side, self.mean, self.std) for side in sizes["scales"]]
        seen = [self.run("detect", {"image": array}) for array, _ in inputs]
        scaled = [
            made["position_N4"] / np.array([width, height, width, height], dtype=np.float32)
            for made, (_, (height, width)) in zip(seen, inputs, strict=True)
        ]
        box_N4 = np.concatenate(scaled).clip(0, 1)
        score_N = _sigmoid(np.concatenate([made["position_NK"].max(axis=1) for made in seen]))
        side_N = (box_N4[:, 2:] - box_N4[:, :2]).min(axis=1)
        usable = np.flatnonzero((score_N > sizes["threshold"]) & (side_N > 0.004))
        order = usable[np.argsort(-score_N[usable], kind="stable")[: sizes["candidates"]]]
        if not len(order):  # nothing at all: the whole image is the one box
            order = np.array([score_N.argmax()])
            box_N4[order] = [0, 0, 1, 1]
        kept = order[_suppress(box_N4[order], sizes["overlap"], sizes["proposals"])]
        box_N4, logits_NK, cell_NF = box_N4[kept], _rows(seen, "position_NK", kept), _rows(seen, "position_NF", kept)
        array, shape = inputs[-1]
        maps, aspect = maps_of(seen[-1]["position_NF"], array.shape[2:]), shape[1] / shape[0]
        owners_M2, kinds, extra_M4 = self._derived(box_N4, logits_NK, aspect, maps, shape)
        all_N4 = np.concatenate([box_N4, extra_M4])
        roi_NF = _sample(maps, shape, all_N4, sizes["points"]).reshape(len(all_N4), -1)
        cells_NF = np.concatenate([cell_NF, cell_NF[owners_M2].mean(axis=1)])
        return Proposals(
            box_N4=all_N4,
            aspect=aspect,
            logits_NK=np.concatenate([logits_NK, logits_NK[owners_M2].max(axis=1)]),
            feature_NF=np.concatenate([cells_NF, roi_NF], axis=1),
            color_NG=_mean_colors(*inputs[0], all_N4, sizes),
            kind_N=np.array([BOX] * len(kept) + kinds, dtype=np.int64),
            owners_N2=np.concatenate([np.full((len(kept), 2), -1), owners_M2]),
        )

    def rank(self, found: Proposals, ids: NDArray[np.int64]) -> Floats:
        """(N + 1,) probabilities of the boxes and, last, of "none fits"; ``ids`` (L,) are without padding."""
        named = {**vars(found), "aspect": np.array([found.aspect], dtype=np.float32), "ids": ids[None]}
        return self.run("rank", named)["probability_M"]

    def _derived(
        self, box_N4: Floats, logits_NK: Floats, aspect: float, maps: Sequence[Floats], shape: Shape
    ) -> tuple[NDArray[np.int64], list[int], Floats]:
        """Owners (M, 2), kinds and boxes (M, 4) of heads and pairs."""
        probability_NK = _sigmoid(logits_NK)
        person_N = probability_NK[:, self.sizes["classes"].index("person")].tolist()
        people = [i for i, probability in enumerate(person_N) if probability > 0.15]
        people = sorted(people, key=lambda i: -person_N[i])[: self.sizes["heads_of"]]
        owners, boxes = [(i, i) for i in people], [np.zeros((0, 4), dtype=np.float32)]
        if people:
            boxes.append(self.run("heads", self.head_inputs(maps, shape, box_N4[people]))["head_N4"])
        mount_N = probability_NK[:, list(self.sizes["mounts"])].max(axis=1)
        mounts = [i for i in range(len(mount_N)) if mount_N[i] > 0.15 and i not in people]
        pairs: list[tuple[float, int, int]] = []
        for i in people:
            for j in (*mounts, *(p for p in people if p > i)):
                if score := _pair_score(box_N4[i].tolist(), box_N4[j].tolist(), aspect, mount=j in mounts):
                    pairs.append((score * person_N[i], i, j))
        pairs = sorted(pairs, reverse=True)[: self.sizes["pairs"]]
        for _, i, j in pairs:
            owners.append((i, j))
            low, high = np.minimum(box_N4[i, :2], box_N4[j, :2]), np.maximum(box_N4[i, 2:], box_N4[j, 2:])
            boxes.append(np.concatenate([low, high])[None])
        kinds = [HEAD] * len(people) + [PAIR] * len(pairs)
        return np.array(owners, dtype=np.int64).reshape(-1, 2), kinds, np.concatenate(boxes)

    def head_inputs(self, maps: Sequence[Floats], shape: Shape, box_N4: Floats) -> Arrays:
        """What ``heads`` reads: features of the upper halves of people, facts about their boxes, and the boxes."""
        height, width = shape
        size_N2 = box_N4[:, 2:] - box_N4[:, :2]
        upper_N4 = np.concatenate([box_N4[:, :2], box_N4[:, 2:] - size_N2 * np.array([0, 0.5], np.float32)], axis=1)
        ratio_N = np.log((size_N2[:, 0] * width / (size_N2[:, 1] * height).clip(1e-3)).clip(1e-3))
        about = [ratio_N, np.log(size_N2[:, 1].clip(1e-3)), box_N4[:, 1] < 0.01, box_N4[:, 3] > 0.99]
        return {
            "point_NPF": _sample(maps, shape, upper_N4, self.sizes["head_points"]),
            "about_N4": np.stack(about, axis=1).astype(np.float32),
            "person_N4": box_N4,
        }


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def _rows(seen: Sequence[Arrays], name: str, index_N: NDArray[np.int64]) -> Floats:
    """Rows of the arrays of a name, counted on from one to the next."""
    starts = np.cumsum([0, *(len(made[name]) for made in seen)])
    part_N = np.searchsorted(starts, index_N, side="right") - 1
    return np.stack([seen[part][name][row - starts[part]] for part, row in zip(part_N, index_N, strict=True)])


def maps_of(position_NF: Floats, shape: Sequence[int]) -> list[Floats]:
    """Features (rows, columns, F) of the strides 8, 16 and 32 from those of all positions of a padded image (H, W)."""
    maps, at = [], 0
    for stride in (8, 16, 32):
        rows, columns = shape[0] // stride, shape[1] // stride
        maps.append(position_NF[at : (at := at + rows * columns)].reshape(rows, columns, -1))
    return maps


def _sample(maps: Sequence[Floats], shape: Shape, box_N4: Floats, points: Sequence[int]) -> Floats:
    """(N, P, F) bilinear features at ``points`` (columns, rows) of each box, from the level that fits its size."""
    height, width = shape
    side_N = np.sqrt(((box_N4[:, 2] - box_N4[:, 0]) * width * (box_N4[:, 3] - box_N4[:, 1]) * height).clip(1))
    x, y = ((np.arange(count, dtype=np.float32) + 0.5) / count for count in points)
    share_P2 = np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=1)
    point_NP2 = box_N4[:, None, :2] + share_P2 * (box_N4[:, 2:] - box_N4[:, :2])[:, None]
    out_NPF = np.zeros((len(box_N4), len(share_P2), maps[0].shape[2]), dtype=np.float32)
    level_N = np.round(np.log2(side_N / (8 * max(points)))).clip(0, 2)
    for number, (map_RCF, stride) in enumerate(zip(maps, (8, 16, 32), strict=True)):
        chosen = np.flatnonzero(level_N == number)
        place = point_NP2[chosen] * np.array([width / stride, height / stride], dtype=np.float32) - 0.5
        out_NPF[chosen] = _bilinear(map_RCF, place)
    return out_NPF


def _bilinear(map_RCF: Floats, place_NP2: Floats) -> Floats:
    """(N, P, F) of a map at places x, y in cells, whose centers are whole numbers; zero outside."""
    rows, columns, width = map_RCF.shape
    low = np.floor(place_NP2)
    share, low = place_NP2 - low, low.astype(np.int64)
    out = np.zeros((*place_NP2.shape[:2], width), dtype=np.float32)
    for right in (0, 1):
        for below in (0, 1):
            x, y = low[..., 0] + right, low[..., 1] + below
            weight = (share[..., 0] if right else 1 - share[..., 0]) * (share[..., 1] if below else 1 - share[..., 1])
            weight = weight * ((x >= 0) & (x < columns) & (y >= 0) & (y < rows))
            out += weight[..., None] * map_RCF[y.clip(0, rows - 1), x.clip(0, columns - 1)]
    return out


def _suppress(box_N4: Floats, overlap: float, most: int) -> list[int]:
    """Indices of boxes, best first, of which no two overlap by more than ``overlap``."""
    x0, y0, x1, y1 = box_N4.T
    area_N, left_N = (x1 - x0) * (y1 - y0), np.ones(len(box_N4), dtype=bool)
    kept: list[int] = []
    for i in range(len(box_N4)):
        if len(kept) == most:
            break
        if left_N[i]:
            kept.append(i)
            across, down = np.minimum(x1, x1[i]) - np.maximum(x0, x0[i]), np.minimum(y1, y1[i]) - np.maximum(y0, y0[i])
            shared_N = across.clip(0) * down.clip(0)
            left_N &= shared_N <= overlap * (area_N + area_N[i] - shared_N).clip(1e-9)
    return kept


def _pair_score(a: Sequence[float], b: Sequence[float], aspect: float, *, mount: bool) -> float:
    """How much a person ``a`` and a mount or second person ``b`` look like a pair; 0: not at all."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a, b
    across = min(ax1, bx1) - max(ax0, bx0)
    down = min(ay1, by1) - max(ay0, by0)
    if mount:
        if across < 0.4 * min(ax1 - ax0, bx1 - bx0) or down < -0.05 * (ay1 - ay0) or by1 < ay0 + 0.5 * (ay1 - ay0):
            return 0.0
        return 1.5
    tall, other = ay1 - ay0, by1 - by0
    if down < 0.7 * max(tall, other) or across > 0.5 * min(ax1 - ax0, bx1 - bx0):
        return 0.0
    return max(0.0, 1.0 + float(across * aspect / (0.35 * tall)))


def _mean_colors(image: Floats, shape: Shape, box_N4: Floats, sizes: Mapping[str, Any]) -> Floats:
    """(N, 3 * columns * rows) mean Lab colors of a grid in each box, divided by 100."""
    height, width = shape
    rgb = image[0, :, :height, :width].transpose(1, 2, 0) * np.array(sizes["std"], np.float32)
    rgb = np.ascontiguousarray(rgb + np.array(sizes["mean"], np.float32))
    total = cv2.integral(rgb, sdepth=cv2.CV_64F).transpose(2, 0, 1)
    columns, rows = sizes["grid"]
    edges = [
        low[:, None] + (high - low)[:, None] * np.linspace(0, 1, count + 1, dtype=np.float32)
        for low, high, count in ((box_N4[:, 0], box_N4[:, 2], columns), (box_N4[:, 1], box_N4[:, 3], rows))
    ]
    x_NE = np.round(edges[0] * np.float32(width)).astype(np.int64).clip(0, width)
    y_NE = np.round(edges[1] * np.float32(height)).astype(np.int64).clip(0, height)
    x0, y0 = x_NE[:, :-1].clip(None, width - 1)[:, None], y_NE[:, :-1].clip(None, height - 1)[..., None]
    x1, y1 = np.maximum(x_NE[:, 1:][:, None], x0 + 1), np.maximum(y_NE[:, 1:][..., None], y0 + 1)
    mean_3NRC = (total[:, y1, x1] - total[:, y0, x1] - total[:, y1, x0] + total[:, y0, x0]) / ((y1 - y0) * (x1 - x0))
    return lab_of(mean_3NRC.astype(np.float32).transpose(1, 2, 3, 0)).reshape(len(box_N4), -1) / 100


_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=np.float32,
)


def lab_of(rgb: Floats) -> Floats:
    """CIE Lab (D65) of sRGB colors (..., 3) in [0, 1]."""
    rgb = rgb.clip(0, 1)
    linear = np.where(rgb > 0.04045, ((rgb + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4), rgb / 12.92)
    xyz = linear.astype(np.float32) @ _TO_XYZ.T / np.array([0.95047, 1.0, 1.08883], dtype=np.float32)
    f = np.where(xyz > 0.008856, xyz.clip(1e-8) ** np.float32(1 / 3), np.float32(7.787) * xyz + np.float32(16 / 116))
    lab = [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])]
    return np.stack(lab, axis=-1).astype(np.float32)

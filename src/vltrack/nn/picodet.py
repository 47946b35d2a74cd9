"""PicoDet-S, a detector of COCO's 80 classes with 0.98 M parameters: ESNet backbone, CSP-PAN neck, a head per level.

Source: PP-PicoDet (Yu et al., arXiv 2111.00902), PaddleDetection, Apache-2.0; batch norm is folded into the
convolutions' bias, so that nothing depends on the batch and every parameter can be fine-tuned.

Shapes: B batch, C channels, K classes, D = 4 sides * 8 bins, N positions of all levels. Modules are registered in
the order in which the published file numbers its convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vltrack.nn.attention import tracing

MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
"""Of R, G and B in [0, 1]: the input is (image - MEAN) / STD."""
STRIDES = (8, 16, 32, 64)
WIDTH = 96
"""Channels of every level after the neck."""
BINS = 8
"""Distances 0 to 7 strides, between which a side of a box is expected."""

# Per stage: channels, and the hidden channels of its blocks, the first of which halves the resolution (the
# paper's architecture search chose them).
_STEM = 24
_STAGES = ((96, (44, 48, 48)), (192, (48, 120, 96, 120, 96, 96, 96)), (384, (96, 192, 192)))

CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)


@dataclass(frozen=True, kw_only=True)
class Level:
    """What the detector predicts at every position of one stride.

    Attributes:
        stride: pixels between positions; position (row, column) is the pixel ((column + 0.5) * stride,
            (row + 0.5) * stride).
        feature_BCHW: after the neck, 96 channels.
        class_logits_BKHW: of ``CLASSES``, before a sigmoid each.
        box_logits_BDHW: left, top, right, bottom, 8 bins each; ``boxes_of`` decodes them.
    """

    stride: int
    feature_BCHW: Tensor
    class_logits_BKHW: Tensor
    box_logits_BDHW: Tensor


def boxes_of(levels: Sequence[Level]) -> Tensor:
    """Box of every position (B, N, 4) float32: x0, y0, x1, y1 in input pixels, level by level, row by row.

    The distance to a side is the expectation over its bins, in strides; boxes may reach beyond the image.
    """
    centers, strides = [], []
    for level in levels:
        height, width = level.box_logits_BDHW.shape[2], level.box_logits_BDHW.shape[3]
        y_H, x_W = (torch.arange(side, device=level.box_logits_BDHW.device) + 0.5 for side in (height, width))
        centers.append(torch.stack(torch.meshgrid(x_W, y_H, indexing="xy")).flatten(1) * level.stride)
        strides.append(0 * centers[-1][0] + level.stride)  # full_like would be a constant in a traced graph
    center_2N, stride_N = torch.cat(centers, dim=1), torch.cat(strides)
    logits_BDN = torch.cat([level.box_logits_BDHW.flatten(2) for level in levels], dim=2).float()
    probability_B4DN = logits_BDN.view(len(logits_BDN), 4, BINS, -1).softmax(dim=2)
    bins_D1 = torch.arange(float(BINS), device=stride_N.device)[:, None]
    distance_B4N = (probability_B4DN * bins_D1).sum(dim=2) * stride_N
    corners_B4N = torch.cat([center_2N - distance_B4N[:, :2], center_2N + distance_B4N[:, 2:]], dim=1)
    return corners_B4N.transpose(1, 2)


class PicoDet(nn.Module):
    """The detector: image to four levels."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ESNet()
        self.neck = CSPPAN([channels for channels, _ in _STAGES])
        self.heads = nn.ModuleList(Head() for _ in STRIDES)

    def forward(self, image_B3HW: Tensor) -> tuple[Level, ...]:
        """(B, 3, H, W) RGB, normalized by ``MEAN`` and ``STD`` -> levels of strides 8, 16, 32 and 64.

        Raises:
            ValueError: a side is not a multiple of 32.
        """
        height, width = image_B3HW.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(f"each side of the image must be a multiple of 32: {width} x {height}")
        image_B3HW = image_B3HW.contiguous(memory_format=torch.channels_last)
        levels = []
        for stride, head, feature_BCHW in zip(STRIDES, self.heads, self.neck(*self.backbone(image_B3HW)), strict=True):
            classes, boxes = head(feature_BCHW)
            levels.append(
                Level(stride=stride, feature_BCHW=feature_BCHW, class_logits_BKHW=classes, box_logits_BDHW=boxes)
            )
        return tuple(levels)

    def load_numbered(self, arrays: Mapping[str, Tensor]) -> None:
        """Load ``NNN.weight`` and ``NNN.bias`` of the published file into every convolution (000, 001, ...).

        Raises:
            KeyError: one is missing. ValueError: one has another shape, or is one too many.
        """
        convs = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        own = {f"{i:03d}.{name}": values for i, conv in enumerate(convs) for name, values in conv.named_parameters()}
        if unexpected := arrays.keys() - own.keys():
            raise ValueError(f"no convolution has {min(unexpected)}")
        with torch.no_grad():
            for name, parameter in own.items():
                if arrays[name].shape != parameter.shape:  # copy_ would broadcast
                    raise ValueError(f"{name} is {tuple(arrays[name].shape)}, not {tuple(parameter.shape)}")
                parameter.copy_(arrays[name])


class ESNet(nn.Module):
    """Enhanced ShuffleNet: a strided convolution, a max pool, and three stages of ES blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, _STEM, 3, stride=2)
        stages, inside = [], _STEM
        for channels, (first, *others) in _STAGES:
            blocks = (ESBlock(channels, hidden) for hidden in others)
            stages.append(nn.Sequential(ESDownBlock(inside, channels, first), *blocks))
            inside = channels
        self.stages = nn.ModuleList(stages)

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> features at strides 8, 16 and 32 with 96, 192 and 384 channels."""
        x = functional.max_pool2d(_swish(self.stem(image_B3HW)), 3, stride=2, padding=1)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class ESBlock(nn.Module):
    """Stride 1: one half of the channels passes, the other goes through a Ghost-like branch and a gate; shuffle."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = _conv(channels // 2, hidden // 2)
        self.depthwise = _conv(hidden // 2, hidden // 2, 3, depthwise=True)
        self.gate = SEGate(hidden)
        self.expand = _conv(hidden, channels // 2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        passing, x = x_BCHW.chunk(2, dim=1)
        x = _swish(self.squeeze(x))
        x = self.gate(torch.cat([x, self.depthwise(x)], dim=1))
        halves = [passing, _swish(self.expand(x))]
        if tracing():  # ONNX has no operator for it
            return torch.stack(halves, dim=2).flatten(1, 2)
        return functional.channel_shuffle(torch.cat(halves, dim=1), 2)


class ESDownBlock(nn.Module):
    """Stride 2: two branches that each halve the resolution, joined by a depthwise separable convolution."""

    def __init__(self, inside: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.short_depthwise = _conv(inside, inside, 3, stride=2, depthwise=True)
        self.short_expand = _conv(inside, channels // 2)
        self.squeeze = _conv(inside, hidden)
        self.depthwise = _conv(hidden, hidden, 3, stride=2, depthwise=True)
        self.gate = SEGate(hidden)
        self.expand = _conv(hidden, channels // 2)
        self.join = DepthwiseSeparable(channels, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, inside, H, W) -> (B, channels, H / 2, W / 2)."""
        short = _swish(self.short_expand(self.short_depthwise(x_BCHW)))
        x = self.gate(self.depthwise(_swish(self.squeeze(x_BCHW))))
        out: Tensor = self.join(torch.cat([short, _swish(self.expand(x))], dim=1))
        return out


class SEGate(nn.Module):
    """Squeeze and excitation: every channel is scaled by a factor that depends on the mean of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = _conv(channels, channels // 4)
        self.excite = _conv(channels // 4, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        mean_BC11 = x_BCHW.mean(dim=(2, 3), keepdim=True)
        return x_BCHW * functional.hardsigmoid(self.excite(torch.relu(self.squeeze(mean_BC11))))


class DepthwiseSeparable(nn.Module):
    """A convolution per channel, then one across channels, each with a hard swish."""

    def __init__(self, channels: int, kernel: int = 5, *, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = _conv(channels, channels, kernel, stride=stride, depthwise=True)
        self.pointwise = _conv(channels, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))."""
        return _swish(self.pointwise(_swish(self.depthwise(x_BCHW))))


class CSPPAN(nn.Module):
    """Path aggregation with CSP blocks: every level at 96 channels, mixed from coarse to fine and back."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(_conv(inside, WIDTH) for inside in channels)
        self.up16 = CSPBlock()
        self.up8 = CSPBlock()
        self.half8 = DepthwiseSeparable(WIDTH, stride=2)
        self.down16 = CSPBlock()
        self.half16 = DepthwiseSeparable(WIDTH, stride=2)
        self.down32 = CSPBlock()
        self.half_reduced32 = DepthwiseSeparable(WIDTH, stride=2)
        self.half32 = DepthwiseSeparable(WIDTH, stride=2)

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The backbone's features at strides 8, 16 and 32 -> (B, 96, H / s, W / s) for s = 8, 16, 32, 64."""
        c8, c16, c32 = (_swish(reduce(x)) for reduce, x in zip(self.reduce, features, strict=True))
        up16 = self.up16(torch.cat([_doubled(c32), c16], dim=1))
        p8 = self.up8(torch.cat([_doubled(up16), c8], dim=1))
        p16 = self.down16(torch.cat([self.half8(p8), up16], dim=1))
        p32 = self.down32(torch.cat([self.half16(p16), c32], dim=1))
        p64 = self.half_reduced32(c32) + self.half32(p32)
        return p8, p16, p32, p64


class CSPBlock(nn.Module):
    """Cross stage partial block: two levels in, half of the channels through a depthwise separable convolution."""

    def __init__(self) -> None:
        super().__init__()
        half = WIDTH // 2
        self.short = _conv(2 * WIDTH, half)
        self.main = _conv(2 * WIDTH, half)
        self.pointwise = _conv(half, half)
        self.separable = DepthwiseSeparable(half)
        self.join = _conv(WIDTH, WIDTH)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, 192, H, W) -> (B, 96, H, W)."""
        short, main = _swish(self.short(x_BCHW)), _swish(self.main(x_BCHW))
        main = self.separable(_swish(self.pointwise(main)))
        return _swish(self.join(torch.cat([main, short], dim=1)))


class Head(nn.Module):
    """Two depthwise separable convolutions that classes and boxes share, then one convolution for both."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(DepthwiseSeparable(WIDTH), DepthwiseSeparable(WIDTH))
        self.out = _conv(WIDTH, len(CLASSES) + 4 * BINS)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 96, H, W) -> class logits (B, 80, H, W) and box logits (B, 32, H, W)."""
        classes, boxes = self.out(self.tower(x_BCHW)).split([len(CLASSES), 4 * BINS], dim=1)
        return classes, boxes


def _conv(inside: int, outside: int, kernel: int = 1, *, stride: int = 1, depthwise: bool = False) -> nn.Conv2d:
    groups = inside if depthwise else 1
    return nn.Conv2d(inside, outside, kernel, stride=stride, padding=kernel // 2, groups=groups)


def _swish(x: Tensor) -> Tensor:
    """Hard swish in place: ``x`` must be a convolution's fresh output."""
    return functional.hardswish(x, inplace=True)


def _doubled(x_BCHW: Tensor) -> Tensor:
    return functional.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")

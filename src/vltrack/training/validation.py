"""The validation curve of a run: tracking on synthetic clips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vltrack.core.errors import GroundingFailed
from vltrack.core.types import Mode, Target, iou_xywh
from vltrack.datasets.synthetic import SyntheticClip, synthesize_clip
from vltrack.tracking.engine import Engine
from vltrack.tracking.postprocess import Policy
from vltrack.tracking.torch_network import TorchNetwork

CLIPS, FRAMES, FIRST_SEED = 6, 24, 7_000
"""Synthetic clips of the validation curve; training draws scenes of other seeds."""


def validate(
    model: Any, device: torch.device, policy: Policy | None = None, stopped: Callable[[], bool] = lambda: False
) -> dict[str, float]:
    """Mean overlap on synthetic clips by mode (``bbox``, ``nlbbox``, ``nl``), over frames with a target.

    The model must be in eval mode; it is not changed. Empty where ``stopped``, asked before each clip, says so.
    """
    engine = Engine(TorchNetwork(model, device), policy or Policy())
    clips = [synthesize_clip(FIRST_SEED + i, FRAMES) for i in range(CLIPS)]
    overlaps: dict[str, list[float]] = {str(mode): [] for mode in Mode}
    for clip in clips:
        for mode in Mode:
            if stopped():
                return {}
            overlaps[mode].append(_overlap(engine, clip, mode))
    return {mode: float(np.mean(values)) for mode, values in overlaps.items()}


def _overlap(engine: Engine, clip: SyntheticClip, mode: Mode) -> float:
    x, y, w, h = (float(v) for v in clip.boxes[0])
    target = Target(box=None if mode is Mode.NL else (x, y, w, h), text=None if mode is Mode.BBOX else clip.sentence)
    try:
        state, _ = engine.start(clip.frames[0], target)
    except GroundingFailed:  # early weights may find nothing from the text alone
        return 0.0
    boxes = [state.box]
    for image in clip.frames[1:]:
        (state,) = engine.step(image, [state])
        boxes.append(state.box)
    return float(iou_xywh(np.stack(boxes), clip.boxes)[~clip.absent].mean())

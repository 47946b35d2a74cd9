"""The validation curve: the averaged model follows targets of procedural clips that no training picture
shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vltrack.core.boxes import iou_xywh
from vltrack.core.types import Mode, Target
from vltrack.datasets.clips import ProceduralClip, synthesize_clip
from vltrack.tracking.engine import Engine
from vltrack.tracking.policy import Policy

CLIPS, FRAMES, FIRST_SEED = 6, 24, 7_000


def validate(model: Any, device: torch.device, policy: Policy | None = None) -> dict[str, float]:
    """Mean overlap over all frames with a visible target, by mode: ``bbox``, ``nlbbox``, ``nl``.

    The model must be in eval mode; it is not changed.
    """
    engine = Engine(model, device, policy or Policy())
    clips = [synthesize_clip(FIRST_SEED + i, FRAMES) for i in range(CLIPS)]
    return {str(mode): float(np.mean([_overlap(engine, clip, mode) for clip in clips])) for mode in Mode}


def _overlap(engine: Engine, clip: ProceduralClip, mode: Mode) -> float:
    x, y, w, h = (float(v) for v in clip.boxes[0])
    target = Target(
        box=None if mode is Mode.NL else (x, y, w, h), text=None if mode is Mode.BBOX else clip.sentence
    )
    state, _ = engine.start(clip.frames[0], target)
    boxes = [state.box]
    for image in clip.frames[1:]:
        (state,) = engine.step(image, [state])
        boxes.append(state.box)
    return float(iou_xywh(np.stack(boxes), clip.boxes)[~clip.absent].mean())

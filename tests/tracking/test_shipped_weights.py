"""The weights that ship, on a small scene: they follow, and their score falls when the target leaves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import vltrack
from vltrack.checkpoints.cards import DEFAULT_MODEL, PACKAGED
from vltrack.core.types import iou_xywh

SIZE = (52, 40)


def texture(rng: np.random.Generator, width: int, height: int, grain: int) -> np.ndarray:
    few = rng.integers(0, 256, (height // grain + 1, width // grain + 1, 3), dtype=np.uint8)
    return cv2.GaussianBlur(cv2.resize(few, (width, height), interpolation=cv2.INTER_CUBIC), (0, 0), 1.5)


def test_a_moving_target_is_followed_and_its_leaving_shows() -> None:
    if not (PACKAGED / f"{DEFAULT_MODEL}.safetensors").is_file():
        pytest.skip("no weights in the package yet (make weights)")
    rng = np.random.default_rng(0)
    ground, target = texture(rng, 320, 240, 24), texture(rng, *SIZE, 10)
    corners = [(30 + 3 * i, round(90 + 30 * np.sin(i / 6))) for i in range(30)]
    images = []
    for x, y in corners:
        image = ground.copy()
        image[y : y + SIZE[1], x : x + SIZE[0]] = target
        images.append(image)
    steps = list(vltrack.load().stream([*images, *[ground] * 8], box=(*corners[0], *SIZE)))
    seen, gone = steps[1:30], steps[30:]
    overlaps = iou_xywh([s.box for s in seen], [(*c, *SIZE) for c in corners[1:]])
    assert overlaps.mean() > 0.65
    assert overlaps.min() > 0.4
    assert np.mean([s.score for s in gone]) < np.mean([s.score for s in seen]) - 0.1

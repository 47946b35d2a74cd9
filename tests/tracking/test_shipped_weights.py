"""The weights that ship, on a small scene: they follow, and their score falls when the target leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

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


def jittered(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    ground, target = texture(rng, 320, 240, 24), texture(rng, *SIZE, 10)
    images = []
    for i in range(n):
        image = ground.copy()
        x, y = 40 + 4 * i, 90 + round(20 * np.sin(i / 4))
        image[y : y + SIZE[1], x : x + SIZE[0]] = target
        noise = rng.integers(-12, 13, image.shape)
        images.append((image + noise).clip(0, 255).astype(np.uint8))
    return images


@pytest.mark.parametrize("name", [DEFAULT_MODEL, "bit-tracker-tiny"])
def test_rounding_does_not_grow_from_frame_to_frame(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start off by 1e-5 pixels, and noise on what the network says that is several times the rounding of another
    number of threads, leave the boxes as they are.
    """
    if not (PACKAGED / f"{name}.safetensors").is_file():
        pytest.skip("no weights in the package yet (make weights)")
    images, box = jittered(30), np.array([40.0, 90.0, *SIZE])
    following = vltrack.load(name, device="cpu")
    boxes = np.array([s.box for s in following.stream(images, box=tuple(box))])
    shifted = np.array([s.box for s in following.stream(images, box=tuple(box + 1e-5))])
    locate, random = following.engine.network.model.locate, torch.Generator().manual_seed(0)

    def rounded(*given: Any) -> Any:
        seen = locate(*given)
        noise = (torch.randn(t.shape, generator=random) * 2e-7 for t in (seen.center_BSS, seen.boxes_BSS4))
        return replace(seen, center_BSS=seen.center_BSS + next(noise), boxes_BSS4=seen.boxes_BSS4 + next(noise))

    monkeypatch.setattr(following.engine.network.model, "locate", rounded)
    noisy = np.array([s.box for s in following.stream(images, box=tuple(box))])
    # One box in thirty may be rounded to the next sixteenth of a pixel; it must not take others with it.
    for other in (shifted, noisy):
        parted = np.abs(other - boxes).max(axis=1)[1:]
        assert parted.max() <= 1 / 16
        assert (parted > 0).sum() <= 1
    exact = following.with_policy(replace(following.engine.policy, steady=False))
    grown = np.array([s.box for s in exact.stream(images, box=tuple(box))])
    free = np.array([s.box for s in exact.stream(images, box=tuple(box + 1e-5))])
    assert np.abs(grown - free).max() > 1e-3, "without the grid it grows, or nothing is proved"


def test_companions_change_no_bit() -> None:
    if not (PACKAGED / f"{DEFAULT_MODEL}.safetensors").is_file():
        pytest.skip("no weights in the package yet (make weights)")
    images = jittered(12)
    alone = vltrack.load(device="cpu")
    box = (40.0, 90.0, *map(float, SIZE))
    expected = [(step.box.tolist(), step.score) for step in alone.stream(images, box=box)]
    several = vltrack.MultiTracker(alone)
    others = {str(n): vltrack.Target(box=(20.0 * n, 12.0 * n, 40.0, 30.0 + n)) for n in range(1, 4)}
    rows = [several.init(images[0], {"it": vltrack.Target(box=box), **others}), *map(several.update, images[1:])]
    assert [(row["it"].box.tolist(), row["it"].score) for row in rows] == expected

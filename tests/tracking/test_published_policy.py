"""The published policy: the peak of scores times window names the box, at once and without damping."""

from __future__ import annotations

import numpy as np
import pytest

from scripted import Spotter, scene, tracker
from vltrack.core.errors import ConfigError
from vltrack.models import MODELS, PUBLISHED
from vltrack.tracking.postprocess import Maps, Policy, choose, hann, smooth_size
from vltrack.tracking.tracker import default_policy

RULES = Policy().changed(PUBLISHED)


def maps(peaks: dict[tuple[int, int], float], side: int = 8) -> Maps:
    center = np.full((side, side), 1e-4)
    for cell, value in peaks.items():
        center[cell] = value
    boxes = np.zeros((side, side, 4))
    boxes[..., :2] = (np.indices((side, side))[::-1].transpose(1, 2, 0) + 0.5) / side
    boxes[..., 2:] = 0.25
    return Maps(center=center, presence=np.ones((side, side)), boxes=boxes)


def test_windows_are_those_of_the_two_families() -> None:
    line = [0.5 * (1 - np.cos(2 * np.pi * k / 9)) for k in range(1, 9)]  # OSTrack: zeros beyond the map
    assert np.allclose(hann(8), np.outer(line, line))
    assert np.allclose(hann(8, rims=True), np.outer(np.hanning(8), np.hanning(8)))  # UVLTrack: zeros in it
    assert hann(8, rims=True)[0].max() == 0 < hann(8)[0].min()


def test_scores_are_multiplied_by_the_window() -> None:
    seen = maps({(3, 3): 0.3, (0, 0): 0.9, (3, 0): 0.6})
    picked = choose(seen, np.array([0.25, 0.25]), RULES, window=RULES.window)
    assert picked is not None
    likely = seen.center * hann(8)
    best = np.unravel_index(likely.argmax(), likely.shape)
    assert tuple(best) == (3, 3)  # a sum with a weak window would take the corner
    assert np.allclose(picked.box, seen.boxes[best])
    assert picked.score == pytest.approx(0.3)
    without = choose(seen, None, RULES, window=0)
    assert without is not None
    assert without.score == pytest.approx(0.9)


def test_a_new_size_is_taken_at_once() -> None:
    picked = choose(maps({(3, 3): 0.2}), None, RULES, window=0)
    assert picked is not None
    old, new = np.array([10.0, 10.0]), np.array([20.0, 30.0])
    assert np.array_equal(smooth_size(old, new, picked, RULES), new)
    assert not np.array_equal(smooth_size(old, new, picked, Policy()), new)


def test_boxes_are_cut_to_the_frame_as_published() -> None:
    """A target half out of the frame keeps its visible part; with the house policy it keeps its size."""
    published = tracker(Spotter(), **PUBLISHED)
    house = tracker(Spotter(), smooth=1.0, penalty=0.0)
    for following in (published, house):
        following.init(scene((70, 40, 16, 12)), box=(70, 40, 16, 12))
    leaving = scene((74, 42, 16, 12))
    assert published.update(leaving).box[0] == pytest.approx(74, abs=1.5)
    assert house.update(leaving).box[0] == pytest.approx(74, abs=1.5)


def test_every_policy_of_the_registry_can_be_had() -> None:
    for card in MODELS.values():
        assert set(card.policies) <= set(card.sizes)
        for size in card.sizes:
            assert isinstance(default_policy(card.name, size), Policy)
    assert default_policy("litetrack", "uvltrack-base").window_rims
    assert default_policy("litetrack", "tiny") == Policy()
    with pytest.raises(ConfigError, match="window_rim"):
        Policy().changed({"window_rim": True})

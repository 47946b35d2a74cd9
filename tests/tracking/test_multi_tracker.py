"""Several targets: each one's boxes are those of a tracker of its own; they start together or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scripted import EAGER, Spotter, clip, scene, tiny_weights, tracker
from vltrack.core.errors import BoxOutside, StateError, UsageError
from vltrack.core.types import Frame, Target
from vltrack.tracking.tracker import MultiTracker, Tracker


def test_many_equal_single_ones_in_mixed_modes(tmp_path) -> None:
    single = Tracker.load(tiny_weights(tmp_path), policy=replace(EAGER, own_grounding=True))
    targets = {
        "box": Target(box=(30, 20, 40, 30)),
        "text": Target(text="the thing on the left"),
        "both": Target(box=(70.5, 50.25, 30, 44), text="a dark block in the middle of the picture"),
    }
    images = clip(5)
    together = MultiTracker(single)
    rows = [together.init(images[0], targets), *(together.update(m) for m in images[1:])]
    for name, target in targets.items():
        alone = [single.init(images[0], box=target.box, text=target.text), *map(single.update, images[1:])]
        assert np.abs(np.diff([s.box for s in alone], axis=0)).max() > 0.01, "the box moves, or nothing is proved"
        assert np.array_equal([r[name].box for r in rows], [s.box for s in alone])
        assert [r[name].score for r in rows] == [s.score for s in alone]


def path(i: int) -> list[tuple[float, float, float, float]]:
    return [(10 + 2 * i, 10, 14, 12), (70 - 2 * i, 30, 12, 12), (40, 50 - i, 14, 10)]


def test_each_target_is_followed_by_itself() -> None:
    model = Spotter()
    together = MultiTracker(tracker(model, refresh_every=2))
    names = ("red", "green", "blue")
    first = together.init(scene(*path(0)), {n: Target(box=b) for n, b in zip(names, path(0), strict=True)})
    assert list(first) == list(names)
    for i in range(1, 10):
        steps = together.update(scene(*path(i)))
        for name, truth in zip(names, path(i), strict=True):
            np.testing.assert_allclose(steps[name].box, truth, atol=1.5)
    assert set(model.searched) == {1}


def test_one_lost_target_does_not_disturb_the_other() -> None:
    both = MultiTracker(tracker(Spotter()))
    only = tracker(Spotter())
    red, green = path(0)[:2]
    both.init(scene(red, green), {"a": Target(box=red), "b": Target(box=green)})
    only.init(scene(red, green), box=red)
    for i in range(1, 16):
        image = scene(path(i)[0])
        steps = both.update(image)
        np.testing.assert_array_equal(steps["a"].box, only.update(image).box)
        assert steps["a"].visible
        assert not steps["b"].visible


def test_if_one_fails_none_is_started() -> None:
    together = MultiTracker(tracker(Spotter()))
    red = path(0)[0]
    with pytest.raises(BoxOutside):
        together.init(scene(red), {"a": Target(box=red), "b": Target(box=(500, 0, 9, 9))})
    with pytest.raises(StateError):
        together.update(scene(red))
    with pytest.raises(UsageError):
        together.init(scene(red), {})
    with pytest.raises(UsageError):
        together.init(scene(red), {"a": Target()})


def test_remarks_and_gaps_by_name() -> None:
    together = MultiTracker(tracker(Spotter()))
    assert together.warnings == {}
    together.init(scene(), {"over": Target(box=(-5, 5, 20, 20)), "in": Target(box=(5, 5, 20, 20))})
    assert len(together.warnings["over"]) == 1
    assert together.warnings["in"] == ()
    steps = together.update(Frame(image=None, index=9, seconds=0.4))
    assert {s.status for s in steps.values()} == {"missing"}
    assert {s.index for s in steps.values()} == {9}

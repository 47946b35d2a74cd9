"""Several trackers over one video: each as if alone; one that fails leaves the others unchanged."""

from __future__ import annotations

import numpy as np
import pytest

from scripted import Spotter, moving, scene, tiny_weights, tracker
from vltrack.checkpoints.cards import modes_of
from vltrack.core.errors import CheckpointCorrupt, ModelNotFound, UsageError
from vltrack.core.types import Frame, Target
from vltrack.tracking.compare import TrackerFailure, TrackerGroup, target_for

BOX = (20, 20, 16, 12)
BOTH = Target(box=BOX, text="the red thing")


def broken_after(steps: int) -> Spotter:
    """A network with a bug that shows in its ``steps``-th frame."""
    model = Spotter()

    def fault() -> None:
        if len(model.searched) > steps:
            raise ZeroDivisionError("a bug")

    model.fault = fault
    return model


def follow(group: TrackerGroup, images: list[np.ndarray], targets: dict[str, Target]) -> list[dict]:
    return [group.init(images[0], targets), *(group.update(image) for image in images[1:])]


def test_each_is_as_if_alone() -> None:
    images = moving()
    trackers = {"plain": tracker(Spotter()), "windowed": tracker(Spotter(), window=0.6, smooth=0.2)}
    rows = follow(TrackerGroup(trackers), images, dict.fromkeys(trackers, Target(box=BOX)))
    for name, options in (("plain", {}), ("windowed", {"window": 0.6, "smooth": 0.2})):
        alone = tracker(Spotter(), **options).stream(images, box=BOX)
        np.testing.assert_array_equal([row[name].box for row in rows], [step.box for step in alone])
    assert not np.array_equal(rows[-1]["plain"].box, rows[-1]["windowed"].box)


def test_a_failing_tracker_leaves_the_others_running() -> None:
    images = moving()
    group = TrackerGroup({"bad": tracker(broken_after(3)), "good": tracker(Spotter())})
    frames = [Frame(image=image, index=10 + i, seconds=i / 25) for i, image in enumerate(images)]
    rows = follow(group, frames, dict.fromkeys(group.trackers, Target(box=BOX)))
    assert ["bad" in row for row in rows] == [True] * 4 + [False] * 8
    alone = tracker(Spotter()).stream(images, box=BOX)
    np.testing.assert_array_equal([row["good"].box for row in rows], [step.box for step in alone])
    failure = group.failures["bad"]
    assert (failure.frame, str(failure)) == (14, "stopped at frame 14: a bug")
    assert "ZeroDivisionError" in failure.to_dict()["trace"]
    assert group.frames == {"bad": 3, "good": 11}
    assert group.rate("good") > 0


def test_a_start_that_fails() -> None:
    group = TrackerGroup({"blind": tracker(Spotter()), "seeing": tracker(Spotter())})
    targets = {"blind": Target(box=(500, 0, 9, 9)), "seeing": Target(box=BOX)}
    assert list(group.init(scene(BOX), targets)) == ["seeing"]
    assert "trace" not in group.failures["blind"].to_dict()
    assert list(group.warnings) == ["seeing"]
    with pytest.raises(UsageError, match="unknown"):
        group.init(scene(BOX), {"unknown": BOTH})


def test_none_left_and_gaps() -> None:
    group = TrackerGroup({"bad": tracker(broken_after(0))})
    group.init(scene(BOX), {"bad": Target(box=BOX)})
    step = group.update(Frame(image=None, index=1, seconds=0.04))["bad"]
    assert (step.status, group.frames["bad"], group.rate("bad")) == ("missing", 0, None)
    assert group.update(scene(BOX)) == {}
    assert group.update(scene(BOX)) == {}
    assert group.failures["bad"].frame == 2


def test_an_interrupt_is_not_a_failure_of_a_tracker() -> None:
    model = Spotter()
    group = TrackerGroup({"one": tracker(model)})
    group.init(scene(BOX), {"one": Target(box=BOX)})

    def stop() -> None:
        raise KeyboardInterrupt

    model.fault = stop
    with pytest.raises(KeyboardInterrupt):
        group.update(scene(BOX))
    assert group.failures == {}


def test_weights_that_cannot_be_loaded(tmp_path) -> None:
    good = tiny_weights(tmp_path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-4])
    cut.with_suffix(".json").write_bytes(good.with_suffix(".json").read_bytes())
    weights = {"good": good, "cut": cut, "gone": tmp_path / "gone.safetensors"}
    group = TrackerGroup.load(weights, settings={"window": 0.5})
    assert list(group.trackers) == ["good"]
    assert group.trackers["good"].engine.policy.window == 0.5
    kinds = {name: type(failure.error) for name, failure in group.failures.items()}
    assert kinds == {"cut": CheckpointCorrupt, "gone": ModelNotFound}
    assert str(group.failures["cut"]).startswith("could not be loaded: ")


def test_a_tracker_gets_the_part_that_it_supports() -> None:
    words = Target(text="the red thing")
    assert target_for(BOTH, ("nl", "bbox", "nlbbox")) == (BOTH, "")
    assert target_for(BOTH, ("bbox",)) == (Target(box=BOX), "takes no text: started from the box alone.")
    assert target_for(BOTH, ("nl",)) == (words, "takes no box: started from the text alone.")
    assert target_for(BOTH, ("nl", "bbox"))[0] == Target(box=BOX)
    left, warning = target_for(words, ("bbox", "nlbbox"))
    assert left is None
    assert "text only" in warning
    assert target_for(Target(box=BOX), ("nlbbox",))[0] is None


def test_modes_come_from_the_registry() -> None:
    one = tracker(Spotter())
    assert set(modes_of(one.card)) == {"nl", "bbox", "nlbbox"}
    one.card["tracker"] = "litetrack"
    group = TrackerGroup({"one": one})
    assert group.targets_for(BOTH) == ({"one": BOTH}, {})
    one.card.update(tracker="all-in-one", size="ostrack-base")
    targets, warnings = group.targets_for(BOTH)
    assert (targets, list(warnings)) == ({"one": Target(box=BOX)}, ["one"])


def test_a_failure_without_a_message_has_its_class() -> None:
    assert str(TrackerFailure(error=AssertionError(), frame=3)) == "stopped at frame 3: AssertionError"

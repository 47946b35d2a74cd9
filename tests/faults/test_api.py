"""Rows A01-A04, A08 and A10 of the fault table: wrong arguments, wrong order, wrong thread, copies."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pictures

import vltrack
from scripted import EAGER, Spotter, boxes, clip, moving, scene, tiny_weights, tracker
from vltrack.api.track import track
from vltrack.core.errors import ImageError, StateError
from vltrack.core.types import Target
from vltrack.tracking.postprocess import Policy
from vltrack.tracking.tracker import MultiTracker, Tracker

RED = (20, 20, 16, 12)
BLOCK = (40, 30, 40, 40)
CLIP = Path(vltrack.__file__).parent / "clips" / "car-shadow.mp4"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def loaded(weights):
    return Tracker.load(weights, policy=EAGER)


def fresh(loaded: Tracker) -> Tracker:
    return loaded.with_policy(EAGER)


# -- A01: pictures --------------------------------------------------------------------------------


@pytest.mark.fault("A01")
@pytest.mark.parametrize(
    "kind",
    [
        lambda a: a.astype(np.float32) / 255,
        lambda a: a[:, :, ::-1].copy()[:, :, ::-1],
        lambda a: np.asfortranarray(a),
        lambda a: a.repeat(2, axis=0)[::2],
        lambda a: np.dstack([a, a[..., 0]]),
        Pictures.fromarray,
        lambda a: torch.from_numpy(a.copy()),
        lambda a: np.frombuffer(a.tobytes(), dtype=np.uint8).reshape(a.shape),
    ],
    ids=["float", "negative strides", "columns", "view", "RGBA", "PIL", "torch", "read-only"],
)
def test_usual_pictures_give_the_same_boxes_and_stay_as_they_are(kind: Callable[[Any], Any]) -> None:
    plain = moving(3)
    given = [kind(image) for image in plain]
    kept = [np.asarray(image).tobytes() for image in given]
    expected = boxes(tracker(Spotter()), plain, RED)
    np.testing.assert_allclose(boxes(tracker(Spotter()), given, RED), expected, atol=1e-9)
    assert [np.asarray(image).tobytes() for image in given] == kept


@pytest.mark.fault("A01")
@pytest.mark.parametrize(
    "bad",
    [
        None,
        np.zeros((3, 72, 96), np.uint8),
        np.zeros((72,), np.uint8),
        np.zeros((1, 72, 96, 3), np.uint8),
        np.zeros((0, 96, 3), np.uint8),
        np.zeros((72, 96, 3), np.int32),
        np.full((72, 96, 3), 200.0),
        np.full((72, 96, 3), np.nan),
        "frame.png",
    ],
    ids=["None", "CHW", "1-D", "batch", "empty", "int32", "0..255 floats", "nan", "a name"],
)
def test_no_picture_is_an_image_error_and_changes_nothing(bad) -> None:
    following, control = tracker(Spotter()), tracker(Spotter())
    with pytest.raises(ImageError):
        following.init(bad, box=RED)
    images = moving()
    for one in (following, control):
        one.init(images[0], box=RED)
    with pytest.raises(ImageError):
        following.update(bad)
    a, b = following.update(images[1]), control.update(images[1])
    np.testing.assert_array_equal(a.box, b.box)
    assert a.index == b.index == 1


@pytest.mark.fault("A01")
def test_the_network_leaves_the_frames_alone(loaded) -> None:
    images = clip(4)
    kept = [m.copy() for m in images]
    following = fresh(loaded)
    list(following.stream(images, box=BLOCK, text="the block"))
    following.init(images[0], text="the block")
    for image, before in zip(images, kept, strict=True):
        np.testing.assert_array_equal(image, before)


# -- A02: order of calls --------------------------------------------------------------------------


@pytest.mark.fault("A02")
def test_update_needs_a_start() -> None:
    for following in (tracker(Spotter()), MultiTracker(tracker(Spotter()))):
        with pytest.raises(StateError, match="init") as caught:
            following.update(scene(RED))
        assert caught.value.exit_code == 9
        following.reset()


@pytest.mark.fault("A02")
def test_a_second_start_is_a_clean_one(loaded) -> None:
    images = clip(4)
    used = fresh(loaded)
    list(used.stream(clip(6, seed=9), box=(5, 5, 30, 60), text="another thing"))
    np.testing.assert_array_equal(boxes(used, images, BLOCK), boxes(fresh(loaded), images, BLOCK))
    assert used.warnings == ()


# -- A03, A04: threads and neighbours -------------------------------------------------------------


@pytest.mark.fault("A03")
@pytest.mark.parametrize("call", ["init", "update", "reset"])
def test_a_tracker_in_use_refuses_a_second_thread(call) -> None:
    model = Spotter()
    following = tracker(model)
    images = moving()
    following.init(images[0], box=RED)
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert go_on.wait(30)

    model.fault = wait
    worker = threading.Thread(target=following.update, args=(images[1],))
    worker.start()
    try:
        assert inside.wait(30)
        with pytest.raises(StateError, match="another thread"):
            {
                "init": lambda: following.init(images[0], box=RED),
                "update": lambda: following.update(images[2]),
                "reset": following.reset,
            }[call]()
    finally:
        go_on.set()
        worker.join(30)
    model.fault = None
    np.testing.assert_allclose(following.update(images[2]).box, (24, 22, 16, 12), atol=1)


@pytest.mark.fault("A03")
def test_two_trackers_in_two_threads_do_as_alone(loaded) -> None:
    clips = [clip(5, seed=1), clip(5, seed=2)]
    alone = [boxes(fresh(loaded), images, BLOCK) for images in clips]
    together: dict[int, np.ndarray] = {}
    start = threading.Barrier(2)

    def work(number: int) -> None:
        start.wait(30)
        together[number] = boxes(fresh(loaded), clips[number], BLOCK)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    for number in range(2):
        np.testing.assert_array_equal(together[number], alone[number])


@pytest.mark.fault("A04")
def test_two_trackers_taking_turns_do_as_alone(loaded) -> None:
    clips = [clip(5, seed=1), clip(5, seed=2)]
    alone = [boxes(fresh(loaded), images, BLOCK) for images in clips]
    turns = [fresh(loaded).stream(images, box=BLOCK) for images in clips]
    rows = [[step.box for step in pair] for pair in zip(*turns, strict=True)]
    np.testing.assert_array_equal(np.array(rows).transpose(1, 0, 2), alone)


# -- A08: arguments -------------------------------------------------------------------------------


@pytest.mark.fault("A08")
@pytest.mark.parametrize(
    "call",
    [
        lambda t, m: t.init(m, boxx=RED),
        lambda t, m: t.init(),
        lambda t, m: t.init(m, text=5),
        lambda t, m: t.update(m, box=RED),
        lambda t, m: t.update(),
        lambda t, m: t.stream([m], bbox=RED),
        lambda t, m: t.stream([m], RED),
        lambda t, m: track([m], bocks=RED),
        lambda t, m: Tracker.load("litetrack-tiny", size="tiny"),
        lambda t, m: Policy(widow=0.1),
        lambda t, m: Target(bbox=RED),
        lambda t, m: MultiTracker(t).init(m, {"a": Target(text=5)}),
    ],
)
def test_unknown_and_wrong_arguments_are_type_errors_at_the_call(call) -> None:
    following = tracker(Spotter())
    with pytest.raises(TypeError):
        call(following, scene(RED))
    with pytest.raises(StateError):
        following.update(scene(RED))


# -- A10: copies ----------------------------------------------------------------------------------


@pytest.mark.fault("A10")
@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_tracker_cannot_be_pickled_or_copied(act) -> None:
    following = tracker(Spotter())
    for one in (following, MultiTracker(following)):
        with pytest.raises(TypeError, match=type(one).__name__):
            act(one)

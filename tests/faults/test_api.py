"""Rows A01-A11 of the fault table: arguments, order, threads, interrupts, processes, and what is left behind."""

from __future__ import annotations

import contextlib
import copy
import gc
import inspect
import io
import linecache
import logging
import multiprocessing
import os
import pickle
import random
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Pictures

import vltrack
from scripted import EAGER, Spotter, boxes, clip, moving, scene, tiny_weights, tracker
from vltrack.api.track import track
from vltrack.core.errors import BoxOutside, ImageError, StateError, UsageError, VideoNotFound
from vltrack.core.types import Target
from vltrack.tracking import engine as engine_module
from vltrack.tracking import tracker as session_module
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
    return Tracker.load(weights, policy=EAGER, anyway=True)


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


# -- A03, A04: threads and neighbors -------------------------------------------------------------


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


@pytest.mark.fault("A08")
def test_a_text_that_is_no_str_is_named() -> None:
    following = tracker(Spotter())
    for bad in (float("nan"), b"the dog", ["the dog"]):
        for call in (
            lambda: following.init(scene(RED), text=bad),  # noqa: B023 - called at once
            lambda: track([scene(RED)], text=bad),  # noqa: B023
        ):
            with pytest.raises(TypeError, match=f"str, not {type(bad).__name__}"):
                call()
    with pytest.raises(TypeError, match=r"targets\['a'\] must be a Target"):
        track([scene(RED)], targets={"a": "the dog"})


@pytest.mark.fault("A08")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: b"clip.mp4", "bytes.*fsdecode"),
        (lambda: CLIP.open("rb"), "BufferedReader.*car-shadow.mp4"),
        (lambda: cv2.VideoCapture(str(CLIP)), "VideoCapture.*path"),
        (lambda: scene(RED), r"ndarray.*\[image\]"),
        (lambda: io.BytesIO(b"x"), "BytesIO.*file"),
        (lambda: 2.5, "float.*iterable"),
        (lambda: None, "NoneType.*iterable"),
    ],
)
def test_what_is_no_source_is_named_with_the_remedy(make, says) -> None:
    source = make()
    with contextlib.closing(source) if hasattr(source, "close") else contextlib.nullcontext():
        for call in (
            lambda: track(source, box=RED),
            lambda: next(tracker(Spotter()).stream(source, box=RED)),
            lambda: vltrack.open_source(source),
        ):
            with pytest.raises(TypeError, match=says):
                call()


def test_a_list_of_images_is_a_source_in_its_order(tmp_path) -> None:
    paths = []
    for number, image in enumerate(moving(4)):
        paths.append(tmp_path / f"{9 - number}.png")
        cv2.imwrite(str(paths[-1]), image[:, :, ::-1])
    for source in (paths, tuple(map(str, paths))):
        steps = list(tracker(Spotter()).stream(source, box=RED, stride=2))
        assert [step.index for step in steps] == [0, 2]
        np.testing.assert_allclose(steps[1].box, (24, 22, 16, 12), atol=1)
    with pytest.raises(VideoNotFound, match=r"none\.png"):
        vltrack.open_source([*paths, tmp_path / "none.png"])


@pytest.mark.fault("A08")
def test_frame_numbers_may_be_of_numpy_and_must_be_whole(weights, tmp_path) -> None:
    done = []
    options = {"box": BLOCK, "model": weights, "policy": EAGER}
    rows = track(
        CLIP, start=np.int64(2), end=np.int32(9), stride=np.uint8(3),
        progress=lambda *counts: done.append(counts), outputs=str(tmp_path / "one.csv"), **options,
    )  # fmt: skip
    assert vltrack.Track.load(tmp_path / "one.csv").indices.tolist() == [2, 5, 8]
    assert rows.indices.tolist() == [2, 5, 8]
    assert done == [(1, 3), (2, 3), (3, 3)]
    steps = tracker(Spotter()).stream(CLIP, box=BLOCK, start=np.int64(2), end=np.int64(4))
    assert [step.index for step in steps] == [2, 3]
    for name in ("start", "end", "stride"):
        for bad in (2.0, "2", np.float64(2)):
            with pytest.raises(TypeError, match=f"{name} must be a whole number"):
                track(CLIP, **{name: bad}, **options)
            with pytest.raises(TypeError, match=f"{name} must be a whole number"):
                vltrack.open_source(CLIP, **{name: bad})


@pytest.mark.fault("V27")
def test_what_an_interrupt_leaves_depends_on_whether_the_frames_come_again(weights, tmp_path) -> None:
    def stop(done: int, total: int | None) -> None:
        if done == 2:
            raise KeyboardInterrupt

    options = {"box": BLOCK, "model": weights, "policy": EAGER, "outputs": tmp_path / "a.csv"}
    with pytest.raises(KeyboardInterrupt) as caught:
        track(clip(5), progress=stop, **options)
    assert "resume" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    with pytest.raises(KeyboardInterrupt, match="resume"):
        track(CLIP, end=5, progress=stop, overwrite=True, **options)
    assert len(vltrack.Track.load(tmp_path / "a.csv")) == len(vltrack.Track.load(tmp_path / "a.part.csv")) == 2
    whole = track(CLIP, end=5, **(options | {"outputs": ()}))
    rows = track(CLIP, end=5, resume=True, **options)
    assert rows.to_csv() == whole.to_csv()
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_track_is_drawn_over_its_video(weights, tmp_path) -> None:
    rows = track(CLIP, box=BLOCK, model=weights, policy=EAGER, start=3, end=9, stride=2)
    for name in ("a.mp4", "a.png"):
        rows.save(tmp_path / name)
    with vltrack.open_source(tmp_path / "a.mp4") as frames:
        drawn = list(frames)
    with vltrack.open_source(CLIP, start=3, end=9, stride=2) as frames:
        plain = list(frames)
    assert len(drawn) == len(plain) == 3
    x, y, _, _ = np.round(rows.boxes[1]).astype(int)
    differs = np.abs(drawn[1].image.astype(int) - plain[1].image).max(axis=2) > 60
    assert differs[y - 4 : y + 5, x - 4 : x + 5].any(), "a corner of the box"
    with pytest.raises(UsageError, match="exists"):
        rows.save(tmp_path / "a.mp4")
    of_frames = track(clip(3), box=BLOCK, model=weights, policy=EAGER)
    with pytest.raises(UsageError, match="source"):
        of_frames.save(tmp_path / "c.mp4")
    for name in ("c.mp4", "c.png"):
        with pytest.raises(UsageError, match="2 of the 3 frames"):
            of_frames.save(tmp_path / name, source=clip(2))
        assert not (tmp_path / name).exists()
    of_frames.save(tmp_path / "c.mp4", source=clip(3))
    with vltrack.open_source(tmp_path / "c.mp4") as frames:
        assert len(list(frames)) == 3


def test_trackers_print_in_one_line(loaded) -> None:
    following = fresh(loaded)
    assert repr(following) == "Tracker(litetrack-tiny, cpu, torch fp32, not started)"
    many = MultiTracker(following)
    many.init(clip(1)[0], {"a": Target(box=BLOCK), "b": Target(box=RED)})
    assert repr(many) == "MultiTracker(litetrack-tiny, cpu, torch fp32, 2 targets)"


# -- A10: copies ----------------------------------------------------------------------------------


@pytest.mark.fault("A10")
@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_tracker_cannot_be_pickled_or_copied(act) -> None:
    following = tracker(Spotter())
    for one in (following, MultiTracker(following)):
        with pytest.raises(TypeError, match=type(one).__name__):
            act(one)


# -- A05, A11: what is freed ----------------------------------------------------------------------


def children() -> set[str]:
    """Process ids of this process's children."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found |= set((task / "children").read_text().split())
    return found


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.fault("A05")
def test_an_exception_in_the_users_frames_comes_through_unchanged() -> None:
    class Mine(Exception):
        pass

    mine = Mine("own")

    def frames() -> Iterator[np.ndarray]:
        yield from moving(2)
        raise mine

    following = tracker(Spotter())
    steps = following.stream(frames(), box=RED)
    assert [next(steps).index, next(steps).index] == [0, 1]
    with pytest.raises(Mine) as caught:
        next(steps)
    assert caught.value is mine
    assert following.update(moving(3)[2]).visible


@pytest.mark.fault("A05")
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to count processes and handles")
@pytest.mark.parametrize("how", ["close", "forget", "raise", "start fails"])
def test_a_stream_that_is_left_early_frees_the_decoder(how) -> None:
    following = tracker(Spotter())
    gc.collect()
    before = descriptors(), children()
    steps = following.stream(CLIP, box=(-500, 0, 5, 5) if how == "start fails" else (40, 30, 40, 40))
    if how == "start fails":
        with pytest.raises(BoxOutside):
            next(steps)
    else:
        next(steps)
        assert children() > before[1], "the decoder is a process"
    if how == "close":
        steps.close()
    elif how == "raise":
        with pytest.raises(KeyError):
            steps.throw(KeyError("x"))
    del steps
    gc.collect()
    assert (descriptors(), children()) == before


@pytest.mark.fault("A11")
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to count handles")
def test_trackers_that_come_and_go_leave_nothing() -> None:
    images = moving(3)

    def cycle() -> None:
        following = tracker(Spotter())
        following.init(images[0], box=RED, text="the red thing")
        following.update(images[1])
        many = MultiTracker(following)
        many.init(images[0], {"a": Target(box=RED), "b": Target(text="the red thing")})
        many.update(images[2])

    for _ in range(20):
        cycle()
    gc.collect()
    handles, held = descriptors(), resident_bytes()
    for _ in range(1000):
        cycle()
    gc.collect()
    assert descriptors() == handles
    assert resident_bytes() - held < 16 << 20


@pytest.mark.fault("A11")
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to count handles")
def test_weights_that_are_loaded_and_dropped_leave_nothing(weights) -> None:
    def cycle() -> None:
        following = Tracker.load(weights, policy=EAGER)
        list(following.stream(CLIP, box=BLOCK, text="the block", end=2))

    for _ in range(3):
        cycle()
    gc.collect()
    handles, held, processes = descriptors(), resident_bytes(), children()
    for _ in range(8):
        cycle()
    gc.collect()
    assert (descriptors(), children()) == (handles, processes)
    assert resident_bytes() - held < 16 << 20, "the weights alone have 17 MB"


@pytest.mark.fault("A11")
def test_a_tracker_is_freed_with_its_last_name(loaded) -> None:
    following = fresh(loaded)
    list(following.stream(clip(2), box=BLOCK))
    gone = weakref.ref(following)
    del following
    assert gone() is None, "no cycle holds the tensors"


# -- A06: processes -------------------------------------------------------------------------------


@pytest.mark.fault("A06")
def test_a_spawned_process_loads_its_own(weights, loaded) -> None:
    images = clip(3)
    here = boxes(fresh(loaded), images, BLOCK)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(track, (images,), {"box": BLOCK, "model": weights, "policy": EAGER})
    np.testing.assert_array_equal(there.boxes, here)


@pytest.mark.fault("A06")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_process_tracks_with_one_thread_and_is_refused_with_more(loaded, threads) -> None:
    images, before = clip(3), torch.get_num_threads()
    here = boxes(fresh(loaded), images, BLOCK)
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()
    following = fresh(loaded)

    def child() -> None:
        try:
            said.put(boxes(following, images, BLOCK).tolist())
        except StateError as error:
            said.put([error.exit_code, error.hint])

    try:
        torch.set_num_threads(threads)
        boxes(fresh(loaded), images, BLOCK)
        process = context.Process(target=child)
        process.start()
        process.join(60)
        assert process.exitcode == 0
        answer = said.get()
        if threads == 1:
            assert answer == here.tolist()
        else:
            assert answer[0] == 9
            assert "spawn" in answer[1]
    finally:
        process.kill()
        torch.set_num_threads(before)


# -- A07: nothing of the process is touched -------------------------------------------------------


def surroundings() -> dict[str, Any]:
    """What a library must leave alone, as things that can be compared."""
    return {
        "random": random.getstate(),
        "numpy": repr(np.random.get_state()),  # noqa: NPY002 - the old global generator is what is watched
        "numpy errors": np.geterr(),
        "torch": torch.get_rng_state().tolist(),
        "torch modes": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.get_float32_matmul_precision(),
        ),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "hooks": (sys.excepthook, sys.stdout, sys.stderr, threading.excepthook),
        "threads": {t.name for t in threading.enumerate()},
    }


@pytest.mark.fault("A07")
def test_the_process_is_as_it_was(weights) -> None:
    torch_threads = torch.get_num_threads()
    before = surroundings()
    following = Tracker.load(weights, threads=torch_threads, anyway=True)
    following.init(clip(1)[0], text="the block")
    list(following.stream(clip(3), box=BLOCK, text="the block"))
    with pytest.raises(ImageError):
        following.update(None)
    after = surroundings()
    for name, value in before.items():
        assert after[name] == value, name
    assert torch.get_num_threads() == torch_threads


@pytest.mark.fault("A07")
def test_threads_are_set_as_documented(weights) -> None:
    count = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        Tracker.load(weights, device="cpu")
        assert torch.get_num_threads() == 1, "one thread is fastest for tiny"
        Tracker.load(weights, device="cpu", threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(count)


# -- A09: a step is done or not done --------------------------------------------------------------


@pytest.mark.fault("A09")
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
@pytest.mark.parametrize("where", ["network", "cut", "choose", "smooth_size", "mean_color", "Step"])
def test_a_step_that_breaks_leaves_the_state(monkeypatch, where, error) -> None:
    model = Spotter()
    following, control = tracker(model), tracker(Spotter())
    many = MultiTracker(following)
    images = moving()
    targets = {"a": Target(box=RED), "b": Target(box=(60, 40, 10, 10))}
    many.init(images[0], targets)
    for one in (following, control):
        one.init(images[0], box=RED)
        one.update(images[1])
    many.update(images[1])

    def fault(*_: object, **__: object) -> None:
        raise error("now")

    with monkeypatch.context() as patch:
        if where == "network":
            patch.setattr(model, "fault", fault)
        else:
            patch.setattr(session_module if where == "Step" else engine_module, where, fault)
        for call in (
            lambda: following.update(images[5]),
            lambda: many.update(images[5]),
            *([lambda: following.init(images[5], box=(1, 1, 9, 9))] if where in ("cut", "Step") else []),
        ):
            with pytest.raises(error, match="now"):
                call()
    expected = control.update(images[2])
    for step in (following.update(images[2]), many.update(images[2])["a"]):
        np.testing.assert_array_equal(step.box, expected.box)
        assert (step.index, step.score) == (expected.index, expected.score) == (2, 0.95)


def interrupted_at(line: int, call: Callable[[], object]) -> bool:
    """Run ``call`` with a KeyboardInterrupt before the ``line``-th line in ``tracking``; whether it came."""
    count = 0
    folder = str(Path(inspect.getfile(Tracker)).parent)

    def watch(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(folder):
            return None
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        # A trace may raise between a `with` and its exit, where Python itself lets no signal in.
        if event == "line" and not text.strip().startswith("with "):
            count += 1
            if count == line:
                raise KeyboardInterrupt
        return watch

    former = sys.gettrace()
    sys.settrace(watch)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(former)
    return False


@pytest.mark.fault("A09")
def test_an_interrupt_at_any_line_leaves_the_state_before_or_after_the_frame() -> None:
    images = moving()
    options = {"refresh_every": 1, "refresh_above": 0.5}

    def ready() -> Tracker:
        following = tracker(Spotter(), **options)
        following.init(images[0], box=RED)
        following.update(images[1])
        return following

    undone, done = ready(), ready()
    done.update(images[2])
    expected = {step.index: step.box for step in (undone.update(images[3]), done.update(images[3]))}
    assert len(expected) == 2
    seen, line = set(), 1
    while True:
        following = ready()
        if not interrupted_at(line, lambda: following.update(images[2])):  # noqa: B023 - called at once
            break
        step = following.update(images[3])
        np.testing.assert_array_equal(step.box, expected[step.index], err_msg=f"line {line}")
        seen.add(step.index)
        line += 1
    assert line > 50, "the lines of a whole step were tried"
    assert seen == {2, 3}

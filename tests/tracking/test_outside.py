"""Trackers from outside the package: what they are called with, what they may return, and how they fail."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import vltrack
from scripted import moving
from vltrack.checkpoints import outside
from vltrack.checkpoints.cards import find_weights
from vltrack.checkpoints.outside import Outside, find_outside
from vltrack.core.errors import CheckpointMismatch, ModelError, ModelNotFound, StateError, UsageError
from vltrack.datasets.catalogue import write_miniature
from vltrack.datasets.reader import open_dataset
from vltrack.evaluation.plan import make_plan
from vltrack.models import MODELS
from vltrack.tracking.outside import OutsideEngine
from vltrack.tracking.tracker import Tracker

BOX = (20, 20, 16, 12)
STILL = """
class Still:
    images = "bgr"
    def init(self, image, box, text=None):
        self.box, self.text, self.color = box, text, image[0, 0].tolist()
    def update(self, image):
        return self.box
NUMBER = 3
"""


def load(made: Any) -> Tracker:
    named = Outside(spec="here.py:Made", name="Made", made=made, sha256="0" * 64)
    return Tracker(OutsideEngine(named, None, True), {"tracker": "Made", "modes": list(named.modes)})


class Told:
    """Returns what it is told, and keeps what it was called with."""

    answer: Any = (1, 2, 3, 4)

    def init(self, image: np.ndarray, box: list[float]) -> None:
        self.called = image, box

    def update(self, image: np.ndarray) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def told(answer: Any) -> Tracker:
    return load(
        lambda: SimpleNamespace(
            init=lambda image, box: None, update=Told.update.__get__(SimpleNamespace(answer=answer))
        )
    )


@pytest.mark.parametrize(
    ("answer", "box", "score"),
    [
        ((1, 2, 3, 4), [1, 2, 3, 4], 1.0),
        (np.array([1, 2, 3, 4], np.float32), [1, 2, 3, 4], 1.0),
        (np.array([[1, 2, 3, 4]]), [1, 2, 3, 4], 1.0),
        (([1, 2, 3, 4], 0.25), [1, 2, 3, 4], 0.25),
        ((True, (1, 2, 3, 4)), [1, 2, 3, 4], 1.0),
        ({"target_bbox": [1, 2, 3, 4], "best_score": 0.5}, [1, 2, 3, 4], 0.5),
        ({"bbox": [1, 2, 3, 4]}, [1, 2, 3, 4], 1.0),
        (([1, 2, 3, 4], 7), [1, 2, 3, 4], 1.0),
        (None, None, 0.0),
        ((False, (1, 2, 3, 4)), None, 0.0),
        ([np.nan, 2, 3, 4], None, 0.0),
        ([1, 2, 0, 4], None, 0.0),
        (([1, 2, 3, 4], np.nan), None, 0.0),
    ],
)
def test_what_update_may_return(answer: Any, box: list[float] | None, score: float) -> None:
    tracker, (first, second, *_) = told(answer), moving()
    assert tracker.init(first, box=BOX).score == 1.0
    step = tracker.update(second)
    assert (step.box.tolist(), step.score, step.visible) == (list(BOX) if box is None else box, score, box is not None)


@pytest.mark.parametrize("answer", [(1, 2, 3), "a box", {"boxes": []}, (1, 2), ((1, 2, 3, 4), "sure")])
def test_what_it_may_not_return(answer: Any) -> None:
    tracker, (first, second, *_) = told(answer), moving()
    tracker.init(first, box=BOX)
    with pytest.raises(ModelError, match=r"Made\.update returned .*, not x, y, w, h"):
        tracker.update(second)


def test_an_exception_names_its_line() -> None:
    tracker, (first, second, *_) = told(ZeroDivisionError("a bug")), moving()
    tracker.init(first, box=BOX)
    with pytest.raises(ModelError, match=rf"ZeroDivisionError: a bug \({re.escape(__file__)}:\d+\)") as raised:
        tracker.update(second)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_each_target_has_a_tracker_of_its_own() -> None:
    made: list[Told] = []

    def make() -> Told:
        made.append(Told())
        return made[-1]

    images = moving()
    both = vltrack.MultiTracker(load(make))
    both.init(images[0], {"a": vltrack.Target(box=BOX), "b": vltrack.Target(box=(1, 1, 9, 9))})
    assert [one.called[1] for one in made] == [list(map(float, BOX)), [1.0, 1.0, 9.0, 9.0]]
    made[0].called[0][:] = 0  # a copy: the frame stays as it is
    assert images[0].any()
    made[1].answer = (5, 5, 9, 9)
    steps = both.update(images[1])
    assert [step.box.tolist() for step in steps.values()] == [[1, 2, 3, 4], [5, 5, 9, 9]]


def test_it_cannot_go_back() -> None:
    tracker, images = load(Told), moving()
    tracker.init(images[0], box=BOX)
    start = tracker.state
    tracker.update(images[1])
    state = tracker.state
    tracker.update(images[2])
    tracker.restore(state)
    with pytest.raises(StateError, match="cannot go back"):
        tracker.update(images[2])
    tracker.restore(start)  # but to the start, from which it is made anew, as between two marks
    tracker.update(images[1])
    assert tracker.state.states["target"].memory.followed.frames == 1


def test_a_correction_with_it(tmp_path: Path) -> None:
    file, clip = tmp_path / "still.py", Path(vltrack.__file__).parent / "clips" / "car-shadow.mp4"
    file.write_text(STILL)
    track = vltrack.track(clip, box=BOX, model=f"{file}:Still", end=8)
    better = vltrack.correct(track, clip, [vltrack.Mark(frame=4, box=(60, 60, 20, 20))])
    assert better.boxes[5:].tolist() == [[60, 60, 20, 20]] * 3


def test_pytracking_style() -> None:
    seen: dict[str, Any] = {}

    class Style:
        def initialize(self, image: np.ndarray, info: dict[str, Any]) -> None:
            seen.update(info)

        def track(self, image: np.ndarray, info: dict[str, Any] | None = None) -> dict[str, Any]:
            return {"target_bbox": seen["init_bbox"]}

    tracker, (first, second, *_) = load(Style), moving()
    tracker.init(first, box=BOX, text="the red thing")
    assert (seen["init_bbox"], seen["init_nlp"]) == (list(map(float, BOX)), "the red thing")
    assert tracker.update(second).box.tolist() == list(BOX)
    assert tracker.warnings == ()


def test_a_class_without_text_says_so() -> None:
    tracker = load(Told)
    tracker.init(moving()[0], box=BOX, text="the red thing")
    assert tracker.warnings == ("Made takes no text: the box decides.",)


def test_opencv_follows() -> None:
    tracker, images = Tracker.load("opencv:mil"), moving()
    tracker.init(images[0], box=(19.6, 20, 16, 12))
    step = tracker.update(images[1])
    assert (step.visible, step.score) == (True, 1.0)
    with pytest.raises(ModelNotFound, match=r"TrackerNano needs one \*backbone\*\.onnx: no folder"):
        Tracker.load("opencv:nano")
    with pytest.raises(ModelNotFound, match="Known: csrt"):
        Tracker.load("opencv:vid")
    if not hasattr(cv2, "TrackerCSRT"):
        with pytest.raises(ModelNotFound, match="opencv-contrib-python-headless"):
            Tracker.load("opencv:csrt")


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "still.py"
    file.write_text(STILL)
    name = f"{file}:Still"
    tracker, image = Tracker.load(name), np.zeros((40, 40, 3), np.uint8)
    image[..., 0] = 9
    tracker.init(image, box=BOX, text="the red thing")
    own = tracker.state.states["target"].memory.followed.tracker
    assert (own.text, own.color) == ("the red thing", [0, 0, 9])
    assert find_weights(name).name == "Still"
    for bad, error in (
        (f"{file}:Stil", ModelNotFound),
        (f"{tmp_path}/no.py:Still", ModelNotFound),
        (f"{file}:NUMBER", UsageError),
    ):
        with pytest.raises(error):
            Tracker.load(bad)
    for option in ({"policy": {"window": 0.2}}, {"device": "cuda"}, {"backend": "torch"}):
        with pytest.raises(UsageError, match="runs as its own code does"):
            Tracker.load(name, **option)
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_package\n")
    with pytest.raises(UsageError, match="cannot be imported: ModuleNotFoundError"):
        Tracker.load(f"{broken}:X")


def test_a_run_with_it_is_not_resumed(tmp_path: Path) -> None:
    file, clip = tmp_path / "still.py", Path(vltrack.__file__).parent / "clips" / "car-shadow.mp4"
    file.write_text(STILL)
    run = {"box": BOX, "model": f"{file}:Still", "end": 3, "outputs": [tmp_path / "boxes.csv"]}
    assert len(vltrack.track(clip, **run).boxes) == 3
    assert sorted(path.name for path in tmp_path.glob("boxes*")) == ["boxes.csv"]
    with pytest.raises(UsageError, match="a tracker of vltrack"):
        vltrack.track(clip, **run, resume=True)


def test_a_network_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, weights = tmp_path / "mine.py", tmp_path / "fresh.safetensors"
    file.write_text(
        "from dataclasses import replace\nfrom vltrack.models import MODELS\n"
        "from vltrack.models.sa_tracker import SATracker as Mine, tiny\n"
        "CARD = replace(MODELS['sa-tracker'], name='mine', network='Mine', sizes=('tiny',), recipes='sa-tracker')\n"
        "WRONG = replace(CARD, network='Mein')\n"
        "TAKEN = replace(MODELS['sa-tracker'])\n"
    )
    assert vltrack.init_weights(f"{file}:CARD", weights)["tracker"] == "mine"
    tracker = Tracker.load(f"{file}:CARD={weights}")
    assert tracker.runtime == "torch fp32"
    assert tracker.init(moving()[0], box=BOX).visible
    monkeypatch.delenv("VLTRACK_BACKEND", raising=False)
    data = open_dataset(write_miniature("otb99", tmp_path / "otb99"))
    plan = make_plan(data, f"{file}:CARD={weights}", ["bbox"], tmp_path / "runs")
    assert (plan.tracker, plan.spec.backend) == ("fresh", "torch")
    with pytest.raises(UsageError, match="runs in torch"):
        Tracker.load(f"{file}:CARD={weights}", backend="openvino")
    with pytest.raises(ModelNotFound, match="without weights"):
        Tracker.load(f"{file}:CARD")
    with pytest.raises(UsageError, match=r"not in vltrack_outside_mine_\w+: Mein"):
        Tracker.load(f"{file}:WRONG")
    with pytest.raises(UsageError, match="has the name of a tracker of vltrack"):
        Tracker.load(f"{file}:TAKEN")
    del MODELS["mine"]
    with pytest.raises(CheckpointMismatch, match=r"FILE\.py:CARD"):
        Tracker.load(weights)


def test_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("mil-of-mine", "cv2:TrackerMIL_create", outside.GROUP)
    monkeypatch.setattr(outside, "_entry_points", lambda: {point.name: point})
    assert outside.installed() == ["mil-of-mine"]
    tracker = Tracker.load("mil-of-mine")
    tracker.init(moving()[0], box=BOX)
    assert tracker.update(moving()[1]).visible
    assert find_outside("litetrack-tiny") is None


def test_a_network_of_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text(
        "from dataclasses import replace\nfrom vltrack.models import MODELS\n"
        "from vltrack.models.sa_tracker import SATracker, tiny\n"
        "CARD = replace(MODELS['sa-tracker'], name='theirs', sizes=('tiny',), recipes='sa-tracker')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    point = metadata.EntryPoint("theirs", "theirs:CARD", outside.GROUP)
    monkeypatch.setattr(outside, "_entry_points", lambda: {point.name: point})
    vltrack.init_weights("theirs", tmp_path / "fresh.safetensors")
    del MODELS["theirs"]
    assert Tracker.load(tmp_path / "fresh.safetensors").card["tracker"] == "theirs"

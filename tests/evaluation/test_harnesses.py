"""The adapters for got10k and the VOT toolkit against their interfaces, written by hand; the real packages
run in ``test_interop.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vltrack.core.errors import DataError, GroundingFailed, UsageError
from vltrack.core.types import Step
from vltrack.datasets.synthetic import SyntheticClip, synthesize_clip, write_clip
from vltrack.evaluation.harnesses import vot as vot_folder
from vltrack.evaluation.harnesses.got10k import Got10kTracker
from vltrack.evaluation.harnesses.vot import VotTracker, main, mask_line, parse_region
from vltrack.tracking.tracker import Tracker

FRAMES = 5


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    return synthesize_clip(4, FRAMES)


@pytest.fixture(scope="module")
def files(clip: SyntheticClip, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The images of a sequence called ``walker``."""
    folder = tmp_path_factory.mktemp("data") / "walker"
    write_clip(clip, folder)
    return sorted((folder / "img").iterdir())


@pytest.fixture(scope="module")
def start(clip: SyntheticClip) -> tuple[float, float, float, float]:
    x, y, w, h = (float(value) for value in clip.boxes[0])
    return x, y, w, h


@pytest.fixture(scope="module")
def loaded() -> Tracker:
    return Tracker.load("litetrack-tiny", device="cpu", anyway=True)


@pytest.fixture(autouse=True)
def load_once(loaded: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the weights once for all tests here; an unknown name still fails."""
    load = Tracker.load

    def once(name: str | Path, **options: Any) -> Tracker:
        return loaded if str(name) == "litetrack-tiny" else load(name, **options)

    monkeypatch.setattr(Tracker, "load", once)


def direct(loaded: Tracker, files: list[Path], **target: Any) -> list[Step]:
    frames = [cv2.imread(str(file))[..., ::-1] for file in files]
    tracker = loaded.with_policy(loaded.engine.policy)
    return [tracker.init(frames[0], **target), *(tracker.update(frame) for frame in frames[1:])]


# --- got10k: name, is_deterministic, track(img_files, box, visualize) -> boxes (N, 4), times (N,)


class TheirTracker:
    """The loop of ``got10k.trackers.Tracker``: RGB images by PIL, row 0 is the given box."""

    def track(
        self: Any, img_files: list[str], box: NDArray[np.float64], visualize: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        boxes, times = np.zeros((len(img_files), 4)), np.zeros(len(img_files))
        boxes[0] = box
        for number, name in enumerate(img_files):
            with Image.open(name) as opened:
                image = opened.convert("RGB")
            if number == 0:
                self.init(image, box)
            else:
                boxes[number, :] = self.update(image)
            times[number] = 0.5
        return boxes, times


@pytest.fixture
def got10k(monkeypatch: pytest.MonkeyPatch) -> None:
    package, trackers = ModuleType("got10k"), ModuleType("got10k.trackers")
    trackers.Tracker = TheirTracker  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "got10k", package)
    monkeypatch.setitem(sys.modules, "got10k.trackers", trackers)


@pytest.mark.usefixtures("got10k")
def test_got10k_gets_the_boxes_of_the_tracker(
    files: list[Path], start: tuple[float, ...], clip: SyntheticClip, loaded: Tracker
) -> None:
    names = [str(file) for file in files]
    plain = Got10kTracker("litetrack-tiny")
    assert (plain.name, plain.is_deterministic) == ("litetrack-tiny_bbox", True)
    boxes, times = plain.track(names, np.array(start))
    np.testing.assert_array_equal(boxes, [step.box for step in direct(loaded, files, box=start)])
    assert times.tolist() == [0.5] * FRAMES
    told = Got10kTracker("litetrack-tiny", mode="nlbbox", sentences={"walker": clip.sentence})
    expected = [step.box for step in direct(loaded, files, box=start, text=clip.sentence)]
    np.testing.assert_array_equal(told.track(names, np.array(start))[0], expected)


@pytest.mark.usefixtures("got10k")
def test_got10k_from_text_keeps_the_own_first_box(
    files: list[Path], loaded: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def init(frame: Any, box: Any = None, text: str | None = None) -> Step:
        seen.append((np.asarray(frame)[0, 0].tolist(), box, text))
        return Step(box=np.array([1.0, 2.0, 3.0, 4.0]), score=1.0, visible=True, index=0, seconds=0.0)

    monkeypatch.setattr(loaded, "init", init)
    monkeypatch.setattr(loaded, "update", lambda frame: init(frame))
    told = Got10kTracker("litetrack-tiny", mode="nl", name="mine", sentences={"walker": "the walker"})
    boxes, _ = told.track([str(file) for file in files], np.array([9.0, 9.0, 9.0, 9.0]))
    assert told.name == "mine"
    assert boxes[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    # RGB; the given box is ignored.
    assert seen[0] == (cv2.imread(str(files[0]))[0, 0, ::-1].tolist(), None, "the walker")


def test_got10k_errors_name_what_is_missing(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'both'"):
        Got10kTracker("litetrack-tiny", mode="both")
    with pytest.raises(UsageError, match="needs sentences"):
        Got10kTracker("litetrack-tiny", mode="nl")
    other = Got10kTracker("litetrack-tiny", mode="nl", sentences={"runner": "the runner"})
    with pytest.raises(DataError, match=r"walker/img.*'img' or 'walker'"):
        other.track([str(file) for file in files], np.zeros(4))
    monkeypatch.setitem(sys.modules, "got10k.trackers", None)
    with pytest.raises(UsageError, match="got10k package"):
        Got10kTracker("litetrack-tiny").track([str(file) for file in files], np.ones(4))


# --- VOT, protocol python


def test_vot_object_gives_the_boxes_of_the_tracker(
    files: list[Path], start: tuple[float, ...], clip: SyntheticClip, loaded: Tracker
) -> None:
    harnessed = VotTracker(model="litetrack-tiny", device="cpu")
    assert harnessed.multiobject is True
    answers = [harnessed.init(str(files[0]), [(start, {})], {})]
    x, y, w, h = start
    corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
    answers.append(harnessed.update({"depth": "none", "color": str(files[1])}, [(corners, {"prompt": clip.sentence})]))
    answers += [harnessed.update(str(file), [], {}) for file in files[2:]]
    assert [len(answer) for answer in answers] == [1] + [2] * (FRAMES - 1)
    for (box, facts), step in zip((answer[0] for answer in answers), direct(loaded, files, box=start), strict=True):
        assert type(box) is tuple
        assert [type(value) for value in box] == [float] * 4
        assert box == tuple(step.box)
        assert facts == {"score": step.score}
    late = direct(loaded, files[1:], box=around(corners), text=clip.sentence)
    assert [answer[1][0] for answer in answers[1:]] == [tuple(step.box) for step in late]
    # A new start drops the objects; the toolkit passes a single object without a list.
    assert harnessed.init(str(files[0]), (start, {})) == answers[0]


def around(corners: list[tuple[float, float]]) -> tuple[float, float, float, float]:
    (x, y), _, (right, bottom), _ = corners
    return x, y, right - x, bottom - y


def test_vot_object_raises_errors_that_the_toolkit_passes_on(
    files: list[Path], start: tuple[float, ...], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match=r"ModelNotFound: .*nope"):
        VotTracker(model="nope")
    harnessed = VotTracker(model="litetrack-tiny")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(files[0].read_bytes()[:-400])
    for frame, region, message in (
        (str(files[0]), (5.0, 5.0), "DataError: .*convert = rectangle"),
        (str(files[0]), (5.0, 5.0, 0.0, 5.0), "BoxInvalid"),
        (str(tmp_path / "gone.jpg"), start, "ImageError: .*gone.*No such file"),
        (str(cut), start, "ImageError: .*was cut"),
        ({"depth": str(files[0])}, start, "DataError: .*only depth"),
    ):
        with pytest.raises(RuntimeError, match=message):
            harnessed.init(frame, [(region, {})], {})


# --- VOT, protocol folder


def lay_out(folder: Path, files: list[Path], **queries: str) -> Path:
    """Write what the toolkit writes for the command; paths relative to the folder."""
    folder.mkdir()
    (folder / "images").symlink_to(files[0].parent)
    (folder / "frames_color.txt").write_text("".join(f"images/{file.name}\n" for file in files))
    for key, text in queries.items():
        (folder / f"query_{key}.txt").write_text(text)
    return folder


def boxes_in(path: Path) -> list[Any]:
    return [parse_region(line) for line in path.read_text().splitlines()]


def test_vot_folder_is_answered(
    files: list[Path],
    start: tuple[float, ...],
    clip: SyntheticClip,
    loaded: Tracker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    region = ",".join(map(repr, start))
    folder = lay_out(
        tmp_path / "run", files, obj0=f"0\n{region}\n", obj1=f"2\n{region}\ncolour=a=b\nprompt={clip.sentence}\n"
    )
    monkeypatch.chdir(folder)
    assert main(["--model", "litetrack-tiny", "--device", "cpu"]) == 0
    early, late = direct(loaded, files, box=start), direct(loaded, files[2:], box=start, text=clip.sentence)
    assert boxes_in(folder / "output_obj0.txt") == [tuple(step.box) for step in early]
    assert boxes_in(folder / "output_obj1.txt") == [None, None, *(tuple(step.box) for step in late)]
    scores = np.loadtxt(folder / "output_obj1_score.txt")
    assert scores.tolist() == [0.0, 0.0, *(step.score for step in late)]


def test_vot_folder_writes_0_for_masks_that_are_not_visible(
    files: list[Path], tmp_path: Path, loaded: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lay_out(tmp_path / "run", files[:3], a="0\n0\nprompt=the walker\n")
    given: list[Any] = []
    rows = iter([(2.4, -3.0, 4.0, 5.2, True), (7.0, 8.0, 2.0, 2.0, False), (-9.0, -9.0, 5.0, 5.0, True)])

    def step(*words: Any, **target: Any) -> Step:
        given.append(target)
        *box, visible = next(rows)
        return Step(box=np.array(box), score=0.25, visible=visible, index=0, seconds=0.0)

    monkeypatch.setattr(Tracker, "init", step)
    monkeypatch.setattr(Tracker, "update", step)
    vot_folder.answer_queries(folder, model="litetrack-tiny", output="mask")
    assert given[0] == {"box": None, "text": "the walker"}
    assert (folder / "output_a.txt").read_text().splitlines() == ["m2,0,4,2,0,8", "0", "0"]


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("0\n0\n", 4, "No region and no prompt"),
        ("0\n", 4, "query_a.txt:2: not a VOT region: ''"),
        ("one\n1,2,3,4\n", 4, "line 1: not a frame number: 'one'"),
        ("5\n1,2,3,4\n", 4, "frame 5 of 5 (they count from 0)"),
        ("0\n1,2,x,4\n", 4, "query_a.txt:2"),
        ("0\n1,2,0,4\n", 3, "BoxInvalid"),
        ("", 4, "query_a.txt has 1 lines"),
    ],
)
def test_vot_folder_fails_with_a_code_and_one_line(
    query: str, code: int, message: str, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = lay_out(tmp_path / "run", files, a=query)
    assert main(["--folder", str(folder), "--model", "litetrack-tiny"]) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.startswith("vltrack: error[")
    assert printed.count("\n") == 1
    assert not list(folder.glob("output_*"))


def test_vot_folder_refuses_a_hole_in_the_frames(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = lay_out(tmp_path / "run", files, a="0\n50,50,40,40\n")
    (folder / "cut.jpg").write_bytes(files[2].read_bytes()[:-400])
    lines = (folder / "frames_color.txt").read_text().splitlines()
    (folder / "frames_color.txt").write_text("\n".join([*lines[:2], "cut.jpg", *lines[3:]]) + "\n")
    assert main(["--folder", str(folder), "--model", "litetrack-tiny"]) == 3
    assert "cut.jpg: the file was cut" in capsys.readouterr().err
    (folder / "frames_color.txt").rename(folder / "frames_ir.txt")
    assert len(vot_folder.read_frames(folder)) == FRAMES
    (folder / "frames_depth.txt").write_text("x\n")
    with pytest.raises(DataError, match=r"frames_depth\.txt, frames_ir\.txt"):
        vot_folder.read_frames(folder)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("0", None),
        ("1\t", None),
        (" 2.0000", None),
        ("nan", None),
        ("10,20.5,30,40", (10, 20.5, 30, 40)),
        ("10 20.5\t30  40", (10, 20.5, 30, 40)),
        ("-1.5, 2,\t3,4e0 ", (-1.5, 2, 3, 4)),
        ("nan,nan,nan,nan", None),
        ("1,2,NaN,4,5,6,7,8", None),
        ("3,1,7,2,6,9,1,8", (1, 1, 6, 8)),
        ("0,0,4,0,4,5", (0, 0, 4, 5)),
        ("m10,20,4,3,5,2,2,1,2", (11, 21, 2, 2)),
        ("m 5, 7, 3, 2, 1, 3", (5, 7, 3, 2)),  # runs along rows, background first; the rest is not written
        ("m10,20,4,3,12", None),
        ("m0,0,0,0", None),
    ],
)
def test_every_form_of_a_region(text: str, box: tuple[float, ...] | None) -> None:
    assert parse_region(text) == box


@pytest.mark.parametrize(
    "text",
    ["", "x", "3", "-1", "1.5", "1,2", "1,2,3", "1,2,3,4,5", "1,2,3,4,5,6,7", "inf,1,2,3", "1,2,3,4,",
     "1e999", "m1,2,3", "m0,0,2,2,5", "m0,0,2,2,1.5", "m0,0,2,2,-1", "m0,0,-2,2", "m0,0,nan,2",
     "m0,0,99999,99999"],
)  # fmt: skip
def test_what_is_not_a_region_is_refused_by_file_and_line(text: str) -> None:
    with pytest.raises(DataError, match=r"query_1\.txt:2: "):
        parse_region(text, "query_1.txt:2")


@pytest.mark.parametrize(
    ("box", "line"),
    [
        ((1.4, 2.6, 2.2, 2.8), "m1,3,3,2,0,6"),  # edges 1.4, 3.6... : columns 1..3 and rows 3..4
        ((-5, -5, 7, 8), "m0,0,2,3,0,6"),
        ((float("nan"), 1, 2, 3), "0"),
        ((200, 0, 5, 5), "0"),
        ((5, 5, 0, 9), "0"),
        ((5, 5, -3, 9), "0"),
        ((-9, 0, 4, 4), "0"),
    ],
)
def test_a_box_is_written_as_a_filled_mask(box: tuple[float, ...], line: str) -> None:
    assert mask_line(box, (100, 100)) == line


def test_grounding_that_fails_is_not_hidden(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: Any, **target: Any) -> Step:
        raise GroundingFailed("No match.")

    monkeypatch.setattr(Tracker, "init", refuse)
    folder = lay_out(tmp_path / "run", files, a="0\n0\nprompt=the walker\n")
    assert main(["--folder", str(folder), "--model", "litetrack-tiny"]) == 3

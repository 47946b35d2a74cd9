"""``vltrack find``: one frame, the best box, its rivals, and what sets them apart; the grounder is a stand-in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import vltrack
from vltrack.api import find as job
from vltrack.api.find import words_apart
from vltrack.core.errors import BoxFrameOutOfRange, NothingFits, PromptUnreadable, UsageError
from vltrack.core.types import Candidate
from vltrack.tracking import starts


def candidate(box: Sequence[float], score: float, label: str = "car") -> Candidate:
    return Candidate(box=np.array(box, dtype=np.float64), score=score, label=label)


FOUND = {
    "the car": [
        candidate((100, 100, 60, 40), 0.5),
        candidate((500, 100, 60, 40), 0.3),
        candidate((500, 300, 9, 9), 0.05),
    ],
    "the cat": [candidate((100, 100, 60, 40), 0.2, "dog")],
    "the bird": [],
    "the left car": [candidate((100, 100, 60, 40), 0.9)],
}


class Naming:
    def find(self, image: np.ndarray, texts: Sequence[str]) -> list[list[Candidate]]:
        return [FOUND[text] for text in texts]

    def warnings(self, text: str) -> tuple[str, ...]:
        return ("only the first 3 are used",) if text == "the left car" else ()


@pytest.fixture(autouse=True)
def grounder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job.Grounding, "load", lambda device, backend: Naming())
    monkeypatch.setattr(starts, "FITS_ABOVE", 0.5)  # the probabilities above are round ones


def test_a_table_a_picture_and_the_same_as_json(command, clip: Path, tmp_path: Path) -> None:
    picture = tmp_path / "seen.png"
    done = command("find", clip, "--text", "the car", "-o", picture).ends(0, str(picture))
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0][:2] == ["frame", "0"]
    assert [line[:3] for line in lines[3:]] == [
        ["0.50", "100,100,60,40", "car"], ["0.30", "500,100,60,40", "car"], ["0.05", "other", "boxes"],
        ["0.15", "nothing"],
    ]  # fmt: skip
    assert [lines[3][-1], lines[4][-1]] == ["left", "right"]
    assert done.out.splitlines()[2] == "the car: several may be meant"
    drawn = cv2.imread(str(picture))
    assert drawn.shape == (480, 854, 3)
    with vltrack.open_source(clip) as frames:
        changed = np.abs(drawn[:, :, ::-1].astype(int) - next(frames).image).max(axis=2) > 40
    assert changed[100:140, 99:102].mean() > 0.9, "the best box is drawn"
    assert 0.1 < changed[100:140, 499:502].mean() < 0.95, "the rival is dashed"
    assert not changed[300:309, 500:509].any()
    record = command("find", clip, "--text", "the car", "--json").ends(0).json
    assert record == vltrack.find(clip, "the car").to_dict()
    assert [box["words"][-1] for box in record["answers"][0]["boxes"]] == ["left", "right"]


def test_one_image_is_written(command, clip: Path, tmp_path: Path) -> None:
    words = ("find", clip, "--text", "the car", "-o", tmp_path / "a.png", "-o", tmp_path / "b.png")
    command(*words).ends(2, "--output was given 2 times")
    assert not list(tmp_path.iterdir())


def test_a_sentence_that_is_cut_is_warned_of(command, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("find", clip, "--text", "the car", "--text", "the left car")
    command(*words).ends(0, "warning: the left car: only the first 3 are used")
    assert command(*words, "--json").json["answers"][1]["warnings"] == ["only the first 3 are used"]
    monkeypatch.undo()
    long = "the car " * 60
    [answer] = vltrack.find(clip, long).answers
    assert "120 word pieces" in answer.warnings[0]


def test_nothing_fits(command, clip: Path) -> None:
    done = command("find", clip, "--text", "the cat", "--text", "the car", "--text", "the bird", "--json")
    done.ends(10, "'the cat', 'the bird'")
    assert [answer["fits"] for answer in done.json["answers"]] == [False, True, False]
    assert [answer["nothing"] for answer in done.json["answers"]] == pytest.approx([0.8, 0.15, 1])
    refusal = vltrack.find(clip, ["the cat"]).refusal()
    assert isinstance(refusal, NothingFits)
    assert vltrack.find(clip, ["the car"]).refusal() is None


@pytest.mark.parametrize(("at", "frame"), [("30", 30), ("1.25s", 30), ("1.22s", 30), ("0s", 0), (None, 0)])
def test_the_frame(command, clip: Path, at: str | None, frame: int) -> None:
    flags = () if at is None else ("--at", at)
    assert json.loads(command("find", clip, "--text", "the car", "--json", *flags).out)["frame"] == frame


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--text", "the car", "--at", "1000"), BoxFrameOutOfRange.exit_code),
        (("--text", "the car", "--at", "90s"), BoxFrameOutOfRange.exit_code),
        (("--text", "the car", "--at", "soon"), UsageError.exit_code),
        (("--text", "the car", "--at", "-3"), UsageError.exit_code),
        (("--text", "the car", "--at", "-3s"), UsageError.exit_code),
        (("--text", "the car", "-o", "seen.jpg"), UsageError.exit_code),
        (("--text", "машина"), PromptUnreadable.exit_code),
        ((), UsageError.exit_code),
    ],
)
def test_refused(command, clip: Path, flags: tuple[str, ...], code: int) -> None:
    assert command("find", clip, *flags).ends(code).out == ""


def test_words_that_set_two_boxes_apart() -> None:
    image = np.full((200, 400, 3), 128, np.uint8)
    image[20:60, 20:60] = (230, 20, 20)
    image[120:180, 300:380] = (20, 20, 230)
    red, blue = candidate((20, 20, 40, 40), 0.5), candidate((300, 120, 80, 60), 0.4, "truck")
    assert words_apart(image, "the thing", red, blue) == ("car", "red", "left", "top", "small")
    assert words_apart(image, "the thing", blue, red) == ("truck", "blue", "right", "bottom", "large")
    assert words_apart(image, "the big red car on the left", red, blue) == ("top",)
    assert words_apart(image, "the thing", red, red) == ()


def test_a_sentence_is_ambiguous_where_a_weak_box_has_rivals(clip: Path) -> None:
    answers = vltrack.find(clip, ["the car", "the left car", "the cat"]).to_dict()["answers"]
    assert [answer["ambiguous"] for answer in answers] == [True, False, False]


@pytest.mark.parametrize(("at", "frame"), [("1.25s", 30), ("30", 30), (np.float32(1.25), 30), (np.int64(30), 30)])
def test_at_as_a_string_or_a_number_of_numpy(clip: Path, at: Any, frame: int) -> None:
    assert vltrack.find(clip, "the car", at=at).frame == frame


@pytest.mark.parametrize("at", ["foo", "1.5", "nans", "-1s", -1.0, -1, float("nan"), float("inf"), True, (1,)])
def test_at_is_a_time_or_a_frame(clip: Path, at: Any) -> None:
    with pytest.raises(UsageError) as caught:
        vltrack.find(clip, "the car", at=at)
    assert str(at) in caught.value.message


@pytest.mark.parametrize("at", [1000, 90.0])
def test_beyond_the_end_the_number_of_frames_is_said(clip: Path, at: float) -> None:
    with vltrack.open_source(clip) as frames:
        number = sum(1 for _ in frames)
    with pytest.raises(BoxFrameOutOfRange, match=rf"{at:g}.*\b{number} frames; the last is (frame 39|at 1\.625 s)"):
        vltrack.find(clip, "the car", at=at)


def test_an_array_or_a_frame_is_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    seen = []
    naming = Naming()
    monkeypatch.setattr(naming, "find", lambda image, texts: [seen.append(image) or []], raising=False)
    monkeypatch.setattr(job.Grounding, "load", lambda device, backend: naming)
    for source in (image, vltrack.Frame(image=image, index=7, seconds=0.5), image[None]):
        found = vltrack.find(source, "the car")
        assert (found.width, found.height) == (64, 48)
        assert found.frame == getattr(source, "index", 0)
        np.testing.assert_array_equal(seen.pop(), image)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("xqzv", PromptUnreadable), (None, TypeError), (5, TypeError), (b"the car", TypeError),
        (float("nan"), TypeError), (["the car", None], TypeError),
    ],
)  # fmt: skip
def test_texts_that_no_function_takes(clip: Path, text: Any, error: type[Exception]) -> None:
    tracker = vltrack.load("litetrack-tiny", device="cpu")
    for finding in (lambda: vltrack.find(clip, text), lambda: tracker.find(np.zeros((48, 64, 3), np.uint8), text)):
        with pytest.raises(error) as caught:
            finding()
        assert "box" not in getattr(caught.value, "hint", "")

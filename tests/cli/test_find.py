"""``vltrack find``: one frame, the best box, its rivals, and what sets them apart; the grounder is a stand-in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

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
}


class Naming:
    def find(self, image: np.ndarray, texts: Sequence[str]) -> list[list[Candidate]]:
        return [FOUND[text] for text in texts]


@pytest.fixture(autouse=True)
def grounder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_load", lambda device: Naming())
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

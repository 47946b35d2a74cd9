"""Clips of one's own: annotated folders and tracks, what is held out, and fine-tuning on the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import vltrack
from vltrack.api.reporter import Reporter
from vltrack.checkpoints import store
from vltrack.core.errors import DataError
from vltrack.core.track import Track
from vltrack.core.types import Status, Step
from vltrack.datasets.sequences import Sequence
from vltrack.tracking.postprocess import default_policy
from vltrack.training import own_clips
from vltrack.training.own_clips import as_images, has_tracks, hold_out, measure, part_of, read_clips

CAR = Path(vltrack.__file__).parent / "clips" / "car-shadow.mp4"


def write_clip(folder: Path, frames: int, sentence: str = "", seed: int = 0) -> None:
    """A bright square that moves over noise; it is absent in frame 2."""
    rng = np.random.default_rng(seed)
    (folder / "img").mkdir(parents=True)
    rows = []
    for k in range(frames):
        image = rng.integers(0, 90, (96, 128, 3), dtype=np.uint8)
        x, y = 20 + 2 * k % 70, 30
        image[y : y + 24, x : x + 24] = (40, 60, 230)
        cv2.imwrite(str(folder / "img" / f"{k + 1:08d}.png"), image)
        rows.append("0,0,0,0" if k == 2 else f"{x},{y},24,24")
    (folder / "groundtruth.txt").write_text("\n".join(rows) + "\n")
    if sentence:
        (folder / "nlp.txt").write_text(sentence + "\n")


def write_track(path: Path, rows: Iterable[tuple[int, bool, Status]], **meta: object) -> None:
    steps = [
        Step(box=np.array([300.0 + i, 90, 100, 80]), score=0.5, visible=visible, index=i, seconds=i / 25, status=status)
        for i, visible, status in rows
    ]
    about = {"source": "car.mp4", "sentence": "the silver car", "width": 854, "height": 480}
    Track.from_steps(steps, about | meta).save(path)


def clip(name: str, frames: int, absent: Iterable[int] = ()) -> Sequence:
    gone = np.isin(np.arange(frames), list(absent))
    files = tuple(Path(name) / f"{k}.jpg" for k in range(frames))
    boxes = np.tile([5.0, 5, 20, 20], (frames, 1))
    return Sequence(name=name, source=Path(name), files=files, boxes=boxes, absent=gone)


def test_a_corrected_track_is_a_clip(tmp_path: Path) -> None:
    (tmp_path / "car.mp4").write_bytes(CAR.read_bytes())
    rows = [(k, k != 5, Status.OK if k != 5 else Status.LOST) for k in range(12) if k != 7]
    rows[3] = (3, True, Status.INVALID)
    write_track(tmp_path / "car.json", rows)
    assert has_tracks(tmp_path)
    (found,) = read_clips(tmp_path)
    images = as_images(found, tmp_path / "run")
    kept = [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert [int(file.stem) for file in images.files] == kept
    assert images.boxes[:, 0].tolist() == [300.0 + k for k in kept]
    assert images.absent.tolist() == [k == 5 for k in kept]
    assert (images.sentence, cv2.imread(str(images.files[0])).shape) == ("the silver car", (480, 854, 3))


def test_a_video_is_decoded_once_and_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "car.mp4").write_bytes(CAR.read_bytes())
    write_track(tmp_path / "car.csv", [(k, True, Status.OK) for k in range(4)])
    (found,) = read_clips(tmp_path)
    real, calls = cv2.imencode, []

    def fails(*given: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(cv2, "imencode", fails)
    with pytest.raises(KeyboardInterrupt):
        as_images(found, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    first = as_images(found, tmp_path / "run")
    count = len(calls)
    assert as_images(found, tmp_path / "run").files == first.files
    assert len(calls) == count


@pytest.mark.parametrize(
    ("meta", "said"), [({"source": "gone.mp4"}, "'gone.mp4', which is missing"), ({"width": 640}, "is 854x480")]
)
def test_a_track_without_its_video_is_told(tmp_path: Path, meta: dict[str, object], said: str) -> None:
    (tmp_path / "car.mp4").write_bytes(CAR.read_bytes())
    write_track(tmp_path / "car.json", [(0, True, Status.OK)], **meta)
    with pytest.raises(DataError, match=said):
        as_images(read_clips(tmp_path)[0], tmp_path / "run")


def test_rows_and_frames_must_agree(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "video.mp4").write_bytes(CAR.read_bytes())
    (tmp_path / "one" / "groundtruth.txt").write_text("1,2,30,40\n" * 5)
    with pytest.raises(DataError, match="frames, its annotation 5 rows"):
        as_images(read_clips(tmp_path)[0], tmp_path / "run")
    write_track(tmp_path / "long.json", [(500, True, Status.OK)], source="one/video.mp4")
    with pytest.raises(DataError, match="its annotation 501 rows"):
        as_images(read_clips(tmp_path)[1], tmp_path / "run")


def test_of_many_clips_every_fifth_is_held_out_in_any_order() -> None:
    clips = [clip(f"c{k}", 30) for k in range(11)]
    train, held = hold_out(clips)
    assert (len(train), len(held)) == (9, 2)
    again, same = hold_out(reversed(clips))
    assert [c.name for c in held] == [c.name for c in same]
    assert [c.name for c in train] == [c.name for c in again]
    assert {c.name for c in train + held} == {c.name for c in clips}
    short = [clip(name, 30 if name == "d" else 5) for name in "abcd"]
    assert [c.name for c in hold_out(short)[1]] == ["d"]


def test_of_few_clips_the_last_quarter_is_held_out() -> None:
    (train,), (held,) = hold_out([clip("a", 80)])
    assert (len(train), len(held), held.name) == (60, 20, "a, frames 60 to 79")
    assert (train.files[-1].stem, held.files[0].stem) == ("59", "60")
    whole, none = hold_out([clip("a", 80, absent=range(65, 80))])
    assert (len(whole[0]), none) == (80, ())


def test_success_is_measured_from_the_first_frame_with_the_target(tmp_path: Path) -> None:
    write_clip(tmp_path / "one", 8, "the red square")
    (found,) = read_clips(tmp_path)
    model, device = store.load("litetrack-tiny")[0], torch.device("cpu")
    policy = default_policy("litetrack", "tiny")
    later = part_of(found, range(2, 8))  # absent in its first frame
    both = measure(model, [later], device, policy)
    assert set(both) == {"bbox", "nlbbox"}
    assert both["bbox"] > 0.5
    plain = replace(later, sentence="")
    assert measure(model, [plain], device, policy) == {"bbox": both["bbox"]}
    wrong = replace(plain, boxes=plain.boxes + np.array([0, 60, 0, 0]) * (np.arange(6) > 1)[:, None])
    assert measure(model, [wrong], device, policy)["bbox"] < both["bbox"]
    with pytest.raises(DataError, match="absent in every frame"):
        measure(model, [part_of(found, [2])], device, policy)


class Notes(Reporter):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_fine_tuning_says_what_it_held_out_and_what_it_gained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "clips" / "one", 48, "the red square")
    results = iter([{"bbox": 0.5, "nlbbox": 0.6}, {"bbox": 0.7, "nlbbox": 0.4}])
    measured: list[list[str]] = []

    def fake(model: object, held: Iterable[Sequence], *given: object) -> dict[str, float]:
        measured.append([one.name for one in held])
        return next(results)

    monkeypatch.setattr(own_clips, "measure", fake)
    reporter = Notes()
    done = vltrack.train(
        "litetrack", start="litetrack-tiny", data=tmp_path / "clips", out=tmp_path / "run", steps=1, batch=2,
        device="cpu", reporter=reporter,
    )  # fmt: skip
    name = "one, frames 36 to 47"
    assert measured == [[name], [name]]
    told = "\n".join(reporter.notes)
    assert f"held out: {name}" in told
    assert "success AUC, bbox: 0.500 before, 0.700 after" in told
    assert f"--model {done.weights}" in told
    assert any("worse than before" in text and "(nlbbox)" in text for text in reporter.warnings)
    record = json.loads((done.out / "finetune.json").read_text())
    assert record["after"] == {"bbox": 0.7, "nlbbox": 0.4}
    _, card = store.load(done.weights)
    assert card["own_clips"] == record
    assert card["recipe"]["start"]["weights"] == "litetrack-tiny"
    (source,) = json.loads((done.out / "data.json").read_text())
    assert (source["name"], source["images"]) == ("folder", 36)

"""What a run shows: tables that a kill cannot spoil, TensorBoard, images of samples, the progress line."""

from __future__ import annotations

import csv
import logging
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import small_training as small
from model_cases import CONFIGS, make
from vltrack.core.types import Mode
from vltrack.models.base import MODE_IDS
from vltrack.prep.tokenizers import load_tokenizer
from vltrack.training.clips import synthetic_clip
from vltrack.training.data import ClipDataset, Material, TextEncoding
from vltrack.training.monitor import PREVIEW_EVERY, PREVIEWS_KEPT, Monitor
from vltrack.training.preview import preview_of
from vltrack.training.recipes import TrainConfig, aitrack_tiny_clips

TERMS = {"total": 3.5, "giou": 0.5, "l1": 0.25, "centre": 1.5, "iou": 0.75}


def monitor(out: Path, config: TrainConfig | None = None, **options: Any) -> Monitor:
    return Monitor(out, config or small.short(steps=1000), **{"tensorboard": False} | options)


def add(to: Monitor, *steps: int) -> None:
    for step in steps:
        to.log(step, TERMS, rate=1e-3, pairs_per_s=82.4, waiting=0.03)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_progress_line_has_the_largest_weighted_parts_and_the_table_all(tmp_path: Path) -> None:
    lines: list[tuple[int, int, str]] = []
    config = replace(small.short(steps=1000, batch=4), samples_per_epoch=200)
    add(monitor(tmp_path, config, progress=lambda *given: lines.append(given)), 25)
    text = "loss 3.500  overlap 0.750  82.4 pairs/s  3% waiting for data  rate 1.0e-03  "
    assert lines == [(25, 1000, text + "(centre 1.50, l1 1.25, giou 1.00)")]
    (row,) = table(tmp_path / "log.csv")
    filled = {"step": "25", "epoch": "0.5", "rate": "0.001", "pairs_per_s": "82.4", "waiting": "0.03"}
    filled |= {name: f"{value:g}" for name, value in TERMS.items()}
    assert {name: value for name, value in row.items() if value} == filled


def test_a_recipe_without_epochs_leaves_the_column_empty_and_no_progress_goes_to_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vltrack"):
        add(monitor(tmp_path, replace(aitrack_tiny_clips(), steps=50)), 25)
    assert "step 25 of 50  loss" in caplog.text
    assert "clips/s" in caplog.text
    assert table(tmp_path / "log.csv")[0]["epoch"] == ""


def test_a_resume_keeps_the_rows_up_to_its_checkpoint_and_no_unfinished_line(tmp_path: Path) -> None:
    run = monitor(tmp_path)
    add(run, 25, 50, 75)
    run.validation(50, {"bbox": 0.5, "nlbbox": 0.4, "nl": 0.3})
    whole = (tmp_path / "log.csv").read_bytes()
    with (tmp_path / "log.csv").open("a") as file:
        file.write("100,,0.001")
    with (tmp_path / "validation.csv").open("a") as file:
        file.write("75,0.5,0.4,0.")  # a number that is cut reads as a number
    run = monitor(tmp_path)
    run.rewind(75)
    assert (tmp_path / "log.csv").read_bytes() == whole
    assert [run.validated(step) for step in (25, 50, 75)] == [False, True, False]
    run.rewind(50)
    add(run, 75)
    assert [row["step"] for row in table(tmp_path / "log.csv")] == ["25", "50", "75"]
    assert (tmp_path / "log.csv").read_bytes() == whole


def test_a_table_of_an_older_version_continues_under_the_columns_of_this_one(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,rate,total,iou,pairs_per_s\r\n25,0.5,4,0.3,70\r\n")
    run = monitor(tmp_path)
    run.rewind(25)
    add(run, 50)
    first, second = table(tmp_path / "log.csv")
    assert (first["total"], first["waiting"], second["waiting"]) == ("4", "", "0.03")


@pytest.mark.fault("T18")
def test_a_table_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log.csv").mkdir()
    run = monitor(tmp_path)
    add(run, 25, 50)
    run.flush()
    run.validation(50, {"bbox": 0.5, "nlbbox": 0.4, "nl": 0.3})
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    assert "log.csv" in caplog.text
    assert run.validated(50)


@pytest.mark.fault("T18")
def test_a_row_for_which_the_disk_has_no_room_leaves_no_half_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = monitor(tmp_path)
    add(run, 25)
    before = (tmp_path / "log.csv").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        add(run, 50)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "log.csv").read_bytes() == before
    assert "disk is full" in caplog.text
    add(run, 75)
    assert [row["step"] for row in table(tmp_path / "log.csv")] == ["25", "75"]


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = monitor(tmp_path, tensorboard=True)
    add(run, 25, 50, 75)
    run.flush()
    run.close()
    run = monitor(tmp_path, tensorboard=True)
    run.rewind(50)
    run.validation(50, {"bbox": 0.5})
    add(run, 75)
    run.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/giou")] == [25, 50, 75]
    assert {"loss/total", "overlap", "rate", "pairs_per_s", "waiting"} <= set(events.Tags()["scalars"])
    assert events.Scalars("validation/bbox")[0].value == 0.5


def test_without_the_package_there_is_no_tensorboard_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = monitor(tmp_path, tensorboard=True)
    add(run, 25)
    run.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_images_are_drawn_when_due_and_the_newest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full((8, 8, 3), 200, dtype=np.uint8)
    monkeypatch.setattr("vltrack.training.monitor.preview_of", lambda *given: image)
    run = monitor(tmp_path, small.short(steps=30 * PREVIEW_EVERY + 10))
    for step in (25, 50, PREVIEW_EVERY, 30 * PREVIEW_EVERY + 10):
        run.preview(step, {}, None)
    names = [25, PREVIEW_EVERY, 30 * PREVIEW_EVERY + 10]
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [f"step-{n:06d}.jpg" for n in names]
    run.rewind(PREVIEW_EVERY)
    for step in range(2 * PREVIEW_EVERY, 30 * PREVIEW_EVERY, PREVIEW_EVERY):
        run.preview(step, {}, None)
    kept = sorted((tmp_path / "samples").iterdir())
    assert len(kept) == PREVIEWS_KEPT
    assert kept[-1].name == f"step-{29 * PREVIEW_EVERY:06d}.jpg"
    assert np.abs(cv2.imread(str(kept[0])).astype(int) - 200).max() < 4


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_tracker_shows_its_samples(name: str) -> None:
    """All three modes, with and without a target in view; nothing of the training changes."""
    model = make(CONFIGS[name]()).eval()
    config = replace(small.short().pairs, **{k: getattr(model, k) for k in ("template_size", "search_size")})
    source = type("Source", (), {"config": config, "max_words": model.max_words})()
    published = name.endswith(("artrack-base", "ostrack-base", "stark-base", "r50", "s50"))  # without a text side
    modes = [Mode.BBOX] * 3 if published else [Mode.BBOX, Mode.NLBBOX, Mode.NL]
    samples = [small.random_sample(source, index) for index in range(3)]
    batch = {key: torch.from_numpy(np.stack([np.asarray(s[key]) for s in samples])) for key in samples[0]}
    batch["flag"] = torch.tensor([MODE_IDS[mode] for mode in modes])
    batch["words"] &= torch.tensor([mode is not Mode.BBOX for mode in modes])[:, None]
    torch.manual_seed(5)
    before, image = torch.get_rng_state(), preview_of(model, batch, "step 25")
    assert torch.equal(torch.get_rng_state(), before)
    assert image.dtype == np.uint8
    assert _pixels(image, (64, 224, 96)) > 200
    assert _pixels(image, (255, 64, 64)) > 20


def _pixels(image: np.ndarray[Any, Any], color: tuple[int, int, int]) -> int:
    return int((np.abs(image.astype(int) - color).max(axis=-1) < 40).sum())


def test_clips_are_shown_as_the_tracker_follows_them() -> None:
    clips = ClipDataset(aitrack_tiny_clips().clips, Material(), TextEncoding(vocabulary="bert", length=24), 1)
    clips._clips = lambda index: synthetic_clip(index, 12)
    model = make(CONFIGS["aitrack tiny"]())
    batch = {key: torch.from_numpy(np.stack([np.asarray(clips[i][key]) for i in (2, 3)])) for key in clips[2]}
    image = preview_of(model, batch, "step 25")
    assert _pixels(image, (64, 224, 96)) > 200
    # Clips of different size come as lists.
    assert np.array_equal(image, preview_of(model, {key: list(values) for key, values in batch.items()}, "step 25"))


def test_the_sentence_of_an_image_is_read_from_its_ids() -> None:
    tokenizer = load_tokenizer("bert")
    assert tokenizer.decode(tokenizer.encode("The wakeboarder, left of it", 24).ids) == "the wakeboarder, left of it"

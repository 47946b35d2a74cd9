"""Clips to train on, and the stage that rolls a tracker out over them: its boxes lead, SIoU teaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from model_cases import make, small
from vltrack.core.errors import ConfigError
from vltrack.datasets.images import ImageSet
from vltrack.models import aitrack
from vltrack.models.aitrack import AITrack
from vltrack.models.base import Memory
from vltrack.prep.crops import region_for
from vltrack.prep.tokenizers import WordPieceTokenizer
from vltrack.training.checkpoint import averaged
from vltrack.training.clips import Clip, ClipConfig, clips_of, moving_camera_clip, synthetic_clip
from vltrack.training.data import ClipDataset, Material, TextEncoding
from vltrack.training.launch import configured
from vltrack.training.loop import train
from vltrack.training.losses import siou
from vltrack.training.recipes import LossWeights
from vltrack.training.rollout import ClipObjective, Rollout, clip_loss, roll
from vltrack.training.sources import find_sources

CPU = torch.device("cpu")
FRAMES = 5
TEXTS = TextEncoding(vocabulary="bert", length=24)


@pytest.fixture(scope="module")
def model() -> AITrack:
    made: AITrack = make(small(aitrack.tiny()))
    with torch.no_grad():
        made.decoder.word_embeddings.weight *= 20
    return made


@pytest.fixture(scope="module")
def clip() -> Clip:
    return synthetic_clip(3, FRAMES)


# -- clips --------------------------------------------------------------------------------------------


def test_a_wandering_camera_keeps_box_and_object_together() -> None:
    """A bright rectangle of the picture lies where the box says, in every frame, at every size."""
    for width, height in ((900, 700), (160, 120)):  # shrunk and enlarged
        picture = np.full((height, width, 3), 40, dtype=np.uint8)
        x, y, w, h = width // 3, height // 4, width // 5, height // 3
        cv2.rectangle(picture, (x, y), (x + w - 1, y + h - 1), (250, 250, 250), -1)
        made = moving_camera_clip(picture, np.array([x, y, w, h], dtype=float), "door", 5, 12)
        assert made.frames.shape == (12, 240, 320, 3)
        assert made.sentence == "the door"
        for frame, box in zip(made.frames, made.boxes, strict=True):
            rows, columns = np.nonzero(frame[..., 0] > 145)
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(np.array(seen) - [*box[:2], *(box[:2] + box[2:])]).max() <= 1.5
        assert np.ptp(made.boxes[:, 0]) > 5
        assert np.ptp(np.sqrt(made.boxes[:, 2:].prod(axis=1))) > 5


def test_clips_are_functions_of_their_number() -> None:
    stream, again = clips_of(ImageSet((Path(),), ()), FRAMES, 1), clips_of(ImageSet((Path(),), ()), FRAMES, 1)
    for number in (0, 3):
        assert np.array_equal(stream(number).frames, again(number).frames)
    assert not np.array_equal(stream(0).frames, stream(1).frames)
    assert not stream(0).absent[0]


# -- rolling out --------------------------------------------------------------------------------------


def test_its_own_boxes_lead(model: AITrack, clip: Clip) -> None:
    """Crops are cut around the last answer, the past holds the answers, the first slots the start's box."""
    rolled = roll(model, clip, CPU)
    t = FRAMES - 1
    assert rolled.search_T3SS.shape == (t, 3, 128, 128)
    assert rolled.past_TH4.shape == (t, 7, 4)
    assert not rolled.search_T3SS.requires_grad
    box, past = clip.boxes[0], [clip.boxes[0]] * 7
    memory = memory_of(model, rolled)
    for i in range(t):
        region = region_for(box, model.search_factor, model.search_size)
        unit = np.stack([region.to_crop(b) / region.size for b in past])
        unit[:, :2] += unit[:, 2:] / 2
        assert np.allclose(rolled.past_TH4[i].numpy(), unit, atol=1e-5)
        truth = region.to_crop(clip.boxes[i + 1]) / region.size
        assert np.allclose(rolled.box_T4[i, 2:].numpy(), truth[2:], atol=1e-5)
        with torch.no_grad():
            seen = model.locate(rolled.search_T3SS[i : i + 1], memory, rolled.past_TH4[i : i + 1])
        cx, cy, w, h = seen.boxes_BSS4[0, 0, 0].double().numpy() * region.size
        named = region.to_frame(np.array([cx - w / 2, cy - h / 2, w, h]))
        low, high = rolled.predicted_T4[i, :2], rolled.predicted_T4[i, :2] + rolled.predicted_T4[i, 2:]
        assert (low >= -1e-6).all()
        assert (rolled.predicted_T4[i, 2:] >= 10).all()
        inside = (named[:2] >= 0).all() and (named[:2] + named[2:] <= [320, 240]).all() and min(named[2:]) >= 10
        if inside:
            assert np.allclose(np.concatenate([low, high]), [*named[:2], *(named[:2] + named[2:])], atol=1e-3)
        box, past = rolled.predicted_T4[i], [*past[1:], rolled.predicted_T4[i]]


def memory_of(model: AITrack, rolled: Rollout) -> Memory:
    return model.init_template(rolled.template, rolled.context)


def test_the_loss_is_siou_of_what_it_expected_over_usable_frames(
    model: AITrack, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolled = roll(model, clip, CPU)
    usable = torch.tensor([True, False, True, False])
    rolled = replace(rolled, usable_T=usable)
    loss, _ = clip_loss(model, rolled)
    with torch.no_grad():
        memory = memory_of(model, rolled)
        each = [
            model.locate_expected(rolled.search_T3SS[i : i + 1], memory, rolled.past_TH4[i : i + 1]) for i in (0, 2)
        ]
        expected = siou(torch.cat(each), rolled.box_T4[usable]).mean()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)
    none = clip_loss(model, replace(rolled, usable_T=torch.zeros(4, dtype=torch.bool)))
    assert [float(part.detach()) for part in none] == [0.0, 0.0]
    monkeypatch.setattr(model, "locate_expected", lambda *_: rolled.box_T4)
    assert [float(part) for part in clip_loss(model, rolled)] == pytest.approx([0.0, 1.0], abs=1e-4)


def test_frames_without_the_target_or_with_it_out_of_sight_teach_nothing(model: AITrack, clip: Clip) -> None:
    away = clip.boxes.copy()
    away[2, :2] = (3000, 3000)
    absent = clip.absent.copy()
    absent[3] = True
    rolled = roll(model, replace(clip, boxes=away, absent=absent), CPU)
    assert not bool(rolled.usable_T[1])
    assert not bool(rolled.usable_T[2])


def test_a_sentence_may_join(model: AITrack, clip: Clip) -> None:
    tokens = WordPieceTokenizer.load().encode(clip.sentence, model.max_words)
    words = torch.from_numpy(tokens.ids)[None], torch.from_numpy(tokens.mask)[None]
    spoken = roll(model, clip, CPU, words)
    model.zero_grad()
    clip_loss(model, spoken)[0].backward()
    assert float(model.text_proj.weight.grad.abs().max()) > 0
    model.zero_grad()


def test_the_loss_of_one_rollout_goes_down(clip: Clip) -> None:
    model: AITrack = make(small(aitrack.tiny()), seed=2)
    rolled = roll(model, clip, CPU)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss, _ = clip_loss(model, rolled)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[3] < losses[0] - 1e-3


def batch_of(*clips: Clip, words: bool = False) -> dict[str, torch.Tensor]:
    tokens = WordPieceTokenizer.load().encode(clips[0].sentence, 24)
    return {
        "frames": torch.from_numpy(np.stack([clip.frames for clip in clips])),
        "boxes": torch.from_numpy(np.stack([clip.boxes for clip in clips])),
        "absent": torch.from_numpy(np.stack([clip.absent for clip in clips])),
        "ids": torch.from_numpy(np.stack([tokens.ids] * len(clips))),
        "words": torch.from_numpy(np.stack([tokens.mask * words] * len(clips))),
    }


def test_a_batch_is_the_mean_of_its_clips(clip: Clip) -> None:
    model: AITrack = make(small(aitrack.tiny()), seed=2)
    model.train()
    model.norm.eval()  # a part that training keeps at rest
    other = synthetic_clip(8, FRAMES)
    length = min(len(clip.frames), len(other.frames))
    clips = [
        replace(each, frames=each.frames[:length], boxes=each.boxes[:length], absent=each.absent[:length])
        for each in (clip, other)
    ]
    objective = ClipObjective(model, LossWeights(siou=3.0))
    both = objective(batch_of(*clips), False)
    each = [objective(batch_of(one), False) for one in clips]
    assert float(both["siou"].detach()) == pytest.approx(float((each[0]["siou"] + each[1]["siou"]).detach()) / 2)
    assert float(both["total"].detach()) == pytest.approx(3 * float(both["siou"].detach()))
    assert float(both["iou"]) == pytest.approx(float(each[0]["iou"] + each[1]["iou"]) / 2)
    assert model.training
    assert not model.norm.training
    spoken = objective(batch_of(*clips, words=True), False)
    assert float(spoken["siou"].detach()) != float(both["siou"].detach())


def test_clips_of_a_data_set_are_of_one_length_and_some_are_named(data: Path) -> None:
    made = ClipDataset(ClipConfig(frames=FRAMES, text_share=0.5), Material(stills=(data,)), TEXTS, 4)
    clips = [made[index] for index in range(6)]
    assert {clip["frames"].shape for clip in clips} == {(FRAMES, 240, 320, 3)}
    assert [bool(clip["words"].any()) for clip in clips] == [False, True] * 3
    assert all(np.array_equal(made[2][name], clips[2][name]) for name in clips[2])
    for clip in clips:
        assert not clip["absent"][0]
        assert (clip["boxes"][~clip["absent"], 2:] > 0).all()


def test_the_second_stage_is_a_run_like_any_other(data: Path, tmp_path: Path) -> None:
    """Pairs first, then clips from where they ended; what is frozen stays, and it can be resumed."""
    small_run = {"steps": "2", "batch": "2", "save_every": "1", "words": "random", "borrow": ""}
    first = configured({"model": "aitrack", "size": "tiny", "settings": small_run})
    first = replace(first, init_patterns=())
    train(first, sources=find_sources([data]), out=tmp_path / "pairs", resume=False, device="cpu", workers=0)
    settings = {"steps": "1", "batch": "2", "save_every": "1", "clips.frames": "3"}
    options = {"model": "aitrack", "size": "tiny", "start": tmp_path / "pairs", "settings": settings}
    second = configured(options)
    assert second.clips == ClipConfig(frames=3, text_share=0.35)
    train(second, sources=find_sources([data]), out=tmp_path / "clips", resume=False, device="cpu", workers=0)
    before, after = averaged(tmp_path / "pairs"), averaged(tmp_path / "clips")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"decoder.word_embeddings.weight", "identity", "words.weight"} <= moved
    assert "bert.embeddings.word_embeddings.weight" not in moved
    rows = (tmp_path / "clips" / "validation.csv").read_text().splitlines()
    assert len(rows) == 2


def test_what_cannot_be_trained_is_refused(model: AITrack, clip: Clip) -> None:
    with pytest.raises(ConfigError, match="AITrack"):
        ClipObjective(make(small(replace(aitrack.tiny(), history=0))), LossWeights())
    with pytest.raises(ValueError, match="1"):
        roll(model, replace(clip, frames=clip.frames[:1]), CPU)
    for numbers in ({"frames": 1}, {"frames": 3, "text_share": 1.5}):
        with pytest.raises(ConfigError):
            ClipConfig(**numbers)

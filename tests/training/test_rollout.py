"""Clips to train on, and the stage that rolls a tracker out over them: its boxes lead, SIoU teaches."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from model_cases import make, small
from vltrack.core.errors import Diverged
from vltrack.models import aitrack
from vltrack.models.aitrack import AITrack
from vltrack.prep.crops import region_for
from vltrack.prep.tokens import WordPieces
from vltrack.training.clip_views import Clip, clips_of, drawn, wandered
from vltrack.training.losses_sequence import siou
from vltrack.training.rollout import ClipStage, clip_loss, roll, train_clips

CPU = torch.device("cpu")
FRAMES = 5


@pytest.fixture(scope="module")
def model() -> AITrack:
    made: AITrack = make(small(aitrack.tiny()))
    with torch.no_grad():
        made.decoder.word_embeddings.weight *= 20
    return made


@pytest.fixture(scope="module")
def clip() -> Clip:
    return drawn(3, FRAMES)


# -- clips --------------------------------------------------------------------------------------------


def test_a_wandering_camera_keeps_box_and_object_together() -> None:
    """A bright rectangle of the picture lies where the box says, in every frame, at every size."""
    for width, height in ((900, 700), (160, 120)):  # shrunk and enlarged
        picture = np.full((height, width, 3), 40, dtype=np.uint8)
        x, y, w, h = width // 3, height // 4, width // 5, height // 3
        cv2.rectangle(picture, (x, y), (x + w - 1, y + h - 1), (250, 250, 250), -1)
        made = wandered(picture, np.array([x, y, w, h], dtype=float), "door", 5, 12)
        assert made.frames.shape == (12, 240, 320, 3)
        assert made.sentence == "the door"
        for frame, box in zip(made.frames, made.boxes, strict=True):
            rows, columns = np.nonzero(frame[..., 0] > 145)
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(np.array(seen) - [*box[:2], *(box[:2] + box[2:])]).max() <= 1.5
        assert np.ptp(made.boxes[:, 0]) > 5
        assert np.ptp(np.sqrt(made.boxes[:, 2:].prod(axis=1))) > 5


def test_clips_are_functions_of_their_number() -> None:
    stream, again = clips_of(None, FRAMES, 1), clips_of(None, FRAMES, 1)
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
    memory = model.remember(
        rolled.template_B3SS, rolled.template_box_B4, rolled.context_B3SS, rolled.context_box_B4
    )
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
        low, high = rolled.named_T4[i, :2], rolled.named_T4[i, :2] + rolled.named_T4[i, 2:]
        assert (low >= -1e-6).all()
        assert (rolled.named_T4[i, 2:] >= 10).all()
        inside = (
            (named[:2] >= 0).all() and (named[:2] + named[2:] <= [320, 240]).all() and min(named[2:]) >= 10
        )
        if inside:
            assert np.allclose(np.concatenate([low, high]), [*named[:2], *(named[:2] + named[2:])], atol=1e-3)
        box, past = rolled.named_T4[i], [*past[1:], rolled.named_T4[i]]


def test_the_loss_is_siou_of_what_it_expected_over_usable_frames(model: AITrack, clip: Clip) -> None:
    rolled = roll(model, clip, CPU)
    usable = torch.tensor([True, False, True, False])
    rolled = replace(rolled, usable_T=usable)
    loss = clip_loss(model, rolled)
    with torch.no_grad():
        memory = model.remember(
            rolled.template_B3SS, rolled.template_box_B4, rolled.context_B3SS, rolled.context_box_B4
        )
        each = [
            model.follow(rolled.search_T3SS[i : i + 1], memory, rolled.past_TH4[i : i + 1]) for i in (0, 2)
        ]
        expected = siou(torch.cat(each), rolled.box_T4[usable]).mean()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)
    none = clip_loss(model, replace(rolled, usable_T=torch.zeros(4, dtype=torch.bool)))
    assert float(none.detach()) == 0.0


def test_frames_without_the_target_or_with_it_out_of_sight_teach_nothing(model: AITrack, clip: Clip) -> None:
    away = clip.boxes.copy()
    away[2, :2] = (3000, 3000)
    absent = clip.absent.copy()
    absent[3] = True
    rolled = roll(model, replace(clip, boxes=away, absent=absent), CPU)
    assert not bool(rolled.usable_T[1])
    assert not bool(rolled.usable_T[2])


def test_a_sentence_may_join(model: AITrack, clip: Clip) -> None:
    reader = WordPieces.load()
    spoken = roll(model, clip, CPU, reader)
    assert spoken.words is not None
    model.zero_grad()
    clip_loss(model, spoken).backward()
    assert float(model.words.weight.grad.abs().max()) > 0
    model.zero_grad()


def test_the_loss_of_one_rollout_goes_down(clip: Clip) -> None:
    model: AITrack = make(small(aitrack.tiny()), seed=2)
    rolled = roll(model, clip, CPU)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = clip_loss(model, rolled)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[3] < losses[0] - 1e-3


def test_the_stage_moves_what_is_free_and_holds_what_is_frozen(clip: Clip) -> None:
    model: AITrack = make(small(aitrack.tiny()), seed=2)
    frozen = {id(p) for module in model.freeze_plan()[0] for p in module.parameters()}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    heard: list[tuple[int, float]] = []
    asked: list[int] = []
    stage = ClipStage(frames=FRAMES, steps=2, clips_a_step=2, learning_rate=1e-4, text_share=0.5)

    def numbered(k: int) -> Clip:
        asked.append(k)
        return replace(clip, frames=clip.frames[:3], boxes=clip.boxes[:3], absent=clip.absent[:3])

    train_clips(
        model,
        numbered,
        stage,
        device=CPU,
        reader=WordPieces.load(),
        tell=lambda step, loss: heard.append((step, loss)),
    )
    assert asked == [0, 1, 2, 3]
    assert [step for step, _ in heard] == [0, 1]
    assert not model.training
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    held = {name for name, p in model.named_parameters() if id(p) in frozen}
    assert held
    assert not moved & held
    assert {"decoder.word_embeddings.weight", "identity", "roi_pool.weight", "words.weight"} <= moved
    slow = (
        dict(model.named_parameters())["blocks.0.mlp.fc1.weight"] - before["blocks.0.mlp.fc1.weight"]
    ).abs()
    fast = (model.decoder.output_bias - before["decoder.output_bias"]).abs()
    assert 0 < float(slow.detach().max()) < 0.2 * float(fast.detach().max())


def test_what_cannot_be_trained_is_told(model: AITrack, clip: Clip) -> None:
    with pytest.raises(ValueError, match="past boxes"):
        train_clips(make(small(replace(aitrack.tiny(), history=0))), lambda k: clip, ClipStage(), device=CPU)
    with pytest.raises(ValueError, match="vocabulary"):
        train_clips(model, lambda k: clip, ClipStage(text_share=0.5), device=CPU)
    with pytest.raises(ValueError, match="nothing to follow"):
        roll(model, replace(clip, frames=clip.frames[:1]), CPU)
    with pytest.raises(ValueError, match="least"):
        ClipStage(frames=1)
    broken: AITrack = make(small(aitrack.tiny()), seed=3)
    with torch.no_grad():
        broken.decoder.norm.weight.fill_(float("nan"))
    kept = broken.norm.weight.detach().clone()
    with pytest.raises(Diverged):
        train_clips(broken, lambda k: clip, ClipStage(frames=FRAMES, clips_a_step=1), device=CPU)
    assert torch.equal(broken.norm.weight, kept)

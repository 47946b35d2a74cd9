"""The loops of UVLTrack and STARK, written down plainly: our presets give the same boxes, frame by frame.

The networks are small and random; that they compute what the published ones do is tested in ``checkpoints``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from model_cases import CONFIGS, make, small
from scripted import clip, one_box
from vltrack.core.types import Target, clip_xywh, cxcywh_to_xywh
from vltrack.models.base import BoxedCrop
from vltrack.prep.crops import cut_published, images_to_tensor, letterbox, letterbox_published, padded_published
from vltrack.tracking.engine import Engine
from vltrack.tracking.postprocess import default_policy
from vltrack.tracking.torch_network import TorchNetwork
from vltrack.tracking.tracker import Tracker

FRAME = (160, 120)
FRAMES = 14
BOX = (30.0, 22.0, 44.0, 36.0)


def given(model: Any, image: np.ndarray, box: np.ndarray, factor: float, size: int, *, masked: bool) -> BoxedCrop:
    side = np.ceil(np.sqrt(box[2] * box[3]) * factor)
    crop = images_to_tensor([cut_published(image, box, factor, size)], model.pixel_mean, model.pixel_std)
    mask = torch.from_numpy(padded_published(image, box, factor, size))[None] if masked else None
    unit = torch.tensor([[0.5, 0.5, *(box[2:] / side)]], dtype=torch.float32)
    return BoxedCrop(image_B3SS=crop, box_B4=unit, padded_BSS=mask)


def placed(unit: np.ndarray, box: np.ndarray, factor: float) -> np.ndarray:
    """The predicted box, cx, cy, w, h in units of the region, in the frame; ten pixels of it stay inside."""
    side = np.ceil(np.sqrt(box[2] * box[3]) * factor)
    low = box[:2] + box[2:] / 2 - side / 2
    found = np.concatenate([unit[:2] * side + low, unit[2:] * side])
    return clip_xywh(cxcywh_to_xywh(found), *FRAME, margin=10, min_side=10)


def ours(model: Any, name: str, images: list[np.ndarray], **changes: float) -> np.ndarray:
    tracker, _, size = name.partition("-uvl" if "uvl" in name else "-stark")
    policy = default_policy(tracker, ("uvl" if "uvl" in name else "stark") + size).changed(changes)
    following = Tracker(Engine(TorchNetwork(model), policy), {"size": size})
    return np.array([step.box for step in following.stream(images, box=BOX)])


@torch.inference_mode()
def test_uvltrack_takes_new_prompts_from_the_best_frame_at_every_so_many_frames() -> None:
    model = make(small(CONFIGS["litetrack narrow uvltrack-base"]()), seed=3)
    model.head.conv_bbox.out.bias.data.fill_(-1.1)  # a quarter of the region: the box keeps its size
    images, every = clip(FRAMES, FRAME, seed=5), 4
    start = np.array(BOX)
    factors = (model.template_factor, model.template_size), (model.search_factor, model.search_size)
    memory = model.init_template(*(given(model, images[0], start, *of, masked=False) for of in factors))
    window = np.outer(np.hanning(model.search_side), np.hanning(model.search_side))

    def run(threshold: float, *, best_of: bool) -> tuple[np.ndarray, list[int]]:
        box, kept, rows, chosen = start, memory, [start], []
        best: Any = None
        for number in range(1, FRAMES):
            crop = given(model, images[number], box, *factors[1], masked=False).image_B3SS
            seen = model.locate(crop, kept)
            score = (seen.center_BSS[0] * seen.presence_BSS[0]).double().numpy()
            cell = np.unravel_index(np.argmax(score * window), score.shape)
            unit = seen.boxes_BSS4[0][cell].double().numpy()
            if best is None or not best_of or score[cell] > best[0]:
                best = (score[cell], seen, unit, number)
            box = placed(unit, box, model.search_factor)
            if number % every == 0 and best[0] > threshold:
                raw = torch.tensor(best[2], dtype=torch.float32)[None]
                kept = model.update_template(kept, best[1], raw)
                chosen.append(best[3])
                best = None
            rows.append(box)
        return np.array(rows), chosen

    scores = 0.0
    expected, chosen = run(scores, best_of=True)
    assert len(chosen) == 3 and any(number % every for number in chosen), "another frame than the last one is best"
    followed = ours(model, "litetrack-uvltrack-base", images, refresh_every=every, refresh_above=0.0)
    np.testing.assert_allclose(followed, expected, atol=1e-3)
    assert np.abs(expected - run(scores, best_of=False)[0]).max() > 1e-2, "the rule shows"


@torch.inference_mode()
def test_stark_masks_padding_and_updates_at_whole_multiples() -> None:
    model = make(CONFIGS["bit-tracker narrow stark-r50"](), seed=2)
    images, every = clip(FRAMES, FRAME, seed=6), 5
    start = np.array(BOX)
    template, search = (model.template_factor, model.template_size), (model.search_factor, model.search_size)

    def run(*, masked: bool, above: float) -> np.ndarray:
        context = given(model, images[0], start, *search, masked=masked)
        memory = model.init_template(given(model, images[0], start, *template, masked=masked), context)
        box, rows = start, [start]
        for number in range(1, FRAMES):
            crop = given(model, images[number], box, *search, masked=masked)
            seen = model.locate(crop.image_B3SS, memory, None, crop.padded_BSS)
            box = placed(seen.boxes_BSS4[0, 0, 0].double().numpy(), box, model.search_factor)
            if number % every == 0 and float(seen.presence_BSS) > above:
                new = given(model, images[number], box, *template, masked=masked)
                memory = model.update_template(memory, seen, new.box_B4, new)
            rows.append(box)
        return np.array(rows)

    expected = run(masked=True, above=0.0)
    followed = ours(model, "bit-tracker-stark-r50", images, refresh_every=every, refresh_above=0.0)
    np.testing.assert_allclose(followed, expected, atol=1e-3)
    assert np.abs(expected - run(masked=False, above=0.0)).max() > 1e-2, "the masks show"
    assert np.abs(expected - run(masked=True, above=1.0)).max() > 1e-3, "the updates show"


@pytest.mark.parametrize("unit", [(0.9, 0.5, 0.4, 0.2), (0.5, 0.5, 0.3, 0.3)])
def test_words_start_on_the_published_picture_and_on_the_box_as_it_is_found(unit) -> None:
    image = clip(1, FRAME, seed=7)[0]
    model = one_box(unit, 0.9)
    shown: list[np.ndarray] = []
    scene = letterbox(*FRAME, model.search_size)
    ground = model.ground

    def kept(scene_B3SS: torch.Tensor, text: Any) -> Any:
        shown.append(scene_B3SS[0].permute(1, 2, 0).mul(255).round().byte().numpy())
        return ground(scene_B3SS, text)

    model.ground = kept  # type: ignore[method-assign]
    policy = default_policy("litetrack", "uvltrack-base")
    state, _ = Engine(TorchNetwork(model), policy).start(image, Target(text="the car"))
    assert np.array_equal(shown[0], letterbox_published(image, model.search_size))
    expected = scene.to_frame(cxcywh_to_xywh(np.array(unit)) * model.search_size)
    np.testing.assert_allclose(state.box, expected, atol=1e-9)

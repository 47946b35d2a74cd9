"""Images of training samples: what the model is given, and the boxes and scores that it predicts."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vltrack.core.errors import ModelNotFound
from vltrack.core.types import Box, Image, Mode, cxcywh_to_xywh, iou_xywh
from vltrack.models.base import BoxedCrop, Prediction, Views
from vltrack.plots.draw import Color, rectangle
from vltrack.plots.text import shortened, write
from vltrack.prep.tokenizers import load_tokenizer
from vltrack.training.clips import Clip
from vltrack.training.data import Batch
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights
from vltrack.training.rollout import roll

SAMPLES, FRAMES = 6, 8
"""Samples of a batch, and frames of a clip, that are drawn."""
TILE, GAP = 208, 4
_LINE, _LETTERS, _DARK = 22, 13, 40
_GREEN, _RED, _WHITE = (64, 224, 96), (255, 64, 64), (235, 235, 235)


def preview_of(model: Any, batch: Batch, title: str) -> Image:
    """Draw the first samples of a batch, or some frames of its first clip, as an image (H, W, 3), RGB uint8.

    A pair is one row: the template, then each search view with the ground truth (green) and the predicted box
    (red), and its score map. Predictions are a tracker's in its first frame: the best cell of ``locate``, or of
    ``ground`` where text alone is given. ``model`` is in eval mode; no random state is changed.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        rows = _clip_rows(model, batch) if "frames" in batch else _pair_rows(model, batch)
    width = max(row.shape[1] for row in rows)
    legend = _text(f"{title}    green: ground truth    red: prediction", width)
    return np.concatenate([legend, *(_padded(row, width) for row in rows)])


def _pair_rows(model: Any, batch: Batch) -> list[Image]:
    device = next(model.parameters()).device
    part = {name: values[:SAMPLES].to(device) for name, values in batch.items()}
    views, rows = PairObjective(model, LossWeights()).views(part), []
    for i, flag in enumerate(views.flag_B):
        mode = list(Mode)[int(flag)]
        seen, images = _predict(model, views.index_select([i]), mode), part["search"][i].cpu().numpy()
        template, given = part["template"][i].cpu().numpy(), _unit_xywh(part["template_box"][i])
        if mode is Mode.NL:
            tiles = [_tile("template: not given", template // 4 + 30)]
        else:
            tiles = [_tile("template", template, (given, _GREEN))]
        for k, image in enumerate(images):
            score = (seen.center_BSS[k] * seen.presence_BSS[k]).nan_to_num(0).clamp(0, 1).cpu().numpy()
            box = _unit_xywh(seen.boxes_BSS4[k].flatten(0, 1)[int(score.argmax())])
            truth = _unit_xywh(part["box"][i, k]) if bool(part["present"][i, k]) else None
            caption = "no target in view" if truth is None else f"overlap {float(iou_xywh(box, truth)):.2f}"
            if score.size > 1:
                tiles.append(_tile(caption, image, (truth, _GREEN), (box, _RED)))
                tiles.append(_tile(f"score up to {score.max():.2f}", _heated(image, score), (truth, _GREEN)))
            else:
                caption += f", score {score.max():.2f}"
                tiles.append(_tile(caption, image, (truth, _GREEN), (box, _RED)))
        row = np.concatenate(tiles, axis=1)
        rows += [_text(_given(model, mode, part["ids"][i]), row.shape[1]), row]
    return rows


def _predict(model: Any, sample: Views, mode: Mode) -> Prediction:
    """Prediction for both search views of one sample; the other view is the context, as in training."""
    boxes_V4 = sample.search.box_B4[0] * sample.present_BV[0][:, None]
    searches, twice = sample.search.image_B3SS[0], [0] * len(boxes_V4)
    text = None if mode is Mode.BBOX else model.read_text(sample.ids_BL, sample.valid_BL).index_select(twice)
    if mode is Mode.NL:
        return model.ground(searches, text)  # type: ignore[no-any-return]
    context = BoxedCrop(image_B3SS=searches.flip(0), box_B4=boxes_V4.flip(0))
    memory = model.init_template(sample.template.index_select(twice), context, text)
    return model.locate(searches, memory)  # type: ignore[no-any-return]


def _clip_rows(model: Any, batch: Batch) -> list[Image]:
    device = next(model.parameters()).device
    clip = Clip(**{name: batch[name][0].cpu().numpy() for name in ("frames", "boxes", "absent")}, sentence="")
    ids, valid = (batch[name][0][None].to(device) for name in ("ids", "words"))
    mode = Mode.NLBBOX if bool(valid.any()) else Mode.BBOX
    boxes = roll(model, clip, device, (ids, valid) if mode is Mode.NLBBOX else None).predicted_T4
    height, width = clip.frames[0].shape[:2]
    unit, tiles = np.array([width, height, width, height]), []
    for t in np.unique(np.linspace(1, len(boxes), FRAMES).round().astype(int)):
        truth, box = None if clip.absent[t] else clip.boxes[t], boxes[t - 1]
        caption = "no target in view" if truth is None else f"overlap {float(iou_xywh(box, truth)):.2f}"
        drawn = ((None if truth is None else truth / unit, _GREEN), (box / unit, _RED))
        tiles.append(_tile(f"frame {t}: {caption}", clip.frames[t], *drawn))
    rows = [np.concatenate(tiles[i : i + 4], axis=1) for i in range(0, len(tiles), 4)]
    return [_text(_given(model, mode, ids[0]), rows[0].shape[1]), *rows]


def _given(model: Any, mode: Mode, ids_L: Tensor) -> str:
    """What names the target, for a title."""
    if mode is Mode.BBOX:
        return "box"
    try:
        sentence = load_tokenizer(model.vocabulary).decode(ids_L.cpu().numpy())
    except ModelNotFound:  # CLIP's vocabulary does not ship
        sentence = f"{int((ids_L != 0).sum())} word pieces"
    return f"{'text' if mode is Mode.NL else 'box and text'}: {sentence}"


def _unit_xywh(box_4: Tensor) -> Box:
    """cx, cy, w, h -> x, y, w, h, in units of the crop."""
    return cxcywh_to_xywh(box_4.float().cpu().numpy())


def _heated(image: Image, score: NDArray[np.float32]) -> Image:
    """The score map over the darkened view, cell by cell."""
    heat = cv2.applyColorMap(np.round(score * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    heat = cv2.resize(np.ascontiguousarray(heat), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.addWeighted(image, 0.35, heat, 0.65, 0), dtype=np.uint8)


def _tile(caption: str, image: Image, *boxes: tuple[Box | None, Color]) -> Image:
    """An image ``TILE`` wide under a caption, with boxes x, y, w, h in units of its sides."""
    height = round(TILE * image.shape[0] / image.shape[1])
    shrink = image.shape[1] > TILE
    resized = cv2.resize(image, (TILE, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    small = np.asarray(resized, dtype=np.uint8)
    for box, color in boxes:
        if box is not None and bool(np.isfinite(box).all()):
            rectangle(small, box * (TILE, height, TILE, height), color)
    return _padded(np.concatenate([_text(caption, TILE), small]), TILE + GAP)


def _padded(row: Image, width: int) -> Image:
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=_DARK)


def _text(text: str, width: int) -> Image:
    line = np.full((_LINE, width, 3), _DARK, dtype=np.uint8)
    write(line, shortened(text, _LETTERS, width - 8), (4, (_LINE - _LETTERS) // 2), _LETTERS, _WHITE)
    return line

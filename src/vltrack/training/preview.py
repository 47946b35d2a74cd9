"""Images of training samples: what the model is given, and the boxes and scores that it predicts."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vltrack.core.errors import ModelNotFound
from vltrack.core.types import Box, Image, Mode, cxcywh_to_xywh, iou_xywh
from vltrack.models.base import BoxedCrop, Prediction, Views
from vltrack.plots.draw import put_text, rectangle, shortened
from vltrack.prep.tokenizers import load_tokenizer
from vltrack.training.clips import Clip
from vltrack.training.data import Batch
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights
from vltrack.training.rollout import roll

SAMPLES, FRAMES = 6, 8
"""Samples of a batch, and frames of a clip, that are drawn."""
TILE, GAP = 208, 4
_LINE, _FONT = 22, 0.45
_GREEN, _RED, _WHITE, _DARK = (64, 224, 96), (255, 64, 64), (235, 235, 235), (40, 40, 40)
_GIVEN = {Mode.BBOX: "box", Mode.NL: "text", Mode.NLBBOX: "box and text"}


def preview_of(model: Any, batch: Batch, title: str) -> Image:
    """Draw the first samples of a batch, or some frames of its first clip, as an image (H, W, 3), RGB uint8.

    A pair is one row: the template, then each search view with the ground truth (green) and the predicted box
    (red), and its score map. Predictions are a tracker's in its first frame: the best cell of ``locate``, or of
    ``ground`` where text alone is given. ``model`` is in eval mode; no random state is changed.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        rows = _clip_rows(model, batch) if "frames" in batch else _pair_rows(model, batch)
    width = max(row.shape[1] for row in rows)
    legend = f"{title}    green: ground truth    red: prediction    heat: score from 0 to 1"
    return np.concatenate([_text(legend, width), *(_padded(row, width) for row in rows)])


def _pair_rows(model: Any, batch: Batch) -> list[Image]:
    device = next(model.parameters()).device
    part = {name: values[:SAMPLES].to(device) for name, values in batch.items()}
    views, rows = PairObjective(model, LossWeights()).views(part), []
    for i in range(len(views.flag_B)):
        sample, mode = views.index_select([i]), list(Mode)[int(views.flag_B[i])]
        seen = _predict(model, sample, mode)
        template = part["template"][i].cpu().numpy().copy()
        if mode is Mode.NL:
            template[:] = template // 4 + 30  # masked: the model does not see it
        else:
            rectangle(template, _pixels(part["template_box"][i], template), _GREEN)
        tiles, notes = [_tile(template)], []
        for k, image in enumerate(part["search"][i].cpu().numpy()):
            score = (seen.center_BSS[k] * seen.presence_BSS[k]).clamp(0, 1).cpu().numpy()
            best = int(score.argmax())
            box = _pixels(seen.boxes_BSS4[k].flatten(0, 1)[best], image)
            truth = _pixels(part["box"][i, k], image) if bool(part["present"][i, k]) else None
            overlap = "no target" if truth is None else f"overlap {float(iou_xywh(box, truth)):.2f}"
            notes.append(f"{overlap}, score {score.max():.2f}")
            tiles.append(_tile(_with_boxes(image, truth, box)))
            if score.size > 1:
                tiles.append(_tile(_with_boxes(_heated(image, score), truth, None)))
        given = f"{_GIVEN[mode]}: {_sentence(model, part['ids'][i])}" if mode is not Mode.BBOX else _GIVEN[mode]
        row = _side_by_side(tiles)
        rows += [_text(f"{given}    {' / '.join(notes)}", row.shape[1]), row]
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
    ids, valid = (batch[name][:1].to(device) for name in ("ids", "words"))
    boxes = roll(model, clip, device, (ids, valid) if bool(valid.any()) else None).predicted_T4
    shown = np.unique(np.linspace(1, len(boxes), FRAMES).round().astype(int))
    tiles, overlaps = [], iou_xywh(boxes, clip.boxes[1:])[~clip.absent[1:]]
    for t in shown:
        tiles.append(_tile(_with_boxes(clip.frames[t], None if clip.absent[t] else clip.boxes[t], boxes[t - 1])))
    given = f"box and text: {_sentence(model, ids[0])}" if bool(valid.any()) else "box"
    rows = [_side_by_side(tiles[i : i + 4]) for i in range(0, len(tiles), 4)]
    note = (
        f"{given}    frames {', '.join(map(str, shown))}    mean overlap {overlaps.mean() if overlaps.size else 0:.2f}"
    )
    return [_text(note, rows[0].shape[1]), *rows]


def _sentence(model: Any, ids_L: Tensor) -> str:
    try:
        return load_tokenizer(model.vocabulary).decode(ids_L.cpu().numpy())
    except ModelNotFound:  # CLIP's vocabulary does not ship
        return f"{int((ids_L != 0).sum())} word pieces"


def _pixels(box_4: Tensor, image: Image) -> Box:
    """cx, cy, w, h in units of a square crop -> x, y, w, h in its pixels."""
    box: Box = cxcywh_to_xywh(box_4.float().cpu().numpy()) * image.shape[0]
    return box


def _with_boxes(image: Image, truth: Box | None, predicted: Box | None) -> Image:
    drawn = image.copy()
    for box, color in ((truth, _GREEN), (predicted, _RED)):
        if box is not None and bool(np.isfinite(box).all()):
            rectangle(drawn, box, color)
    return drawn


def _heated(image: Image, score: np.ndarray[Any, Any]) -> Image:
    """The score map over the darkened view; a cell is a square, so that it can be counted."""
    size = image.shape[1::-1]
    heat = cv2.applyColorMap(np.round(score * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    heat = cv2.resize(heat, size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.addWeighted(image, 0.35, np.ascontiguousarray(heat), 0.65, 0), dtype=np.uint8)


def _tile(image: Image) -> Image:
    """Fit an image into a square tile."""
    height, width = image.shape[:2]
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    tile = np.full((TILE, TILE, 3), _DARK, dtype=np.uint8)
    tile[: size[1], : size[0]] = small
    return tile


def _side_by_side(tiles: list[Image]) -> Image:
    return np.concatenate([_padded(tile, TILE + GAP) for tile in tiles], axis=1)


def _padded(row: Image, width: int) -> Image:
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=_DARK[0])


def _text(text: str, width: int) -> Image:
    line = np.full((_LINE, width, 3), _DARK, dtype=np.uint8)
    put_text(line, shortened(text, _FONT, 1, width - 8), (4, _LINE - 7), _FONT, _WHITE)
    return line

"""A tracker's network in torch, as the tracking loop calls it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vltrack.core.types import Image
from vltrack.models.base import BoxedCrop, Memory, Prediction, Text, TrackerBase
from vltrack.nn.device import reduced_precision
from vltrack.prep.crops import images_to_tensor
from vltrack.tracking.network import BoxedImage, Float32, Found
from vltrack.tracking.postprocess import Maps


class TorchNetwork:
    """``Network`` around a model on a device; ``precision`` is ``fp32`` or ``bf16`` (autocast)."""

    def __init__(self, model: TrackerBase[Any], device: torch.device | str = "cpu", precision: str = "fp32") -> None:
        self.model, self._device, self._precision = model, torch.device(device), precision
        self.template_size, self.search_size = model.template_size, model.search_size
        self.template_factor, self.search_factor = model.template_factor, model.search_factor
        self.max_words, self.history = model.max_words, model.history
        self.mask_padding, self.vocabulary = model.mask_padding, model.vocabulary
        self.device, self.runtime, self.targets_at_once = str(device), f"torch {precision}", 1

    @property
    def threads(self) -> int:
        """Of torch, in this process."""
        return torch.get_num_threads()

    @torch.inference_mode()
    def read_text(self, ids: NDArray[np.int64], valid: NDArray[np.bool_]) -> Text:
        """See ``Network``."""
        with self._autocast():
            return self.model.read_text(*(torch.from_numpy(a)[None].to(self._device) for a in (ids, valid)))

    @torch.inference_mode()
    def init(self, template: BoxedImage, context: BoxedImage, text: Text | None = None) -> Memory:
        """See ``Network``."""
        with self._autocast():
            return self.model.init_template(self._crop(template), self._crop(context), text)

    @torch.inference_mode()
    def locate(
        self, search: Image, memory: Memory, past: Float32 | None = None, padded: NDArray[np.bool_] | None = None
    ) -> Found:
        """See ``Network``."""
        boxes_1H4 = None if past is None else torch.from_numpy(past)[None].to(self._device)
        mask = {} if padded is None else {"padded_BSS": torch.from_numpy(padded)[None].to(self._device)}
        with self._autocast():
            return _found(self.model.locate(self._tensor(search), memory, boxes_1H4, **mask))

    @torch.inference_mode()
    def ground(self, scene: Image, text: Text) -> Found:
        """See ``Network``."""
        with self._autocast():
            return _found(self.model.ground(self._tensor(scene), text))

    @torch.inference_mode()
    def update(self, memory: Memory, found: Found, box: Float32, template: BoxedImage | None = None) -> Memory:
        """See ``Network``."""
        crop = None if template is None else self._crop(template)
        with self._autocast():
            after: Memory = self.model.update_template(
                memory, found.raw, torch.from_numpy(box)[None].to(self._device), crop
            )
        return after

    def _tensor(self, image: Image) -> Tensor:
        return images_to_tensor([image], self.model.pixel_mean, self.model.pixel_std).to(self._device)

    def _crop(self, crop: BoxedImage) -> BoxedCrop:
        return BoxedCrop(
            image_B3SS=self._tensor(crop.image),
            box_B4=torch.from_numpy(crop.box)[None].to(self._device),
            padded_BSS=None if crop.padded is None else torch.from_numpy(crop.padded)[None].to(self._device),
        )

    def _autocast(self) -> AbstractContextManager[object]:
        return reduced_precision(self._device, self._precision)


def _found(seen: Prediction) -> Found:
    center, presence, boxes = (
        t[0].cpu().double().numpy() for t in (seen.center_BSS, seen.presence_BSS, seen.boxes_BSS4)
    )
    return Found(maps=Maps(center=center, presence=presence, boxes=boxes), raw=seen)

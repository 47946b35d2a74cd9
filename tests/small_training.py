"""A training run that takes milliseconds: a toy network on samples of noise, without validation."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vltrack.core.types import Mode
from vltrack.models.base import MODE_IDS
from vltrack.training import loop
from vltrack.training.recipes import TrainConfig, litetrack_tiny


def short(**changes: Any) -> TrainConfig:
    """The first recipe of LiteTrack, three steps of two samples, with a checkpoint after each step."""
    settings = {"steps": 3, "batch": 2, "save_every": 1, "validate_every": 99, "warmup": 1, "word_init": "random"}
    return replace(litetrack_tiny(), **(settings | changes))


def train(config: TrainConfig, out: Path, *, resume: bool = False, **options: Any) -> None:
    """Run the loop in this process."""
    loop.train(config, sources=(), out=out, resume=resume, **{"device": "cpu", "workers": 0} | options)


def steps_of(out: Path) -> list[int]:
    """The steps of a run's checkpoints, oldest first."""
    return sorted(int(path.stem.removeprefix("step-")) for path in out.glob("step-*.json"))


def tensors_of(out: Path) -> bytes:
    """The file of a run's newest checkpoint: weights, average and optimizer."""
    return (out / f"step-{steps_of(out)[-1]}.safetensors").read_bytes()


class Noise(Dataset[Any]):
    """Samples of noise for a model, or clips."""

    def __init__(self, config: TrainConfig, sources: object, model: Any, out: Path) -> None:
        self.config, self.max_words, self.frames = model, model.max_words, config.clips.frames

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return random_clip(self, index) if self.frames else random_sample(self, index)


def random_clip(self: Noise, index: int) -> dict[str, np.ndarray]:
    """A clip of noise without a sentence."""
    rng, count = np.random.default_rng(index), self.frames
    return {
        "frames": rng.integers(0, 256, (count, 48, 64, 3), dtype=np.uint8),
        "boxes": np.array([[20 + k, 15, 20, 16] for k in range(count)], dtype=float),
        "absent": np.zeros(count, dtype=bool),
        "ids": np.zeros(self.max_words, dtype=np.int64),
        "words": np.zeros(self.max_words, dtype=bool),
    }


def random_sample(self: Any, index: int) -> dict[str, np.ndarray]:
    """A sample of noise; two of three have a sentence."""
    rng = np.random.default_rng(index)
    t, s, n = self.config.template_size, self.config.search_size, self.max_words
    flag = index % 3
    words = np.arange(n) < (0 if flag == MODE_IDS[Mode.BBOX] else 6)
    box = np.array([0.5, 0.5, 0.3, 0.2], dtype=np.float32)
    return {
        "template": rng.integers(0, 256, (t, t, 3), dtype=np.uint8),
        "template_box": box,
        "search": rng.integers(0, 256, (2, s, s, 3), dtype=np.uint8),
        "box": np.stack([box, box * 0.9]),
        "recent": rng.integers(0, 256, (2, t, t, 3), dtype=np.uint8),
        "recent_box": np.stack([box, box]),
        "present": np.array([True, index % 2 == 0]),
        "ids": np.where(words, rng.integers(1996, 30000, n), 0),
        "words": words,
        "flag": np.int64(flag),
    }


class Toy(nn.Module):
    """A network with what the loop asks of a tracker."""

    template_size = search_size = 32
    template_factor, search_factor = 2.0, 4.0
    max_words, vocabulary, config = 8, "bert", None

    def __init__(self, config: None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 4))

    def freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Nothing is frozen."""
        return [], []


class ToyObjective(nn.Module):
    """Mean square error of the box."""

    def __init__(self, model: nn.Module, weights: object) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor], select: bool) -> dict[str, Tensor]:
        """``total`` and ``iou``."""
        images = batch["search"].flatten(0, 1).movedim(-1, 1) / 255
        loss = (self.model.layers(images) - batch["box"].flatten(0, 1)).square().mean()
        return {"total": loss, "iou": loss.detach()}


def image_folder(root: Path) -> Path:
    """The images of tests/datasets."""
    source = Path(__file__).parent / "datasets" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_images", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder: Path = module.make_image_set(root)
    return folder


def use_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of noise in place of rendered ones, and neither validation nor pictures."""
    monkeypatch.setattr(loop, "validate", lambda *given: {"bbox": 0.5, "nlbbox": 0.5, "nl": 0.5})
    monkeypatch.setattr(loop, "prepare_data", lambda *given: None)
    monkeypatch.setattr(loop, "open_data", Noise)
    monkeypatch.setattr(loop.Monitor, "preview", lambda *given: None)


def use_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise, and the toy network."""

    def start(config: TrainConfig, out: Path) -> Toy:
        torch.manual_seed(config.seed)
        return Toy()

    use_noise(monkeypatch)
    monkeypatch.setattr(loop, "starting_model", start)
    monkeypatch.setattr(loop, "PairObjective", ToyObjective)


class Dying(Dataset[Any]):
    """A data set whose process ends at the first sample."""

    def __getitem__(self, index: int) -> Any:
        os._exit(3)

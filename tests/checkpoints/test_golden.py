"""Weights of every earlier format load.

``data/format-N.safetensors`` and its card are never written again: a change that raises ``store.FORMAT`` adds
a file of the new format and keeps these.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vltrack.checkpoints import store
from vltrack.core.files import sha256_of
from vltrack.models.base import BoxedCrop

DATA = Path(__file__).parent / "data"
SHA256 = {
    "format-1.safetensors": "08e96af21c5ae5159594f34ba0e3b0ad505fdd0c75e7e3dd5787c10139206700",
    "format-1.json": "0aacb39da6e0357dd676896430815477389edcca7ff38bd1118e6a9972318500",
}


@pytest.mark.fault("C10")
def test_every_format_has_its_file_and_it_is_untouched() -> None:
    for number in range(1, store.FORMAT + 1):
        assert {f"format-{number}.safetensors", f"format-{number}.json"} <= SHA256.keys()
        assert json.loads((DATA / f"format-{number}.json").read_text())["format"] == number
    assert {path.name: sha256_of(path) for path in DATA.glob("format-*")} == SHA256


@pytest.mark.fault("C10")
def test_format_1_loads() -> None:
    """OSTrack's preset of All-in-One, eight channels wide: matrices are stored as fp16. Every tensor counts
    up from its place in the order of names.
    """
    model, card = store.load(DATA / "format-1.safetensors")
    assert (card["size"], card["modes"]) == ("ostrack-base", ["bbox"])
    assert card["dtypes"].keys() == {"float16", "float32", "int64"}
    config = model.config
    assert (config.width, config.layers, config.eliminate, config.head_channels) == (8, 2, (1,), (4, 2))
    assert card["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    for number, (name, tensor) in enumerate(sorted(model.state_dict().items())):
        counted = (torch.arange(tensor.numel()).view(tensor.shape) + number) % 32
        expected = counted / 64 if tensor.is_floating_point() else counted
        assert torch.equal(tensor, expected.to(tensor.dtype)), name
    box = torch.full((1, 4), 0.5)
    with torch.no_grad():
        picture = torch.zeros(1, 3, 32, 32)
        seen = model.locate(picture, model.init_template(*[BoxedCrop(image_B3SS=picture, box_B4=box)] * 2))
    assert seen.boxes_BSS4.shape == (1, 2, 2, 4)
    assert bool(torch.isfinite(seen.boxes_BSS4).all())

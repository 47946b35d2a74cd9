"""The state of a run goes through bytes unchanged, and goes on to the same boxes; nothing else is read as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save

from model_cases import CONFIGS, make, modes_of, small
from scripted import EAGER, clip
from vltrack.core.types import Status, Target
from vltrack.tracking.engine import Engine
from vltrack.tracking.saved import pack, unpack
from vltrack.tracking.torch_network import TorchNetwork
from vltrack.tracking.tracker import MultiTracker, Tracker


def test_values_come_back_as_they_were() -> None:
    record = {
        "plain": [None, True, 3, 0.1 + 0.2, "ü\n"],
        "status": Status.LOST,
        "target": Target(box=(1.0, 2.0, 3.0, 4.0), text="the dog"),
        ("a", "b"): frozenset({"c"}),
        "array": np.arange(6.0).reshape(2, 3).T,
        "tensors": (
            torch.arange(24.0).reshape(1, 2, 3, 4).permute(0, 3, 1, 2),
            torch.zeros(1, 0, 5),
            torch.tensor(True),
        ),
        "wide": torch.ones(1, 3).expand(2, 3),
    }
    found = unpack(pack(record))
    for key in ("plain", "status", "target", ("a", "b")):
        assert found[key] == record[key]
        assert type(found[key]) is type(record[key])
    np.testing.assert_array_equal(found["array"], record["array"])
    for got, was in zip((*found["tensors"], found["wide"]), (*record["tensors"], record["wide"]), strict=True):
        assert torch.equal(got, was)
        assert got.dtype == was.dtype
    assert found["tensors"][0].stride() == record["tensors"][0].stride()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a state",
        pack({"a": 1})[:-3],
        save({"x": torch.zeros(1)}),
        *(
            save({"record": torch.frombuffer(bytearray(text), dtype=torch.uint8)})
            for text in (
                b"{",
                b'["object", "os:system", {}]',
                b'["object", "vltrack.core.files:write_text", {}]',
                b'["x"]',
            )
        ),
        save({"record": torch.frombuffer(bytearray(b"[" * 100_000), dtype=torch.uint8)}),
    ],
)
def test_anything_else_is_refused(data) -> None:
    with pytest.raises(ValueError):
        unpack(data)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_restored_tracker_goes_on_to_the_same_boxes(name) -> None:
    """Every network, random weights, two targets; the state is saved after a memory update."""
    config = small(CONFIGS[name]())
    model = make(config)

    def fresh() -> MultiTracker:
        return MultiTracker(Tracker(Engine(TorchNetwork(model), EAGER), {"size": "tiny"}), distinct=False)

    text = "a dark block" if "nlbbox" in modes_of(config) and not name.startswith("aitrack") else None
    targets = {"one": Target(box=(40, 30, 40, 40), text=text), "two": Target(box=(70.5, 50.25, 30, 44))}
    images = clip(8)
    whole, broken = fresh(), fresh()
    for each in (whole, broken):
        each.init(images[0], targets)
        for image in images[1:4]:
            each.update(image)
    other = fresh()
    other.restore(unpack(pack({"state": broken.state}))["state"])
    assert other.settings == whole.settings
    for image in images[4:]:
        expected, steps = whole.update(image), other.update(image)
        assert steps == expected

"""The grounder in graphs: what torch computes, and without torch where a text is given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vltrack
from vltrack.tracking.grounding import Grounding

CLIP = Path(vltrack.__file__).parent / "clips" / "car-shadow.mp4"
TEXTS = ["the silver car", "the tall man on the left who pushes a bicycle"]


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    with vltrack.open_source(CLIP, end=1) as source:
        return next(iter(source)).image


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_proposals_and_ranks_of_images_of_any_shape(frame: np.ndarray, backend: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend))
    torch, graphs = (Grounding.load("cpu", each, threads=1) for each in ("torch", backend))
    for image in (frame, np.ascontiguousarray(frame[:, :300]), np.full((90, 160, 3), 127, np.uint8)):
        wanted, found = (each.proposer.propose(image) for each in (torch, graphs))
        assert found.aspect == wanted.aspect
        for name in ("box_N4", "logits_NK", "feature_NF", "color_NG", "kind_N", "owners_N2"):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-4, atol=1e-4)
        for one, other in zip(graphs.find(image, TEXTS), torch.find(image, TEXTS), strict=True):
            np.testing.assert_allclose([c.score for c in one], [c.score for c in other], atol=1e-4)
            np.testing.assert_allclose(one[0].box, other[0].box, atol=0.01)
            assert one[0].label == other[0].label


@pytest.mark.parametrize(
    "code",
    [
        "print(vltrack.find(clip, 'the silver car').answers[0].boxes[0].label, end=' ')",
        "next(vltrack.load('sa-tracker-tiny').stream(clip, text='the silver car', end=2)); print('car', end=' ')",
    ],
)
def test_a_text_loads_no_torch(graphs: None, code: str) -> None:
    script = f"import sys, vltrack; clip = sys.argv[1]; {code}; print(sorted({{'torch', 'onnx'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script, str(CLIP)], capture_output=True, text=True, check=True)
    assert done.stdout == "car []\n"

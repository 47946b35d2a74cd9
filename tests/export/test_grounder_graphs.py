"""Graphs of the grounder and what is between them in numpy: the boxes and probabilities that torch computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vltrack
from vltrack.export.graphs import write_grounder_graphs
from vltrack.nn.runtime import Graph
from vltrack.tracking.grounding import Grounding
from vltrack.tracking.proposals import GraphGrounder
from vltrack.video.source import open_source


@pytest.fixture(scope="module")
def grounding() -> Grounding:
    return Grounding.load(torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(grounding: Grounding, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("grounder")
    return path, write_grounder_graphs(grounding.grounder, path)


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    with open_source(Path(vltrack.__file__).parent / "clips" / "car-shadow.mp4", end=1) as source:
        return next(iter(source)).image


def graphs_in(folder: tuple[Path, dict[str, Any]], backend: str) -> GraphGrounder:
    path, manifest = folder
    graphs = {}
    for name, each in manifest["graphs"].items():
        inputs, outputs = ([port["name"] for port in each[side]] for side in ("inputs", "outputs"))
        graphs[name] = Graph(path / each["file"], inputs, outputs, backend, "fp32", 1)
    return GraphGrounder(lambda name, arrays: graphs[name](arrays), manifest["sizes"])


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_proposals_and_ranks_of_images_of_any_shape(
    grounding: Grounding, folder: tuple[Path, dict[str, Any]], frame: np.ndarray, backend: str
) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend))
    graphs = graphs_in(folder, backend)
    for image in (frame, np.ascontiguousarray(frame[:, :300]), np.full((90, 160, 3), 127, np.uint8)):
        wanted, found = grounding.proposals(image), graphs.propose(image)
        assert found.aspect == wanted.aspect
        for name in ("box_N4", "logits_NK", "feature_NF", "color_NG", "kind_N", "owners_N2"):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name).numpy(), rtol=1e-4, atol=1e-4)
        for text in ("the silver car", "the tall man on the left who pushes a bicycle"):
            read = grounding.reader.encode(text, grounding.grounder.config.max_words)
            with torch.inference_mode():
                rank_1M = grounding.rank(wanted, torch.from_numpy(read.ids)[None], torch.from_numpy(read.mask)[None])
            np.testing.assert_allclose(graphs.rank(found, read.ids[read.mask]), rank_1M[0].numpy(), atol=1e-4)

"""Quantize the graphs that run in every frame to int8, from the clip that ships with vltrack.

Static quantization with ONNX Runtime: activations u8 per tensor, weights s8 per channel and symmetric, of 7 bits: sums
of products with 8 overflow on processors without VNNI. Ranges are those of targets that the fp32 graphs follow.
Measured: benchmarks/results/int8-2026-11-30.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from vltrack.core.errors import VltrackError
from vltrack.core.files import write_text
from vltrack.export.prepare import MANIFEST, MANIFEST_INT8
from vltrack.nn.runtime import Arrays, Graph
from vltrack.tracking.engine import Engine
from vltrack.tracking.graph_network import GraphNetwork
from vltrack.tracking.postprocess import Policy
from vltrack.tracking.tracker import Tracker
from vltrack.video.source import open_source

CLIP = Path(__file__).parent.parent / "clips" / "car-shadow"
OTHERS = ((80, 60, 90, 60), (420, 150, 60, 120), (600, 240, 160, 160), (250, 330, 50, 40))
"""Boxes (x, y, w, h) in the clip that hold something else than the car."""
FRAMES, OTHER_FRAMES, UPDATE_EVERY = 20, 4, 5
OPS = ("MatMul", "Gemm")
"""What is quantized. Convolutions stay fp32: int8 ones of MobileNet move boxes by pixels."""


def is_every_frame(graph: str) -> bool:
    """Whether a graph runs in every frame, by its name."""
    return graph.removeprefix("select_").startswith("step_")


def record(folder: Path, manifest: Mapping[str, Any]) -> dict[str, list[Arrays]]:
    """By graph of every frame, what it reads as the clip's car and other things are followed with the fp32 graphs."""
    network = GraphNetwork(folder, manifest, "onnx", "fp32", 1)
    read: dict[str, list[Arrays]] = {name: [] for name in manifest["graphs"] if is_every_frame(name)}

    def recorded(name: str, graph: Graph, feed: Arrays) -> Arrays:
        read[name].append({port["name"]: feed[port["name"]] for port in manifest["graphs"][name]["inputs"]})
        return graph(feed)

    network.graphs |= {name: cast(Graph, partial(recorded, name, network.graphs[name])) for name in read}
    policy = Policy(own_grounding=True, search_again_every=0, refresh_every=UPDATE_EVERY, refresh_above=0.0)
    tracker = Tracker(Engine(network, policy), {})
    about = json.loads(CLIP.with_suffix(".json").read_bytes())
    with open_source(CLIP.with_suffix(".mp4")) as source:
        frames = [frame.image for frame in islice(source, 2 * FRAMES) if frame.image is not None]
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames[: OTHER_FRAMES + 1]]
    for text in (None, about["text"]) if "text" in manifest["calls"] else (None,):
        for clip, box in [(frames[::2], about["box"]), *((mirrored, box) for box in OTHERS)]:
            for _ in tracker.stream(clip, box=box, text=text):
                pass
    return read


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Iterable[Arrays]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Arrays | None:
        """The next inputs; None at the end."""
        return next(self._feeds, None)


def _products_of_activations(graph: onnx.GraphProto) -> list[str]:
    """Names of the matrix products that have no weights."""
    constants = {each.name for each in graph.initializer}
    return [node.name for node in graph.node if node.op_type in OPS and node.input[1] not in constants]


def quantize(path: Path, feeds: Iterable[Arrays], to: Path) -> None:
    """Write the int8 graph of an fp32 graph; ``feeds`` are inputs that it reads in use."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        quant_pre_process(onnx.load(path), str(plain), skip_symbolic_shape=True)
        quantize_static(
            str(plain),
            str(to),
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_products_of_activations(onnx.load(plain).graph),
            extra_options={
                "ActivationSymmetric": False,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": list(OPS),
            },
        )


def write_int8(folder: Path) -> None:
    """Add the int8 graphs to the folder of the fp32 graphs, and a manifest that has them in place of those."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    for name, feeds in record(folder, manifest).items():
        file = f"{name}-int8.onnx"
        quantize(folder / manifest["graphs"][name]["file"], feeds, folder / file)
        manifest["graphs"][name]["file"] = file
        manifest["files"][file] = (folder / file).stat().st_size
    write_text(folder / MANIFEST_INT8, json.dumps(manifest))


if __name__ == "__main__":
    try:
        write_int8(Path(sys.argv[1]))
    except VltrackError as error:
        sys.stdout.write(json.dumps({"code": type(error).__name__, "message": str(error), "hint": error.hint}) + "\n")
        sys.exit(1)

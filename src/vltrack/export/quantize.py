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
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from vltrack.core.errors import VltrackError
from vltrack.core.files import write_text
from vltrack.core.types import Box, Image
from vltrack.export.prepare import MANIFEST, MANIFEST_INT8
from vltrack.nn.runtime import Arrays, Graph
from vltrack.prep.crops import Crop, cut, region_for
from vltrack.prep.tokenizers import load_tokenizer
from vltrack.video.source import open_source

CLIP = Path(__file__).parent.parent / "clips" / "car-shadow"
OTHERS = ((80, 60, 90, 60), (420, 150, 60, 120), (600, 240, 160, 160), (250, 330, 50, 40))
"""Boxes (x, y, w, h) in the clip that hold something else than the car."""
FRAMES, OTHER_FRAMES, UPDATE_EVERY = 20, 4, 5
OPS = ("Conv", "MatMul", "Gemm")


def is_every_frame(graph: str) -> bool:
    """Whether a graph runs in every frame, by its name."""
    return graph.removeprefix("select_").startswith("step_")


class _Recorder:
    """Follows targets with the fp32 graphs, and keeps what those of every frame read."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.manifest, self.sizes = manifest, manifest["sizes"]
        self.read: dict[str, list[Arrays]] = {name: [] for name in manifest["graphs"] if is_every_frame(name)}
        self._graphs = {}
        for name, each in manifest["graphs"].items():
            inputs, outputs = ([port["name"] for port in each[side]] for side in ("inputs", "outputs"))
            self._graphs[name] = Graph(folder / each["file"], inputs, outputs, "onnx", "fp32", 1), inputs

    def run(self, call: str, arrays: Arrays) -> Arrays:
        """Run the graphs of a call; nothing where the tracker has no such call."""
        made: Arrays = {}
        for name in self.manifest["calls"].get(call, ()):
            graph, inputs = self._graphs[name]
            feed = {**arrays, **made}
            if name in self.read:
                self.read[name].append({port: feed[port] for port in inputs})
            made |= graph(feed)
            if (keep_1N := made.get("selection.keep_BN")) is not None:
                made["selection.order_BR"] = np.flatnonzero(keep_1N)[None]
        return made

    def _boxed(self, name: str, frame: Image, box: Box, kind: str) -> Arrays:
        size = self.sizes[f"{kind}_size"]
        region = region_for(box, self.sizes[f"{kind}_factor"], size)
        return {
            name: cut(frame, region)[None],
            f"{name}_box": _unit(box, region)[None],
            f"{name}_padded": np.zeros((1, size, size), dtype=bool),
        }

    def follow(self, frames: list[Image], box: Box, text: Arrays) -> None:
        """Follow a box (x, y, w, h) of the first frame to where the network places it, with updates."""
        mode = "nlbbox" if text else "bbox"
        crops = self._boxed("template", frames[0], box, "template") | self._boxed("context", frames[0], box, "search")
        memory = self.run(f"start_{mode}", crops | text) | text
        past_H4 = np.repeat(box[None], max(1, self.sizes["history"]), axis=0)
        for number, frame in enumerate(frames[1:], 1):
            region = region_for(box, self.sizes["search_factor"], self.sizes["search_size"])
            search = self._boxed("search", frame, box, "search")
            made = self.run(f"step_{mode}", {**search, **memory, "past": _unit(past_H4, region)[None]})
            unit_4 = made["boxes_BSS4"].reshape(-1, 4)[made["center_BSS"].argmax()]
            box = _kept(_in_frame(unit_4, region), frame)
            past_H4 = np.concatenate([past_H4, box[None]])[1:]
            if number % UPDATE_EVERY == 0:
                after = self.run(f"update_{mode}", {**memory, **made, "box": unit_4[None]})
                after |= self.run("template", self._boxed("template", frame, box, "template"))
                memory |= {name: array for name, array in after.items() if name in memory}


def _unit(box_xywh: Box, region: Crop) -> NDArray[np.float32]:
    """(..., 4) xywh in frame pixels -> cx, cy, w, h in units of the region."""
    box = region.to_crop(box_xywh) / region.size
    box[..., :2] += box[..., 2:] / 2
    return box.astype(np.float32)


def _in_frame(unit_cxcywh: NDArray[np.float32], region: Crop) -> Box:
    box = unit_cxcywh.astype(np.float64) * region.size
    box[:2] -= box[2:] / 2
    return region.to_frame(box)


def _kept(box: Box, frame: Image) -> Box:
    """A box that shows some of the frame, whatever the network said."""
    sides = np.array(frame.shape[1::-1], dtype=np.float64)
    size = np.clip(box[2:], 16, sides)
    return np.concatenate([np.clip(box[:2], 0, sides - size), size])


def record(folder: Path, manifest: Mapping[str, Any]) -> dict[str, list[Arrays]]:
    """By graph of every frame, what it reads as the clip's car and other things are followed."""
    about = json.loads(CLIP.with_suffix(".json").read_bytes())
    with open_source(CLIP.with_suffix(".mp4")) as source:
        frames = [frame.image for frame in islice(source, 2 * FRAMES) if frame.image is not None]
    recorder, sizes = _Recorder(folder, manifest), manifest["sizes"]
    texts: list[Arrays] = [{}]
    if "text" in manifest["calls"]:
        tokens = load_tokenizer(sizes["vocabulary"]).encode(about["text"], sizes["max_words"])
        texts.append(recorder.run("text", {"ids": tokens.ids[tokens.mask][None]}))
    for text in texts:
        recorder.follow(frames[::2], np.array(about["box"], dtype=np.float64), text)
        for box in OTHERS:
            mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames[: OTHER_FRAMES + 1]]
            recorder.follow(mirrored, np.array(box, dtype=np.float64), text)
    return recorder.read


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Iterable[Arrays]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Arrays | None:
        """The next inputs; None at the end."""
        return next(self._feeds, None)


def _fp32_nodes(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that stay fp32: products of two activations, and MobileNet's first convolutions.

    Those are all up to the one after the first depthwise one: the error of their weights passes through every block.
    """
    constants = {each.name for each in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    depthwise = [i for i, node in enumerate(convolutions) if any(a.name == "group" and a.i > 1 for a in node.attribute)]
    first = convolutions[: depthwise[0] + 2] if depthwise else []
    return [n.name for n in graph.node if n.op_type in OPS and (n.input[1] not in constants or n in first)]


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
            nodes_to_exclude=_fp32_nodes(onnx.load(plain).graph),
            extra_options={
                "ActivationSymmetric": False,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": list(OPS),
            },
        )
        _correct_biases(plain, feeds, to)


def _correct_biases(plain: Path, feeds: Iterable[Arrays], to: Path) -> None:
    """Take from the biases of an int8 graph what the rounding of the weights adds to the mean of each output.

    It is the larger part of the error of depthwise convolutions (Nagel et al. 2019, arXiv:1906.04721).
    """
    exact, model = onnx.load(plain), onnx.load(to)
    whole = {node.name: node for node in exact.graph.node if node.op_type in ("Conv", "Gemm") and len(node.input) == 3}
    parts = {node.output[0]: node.input for node in model.graph.node if node.op_type == "DequantizeLinear"}
    float_weights = {each.name: numpy_helper.to_array(each) for each in exact.graph.initializer}
    stored = {each.name: each for each in model.graph.initializer}
    means = _channel_means(exact, feeds, {node.input[0]: node.op_type for node in whole.values()})
    for node in model.graph.node:
        if node.name not in whole or not {*node.input[1:]} <= parts.keys():
            continue
        given = whole[node.name]
        attributes = {each.name: each.i for each in node.attribute}
        rounded, scale_O, _, bias_O, bias_scale_O, _ = (
            numpy_helper.to_array(stored[name]) for port in node.input[1:] for name in parts[port]
        )
        first = node.op_type == "Conv" or attributes.get("transB") == 1
        scale = scale_O.reshape([-1, *[1] * (rounded.ndim - 1)] if first else [1, -1])
        error = rounded * scale.astype(np.float64) - float_weights[given.input[1]]
        error_OI = error.reshape(*error.shape[:2], -1).sum(axis=2) if first else error.T
        groups = attributes.get("group", 1)
        shift_GP = np.einsum(
            "gpi,gi->gp", error_OI.reshape(groups, -1, error_OI.shape[1]), means[given.input[0]].reshape(groups, -1)
        )
        corrected_O = bias_O - np.round(shift_GP.ravel() / bias_scale_O)
        name = parts[node.input[2]][0]
        stored[name].CopyFrom(numpy_helper.from_array(corrected_O.astype(np.int32), name))
    onnx.save(model, to)


def _channel_means(graph: onnx.ModelProto, feeds: Iterable[Arrays], of: Mapping[str, str]) -> Arrays:
    """Mean by channel of tensors that a ``Conv`` (axis 1) or a ``Gemm`` (axis 1 of two) reads, over all ``feeds``."""
    inputs = {each.name for each in graph.graph.input}
    for name in of.keys() - inputs:
        graph.graph.output.add(name=name)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [name for name in of if name not in inputs]
    seen: dict[str, list[NDArray[Any]]] = {name: [] for name in of}
    for feed in feeds:
        for name, array in ({**feed, **dict(zip(names, session.run(names, feed), strict=True))}).items():
            if name in seen:
                seen[name].append(array.mean(axis=(0, *range(2, array.ndim)), dtype=np.float64))
    return {name: np.mean(each, axis=0) for name, each in seen.items()}


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

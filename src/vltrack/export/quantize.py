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
from numpy.typing import NDArray
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
OPS = ("MatMul", "Gemm")
"""What is quantized. Convolutions stay fp32: int8 ones of MobileNet move boxes by pixels."""


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

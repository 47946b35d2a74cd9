"""Trace a tracker into ONNX graphs that share one file of weights, and describe them in a manifest.

A graph has a batch of one, the mode and everything that follows from it as constants, and no shape that depends on
data. Images are (1, S, S, 3) uint8 RGB: their normalization is in the graph. Every tensor has a name, and graphs
read and write tensors by name: ``first.tokens_BMC`` is ``memory.first.tokens_BMC`` of the tracker.

A call of the tracker is one graph, or two that run one after the other on one set of named tensors:

- ``text``: ``ids`` (1, L) int64 -> ``text.tokens_BLC``. A sentence has no padding.
- ``start_bbox``, ``start_nlbbox``: ``template``, ``template_box``, ``context``, ``context_box``, and the text ->
  the tensors of the memory. A LiteTrack's begins with the templates and goes on as a step in the context and an update.
- ``step_bbox``, ``step_nlbbox``: ``search``, ``past`` (1, H, 4), the memory, and the text -> ``center_BSS``,
  ``presence_BSS``, ``boxes_BSS4``, and what ``update`` reads.
- ``update_bbox``, ``update_nlbbox``: what the step has left, ``box`` (cx, cy, w, h in units of the search crop), and
  the memory -> tensors of the memory that change with every update.
- ``template``: ``template``, ``template_box`` -> the recent template in the memory.
- ``side_bbox``, ``side_nlbbox``, after ``template`` in a LiteTrack with ``one_way``: the memory -> its ``side``.
- ``ground``: ``scene`` (a letterboxed frame) and the text -> as ``step``.

With ``mask_padding`` there are masks of pixels outside the frame too, (1, S, S) bool: ``template_padded``,
``context_padded``, ``search_padded``. Where search tokens are selected, the first graph of a call writes
``selection.keep_BN``, from which the caller makes ``selection.order_BR`` for the second:
``np.flatnonzero(keep)[None]``.

Lengths of texts and numbers of kept tokens stay free: OpenVINO takes 5 to 10 % less for graphs reshaped to fixed ones
(LiteTrack's and SATracker's tiny steps, one thread), but compiles each of them anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx.external_data_helper import set_external_data
from torch import Tensor, nn

from vltrack.core.types import Mode
from vltrack.models.base import BoxedCrop, Prediction, Text, TrackerBase
from vltrack.models.grounder import GRID, HEAD_POINTS, POINTS, Grounder
from vltrack.nn.picodet import CLASSES, WIDTH

Tensors = dict[str, Tensor]
Function = Callable[[Tensors], Tensors]

WEIGHTS, MANIFEST, OPSET = "weights.bin", "graphs.json", 17
ALIGNMENT, SMALLEST = 64, 1024
"""Bytes to which constants are aligned in the file of weights, and from which they are in it."""
WORDS = 7
"""Word pieces of the example sentence; a prime, so that no other axis is taken for it."""
KEEP, ORDER = "selection.keep_BN", "selection.order_BR"
AXES = {"ids": {1: "words"}, "text.tokens_BLC": {1: "words"}, ORDER: {1: "kept"}, "side.joint_BI2HUD": {4: "seen"}}
"""Axes of any length."""
PROMPTS = "prompts_B3C"
CONSTANT = ("flag_B", "known_B", "valid_BL", "valid_BU")
"""Last part of the names of tensors that follow from the mode."""


def write_graphs(model: TrackerBase[Any], folder: Path) -> dict[str, Any]:
    """Write the graphs of a tracker, in eval mode on the CPU, into an existing folder; return their manifest.

    The manifest is written too, as ``graphs.json``:

    - ``sizes``: what the tracking loop needs of the network.
    - ``calls``: by name of the call the graphs that it consists of; a call of no use to the tracker is absent.
    - ``memory``: by mode the names of the tensors that are kept from frame to frame, the text's aside.
    - ``graphs``: by name the file, and the name, type and shape of each input and output in their order. An axis of
      any length is a string: ``words`` or ``kept``. Inputs that a graph does not use are left out.

    Raises:
        ValueError: the model is in training mode.
    """
    if model.training:
        raise ValueError("These would be graphs of the training pass: call eval() first.")
    with torch.no_grad(), _Writer(model, folder, AXES) as writer:
        calls = _Calls(model)
        memory, one_way = {}, getattr(model.config, "one_way", False)
        maps = {entry.name for entry in fields(Prediction)}
        if calls.has_text:
            writer.write("text", calls.text, calls.inputs)
            writer.write("ground", calls.ground, calls.inputs, cut=calls.selects, keep=maps)
        recent: set[str] = set()
        for mode in calls.modes:
            parts = {name: partial(getattr(calls, name), mode=mode) for name in ("start", "step", "update", "side")}
            examples = {**calls.inputs, **_named(calls.memories[mode]), **_named(calls.seen[mode])}
            writer.write(f"update_{mode}", parts["update"], examples)
            read = writer.reads(f"update_{mode}")
            writer.write(f"step_{mode}", parts["step"], examples, cut=calls.selects, keep={*maps, *read})
            if one_way:
                writer.write(f"side_{mode}", parts["side"], examples)
            later = {*read, *writer.reads(f"step_{mode}"), *writer.reads(f"side_{mode}")}
            memory[str(mode)] = sorted(later & _named(calls.memories[mode]).keys())
            if PROMPTS in memory[str(mode)] and not one_way:
                writer.write(f"start_{mode}", partial(calls.start_templates, mode=mode), examples)
                writer.calls[f"start_{mode}"] += [*writer.calls[f"step_{mode}"], *writer.calls[f"update_{mode}"]]
            else:
                writer.write(f"start_{mode}", parts["start"], examples, cut=calls.selects, keep=memory[str(mode)])
            recent |= later
        if model.template_count > 1:
            writer.write("template", calls.template, calls.inputs, keep=recent)
    manifest = {"sizes": _sizes(model), "calls": writer.calls, "memory": memory, "graphs": writer.graphs}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def _sizes(model: TrackerBase[Any]) -> dict[str, Any]:
    crops = ("template_size", "template_factor", "search_size", "search_factor", "search_side", "template_count")
    names = (*crops, "max_words", "history", "mask_padding", "vocabulary", "width")
    return {name: getattr(model, name) for name in names}


# -- tensors by name ------------------------------------------------------------------------------------------


def _named(value: Any, prefix: str = "") -> Tensors:
    """The tensors in a dataclass by their paths; without constants of the mode, the text and empty ones."""
    found: Tensors = {}
    for entry in fields(value):
        name, part = prefix + entry.name, getattr(value, entry.name)
        if is_dataclass(part) and not isinstance(part, Text):
            found |= _named(part, name + ".")
        elif isinstance(part, Tensor) and entry.name not in CONSTANT and part.numel():
            found[name] = part
    return found


def _filled(value: Any, tensors: Tensors, prefix: str = "") -> Any:
    """The dataclass with the tensors that ``_named`` finds in it taken from here, where they are."""
    parts: dict[str, Any] = {}
    for name in _named(value, prefix):
        if name in tensors and "." not in name.removeprefix(prefix):
            parts[name.removeprefix(prefix)] = tensors[name]
    for entry in fields(value):
        part = getattr(value, entry.name)
        if is_dataclass(part) and not isinstance(part, Text):
            parts[entry.name] = _filled(part, tensors, f"{prefix}{entry.name}.")
    return replace(value, **parts)


class _Calls:
    """The calls of a tracker as functions from named tensors to named tensors, and an example of every tensor."""

    def __init__(self, model: TrackerBase[Any]) -> None:
        self.model = model
        self.has_text = getattr(model.config, "text", "") != "none"
        self.modes = (Mode.BBOX, Mode.NLBBOX) if self.has_text else (Mode.BBOX,)
        # A budget of kept tokens is a shape that does not depend on data.
        self.selects = getattr(model, "selector", None) is not None and not model.config.select_budget  # type: ignore[union-attr]
        self.inputs = self._inputs()
        if self.has_text:
            self.inputs |= self.text(self.inputs)
        self.memories = {mode: self._started(self.inputs, mode) for mode in self.modes}
        self.seen = {mode: self._located(self.inputs, mode) for mode in self.modes}

    def _inputs(self) -> Tensors:
        model, random = self.model, torch.Generator().manual_seed(0)
        box_14 = torch.tensor([[0.5, 0.48, 0.25, 0.35]])
        made = {"box": box_14, "past": box_14.expand(1, max(1, model.history), 4).clone()}
        for name, size in (
            ("template", model.template_size),
            *((name, model.search_size) for name in ("context", "search", "scene")),
        ):
            made[name] = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8, generator=random)
            made[f"{name}_box"] = box_14
            made[f"{name}_padded"] = (torch.arange(size) < size // 4).expand(1, size, size).clone()
        made["ids"] = torch.arange(1000, 1000 + WORDS)[None]
        return made

    def _image(self, pixels_1SS3: Tensor) -> Tensor:
        deviation = torch.tensor(self.model.pixel_std)
        gain, shift = 1.0 / (255.0 * deviation), -torch.tensor(self.model.pixel_mean) / deviation
        return (pixels_1SS3.float() * gain + shift).permute(0, 3, 1, 2)

    def _crop(self, tensors: Tensors, name: str) -> BoxedCrop:
        padded_1SS = tensors[f"{name}_padded"] if self.model.mask_padding else None
        return BoxedCrop(image_B3SS=self._image(tensors[name]), box_B4=tensors[f"{name}_box"], padded_BSS=padded_1SS)

    def _text(self, tensors: Tensors) -> Text:
        tokens_1LC = tensors["text.tokens_BLC"]
        return Text(tokens_BLC=tokens_1LC, valid_BL=torch.ones_like(tokens_1LC[..., 0], dtype=torch.bool))

    def _memory(self, tensors: Tensors, mode: Mode) -> Any:
        memory = _filled(self.memories[mode], tensors)
        return memory if mode is Mode.BBOX else replace(memory, text=self._text(tensors))

    def _started(self, tensors: Tensors, mode: Mode) -> Any:
        text = None if mode is Mode.BBOX else self._text(tensors)
        return self.model.init_template(self._crop(tensors, "template"), self._crop(tensors, "context"), text)

    def _located(self, tensors: Tensors, mode: Mode) -> Prediction:
        past_1H4 = tensors["past"] if self.model.history else None
        mask = {"padded_BSS": tensors["search_padded"]} if self.model.mask_padding else {}
        return self.model.locate(self._image(tensors["search"]), self._memory(tensors, mode), past_1H4, **mask)

    def text(self, tensors: Tensors) -> Tensors:
        """Word pieces -> the encoded sentence."""
        ids_1L = tensors["ids"]
        return {"text.tokens_BLC": self.model.read_text(ids_1L, torch.ones_like(ids_1L, dtype=torch.bool)).tokens_BLC}

    def start(self, tensors: Tensors, mode: Mode) -> Tensors:
        """Template and context -> memory."""
        return _named(self._started(tensors, mode))

    def start_templates(self, tensors: Tensors, mode: Mode) -> Tensors:
        """Templates, and what a step in the context and an update read, which make the prompts of a LiteTrack."""
        made = _named(
            TrackerBase.init_template(self.model, self._crop(tensors, "template"), self._crop(tensors, "context"))
        )
        blank = torch.zeros_like(_named(self.memories[mode])[PROMPTS])  # a step's features do not depend on prompts
        return {**made, PROMPTS: blank, "search": tensors["context"], "box": tensors["context_box"]}

    def step(self, tensors: Tensors, mode: Mode) -> Tensors:
        """Search region and memory -> prediction."""
        return _named(self._located(tensors, mode))

    def update(self, tensors: Tensors, mode: Mode) -> Tensors:
        """Prediction and box -> what changes in the memory without a new template."""
        before, seen = self._memory(tensors, mode), _filled(self.seen[mode], tensors)
        after = _named(self.model.update_template(before, seen, tensors["box"]))
        return {name: tensor for name, tensor in after.items() if tensor is not _named(before)[name]}

    def template(self, tensors: Tensors) -> Tensors:
        """A crop with the target -> the recent template."""
        recent = self.model.embed_template(self._crop(tensors, "template"))
        return {f"recent.{name}": tensor for name, tensor in _named(recent).items()}

    def side(self, tensors: Tensors, mode: Mode) -> Tensors:
        """Templates and text -> what the search region attends to, of a LiteTrack with ``one_way``."""
        model, memory = self.model, self._memory(tensors, mode)
        both = model.joint_template(memory.first, memory.recent)
        return _prefixed("side.", model.target_side(both, memory.text, memory.flag_B))  # type: ignore[operator]

    def ground(self, tensors: Tensors) -> Tensors:
        """Scene and text -> prediction."""
        return _named(self.model.ground(self._image(tensors["scene"]), self._text(tensors)))


# -- files ------------------------------------------------------------------------------------------------------


class _Reads(Tensors):
    """Named tensors that remember which of them were read."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__(tensors)
        self.read: dict[str, None] = {}

    def __getitem__(self, name: str) -> Tensor:
        self.read[name] = None
        return super().__getitem__(name)


class _Traceable(nn.Module):
    def __init__(self, model: nn.Module, function: Function, inputs: list[str], outputs: list[str]) -> None:
        super().__init__()
        self.model, self.function, self.inputs, self.outputs = model, function, inputs, outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        made = self.function(dict(zip(self.inputs, tensors, strict=True)))
        return tuple(made[name] for name in self.outputs)


class _Reached(Exception):
    """The point where a call is cut into two graphs."""


class _Writer:
    """Writes graphs, and the constants of all of them into one file, each once."""

    def __init__(self, model: nn.Module, folder: Path, axes: Mapping[str, dict[int, str]]) -> None:
        self.model, self.folder, self.axes = model, folder, axes
        self.calls: dict[str, list[str]] = {}
        self.graphs: dict[str, dict[str, Any]] = {}
        self._places: dict[bytes, int] = {}

    def __enter__(self) -> _Writer:
        self._weights = (self.folder / WEIGHTS).open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._weights.close()

    def reads(self, call: str) -> list[str]:
        """Names of the inputs of a call's graphs; none of a call that does not exist."""
        return [entry["name"] for graph in self.calls.get(call, ()) for entry in self.graphs[graph]["inputs"]]

    def write(
        self,
        call: str,
        function: Function,
        examples: Tensors,
        *,
        cut: bool = False,
        keep: Collection[str] | None = None,
    ) -> None:
        """Write the graph of a call, or with ``cut`` its two graphs; ``keep`` are the outputs that are needed.

        A call without outputs is left out.
        """
        if not cut:
            if self._trace(call, function, examples, keep):
                self.calls[call] = [call]
            return
        first, second, between = self._halves(function, examples)
        self._trace(call, second, {**examples, **between}, keep)
        read = {entry["name"] for entry in self.graphs[call]["inputs"]} - {ORDER} | {KEEP}
        self._trace(f"select_{call}", first, examples, read)
        self.calls[call] = [f"select_{call}", call]

    def _halves(self, function: Function, examples: Tensors) -> tuple[Function, Function, Tensors]:
        """What comes before ``embed_search`` has returned and what comes after, and examples of what is between."""
        model: Any = self.model
        whole = model.embed_search
        samples: list[Any] = []

        def capture(*args: Any, **options: Any) -> Any:
            samples[:] = whole(*args, **options)
            raise _Reached

        def until(tensors: Tensors) -> Tensors:
            model.embed_search = capture
            try:
                function(tensors)
            except _Reached:
                embedded, selection = samples
                return {**_prefixed("embedded.", embedded), **_prefixed("selection.", selection)}
            finally:
                del model.embed_search
            raise AssertionError("the call has no search region")

        between = until(examples)
        embedded, selection = samples

        def after(tensors: Tensors) -> Tensors:
            kept = _filled(embedded, tensors, "embedded."), _filled(selection, tensors, "selection.")
            model.embed_search = lambda *_, **__: kept
            try:
                return function(tensors)
            finally:
                del model.embed_search

        return until, after, between

    def _trace(self, name: str, function: Function, examples: Tensors, keep: Collection[str] | None) -> bool:
        recorded = _Reads(examples)
        made = function(recorded)
        outputs = [each for each in made if keep is None or each in keep]
        if not outputs:
            return False
        inputs = list(recorded.read)
        axes = {
            each: self.axes[each]
            for each in (*inputs, *outputs)
            if each in self.axes and (each != "text.tokens_BLC" or {**examples, **made}[each].shape[1] == WORDS)
        }
        # The exporter prints whole graphs when it fails.
        quiet = contextlib.redirect_stdout(io.StringIO())
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), quiet:
            warnings.simplefilter("ignore")
            path = Path(folder) / "graph.onnx"
            torch.onnx.export(
                _Traceable(self.model, function, inputs, outputs).eval(),
                tuple(examples[each] for each in inputs),
                str(path),
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
            proto = onnx.load(path)
        used = {each for node in _nodes(proto.graph) for each in node.input}
        for each in [each for each in proto.graph.input if each.name not in used]:
            proto.graph.input.remove(each)
        _lift_constants(proto.graph)
        for constant in proto.graph.initializer:
            self._externalize(constant)
        onnx.save(proto, self.folder / f"{name}.onnx")
        for port in proto.graph.output:  # the exporter does not know the shape of what is gathered
            shape = port.type.tensor_type.shape
            shape.ClearField("dim")
            for axis, size in enumerate(made[port.name].shape):
                named = axes.get(port.name, {}).get(axis)
                shape.dim.add(**({"dim_param": named} if named else {"dim_value": size}))
        ports = {"inputs": proto.graph.input, "outputs": proto.graph.output}
        described = {side: [_described(port) for port in each] for side, each in ports.items()}
        self.graphs[name] = {"file": f"{name}.onnx", **described}
        return True

    def _externalize(self, constant: onnx.TensorProto) -> None:
        """Move a constant into the file of weights, or refer to the one there that has the same bytes."""
        data = constant.raw_data
        if len(data) < SMALLEST:
            return
        digest = hashlib.sha256(data).digest()
        if digest not in self._places:
            self._weights.write(bytes(-self._weights.tell() % ALIGNMENT))
            self._places[digest] = self._weights.tell()
            self._weights.write(data)
        set_external_data(constant, WEIGHTS, offset=self._places[digest], length=len(data))
        constant.ClearField("raw_data")


def _prefixed(prefix: str, value: Any) -> Tensors:
    return {prefix + name: tensor for name, tensor in _named(value).items()}


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Make large constants in the nodes of a graph initializers, which can be in the file of weights."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensors = [each.t for each in node.attribute if len(each.t.raw_data) >= SMALLEST]
        for tensor in tensors:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = node.output[0]
            graph.node.remove(node)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _described(port: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = port.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return {"name": port.name, "dtype": dtype, "shape": [d.dim_param or d.dim_value for d in kind.shape.dim]}


# -- the grounder -----------------------------------------------------------------------------------------------

FREE = {
    "image": {2: "height", 3: "width"},
    "position_N4": {0: "positions"},
    "position_NK": {0: "positions"},
    "position_NF": {0: "positions"},
    "point_NPF": {0: "people"},
    "about_N4": {0: "people"},
    "person_N4": {0: "people"},
    "head_N4": {0: "people"},
    **{name: {0: "boxes"} for name in ("box_N4", "logits_NK", "feature_NF", "color_NG", "kind_N", "owners_N2")},
    "probability_M": {0: "answers"},
    "ids": {1: "words"},
}
"""Axes of any length in the grounder's graphs; height and width are multiples of 32."""


def write_grounder_graphs(grounder: Grounder, folder: Path) -> dict[str, Any]:
    """Write the graphs of ``Grounder.calls``, in eval mode on the CPU, into an existing folder; return their manifest.

    Raises:
        ValueError: the grounder is in training mode.
    """
    if grounder.training:
        raise ValueError("These would be graphs of the training pass: call eval() first.")
    with torch.no_grad(), _Writer(grounder, folder, FREE) as writer:
        examples = _grounder_examples()
        for name, function in grounder.calls().items():
            writer.write(name, function, examples)
    manifest = {"sizes": grounder.sizes, "calls": writer.calls, "graphs": writer.graphs}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def _grounder_examples() -> Tensors:
    random = torch.Generator().manual_seed(0)
    people, boxes, points = 3, 5, HEAD_POINTS[0] * HEAD_POINTS[1]
    corners_N4 = torch.tensor([[0.1, 0.2, 0.4, 0.7]])
    return {
        "image": torch.randn(1, 3, 128, 192, generator=random),
        "point_NPF": torch.randn(people, points, WIDTH, generator=random),
        "about_N4": torch.randn(people, 4, generator=random),
        "person_N4": corners_N4.expand(people, 4).clone(),
        "box_N4": corners_N4.expand(boxes, 4).clone(),
        "aspect": torch.tensor([1.5]),
        "logits_NK": torch.randn(boxes, len(CLASSES), generator=random),
        "feature_NF": torch.randn(boxes, WIDTH * (1 + POINTS[0] * POINTS[1]), generator=random),
        "color_NG": torch.randn(boxes, 3 * GRID[0] * GRID[1], generator=random),
        "kind_N": torch.tensor([0, 0, 0, 1, 2]),
        "owners_N2": torch.tensor([[-1, -1], [-1, -1], [-1, -1], [0, 0], [0, 1]]),
        "ids": torch.arange(1000, 1000 + WORDS)[None],
    }

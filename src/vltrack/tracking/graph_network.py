"""A tracker's network as graphs that OpenVINO or ONNX Runtime runs; torch is not needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import CheckpointMismatch, UsageError
from vltrack.core.files import cache_folder, sha256_bytes
from vltrack.core.types import Image
from vltrack.export.folder import read_folder
from vltrack.export.prepare import graphs_of
from vltrack.models import MODELS
from vltrack.nn.runtime import Arrays, available_cores, choose_runtime, has_backend, open_graphs
from vltrack.tracking.network import BoxedImage, Float32, Found
from vltrack.tracking.postprocess import Maps

LARGE_BYTES = 100 << 20
"""From so many bytes of weights on, a network is large: all threads work on one target, and of its graphs only
those of a step are held, or those of the start from text while that is repeated."""


class GraphNetwork:
    """``Network`` of the graphs in a folder; ``export.graphs`` describes them. Text and memory are named arrays."""

    device = "cpu"

    def __init__(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        backend: str,
        precision: str,
        threads: int,
        compiled: Path | None = None,
    ) -> None:
        self.runtime, self.threads = f"{backend} {precision}", threads
        sizes = manifest["sizes"]
        self.template_size, self.search_size = sizes["template_size"], sizes["search_size"]
        self.template_factor, self.search_factor = sizes["template_factor"], sizes["search_factor"]
        self.max_words, self.history = sizes["max_words"], sizes["history"]
        self.mask_padding, self.vocabulary = sizes["mask_padding"], sizes["vocabulary"]
        self._calls, self._kept = manifest["calls"], manifest["memory"]
        self._of = {
            kind: {name for call, names in self._calls.items() if call.startswith(kind) for name in names}
            for kind in ("step", "ground")
        }
        self._large = sum(manifest["files"].values()) > LARGE_BYTES
        # A small network gains less from a second thread than a second target does.
        self.targets_at_once = 1 if self._large else threads
        self.graphs = open_graphs(folder, manifest, backend, precision, threads // self.targets_at_once, compiled)

    @classmethod
    def load(
        cls, path: Path, card: Mapping[str, Any], backend: str, precision: str, threads: int | None
    ) -> GraphNetwork:
        """The graphs of a weights file, made if they are not in the cache. Raises what ``graphs_of`` raises."""
        folder, manifest = graphs_of(path, card["sha256"], precision)
        return cls(folder, manifest, backend, precision, threads or available_cores(), folder / "compiled")

    @classmethod
    def read(
        cls, folder: Path, device: str, backend: str, precision: str, threads: int | None
    ) -> tuple[GraphNetwork, dict[str, Any]]:
        """The graphs that ``vltrack export`` wrote into a folder, and the card of their weights.

        Raises:
            UsageError: another device than the CPU, or a backend that does not run these graphs.
            CheckpointMismatch: graphs of the grounder. And what ``export.folder.read_folder`` raises.
        """
        manifest = read_folder(folder)
        card, kind = manifest["card"], manifest["kind"]
        if card.get("tracker") not in MODELS or "memory" not in manifest:
            raise CheckpointMismatch(f"{folder} holds graphs of {card.get('tracker')!r}, not of a known tracker.")
        usable = ("openvino", "onnx") if kind == "onnx" else ("openvino",)
        if backend == "auto":
            backend = next((each for each in usable if has_backend(each)), usable[0])
        if backend not in usable or device not in ("auto", "cpu"):
            wanted = f"the backend {backend}" if backend not in usable else device
            raise UsageError(
                f"{folder} holds graphs for {' or '.join(usable)} on the CPU, not for {wanted}.",
                hint="Use the weights that they were made from.",
            )
        if precision == "int8":
            raise UsageError(f"{folder} holds no int8 graphs.", hint="Use the weights that they were made from.")
        backend, precision = choose_runtime(backend, precision, "cpu")
        compiled = cache_folder() / "graphs" / f"exported-{sha256_bytes(str(manifest['sha256']).encode())[:16]}"
        with suppress(OSError):
            compiled.mkdir(parents=True, exist_ok=True)
        cache = compiled if os.access(compiled, os.W_OK) else None
        return cls(folder, manifest, backend, precision, threads or available_cores(), cache), card

    def read_text(self, ids: NDArray[np.int64], valid: NDArray[np.bool_]) -> Arrays:
        """See ``Network``."""
        return self._run("text", {"ids": ids[valid][None]})

    def init(self, template: BoxedImage, context: BoxedImage, text: Arrays | None = None) -> Arrays:
        """See ``Network``."""
        mode = "bbox" if text is None else "nlbbox"
        made = self._run(f"start_{mode}", {**_crop("template", template), **_crop("context", context), **(text or {})})
        return {name: made[name] for name in self._kept[mode]} | (text or {})

    def locate(
        self, search: Image, memory: Arrays, past: Float32 | None = None, padded: NDArray[np.bool_] | None = None
    ) -> Found:
        """See ``Network``."""
        inputs = {"search": search[None], **memory}
        if past is not None:
            inputs["past"] = past[None]
        if padded is not None:
            inputs["search_padded"] = padded[None]
        return _found(self._run(f"step_{_mode(memory)}", inputs))

    def ground(self, scene: Image, text: Arrays) -> Found:
        """See ``Network``."""
        return _found(self._run("ground", {"scene": scene[None], **text}))

    def update(self, memory: Arrays, found: Found, box: Float32, template: BoxedImage | None = None) -> Arrays:
        """See ``Network``."""
        changed = {}
        if (call := f"update_{_mode(memory)}") in self._calls:
            changed = self._run(call, {**memory, **found.raw, "box": box[None]})
        if template is not None and "template" in self._calls:
            changed = changed | self._run("template", _crop("template", template))
            if (call := f"side_{_mode(memory)}") in self._calls:
                changed = changed | self._run(call, memory | changed)
        return memory | {name: array for name, array in changed.items() if name in memory}

    def _run(self, call: str, arrays: Arrays) -> Arrays:
        """Run the graphs of a call one after the other; return all that they write."""
        made: Arrays = {}
        if self._large and call.startswith(("step", "ground")):
            for name in self._of["ground" if call.startswith("step") else "step"]:
                self.graphs[name].release()
        for name in self._calls[call]:
            made |= self.graphs[name](arrays | made)
            if (keep_1N := made.get("selection.keep_BN")) is not None:
                made["selection.order_BR"] = np.flatnonzero(keep_1N)[None]
            if self._large and name not in self._of["step"] | self._of["ground"]:
                self.graphs[name].release()
        return made


def _mode(memory: Arrays) -> str:
    return "nlbbox" if "text.tokens_BLC" in memory else "bbox"


def _crop(name: str, crop: BoxedImage) -> Arrays:
    arrays: Arrays = {name: crop.image[None], f"{name}_box": crop.box[None]}
    return arrays if crop.padded is None else {**arrays, f"{name}_padded": crop.padded[None]}


def _found(made: Arrays) -> Found:
    center, presence, boxes = (
        made.pop(name)[0].astype(np.float64) for name in ("center_BSS", "presence_BSS", "boxes_BSS4")
    )
    return Found(maps=Maps(center=center, presence=presence, boxes=boxes), raw=made)

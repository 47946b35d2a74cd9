"""Graphs of the trackers: OpenVINO and ONNX Runtime compute what torch computes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.model_cases import CONFIGS, make, modes_of

import vltrack
from vltrack.core.types import Mode
from vltrack.export.graphs import KEEP, ORDER, WEIGHTS, write_graphs
from vltrack.models import MODELS, config_of
from vltrack.models.base import BoxedCrop, Text
from vltrack.models.litetrack import LiteTrack, Selection
from vltrack.nn.runtime import Graph
from vltrack.prep.crops import cut, images_to_tensor, region_for
from vltrack.video.source import open_source

pytestmark = pytest.mark.timeout(600)
TOLERANCE = 1e-4
MAPS = ("center_BSS", "presence_BSS", "boxes_BSS4")
TINY = [name for name in CONFIGS if name.endswith(" tiny")]
NARROW: dict[str, Callable[[], Any]] = {
    "litetrack narrow base": lambda: replace(
        CONFIGS["litetrack narrow base"](), split_layers=2, joint_layers=1, contrast_from=1
    ),
    "litetrack tiny budget": lambda: replace(CONFIGS["litetrack tiny"](), select_budget=50),
    "litetrack tiny one-way": lambda: replace(CONFIGS["litetrack tiny"](), one_way=True),
    "aitrack narrow base": lambda: replace(
        CONFIGS["aitrack narrow base"](), layers=1, fusion_layers=1, decoder_layers=1
    ),
    "all-in-one narrow base": lambda: replace(CONFIGS["all-in-one narrow base"](), layers=3, eliminate=(1,)),
    "bit-tracker narrow stark-s50": CONFIGS["bit-tracker narrow stark-s50"],
    "sa-tracker narrow base": lambda: replace(
        CONFIGS["sa-tracker narrow base"](), layers=3, tem_after=(0,), sam_after=(1, 2)
    ),
}
"""The structure of the published sizes with few layers, and LiteTrack's other ways of attention."""
BASE: dict[str, Callable[[], Any]] = {
    f"{name} base": partial(config_of, MODELS[name], "base") for name in MODELS if name != "bit-tracker"
}
"""Published sizes. BIT-Tracker's 101 random layers grow rounding beyond the tolerance: it has the case above alone."""
Arrays = dict[str, np.ndarray]


class Case:
    """A tracker, its graphs, and crops of a real video as named arrays."""

    def __init__(self, config: Any, folder: Path) -> None:
        self.model, self.folder = make(config), folder
        self.modes = [Mode(mode) for mode in modes_of(config)]
        self.manifest = write_graphs(self.model, folder)
        self.inputs = crops(self.model)
        self._graphs: dict[tuple[str, str], Graph] = {}

    def graph(self, name: str, backend: str) -> Graph:
        if (name, backend) not in self._graphs:
            each = self.manifest["graphs"][name]
            inputs, outputs = ([port["name"] for port in each[side]] for side in ("inputs", "outputs"))
            self._graphs[name, backend] = Graph(self.folder / each["file"], inputs, outputs, backend, "fp32", 1)
        return self._graphs[name, backend]

    def call(self, call: str, arrays: Arrays, backend: str, *, kept: tuple[np.ndarray, ...] | None = None) -> Arrays:
        """What the graphs of a call write; ``kept``: keep and source instead of those that the graph chooses."""
        made: Arrays = {}
        for name in self.manifest["calls"][call]:
            made |= self.graph(name, backend)({**arrays, **made})
            if KEEP in made:
                if kept is not None and name.startswith("select_"):
                    made[KEEP], made["selection.source_BN"] = kept
                made[ORDER] = np.flatnonzero(made[KEEP])[None]
        return made

    def image(self, name: str) -> torch.Tensor:
        return images_to_tensor(self.inputs[name], self.model.pixel_mean, self.model.pixel_std)

    def crop(self, name: str) -> BoxedCrop:
        padded = torch.from_numpy(self.inputs[f"{name}_padded"]) if self.model.mask_padding else None
        box = torch.from_numpy(self.inputs[f"{name}_box"])
        return BoxedCrop(image_B3SS=self.image(name), box_B4=box, padded_BSS=padded)

    def text(self, length: int) -> tuple[np.ndarray, Text]:
        ids = torch.randint(1000, 9000, (1, length), generator=torch.Generator().manual_seed(length))
        return ids.numpy(), self.model.read_text(ids, torch.ones_like(ids, dtype=torch.bool))

    def locate(self, memory: Any) -> Any:
        past = torch.from_numpy(self.inputs["past"]) if self.model.history else None
        mask = {"padded_BSS": torch.from_numpy(self.inputs["search_padded"])} if self.model.mask_padding else {}
        return self.model.locate(self.image("search"), memory, past, **mask)


def crops(model: Any) -> Arrays:
    """Template, context and search crops around the car of the clip that ships, and the boxes in them."""
    clip = Path(vltrack.__file__).parent / "clips" / "car-shadow"
    card = json.loads(clip.with_suffix(".json").read_text(encoding="utf-8"))
    with open_source(clip.with_suffix(".mp4"), end=6) as source:
        frames = [frame.image for frame in source]
    box, made = np.array(card["box"], dtype=np.float64), {}
    for name, frame, factor, size in (
        ("template", frames[0], model.template_factor, model.template_size),
        ("context", frames[0], model.search_factor, model.search_size),
        ("search", frames[5], model.search_factor, model.search_size),
        ("scene", frames[0], 9.0, model.search_size),
    ):
        region = region_for(box, factor, size)
        made[name] = cut(frame, region)[None]
        x, y, w, h = region.to_crop(box) / size
        made[f"{name}_box"] = np.array([[x + w / 2, y + h / 2, w, h]], dtype=np.float32)
        made[f"{name}_padded"] = np.zeros((1, size, size), dtype=bool)
        made[f"{name}_padded"][:, : size // 3] = True
    made["box"] = made["search_box"]
    made["past"] = np.repeat(made["search_box"][:, None], max(1, model.history), axis=1)
    return made


@pytest.fixture(scope="module", params=[*TINY, *NARROW, *(pytest.param(name, marks=pytest.mark.slow) for name in BASE)])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    torch.set_num_threads(1)
    with torch.no_grad():
        yield Case({**CONFIGS, **NARROW, **BASE}[request.param](), tmp_path_factory.mktemp("graphs"))


def named(value: Any, name: str) -> Any:
    """``first.tokens_BMC`` of a dataclass."""
    for part in name.split("."):
        value = getattr(value, part)
    return value


def check_mode(case: Case, mode: Mode, backend: str, length: int) -> None:
    """Text, start, step and updates of one mode."""
    model, arrays, text = case.model, dict(case.inputs), None
    if mode is not Mode.BBOX:
        ids, text = case.text(length)
        arrays |= case.call("text", {"ids": ids}, backend)
        close(arrays["text.tokens_BLC"], text.tokens_BLC)
    if mode is Mode.NL:
        assert text is not None
        made = case.call("ground", arrays, backend)
        close_maps(made, model.ground(case.image("scene"), text))
        return
    memory = model.init_template(case.crop("template"), case.crop("context"), text)
    made = case.call(f"start_{mode}", arrays, backend)
    for name in case.manifest["memory"][mode]:
        close(made[name], named(memory, name))
        arrays[name] = named(memory, name).numpy()
    seen = case.locate(memory)
    made = case.call(f"step_{mode}", arrays, backend)
    close_maps(made, seen)
    changed = {}
    if f"update_{mode}" in case.manifest["calls"]:
        changed = case.call(f"update_{mode}", {**arrays, **made}, backend)
    if "template" in case.manifest["calls"]:
        changed |= case.call("template", case.inputs, backend)
    if f"side_{mode}" in case.manifest["calls"]:
        changed |= case.call(f"side_{mode}", {**arrays, **changed}, backend)
    box = torch.from_numpy(case.inputs["box"])
    after = model.update_template(memory, seen, box, case.crop("template"))
    for name in case.manifest["memory"][mode]:
        if named(after, name) is not named(memory, name):
            close(changed[name], named(after, name))


def close(made: np.ndarray, wanted: torch.Tensor) -> None:
    np.testing.assert_allclose(made, wanted.numpy(), rtol=TOLERANCE, atol=TOLERANCE)


def close_maps(made: Arrays, wanted: Any) -> None:
    for name in MAPS:
        close(made[name], getattr(wanted, name))


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_every_call_computes_what_torch_computes(case: Case, backend: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend))
    for mode in case.modes:
        for length in (3, 8, 13) if mode is not Mode.BBOX else (0,):
            check_mode(case, mode, backend, length)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("kept", [1, 32, 90, 196])
def test_a_step_with_any_number_of_kept_tokens(case: Case, backend: str, kept: int) -> None:
    if not isinstance(case.model, LiteTrack) or case.model.config != CONFIGS["litetrack tiny"]():
        pytest.skip("no token selection, or another one of the same kind")
    pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend))
    ids, text = case.text(9)
    memory = case.model.init_template(case.crop("template"), case.crop("context"), text)
    arrays = case.inputs | {name: named(memory, name).numpy() for name in case.manifest["memory"][Mode.NLBBOX]}
    arrays |= case.call("text", {"ids": ids}, backend)
    keep_1N = np.zeros((1, 196), dtype=bool)
    keep_1N[0, np.random.default_rng(kept).permutation(196)[:kept]] = True
    source_1N = np.where(keep_1N, np.arange(196), np.flatnonzero(keep_1N)[0])
    made = case.call(f"step_{Mode.NLBBOX}", arrays, backend, kept=(keep_1N, source_1N))
    selector, model = case.model.selector, case.model

    def chosen(tokens_BNC: torch.Tensor, *given: torch.Tensor) -> Selection:
        order_BR = torch.from_numpy(np.flatnonzero(keep_1N)[None])
        source_BN = torch.from_numpy(source_1N)
        return replace(
            selector(tokens_BNC, *given), keep_BN=torch.from_numpy(keep_1N), order_BR=order_BR, source_BN=source_BN
        )

    del model.selector
    model.selector = chosen
    try:
        close_maps(made, case.locate(memory))
    finally:
        model.selector = selector


def test_graphs_share_one_file_of_weights(case: Case) -> None:
    weights = case.folder / WEIGHTS
    floats = sum(parameter.numel() for parameter in case.model.parameters())
    assert weights.stat().st_size < 1.6 * 4 * floats
    assert all((case.folder / each["file"]).stat().st_size < 2**20 for each in case.manifest["graphs"].values())


def test_a_model_in_training_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="eval"):
        write_graphs(make(NARROW["sa-tracker narrow base"]()).train(), tmp_path)
    assert not list(tmp_path.iterdir())

"""Every tracker is trained through all its stages on miniatures of the data sets of its paper."""

from __future__ import annotations

import gzip
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import vltrack
from model_cases import CONFIGS
from vltrack.core.errors import StateError
from vltrack.datasets.catalogue import write_miniature
from vltrack.prep.tokenizers import ARCHIVE

SETS = ("lasot", "got10k", "trackingnet", "tnl2k", "otb99", "coco2017", "refcocog", "visual-genome")
CLIPS = {"settings": {"clips.frames": "5", "save_every": "1"}}
TWINS = {"part": "twins"}
STAGES: dict[str, list[dict[str, Any]]] = {
    "litetrack tiny": [{}, {}, TWINS],
    "aitrack tiny": [{}, CLIPS, TWINS],
    "all-in-one tiny": [{}, TWINS],
    "bit-tracker tiny": [{}, TWINS],
    "sa-tracker tiny": [{}, TWINS],
    "litetrack base": [{}],
    "aitrack base": [{}, CLIPS],
    "all-in-one base": [{}],
    "bit-tracker base": [{}, {}],
    "sa-tracker base": [{}],
}
"""By tracker and size, the options of each stage; a stage starts from the run before."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with miniatures of all data sets."""
    root = tmp_path_factory.mktemp("data")
    for name in SETS:
        write_miniature(name, root / name)
    return root


def train_stages(name: str, size: str, data: Path, out: Path) -> Path:
    """Train two steps of each stage and return the weights of the last one."""
    start: Path | None = None
    (out / ARCHIVE).write_bytes(gzip.compress(b"#version: 0.2\nt h\nth e</w>\n"))
    init = {"vocabulary": out / ARCHIVE} if (name, size) == ("aitrack", "base") else None
    for number, stage in enumerate(STAGES[f"{name} {size}"]):
        options = {"steps": 2, "batch": 4, "device": "cpu"} | stage
        done = vltrack.train(name, data=data, out=out / str(number), size=size, start=start, init=init, **options)
        record = json.loads((done.out / "data.json").read_text())
        assert record
        assert {entry["name"] for entry in record} <= set(SETS)
        assert all(entry["targets"] for entry in record)
        start, init = done.out, None
    return done.weights


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stages", STAGES)
def test_a_tracker_trains_through_all_stages_and_tracks(
    stages: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``base`` is narrow: its layers have the published number and order, and less width."""
    name, size = stages.split()
    if size == "base":
        module = import_module(f"vltrack.models.{name.replace('-', '_')}")
        narrow = CONFIGS[f"{name} narrow base"]()
        monkeypatch.setattr(module, "base", lambda: narrow)
    weights = train_stages(name, size, data, tmp_path)
    images = data / "lasot" / "airplane" / "airplane-2" / "img"
    assert len(vltrack.track(images, box=(20, 20, 30, 30), model=weights)) == 12


def test_a_run_names_its_data_and_refuses_to_go_on_with_others(data: Path, tmp_path: Path) -> None:
    """The mixture of one tracker, in the default tests: two steps of pairs from three data sets."""
    given = [f"{name}={data / name}" for name in ("lasot", "tnl2k", "refcocog")]
    options = {"steps": 2, "batch": 2, "device": "cpu", "out": tmp_path / "run"}
    done = vltrack.train("sa-tracker", data=given, **options)
    record = json.loads((done.out / "data.json").read_text())
    assert [(entry["name"], entry["targets"]) for entry in record] == [("lasot", 1), ("tnl2k", 2), ("refcocog", 5)]
    with pytest.raises(StateError, match="lasot"):
        vltrack.train("sa-tracker", data=given[:2], resume=True, **options)

"""``vltrack import-weights`` as a user meets it: its help, what it says, its exit codes."""

from __future__ import annotations

import re
from argparse import Namespace
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import vltrack
from vltrack.api.train import import_record
from vltrack.checkpoints import importing
from vltrack.checkpoints.sources import SOURCES
from vltrack.models import ModelCard, all_in_one, bit_tracker, build, config_of, split_name

PRESET = "all-in-one-ostrack-base"
SMALL: dict[str, Any] = {"width": 8, "heads": 2, "template_size": 32, "search_size": 64}


def small_config(card: ModelCard, size: str) -> Any:
    """The presets of these tests with every width cut down; others as they are."""
    config = config_of(card, size)
    if isinstance(config, all_in_one.AllInOneConfig):
        return replace(config, **SMALL, layers=4, eliminate=(), head_channels=(8, 4), table_width=8)
    if isinstance(config, bit_tracker.BITTrackerConfig):
        return replace(config, **SMALL, stem="resnet50", corner_channels=(8, 4), layers=3, taps=(1, 2, 3))
    return config


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "config_of", small_config)


@pytest.fixture(scope="module")
def network() -> dict[str, Tensor]:
    """The entries under ``net`` of a file of OSTrack."""
    keymap = SOURCES["ostrack"].maps[PRESET]
    random = torch.Generator().manual_seed(0)
    card, size = split_name(PRESET)
    shapes = {name: t.shape for name, t in build(card, small_config(card, size)).state_dict().items()}
    given = {
        there: torch.rand(shape, generator=random) * 0.1 + 0.1
        for own, shape in shapes.items()
        if (there := keymap.published(own)) is not None
    }
    return given | {"backbone.cls_token": torch.zeros(1, 1, 8)}


class Meter:
    """Stands in for what training code keeps beside the network."""

    def __init__(self) -> None:
        self.value, self.history, self.tensor = np.float64(0.5), [np.arange(3)], torch.ones(3)
        self.arguments = Namespace(learning_rate=1e-4)


@pytest.fixture
def official(tmp_path: Path, network) -> Path:
    """As the released code saves: with its own objects, numpy's, argparse's, and the optimizer."""
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    optimizer = torch.optim.AdamW([weight])
    optimizer.step()
    path = tmp_path / "OSTrack_ep0300.pth.tar"
    torch.save(
        {
            "epoch": 300,
            "actor_type": "OSTrackActor",
            "net_type": "OSTrack",
            "net": OrderedDict(network),
            "net_info": None,
            "constructor": None,
            "optimizer": optimizer.state_dict(),
            "stats": OrderedDict(train={"loss": Meter()}),
            "settings": Meter(),
        },
        path,
    )
    return path


def test_the_help_lists_what_fits_what(command) -> None:
    text = command("import-weights", "--help").out
    table = text[text.index("What fits which") : text.index("Arguments:")]
    names = sorted({name for source in SOURCES.values() for name in source.maps}, key=len, reverse=True)
    for kind, source in SOURCES.items():
        line = re.search(rf"^ +{kind} +(\S.*(?:\n {{10,}}\S.*)*)", table, re.MULTILINE)
        assert line, kind
        whole, _, starts = line[1].partition("[")
        expected = {name for name in source.maps if source.trained and name not in source.starts}
        assert set(whole.split()) == expected, kind
        assert set(starts.rstrip("]").split()) == source.maps.keys() - expected, kind
        assert set(line[1].replace("[", " ").replace("]", " ").split()) <= set(names)


def test_a_published_file_becomes_a_tracker(command, official: Path, tmp_path: Path, clip: Path) -> None:
    out = tmp_path / "ours.safetensors"
    done = command("import-weights", official, "--as", PRESET, "--out", out).ends(
        0, "is OSTrack", "license: MIT", "backbone.cls_token", "trained for targets named by box"
    )
    assert "warning" not in done.err, "counts of training steps are no lack"
    tracked = ("track", clip, "--end", "2", "--model", out)
    box = ("--box", "313,88,342,194")
    command(*tracked, *box, "-o", tmp_path / "boxes.csv").ends(0)
    command(*tracked, *box, "--text", "the car", "-o", tmp_path / "both.csv").ends(0, "trained without language")
    rows = [
        [line for line in (tmp_path / name).read_text().splitlines() if not line.startswith("#")]
        for name in ("boxes.csv", "both.csv")
    ]
    assert rows[0] == rows[1], "text reached a network without a text side"
    command(*tracked, "--text", "the car", "-o", tmp_path / "words.csv").ends(2, "trained without language")
    command("import-weights", official, "--as", PRESET, "--out", out).ends(2, "--overwrite")


def test_a_start_for_training_says_so_and_is_refused(command, official: Path, tmp_path: Path, clip) -> None:
    out = tmp_path / "start.safetensors"
    done = command(*("import-weights", official, "--as", "all-in-one-base", "--out", out), "--json").ends(
        0, "a start for training all-in-one-base, not a tracker yet"
    )
    assert re.search(r"warning: set by no file.*language\.\*", done.err)
    record = done.json
    assert (record["complete"], record["modes"]) == (False, [])
    assert [file["kind"] for file in record["files"]] == ["ostrack"]
    command("track", clip, "--box", "313,88,342,194", "--model", out, "-o", tmp_path / "b.csv").ends(
        5, "only a start for training"
    )


@pytest.mark.fault("C07")
def test_pairs_that_do_not_fit_are_refused_in_one_line(command, tmp_path: Path, network) -> None:
    file, out = tmp_path / "m.safetensors", tmp_path / "ours.safetensors"
    save_file({f"net.{name}": tensor for name, tensor in network.items()}, file)
    wider = tmp_path / "wider.safetensors"
    save_file({**network, "backbone.pos_embed_x": torch.zeros(1, 64, 8)}, wider)
    for words, code, said in (
        (
            (file, "--as", "bit-tracker-stark-base"),
            5,
            r"OSTrack weights, which do not fit bit-tracker-stark-base\. They fit all-in-one-ostrack-base",
        ),
        ((wider, "--as", PRESET), 5, r"pos_embed_x .*templates of 32 pixels and search regions of 64"),
        ((file, "--as", PRESET, "--kind", "mae"), 5, "missing"),
        ((file, "--as", PRESET, "--kind", "stark"), 2, r"[Uu]nknown kind of weights for .*ostrack, mae"),
        ((file, "--as", "litetrack-tiny"), 2, "[Nn]o published weights fit .litetrack-tiny."),
        ((file, "--as", "ostrack"), 5, r"'ostrack'.* import-weights --help"),
        ((tmp_path / "gone.pth", "--as", PRESET), 5, "Nothing is downloaded"),
        ((tmp_path, "--as", PRESET), 5, "is a folder"),
    ):
        done = command("import-weights", *words, "--out", out)
        assert (done.code, done.out) == (code, ""), done.err
        assert done.err.count("\n") == 1
        assert re.search(said, done.err), done.err
        assert not out.exists()
        assert not out.with_suffix(".json").exists()


def test_the_function_gives_the_same(command, official: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    done = command("import-weights", official, "--as", PRESET, "--out", one, "--json", "-q")
    imported = vltrack.import_weights(official, PRESET, out=two)
    assert done.json == import_record(imported) | {"weights": str(one)}
    assert one.read_bytes() == two.read_bytes()


def test_where_it_writes(command, tmp_path: Path, network, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.safetensors"
    save_file(network, file)
    before = file.read_bytes()
    words = ("import-weights", file, "--as", PRESET, "--out")
    for out, code, said in (
        (file, 2, "exists already"),
        (tmp_path / "ours.pth", 2, "does not end in .safetensors"),
        (tmp_path / "no" / "ours.safetensors", 6, "folder does not exist"),
    ):
        done = command(*words, out)
        assert (done.code, file.read_bytes()) == (code, before)
        assert said in done.err
    assert "one of the files to read" in command(*words, file, "--overwrite").err
    assert file.read_bytes() == before
    monkeypatch.chdir(tmp_path)
    assert command("import-weights", file, "--as", PRESET, "-q").err == ""
    assert (tmp_path / f"{PRESET}.json").is_file()

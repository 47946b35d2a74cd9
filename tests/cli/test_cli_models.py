"""``vltrack models``: every size of every tracker, what is said of each, and counts where they are wanted."""

from __future__ import annotations

import dataclasses
import json

import pytest

from vltrack.cli import models as verb
from vltrack.cli.names import model_names
from vltrack.models import MODELS
from vltrack.models.sizes import Work, count_parameters, without_memory

FIELDS = {
    "name",
    "tracker",
    "paper",
    "year",
    "modes",
    "size",
    "weights",
    "parameters",
    "parameters_trained",
    "parameters_running",
    "multiplications",
    "claims",
    "ours",
}


def test_every_size_is_a_line_and_every_tracker_a_note(command) -> None:
    done = command("models")
    assert done.code == 0
    table, *notes = done.out.split("\n\n")
    lines = table.splitlines()
    assert lines[0].split() == ["name", "year", "modes", "weights", "parameters"]
    assert [line.split()[0] for line in lines[1:]] == list(model_names())
    assert len(notes) == len(MODELS)
    for note, card in zip(notes, MODELS.values(), strict=True):
        words = " ".join(note.split())
        assert words.startswith(f"{card.title} ({card.year}) paper ")
        assert all(said in words for said in (card.paper, card.claims, card.ours))
    assert "--sizes" in done.err
    for name, file in model_names().items():
        assert (file is not None) == ("at hand" in next(line for line in lines if line.split()[0] == name))


def test_lines_fit_the_terminal(command, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, most in ((70, 70), (40, 60), (500, 110)):
        monkeypatch.setenv("COLUMNS", str(columns))
        notes = command("models").out.partition("\n\n")[2].splitlines()
        assert max(len(line) for line in notes) <= most


def test_json_has_all_fields_for_every_size(command) -> None:
    rows = [json.loads(line) for line in command("models", "--json").out.splitlines()]
    assert [row["name"] for row in rows] == list(model_names())
    assert all(row.keys() == FIELDS for row in rows)


def test_sizes_are_what_the_network_has(command) -> None:
    counts = count_parameters(without_memory(MODELS["all-in-one"], "tiny"))
    row = json.loads(command("models", "all-in-one-tiny", "--sizes", "--json").out)
    assert row.keys() == FIELDS
    assert row["parameters"] == counts.total
    assert row["parameters_trained"] == counts.trainable
    assert row["parameters_running"] == counts.running
    assert row["multiplications"].keys() == {field.name for field in dataclasses.fields(Work)}
    assert row["multiplications"]["frame"] > row["multiplications"]["text"] > 0


def test_counts_are_columns_of_the_table(command, monkeypatch: pytest.MonkeyPatch) -> None:
    work = {"frame": 628_000_000, "ground": None}
    counts = {"parameters": 4_456_739, "parameters_trained": 2_449_603, "parameters_running": 4_456_738}
    monkeypatch.setattr(verb, "_counted", lambda card, size: {**counts, "multiplications": work})
    done = command("models", "litetrack-tiny", "--sizes")
    head, line = done.out.split("\n\n")[0].splitlines()
    assert head.split()[-6:] == ["parameters", "trained", "running", "frame", "by", "words"]
    assert line.split()[-9:] == ["4.46", "M", "2.45", "M", "4.46", "M", "0.63", "G", "-"]
    assert "FLOPs" in done.err


def test_only_what_is_asked_for(command, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    monkeypatch.setattr(verb, "_counted", lambda card, size: counted.append((card.name, size)) or {})
    rows = [json.loads(line) for line in command("models", "aitrack", "--sizes", "--json").out.splitlines()]
    assert {row["tracker"] for row in rows} == {"AITrack"}
    assert counted == [("aitrack", size) for size in MODELS["aitrack"].sizes]
    done = command("models", "aitrak")
    assert (done.code, done.out) == (5, "")
    assert "aitrack" in done.err

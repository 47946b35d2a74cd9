"""``vltrack models``: every size of every tracker, what is said of each, and counts where they are wanted."""

from __future__ import annotations

import json

import pytest

from vltrack.api import doctor as verb
from vltrack.api.inputs import check_model
from vltrack.checkpoints.cards import model_names
from vltrack.core.errors import ModelNotFound
from vltrack.models import MODELS

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
    done = command("models").ends(0)
    table, *notes = done.out.split("\n\n")
    lines = table.splitlines()
    assert lines[0].split()[:5] == ["name", "year", "modes", "weights", "parameters"]
    assert [line.split()[0] for line in lines[1:]] == list(model_names())
    assert len(notes) == len(MODELS)
    for note, card in zip(notes, MODELS.values(), strict=True):
        letters = "".join(note.split())  # lines also break after hyphens
        said = f"{card.title} ({card.year}) paper {card.paper} claims {card.claims} ours {card.ours}"
        assert letters == said.replace(" ", "")
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


def test_counts_are_columns_of_the_table(command) -> None:
    row = command("models", "all-in-one-base", "--json").json
    assert row["parameters_running"] < row["parameters"]
    assert row["multiplications"]["frame"] > row["multiplications"]["text"] >= 0
    done = command("models", "all-in-one-base")
    head, line = done.out.split("\n\n")[0].splitlines()
    assert head.split()[-6:] == ["parameters", "trained", "running", "frame", "from", "text"]
    told = [f"{row[key] / 1e6:.2f} M" for key in ("parameters", "parameters_trained", "parameters_running")]
    told += [f"{row['multiplications'][key] / 1e9:.2f} G" for key in ("frame", "ground")]
    assert line.split()[-10:] == " ".join(told).split()
    assert command("models", "bit-tracker-base").out.splitlines()[1].endswith("-")  # no start by words
    assert "FLOPs" in done.err


def test_a_size_that_nobody_counted_is_listed(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb.json, "loads", lambda text: {})
    assert command("models", "litetrack-tiny").out.splitlines()[1].split()[-5:] == ["-"] * 5


def test_only_what_is_asked_for(command) -> None:
    rows = [json.loads(line) for line in command("models", "aitrack", "--json").out.splitlines()]
    assert [row["name"] for row in rows] == [f"aitrack-{size}" for size in MODELS["aitrack"].sizes]
    done = command("models", "aitrak")
    assert (done.code, done.out) == (5, "")
    assert "aitrack" in done.err


@pytest.mark.parametrize("word", ["bit-tracker", "BIT-Tracker", "bittracker", "bit-tracker-tiny"])
def test_a_tracker_is_known_by_its_title_too(word: str) -> None:
    assert check_model(word) == "bit-tracker-tiny"


def test_what_is_no_model_is_refused(command) -> None:
    for word in ("bit", "ostrack", "bit-tracker-tiny-tiny"):
        with pytest.raises(ModelNotFound, match=word):
            check_model(word)
    with pytest.raises(ModelNotFound, match="bit-tracker-base"):
        check_model("BIT-Tracker-base")
    names = [json.loads(line)["name"] for line in command("models", "SATracker", "--json").out.splitlines()]
    assert names == ["sa-tracker-tiny", "sa-tracker-base"]

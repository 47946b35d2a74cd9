"""The trackers' figures are what the running code says, and a table that says otherwise is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from vltrack.models import MODELS
from vltrack.models.profile import count_parameters, without_memory

DOCS = Path(__file__).resolve().parents[2] / "docs"
SLOW = {"aitrack", "litetrack", "sa-tracker"}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """docs/draw_trackers.py, imported as it imports when it runs."""
    sys.path.insert(0, str(DOCS))
    yield import_module("draw_trackers")
    sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def seen(script: ModuleType) -> Any:
    """What flows through All-in-One."""
    return script.recorded("all-in-one")


@pytest.mark.parametrize(
    "tracker", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MODELS]
)
def test_the_committed_pictures_are_drawn_from_this_code(script: ModuleType, tracker: str) -> None:
    drawn = script.draw(script.FIGURES[tracker], script.recorded(tracker))
    assert (DOCS / "trackers" / f"{tracker}.svg").read_text() == drawn, "run: make figures"


@pytest.mark.parametrize("tracker", MODELS)
def test_pictures_tell_the_size_and_the_switches(script: ModuleType, tracker: str) -> None:
    root = ElementTree.fromstring((DOCS / "trackers" / f"{tracker}.svg").read_text())  # noqa: S314 - ours
    words = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    network = without_memory(MODELS[tracker], "base")
    size = script.millions(count_parameters(network).running)
    assert f"base: {size} parameters when it runs" in words
    figure = script.FIGURES[tracker]
    ideas = {idea for item in figure.items.values() for idea in getattr(item, "idea", ())}
    ideas |= {idea for group in (figure.frames, figure.notes) for item in group for idea in item.idea}
    assert ideas
    for idea in ideas:
        setting = f"{idea}={getattr(network.config, idea)!r}".replace("'", '"')
        assert any(setting in text for text in words), setting


def changed(script: ModuleType, item: str, **fields: Any) -> Any:
    """All-in-One's table with one of its items changed."""
    figure = script.FIGURES["all-in-one"]
    return replace(figure, items={**figure.items, item: replace(figure.items[item], **fields)})


@pytest.mark.parametrize(
    ("item", "fields", "complaint"),
    [
        ("norm", {"modules": ("aligner",)}, "'aligner' of all-in-one never runs in locate"),
        ("bert", {"lane": "locate"}, "'bert' of all-in-one never runs in locate"),
        ("norm", {"modules": ("decoder",)}, "no module 'decoder'"),
        ("norm", {"shows": "{locate/norm/1}"}, "is no tensor but 89"),
        ("aligner", {"idea": ("telepathy",)}, "no switch 'telepathy'"),
        ("aligner", {"shows": "{config/telepathy}"}, "no 'config/telepathy'"),
        ("norm", {"modules": ("head",)}, "leaves out norm"),
        ("blocks", {"tokens": (("template", "65"), ("search", "256"))}, "320 tokens enter 'blocks.0'"),
    ],
)
def test_a_table_that_is_not_true_is_refused(
    script: ModuleType, seen: Any, item: str, fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(script.TableError, match=complaint):
        script.draw(changed(script, item, **fields), seen)


@pytest.mark.parametrize(
    ("item", "fields", "complaint"),
    [
        ("norm", {"title": "Many words that do not fit"}, "takes .* pixels"),
        ("norm", {"at": (910, 250)}, "overlap"),
        ("norm", {"at": (1070, 328)}, "leaves the figure"),
        ("bert", {"at": (180, 217)}, "runs through .*'bert'"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(
    script: ModuleType, seen: Any, item: str, fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(script.LayoutError, match=complaint):
        script.draw(changed(script, item, **fields), seen)

"""Parameter counts against the published ones; work counted on the meta device is that of a real pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model_cases import CONFIGS, all_sizes, boxed, card_of, make, modes_of, small
from vltrack.models import MODELS, build, config_of
from vltrack.models.profile import Size, count_parameters, count_work, multiplications, without_memory

RECORDED = json.loads((files("vltrack.models") / "counted.json").read_text())


@cache
def on_meta(tracker: str, size: str) -> Any:
    return without_memory(MODELS[tracker], size)


def size_of(tracker: str, size: str) -> Size:
    return count_parameters(on_meta(tracker, size))


def hollow(config: Any) -> Any:
    """A configuration's network on the meta device."""
    with torch.device("meta"):
        return build(card_of(config), config).eval()


def test_litetrack_has_the_published_counts_within_a_hundredth() -> None:
    parent = size_of("litetrack", "uvltrack-base")
    assert parent.total == pytest.approx(167.73e6, rel=0.01)
    assert parent.trainable == parent.total
    ours = size_of("litetrack", "base")
    assert ours.trainable == pytest.approx(108.4e6, rel=0.01)
    assert ours.total == pytest.approx(169.5e6, rel=0.01)
    # It is not smaller at inference: freezing saves training, not work.
    assert ours.running == pytest.approx(ours.total, rel=0.001)


def test_all_in_one_leaves_its_aligners_behind() -> None:
    """About 116 M at inference (computed from the released code), and 63 M that only training has."""
    ours = size_of("all-in-one", "base")
    assert ours.running == pytest.approx(116e6, rel=0.01)
    assert ours.total - ours.running == pytest.approx(63e6, rel=0.01)


@pytest.mark.parametrize("tracker", MODELS)
def test_tiny_is_tiny_and_names_its_training_parts(tracker: str) -> None:
    """At most 12 MB in fp16, the text side included; every prefix of ``training_only`` exists."""
    assert size_of(tracker, "tiny").total * 2 < 12e6
    models = [on_meta(tracker, size) for size in MODELS[tracker].sizes]
    names = [name for model in models for name, _ in model.named_parameters()]
    for start in models[0].training_only:
        assert any(name.startswith(start) for name in names), start
    assert models[0].training_only or tracker != "all-in-one"


@pytest.mark.parametrize(("tracker", "size"), all_sizes())
def test_what_is_recorded_is_what_is_counted(tracker: str, size: str) -> None:
    """After a change: ``make figures``."""
    card = MODELS[tracker]
    model = on_meta(tracker, size)
    counts, work = count_parameters(model), count_work(model)
    assert RECORDED[f"{tracker}-{size}"] == asdict(counts) | {"work": asdict(work)}
    assert 0 < counts.trainable <= counts.total
    assert 0 < counts.running <= counts.total
    modes = modes_of(config_of(card, size))
    assert set(card.modes_of(size)) == set(modes)
    # Every part of the work is counted, and dropping tokens saves some.
    assert work.frame > 0
    assert work.frame_kept is None or 0 < work.frame_kept < 0.95 * work.frame
    assert (work.ground is not None) == ("nl" in modes)
    assert work.ground is None or work.ground > 0
    assert (work.frame_kept is not None) == getattr(model.config, "select", False)


# The large size has base's parts, only more of them.
@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if "large" not in name], ids=lambda name: name.replace(" ", "-")
)
def test_meta_device_counts_what_a_real_pass_does(name: str) -> None:
    """Sentence, start, a frame with box and text, a frame from text: the same sums."""
    config = small(CONFIGS[name]())
    real, empty = make(config), hollow(config)
    stay: list[int] = []
    if getattr(real, "selector", None) is not None:
        real.selector.register_forward_hook(lambda _, __, chosen: stay.append(chosen.order_BR.shape[1]))
    text = None
    for step in ("text", "start", "frame", "ground") if "nl" in modes_of(config) else ("start", "frame"):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            result = _step(real, step, text, "cpu")()
        counted = multiplications(
            _step(empty, step, text if text is None else _meta(text), "meta"),
            text_only=step == "ground",
            tokens=stay[-1] if stay else 0,
        )
        assert counted[1] == counter.get_total_flops() // 2, step
        text = result if step == "text" else text


def _meta(text: Any) -> Any:
    return replace(text, tokens_BLC=text.tokens_BLC.to("meta"), valid_BL=text.valid_BL.to("meta"))


def _step(model: Any, step: str, text: Any, device: str) -> Callable[[], Any]:
    """One step with a grey image; a start from box and sentence comes before a frame."""
    search = torch.zeros(1, 3, model.search_size, model.search_size, device=device)
    template = torch.zeros(1, 3, model.template_size, model.template_size, device=device)
    box = torch.full((1, 4), 0.5, device=device)
    ids = torch.ones(1, model.max_words, dtype=torch.long, device=device)
    past = torch.full((1, model.history, 4), 0.5, device=device) if model.history else None

    def start() -> Any:
        return model.init_template(boxed(template, box), boxed(search, box), text)

    return {
        "text": lambda: model.read_text(ids, torch.ones_like(ids, dtype=torch.bool)),
        "start": start,
        "frame": lambda: model.locate(search, start(), past),
        "ground": lambda: model.ground(search, text),
    }[step]

"""Layer freezing: what is frozen, what a plateau frees, in which order; a resumed run goes on as before."""

from __future__ import annotations

import json

import pytest
from torch import nn

from model_cases import LITETRACK, make, narrow_base
from vltrack.models.litetrack import LiteTrack, tiny
from vltrack.training.checkpoint import PlateauUnfreezer, freeze


def frozen_names(model: LiteTrack) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def planned(model: LiteTrack, patience: int = 3, delta: float = 0.01) -> PlateauUnfreezer:
    frozen, order = model.freeze_plan()
    freeze(frozen)
    return PlateauUnfreezer(order=order, patience=patience, delta=delta)


def test_base_freezes_what_the_released_code_freezes() -> None:
    model = make(narrow_base())
    planned(model)
    names = frozen_names(model)
    parts = ("stem.patch_embed.", "bert.embeddings.", "bert.encoder.layer.0.", *(f"blocks.{i}." for i in range(4)))
    expected = {
        name
        for name, _ in model.named_parameters()
        if name.startswith(parts) and ".norm" not in name and "LayerNorm" not in name
    }
    assert names == expected
    assert not any(name.startswith(("cls_token", "blocks.4", "bert.encoder.layer.1", "head", "star")) for name in names)


def test_tiny_freezes_the_lower_stem_and_the_word_table() -> None:
    model = make(tiny())
    unfreezer = planned(model)
    expected = {f"stem.trunk.convs.{i}.{kind}" for i in range(18) for kind in ("weight", "bias")}
    expected.add("bert.embeddings.word_embeddings.weight")
    assert frozen_names(model) == expected
    assert len(unfreezer.order) == 2


def test_a_size_without_the_idea_freezes_nothing() -> None:
    model = make(LITETRACK["litetrack narrow uvltrack-base"]())
    assert model.freeze_plan() == ([], [])
    assert not frozen_names(model)


def test_plateaus_free_the_highest_frozen_block_first() -> None:
    """Patience 3: three periods without a gain of one per cent free blocks 3, 2, 1; then no more."""
    model = make(narrow_base())
    unfreezer = planned(model)
    freed = []
    before = frozen_names(model)
    for period in range(20):
        if unfreezer.period(1.0, step=period * 10):
            after = frozen_names(model)
            freed.append(sorted({name.split(".")[1] for name in before - after}))
            before = after
    assert freed == [["3"], ["2"], ["1"]]
    assert unfreezer.history == [30, 60, 90]
    assert {name.split(".")[1] for name in frozen_names(model) if name.startswith("blocks.")} == {"0"}


def test_progress_keeps_the_plan_waiting() -> None:
    unfreezer = planned(make(narrow_base()))
    loss = 1.0
    for period in range(12):
        loss *= 0.98
        assert not unfreezer.period(loss, period)
    # 0.5 % a period is no progress at delta 1 %, measured against the best.
    assert [unfreezer.period(loss * 0.995, p) for p in range(3)] == [False, False, True]


@pytest.mark.parametrize("periods", [0, 2, 3, 7, 15])
def test_state_survives_a_resume(periods: int) -> None:
    first, second = make(narrow_base()), make(narrow_base())
    went_on, resumed = planned(first), planned(second)
    for period in range(periods):
        went_on.period(1.0, period)
    resumed.restore(json.loads(json.dumps(went_on.state())))
    assert frozen_names(first) == frozen_names(second)
    assert resumed.state() == went_on.state()
    for period in range(periods, periods + 7):
        assert went_on.period(1.0, period) == resumed.period(1.0, period)
        assert frozen_names(first) == frozen_names(second)


def test_norms_stay_free() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    freeze([module])
    assert [p.requires_grad for p in module.parameters()] == [False, False, True, True]

"""``vltrack ablate``: what is trained, what is resumed, and what an idea is said to add."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import vltrack
from vltrack.api.ablate import WHOLE
from vltrack.cli.main import main
from vltrack.core.errors import ConfigError, DataError, UsageError
from vltrack.datasets.synthetic import synthesize
from vltrack.models import MODELS, build, config_of
from vltrack.training.recipes import ablation

TARGETS = ["clip-0001", "clip-0002"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    synthesize(folder, 2, 3, 1)
    return folder


def finished(out: Path, auc: dict[tuple[str, int], list[list[float]]], steps: int = 5) -> None:
    """Runs of SATracker that are done: AUC of modes and targets by idea and seed."""
    for (idea, seed), values in auc.items():
        folder = out / f"sa-tracker-{idea.replace(' ', '-')}-{seed}"
        folder.mkdir(parents=True)
        (folder / "success.json").write_text(json.dumps({"steps": steps, "targets": TARGETS, "auc": values}))


def all_runs(whole: float, without: float) -> dict[tuple[str, int], list[list[float]]]:
    ideas = (WHOLE, *MODELS["sa-tracker"].ideas)
    return {(idea, seed): [[(whole if idea == WHOLE else without) + seed] * 2] * 2 for idea in ideas for seed in (1, 2)}


@pytest.mark.parametrize(
    ("tracker", "idea", "change"),
    [(name, idea, change) for name, card in MODELS.items() for idea, change in card.ideas.items()],
)
def test_every_idea_is_a_switch_that_changes_the_network_or_its_training(tracker: str, idea: str, change: str) -> None:
    card = MODELS[tracker]
    whole, without = config_of(card, "tiny"), config_of(card, "tiny", [change])
    assert whole != without
    build(card, without)
    assert ablation(tracker, (change,), 1, 9).variant == (change,)


@pytest.mark.parametrize("change", ["selekt=false", "select=maybe", "width=7", "select"])
def test_what_a_network_cannot_have_is_refused(change: str) -> None:
    with pytest.raises(ConfigError, match=change.split("=")[0]):
        config_of(MODELS["litetrack"], "tiny", [change])


def test_what_is_finished_is_not_trained_again_and_targets_are_paired(clips: Path, tmp_path: Path) -> None:
    runs = all_runs(50.0, 45.0)
    runs["dense matching", 1] = [[46.0 + 4, 46.0], [46.0, 46.0]]
    finished(tmp_path, runs)
    found = vltrack.ablate("sa-tracker", data=clips, clips=clips, out=tmp_path, steps=5, seeds=2)
    rows = {(row["off"], row["mode"]): row for row in found.rows()}
    assert rows["", "bbox"] == {
        "model": "sa-tracker", "off": "", "mode": "bbox", "auc": 51.5, "seeds": 2,
        "deviation": pytest.approx(math.sqrt(0.5)),
    }  # fmt: skip
    assert rows["semantic aware", "nlbbox"]["adds"] == 5
    assert found.gain("sa-tracker", "dense matching", "bbox").mean == 4  # of 3 and 5
    np.testing.assert_allclose([found.gain("sa-tracker", "dense matching", "bbox").low], [3])


def test_the_command_prints_a_table(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path, all_runs(50.0, 45.0))
    words = ["ablate", "sa-tracker", "--data", str(clips), "--clips", str(clips), "--out", str(tmp_path)]
    assert main([*words, "--steps", "5", "--seeds", "2"]) == 0
    said = capsys.readouterr()
    assert "| sa-tracker | dense matching | box and text | 46.5 +- 0.7 | +5.0 [+5.0, +5.0] |" in said.out + said.err


def test_runs_of_other_steps_are_refused(clips: Path, tmp_path: Path) -> None:
    finished(tmp_path, all_runs(50.0, 45.0), steps=4)
    with pytest.raises(UsageError, match="other steps"):
        vltrack.ablate("sa-tracker", data=clips, clips=clips, out=tmp_path, steps=5, seeds=2)


def test_unknown_trackers_and_no_targets_are_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sa-trakcer"):
        vltrack.ablate("sa-trakcer", data=clips, clips=clips, out=tmp_path)
    with pytest.raises(DataError, match="no target"):
        vltrack.ablate("sa-tracker", data=clips, clips=clips, out=tmp_path, skip=TARGETS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_variant_is_trained_and_tracked(data: Path, clips: Path, tmp_path: Path) -> None:
    found = vltrack.ablate("sa-tracker", data=data, clips=clips, out=tmp_path, steps=1, seeds=1)
    assert len(found.auc) == 4
    assert all(np.isfinite(auc).all() and auc.shape == (1, 2, 2) for auc in found.auc.values())

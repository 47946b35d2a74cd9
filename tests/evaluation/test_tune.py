"""The search for a tracking policy: what is taken, and what the command says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import vltrack
from vltrack.cli.main import main
from vltrack.core.errors import UsageError
from vltrack.datasets.synthetic import synthesize
from vltrack.evaluation.tune import difference, moved


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    synthesize(folder, 3, 8, 1)
    return folder


def test_targets_are_what_the_noise_is_counted_over() -> None:
    before = np.array([[0.5, 0.6, 0.7], [0.4, 0.4, 0.4]])
    gain, error = difference(before + np.array([0.1, 0.0, 0.2]), before)
    assert gain == pytest.approx(0.1)
    assert error == pytest.approx(0.1 / np.sqrt(3))
    one_failed = np.array([[np.nan, 0.6, 0.9], [0.5, 0.4, 0.6]])
    assert difference(one_failed, before)[0] == pytest.approx(0.1)


def test_more_starts_are_moved_a_little() -> None:
    first, *others = moved((10.0, 20.0, 100.0, 50.0), 4)
    assert first == (10.0, 20.0, 100.0, 50.0)
    assert len(set(others)) == 3
    assert all(abs(x - 10) <= 2 and abs(y - 20) <= 1 and (w, h) == (100, 50) for x, y, w, h in others)


def test_what_gains_more_than_its_error_is_taken(clips: Path) -> None:
    tries = [[{"smooth": 0.0}], [{"window": 0.25}, {"window": 0.4}]]
    found = vltrack.tune("litetrack-tiny", data=clips, tries=tries, policy={"window": 1.0})
    start, *rows = found.rows()
    assert (start["changes"], start["taken"]) == ("start", True)
    assert [row["changes"] for row in rows] == ["smooth=0.0", "window=0.25", "window=0.4"]
    assert [row["taken"] for row in rows[1:]].count(True) <= 1
    assert all(row["gain"] > row["error"] for row in rows if row["taken"])
    assert max(rows[1:], key=lambda row: row["gain"])["taken"], "a window of 1 holds the box where it is"
    assert found.policy.keys() <= {"smooth", "window"}


def test_the_command_prints_a_row_for_each_trial(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", "litetrack-tiny", "--data", str(clips), "--try", "window=0.1;penalty=0.2", "--json", "-q"]
    assert main([*words, "--skip", "clip-0002,clip-0003", "--starts", "2"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [row["changes"] for row in record["trials"]] == ["start", "window=0.1;penalty=0.2"]
    assert record["targets"] == ["clip-0001"]
    assert record["policy"] == {}  # of one target no noise is known


@pytest.mark.parametrize(
    ("options", "said"),
    [({"tries": [[{"windows": 0.1}]]}, "windows"), ({"skip": ["clip-9"]}, "clip-9"), ({"mode": "box"}, "box")],
)
def test_unknown_options_are_refused(clips: Path, options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        vltrack.tune("litetrack-tiny", data=clips, **options)

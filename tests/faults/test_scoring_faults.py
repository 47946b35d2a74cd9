"""Faults of scoring and of archives: results that are missing, of the wrong length, or incomplete."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vltrack.core.errors import PartialResult, UsageError
from vltrack.core.files import sha256_of
from vltrack.evaluation.submission import pack
from vltrack.metrics.annotations import Annotation, Annotations
from vltrack.metrics.protocols import RULES
from vltrack.metrics.scoring import score

FRAMES = {"b": 2, "a": 3}
BOXES = {name: np.arange(4 * n, dtype=float).reshape(n, 4) + 0.12345 for name, n in FRAMES.items()}
SECONDS = {name: np.full(n, 0.031) for name, n in FRAMES.items()}


@pytest.mark.fault("E15")
@pytest.mark.parametrize("server", ["got10k", "trackingnet"])
def test_archives_are_complete_and_always_the_same_bytes(tmp_path: Path, server: str) -> None:
    manifest = pack(server, FRAMES, BOXES, SECONDS, tmp_path / "one.zip")
    turned = {name: BOXES[name] for name in sorted(BOXES)}
    pack(server, dict(sorted(FRAMES.items())), turned, SECONDS, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    record = json.loads(manifest.read_text())
    assert record["sha256"] == sha256_of(tmp_path / "one.zip")
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        names = archive.namelist()
        assert names == sorted(names) == sorted(record["members"])
        first = archive.read(names[0]).decode().splitlines()
    expected = ["a.txt", "b.txt"] if server == "trackingnet" else ["a/a_001.txt", "a/a_time.txt"]
    assert names[:2] == expected
    assert first[0] == "0.123,1.123,2.123,3.123"
    assert len(first) == 3


@pytest.mark.fault("E15")
@pytest.mark.parametrize(
    ("boxes", "seconds"),
    [
        ({"a": BOXES["a"]}, SECONDS),
        ({**BOXES, "b": BOXES["b"][:1]}, SECONDS),
        (BOXES, {}),
        ({**BOXES, "b": np.full((2, 4), np.nan)}, SECONDS),
    ],
)
def test_an_incomplete_archive_is_not_written(
    tmp_path: Path, boxes: dict[str, np.ndarray], seconds: dict[str, np.ndarray]
) -> None:
    with pytest.raises(PartialResult, match="No archive was written"):
        pack("got10k", FRAMES, boxes, seconds, tmp_path / "one.zip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("E15")
def test_an_unknown_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'lasot'"):
        pack("lasot", FRAMES, BOXES, SECONDS, tmp_path / "one.zip")


@pytest.mark.fault("E13")
@pytest.mark.parametrize("name", RULES)
def test_scoring_changes_no_input(name: str) -> None:
    """A single frame, too: its columns are already in order, where a careless copy is none."""
    for count in (1, 7):
        rows = np.tile([10.0, 10.0, 20.0, 20.0], (count, 1))
        truth = Annotations.join([Annotation(name="a", boxes=rows, absent=np.zeros(count, dtype=bool))])
        for order in ("C", "F"):
            found = np.array(rows + 90.0, order=order)  # type: ignore[call-overload]
            found[-1] = np.nan
            kept = found.copy()
            score(truth, found, RULES[name])
            assert np.array_equal(found, kept, equal_nan=True)
            assert np.array_equal(truth.boxes, rows)

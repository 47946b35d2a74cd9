"""Records of scenes: which proposal is right, and that files give back what was written or are refused."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch

from vltrack.core.errors import DataError
from vltrack.models.grounder import Grounder, GrounderConfig
from vltrack.tracking.proposals import BOX, HEAD, Proposals, Proposer
from vltrack.training.grounder.phrases import Phrase, Thing
from vltrack.training.grounder.records import Record, make_record, read_records, write_records
from vltrack.training.grounder.scenes import Scene

RIDER = Thing(
    name="person", box=(20, 10, 60, 90), gender="woman", garments={"top": "red"}, head=(30, 10, 50, 30),
    sentences=["the woman on the left"],
)  # fmt: skip
BICYCLE = Thing(name="bicycle", box=(10, 50, 110, 100), color="blue", known=False)
BOXES = (
    (20, 10, 60, 90),
    (22, 12, 60, 90),
    (10, 50, 110, 100),
    (150, 20, 190, 80),
    (30, 10, 50, 30),
    (10, 10, 110, 100),
)


def record() -> Record:
    """A scene of 200 x 100 pixels with proposals at ``BOXES``, the fifth of them a head."""
    count, rng = len(BOXES), np.random.default_rng(0)
    proposals = Proposals(
        box_N4=(np.array(BOXES) / [200, 100, 200, 100]).astype(np.float32), aspect=2.0,
        logits_NK=rng.normal(size=(count, 80)), feature_NF=rng.normal(size=(count, 960)),
        color_NG=rng.random((count, 54)), kind_N=np.array([BOX, BOX, BOX, BOX, HEAD, BOX]),
        owners_N2=np.array([[-1, -1]] * 4 + [[0, 0]] + [[-1, -1]]),
    )  # fmt: skip
    return Record(proposals=proposals, things=[RIDER, BICYCLE], size=(200, 100), complete=True)


@pytest.mark.parametrize(
    ("phrase", "right"),  # the best one first
    [
        (Phrase(text="the rider", target=0), [0, 1]),
        (Phrase(text="her head", target=0, part="head"), [4]),
        (Phrase(text="both", target=0, part="pair", partner=1), [5, 2]),  # the bicycle is 5/9 of both
        (Phrase(text="the bicycle", target=1), [2, 5]),
        (Phrase(text="the horse", target=-1), [6]),
    ],
)
def test_the_boxes_that_a_phrase_names_share_the_probability(phrase: Phrase, right: list[int]) -> None:
    target = record().target(phrase)
    assert target is not None
    assert float(target.sum()) == pytest.approx(1)
    assert torch.argsort(-target)[: len(right)].tolist() == right
    assert int((target > 0).sum()) == len(right)


def test_a_target_that_no_proposal_covers_has_none() -> None:
    missed = record()
    missed.things.append(Thing(name="dog", box=(100, 60, 140, 90)))
    assert missed.target(Phrase(text="the dog", target=2)) is None


def test_records_come_back_from_a_file(tmp_path: Path) -> None:
    config = GrounderConfig(scales=(64,), threshold=0.0, proposals=5, vocabulary=4, width=32, heads=2)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    made = make_record(Proposer.in_torch(Grounder(config).eval()), Scene(image=image, things=[BICYCLE], complete=False))
    assert made.size == (80, 60)
    assert len(made.proposals.box_N4) >= 5
    write_records(tmp_path / "scenes.npz", [record(), made, record()])
    back = list(read_records(tmp_path / "scenes.npz"))
    assert len(back) == 3
    for one, other in zip(back, (record(), made, record()), strict=True):
        assert (one.things, one.size, one.complete) == (other.things, other.size, other.complete)
        for a, b in zip(astuple(one.proposals), astuple(other.proposals), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)
        assert one.proposals.kind_N.dtype == one.proposals.owners_N2.dtype == np.int64
        np.testing.assert_array_equal(one.proposals.box_N4, other.proposals.box_N4)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "not ours", "rows"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "scenes.npz"
    write_records(path, [record()])
    data = path.read_bytes()
    if damage == "not ours":
        np.savez(path, heads=np.zeros(3, dtype=np.uint8))
    elif damage == "rows":
        with np.load(path) as arrays:
            np.savez(path, **{**arrays, "box_N4": arrays["box_N4"][:-1]})
    else:
        at = data.index(b"feature_NF") + 500
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        path.write_bytes({"cut": data[:-200], "empty": b"", "flipped": changed}[damage])
    with pytest.raises(DataError) as error:
        list(read_records(path))
    assert (error.value.exit_code, str(path) in error.value.message) == (4, True)
    assert error.value.hint

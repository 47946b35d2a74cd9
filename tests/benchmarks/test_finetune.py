"""The experiment of fine-tuning writes clips that read back the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from vltrack.datasets.sequences import Sequence
from vltrack.training.own_clips import read_clips

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import finetune


def test_a_written_clip_reads_back_the_same(tmp_path: Path) -> None:
    files = tuple(tmp_path / f"{k}.png" for k in (5, 9, 3))
    for k, file in enumerate(files):
        file.write_bytes(bytes([k]))
    boxes, absent = np.array([[1.25, 2, 3, 4], [0, 0, 0, 0], [5, 6, 7, 8]]), np.array([False, True, False])
    clip = Sequence(name="dog", source=tmp_path, files=files, boxes=boxes, absent=absent, sentence="the dog")
    finetune.write_clip(clip, tmp_path / "clips" / "dog")
    (found,) = read_clips(tmp_path / "clips")
    assert (found.name, found.sentence, found.absent.tolist()) == ("dog", "the dog", absent.tolist())
    assert np.array_equal(found.boxes, boxes)
    assert [file.read_bytes() for file in found.files or ()] == [b"\0", b"\1", b"\2"]


def test_the_table_has_the_difference() -> None:
    lines = finetune.table({"dog": {"bbox": 0.5}}, {"dog": {"bbox": 0.625}})
    assert lines[2:] == ["| dog | bbox | 0.500 | 0.625 | +0.125 |"]

"""Writers of files, and a process that is stopped, or finds the disk full, at the k-th operation of one of them.

A script, for strace: ``python tests/failpoints.py WRITER FOLDER`` writes once.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_cases import make, narrow_base, small
from small_training import short, tensors_of, train, use_toy
from stub_runs import LOADER, painting, stub_weights, tree
from vltrack.api.part import PartFile
from vltrack.checkpoints import store
from vltrack.core.errors import ResourceError, UsageError
from vltrack.core.files import write_text
from vltrack.core.track import Track
from vltrack.core.types import Status, Step
from vltrack.evaluation.plan import make_plan
from vltrack.evaluation.results import is_finished
from vltrack.evaluation.summary import write_scores
from vltrack.evaluation.writing import open_writer
from vltrack.training.videos import AnnotatedTarget, TargetIndex

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Writer:
    """``prepare`` makes what is there before; ``check`` fails unless the folder holds the old or the new, whole."""

    prepare: Callable[[Path], object]
    write: Callable[[Path], object]
    check: Callable[[Path], object]


def save_model(folder: Path, seed: int) -> None:
    config = replace(
        small(narrow_base()), width=8, heads=2, table_width=8, split_layers=1, joint_layers=1, contrast_from=0
    )
    path = folder / "weights.safetensors"
    store.save(path, make(config, seed=seed), tracker="litetrack", size="base", card={"seed": seed})


def check_model(folder: Path) -> None:
    model, card = store.load(folder / "weights.safetensors")
    again = make(model.config, seed=card["seed"]).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def steps_of(count: int) -> list[Step]:
    more: dict[str, Any] = {"box": np.array([1.0, 2.0, 30.0, 40.0]), "score": 0.5, "visible": True, "status": Status.OK}
    return [Step(index=index, seconds=index / 4, **more) for index in range(count)]


def save_track(folder: Path, count: int) -> None:
    track = Track.from_steps(steps_of(count), {})
    for suffix in ("csv", "json"):
        track.save(folder / f"a.{suffix}", overwrite=True)


def check_track(folder: Path) -> None:
    assert {len(Track.load(folder / f"a.{suffix}")) for suffix in ("csv", "json")} <= {3, 5}


def save_rows(folder: Path) -> None:
    """Go on with a run of six frames whose state is its last frame, saved after each."""
    table = folder / "a.csv"
    if table.exists() and not (folder / "a.part.csv").exists():
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vltrack.api.part.SAVE_EVERY", 0)
        with PartFile([table], __file__, resume=True, overwrite=False) as part:
            part.check({})
            done = [step for steps in part.kept.steps.values() for step in steps.values()] if part.kept else []
            assert done == steps_of(6)[: len(done)]
            assert not done or part.state_on("cpu") == len(done) - 1
            for step in steps_of(6)[len(done) :]:
                part.add({"1": {}}, [], {"1": step}, step.index)
            Track.from_steps(steps_of(6), {}).save(table, overwrite=True)
            part.finished = True


def check_rows(folder: Path) -> None:
    save_rows(folder)
    assert len(Track.load(folder / "a.csv")) == 6
    with pytest.raises(UsageError, match=r"a\.csv exists"):
        PartFile([folder / "a.csv"], __file__, resume=False, overwrite=False)
    assert [path.name for path in folder.iterdir()] == ["a.csv"]


def planned(folder: Path) -> Any:
    return make_plan(painting(2), stub_weights(folder.parent), ("nlbbox",), folder, loader=LOADER)


def keep_results(folder: Path) -> None:
    (part,) = planned(folder).modes
    with open_writer(part.folder, part.run, rerun=False) as writer:
        for task in part.tasks:
            if not is_finished(part.folder, task.sequence.name):
                writer.keep(task, [(1.0, 2.0, 3.0, 4.0, 0.5, True, "ok", 0.1)] * len(task.sequence))


def check_results(folder: Path) -> None:
    keep_results(folder)
    keep_results(whole := folder.parent / "whole")
    assert tree(folder) == tree(whole)


def train_on(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        use_toy(patch)
        train(short(), folder, resume=True)


def check_training(folder: Path) -> None:
    train_on(folder)
    if not (whole := folder.parent / "whole").exists():
        with pytest.MonkeyPatch.context() as patch:
            use_toy(patch)
            train(short(), whole)
    assert tensors_of(folder) == tensors_of(whole)


def start_training(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        use_toy(patch)
        train(short(steps=1), folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"steps": 1', '"steps": 3'))


def write_index(folder: Path) -> None:
    boxes = np.ones((2, 4), np.float32)
    targets = [AnnotatedTarget(name=n, files=(Path("1"), Path("2")), boxes=boxes, sentences=()) for n in "abc"]
    TargetIndex.build(targets, folder / "0")
    write_text(folder / "data.json", "[]")


def check_index(folder: Path) -> None:
    if (folder / "data.json").exists():
        assert len(TargetIndex(folder / "0")) == 3


WRITERS = {
    "weights": Writer(lambda folder: save_model(folder, 1), lambda folder: save_model(folder, 2), check_model),
    "track": Writer(lambda folder: save_track(folder, 3), lambda folder: save_track(folder, 5), check_track),
    "rows": Writer(lambda folder: None, save_rows, check_rows),
    "results": Writer(lambda folder: None, keep_results, check_results),
    "scores": Writer(
        lambda folder: write_scores(folder, {"auc": 1}),
        lambda folder: write_scores(folder, {"auc": 2}),
        lambda folder: json.loads((folder / "scores.json").read_text())["auc"] in (1, 2) or pytest.fail("scores"),
    ),
    "training": Writer(start_training, train_on, check_training),
    "index": Writer(lambda folder: None, write_index, check_index),
}


def stopped(write: Callable[[Path], object], folder: Path, how: str, k: int) -> int:
    """Write in a child process, which at its ``k``-th operation on a file in ``folder`` is killed (``kill``), or
    from which on the disk is ``full``.

    Returns:
        The exit status: 0 if there are fewer operations, 6 after a ``ResourceError``, 7 if the writer succeeded
        nevertheless, -9 after the kill.
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    count, status = 0, 1

    def operation(*, fills: bool) -> None:
        nonlocal count
        count += 1
        if count >= k and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if count >= k and fills:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    def watch(event: str, given: tuple[Any, ...]) -> None:
        named = given and isinstance(given[0], str | Path) and str(given[0]).startswith(str(folder))
        if named and event == "open" and given[2] & WRITES:
            operation(fills=True)
        elif named and event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"):
            operation(fills=event == "os.mkdir")

    fsync = os.fsync

    def watched(descriptor: int) -> None:
        operation(fills=True)
        fsync(descriptor)

    try:
        sys.addaudithook(watch)
        os.fsync = watched
        write(folder)
        status = 7 if count >= k else 0
    except ResourceError:
        status = 6
    except BaseException:  # noqa: BLE001 - shown, and seen by the parent
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    torch.set_num_threads(1)
    WRITERS[sys.argv[1]].write(Path(sys.argv[2]))

"""Faults of training runs: what is kept, which error, and that a resumed run is the same to the bit."""

from __future__ import annotations

import csv
import errno
import json
import logging
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vltrack
from small_training import Dying, Noise, image_folder, random_sample, short, steps_of, tensors_of, train, use_toy
from vltrack.core.errors import CheckpointCorrupt, ConfigError, DataError, Diverged, ResourceError, StateError
from vltrack.training import checkpoint, launch, loop
from vltrack.training.data import loader, step_samples
from vltrack.training.publish import publish

OPTIONS = {"model": "litetrack", "size": "tiny"}
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
DAMAGES = ["bit", "first bit", "cut", "empty", "missing"]
DAMAGES += ["record cut", "record empty", "record changed", "record missing"]
real_step = loop._Loop._step


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "slow" not in request.keywords:
        use_toy(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        use_toy(patch)
        train(short(), out)
    return out


def break_at(monkeypatch: pytest.MonkeyPatch, step: int, action: Any) -> None:
    """Call ``action`` in place of a step."""

    def stepped(self: Any, wrapped: nn.Module, batches: Any) -> Any:
        if self.state.step == step:
            action()
        return real_step(self, wrapped, batches)

    monkeypatch.setattr(loop._Loop, "_step", stepped)


def raising(error: BaseException) -> Any:
    def action(*given: object, **options: object) -> None:
        raise error

    return action


def resumes(out: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Continue a broken run: it ends with the checkpoint of the whole one."""
    monkeypatch.setattr(loop._Loop, "_step", real_step)
    train(short(), out, resume=True)
    assert tensors_of(out) == tensors_of(whole)


@pytest.mark.fault("T01")
def test_an_exception_in_a_step_ends_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_at(monkeypatch, 2, raising(ZeroDivisionError("in the step")))
    monkeypatch.setattr(launch, "find_sources", lambda given: ())
    monkeypatch.setattr(launch, "configured", lambda options: short())
    with pytest.raises(ZeroDivisionError):
        launch.main_train({**OPTIONS, "data": [], "out": tmp_path / "run", "device": "cpu", "quiet": True})
    assert steps_of(tmp_path / "run") == [1, 2]
    assert not list(tmp_path.glob("run/litetrack*"))
    resumes(tmp_path / "run", whole, monkeypatch)


@pytest.mark.fault("T02")
@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_run_stopped_at_any_step_continues_to_the_bit(
    step: int, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_at(monkeypatch, step, raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        train(short(), tmp_path / "run")
    resumes(tmp_path / "run", whole, monkeypatch)


@pytest.mark.fault("T02", "T03")
@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(3, marks=pytest.mark.timeout(240)),
        pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(3000)]),
    ],
)
def test_runs_killed_at_random_moments_continue_to_the_bit(kills: int, tmp_path: Path) -> None:
    """Every tracker, in the slow form every stage; weights, average, optimizer, counters, log and validation."""
    script, seed = Path(__file__).parent.parent / "training_kills.py", time.time_ns() % 10**6
    cases = ["litetrack", "aitrack", "all-in-one", "bit-tracker", "sa-tracker"] if kills == 3 else []
    words = [sys.executable, script, tmp_path, str(kills), str(seed), *cases]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report) == (len(cases) or 8)
    assert any(max(found["killed_at"]) > 0 for found in report.values()), "all before their first checkpoint"
    for case, found in report.items():
        assert (len(found["killed_at"]), found["differ"]) == (kills, []), f"{case}, seed {seed}: {found}"


@pytest.mark.fault("T03")
@pytest.mark.parametrize("where", ["validate", "write_bytes", "write_checksummed", "unlink"])
def test_a_run_stopped_while_it_saves_or_validates_continues_to_the_bit(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the third checkpoint is written, between it and its record, and before an old one is removed."""
    whole, out, config = tmp_path / "whole", tmp_path / "run", short(steps=4, validate_every=3)
    train(config, whole)
    with monkeypatch.context() as patch:
        owner: Any = {"validate": loop, "unlink": Path}.get(where, checkpoint)
        real = getattr(owner, where)

        def stopped(*given: Any, **options: Any) -> Any:
            if where == "validate" or "step-3" in str(given[0]) or (where == "unlink" and "step-1" in str(given[0])):
                raise KeyboardInterrupt
            return real(*given, **options)

        patch.setattr(owner, where, stopped)
        with pytest.raises(KeyboardInterrupt):
            train(config, out)
    train(config, out, resume=True)
    assert tensors_of(out) == tensors_of(whole)
    assert (out / "validation.csv").read_bytes() == (whole / "validation.csv").read_bytes()
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == (
        [f"The checkpoint of step 3 in {out} is unfinished. The one of step 2 is used; lost: 1 step."]
        if where == "write_checksummed"
        else []
    )


@pytest.mark.fault("T03")
def test_rows_that_a_kill_cut_or_left_behind_are_written_once(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = short(validate_every=1), tmp_path / "run"
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    break_at(monkeypatch, 2, raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        train(config, out)
    for name in ("log.csv", "validation.csv"):
        table = (out / name).read_text()
        assert table.count("\n") == 3
        last = table.splitlines(keepends=True)[-1]
        (out / name).write_text(table + last.replace("2,", "3,", 1) + "4,0.0")
    monkeypatch.setattr(loop._Loop, "_step", real_step)
    train(config, out, resume=True)
    for name in ("log.csv", "validation.csv"):
        with (out / name).open() as file:
            assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    assert tensors_of(out) == tensors_of(whole)


@pytest.mark.fault("T04")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_step_saves_at_its_end(
    number: signal.Signals, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(KeyboardInterrupt):
        pass

    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    before = signal.signal(number, raising(Stopped()))
    try:
        break_at(monkeypatch, 1, lambda: signal.raise_signal(number))
        with pytest.raises(Stopped):
            train(short(save_every=99), tmp_path / "run")
    finally:
        signal.signal(number, before)
    assert steps_of(tmp_path / "run") == [2]
    monkeypatch.setattr(loop._Loop, "_step", real_step)
    train(short(save_every=1), tmp_path / "run", resume=True)
    assert tensors_of(tmp_path / "run") == tensors_of(whole)


@pytest.mark.fault("T04")
def test_a_second_signal_acts_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the step goes on")

    break_at(monkeypatch, 2, twice)
    with pytest.raises(KeyboardInterrupt):
        train(short(), tmp_path / "run")
    assert steps_of(tmp_path / "run") == [1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.fault("T04")
def test_a_stop_during_the_validation_keeps_the_step_and_makes_up_for_the_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = short(steps=3, save_every=9, validate_every=2), tmp_path / "run"
    asked = iter([True])

    def validated(model: Any, device: Any, policy: Any, stopped: Any) -> dict[str, float]:
        if next(asked, False):
            signal.raise_signal(signal.SIGINT)
        return {} if stopped() else {"bbox": 0.5, "nlbbox": 0.5, "nl": 0.5}

    monkeypatch.setattr(loop, "validate", validated)
    with pytest.raises(KeyboardInterrupt):
        train(config, out)
    assert steps_of(out) == [2]
    assert not (out / "validation.csv").exists()
    train(config, out, resume=True)
    assert [line.split(",")[0] for line in (out / "validation.csv").read_text().splitlines()] == ["step", "2", "3"]


@pytest.mark.fault("T04")
def test_a_signal_that_the_program_ignores_stays_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_at(monkeypatch, 1, lambda: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train(short(save_every=9), tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps_of(tmp_path / "run") == [3]


@pytest.mark.fault("T05")
def test_a_run_is_not_overwritten_mixed_or_invented(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(StateError) as refused:
        train(short(), whole)
    assert refused.value.exit_code == 9
    with pytest.raises(StateError, match=r"learning_rate \(0.001, now 0.5\)"):
        train(short(learning_rate=0.5), whole, resume=True)
    with pytest.raises(StateError, match="none"):
        train(short(), tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.fault("T06")
@pytest.mark.parametrize(
    "damage",
    ["bit", "first bit", "cut", "empty", "missing", "record cut", "record empty", "record changed", "record missing"],
)
@pytest.mark.parametrize("every", [1, 2])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    damage: str, every: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, config = tmp_path / "run", short(steps=2 * every, save_every=every)
    train(config, out)
    good = tensors_of(out)
    damaged(out, 2 * every, damage)
    train(config, out, resume=True)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert f"step-{2 * every}." in warning or f"step {2 * every} in {out} is unfinished" in warning
    assert warning.endswith(f"The one of step {every} is used; lost: {every} step{'s' if every > 1 else ''}.")
    assert tensors_of(out) == good
    for step in (2 * every, every):
        damaged(out, step, damage)
    with pytest.raises(CheckpointCorrupt, match=rf"step[- ]{2 * every}\b.*step[- ]{every}\b") as refused:
        train(config, out, resume=True)
    assert refused.value.exit_code == 5
    with pytest.raises(CheckpointCorrupt):
        publish(out, tmp_path / "w.safetensors")


def damaged(out: Path, step: int, how: str) -> None:
    """Damage the file of tensors, or its record."""
    path = out / f"step-{step}{'.json' if 'record' in how else '.safetensors'}"
    data = bytearray(path.read_bytes())
    if "missing" in how:
        path.unlink()
        return
    if "bit" in how:
        data[0 if "first" in how else -1] ^= 1
    elif how == "record changed":
        data = data.replace(b'"skipped": 0', b'"skipped": 1')
    else:
        data = data[: 0 if "empty" in how else len(data) // 2]
    path.write_bytes(data)


@pytest.mark.fault("T06")
def test_a_run_of_an_older_version_is_told(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(short(steps=1), out)
    (out / "step-1.json").rename(out / "last.json")
    with pytest.raises(StateError, match="older version"):
        train(short(steps=1), out, resume=True)
    with pytest.raises(StateError, match="older version"):
        checkpoint.averaged(out)


@pytest.mark.fault("T07")
def test_gradients_that_stay_not_finite_stop_the_run_and_keep_the_good_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = loop.PairObjective.forward, iter(range(99))

    def diverging(self: Any, batch: Any, select: bool) -> dict[str, torch.Tensor]:
        terms: dict[str, torch.Tensor] = forward(self, batch, select)
        return terms | {"total": terms["total"] * (float("nan") if next(calls) >= 3 else 1.0)}

    monkeypatch.setattr(loop.PairObjective, "forward", diverging)
    with pytest.raises(Diverged, match=r"step 6 \(samples 12 to 13\)") as stopped:
        train(short(steps=9), tmp_path / "run")
    assert stopped.value.exit_code == 8
    _, tensors = checkpoint._read(tmp_path / "run", 6)
    # Those of the third step, the last good one
    break_at(monkeypatch, 3, raising(KeyboardInterrupt()))
    calls = iter(range(-99, 0))
    with pytest.raises(KeyboardInterrupt):
        train(short(steps=9), tmp_path / "good")
    _, good = checkpoint._read(tmp_path / "good", 3)
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, good[name])] == []


@pytest.mark.fault("T08")
def test_a_sample_that_is_not_finite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Noise, index: int) -> dict[str, Any]:
        sample = random_sample(self, index)
        sample["box"][1, 0] = np.nan if index == 5 else 0.5
        return sample

    monkeypatch.setattr(Noise, "__getitem__", broken)
    with pytest.raises(DataError, match=r"Sample 5 .*box") as refused:
        train(short(), tmp_path / "run")
    assert refused.value.exit_code == 4
    assert steps_of(tmp_path / "run") == [1, 2]


@pytest.mark.fault("T07")
def test_single_steps_that_are_not_finite_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to three in a row, also where the run is resumed between them; their weights are those before."""
    out, config = tmp_path / "run", short(steps=9)
    norms = [1.0, math.inf, math.nan, -math.inf, 1.0, math.inf, math.nan, -math.inf, 1.0]
    seen: list[bytes] = []

    def norm(parameters: Any, bound: float) -> torch.Tensor:
        seen.append(b"".join(p.detach().numpy().tobytes() for p in parameters))
        if len(seen) == 3:
            signal.raise_signal(signal.SIGINT)
        return torch.tensor(norms[len(seen) - 1])

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", norm)
    with pytest.raises(KeyboardInterrupt):
        train(config, out)
    assert checkpoint.read_checkpoint(out)[0]["skipped"] == 2
    train(config, out, resume=True)
    assert steps_of(out)[-1] == 9
    assert [a == b for a, b in pairwise(seen)] == [not math.isfinite(value) for value in norms[:-1]]


@pytest.mark.fault("T09")
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        full = raising(OSError(errno.ENOSPC, "No space left on device"))
        break_at(patch, 2, lambda: patch.setattr(Path, "write_bytes", full))
        with pytest.raises(ResourceError) as refused:
            train(short(), out)
    assert refused.value.exit_code == 6
    assert steps_of(out) == [1, 2]
    resumes(out, whole, monkeypatch)


@pytest.mark.fault("T09")
def test_room_for_the_checkpoints_is_checked_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: SimpleNamespace(free=2000))
    with pytest.raises(ResourceError, match=r"checkpoints of this run need .* MB free") as refused:
        train(short(), tmp_path / "run")
    assert refused.value.exit_code == 6
    assert not (tmp_path / "run").exists()


@pytest.mark.fault("T09")
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="file"):
        train(short(), tmp_path / "file" / "run")


@pytest.mark.fault("T10")
@pytest.mark.timeout(120)
def test_a_renderer_that_dies_ends_the_run() -> None:
    context = loop.DistributedContext(rank=0, world=1, device=torch.device("cpu"))
    state: Any = SimpleNamespace(model=nn.Linear(1, 1), step=0)
    running = loop._Loop(short(), state, context, Dying(), Path(), 1, None)
    with pytest.raises(ResourceError) as refused:
        next(running._batches())
    assert refused.value.exit_code == 6
    assert "step 0" in refused.value.message


@pytest.mark.fault("T12")
@pytest.mark.parametrize(("batch", "world", "accumulate"), [(16, 2, 1), (16, 4, 2), (12, 1, 3), (6, 3, 2)])
def test_a_step_has_the_same_samples_for_any_number_of_processes_and_parts(
    batch: int, world: int, accumulate: int
) -> None:
    config = short(batch=batch, accumulate=accumulate, steps=5)
    loop._check_batch(config, world)
    drawn: list[list[int]] = [[] for _ in range(5)]
    for rank in range(world):
        batches = loader(
            Dying(), batch=batch, first=2, steps=5, rank=rank, world=world, workers=0, accumulate=accumulate
        ).batch_sampler
        parts = list(batches)
        assert {len(part) for part in parts} == {batch // (world * accumulate)}
        for number, part in enumerate(parts):
            drawn[2 + number // accumulate] += part
    assert [sorted(step) for step in drawn[2:]] == [list(step_samples(step, batch, 0, 1)) for step in range(2, 5)]


@pytest.mark.fault("T12")
@pytest.mark.parametrize(("batch", "world", "accumulate"), [(2, 4, 1), (5, 2, 1), (8, 2, 3)])
def test_a_batch_that_cannot_be_shared_evenly_is_refused(
    batch: int, world: int, accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = loop.DistributedContext(rank=0, world=world, device=torch.device("cpu"))
    monkeypatch.setattr(loop, "join_job", lambda device: context)
    monkeypatch.setattr(loop, "use_threads", lambda count: None)
    named = f"batch {batch} .* {world} processes with train.accumulate {accumulate}"
    with pytest.raises(ConfigError, match=named) as refused:
        train(short(batch=batch, accumulate=accumulate), tmp_path / "run")
    assert refused.value.exit_code == 5
    assert not (tmp_path / "run").exists()


@pytest.mark.fault("T13")
def test_a_second_run_in_the_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    def again() -> None:
        with pytest.raises(StateError) as refused:
            train(short(), tmp_path / "run", resume=True)
        assert f"process {os.getpid()} on {socket.gethostname()}, since 20" in str(refused.value)
        found.append(refused.value.exit_code)
        with pytest.raises(StateError, match="Another process"):  # also without resume, before it touches a file
            vltrack.train("litetrack", data=tmp_path, out=tmp_path / "run")

    break_at(monkeypatch, 1, again)
    train(short(steps=2), tmp_path / "run")
    assert found == [9]
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.fault("T13")
@pytest.mark.parametrize("gone", [".lock", ""])
def test_a_lock_or_folder_that_somebody_removes_ends_the_run(
    gone: str, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    break_at(monkeypatch, 1, (out / gone).unlink if gone else lambda: shutil.rmtree(out))
    with pytest.raises(StateError, match=r"\.lock was removed") as refused:
        train(short(), out)
    assert refused.value.exit_code == 9
    if gone:
        assert steps_of(out) == [1]
        resumes(out, whole, monkeypatch)


@pytest.mark.fault("T13")
def test_the_lock_of_a_killed_process_frees_itself(tmp_path: Path) -> None:
    """Also of one that was killed before its first line: the folder holds nothing but the lock."""
    out = tmp_path / "run"
    code = "import os, pathlib; from vltrack.training.processes import locked\n"
    code += f"with locked(pathlib.Path({str(out)!r})): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert (out / ".lock").exists()
    (out / ".step-1.abc.part.safetensors").write_text("half")
    train(short(steps=1), out, resume=True)
    assert steps_of(out) == [1]
    assert not list(out.glob(".*"))


@pytest.mark.fault("T14")
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cuda:1"):
        train(short(), tmp_path / "run", device="cuda:1")
    assert not (tmp_path / "run").exists()


@pytest.mark.fault("T14")
def test_a_device_without_memory_names_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.PairObjective, "forward", raising(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(ResourceError, match="batch 2 in 1 parts") as refused:
        train(short(), tmp_path / "run")
    assert "--batch" in refused.value.hint
    assert "accumulate" in refused.value.hint


@pytest.mark.fault("T15")
def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(10**6, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    train(short(), tmp_path / "run")
    assert tensors_of(tmp_path / "run") == tensors_of(whole)
    with (tmp_path / "run" / "log.csv").open() as file:
        assert all(np.isfinite(float(row["pairs_per_s"])) for row in csv.DictReader(file))


@pytest.mark.fault("T16")
def test_global_seeds_change_nothing(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.random.seed(5)  # noqa: NPY002
    break_at(monkeypatch, 1, lambda: torch.manual_seed(5))
    train(short(), tmp_path / "run")
    assert tensors_of(tmp_path / "run") == tensors_of(whole)


@pytest.mark.fault("T16")
def test_every_part_of_every_step_and_process_has_random_numbers_of_its_own() -> None:
    drawn = []
    for numbers in (*product((7,), range(3), range(3), range(3)), (7, 0, 0, 0)):
        loop.seed_all(*numbers)
        drawn.append((float(torch.rand(())), np.random.random(), random.random()))  # noqa: NPY002
    assert drawn[0] == drawn[-1]
    assert all(len(set(column)) == 27 for column in zip(*drawn, strict=True))


@pytest.mark.fault("T17")
def test_paths_with_shell_characters_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "a; touch x $(touch y) `touch z` & 'b\"" / "run"
    train(short(steps=1), out)
    assert tensors_of(out)
    assert [path.name for path in tmp_path.iterdir()] == [out.parent.name]


@pytest.mark.fault("T18")
def test_a_log_that_cannot_be_written_is_one_warning(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    out = tmp_path / "run"
    (out / "log.csv").mkdir(parents=True)
    with caplog.at_level(logging.WARNING, logger="vltrack"):
        train(short(), out)
    assert tensors_of(out) == tensors_of(whole)
    assert [record.getMessage().count("log.csv") for record in caplog.records] == [1]


@pytest.mark.fault("T20")
def test_memory_and_open_files_do_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []

    def measured(*given: object) -> dict[str, float]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        sizes.append((pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))))
        return {}

    monkeypatch.setattr(loop, "validate", measured)
    train(short(steps=500, save_every=50, validate_every=100), tmp_path / "run")
    memory, files = zip(*sizes, strict=True)
    assert memory[-1] - memory[0] < 4 << 20
    assert len(set(files)) == 1

"""Faults E01-E09, E12, E14, E16 and D10: running trackers over sequences."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import stub_runs
from stub_runs import LOADER, LOG, PAUSE, Painted, Painting, drawn, ended, painting, stub_weights, tree, visible_in
from vltrack.core.errors import DataError, ResourceError, StateError
from vltrack.evaluation import writing
from vltrack.evaluation.plan import Plan, make_plan
from vltrack.evaluation.results import check_names, file_of, read_boxes, read_results, read_scores, verify
from vltrack.evaluation.run import ProgressEvent, RunReport, run
from vltrack.evaluation.workers import Timeouts

QUICK = Timeouts(start=60, first=3, next=3)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_weights(tmp_path_factory.mktemp("stub"))


@pytest.fixture
def planned(weights: Path, tmp_path: Path):
    """Makes a plan in this test's folder."""

    def make(data: Painting | None = None, modes=("nlbbox",), out="out", **options) -> Plan:
        return make_plan(data or painting(), weights, modes, tmp_path / out, loader=LOADER, **options)

    return make


@pytest.fixture(scope="session")
def complete(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of ``painting()``."""
    plan = make_plan(painting(), weights, ("nlbbox",), tmp_path_factory.mktemp("whole"), loader=LOADER)
    assert run(plan, jobs=2).exit_code == 0
    return plan.folders["nlbbox"]


def names(report: RunReport) -> list[str]:
    return sorted(name for _, name in report.finished)


def copied(folder: Path, to: Path) -> Path:
    """A copy of a result folder at ``to`` (as ``whole`` is shared by the tests)."""
    return Path(shutil.copytree(folder, to))


# -- E01, E02: a sequence goes wrong ---------------------------------------------------------------


@pytest.mark.fault("E01")
def test_a_sequence_that_raises_does_not_stop_the_others(planned, complete: Path) -> None:
    report = run(planned(painting(orders={2: "raise at 4"})), jobs=2)
    assert report.exit_code == 7
    assert names(report) == ["a00", "a01", "a03", "a04", "a05"]
    (failure,) = report.failed
    assert (failure.name, failure.kind, failure.error, failure.frame) == ("a02", "raised", "RuntimeError", 4)
    assert "ordered to raise" in failure.message
    assert "in obey" in failure.traceback
    stored = read_results(report.folders["nlbbox"])
    assert not stored.complete
    assert "a02" not in stored.names
    assert stored.failures["a02"]["traceback"] == failure.traceback
    # What failed is tried again.
    again = run(planned(painting(orders={2: "raise at 4"})))
    assert (names(again), [f.name for f in again.failed]) == ([], ["a02"])


@pytest.mark.fault("E01")
def test_a_failure_is_forgotten_when_the_sequence_succeeds(planned, monkeypatch, complete: Path) -> None:
    plan = planned()
    real = writing.read_boxes
    monkeypatch.setattr(writing, "read_boxes", lambda *a: (_ for _ in ()).throw(DataError("broken")))
    assert {f.kind for f in run(plan).failed} == {"invalid"}
    monkeypatch.setattr(writing, "read_boxes", real)
    assert run(plan, jobs=2).exit_code == 0
    assert tree(plan.folders["nlbbox"]) == tree(complete)


@pytest.mark.fault("E02")
def test_workers_that_hang_or_die_are_replaced(planned) -> None:
    orders = ["hang at 2", "stop at 0", "kill at 2", "segfault at 0", "leave at 1"]
    report = run(planned(painting(7, orders=dict(enumerate(orders)))), jobs=2, timeouts=QUICK)
    assert report.exit_code == 7
    assert names(report) == ["a05", "a06"]
    failed = {f.name: (f.kind, f.exit_signal, f.frame) for f in report.failed}
    assert failed == {
        "a00": ("silent", "", 2),
        "a01": ("silent", "", 0),
        "a02": ("died", "SIGKILL", 2),
        "a03": ("died", "SIGSEGV", 0),
        "a04": ("died", "", 1),
    }
    assert len(list((report.folders["nlbbox"] / "boxes").iterdir())) == 2


@pytest.mark.fault("E02")
def test_a_tracker_that_cannot_be_loaded_stops_the_run(planned) -> None:
    plan = planned(painting(2))
    broken = replace(plan, spec=replace(plan.spec, loader="vltrack.evaluation.workers:load_tracker"))
    from vltrack.core.errors import CheckpointCorrupt

    weights = Path(plan.spec.weights)
    whole = weights.read_bytes()
    weights.write_bytes(b"no tensors")
    with pytest.raises(CheckpointCorrupt, match=r"stub\.safetensors"):
        run(broken)
    weights.write_bytes(whole)
    dying = replace(plan, spec=replace(plan.spec, loader="no_such_module:load"))
    with pytest.raises(ResourceError, match="3 worker processes in a row"):
        run(dying)


# -- E03: killed at any point ----------------------------------------------------------------------


def start(out: Path, weights: Path | str, log: Path, *, jobs: int = 2, count: int = 6, pause: float = 0.01):
    """Start an evaluation in a process group of its own."""
    tests = Path(stub_runs.__file__).parent
    environment = os.environ | {LOG: str(log), PAUSE: str(pause)}
    command = [sys.executable, str(tests / "stub_runs.py"), str(out), str(weights), str(jobs), str(count)]
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """Process numbers of the workers, without the resource tracker."""
    try:
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [int(c) for c in found if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
    except FileNotFoundError:
        return []


def finished_now(out: Path) -> dict[str, tuple[int, int]]:
    """The records of finished sequences; a rewritten record is another file."""
    found = sorted(path for path in out.rglob("done/*.json") if path.name[0] != ".")
    return {str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def kill_once(process: subprocess.Popen[bytes], log: Path, chance: random.Random) -> None:
    """Wait until a sequence has begun, then kill a worker now and then, and finally all of them."""
    deadline = time.monotonic() + 60
    while not log.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.3))
    workers = children(process)
    if chance.random() < 0.4 and workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)
        time.sleep(chance.uniform(0, 0.1))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def killed_until_done(out: Path, weights: Path | str, log: Path, kills: int, seed: int, count: int = 6) -> int:
    """Kill an evaluation up to ``kills`` times, then let it end; return how often it was killed."""
    chance = random.Random(seed)
    for met in range(kills + 1):
        before = finished_now(out)
        log.unlink(missing_ok=True)
        if met == kills or len(before) == 2 * count:
            assert start(out, weights, log, count=count, pause=0).wait() == 0
        else:
            kill_once(start(out, weights, log, count=count), log, chance)
        after = finished_now(out)
        assert before.items() <= after.items()
        if isinstance(weights, Path):
            assert_not_again(log, set(before))
        if len(before) == 2 * count:
            break
    assert len(after) == 2 * count
    return met


def assert_not_again(log: Path, done: set[str]) -> None:
    """No finished sequence was started again: the stub logs every start, by box or text."""
    for line in log.read_text().splitlines() if log.exists() else []:
        number = int(line[1:3]) if line.startswith("a") else int(float(line[1:].split(",")[0])) - 10
        mode = "nlbbox" if line.startswith("a") else "bbox"
        assert f"stub/painted_{mode}/done/a{number:02d}.json" not in done


@pytest.mark.fault("E03")
@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.timeout(300)
def test_killed_at_random_moments_the_results_are_the_same(kills: int, weights: Path, tmp_path: Path) -> None:
    smooth, log = tmp_path / "smooth", tmp_path / "log"
    assert start(smooth, weights, tmp_path / "other", pause=0).wait() == 0
    met = seed = 0
    while met < kills:  # a finished run cannot be killed: go on with an empty folder
        out = tmp_path / f"killed-{seed}"
        met += killed_until_done(out, weights, log, min(4, kills - met), seed)
        assert tree(out) == tree(smooth)
        seed += 1


@pytest.mark.slow
@pytest.mark.fault("E03")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["litetrack", "aitrack", "all-in-one", "bit-tracker", "sa-tracker"])
def test_the_shipped_trackers_survive_kills(name: str, tmp_path: Path) -> None:
    drawn(tmp_path / "clips", 3, 6)
    smooth, log = tmp_path / "smooth", tmp_path / "log"
    assert start(smooth, name, log, count=3).wait() == 0
    assert killed_until_done(tmp_path / "killed", name, log, 4, seed=len(name), count=3) > 1
    assert tree(tmp_path / "killed") == tree(smooth)


@pytest.mark.fault("E03")
def test_workers_end_with_the_process_that_started_them(weights: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(tmp_path / "out", weights, log, pause=0.05)
    while not log.exists():
        assert process.poll() is None
        time.sleep(0.01)
    workers = children(process)
    assert workers
    process.kill()  # only this one: the workers have to notice
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.fault("E03")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_keeps_finished_sequences(number, code: int, weights: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    process = start(out, weights, log, pause=0.02)
    while not finished_now(out):
        assert process.poll() is None
        time.sleep(0.01)
    workers = children(process)
    os.killpg(process.pid, number)  # to all of them, as a terminal does
    assert process.wait(20) == code
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    for folder in (out / "stub").iterdir():
        assert not (folder / "claims").exists()
        assert [f for f in verify(folder) if "no record" not in f.message] == []
    done = set(finished_now(out))
    assert done
    log.unlink()
    assert start(out, weights, log, pause=0).wait() == 0
    assert_not_again(log, done)


# -- E04, E07: changed files ---------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.fault("E04")
@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("boxes", cut),
        ("scores", lambda path: path.write_bytes(b"")),
        ("times", cut),
        ("done", Path.unlink),
        ("done", flip),
        ("boxes", Path.unlink),
    ],
)
def test_a_partial_result_is_redone_and_nothing_else(planned, complete: Path, kind: str, damage) -> None:
    plan = planned()
    folder = copied(complete, plan.folders["nlbbox"])
    damage(file_of(folder, kind, "a03"))
    report = run(plan)
    assert names(report) == ["a03"]
    assert len(report.skipped) == 5
    assert tree(folder) == tree(complete)
    assert verify(folder) == []


@pytest.mark.fault("E03")
def test_a_failure_next_to_a_result_of_a_killed_run_is_removed(planned, complete: Path) -> None:
    """The run was killed between writing the record and removing the old failure."""
    plan = planned()
    folder = copied(complete, plan.folders["nlbbox"])
    (folder / "failures").mkdir(exist_ok=True)
    (folder / "failures" / "a01.json").write_text("{}")
    assert run(plan).finished == ()
    assert tree(folder) == tree(complete)


@pytest.mark.fault("E07")
def test_verify_finds_every_changed_bit(complete: Path, tmp_path: Path) -> None:
    folder = copied(complete, tmp_path / "results")
    assert verify(folder) == []
    chance = random.Random(5)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "run.json"]
    for path in files:
        data = path.read_bytes()
        for _ in range(6):
            changed = bytearray(data)
            changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(bytes(changed))
            assert {f.name for f in verify(folder)} == {path.stem}, path
        path.write_bytes(data)
    flip(folder / "run.json")
    with pytest.raises(StateError, match=r"run\.json"):
        verify(folder)


@pytest.mark.fault("E07")
def test_changed_results_are_not_read(complete: Path, tmp_path: Path) -> None:
    folder = copied(complete, tmp_path / "results")
    boxes = file_of(folder, "boxes", "a01")
    boxes.write_text(boxes.read_text().replace("8.0", "9.0"))
    stray = folder / "boxes" / "b77.txt"
    stray.write_text("1,2,3,4\n")
    assert {f.path for f in verify(folder)} == {boxes, stray}
    stored = read_results(folder)
    with pytest.raises(StateError, match="changed after it was written"):
        stored.boxes("a01")
    assert stored.boxes("a00").shape == (3, 4)


# -- E05: another run's results --------------------------------------------------------------------


@pytest.mark.fault("E05")
def test_results_of_another_run_are_not_mixed(planned, weights: Path, tmp_path: Path) -> None:
    plan = planned(painting(2))
    run(plan)
    before = tree(tmp_path / "out")
    with pytest.raises(StateError, match=r"policy\.window: 0\.25, now 0\.5") as caught:
        run(planned(painting(2), policy={"window": 0.5}))
    assert "--rerun" in caught.value.hint
    assert caught.value.exit_code == 9
    moved = painting(2)
    moved.sequences[0].boxes[1] += 1
    with pytest.raises(StateError, match=r"data\.sha256"):
        run(planned(moved))
    with pytest.raises(StateError, match="sentence"):
        run(planned(painting(2), missing_sentence="box"))
    other = planned(painting(2))
    fingerprint = other.modes[0].run["fingerprint"]
    for part in ("code", "versions", "device", "threads"):
        changed = {**other.modes[0].run, "fingerprint": {**fingerprint, part: "other"}}
        with pytest.raises(StateError, match=part):
            run(replace(other, modes=(replace(other.modes[0], run=changed),)))
    assert tree(tmp_path / "out") == before


@pytest.mark.fault("E05")
def test_rerun_starts_over(planned, tmp_path: Path) -> None:
    run(planned(painting(3), modes=("nl", "bbox")))
    kept = tree(tmp_path / "out" / "stub" / "painted_bbox")
    report = run(planned(painting(2), modes=("nl",), policy={"window": 0.5}), rerun=True)
    assert names(report) == ["a00", "a01"]
    stored = read_results(report.folders["nl"])
    assert stored.fingerprint["policy"]["window"] == 0.5
    assert verify(report.folders["nl"]) == []
    assert tree(tmp_path / "out" / "stub" / "painted_bbox") == kept


@pytest.mark.fault("E05")
def test_foreign_files_are_not_taken_over(planned) -> None:
    plan = planned(painting(2))
    folder = plan.folders["nlbbox"]
    (folder / "boxes").mkdir(parents=True)
    (folder / "boxes" / "a00.txt").write_text("1,2,3,4\n")
    with pytest.raises(StateError, match=r"without run\.json"):
        run(plan)
    assert (folder / "boxes" / "a00.txt").read_text() == "1,2,3,4\n"


# -- E06: two at once ------------------------------------------------------------------------------


@pytest.mark.fault("E06")
def test_two_evaluators_share_the_work(weights: Path, tmp_path: Path) -> None:
    log, out, alone = tmp_path / "log", tmp_path / "out", tmp_path / "alone"
    both = [start(out, weights, log, jobs=1, pause=0.02) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    started = Counter(log.read_text().splitlines())
    assert len(started) == 12
    assert set(started.values()) == {1}
    assert start(alone, weights, tmp_path / "other", pause=0).wait() == 0
    assert tree(out) == tree(alone)


@pytest.mark.fault("E06")
def test_the_sequences_of_a_killed_evaluator_are_taken_over(weights: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    first = start(out, weights, log, jobs=1, pause=0.1)
    while not log.exists():
        time.sleep(0.01)
    second = start(out, weights, tmp_path / "log2", jobs=1, pause=0)
    time.sleep(0.5)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert second.wait(60) == 0
    assert len(finished_now(out)) == 12
    assert not list(out.rglob("claims"))


@pytest.mark.fault("S06")
def test_workers_end_with_their_parent(weights: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(tmp_path / "out", weights, log, jobs=2, pause=30)
    while not log.exists():
        time.sleep(0.01)
    workers = children(process)
    assert len(workers) == 2
    process.kill()
    process.wait()
    assert all(map(ended, workers))


@pytest.mark.fault("E06")
def test_no_rerun_while_another_is_at_work(planned) -> None:
    plan = planned(painting(2))
    part = plan.modes[0]
    with writing.open_writer(part.folder, part.run, rerun=False) as writer:
        lock = writer.lock("a00")
        assert lock is not None
        assert writer.lock("a00") is None
        with pytest.raises(StateError, match="at work"):
            run(plan, rerun=True)
        writing.release(lock)
        again = writer.lock("a00")
        assert again is not None
        writing.release(again)
    assert run(plan, rerun=True).exit_code == 0


@pytest.mark.fault("E06")
@pytest.mark.parametrize("gone", ["", "claims", "claims/.evaluator*"])
def test_locks_that_somebody_removes_end_the_run(planned, complete: Path, gone: str) -> None:
    plan = planned()
    folder = plan.folders["nlbbox"]

    def remove(event: ProgressEvent) -> None:
        if event.sequences_done == 2 and event.kind == "finished":
            for path in folder.glob(gone) if gone else [folder]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    with pytest.raises(ResourceError, match=r"\.lock was removed") as caught:
        run(plan, progress=remove)
    assert caught.value.exit_code == 6
    assert folder.exists() == bool(gone)
    assert len(run(plan).skipped) == (2 if gone else 0)
    assert tree(folder) == tree(complete)


@pytest.mark.fault("E16")
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which root may not create files")
@pytest.mark.timeout(30)
def test_a_place_that_cannot_be_written_is_refused_at_once(planned) -> None:
    with pytest.raises(ResourceError, match="/proc/x") as caught:
        run(planned(out="/proc/x/y"))
    assert caught.value.exit_code == 6


# -- E08, E09: numbers -----------------------------------------------------------------------------


@pytest.mark.fault("E08")
@pytest.mark.parametrize("order", ["nan at 1", "negative at 2", "flat at 0", "endless at 2", "overdo at 1"])
def test_a_row_that_is_not_a_box_is_never_written(planned, order: str) -> None:
    # In NL mode: with a box, row 1 is the given one.
    report = run(planned(painting(2, orders={1: order}), modes=("nl",)))
    assert report.exit_code == 7
    (failure,) = report.failed
    assert (failure.name, failure.kind) == ("a01", "invalid")
    assert f"a01:{int(order[-1]) + 1}:" in failure.message
    folder = report.folders["nl"]
    assert not file_of(folder, "boxes", "a01").exists()
    assert verify(folder) == []


@pytest.mark.fault("E08")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"1,2,3,4\nnan,2,3,4\n", 2),
        (b"1,2,3,4\n1,2,3\n", 2),
        (b"1,2,x,4\n1,2,3,4\n", 1),
        (b"1,2,3,4\n1,2,-3,4\n", 2),
        (b"1,2,3,4\n1,2,3,inf\n", 2),
        (b"1,2,3,4\n\n", 2),
    ],
)
def test_a_bad_row_is_named(text: bytes, line: int) -> None:
    with pytest.raises(DataError, match=rf"f\.txt:{line}\b"):
        read_boxes(text, Path("f.txt"), 2)
    with pytest.raises(DataError, match="2 lines for 3"):
        read_boxes(text, Path("f.txt"), 3)
    with pytest.raises(DataError, match=r"s.txt:2: "):
        read_scores(b"0.5,1\n1.5,1\n", Path("s.txt"), 2)


@pytest.mark.fault("E08")
@pytest.mark.parametrize("promised", [2, 4])
def test_a_wrong_number_of_frames_is_a_failure(planned, promised: int) -> None:
    report = run(planned(painting(1, promised=promised)))
    (failure,) = report.failed
    assert failure.message == f"a00 has {promised} frames, 3 were read."
    assert read_results(report.folders["nlbbox"]).names == ()


@pytest.mark.fault("E09")
def test_numbers_read_back_as_the_same(planned) -> None:
    plan = planned(painting(1))
    part = plan.modes[0]
    rng = np.random.default_rng(3)
    boxes = np.abs(rng.normal(size=(3, 4)) * 10.0 ** rng.integers(-12, 12, (3, 4))) + 1e-300
    boxes[:, 0] *= -1
    scores = rng.random(3)
    rows = [(*map(float, b), float(s), s > 0.5, "ok", 1 / 3) for b, s in zip(boxes, scores, strict=True)]
    with writing.open_writer(part.folder, part.run, rerun=False) as writer:
        writer.keep(part.tasks[0], rows)
    stored = read_results(part.folder)
    assert stored.boxes("a00").dtype == np.float64
    assert (stored.boxes("a00") == boxes).all()
    assert (stored.scores("a00") == scores).all()
    assert (visible_in(part.folder, "a00") == (scores > 0.5)).all()
    assert stored.seconds("a00").tolist() == [1 / 3] * 3


# -- E12: edge cases ----------------------------------------------------------------------------------


@pytest.mark.fault("E12")
def test_one_frame_and_all_absent(planned) -> None:
    one = Painted(name="one", boxes=np.array([[5.0, 6, 7, 8]]), absent=np.zeros(1, bool), sentence="one")
    gone = Painted(name="gone", boxes=np.zeros((4, 4)), absent=np.ones(4, bool), sentence="gone")
    with pytest.raises(DataError, match="in frame 1 of gone") as caught:
        planned(Painting(sequences=(one, gone)), modes=("bbox",))
    assert caught.value.exit_code == 4
    report = run(planned(Painting(sequences=(one, gone)), modes=("nl",)))
    assert report.exit_code == 0
    stored = read_results(report.folders["nl"])
    assert [len(stored.boxes(name)) for name in ("one", "gone")] == [1, 4]
    with pytest.raises(DataError, match="No sequences in painted"):
        planned(Painting(sequences=()))


# -- E14: any number of workers --------------------------------------------------------------------


@pytest.mark.fault("E14")
@pytest.mark.parametrize("jobs", [1, 4])
def test_the_number_of_workers_and_the_order_do_not_matter(planned, complete: Path, jobs: int) -> None:
    plan = planned()
    part = plan.modes[0]
    shuffled = tuple(random.Random(jobs).sample(part.tasks, len(part.tasks)))
    run(replace(plan, modes=(replace(part, tasks=shuffled),)), jobs=jobs)
    assert tree(plan.folders["nlbbox"]) == tree(complete)


# -- E16: the disk is full -------------------------------------------------------------------------


@pytest.mark.fault("E16")
@pytest.mark.parametrize("call", [7, 12, 13])
def test_a_full_disk_keeps_finished_sequences(planned, monkeypatch, complete: Path, call: int) -> None:
    plan = planned()
    real, calls = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ResourceError, match="the disk is full") as caught:
        run(plan)
    assert caught.value.exit_code == 6
    monkeypatch.undo()
    folder = plan.folders["nlbbox"]
    kept = read_results(folder).names
    report = run(plan)
    assert len(report.skipped) == len(kept)
    assert tree(folder) == tree(complete)


# -- D10: names become paths -----------------------------------------------------------------------


@pytest.mark.fault("D10")
@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", ".hidden", "a:b", "a\nb", "x" * 300, " a", "a."])
def test_a_name_that_cannot_be_a_file_name_is_refused(name: str, planned) -> None:
    data = painting(2)
    with pytest.raises(DataError, match="1 of 2 names"):
        planned(Painting(sequences=(data.sequences[0], replace(data.sequences[1], name=name))))
    with pytest.raises(DataError):
        check_names([name])
    with pytest.raises(DataError, match="one file on some systems"):
        check_names(["Car-1", "car-1"])


def test_the_records_are_plain_json(complete: Path) -> None:
    record = json.loads((complete / "done" / "a02.json").read_text())
    assert record["rows"] == 7
    assert record["statuses"] == {"ok": 7, "lost": 0, "missing": 0, "invalid": 0}
    assert record["named"] == "both"

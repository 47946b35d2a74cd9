"""Runs on a Ray cluster of two machines, which are processes here. Needs the extra ``ray``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import stub_runs
from stub_runs import LOADER, LOG, drawn, painting, stub_weights, tree
from vltrack.api.inputs import demo_clip
from vltrack.api.many import track_many
from vltrack.core.errors import PartialResult, UsageError
from vltrack.evaluation import workers_ray
from vltrack.evaluation.plan import code_sha256, make_plan, versions
from vltrack.evaluation.run import run
from vltrack.evaluation.workers import OUR_LOADER, Timeouts

WITHOUT = find_spec("ray") is None
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]
needs_ray = pytest.mark.skipif(WITHOUT, reason='Ray is not installed (pip install "vltrack[ray]")')


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes with one processor each; this process is connected to them."""
    import ray
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("ray")
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(stub_runs.__file__).parent), *sys.path[1:]])
    os.environ[LOG] = str(folder / "log")
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    memory = {"num_cpus": 1, "object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args=memory)
    made.add_node(**memory)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.cluster
@needs_ray
def test_results_equal_those_of_the_local_engine_byte_for_byte(cluster, tmp_path: Path) -> None:
    weights = stub_weights(tmp_path)
    local = make_plan(painting(), weights, ("nl", "nlbbox"), tmp_path / "local", loader=LOADER)
    spread = make_plan(painting(), weights, ("nl", "nlbbox"), tmp_path / "spread", loader=LOADER)
    assert run(local, jobs=2).exit_code == 0
    events = []
    report = run(spread, jobs=0, engine="ray", progress=events.append)
    assert report.exit_code == 0
    assert len(report.finished) == 12
    assert events[-1].frames_done == events[-1].frames_total == spread.frames
    assert tree(tmp_path / "local") == tree(tmp_path / "spread")
    assert run(spread, engine="ray").finished == ()


@pytest.mark.cluster
@needs_ray
def test_a_shipped_tracker_gives_the_same_on_the_cluster(cluster, tmp_path: Path) -> None:
    data = drawn(tmp_path / "clips", 2, 4)
    local = make_plan(data, "litetrack-tiny", ("nlbbox",), tmp_path / "local")
    spread = make_plan(data, "litetrack-tiny", ("nlbbox",), tmp_path / "spread")
    assert run(local).exit_code == run(spread, jobs=2, engine="ray").exit_code == 0
    assert tree(tmp_path / "local") == tree(tmp_path / "spread")


@pytest.mark.cluster
@needs_ray
def test_many_videos_are_tracked_on_the_cluster(cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        shutil.copy(demo_clip()[0], f"{name}.mp4")
    Path("bad.mp4").write_bytes(b"nothing that is a video")
    names, options = ["bad.mp4", "one.mp4", "two.mp4"], {"box": (313, 88, 342, 194), "end": 4}
    for engine in ("local", "ray"):
        with pytest.raises(PartialResult) as caught:
            track_many(names, outputs=[engine, engine + "/{name}.mp4"], engine=engine, **options)
        assert {name: one.error is None for name, one in caught.value.result.items()} == {
            "bad.mp4": False, "one.mp4": True, "two.mp4": True,
        }  # fmt: skip
    assert tree(tmp_path / "local") == tree(tmp_path / "ray")


@pytest.mark.cluster
@needs_ray
def test_failures_on_the_cluster_are_recorded(cluster, tmp_path: Path) -> None:
    log = Path(os.environ[LOG])
    log.unlink(missing_ok=True)
    data = painting(4, orders={0: "raise at 1", 1: "kill at 2", 2: "hang at 1"})
    plan = make_plan(data, stub_weights(tmp_path), ("nl",), tmp_path / "out", loader=LOADER)
    report = run(plan, jobs=2, engine="ray", timeouts=Timeouts(first=3, next=3))
    assert report.exit_code == 7
    assert [name for _, name in report.finished] == ["a03"]
    failures = {failure.name: failure for failure in report.failed}
    assert {name: failure.kind for name, failure in failures.items()} == {"a00": "raised", "a01": "died", "a02": "died"}
    assert "in obey" in failures["a00"].traceback
    begun = log.read_text().splitlines()
    assert begun.count("a00 raise at 1") == 1
    assert begun.count("a01 kill at 2") == 2  # a crashed one is tried once more


@pytest.mark.cluster
@needs_ray
def test_a_sequence_is_tried_again_when_its_machine_dies(cluster, tmp_path: Path, monkeypatch) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=80_000_000, env_vars={stub_runs.PAUSE: "0.5"})
    cluster.wait_for_nodes()
    gone = []

    def watch(event: Any) -> None:
        if event.kind == "finished" and not gone:
            gone.append(cluster.remove_node(node, allow_graceful=False))

    plan = make_plan(painting(6), stub_weights(tmp_path), ("nl",), tmp_path / "out", loader=LOADER)
    report = run(plan, jobs=3, engine="ray", progress=watch)
    assert gone
    assert report.exit_code == 0
    assert len(report.finished) == 6


@pytest.mark.skipif(not WITHOUT, reason="Ray is installed")
def test_without_ray_the_command_to_install_it_is_shown(tmp_path: Path) -> None:
    plan = make_plan(painting(1), stub_weights(tmp_path), ("nl",), tmp_path / "out", loader=LOADER)
    with pytest.raises(UsageError, match="not installed") as caught:
        run(plan, engine="ray")
    assert caught.value.hint == 'pip install "vltrack[ray]"'
    assert not (tmp_path / "out").exists()


def test_the_function_that_runs_on_the_cluster(tmp_path: Path) -> None:
    """Called here, because it needs no Ray."""
    here = {"code": code_sha256(), "versions": dict(versions())}
    plan = make_plan(painting(2, {1: "raise at 2"}), stub_weights(tmp_path), ("nl",), tmp_path, loader=LOADER)
    good, bad = plan.modes[0].tasks
    kind, rows = workers_ray._run_task(plan.spec, good, Timeouts(), here)
    assert (kind, len(rows)) == ("done", 3)
    kind, code, message, rows, trace = workers_ray._run_task(plan.spec, bad, Timeouts(), here)
    assert (kind, code, len(rows)) == ("failed", "RuntimeError", 2)
    assert "ordered to raise" in message
    assert "in obey" in trace
    other = {**here, "versions": {**here["versions"], "torch": "1.0"}}
    kind, code, message, _ = workers_ray._run_task(plan.spec, good, Timeouts(), other)
    assert (kind, code) == ("refused", "StateError")
    assert "versions.torch: 1.0, now" in message
    wrong = replace(plan.spec, loader=OUR_LOADER, weights=str(tmp_path / "none.safetensors"))
    assert workers_ray._run_task(wrong, good, Timeouts(), here)[:2] == ("refused", "ModelNotFound")

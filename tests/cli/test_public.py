"""The public names of ``vltrack``: their examples run, and the command gives what the functions give."""

from __future__ import annotations

import doctest
import inspect
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vltrack
from report_cases import scores, spread
from small_training import image_folder, use_noise
from vltrack.api.inputs import demo_clip
from vltrack.core.errors import UsageError
from vltrack.datasets.catalogue import write_miniature
from vltrack.datasets.reader import open_dataset
from vltrack.training import loop
from vltrack.training.data import loader

BOX = (313, 88, 342, 194)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the files that the examples name."""
    root = tmp_path_factory.mktemp("work")
    shutil.copy(demo_clip()[0], root / "clip.mp4")
    step = vltrack.Step(box=np.array([12, 4, 6, 8.0]), score=0.9, visible=True, index=0, seconds=0.0)
    rows = [replace(step, index=n, seconds=n / 25) for n in range(3)]
    vltrack.Track.from_steps(rows, {"source": "clip.mp4"}).save(root / "boxes.csv")
    (root / "images").mkdir()
    image_folder(root / "images")
    data = write_miniature("tnl2k", root / "data" / "tnl2k")
    (root / "results" / "tnl2k").mkdir(parents=True)
    for sequence in open_dataset(data).sequences:
        file = root / "results" / "tnl2k" / f"{sequence.name}.txt"
        np.savetxt(file, sequence.boxes + np.array([2.0, 0, 0, 0]), fmt="%.3f", delimiter=",")
    for name, mean in (("a", 50), ("b", 40)):
        (root / name).mkdir()
        (root / name / "scores.json").write_text(json.dumps(scores(name, spread(mean))))
    return root


@pytest.fixture
def work(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh working folder with links to the prepared files; training takes no time."""
    for path in prepared.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    use_noise(monkeypatch)
    in_process = {"workers": 0}
    monkeypatch.setattr(loop, "loader", lambda data, **options: loader(data, **options | in_process))
    return tmp_path


def test_the_stable_interface() -> None:
    assert sorted(vltrack.__all__) == vltrack.__all__ == [
        "Candidate", "Frame", "Mark", "MultiTracker", "Policy", "Step", "Target", "Track", "Tracker", "VltrackError",
        "ablate", "audit", "compare", "convert", "correct", "evaluate", "export_model", "find", "import_weights",
        "init_weights", "load", "open_source", "read_tracks", "report", "review", "track", "track_many", "train",
        "tune", "write_tracks",
    ]  # fmt: skip
    assert set(vltrack.__all__) | {"__version__"} == set(dir(vltrack))
    with pytest.raises(AttributeError, match="trakc"):
        _ = vltrack.trakc  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", vltrack.__all__)
def test_the_example_of_every_public_name_runs(name: str, work: Path) -> None:
    examples = doctest.DocTestFinder(recurse=False).find(getattr(vltrack, name), name, globs={})
    assert any(one.examples for one in examples), f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report: list[str] = []
    for one in examples:
        runner.run(one, out=report.append)
    assert runner.failures == 0, "".join(report)


@pytest.mark.parametrize(
    "name",
    [
        "audit",
        "compare",
        "convert",
        "correct",
        "evaluate",
        "export_model",
        "find",
        "import_weights",
        "init_weights",
        "read_tracks",
        "report",
        "review",
        "track",
        "track_many",
        "train",
        "write_tracks",
    ],
)
def test_every_argument_is_typed_and_described(name: str) -> None:
    verb = getattr(vltrack, name)
    text = inspect.getdoc(verb) or ""
    for parameter in inspect.signature(verb).parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.name in text, parameter.name
    assert "Raises:" in text


def without_speed(summary: dict[str, Any]) -> dict[str, Any]:
    for one in summary["trackers"].values():
        assert one.pop("frames_per_second") > 0
    return summary


def test_track(command: Callable[..., Any], work: Path) -> None:
    track = vltrack.track("clip.mp4", box=BOX, text="the silver car", end=3)
    words = ("track", "clip.mp4", "--box", "313,88,342,194", "--text", "the silver car", "--end", "3")
    done = command(*words, "--json")
    assert [json.loads(line) for line in done.out.splitlines()] == list(track.rows())
    track.save("function.csv")
    assert command(*words, "-o", "command.csv").code == 0
    assert Path("command.csv").read_bytes() == Path("function.csv").read_bytes()
    several = vltrack.track("clip.mp4", targets={"a": vltrack.Target(box=BOX)}, end=2)
    assert [len(one) for one in several.values()] == [2]


def test_compare(command: Callable[..., Any], work: Path) -> None:
    models = ["litetrack-tiny", "sa-tracker-tiny"]
    found = vltrack.compare("clip.mp4", box=BOX, models=models, end=2, out="function", video=False)
    words = ("compare", "clip.mp4", "--box", "313,88,342,194", "--end", "2", "--out", "command")
    done = command(*words, "--no-video", "--json", "--models", *models)
    summary = without_speed(done.json)
    assert summary["outputs"] == [str(Path("command") / path.name) for path in found.files]
    assert summary | {"outputs": []} == without_speed(found.to_dict()) | {"outputs": []}
    for path in found.files:
        assert path.read_bytes() == Path("command", path.name).read_bytes()
    assert [row["tracker"] for row in found.rows()] == models


def test_evaluate(command: Callable[..., Any], work: Path) -> None:
    found = vltrack.evaluate("results/tnl2k", data="data/tnl2k", rules=["pysot"], out="function")
    words = ("evaluate", "results/tnl2k", "--data", "data/tnl2k", "--rule", "pysot", "--out", "command")
    done = command(*words, "--json")
    assert [json.loads(line) for line in done.out.splitlines()] == list(found.summaries)
    (kept,) = Path("function").rglob("scores.json")
    assert kept.read_bytes() == Path("command", *kept.parts[1:]).read_bytes()
    assert [row["protocol"] for row in found.rows()] == ["official", "vlt-python", "pysot"]


def test_evaluate_runs_models_in_modes(command: Callable[..., Any], work: Path) -> None:
    found = vltrack.evaluate("litetrack-tiny", data="data/tnl2k", modes=("nl", "nlbbox"), out="runs")
    words = ("evaluate", "litetrack-tiny", "--data", "data/tnl2k", "--modes", "nl,nlbbox", "--out", "runs")
    done = command(*words, "--json")
    assert [json.loads(line) for line in done.out.splitlines()] == list(found.summaries)
    rows = list(found.rows())
    assert {(row["tracker"], row["mode"]) for row in rows} == {("litetrack-tiny", "nl"), ("litetrack-tiny", "nlbbox")}
    assert all(0 <= row["auc"] <= 100 for row in rows)


def test_audit_carries_its_result_in_the_error(command: Callable[..., Any], work: Path) -> None:
    vltrack.init_weights("aitrack", "fresh.safetensors")  # which follow nothing
    with pytest.raises(vltrack.VltrackError) as caught:
        vltrack.audit("fresh.safetensors", scenes=6, frames=2, out="function", policy={"own_grounding": True})
    found = caught.value.result
    words = ["--twins", "6", "--frames", "2", "--out", "command", "--json", "--set", "policy.own_grounding=yes"]
    done = command("audit", "fresh.safetensors", *words)
    assert done.code == caught.value.exit_code == 7
    assert done.json == found.to_dict()
    for path in found.files:
        assert path.read_bytes() == Path("command", path.name).read_bytes()
    assert len(list(found.rows())) == 6


def test_report(command: Callable[..., Any], work: Path) -> None:
    found = vltrack.report(["a/scores.json", "b/scores.json"], out="function", formats=["svg"])
    done = command("report", "a/scores.json", "b/scores.json", "--out", "command", "--format", "svg", "--json")
    assert done.json == found.to_dict() | {"out": "command"}
    for name in found.files:
        if name.endswith(".svg"):
            assert Path("function", name).read_bytes() == Path("command", name).read_bytes()


def test_train(command: Callable[..., Any], work: Path) -> None:
    options = {"words": "random"}
    found = vltrack.train("litetrack", data="images", out="function", settings=options, steps=2, batch=2)
    words = ("train", "litetrack", "--data", "images", "--out", "command", "--steps", "2", "--batch", "2")
    command(*words, "--set", "words=random", "-q").ends(0)
    assert found.weights.read_bytes() == Path("command", found.weights.name).read_bytes()
    assert [row["step"] for row in found.rows()] == ["1", "2"]  # the first and the last step are logged


@pytest.mark.fault("A08")
def test_arguments_of_the_wrong_type_or_range_are_named_at_the_call(prepared: Path) -> None:
    clip = prepared / "clip.mp4"
    for count, error in ((0, UsageError), (-1, UsageError), (100_000, UsageError), (1.5, TypeError)):
        for call in (
            lambda count=count: vltrack.track(clip, box=BOX, threads=count),
            lambda count=count: vltrack.compare(clip, box=BOX, threads=count),
            lambda count=count: vltrack.load("litetrack-tiny", threads=count),
        ):
            with pytest.raises(error, match=f"threads.*{count}"):
                call()
    tracker = vltrack.load("litetrack-tiny")
    for model in (tracker, b"litetrack-tiny", 5, True):
        for call in (
            lambda model=model: vltrack.track(clip, box=BOX, model=model),
            lambda model=model: vltrack.load(model),
            lambda model=model: vltrack.compare(clip, box=BOX, models=[model]),
        ):
            with pytest.raises(TypeError, match=type(model).__name__):
                call()
    wrong = [{"end": True}, {"progress": 5}, {"model": None}]
    wrong += [{"box": None, "targets": one} for one in ([1], "a", {1: vltrack.Target(box=BOX)}, {"a": BOX})]
    for options in wrong:
        with pytest.raises(TypeError, match=next(reversed(options))):
            vltrack.track(clip, **{"box": BOX, **options})
    for source in (True, {}, {"a": 1}, set()):
        with pytest.raises(TypeError, match="not a source"):
            vltrack.track(source, box=BOX)
    with pytest.raises(UsageError):
        vltrack.track(clip, targets={})


def test_one_model_is_compared_by_its_name(prepared: Path) -> None:
    assert list(vltrack.compare(prepared / "clip.mp4", box=BOX, models="litetrack-tiny", end=2).tracks) == [
        "litetrack-tiny"
    ]

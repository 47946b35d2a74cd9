"""Our trackers inside the got10k package and the VOT toolkit: all frames are counted, and the boxes are those
of ``vltrack.Tracker``.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import interop_lab as lab
import numpy as np
import pytest
from numpy.typing import NDArray

from vltrack.core.types import iou_xywh
from vltrack.datasets.synthetic import SyntheticClip
from vltrack.evaluation.harnesses.vot import mask_line
from vltrack.metrics.annotations import Annotation, Annotations
from vltrack.metrics.protocols import RULES
from vltrack.metrics.scoring import Scores, score
from vltrack.tracking.tracker import Tracker

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(600)]

THREE_DECIMALS = 5.1e-4


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lab.harness_python(tmp_path_factory.mktemp("interop") / "venv")


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return Tracker.load("litetrack-tiny", device="cpu")


def direct(tracker: Tracker, images: Path, box: NDArray[np.float64], text: str | None = None) -> NDArray[np.float64]:
    """(N, 4) boxes by ``init`` and ``update`` over the images of a folder."""
    frames = [cv2.imread(str(file))[..., ::-1] for file in sorted(images.glob("*.jpg"))]
    x, y, w, h = (float(value) for value in box)
    first = tracker.init(frames[0], box=(x, y, w, h), text=text)
    return np.array([first.box] + [tracker.update(frame).box for frame in frames[1:]])


def annotations_of(
    made: dict[str, SyntheticClip], annotated: dict[str, NDArray[np.float64]], *, cover: bool
) -> Annotations:
    parts = []
    for name, clip in made.items():
        seen = np.array(lab.labels(clip)["cover"], dtype=np.float64)
        parts.append(
            Annotation(
                name=name,
                boxes=annotated[name],
                absent=np.zeros(len(clip.boxes), dtype=bool),
                cover=seen if cover else None,
                size=(clip.frames.shape[2], clip.frames.shape[1]),
            )
        )
    return Annotations.join(parts)


def ours(truth: Annotations, boxes: dict[str, NDArray[np.float64]], rule: str) -> Scores:
    return score(truth, np.concatenate([boxes[name] for name in truth.names]), RULES[rule])


def test_got10k_on_otb(python: Path, tracker: Tracker, tmp_path: Path) -> None:
    listed = lab.call(
        python,
        "-c",
        "import json; from got10k.datasets import OTB; print(json.dumps(OTB._OTB__version_dict['tb50']))",
        cwd=tmp_path,
    )
    made = lab.otb(tmp_path / "data", json.loads(listed.stdout))
    done = lab.call(
        python, lab.EXAMPLES / "run_got10k.py", "otb", "data", "--version", "tb50", "--device", "cpu", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "got10k-output" / "results" / "OTBtb50" / "litetrack-tiny_bbox"
    report = tmp_path / "got10k-output" / "reports" / "OTBtb50" / folder.name / "performance.json"
    found = json.loads(report.read_text())[folder.name]
    assert sorted(found["seq_wise"]) == sorted(made)
    annotated, stored = {}, {}
    for name, clip in made.items():
        data = tmp_path / "data" / name
        annotated[name] = np.loadtxt(data / "groundtruth_rect.txt", delimiter=",")
        stored[name] = np.loadtxt(folder / f"{name}.txt", delimiter=",")
        times = np.loadtxt(folder / "times" / f"{name}_time.txt")
        assert len(stored[name]) == len(times) == len(clip.boxes)
        expected = direct(tracker, data / "img", annotated[name][0])
        np.testing.assert_allclose(stored[name], expected, atol=THREE_DECIMALS, rtol=0)
    scores = ours(annotations_of(made, annotated, cover=False), stored, "got10k-otb")
    assert 0.3 < found["overall"]["success_score"] < 1
    assert scores.value("auc") == pytest.approx(found["overall"]["success_score"], abs=1e-6)
    assert scores.value("precision") == pytest.approx(found["overall"]["precision_score"], abs=1e-6)
    assert found["overall"]["speed_fps"] > 0


def test_got10k_on_its_validation_with_sentences(python: Path, tracker: Tracker, tmp_path: Path) -> None:
    made = lab.got10k(tmp_path / "data")
    (tmp_path / "sentences.json").write_text(json.dumps({name: clip.sentence for name, clip in made.items()}))
    words = ["got10k", "data", "--mode", "nlbbox", "--sentences", "sentences.json", "--device", "cpu"]
    done = lab.call(python, lab.EXAMPLES / "run_got10k.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "got10k-output" / "results" / "GOT-10k" / "litetrack-tiny_nlbbox"
    report = tmp_path / "got10k-output" / "reports" / "GOT-10k" / folder.name / "performance.json"
    found = json.loads(report.read_text())[folder.name]
    annotated, stored = {}, {}
    for name, clip in made.items():
        data = tmp_path / "data" / "val" / name
        annotated[name] = np.loadtxt(data / "groundtruth.txt", delimiter=",")
        # Deterministic, so one repetition and not three.
        assert {file.name for file in (folder / name).iterdir()} == {f"{name}_001.txt", f"{name}_time.txt"}
        stored[name] = np.loadtxt(folder / name / f"{name}_001.txt", delimiter=",")
        assert found["seq_wise"][name]["length"] == len(clip.boxes) - 1
        expected = direct(tracker, data, annotated[name][0], clip.sentence)
        np.testing.assert_allclose(stored[name], expected, atol=THREE_DECIMALS, rtol=0)
    scores = ours(annotations_of(made, annotated, cover=True), stored, "got10k")
    assert 0.3 < found["overall"]["ao"] < 1
    assert scores.value("overlap") == pytest.approx(found["overall"]["ao"], abs=1e-6)
    assert scores.value("op50") == pytest.approx(found["overall"]["sr"], abs=1e-6)


def test_vot_by_both_protocols(python: Path, tracker: Tracker, tmp_path: Path) -> None:
    made = lab.vot(tmp_path)
    names = ("vltrack-python", "vltrack-folder")
    # The toolkit exits with 0 whatever happens; only what it stores counts.
    run = lab.call(python, "-m", "vot", "evaluate", "--workspace", ".", *names, cwd=tmp_path)
    analyzed = lab.call(python, "-m", "vot", "analysis", "--workspace", ".", "--name", "table", *names, cwd=tmp_path)
    table = tmp_path / "analysis" / "table.json"
    assert table.is_file(), run.stdout + run.stderr + analyzed.stdout + analyzed.stderr
    (accuracy,) = json.loads(table.read_text())["results"]["baseline"]["results"]
    overlaps = []
    for name, clip in made.items():
        images = tmp_path / "sequences" / name / "color"
        annotated = np.loadtxt(tmp_path / "sequences" / name / "groundtruth.txt", delimiter=",")
        # The toolkit stores and passes single floats.
        start = annotated[0].astype(np.float32).astype(np.float64)
        expected = direct(tracker, images, start)
        overlaps.append(iou_xywh(expected[1:], annotated[1:]))
        for protocol in names:
            folder = tmp_path / "results" / protocol / "baseline" / name
            first, *boxes = lab.read_bin(folder / f"{name}_001.bin")
            assert first == lab.STARTED
            assert len(boxes) == len(clip.boxes) - 1
            np.testing.assert_array_equal(boxes, expected[1:].astype(np.float32))
            seen = np.loadtxt(folder / f"{name}_001_score.value")
            assert seen.shape == (len(clip.boxes),)
    # Its accuracy is the mean overlap in whole pixels without the first frame.
    for (value,) in accuracy:
        assert value == pytest.approx(np.mean(overlaps), abs=0.03)


def test_vot_with_masks_and_an_object_that_comes_late(python: Path, tmp_path: Path) -> None:
    """Both protocols start with the boxes around the masks, and store the same bytes."""
    made = lab.vot(tmp_path)
    stack = (tmp_path / "stack.yaml").read_text()
    (tmp_path / "stack.yaml").write_text(stack.replace("repetitions: 1", "repetitions: 1\n    multiobject: True"))
    for name, clip in made.items():
        folder, size = tmp_path / "sequences" / name, (clip.frames.shape[2], clip.frames.shape[1])
        rows = [mask_line(box, size) for box in clip.boxes]
        (folder / "groundtruth.txt").unlink()
        (folder / "groundtruth_early.txt").write_text("\n".join(rows) + "\n")
        (folder / "groundtruth_late.txt").write_text("\n".join(["0"] * 3 + rows[3:]) + "\n")
    names = ("vltrack-python", "vltrack-folder")
    run = lab.call(python, "-m", "vot", "evaluate", "--workspace", ".", *names, cwd=tmp_path)
    for name, clip in made.items():
        for which, begin in (("early", 0), ("late", 3)):
            file = Path("baseline") / name / f"{name}_{which}_001.bin"
            stored = [tmp_path / "results" / protocol / file for protocol in names]
            assert stored[0].is_file(), run.stdout + run.stderr
            assert stored[0].read_bytes() == stored[1].read_bytes()
            regions = lab.read_bin(stored[0])
            first = max(begin, 1)
            assert regions[:first] == [lab.STARTED, *[lab.UNKNOWN] * (first - 1)]
            boxes = regions[first:]
            assert len(boxes) == lab.FRAMES - first
            assert iou_xywh(boxes, clip.boxes[first:]).mean() > 0.5


def test_vot_gets_failures(python: Path, tmp_path: Path) -> None:
    lab.vot(tmp_path)
    ini = (tmp_path / "trackers.ini").read_text()
    (tmp_path / "trackers.ini").write_text(ini.replace("litetrack-tiny", "no-such-model"))
    by_folder = lab.call(python, "-m", "vot", "evaluate", "--workspace", ".", "vltrack-folder", cwd=tmp_path)
    assert "exited with code 5" in by_folder.stdout + by_folder.stderr
    by_object = lab.call(python, "-m", "vot", "evaluate", "--workspace", ".", "vltrack-python", cwd=tmp_path)
    assert "ModelNotFound: No model is called 'no-such-model'" in by_object.stdout + by_object.stderr
    assert not list(tmp_path.glob("results/*/*/*/*.bin"))


def test_the_peer_of_the_scoring_benchmark(python: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    lengths = [30, 45]
    annotated = [np.abs(rng.normal(100, 30, (length, 4))) + 5 for length in lengths]
    annotated[1][7] = np.nan
    found = [np.nan_to_num(rows) + rng.normal(0, 12, rows.shape) for rows in annotated]
    np.savez(
        tmp_path / "arrays.npz",
        names=np.array(["a", "b"]),
        lens=np.array(lengths),
        truth=np.concatenate(annotated),
        boxes=np.concatenate(found),
    )
    requests = [{"arrays": str(tmp_path / "arrays.npz"), "repeats": 3}, {"arrays": str(tmp_path / "gone.npz")}]
    done = subprocess.run(
        [python, lab.ROOT / "benchmarks" / "peers" / "run_got10k.py"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        env=lab.environment(python),
        capture_output=True,
        text=True,
        timeout=120,
    )
    hello, answer, refused = map(json.loads, done.stdout.splitlines())
    assert hello["versions"]["got10k"] == "0.1.3"
    parts = [
        Annotation(name=name, boxes=rows, absent=np.zeros(len(rows), dtype=bool))
        for name, rows in zip("ab", annotated, strict=True)
    ]
    scores = score(Annotations.join(parts), np.concatenate(found), RULES["got10k-otb"])
    assert answer["auc"] == pytest.approx(scores.value("auc"), abs=1e-6)
    assert answer["precision"] == pytest.approx(scores.value("precision"), abs=1e-6)
    assert (answer["frames"], answer["sequences"], len(answer["all"])) == (75, 2, 3)
    assert answer["seconds"] == sorted(answer["all"])[1] > 0
    assert "gone.npz" in refused["error"]

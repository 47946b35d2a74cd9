"""``vltrack evaluate`` and ``which-rule`` as a user calls them, over miniatures of real data sets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vltrack.core.track import Track
from vltrack.core.types import Step
from vltrack.datasets.catalogue import write_miniature
from vltrack.datasets.reader import open_dataset
from vltrack.datasets.synthetic import synthesize
from vltrack.metrics.protocols import RULES

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def tnl2k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature("tnl2k", tmp_path_factory.mktemp("data") / "tnl2k")


@pytest.fixture
def results(tnl2k: Path, tmp_path: Path) -> Path:
    """A tracker that is two pixels off, as text files."""
    folder = tmp_path / "others"
    folder.mkdir()
    for sequence in open_dataset(tnl2k).sequences:
        boxes = sequence.boxes + np.array([2.0, 0, 0, 0])
        np.savetxt(folder / f"{sequence.name}.txt", boxes, fmt="%.3f", delimiter=",")
    return folder


def test_both_conventions_and_the_cause_of_their_difference(command: Command, tnl2k: Path, results: Path) -> None:
    done = command("evaluate", results, "--data", tnl2k).ends(0)
    blocks = done.out.split("\n\n")
    assert blocks[1].startswith("official: TNL2K toolkit")
    assert blocks[2].startswith("vlt-python: ")
    tops = [line for line in done.out.splitlines() if line.startswith("  a perfect tracker")]
    ceilings = [line.split()[3:] for line in tops]
    assert ceilings[0] != ceilings[1]
    assert ceilings[1][2] == "100.00"  # normalized precision of the perfect tracker, absent frames as hits
    assert "frames without the target" in blocks[2]


def test_json_and_scores_file_tell_the_same(command: Command, tnl2k: Path, results: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    told = command("evaluate", results, "--data", tnl2k, "--json", "--out", out).json
    kept = json.loads((out / "others" / "tnl2k" / "scores.json").read_text())
    assert told["speed"] is None
    assert kept == {key: value for key, value in told.items() if key != "speed"}
    assert told["rules"]["official"]["rule"] == "tnl2k"
    assert len(told["rules"]["official"]["success_curve"]) == 21
    assert len(told["sequences"]) == len(told["rules"]["official"]["per_sequence"]["auc"])


@pytest.mark.fault("E10")
def test_missing_results_are_no_score(command: Command, tnl2k: Path, results: Path, tmp_path: Path) -> None:
    gone = sorted(results.glob("*.txt"))[0]
    gone.unlink()
    refused = command("evaluate", results, "--data", tnl2k).ends(4, gone.stem, "--subset")
    assert refused.out == ""
    part = command("evaluate", results, "--data", tnl2k, "--subset", "present")
    total = len(open_dataset(tnl2k).sequences)
    assert part.code == 0
    assert f"ONLY {total - 1} of {total} sequences (present)" in part.out
    listed = tmp_path / "easy.txt"
    listed.write_text(gone.stem + "\n")
    assert command("evaluate", results, "--data", tnl2k, "--subset", listed).code == 4
    # A file that does not exist is refused before a tracker runs.
    command("evaluate", "litetrack-tiny", "--data", tnl2k, "--subset", "gone", "--out", tmp_path / "o").ends(4, "gone")
    assert not (tmp_path / "o").exists()


@pytest.mark.fault("E17")
def test_a_part_of_a_benchmark_carries_its_share(command: Command, tnl2k: Path, results: Path, tmp_path: Path) -> None:
    done = command("evaluate", results, "--data", tnl2k, "--out", tmp_path / "scored").ends(0)
    assert "ONLY 3 of 700 sequences (on disk)" in done.out
    numbers = [line for line in done.out.splitlines() if line.startswith(("  others", "  a perfect tracker"))]
    assert all(line.endswith(" 3/700") for line in numbers)
    kept = json.loads((tmp_path / "scored" / "others" / "tnl2k" / "scores.json").read_text())
    assert (kept["published"], kept["subset"]) == (700, {"name": "on disk", "n": 3, "of": 700})
    sorted(results.glob("*.txt"))[0].unlink()
    part = command("evaluate", results, "--data", tnl2k, "--subset", "present").ends(0)
    assert "2/700" in part.out
    told = command("report", tmp_path / "scored" / "others" / "tnl2k" / "scores.json", "--out", tmp_path / "report",
                   "--json").ends(0).json  # fmt: skip
    assert (told["sequences"], told["of"]) == (3, 700)
    assert "3/700 sequences" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.fault("E17")
def test_what_is_there_of_a_list_is_scored_on_request(command: Command, tmp_path: Path) -> None:
    data = write_miniature("lasot", tmp_path / "lasot")
    names = [sequence.name for sequence in open_dataset(data).sequences]
    shutil.rmtree(next(data.rglob(names[0])))
    command("evaluate", "--data", data).ends(4, names[0], "--subset present")
    listed = tmp_path / "some.txt"
    listed.write_text("\n".join(names[1:]))
    for subset in ("present", listed):
        done = command("evaluate", "bit-tracker-tiny", "--data", data, "--modes", "bbox", "--subset", subset,
                       "--out", tmp_path / "o").ends(0, names[0])  # fmt: skip
        assert f" {len(names) - 1}/280" in done.out


def test_a_folder_of_runs_called_as_the_model_is_no_result_of_others(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = synthesize(tmp_path / "clips", 1, 12, 0)
    monkeypatch.chdir(tmp_path)
    words = ("evaluate", "bit-tracker-tiny", "--data", "clips", "--modes", "bbox", "--out")
    command(*words, ".").ends(0)
    command(*words, ".").ends(0, "./bit-tracker-tiny", "have results already")
    command(*words, "").ends(2, "--out")
    command("evaluate", "./bit-tracker-tiny/clips_bbox", "--data", "clips").ends(0)
    shutil.rmtree("bit-tracker-tiny")
    shutil.copytree(folder, "bit-tracker-tiny")  # its groundtruth.txt, as a result of others
    (tmp_path / "bit-tracker-tiny" / "groundtruth.txt").rename(tmp_path / "bit-tracker-tiny" / f"{folder.name}.txt")
    done = command("evaluate", "bit-tracker-tiny", "--data", "clips").ends(0)
    assert " 100.00" in done.out


@pytest.mark.fault("E19")
def test_a_track_with_a_late_start_and_a_stride_is_scored_by_its_frames(command: Command, tmp_path: Path) -> None:
    (folder,) = synthesize(tmp_path / "clips", 1, 12, 0)
    boxes = np.loadtxt(folder / "groundtruth.txt", delimiter=",")
    steps = [Step(box=boxes[k], score=1.0, visible=True, index=k, seconds=k / 25) for k in range(3, 12, 2)]
    (tmp_path / "mine").mkdir()
    words = ("evaluate", tmp_path / "mine", "--data", tmp_path / "clips")
    for surplus in (0, 9):  # rows of frames that are not annotated do not make up for those without one
        more = [replace(steps[-1], index=12 + k, seconds=1 + k / 25) for k in range(surplus)]
        Track.from_steps(steps + more).save(tmp_path / "mine" / f"{folder.name}.csv", overwrite=True)
        command(*words).ends(4, f"{folder.name} (5 for 12 frames)", "--short")
        for short, value in (("misses", 100 * 5 / 12), ("cut", 100)):
            told = command(*words, "--short", short, "--json").ends(0).json
            assert told["rules"]["official"]["op75"] == pytest.approx(value)


@pytest.mark.fault("E20")
@pytest.mark.parametrize("form", ["x,y,w,h", "corners", "center", "shares"])
def test_results_in_another_form_than_xywh_are_named(command: Command, tmp_path: Path, form: str) -> None:
    for folder in synthesize(tmp_path / "clips", 2, 12, 0):
        x, y, w, h = np.loadtxt(folder / "groundtruth.txt", delimiter=",").T
        forms = {"corners": (x, y, x + w, y + h), "center": (x + w / 2, y + h / 2, w, h),
                 "shares": (x / 999, y / 999, w / 999, h / 999)}  # fmt: skip
        (tmp_path / "mine").mkdir(exist_ok=True)
        np.savetxt(tmp_path / "mine" / f"{folder.name}.txt", np.c_[forms.get(form, (x + w, y, w, h))], delimiter=",")
    done = command("evaluate", tmp_path / "mine", "--data", tmp_path / "clips").ends(0)
    assert (f"2 results may be {form}" in done.out) == (form != "x,y,w,h")


@pytest.mark.fault("E18")
def test_a_name_that_ends_like_a_side_file_and_a_folder_of_scores(command: Command, tmp_path: Path) -> None:
    (folder,) = synthesize(tmp_path / "clips", 1, 12, 0)
    (tmp_path / "mine").mkdir()
    for name in ("lap", "lap_time", "all_scores"):
        shutil.copytree(folder, tmp_path / "named" / name)
        shutil.copy(folder / "groundtruth.txt", tmp_path / "mine" / f"{name}.txt")
    zipped = shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "mine")
    words = ("evaluate", tmp_path / "mine", zipped, "--data", tmp_path / "named", "--out", tmp_path / "o", "--json")
    told = [json.loads(line) for line in command(*words).ends(0).out.splitlines()]
    assert [len(one["sequences"]) for one in told] == [3, 3]
    scores = tmp_path / "o" / "mine" / "named"
    command("report", scores, "--data", tmp_path / "named", "--out", tmp_path / "r").ends(0, "not next to its scores")
    command("evaluate", scores, "--data", tmp_path / "named").ends(4, "holds scores, not boxes")
    command("which-rule", "50", scores, "--data", tmp_path / "named").ends(4, "holds scores, not boxes")


@pytest.mark.fault("E11")
def test_short_results_are_refused_or_counted_as_asked(command: Command, tnl2k: Path, results: Path) -> None:
    file = sorted(results.glob("*.txt"))[0]
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-2]))
    command("evaluate", results, "--data", tnl2k).ends(4, file.stem)
    scores = {}
    for short in ("misses", "cut"):
        done = command("evaluate", results, "--data", tnl2k, "--short", short, "--json")
        scores[short] = done.json["rules"]["official"]["op50"]
    assert scores["misses"] < scores["cut"]


def test_more_rules_attributes_and_several_trackers(command: Command, tnl2k: Path, results: Path) -> None:
    other = results.with_name("exact")
    other.mkdir()
    for sequence in open_dataset(tnl2k).sequences:
        np.savetxt(other / f"{sequence.name}.txt", sequence.boxes, fmt="%.3f", delimiter="\t")
    done = command("evaluate", results, other, "--data", tnl2k, "--rule", "pysot", "--attributes").ends(0)
    assert "pysot: pysot toolkit" in done.out
    assert "AUC by attribute" in done.out
    table = [line.split() for line in done.out.splitlines() if line.startswith(("  others", "  exact"))]
    assert {row[0] for row in table} == {"others", "exact"}
    every = command("evaluate", results, "--data", tnl2k, "--rule", "all", "--json")
    told = every.json["rules"]
    assert {rule["rule"] for rule in told.values()} == set(RULES)
    command("evaluate", results, "--data", tnl2k, "--rule", "pysott").ends(2, "Did you mean pysot?")


def test_which_rule_names_the_convention(command: Command, tnl2k: Path, results: Path) -> None:
    told = command("evaluate", results, "--data", tnl2k, "--json").json
    number = f"{told['rules']['official']['auc']:.2f}"
    done = command("which-rule", number, results, "--data", tnl2k).ends(0)
    assert "tnl2k (official)" in done.out
    assert command("which-rule", "0.631", results, "--data", tnl2k).code == 0
    # Without the data: among the protocols that it was scored by, if it was.
    assert command("which-rule", number, results).code == 2
    out = results.parent / "scored"
    command("evaluate", results, "--data", tnl2k, "--out", out)
    known = command("which-rule", number, out / "others" / "tnl2k").ends(0)
    assert "tnl2k (official)" in known.out
    assert "--data PATH tries all" in known.err
    assert command("which-rule", "631", results, "--data", tnl2k).code == 2
    assert command("which-rule", "many", results, "--data", tnl2k).code == 2


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("litetrak-tiny",), 5, "Did you mean litetrack"),
        (("litetrack-tiny", "litetrack-tiny"), 2, "named twice"),
        (("litetrack-tiny", "--modes", "nl,box"), 2, "Did you mean bbox"),
        (("litetrack-tiny", "--modes", "nl,nl"), 2, "at most once"),
        (("litetrack-tiny", "--pack", "lasot"), 2, "lasot"),
    ],
)
def test_what_cannot_be_asked(command: Command, tnl2k: Path, words: tuple[str, ...], code: int, told: str) -> None:
    command("evaluate", *words, "--data", tnl2k).ends(code, told)


def test_data_that_is_not_there(command: Command, results: Path, tmp_path: Path) -> None:
    assert command("evaluate", results, "--data", tmp_path / "nowhere").code == 4


def test_a_real_run_is_kept_scored_and_not_run_twice(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_miniature("got10k", tmp_path / "got10k")
    monkeypatch.chdir(tmp_path)
    words = ("evaluate", "litetrack-tiny", "--data", data, "--split", "val", "--modes", "bbox")
    first = command(*words).ends(0)
    assert "AO" in first.out
    assert "SR 0.75" in first.out
    assert "frames per second" in first.out
    folder = tmp_path / "evaluation" / "litetrack-tiny" / "got10k-val_bbox"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.txt")}
    scores = (folder / "scores.json").read_bytes()
    assert before
    command(*words).ends(0)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*.txt")} == before
    assert (folder / "scores.json").read_bytes() == scores
    assert command("evaluate", folder, "--data", data, "--split", "val").code == 0

    command("evaluate", "litetrack-tiny", "--data", data, "--modes", "bbox", "--out", "t", "--pack", "got10k").ends(0)
    (archive,) = (tmp_path / "t").glob("*/*.zip")
    names = zipfile.ZipFile(archive).namelist()
    assert all(name.endswith(("_001.txt", "_time.txt")) for name in names)
    assert len(names) == 2 * len(open_dataset(data).sequences)


def test_scoring_loads_no_torch(tnl2k: Path, results: Path) -> None:
    script = (
        "import sys; from vltrack.cli import main; code = main.main(sys.argv[1:]);"
        "sys.exit(9 if {'torch', 'cv2'} & set(sys.modules) else code)"
    )
    words = [sys.executable, "-c", script, "evaluate", str(results), "--data", str(tnl2k)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.fault("E07")
def test_verify_tells_what_was_changed(command: Command, tmp_path: Path) -> None:
    data = write_miniature("otb99", tmp_path / "otb99")
    out = tmp_path / "out"
    assert command("evaluate", "bit-tracker-tiny", "--data", data, "--modes", "bbox", "--out", out).code == 0
    assert command("verify", out).code == 0
    boxes = sorted(out.glob("*/*/boxes/*.txt"))[0]
    boxes.write_text(boxes.read_text().replace("1", "2", 1))
    done = command("verify", out, "--json").ends(9)
    assert boxes.name in done.json["findings"][0]["path"]
    assert command("evaluate", boxes.parents[1], "--data", data).code == 9
    assert command("verify", data).code == 4


def test_without_a_tracker_it_tells_the_ceiling(command: Command, tnl2k: Path, results: Path) -> None:
    done = command("evaluate", "--data", tnl2k).ends(0)
    lines = [line for line in done.out.splitlines() if line.startswith("  a perfect tracker")]
    beside = command("evaluate", results, "--data", tnl2k).out.splitlines()
    assert [line.split() for line in lines] == [
        line.split() for line in beside if line.startswith("  a perfect tracker")
    ]
    assert len(lines) == 2


def test_words_that_find_nothing_are_misses_and_no_sentence_is_no_miss(
    command: Command, tnl2k: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AITrack refuses a start where its words agree on no box; a sequence without words cannot be run."""
    from vltrack.evaluation.results import open_results

    out = tmp_path / "out"
    words = ("evaluate", "aitrack-tiny", "--data", tnl2k, "--split", "train", "--modes", "nl", "--out", out)
    assert command(*words).code == 4  # INF_run1 has no sentence
    done = command(*words, "--missing-sentence", "skip")
    total = len(open_dataset(tnl2k, split="train").sequences)
    assert f"ONLY {total - 1} of {total} sequences (with a sentence)" in done.out
    results = open_results(out / "aitrack-tiny" / "tnl2k-train_nl")
    assert len(results.boxes) + len(results.not_found) == total - 1
    assert done.code == (7 if results.not_found else 0)


def test_a_start_that_finds_nothing_scores_nothing(tnl2k: Path) -> None:
    from vltrack.evaluation.summary import annotations_of, summarize
    from vltrack.evaluation.third_party import TrackerResults

    truth = annotations_of(open_dataset(tnl2k))
    boxes = {name: truth.boxes[truth.rows(k)] for k, name in enumerate(truth.names)}
    name, *others = truth.names
    kept = {other: boxes[other] for other in others}
    found = TrackerResults(tracker="t", mode="nl", boxes=kept, not_found=(name,))
    told = summarize(found, truth, data="tnl2k", split="test")["rules"]
    # The toolkit gives the first frame away even then; the tracker's own first frame is a miss.
    assert told["own first frame"]["per_sequence"]["op50"][0] == 0
    assert told["official"]["per_sequence"]["op50"][0] <= 100 / len(boxes[name])
    assert told["official"]["per_sequence"]["op50"][1] > 50


def test_what_is_odd_about_the_rows_is_said(command: Command, tnl2k: Path, results: Path) -> None:
    """Too many rows, too few, and rows that are no boxes: scored as asked, and told beside the score."""
    long, short, broken = sorted(results.glob("*.txt"))[:3]
    long.write_text(long.read_text() * 2)
    short.write_text("".join(short.read_text().splitlines(keepends=True)[:-1]))
    rows = broken.read_text().splitlines()
    broken.write_text("\n".join([rows[0], "nan,nan,nan,nan", *rows[2:]]) + "\n")
    refused = command("evaluate", results, "--data", tnl2k)
    assert refused.code == 4
    assert "others: " in refused.err  # whose results they are
    done = command("evaluate", results, "--data", tnl2k, "--short", "misses").ends(0)
    assert f"1 result with too many rows, cut: {long.stem}" in done.out
    assert f"1 result with too few rows, frames without a row are misses: {short.stem}" in done.out
    assert "without a box (NaN, or no width or height) in 2 results" in done.out
    assert broken.stem in done.out
    which = command("which-rule", "50", results, "--data", tnl2k)
    assert "not tried: " in which.err
    assert "tnl2k (official)" in which.err
    every = command("which-rule", "50", results, "--data", tnl2k, "--short", "misses", "--tolerance", "50")
    assert "not tried: webuav. " in every.err  # which refuses rows that are too many, too
    assert "tnl2k (official)" in every.out


def test_folders_too_high_single_files_and_names(command: Command, tnl2k: Path, results: Path, tmp_path: Path) -> None:
    named = command("evaluate", f"mine={results}", "--data", tnl2k, "--json")
    assert named.json["tracker"] == "mine"
    command("evaluate", sorted(results.glob("*.txt"))[0], "--data", tnl2k).ends(2, "Name the folder")
    (tmp_path / "evaluation" / "t" / "tnl2k_nl").mkdir(parents=True)
    (tmp_path / "evaluation" / "t" / "tnl2k_nl" / "run.json").write_text("{}")
    command("evaluate", tmp_path / "evaluation", "--data", tnl2k).ends(4, "tnl2k_nl")
    command("evaluate", results, "--data", tnl2k, "--pack", "got10k").ends(2, "this is tnl2k")
    command("evaluate", results, "--data", tnl2k, "--engine", "slurm").ends(2, "slurm")


def test_clips_of_ones_own_are_called_after_their_folder(command: Command, tmp_path: Path) -> None:
    from vltrack.datasets.synthetic import synthesize

    clips = tmp_path / "my clips"
    clips.mkdir()
    synthesize(clips, 2, 6, 3)
    done = command("evaluate", "bit-tracker-tiny", "--data", clips, "--modes", "nl", "--out", tmp_path / "out")
    assert done.out.startswith("my clips (clips of your own), all: 2 sequences, 12 frames")
    assert "vlt-python takes the ground truth for the tracker's box" in done.out
    assert (tmp_path / "out" / "bit-tracker-tiny" / "my clips_nl" / "scores.json").is_file()


def test_a_damaged_result_is_said_to_be_run_again(command: Command, tmp_path: Path) -> None:
    data = write_miniature("otb99", tmp_path / "otb99")
    words = ("evaluate", "bit-tracker-tiny", "--data", data, "--modes", "bbox", "--out", tmp_path / "out")
    assert command(*words).code == 0
    boxes = sorted((tmp_path / "out").glob("*/*/boxes/*.txt"))[0]
    whole = boxes.read_bytes()
    boxes.write_bytes(whole.replace(b"1", b"2", 1))
    command(*words).ends(0, f"{boxes.stem} in", "it is run again")
    assert boxes.read_bytes() == whole


def test_all_models_are_checked_before_any_of_them_runs(command: Command, tmp_path: Path) -> None:
    data = write_miniature("otb99", tmp_path / "otb99")
    weights = Path(__file__).resolve().parents[2] / "src" / "vltrack" / "weights" / "bit-tracker-tiny.safetensors"
    other = tmp_path / "other" / weights.name
    other.parent.mkdir()
    other.symlink_to(weights)
    other.with_suffix(".json").symlink_to(weights.with_suffix(".json"))
    words = ("--data", data, "--modes", "bbox", "--out", tmp_path / "out")
    command("evaluate", "bit-tracker-tiny", other, *words).ends(2, "called bit-tracker-tiny")
    assert not (tmp_path / "out").exists()
    assert command("evaluate", f"mine={other}", *words).code == 0
    assert (tmp_path / "out" / "mine" / "otb99_bbox" / "scores.json").is_file()

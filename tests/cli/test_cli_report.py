"""``vltrack report``: what is written, that JSON redraws the same bytes, what is refused and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from report_cases import SEQUENCES, scores, spread
from vltrack.api import report as report_job
from vltrack.api import report_sources as report_evidence
from vltrack.core.errors import ResourceError
from vltrack.datasets.reader import Dataset
from vltrack.datasets.sequences import Sequence
from vltrack.plots import report as report_pictures

FRAMES = 20


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pictures, which take most of the time; tests/plots looks at them."""
    monkeypatch.setattr(report_pictures, "draw_figures", lambda told, kinds: [])


def saved(folder: Path, name: str, *arguments: Any, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(scores(name, *arguments, **more)))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_report_writes_everything_and_json_redraws_the_same_bytes(command: Any, tmp_path: Path) -> None:
    one, two = saved(tmp_path, "one", spread(50)), saved(tmp_path, "two", spread(40))
    done = command("report", one, two, "--out", tmp_path / "out", "--json").ends(0)
    files = tree(tmp_path / "out")
    names = ("success", "precision", "norm-precision", "gain-1-over-2", "attributes")
    pictures = {f"pictures/{name}.{kind}" for name in names for kind in ("svg", "png")}
    assert set(files) == {"report.html", "report.json", "table.tex"} | pictures
    told = done.json
    assert sorted(files) == told["files"] and told["verdict"].startswith("one is ahead of the other")
    assert told["places"] == [{"tracker": "one", "first": 1, "last": 1}, {"tracker": "two", "first": 2, "last": 2}]
    pair = told["pairs"][0]
    assert (pair["a"], pair["b"], pair["mean"], pair["verdict"]) == ("one", "two", 10.0, "one ahead")
    assert "vltrack report" in files["report.html"].decode() and "--json" not in files["report.html"].decode()

    command("report", tmp_path / "out" / "report.json", "--out", tmp_path / "again").ends(0)
    assert tree(tmp_path / "again") == files


def test_figures_for_a_paper_and_what_papers_have_published(command: Any, tmp_path: Path) -> None:
    one = saved(tmp_path, "one", spread(50))
    out = tmp_path / "out"
    command("report", one, "--out", out, "--format", "PDF,pgf").ends(0)
    names = {path.name for path in (out / "pictures").iterdir()}
    assert {"success.pdf", "success.pgf", "attributes.pdf", "attributes.pgf"} <= names
    assert {name.split(".")[1] for name in names} == {"pdf", "pgf"}
    assert (out / "pictures" / "success.pdf").read_bytes().startswith(b"%PDF-")
    assert r"\begin{pgfpicture}" in (out / "pictures" / "success.pgf").read_text()
    page, kept = (out / "report.html").read_text(), json.loads((out / "report.json").read_text())
    assert {row["model"] for row in kept["published"]} >= {"litetrack-base", "aitrack-base", "bit-tracker-base"}
    assert not any("tiny" in row["model"] for row in kept["published"])
    assert "Published on this data set" in page and "read off its charts" in page
    assert "74.5" not in (out / "table.tex").read_text()  # aitrack-base
    command("report", one, "--out", out, "--format", "svg", "--overwrite").ends(0)
    assert {path.suffix for path in (out / "pictures").iterdir()} == {".svg"}
    command("report", one, "--out", tmp_path / "not", "--format", "svg,bmp").ends(2, "'bmp'", "svg, png, pdf, pgf")
    assert not (tmp_path / "not").exists()
    trained = saved(tmp_path, "trained", spread(50), split="train")
    command("report", trained, "--out", tmp_path / "train", "--format", "svg").ends(0)
    assert "Published on this data set" not in (tmp_path / "train" / "report.html").read_text()


def test_intervals_are_paired_over_sequences(command: Any, tmp_path: Path, quick: None) -> None:
    """Two trackers that differ by a constant are told apart however wide their sequences spread; shuffled
    numbers with the same means are not."""
    one, two = saved(tmp_path, "one", spread(50, 60)), saved(tmp_path, "two", spread(49, 60))
    shuffled = saved(tmp_path, "shuffled", np.random.default_rng(0).permutation(spread(49, 60)).tolist())
    first = command("report", one, two, "--out", tmp_path / "a", "--json").json
    assert first["pairs"][0]["verdict"] == "one ahead" and first["pairs"][0]["low"] == pytest.approx(1.0)
    second = command("report", one, shuffled, "--out", tmp_path / "b", "--json").json
    assert second["pairs"][0]["mean"] == pytest.approx(1.0)
    assert second["pairs"][0]["verdict"] == "not distinguishable on these 12 sequences"
    assert [place["last"] for place in second["places"]] == [2, 2]


def test_nothing_is_replaced_without_being_told_to(command: Any, tmp_path: Path, quick: None) -> None:
    one = saved(tmp_path, "one", spread(50))
    out = tmp_path / "out"
    assert command("report", one, "--out", out).code == 0
    (out / "pictures" / "gain-1-over-9.svg").write_text("of an earlier report")
    (out / "pictures" / "mine.svg").write_text("not ours")
    before = tree(out)
    command("report", one, "--out", out).ends(2, "report.html exists", "--overwrite")
    assert tree(out) == before
    assert command("report", one, "--out", out, "--overwrite").code == 0
    assert {p.name for p in (out / "pictures").iterdir()} == {"mine.svg"}
    (tmp_path / "file").write_text("")
    assert command("report", one, "--out", tmp_path / "file").code == 6


def test_a_full_disk_leaves_no_half_file(
    command: Any, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = saved(tmp_path, "one", spread(50))
    real = report_job.write_bytes

    def full(path: Path, data: bytes) -> None:
        if path.name == "report.html":
            raise ResourceError("the disk is full.")
        real(path, data)

    monkeypatch.setattr(report_job, "write_bytes", full)
    assert command("report", one, "--out", tmp_path / "out").code == 6
    assert not (tmp_path / "out" / "report.html").exists()


def test_other_data_is_refused(command: Any, tmp_path: Path, quick: None) -> None:
    one, two = saved(tmp_path, "one", spread(50)), saved(tmp_path, "two", spread(40), split="train")
    command("report", one, two, "--out", tmp_path / "out").ends(2, "lasot test", "lasot train")
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("E10")
def test_different_sequences_need_a_word_and_show_n_of_n(command: Any, tmp_path: Path, quick: None) -> None:
    one = saved(tmp_path, "one", spread(50))
    two = saved(tmp_path, "two", [10.0, 20.0, 60.0], [SEQUENCES[5], SEQUENCES[0], "other"])
    command("report", one, two, "--out", tmp_path / "out").ends(2, "2 of 13 in all of them", "--subset-common")
    told = command("report", one, two, "--out", tmp_path / "out", "--subset-common", "--json").ends(0).json
    assert (told["sequences"], told["of"]) == (2, 13)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "15.00<small>2/13</small>" in page  # the mean of two's numbers of the common ones
    kept = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["name"] for row in kept["scores"][1]["sequences"]] == [SEQUENCES[0], SEQUENCES[5]]
    assert kept["scores"][1]["rules"]["official"]["per_sequence"]["auc"] == [20.0, 10.0]
    assert "success_curve" not in kept["scores"][1]["rules"]["official"]  # not known of a part


def test_the_same_sequences_in_another_order_are_no_subset(command: Any, tmp_path: Path, quick: None) -> None:
    one = saved(tmp_path, "one", spread(50))
    two = saved(tmp_path, "two", spread(40)[::-1], SEQUENCES[::-1])
    told = command("report", one, two, "--out", tmp_path / "out", "--subset-common", "--json").json
    assert (told["sequences"], told["of"]) == (12, 12)
    assert told["pairs"][0]["low"] == pytest.approx(10.0)  # matched by name
    kept = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "success_curve" in kept["scores"][1]["rules"]["official"]


def test_pooled_scores_cannot_be_had_of_a_part(command: Any, tmp_path: Path, quick: None) -> None:
    paths = []
    for name, names in (("one", SEQUENCES), ("two", SEQUENCES[:6])):
        told = scores(name, spread(50, count=len(names)), names)
        told["rules"]["official"]["rule"] = "got10k"
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(told))
    command("report", *paths, "--out", tmp_path / "out", "--subset-common").ends(2, "over all frames together")


def test_a_subset_of_the_evaluation_is_passed_on(command: Any, tmp_path: Path, quick: None) -> None:
    one = saved(tmp_path, "one", spread(50), subset={"name": "day", "n": 12, "of": 280})
    command("report", one, "--out", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Subset: day." in page and "50.00<small>12/280</small>" in page


def test_names_are_told_apart(command: Any, tmp_path: Path, quick: None) -> None:
    one, two = saved(tmp_path / "a", "same", spread(50)), saved(tmp_path / "b", "same", spread(40))
    done = command("report", one, two, "--out", tmp_path / "out").ends(2, "2 results are called same")
    told = command("report", f"ours={one}", two, "--out", tmp_path / "out", "--against", "ours", "--json").json
    assert [place["tracker"] for place in told["places"]] == ["ours", "same"]
    other = saved(tmp_path / "c", "same", spread(40), mode="nl")
    done = command("report", one, other, "--out", tmp_path / "modes", "--json")
    assert {place["tracker"] for place in done.json["places"]} == {"same (nlbbox)", "same (nl)"}
    command("report", one, "--out", tmp_path / "x", "--against", "nobody").ends(2, "none of the trackers")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("{", 4, "not strict JSON"),
        ("[]", 4, "scores"),
        ('{"format": "vltrack.scores", "version": 9}', 4, "scores"),
        ('{"format": "vltrack.scores", "version": 1}', 4, "tracker is missing"),
        ('{"format": "vltrack.report", "version": 1}', 4, "report.json"),
    ],
)
def test_other_files_are_refused(command: Any, tmp_path: Path, text: str, code: int, words: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(text)
    command("report", path, "--out", tmp_path / "out").ends(code, words)
    assert not (tmp_path / "out").exists()


def test_flags_that_make_no_sense(command: Any, tmp_path: Path, quick: None) -> None:
    one = saved(tmp_path, "one", spread(50))
    assert command("report", one, "--out", tmp_path / "o", "--format", "gif").code == 2
    assert "There is: official" in command("report", one, "--out", tmp_path / "o", "--rule", "pysot").err
    assert "too many" in command("report", *[one] * 8, "--out", tmp_path / "o").err
    assert "has no scores.json" in command("report", tmp_path, "--out", tmp_path / "o").err
    assert command("report", tmp_path / "none", "--out", tmp_path / "o").code == 4
    assert command("report", one, "--out", tmp_path / "o").code == 0
    command("report", tmp_path / "o" / "report.json", one, "--out", tmp_path / "p").ends(2, "report.json")
    assert command("report", tmp_path / "o" / "report.json", "--against", "one", "--out", tmp_path / "p").code == 2


def test_a_folder_of_folders_names_those_with_results(command: Any, tmp_path: Path, quick: None) -> None:
    for name, file in (("one", "scores.json"), ("two", "run.json")):
        (tmp_path / "evaluation" / name / "lasot_nl").mkdir(parents=True)
        (tmp_path / "evaluation" / name / "lasot_nl" / file).write_text("{}")
    for folder in (tmp_path / "evaluation", tmp_path / "evaluation" / "two"):
        done = command("report", folder, "--out", tmp_path / "o").ends(
            4, "holds folders of results", f"{tmp_path}/evaluation/two/lasot_nl"
        )
        assert "--data" not in done.err
    assert f"{tmp_path}/evaluation/one/lasot_nl" not in done.err


# -- with frames ------------------------------------------------------------------------------------


def clip(folder: Path, name: str, seed: int) -> Sequence:
    """A clip of its own: a bright target that moves, absent in two frames."""
    images = folder / name
    images.mkdir(parents=True)
    files, boxes = [], np.zeros((FRAMES, 4))
    for k in range(FRAMES):
        x, y = 10 + 2 * k, 20 + seed
        picture = np.full((96, 128, 3), 60, np.uint8)
        picture[y : y + 20, x : x + 24] = (30, 160, 240)
        files.append(images / f"{k + 1:04d}.png")
        cv2.imwrite(str(files[-1]), picture)
        boxes[k] = (x, y, 24, 20)
    absent = np.zeros(FRAMES, bool)
    absent[5:7] = True
    boxes[5:7] = 0
    return Sequence(
        name=name, source=images, files=tuple(files), boxes=boxes, absent=absent, sentence="the <b>bright</b> one"
    )


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    clips = tuple(clip(tmp_path / "data", name, seed) for seed, name in enumerate(SEQUENCES[:3]))
    data = Dataset(name="lasot", split="test", root=tmp_path / "data", sequences=clips)
    monkeypatch.setattr("vltrack.datasets.reader.open_dataset", lambda path, split: data)
    return data


def boxes_folder(folder: Path, dataset: Dataset, shift: float, aucs: list[float]) -> Path:
    """Result files of others, with scores beside them."""
    folder.mkdir()
    for sequence in dataset.sequences:
        moved = sequence.boxes + np.array([shift, 0, 0, 0])
        moved[5:7] = (5, 5, 24, 20)
        np.savetxt(folder / f"{sequence.name}.txt", moved, delimiter=",", fmt="%.3f")
    (folder / "scores.json").write_text(json.dumps(scores(folder.name, aucs, SEQUENCES[:3])))
    return folder


def test_worst_sequences_get_strips_and_sheets_and_redraw_without_the_data(
    command: Any, tmp_path: Path, dataset: Dataset
) -> None:
    one = boxes_folder(tmp_path / "one", dataset, 12.0, [50.0, 20.0, 60.0])
    two = boxes_folder(tmp_path / "two", dataset, 0.0, [55.0, 90.0, 59.0])
    out = tmp_path / "out"
    command("report", one, two, "--data", tmp_path / "data", "--worst", "2", "--out", out, "--format", "svg").ends(0)
    kept = json.loads((out / "report.json").read_text())
    assert [film["name"] for film in kept["films"]] == ["clip-1", "clip-0"]  # where one loses most against two
    film = kept["films"][0]
    assert film["absent"] == [[5, 7]] and film["sentence"] == "the <b>bright</b> one"
    lane, other = (lane["overlaps"] for lane in film["lanes"])
    assert lane[5] is None and lane[0] == pytest.approx(12 / 36, abs=1e-4) and other[0] == 1.0
    assert np.array(kept["likeness"]).reshape(3, 3)[0, 1:].tolist() == pytest.approx([1 / 3, 1.0], abs=1e-4)
    frames = [shot["frame"] for shot in film["snapshots"]]
    assert frames[0] == 0 and frames[-1] == FRAMES - 1 and len(frames) == 8
    written = {path.name for path in (out / "pictures").iterdir()}
    assert {"strip-1.svg", "sheet-1.svg", "strip-2.svg", "sheet-2.svg", "likeness.svg"} <= written
    page = (out / "report.html").read_text()
    assert "Largest loss of success AUC against two" in page

    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(one)
    command("report", out / "report.json", "--out", tmp_path / "again", "--format", "svg").ends(0)
    assert tree(tmp_path / "again") == tree(out)


def test_results_that_do_not_fit_are_scored_as_asked_or_the_way_is_told(
    command: Any, tmp_path: Path, dataset: Dataset, quick: None
) -> None:
    folder = boxes_folder(tmp_path / "one", dataset, 12.0, [50.0, 20.0, 60.0])
    (folder / "scores.json").unlink()
    short = folder / f"{SEQUENCES[1]}.txt"
    short.write_text("".join(short.read_text().splitlines(keepends=True)[:15]))
    words = ("report", folder, "--data", tmp_path / "data", "--out", tmp_path / "out", "--worst", "0")
    command(*words).ends(4, "--short")
    aucs = {}
    for way in ("misses", "cut"):
        command(*words, "--short", way, "--overwrite").ends(0)
        kept = json.loads((tmp_path / "out" / "report.json").read_text())
        assert f"--short {way}" in kept["command"] and kept["scores"][0]["place"] == "data"
        aucs[way] = kept["scores"][0]["rules"]["official"]["per_sequence"]["auc"]
    assert aucs["cut"][1] > aucs["misses"][1] and aucs["cut"][0] == aucs["misses"][0]
    assert command(*words, "--short", "never").code == 2
    command("report", tmp_path / "out" / "report.json", "--out", tmp_path / "p", "--short", "cut").ends(2, "short")

    short.unlink()
    command(*words, "--overwrite").ends(
        4, "has no result of 1 of 3 sequences", "--subset present --out FOLDER; then report the scores.json"
    )


def test_without_pictures_there_are_strips_only_and_it_is_said(
    command: Any, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    bare = tuple(
        Sequence(name=c.name, source=c.source, files=(), boxes=c.boxes, absent=c.absent) for c in dataset.sequences
    )
    data = Dataset(name="lasot", split="test", root=dataset.root, sequences=bare)
    monkeypatch.setattr("vltrack.datasets.reader.open_dataset", lambda path, split: data)
    one = boxes_folder(tmp_path / "one", dataset, 12.0, [50.0, 20.0, 60.0])
    command("report", one, "--data", tmp_path / "data", "--worst", "1", "--out", tmp_path / "out").ends(
        0, "only the annotation"
    )
    film = json.loads((tmp_path / "out" / "report.json").read_text())["films"][0]
    assert film["name"] == "clip-1" and film["snapshots"] == [] and len(film["lanes"][0]["overlaps"]) == FRAMES


def test_data_that_was_not_scored_is_refused(
    command: Any, tmp_path: Path, dataset: Dataset, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = saved(tmp_path, "one", spread(50), data="tnl2k", split="val")
    opened = []
    monkeypatch.setattr("vltrack.datasets.reader.open_dataset", lambda path, split: opened.append(split) or dataset)
    command("report", other, "--data", tmp_path / "data", "--out", tmp_path / "out").ends(
        2, "The data are lasot, the scores are of tnl2k val"
    )
    assert opened == ["val"]  # the split that was scored


def test_a_folder_without_scores_is_scored(command: Any, tmp_path: Path, dataset: Dataset, quick: None) -> None:
    """The boxes are 12 of 24 pixels off: overlap 1/3, above 7 of 21 thresholds, the first frame given."""
    one = boxes_folder(tmp_path / "one", dataset, 12.0, [0.0] * 3)
    (one / "scores.json").unlink()
    command("report", one, "--data", tmp_path / "data", "--worst", "0", "--out", tmp_path / "out", "--json").ends(0)
    kept = json.loads((tmp_path / "out" / "report.json").read_text())["scores"][0]["rules"]["official"]
    assert kept["auc"] == pytest.approx(100 * (20 / 21 + 17 * 7 / 21) / FRAMES)


def test_short_results_are_no_crash() -> None:
    rows = report_evidence._fitted(np.ones((3, 4)), 5)
    assert rows.shape == (5, 4) and np.isnan(rows[3:]).all() and (rows[:3] == 1).all()

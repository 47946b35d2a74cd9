"""VOT results on disk: miniatures of each experiment scored from their files, and all that can be wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from vltrack.core.errors import DataError, UsageError
from vltrack.evaluation.harnesses.vot import Rectangle, Special, parse_regions
from vltrack.evaluation.vot import score_vot
from vltrack.evaluation.vot_files import read_truth
from vltrack.metrics.eao import Run, supervised
from vltrack.metrics.referral import result_name

SQUARE = "10,10,30,10,30,30,10,30"
# Truth: columns and rows 10..30, 441 pixels. "Half": 10..20, 11 x 21 = 231 of them: overlap 231 / 441.
HALF = "10,10,10,20"
SHARE = 231 / 441


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))
    return path


@pytest.fixture
def supervised_tree(tmp_path: Path) -> Path:
    """VOT2019 as pysot has it: two sequences of 60 and 50 frames, one tracker with two repetitions."""
    table = {
        name: {
            "video_dir": name,
            "init_rect": [10, 10, 20, 20],
            "img_names": [f"{name}/color/00000001.jpg"],
            "gt_rect": [[10, 10, 30, 10, 30, 30, 10, 30]] * frames,
            "occlusion": [1] * frames,
            "size_change": [],
        }
        for name, frames in (("ants1", 60), ("ball", 50))
    }
    (tmp_path / "VOT2019.json").write_text(json.dumps(table))
    baseline = tmp_path / "results" / "ours" / "baseline"
    for repetition in ("001", "002"):
        write(baseline / "ants1" / f"ants1_{repetition}.txt", "1", *[HALF] * 59)
        # Fails in frame 20, starts again in frame 25.
        write(
            baseline / "ball" / f"ball_{repetition}.txt",
            "1",
            *[SQUARE] * 18,
            "2",
            *["0"] * 4,
            "1",
            *[HALF] * 25,
        )
    write(baseline / "ants1" / "ants1_time.txt", "0.1")
    return tmp_path


def test_supervised_by_hand(supervised_tree: Path) -> None:
    told = score_vot(supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json")
    assert (told["tracker"], told["data"], told["year"]) == ("ours", "VOT2019", 2019)
    assert (told["experiment"], told["repetitions"], told["window"]) == ("supervised", 2, [46, 291])
    # Accuracy: ants1 has 50 frames of SHARE; ball frames 11..19 of 1 and 35..50 of SHARE.
    assert told["accuracy"] == pytest.approx((50 * SHARE + 9 + 16 * SHARE) / 75)
    assert told["failures"] == 1
    assert told["robustness"] == pytest.approx(100 / 110)
    # Lengths 46..60: ants1 SHARE, the failed fragment 18 / (L - 1), the last one of 26 frames is over.
    expected = [(SHARE + 18 / (length - 1)) / 2 for length in range(46, 61)]
    assert told["eao"] == pytest.approx(sum(expected) / 15)
    assert told["eao_by_tag"] == {"occlusion": pytest.approx(told["eao"])}
    assert told["sequences"][1]["name"] == "ball"
    assert any("Frame sizes are not known" in note for note in told["notes"])
    json.dumps(told, allow_nan=False)
    # The folder inside, or the folder of the JSON, are as good.
    again = score_vot(supervised_tree / "results" / "ours" / "baseline", supervised_tree, year=2019)
    assert again == told | {"data": supervised_tree.name}
    assert score_vot(supervised_tree / "results", supervised_tree / "VOT2019.json") == told
    (supervised_tree / "results" / "theirs" / "baseline").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds 2 trackers: ours, theirs\."):
        score_vot(supervised_tree / "results", supervised_tree / "VOT2019.json")


def test_the_toolkits_folder_gives_the_same(supervised_tree: Path) -> None:
    wanted = score_vot(supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json")
    home = supervised_tree / "vot2019" / "sequences"
    for name, frames in (("ants1", 60), ("ball", 50)):
        write(home / name / "groundtruth.txt", *[SQUARE] * frames)
        write(home / name / "occlusion.tag", *["1"] * frames)
    write(home / "list.txt", "ants1", "ball")
    told = score_vot(supervised_tree / "results" / "ours", home.parent)
    assert (told["data"], told["eao"], told["accuracy"]) == ("vot2019", wanted["eao"], wanted["accuracy"])
    assert told["eao_by_tag"] == wanted["eao_by_tag"]
    # A picture tells the size: nothing counts beyond column 19, so the half is whole.
    (home / "ants1" / "color").mkdir()
    cv2.imwrite(str(home / "ants1" / "color" / "00000001.jpg"), np.zeros((40, 20, 3), np.uint8))
    write(home / "ball" / "sequence", "name=ball", "width = 20", "height=40", "fps=30")
    (home / "list.txt").unlink()
    told = score_vot(supervised_tree / "results" / "ours", home)
    assert (told["accuracy"], told["year"]) == (1, 2019)
    assert told["notes"] == []


def test_order_of_sequences_and_extra_results_do_not_matter(supervised_tree: Path) -> None:
    path = supervised_tree / "VOT2019.json"
    wanted = score_vot(supervised_tree / "results" / "ours", path)
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    write(supervised_tree / "results" / "ours" / "baseline" / "zebra" / "zebra_001.txt", "1")
    told = score_vot(supervised_tree / "results" / "ours", path)
    assert told["eao"] == pytest.approx(wanted["eao"], abs=1e-12)
    assert [row["name"] for row in told["sequences"]] == ["ball", "ants1"]


def test_binary_results_read_as_text_does(supervised_tree: Path) -> None:
    wanted = score_vot(supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json")
    folder = supervised_tree / "results" / "ours" / "baseline" / "ants1"
    box = struct.pack("<B4f", 1, 10, 10, 10, 20)
    for path in sorted(folder.glob("ants1_00*.txt")):
        path.with_suffix(".bin").write_bytes(struct.pack("<hIBI", 1, 60, 0, 1) + box * 59)
        path.unlink()
    assert score_vot(supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json") == wanted


def test_lines_too_many_are_cut_and_too_few_refused(supervised_tree: Path) -> None:
    path = supervised_tree / "results" / "ours" / "baseline" / "ants1" / "ants1_002.txt"
    wanted = score_vot(supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json")
    write(path, "1", *[HALF] * 59, "2", "0")
    told = score_vot(supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json")
    assert (told["eao"], told["failures"]) == (wanted["eao"], 1)
    assert "ants1_002.txt has 62 lines for 60 frames" in told["notes"][0]
    write(path, "1", *[HALF] * 58)
    with pytest.raises(DataError, match=r"ants1_002\.txt has 59 lines for 60 frames"):
        score_vot(supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json")
    write(path, *[HALF] * 60)
    with pytest.raises(DataError, match=r"ants1_002\.txt: the result does not begin with code 1"):
        score_vot(supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json")
    write(path, "1", *[HALF] * 9, "10,10,x,20", *[HALF] * 49)
    with pytest.raises(DataError, match=r"ants1_002\.txt:11: "):
        score_vot(supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json")
    path.unlink()
    told = score_vot(supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json")
    assert told["eao"] == pytest.approx(wanted["eao"])
    assert "1 to 2 repetitions" in told["notes"][0]


def test_missing_results_are_named_at_once(supervised_tree: Path, tmp_path: Path) -> None:
    for name in ("ants1", "ball"):
        for path in (supervised_tree / "results" / "ours" / "baseline" / name).glob("*.txt"):
            path.unlink()
    with pytest.raises(DataError, match=r"lacks 2 of 2 results: ants1, ball\."):
        score_vot(supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json")
    with pytest.raises(DataError, match="is no folder"):
        score_vot(tmp_path / "none", supervised_tree / "VOT2019.json")


def test_the_year_decides(supervised_tree: Path) -> None:
    results, truth = supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json"
    by_2018 = score_vot(results, truth, year=2018)
    assert (by_2018["eao"], by_2018["window"]) == (None, [100, 356])
    assert any("No sequence has 100 frames" in note for note in by_2018["notes"])
    assert score_vot(results, truth, year=2013)["window"] is None
    nameless = truth.rename(supervised_tree / "truth.json")
    with pytest.raises(UsageError, match="the year of the VOT challenge cannot be told"):
        score_vot(results, nameless)
    with pytest.raises(UsageError, match="VOT 2019 is supervised, not referral"):
        score_vot(results, nameless, year=2019, kind="referral")
    for year in (2012, 2023, 2025):
        with pytest.raises(UsageError, match="no experiment that is scored here"):
            score_vot(results, nameless, year=year)
    with pytest.raises(DataError, match=r"2 sequences have no anchor, such as ants1"):
        score_vot(results, nameless, year=2021)
    with pytest.raises(DataError, match=r"2 sequences have no prompts, such as ants1"):
        score_vot(results, nameless, kind="referral")


def test_multistart_from_files(tmp_path: Path) -> None:
    home = tmp_path / "vot2022"
    write(home / "car" / "groundtruth.txt", *["10,10,20,20"] * 130)
    write(home / "car" / "anchor.value", "1", *["0"] * 128, "-1")
    write(home / "car" / "sequence", "width=100", "height=100")
    results = tmp_path / "ours"
    write(results / "baseline" / "car" / "car_00000000.txt", "1", *["10,10,20,20"] * 129)
    # 20 x 10 of 20 x 20 pixels: overlap 0.5.
    write(results / "baseline" / "car" / "car_00000129.txt", "1", *["10,10,20,10"] * 129)
    for told in (score_vot(results, home), score_vot(results, home, kind="multistart", year=2021)):
        assert told["experiment"] == "multistart"
        assert told["eao"] == pytest.approx(0.75)
        assert told["accuracy"] == pytest.approx(129 * 1.5 / 260)
        assert (told["robustness"], told["runs"], told["notes"]) == (1, 2, [])
    (results / "baseline" / "car" / "car_00000129.txt").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 2 results: car_00000129\."):
        score_vot(results, home)
    write(home / "car" / "anchor.value", "1", "x")
    with pytest.raises(DataError, match=r"anchor\.value holds something"):
        score_vot(results, home)
    write(home / "car" / "anchor.value", *["1"] * 131)
    with pytest.raises(DataError, match=r"anchor\.value has 131 lines for 130 frames"):
        score_vot(results, home)


def test_anchors_tell_the_kind_and_short_runs_have_no_eao(tmp_path: Path) -> None:
    home = tmp_path / "mine"
    write(home / "car" / "groundtruth.txt", *["10,10,20,20"] * 20)
    write(home / "car" / "anchor.value", "1")
    write(tmp_path / "ours" / "car" / "car_00000000.txt", "1", *["10,10,20,20"] * 19)
    told = score_vot(tmp_path / "ours", home)
    assert (told["experiment"], told["eao"], told["tracker"]) == ("multistart", None, "ours")
    assert any("No run is as long as 115 frames" in note for note in told["notes"])


def test_referral_from_files(tmp_path: Path) -> None:
    home, prompts = tmp_path / "vots2026", ("the red car", " a car")
    full, half = "m0,0,4,4,0,16", "m0,0,4,2,0,8"
    write(home / "car" / "groundtruth_object1.txt", full, "0", full)
    write(home / "car" / "groundtruth__ignore.txt", "0", "0", "m0,2,4,2,0,8")
    write(home / "car" / "sequence", "width=20", "height=20", "prompts=" + ";".join(prompts))
    folder = tmp_path / "ours" / "baseline" / "car"
    write(folder / (result_name("car", prompts[0]) + ".txt"), half, half, half)
    with pytest.raises(DataError, match=r"lacks 1 of 2 results: car_[0-9a-f]{8} \(' a car'\)"):
        score_vot(tmp_path / "ours", home)
    write(folder / (result_name("car", prompts[1]) + ".txt"), "0,0,4,4", full, full)
    # The first sentence: 0.5 and, with rows 2 and 3 ignored, 1; the second: a box counts as empty, 0, and 1.
    told = score_vot(tmp_path / "ours", home)
    assert told["experiment"] == "referral"
    assert told["accuracy"] == pytest.approx(2.5 / 4)
    assert (told["pairs"], told["not_masks"]) == (4, 1)
    assert "1 of 4 predictions are boxes" in told["notes"][0]
    filled = score_vot(tmp_path / "ours", home, boxes_as_masks=True)
    assert filled["accuracy"] == pytest.approx(3.5 / 4)
    assert filled["notes"] == []
    write(home / "car" / "groundtruth_object2.txt", full, "0", full)
    with pytest.raises(DataError, match="has 2 objects"):
        score_vot(tmp_path / "ours", home)


def test_truth_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_truth(tmp_path / "none")
    with pytest.raises(DataError, match="holds no VOT data set"):
        read_truth(tmp_path)
    path = tmp_path / "VOT2018.json"
    for value, words in (
        ([], "is no table"),
        ({"ants1": {}}, "'ants1' has no gt_rect"),
        ({"ants1": {"gt_rect": [[1, 2, 3, 4], [1, 2]]}}, "ants1 frame 2: 2 numbers"),
        ({"ants1": {"gt_rect": [["x", 2, 3, 4]]}}, "ants1 frame 1: "),
        ({"ants1": {"gt_rect": [[None, 2, 3, 4]]}}, "ants1 frame 1: "),
    ):
        path.write_text(json.dumps(value))
        with pytest.raises(DataError, match=words):
            read_truth(path)
    write(tmp_path / "a" / "groundtruth.txt")
    with pytest.raises(DataError, match="is empty"):
        read_truth(tmp_path)
    write(tmp_path / "list.txt", "a", "b")
    with pytest.raises(DataError, match=r"names 1 sequences without groundtruth\.txt: b\."):
        read_truth(tmp_path)
    write(tmp_path / "list.txt", "../a")
    with pytest.raises(DataError, match="is no name of a folder"):
        read_truth(tmp_path)


def test_forms_of_a_row_of_json(tmp_path: Path) -> None:
    path = tmp_path / "VOT2013.json"
    entry = {"gt_rect": [[1, 2, 3, 4], [[1, 2, 3, 4]], 0], "occlusion": [1], "width": 640, "height": 480}
    path.write_text(json.dumps({"a": entry}))
    (sequence,) = read_truth(path)
    assert sequence.truth == (Rectangle(1, 2, 3, 4), Rectangle(1, 2, 3, 4), Special(0))
    assert sequence.tags["occlusion"].tolist() == [True, False, False]
    assert sequence.size == (640, 480)


def test_the_folder_and_the_arrays_agree(supervised_tree: Path) -> None:
    told = score_vot(supervised_tree / "results" / "ours", supervised_tree / "VOT2019.json")
    runs = [
        Run.of(sequence.name, parse_regions(path.read_text(), path.name), sequence.truth)
        for sequence in read_truth(supervised_tree / "VOT2019.json")
        for path in sorted((supervised_tree / "results" / "ours").rglob(f"{sequence.name}_00?.txt"))
    ]
    assert len(runs) == 4
    assert supervised(runs, (46, 291)).eao == told["eao"]


def test_the_command_scores_them(supervised_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vltrack.cli import main

    words = ["evaluate", str(supervised_tree / "results" / "ours"), "--data"]
    assert main.main([*words, str(supervised_tree / "VOT2019.json")]) == 0  # the name says which
    table = capsys.readouterr().out
    assert "EAO" in table
    assert main.main([*words, str(supervised_tree), "--vot", "supervised", "--year", "2019", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert f"{told['eao']:.3f}" in table
    assert told["failures"] == 1

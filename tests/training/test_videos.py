"""Samples from videos and annotated images: geometry, modes, absent and damaged frames, the index, the sources."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vltrack.core.errors import ConfigError, DataError, UsageError
from vltrack.core.types import Mode
from vltrack.datasets.catalogue import write_miniature
from vltrack.datasets.synthetic import synthesize
from vltrack.training import sources
from vltrack.training.data import Material, PairDataset, TextEncoding, prepare_data
from vltrack.training.pairs.sampler import PairConfig
from vltrack.training.recipes import TrainConfig, litetrack_base
from vltrack.training.sources import find_sources, read_targets
from vltrack.training.videos import AnnotatedTarget, TargetIndex, TargetSampler, _draw_frames

PLAIN = PairConfig(gray_share=0, brightness=0, negative_share=0, template_size=64, search_size=128)
SIZE = (200, 150)


def video(folder: Path, boxes: list[Any], **options: Any) -> AnnotatedTarget:
    """White rectangles on black at the boxes; a frame without a box is red."""
    folder.mkdir(parents=True)
    for number, box in enumerate(boxes):
        image = np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)
        if box is None:
            image[..., 2] = 255
        else:
            x, y, w, h = box
            image[y : y + h, x : x + w] = 255
        cv2.imwrite(str(folder / f"{number:04d}.png"), image)
    table = np.array([(np.nan,) * 4 if box is None else box for box in boxes], dtype=np.float32)
    files = [folder / f"{number:04d}.png" for number in range(len(boxes))]
    return AnnotatedTarget(name=folder.name, files=files, boxes=table, **options)


def sampler(folder: Path, *targets: AnnotatedTarget) -> TargetSampler:
    TargetIndex.build(targets, folder)
    return TargetSampler(TargetIndex(folder))


def moving(count: int) -> list[tuple[int, int, int, int]]:
    return [(60 + k, 50 + k // 2, 30, 20) for k in range(count)]


def bounds(view: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(view[..., 1] > 127)
    return np.array([columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1])


@pytest.mark.parametrize("mode", [Mode.BBOX, Mode.NLBBOX, Mode.NL])
def test_boxes_lie_on_the_target_in_every_view(mode: Mode, tmp_path: Path) -> None:
    drawn = sampler(tmp_path / "index", video(tmp_path / "a", moving(40), sentences=("the white block",)))
    for seed in range(30):
        sample = drawn.sample(PLAIN, mode, np.random.default_rng(seed))
        assert sample.mode == str(mode)
        assert sample.text == ("" if mode is Mode.BBOX else "the white block")
        assert sample.present.all()
        np.testing.assert_allclose(bounds(sample.template), sample.template_box, atol=1.5)
        for view, box in zip(sample.searches, sample.boxes, strict=True):
            low, high = box[:2].clip(0, 128), (box[:2] + box[2:]).clip(0, 128)
            np.testing.assert_allclose(bounds(view), [*low, *(high - low)], atol=2)


def test_frames_are_within_the_gaps_and_absent_ones_are_never_used(tmp_path: Path) -> None:
    boxes: list[Any] = [box if k % 3 else None for k, box in enumerate(moving(60))]
    target = video(tmp_path / "a", boxes)
    config = PairConfig(max_gap=9, view_gap=4)
    for seed in range(200):
        template, first, second = _draw_frames(target, config, np.random.default_rng(seed))
        assert 0 < abs(first - template) <= 9
        assert 0 < abs(second - first) <= 4
        assert all(boxes[frame] is not None for frame in (template, first, second))


def test_a_single_image_serves_for_all_views(tmp_path: Path) -> None:
    sample = sampler(tmp_path / "index", video(tmp_path / "a", moving(1))).sample(
        PLAIN, Mode.BBOX, np.random.default_rng(0)
    )
    assert sample.present.all()


def test_without_a_sentence_the_sample_is_box_only(tmp_path: Path) -> None:
    drawn = sampler(tmp_path / "index", video(tmp_path / "a", moving(5)))
    assert not drawn.has_text
    sample = drawn.sample(PLAIN, Mode.NLBBOX, np.random.default_rng(0))
    assert (sample.mode, sample.text) == ("bbox", "")


def test_a_sentence_with_a_side_is_never_mirrored(tmp_path: Path) -> None:
    boxes = [(10, 50, 20, 20)] * 3
    config = PairConfig(flip_share=1.0, gray_share=0, brightness=0, negative_share=0)
    for text, is_left in (("the block on the left", True), ("the block", False)):
        drawn = sampler(tmp_path / f"{is_left}", video(tmp_path / text, boxes, sentences=(text,)))
        sample = drawn.sample(config, Mode.NL, np.random.default_rng(0))
        assert (sample.boxes[:, 0] < config.search_size / 2).all() == is_left


def test_negative_views_show_another_target(tmp_path: Path) -> None:
    targets = [video(tmp_path / "a", moving(9)), video(tmp_path / "b", [(20, 90, 60, 30)] * 9)]
    drawn = sampler(tmp_path / "index", *targets)
    config = PairConfig(negative_share=1.0)
    sample = drawn.sample(config, Mode.BBOX, np.random.default_rng(1))
    assert not sample.present.any()
    assert (sample.boxes == sample.boxes[0]).all()


def test_half_of_the_negative_views_show_what_is_beside_the_target(tmp_path: Path) -> None:
    drawn = sampler(tmp_path / "index", video(tmp_path / "a", [(10, 10, 12, 12)] * 9, sentences=("the box",)))
    config = replace(PLAIN, negative_share=1.0)
    whites = [
        int((view == 255).all(axis=-1).sum())
        for seed in range(30)
        for view in drawn.sample(config, Mode.BBOX, np.random.default_rng(seed)).searches
    ]
    # There is no other target: the other half shows this one.
    assert 15 < sum(white == 0 for white in whites) < 45


@pytest.mark.fault("D07")
def test_few_damaged_images_are_replaced_and_many_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = video(tmp_path / "a", moving(9)), video(tmp_path / "b", moving(9))
    for file in bad.files:
        file.write_bytes(file.read_bytes()[:60])
    drawn = sampler(tmp_path / "index", *[good] * 9, bad)
    rng = np.random.default_rng(3)
    with caplog.at_level(logging.WARNING, logger="vltrack"):
        while drawn._damaged == 0:
            drawn.sample(PLAIN, Mode.BBOX, rng)
    assert str(bad.files[0].parent) in caplog.text
    with pytest.raises(DataError, match="damaged") as refused:
        for _ in range(500):
            drawn.sample(PLAIN, Mode.BBOX, rng)
    assert refused.value.exit_code == 4
    assert str(bad.files[0].parent) in refused.value.message
    # What takes the place of a damaged sample depends on the seed alone.
    for seed in range(20):
        pair = [TargetSampler(drawn.index).sample(PLAIN, Mode.BBOX, np.random.default_rng(seed)) for _ in range(2)]
        assert np.array_equal(pair[0].searches, pair[1].searches)


@pytest.mark.fault("D14")
def test_data_without_a_usable_sample_end_the_run(tmp_path: Path) -> None:
    (clip,) = synthesize(tmp_path / "clips", 1, 12, 0)
    (clip / "groundtruth.txt").write_text("0,0,0,0\n" * 12)
    with pytest.raises(DataError, match="clips has no target") as refused:
        prepare_data(litetrack_base(), find_sources([tmp_path / "clips"]), tmp_path / "run")
    assert refused.value.exit_code == 4
    bad = video(tmp_path / "bad", moving(9))
    for file in bad.files:
        file.write_bytes(b"")
    drawn = sampler(tmp_path / "index", bad)
    for draw in (lambda rng: drawn.sample(PLAIN, Mode.BBOX, rng), lambda rng: drawn.clip(4, rng)):
        with pytest.raises(DataError, match="damaged"):
            draw(np.random.default_rng(0))


def test_clips_are_consecutive_frames_from_one_that_shows_the_target(tmp_path: Path) -> None:
    boxes: list[Any] = [None, None, *moving(12)]
    boxes[6] = None
    drawn = sampler(tmp_path / "index", video(tmp_path / "a", boxes))
    for seed in range(20):
        clip = drawn.clip(6, np.random.default_rng(seed))
        assert 2 <= len(clip.frames) <= 6
        assert not clip.absent[0]
        for frame, box, absent in zip(clip.frames, clip.boxes, clip.absent, strict=True):
            if absent:
                assert (frame[..., 0] == 255).all()
            else:
                np.testing.assert_allclose(bounds(frame), box, atol=1)


def test_large_frames_of_clips_are_reduced_with_their_boxes(tmp_path: Path) -> None:
    drawn = sampler(tmp_path / "index", video(tmp_path / "a", [(10, 10, 150, 120)] * 4))
    clip = drawn.clip(4, np.random.default_rng(0))
    assert clip.frames.shape[1] < SIZE[1]
    assert np.sqrt(clip.boxes[0, 2:].prod()) == pytest.approx(96, abs=1)
    np.testing.assert_allclose(bounds(clip.frames[0]), clip.boxes[0], atol=1.5)


def test_the_index_returns_what_was_written(tmp_path: Path) -> None:
    odd = [tmp_path / "b" / name for name in ("x2.jpg", "x10.jpg")]
    targets = [
        video(tmp_path / "a", [None, *moving(3)], sentences=("ein Bär", "two")),
        AnnotatedTarget(name="never seen", files=odd, boxes=np.full((2, 4), np.nan, dtype=np.float32)),
        AnnotatedTarget(name="b", files=odd, boxes=np.ones((2, 4), dtype=np.float32)),
    ]
    assert TargetIndex.build(targets, tmp_path / "index") == 2
    index = TargetIndex(tmp_path / "index")
    assert (len(index), index.images, index.has_text.tolist()) == (2, 6, [True, False])
    for number, target in ((0, targets[0]), (1, targets[2])):
        found = index[number]
        assert (found.name, list(found.files), found.sentences) == (target.name, list(target.files), target.sentences)
        np.testing.assert_array_equal(found.boxes, target.boxes)
    (tmp_path / "index" / "rows.npy").write_bytes(b"")
    with pytest.raises(DataError, match="index"):
        TargetIndex(tmp_path / "index")


def test_modes_and_data_sets_are_drawn_by_their_shares(tmp_path: Path) -> None:
    with_text = video(tmp_path / "a", moving(5), sentences=("the white block",))
    for name, target in (("text", with_text), ("plain", video(tmp_path / "b", moving(5)))):
        TargetIndex.build([target], tmp_path / name)
    material = Material(indexed={tmp_path / "text": 1.0, tmp_path / "plain": 3.0})
    config = PairConfig(scene_share=0.3, text_share=0.4, template_size=32, search_size=32)
    pairs = PairDataset(config, material, TextEncoding(vocabulary="bert", length=8), seed=1)
    samples = [pairs[index] for index in range(800)]
    flags = Counter(list(Mode)[int(sample["flag"])] for sample in samples)
    # All samples from text alone, and a quarter of those with box and text, come from the set with sentences.
    assert flags[Mode.NL] / 800 == pytest.approx(0.3, abs=0.05)
    assert flags[Mode.NLBBOX] / 800 == pytest.approx(0.1, abs=0.04)
    assert all(a["flag"] == b["flag"] for a, b in zip(samples[::2], samples[1::2], strict=True))
    again = PairDataset(config, material, TextEncoding(vocabulary="bert", length=8), seed=1)[7]
    assert all(np.array_equal(again[key], samples[7][key]) for key in again)


def test_sources_are_found_by_name_by_folder_and_in_a_folder_of_data_sets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("lasot", "refcoco", "uav123", "folder"):
        write_miniature(name, tmp_path / "data" / name)
    (tmp_path / "data" / "other").mkdir()
    lasot = tmp_path / "data" / "lasot"
    assert [source.name for source in find_sources([f"lasot={lasot}", lasot])] == ["lasot"]
    with caplog.at_level(logging.WARNING, logger="vltrack"):
        found = find_sources([tmp_path / "data"])
    assert [source.name for source in found] == ["folder", "lasot", "refcoco"]
    assert "uav123 is left out: it has no training split" in caplog.text
    assert "other is left out" in caplog.text
    with pytest.raises(UsageError, match="'laso'") as unknown:
        find_sources(["laso=nowhere"])
    assert "lasot" in unknown.value.hint
    with pytest.raises(DataError, match="nothing to train on"):
        find_sources([tmp_path / "data" / "other"])
    with pytest.raises(DataError, match="UAV123 has no training split"):
        list(read_targets(*find_sources([f"uav123={tmp_path / 'data' / 'uav123'}"]), None))


def test_one_clip_of_a_folder_is_a_source_of_its_own(tmp_path: Path) -> None:
    write_miniature("folder", tmp_path / "clips")
    one, every = find_sources([tmp_path / "clips" / "my-dog"])[0], find_sources([tmp_path / "clips"])[0]
    assert (one.name, one.root.name, every.root.name) == ("folder", "my-dog", "clips")


def test_a_run_that_is_refused_for_its_data_leaves_nothing(tmp_path: Path) -> None:
    write_miniature("uav123", tmp_path / "uav123")
    config, given = litetrack_base(), find_sources([f"uav123={tmp_path / 'uav123'}"])
    with pytest.raises(DataError, match="no training split"):
        prepare_data(config, given, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["uav123"]
    with pytest.raises(ConfigError, match="'lasott'") as unknown:
        prepare_data(replace(config, ratios=("lasott=1",)), given, tmp_path)
    assert "lasot" in unknown.value.hint


def test_the_training_split_is_read_without_absent_frames(tmp_path: Path) -> None:
    write_miniature("tnl2k", tmp_path / "tnl2k")
    first, second = read_targets(*find_sources([tmp_path / "tnl2k"]), None)
    assert {first.name, second.name} == {"INF_run1", "Fight_video_6-Done"}
    fight, run = (first, second) if first.name.startswith("Fight") else (second, first)
    assert np.flatnonzero(np.isnan(fight.boxes[:, 0])).tolist() == [4]
    assert len(fight.sentences) == 1
    assert run.sentences == ()  # its file of the sentence is empty


def test_a_category_is_a_sentence_only_where_the_image_has_one_of_it(tmp_path: Path) -> None:
    write_miniature("coco2017", tmp_path / "coco2017")
    (source,) = find_sources([tmp_path / "coco2017"])
    targets = list(read_targets(source, None))
    texts = Counter((target.files[0], text) for target in targets for text in target.sentences)
    assert texts
    assert set(texts.values()) == {1}
    assert all(target.boxes[0, 2:].min() > sources.COCO_MIN_SIDE for target in targets)


def test_unreadable_sequences_are_left_out_where_they_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_miniature("tnl2k", tmp_path / "tnl2k")
    (tmp_path / "tnl2k" / "train" / "INF_run1" / "groundtruth.txt").write_text("1,2,3,4\n")
    (source,) = find_sources([tmp_path / "tnl2k"])
    with pytest.raises(DataError, match="INF_run1"):
        list(read_targets(source, None))
    monkeypatch.setattr(sources, "DAMAGED_ALLOWED", 0.6)
    with caplog.at_level(logging.WARNING, logger="vltrack"):
        (kept,) = read_targets(source, None)
    assert kept.name.startswith("Fight")
    assert "left out 1 unreadable sequence" in caplog.text


def test_a_missing_list_of_a_split_falls_back_to_the_training_split(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_miniature("got10k", tmp_path / "got10k")
    (source,) = find_sources([tmp_path / "got10k"])
    split, ratio = litetrack_base().ratio_of("got10k")
    assert (split, ratio) == ("vot_train", 1.0)
    with caplog.at_level(logging.WARNING, logger="vltrack"):
        (target,) = read_targets(source, split)
    assert "vot_train is missing" in caplog.text
    assert target.name == "GOT-10k_Train_000001"


@pytest.mark.fault("C14")
@pytest.mark.parametrize("text", ["lasot", "lasot=x", "=1", "lasot=-1", "lasot=inf"])
def test_a_bad_ratio_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="ratios"):
        TrainConfig(model="litetrack", size="tiny", ratios=(text,))


def test_distractor_pairs_need_no_still_images(tmp_path: Path) -> None:
    TargetIndex.build([video(tmp_path / "b", moving(5), sentences=("a block",))], tmp_path / "text")
    config = PairConfig(scene_share=1.0, text_share=0.0, distractor_share=1.0)
    texts = TextEncoding(vocabulary="bert", length=8)
    pairs = PairDataset(config, Material(indexed={tmp_path / "text": 1.0}), texts, seed=1)
    one, other = pairs[0], pairs[1]
    assert not np.array_equal(one["box"], other["box"])
    assert not np.array_equal(one["ids"], other["ids"])
    assert one["words"].any()

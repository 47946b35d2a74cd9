"""``FrameReader``: the frames of one pass, in any order."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from vltrack.api.inputs import demo_clip
from vltrack.core.errors import BoxFrameOutOfRange, VideoNotFound
from vltrack.datasets.synthetic import write_image
from vltrack.video.reader import FrameReader
from vltrack.video.source import open_source
from vltrack.video.writer import VideoWriter


@pytest.fixture(params=["clip.mp4", "made.mkv", "folder"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The clip that ships (with B-frames), a Matroska file with several key frames, a folder of images."""
    if request.param == "clip.mp4":
        return demo_clip()[0]
    random_images = np.random.default_rng(1).integers(0, 255, (70, 48, 64, 3), dtype=np.uint8)
    path = tmp_path / request.param
    if request.param == "folder":
        path.mkdir()
        for number, image in enumerate(random_images[:9]):
            write_image(path / f"{number}.png", image)
        return path
    with VideoWriter(path, width=64, height=48) as video:
        for image in random_images:
            video.write(image)
    return path


def test_any_order_gives_the_frames_of_one_pass(source: Path) -> None:
    with open_source(source) as frames:
        expected = [(frame.index, frame.seconds, frame.image) for frame in frames]
    order = list(range(len(expected)))
    random.Random(3).shuffle(order)
    with FrameReader(source) as reader:
        assert reader.frames == len(expected)
        for index in [*order, *range(5), 4, 3, 2]:
            frame = reader.read(index)
            assert (frame.index, frame.seconds) == pytest.approx(expected[index][:2])
            assert np.array_equal(frame.image, expected[index][2])  # type: ignore[arg-type]
        for index in (len(expected), -1):
            with pytest.raises(BoxFrameOutOfRange):
                reader.read(index)
        assert reader.read(0).index == 0


def test_frames_from_one_on_are_a_source(source: Path) -> None:
    with open_source(source) as frames:
        expected = [(frame.index, frame.image) for frame in frames][5:]
    with FrameReader(source).frames_from(5) as frames:
        assert frames.info.frames == len(expected)
        found = [(frame.index, frame.image) for frame in frames]
    assert [index for index, _ in found] == [index for index, _ in expected]
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(found, expected, strict=True))  # type: ignore[arg-type]
    assert frames.report.failure is None


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(VideoNotFound):
        FrameReader(tmp_path / "missing.mp4")


def test_a_decoder_that_dies_is_replaced(source: Path) -> None:
    with FrameReader(source) as reader:
        first = reader.read(3)
        reader.close()
        assert np.array_equal(reader.read(3).image, first.image)  # type: ignore[arg-type]

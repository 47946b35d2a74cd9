"""What a name stands for, what comes through standard input, and real videos whose frame counts are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vltrack.core.errors import UsageError
from vltrack.video.base import prefetch
from vltrack.video.images import image_size, is_cut, natural_key, sort_images
from vltrack.video.source import Limits, is_address, open_source, playlist_kind
from vltrack.video.writer import VideoWriter


def _clip(path: Path, count: int = 20) -> Path:
    with VideoWriter(path, width=64, height=48, rate=25) as writer:
        for number in range(count):
            writer.write(np.full((48, 64, 3), 10 * number, np.uint8))
    return path


def test_a_slice_must_run_forward(tmp_path: Path) -> None:
    for wrong in ({"start": -1}, {"stride": 0}, {"start": 5, "end": 5}):
        with pytest.raises(UsageError):
            open_source(tmp_path, **wrong)  # type: ignore[arg-type]
    for limit in ({"max_pixels": 0}, {"memory_bytes": 1}, {"frame_timeout_s": 0}, {"bad_share": 2}):
        with pytest.raises(UsageError):
            Limits(**limit)  # type: ignore[arg-type]


def test_slices_of_folders_globs_and_single_images(tmp_path: Path) -> None:
    for number in range(10):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 9, 3), 20 * number, np.uint8))
    with open_source(tmp_path, start=2, end=9, stride=3) as source:
        assert [(f.index, int(f.image[0, 0, 0])) for f in source if f.image is not None] == [
            (2, 40),
            (5, 100),
            (8, 160),
        ]
        assert source.info.frames == 10
    with open_source(tmp_path, start=50) as source:
        assert list(source) == []
        assert (source.info.width, source.info.height) == (9, 8)
    with open_source(str(tmp_path / "[34].png")) as source:
        assert [int(f.image[0, 0, 0]) for f in source if f.image is not None] == [60, 80]
        assert source.info.kind == "frames"
    with open_source(tmp_path / "7.png") as source:
        assert [int(f.image[0, 0, 0]) for f in source if f.image is not None] == [140]


def test_a_video_through_prefetch_that_is_left_early(tmp_path: Path) -> None:
    with open_source(_clip(tmp_path / "a.mp4", 25)) as source:
        with pytest.raises(ZeroDivisionError), prefetch(source) as frames:
            for frame in frames:
                if frame.index == 3:
                    raise ZeroDivisionError
        source.close()
        assert list(source) == []


_READ_STDIN = """
import sys
from vltrack.video.source import open_source
with open_source("-") as source:
    print(source.info.kind, source.info.width, source.info.height, source.info.frames)
    for frame in source:
        print(frame.index, round(float(frame.image.mean())))
    assert not source.report.degraded
"""


@pytest.mark.parametrize("kind", [".png", ".jpg", ".mkv", ".y4m"])
def test_pictures_and_videos_on_standard_input(tmp_path: Path, kind: str) -> None:
    levels = [20 * k + 20 for k in range(6)]
    images = [np.full((48, 64, 3), level, np.uint8) for level in levels]
    if kind in (".png", ".jpg"):
        data = b"".join(cv2.imencode(kind, image)[1].tobytes() for image in images)
    elif kind == ".mkv":
        with VideoWriter(tmp_path / "a.mkv", width=64, height=48, rate=25) as writer:
            for image in images:
                writer.write(image)
        data = (tmp_path / "a.mkv").read_bytes()
    else:
        head = b"YUV4MPEG2 W64 H48 F25:1 C420jpeg XCOLORRANGE=FULL\n"
        planes = [bytes([level]) * (64 * 48) + bytes([128]) * (32 * 24 * 2) for level in levels]
        data = head + b"".join(b"FRAME\n" + plane for plane in planes)
    run = subprocess.run([sys.executable, "-c", _READ_STDIN], input=data, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
    lines = run.stdout.decode().splitlines()
    assert lines[0] == "stdin 64 48 None"
    read = [tuple(map(int, line.split())) for line in lines[1:]]
    assert [index for index, _ in read] == list(range(6))
    assert all(abs(level - seen) <= 2 for level, (_, seen) in zip(levels, read, strict=True))


@pytest.mark.fault("V02")
def test_empty_standard_input_is_said_to_be_empty() -> None:
    run = subprocess.run([sys.executable, "-c", _READ_STDIN], input=b"", capture_output=True, check=False)
    assert b"standard input is empty" in run.stderr


def test_playlists_on_standard_input_are_not_read() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _READ_STDIN],
        input=b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n",
        capture_output=True,
        text=False,
        check=False,
    )
    assert b"VideoUnreadable" in run.stderr


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_the_order_of_the_numbers(numbers: list[int]) -> None:
    paths = [Path(f"frame{n}.png") for n in numbers]
    images, ignored = sort_images([*paths, Path(".x.png"), Path("Thumbs.db")])
    assert [path.name for path in images] == [f"frame{n}.png" for n in sorted(numbers)]
    assert ignored == 2


@given(st.lists(st.text(), max_size=8))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    assert sorted(names, key=natural_key) == sorted(reversed(names), key=natural_key)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF", b"II*\0"]))
def test_headers_of_any_bytes_give_a_size_or_none(body: bytes, magic: bytes) -> None:
    size = image_size(magic + body)
    assert size is None or (len(size) == 2 and min(size) >= 0)
    is_cut(magic + body)
    playlist_kind(magic + body)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm"])
def test_headers_of_true_images(suffix: str) -> None:
    data = cv2.imencode(suffix, np.zeros((48, 65, 3), np.uint8))[1].tobytes()
    assert image_size(data) == (65, 48)
    assert not is_cut(data)
    assert image_size(b"no image") is None


def test_addresses_and_paths() -> None:
    for text in ("http://x", "rtsp://x", "concat:a|b", "subfile,,start,0:a", "data:x", "pipe:1"):
        assert is_address(text)
    for text in ("clip.mp4", "/a/b:c.mp4", "C:\\clip.mp4", "a,b.mp4", "./http:x"):
        assert not is_address(text)


@pytest.mark.parametrize("name", ["tld_pedestrian3", "davis_dogs-jump-1", "davis_car-shadow", "tlp_Drone1"])
def test_real_videos_have_a_row_for_every_annotation(shared: Path, name: str) -> None:
    folder = shared / "real" / "open" / name
    rows = sum(bool(line.strip()) for line in (folder / "groundtruth.txt").read_text().splitlines())
    video = next(iter(sorted(folder.glob("video.*"))), folder / "img")
    with open_source(video) as source:
        frames = [frame.index for frame in source]
    assert frames == list(range(rows))
    assert not source.report.degraded

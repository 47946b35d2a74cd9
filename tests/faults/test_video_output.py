"""Fault rows V10, V12-V15, V23: files that are written, full disks, existing files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from video_samples import number_of, numbered_image, read, write_video

from vltrack.api.reporter import Reporter
from vltrack.api.track import _check_room
from vltrack.core.errors import ResourceError, UsageError
from vltrack.video.base import SourceInfo
from vltrack.video.source import open_source
from vltrack.video.writer import VideoWriter


def _decoded(path: Path) -> tuple[list[float], list[NDArray[np.uint8]], str, tuple[int, int]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        times = [float(frame.pts * frame.time_base) for frame in frames]
        size = (stream.width, stream.height)
        return times, [f.to_ndarray(format="rgb24") for f in frames], stream.codec_context.pix_fmt, size


def _written(path: Path, images: Sequence[NDArray[np.uint8]], seconds: Sequence[float] = (), **options: Any) -> Path:
    """A video of images, each at its second if they are given; 64 x 48 unless ``options`` say otherwise."""
    with VideoWriter(path, **({"width": 64, "height": 48} | options)) as writer:
        for number, image in enumerate(images):
            writer.write(image, seconds[number] if seconds else None)
    return path


@pytest.mark.fault("V15")
@pytest.mark.parametrize(("width", "height"), [(64, 48), (65, 49), (1, 1), (1, 31)])
def test_all_frames_from_the_first_with_even_sides(tmp_path: Path, width: int, height: int) -> None:
    images = [numbered_image(number * 8, width, height) for number in range(12)]
    path = _written(tmp_path / "out.mp4", images, width=width, height=height, rate=25)
    times, images, pix_fmt, size = _decoded(path)
    assert len(images) == 12
    assert [abs(number_of(i[:height, :width]) - 8 * k) <= 4 for k, i in enumerate(images)] == [True] * 12
    assert pix_fmt == "yuv420p"
    assert size == (width + width % 2, height + height % 2)
    assert times == [pytest.approx(k / 25, abs=1e-4) for k in range(12)]


@pytest.mark.fault("V10")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_source_time_stamps_are_kept(tmp_path: Path, suffix: str) -> None:
    times = [0.0, 0.04, 0.08, 0.2, 0.21, 1.5, 1.5, 1.54, 9.0]
    images = [numbered_image(number, 64, 48) for number in range(len(times))]
    written, images, _, _ = _decoded(_written(tmp_path / f"out{suffix}", images, times))
    assert len(images) == len(times)
    assert written == [pytest.approx(t, abs=0.0021) for t in times]
    assert written == sorted(set(written))


@pytest.mark.fault("V10")
def test_a_video_comes_out_as_it_went_in(tmp_path: Path) -> None:
    times = [0, 40, 90, 200, 260, 400, 450]
    source_path = write_video(tmp_path / "in.mkv", 7, milliseconds=times)
    with open_source(source_path) as source, VideoWriter(tmp_path / "out.mp4", width=160, height=120) as writer:
        for frame in source:
            assert frame.image is not None
            writer.write(frame.image, frame.seconds)
    _, frames = read(tmp_path / "out.mp4")
    assert [f.seconds for f in frames] == [pytest.approx(t / 1000, abs=0.001) for t in times]
    assert all(f.image is not None and abs(number_of(f.image) - f.index) <= 2 for f in frames)


@pytest.mark.fault("V14")
def test_pure_red_stays_red_through_the_writer(tmp_path: Path) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    _, frames = read(_written(tmp_path / "out.mp4", [red] * 3, height=64))
    assert all(np.abs(frame.image.astype(int) - red).mean() <= 2 for frame in frames)


@pytest.mark.fault("V12")
@pytest.mark.fault("V15")
def test_the_pixel_shape_is_written_and_the_index_first_so_that_browsers_start_at_once(tmp_path: Path) -> None:
    path = _written(tmp_path / "out.mp4", [numbered_image(1, 64, 48)], sample_aspect=16 / 11)
    assert read(path)[0].info.sample_aspect == pytest.approx(16 / 11, abs=0.001)
    assert 0 < path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat")


@pytest.mark.fault("V17")
def test_a_video_that_will_not_fit_its_disk_is_warned_of_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = SourceInfo(kind="file", name="a", width=1280, height=720, rate=25.0, frames=None, seconds=86_400.0)
    assert facts.frames_about == 25 * 86_400  # what the progress counts up to
    said: list[str] = []
    monkeypatch.setattr(Reporter, "warn", lambda self, text: said.append(text))
    for free, count in ((10**12, 0), (10**9, 1)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        _check_room([tmp_path / "a.csv", tmp_path / "a.mp4"], facts, Reporter())
        assert len(said) == count
    assert "a.mp4 may need 21.5 GB, and 1.0 GB are free" in said[0]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not tie threads to a core")
def test_the_bytes_of_a_video_do_not_depend_on_cores_or_time(tmp_path: Path) -> None:
    images = [np.random.default_rng(number).integers(0, 255, (240, 320, 3), np.uint8) for number in range(25)]
    first = _written(tmp_path / "a.mp4", images, width=320, height=240).read_bytes()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # of this thread, and of those that the encoder starts
    try:
        second = _written(tmp_path / "b.mp4", images, width=320, height=240).read_bytes()
    finally:
        os.sched_setaffinity(0, cores)
    assert first == second


LARGE = """
import sys, threading, time
import numpy as np
from vltrack.video.writer import VideoWriter
image, peak = np.full((4320, 7680, 3), 90, np.uint8), 0
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def watch():
    global peak
    while True:
        peak = max(peak, resident())
        time.sleep(0.005)
before = resident()
threading.Thread(target=watch, daemon=True).start()
with VideoWriter(sys.argv[1], width=7680, height=4320) as writer:
    for k in range(10):
        image[400 * k : 400 * k + 300, 100:2000] = 11 * k
        writer.write(image)
print((peak - before) / image.nbytes)
"""


@pytest.mark.fault("V16")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_a_video_of_8k_takes_the_memory_of_a_few_frames(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / "a.mp4")], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 8  # 20 with the encoder's defaults


@pytest.mark.fault("V13")
def test_another_size_is_fitted(tmp_path: Path) -> None:
    images = [numbered_image(5, width, height) for width, height in ((64, 48), (80, 40), (10, 100))]
    _, images, _, size = _decoded(_written(tmp_path / "out.mp4", images))
    assert (len(images), size) == (3, (64, 48))


@pytest.mark.fault("V23")
def test_an_existing_file_is_kept_without_overwrite(tmp_path: Path) -> None:
    path, image = tmp_path / "out.mp4", np.zeros((8, 8, 3), np.uint8)
    path.write_bytes(b"precious")
    with pytest.raises(UsageError) as caught:
        VideoWriter(path, width=8, height=8)
    assert caught.value.exit_code == 2
    with pytest.raises(KeyError), VideoWriter(path, width=8, height=8, overwrite=True) as writer:
        writer.write(image)
        raise KeyError
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]
    _written(path, [image], width=8, height=8, overwrite=True)
    assert path.read_bytes() != b"precious"


@pytest.mark.fault("V23")
def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as caught, VideoWriter(tmp_path / "no" / "out.mp4", width=8, height=8):
        pass
    assert caught.value.exit_code == 6
    with pytest.raises(UsageError):
        (tmp_path / "d.mp4").mkdir()
        VideoWriter(tmp_path / "d.mp4", width=8, height=8, overwrite=True)
    with pytest.raises(UsageError):
        VideoWriter(tmp_path / "out.doc", width=8, height=8)


@pytest.mark.fault("V23")
def test_errors_inside_the_block_are_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), VideoWriter(tmp_path / "out.mp4", width=8, height=8) as writer:
        writer.write(np.zeros((8, 8, 3), np.uint8))
        raise FileNotFoundError("something else")
    with pytest.raises(UsageError), VideoWriter(tmp_path / "out.mp4", width=8, height=8):
        pass
    assert not list(tmp_path.iterdir())


_FULL = """
import resource, sys
import numpy as np
from vltrack.core.errors import ResourceError
from vltrack.video.writer import VideoWriter

folder, suffix = sys.argv[1:]
images = [np.random.default_rng(k).integers(0, 255, (120, 160, 3), dtype=np.uint8) for k in range(10)]
whole = folder + "/whole" + suffix

def write(path):
    with VideoWriter(path, width=160, height=120) as writer:
        for image in images:
            writer.write(image)

write(whole)
import os
size = os.path.getsize(whole)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in (0, 1, 100, size // 3, size - 40_000, size - 2000, size - 100, size - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(0, limit), hard))
    try:
        write(folder + "/out" + suffix)
    except ResourceError as error:
        assert error.exit_code == 6, error
    else:
        raise SystemExit(f"no error at {limit} of {size} bytes")
    assert os.listdir(folder) == ["whole" + suffix], os.listdir(folder)
"""


@pytest.mark.fault("V23")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_is_an_error_at_every_byte(tmp_path: Path, suffix: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path), suffix], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.fault("V23")
def test_a_full_tmpfs_is_an_error(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        noise = [np.random.default_rng(k).integers(0, 255, (240, 320, 3), dtype=np.uint8) for k in range(40)]
        with pytest.raises(ResourceError):
            _written(tmp_path / "out.mp4", noise, width=320, height=240)
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)

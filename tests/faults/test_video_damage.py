"""Fault rows V06, V07, V17-V19, V21, V22, V24, V25: damage, death and odd files while frames are read."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from video_samples import number_of, numbered_image, read, spoil, write_video

from vltrack.core.errors import VideoDecoderCrashed, VideoNotFound, VideoReadError, VideoTimeout
from vltrack.core.types import Frame
from vltrack.video import client
from vltrack.video.client import StreamSource
from vltrack.video.source import FrameSource, Limits, open_source


def _aligned(frames: list[Frame], slack: int) -> float:
    """Share of the decoded frames whose number is the one that their image shows."""
    seen = [frame for frame in frames if frame.image is not None]
    good = sum(abs(number_of(frame.image) - frame.index) <= slack for frame in seen if frame.image is not None)
    return good / len(seen)


@pytest.mark.fault("V06")
def test_a_cut_mp4_gives_what_decodes_and_reports_the_rest(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60, container={"movflags": "+faststart"}, options={"g": "12"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    source, frames = read(path)
    assert 20 < source.report.decoded < 60
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert _aligned(frames, 1) == 1
    assert source.report.expected == 60
    assert source.report.truncated
    assert source.report.degraded
    assert "60 frames promised" in " ".join(source.report.warnings)


@pytest.mark.fault("V06")
@pytest.mark.parametrize("ahead", [0.02, 0.1, 0.5, 1.3])
def test_a_trimmed_mp4_is_not_a_cut_one(tmp_path: Path, ahead: float) -> None:
    """Phones trim by an edit list: what lies before it is in the file, and no frame of the video."""
    whole, path = write_video(tmp_path / "a.mp4", 60, options={"g": "12", "bf": "2"}), tmp_path / "b.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                shift = round(ahead / packet.time_base)
                packet.stream, packet.pts, packet.dts = stream, packet.pts - shift, packet.dts - shift
                out.mux(packet)
    source, frames = read(path)
    first = math.ceil(ahead * 25)
    assert len(frames) == source.info.frames == 60 - first
    assert not source.report.warnings
    assert not source.report.degraded
    assert all(abs(number_of(f.image) - f.index - first) <= 3 for f in frames if f.image is not None)


@pytest.mark.fault("V06")
def test_an_avi_with_repeats_is_not_a_cut_one(tmp_path: Path) -> None:
    """Frames that last longer are followed by empty chunks, which the header counts."""
    path = write_video(
        tmp_path / "a.avi", 20, codec="mjpeg", pix_fmt="yuvj420p", milliseconds=[120 * k for k in range(20)]
    )
    source, frames = read(path)
    assert len(frames) == source.info.frames == 20
    assert frames[-1].seconds == pytest.approx(19 * 0.12, abs=0.01)
    assert not source.report.degraded


@pytest.mark.fault("V06")
def test_a_cut_matroska_is_degraded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 60, options={"g": "12"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.4)])
    source, frames = read(path)
    assert 0 < len(frames) < 60
    assert source.report.degraded


VP8 = {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime", "cpu-used": "16"}
DAMAGED = [
    ("a.mp4", "libx264", "yuv420p", {"g": "12"}, "zero"),
    ("a.mkv", "libx264", "yuv420p", {"g": "12"}, "cut"),
    ("a.avi", "mjpeg", "yuvj420p", {}, "zero"),
    ("a.avi", "mpeg4", "yuv420p", {"g": "6"}, "noise"),
    ("a.webm", "libvpx", "yuv420p", VP8, "zero"),
    ("a.ts", "libx264", "yuv420p", {"g": "12"}, "noise"),
    ("a.ts", "mpeg2video", "yuv420p", {"g": "12"}, "cut"),
    ("a.vob", "mpeg2video", "yuv420p", {"g": "12"}, "zero"),
    ("a.mpg", "mpeg1video", "yuv420p", {"g": "12"}, "noise"),
    ("a.mkv", "ffv1", "yuv420p", {}, "noise"),
]


@pytest.mark.fault("V07")
@pytest.mark.parametrize(("name", "codec", "pix_fmt", "options", "mode"), DAMAGED)
def test_damage_in_the_middle_leaves_the_numbers_right(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, options: dict[str, str], mode: str
) -> None:
    path = write_video(tmp_path / name, 100, codec=codec, pix_fmt=pix_fmt, options=options)
    spoil(path, begin=0.5, share=0.08, mode=mode)
    source, frames = read(path)
    report = source.report
    assert len(frames) == 100
    assert [frame.index for frame in frames] == list(range(100))
    assert report.decoded >= 70
    assert report.missing == sum(frame.image is None for frame in frames) > 0
    assert report.degraded
    assert report.failure is None
    seconds = [frame.seconds for frame in frames]
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(99 / 25, abs=0.01)
    # The last frames lie behind several key frames after the damage: whole and at their place.
    tail = [f for f in frames[-15:] if f.image is not None]
    assert len(tail) == 15
    assert all(abs(number_of(f.image) - f.index) <= 3 for f in tail if f.image is not None)
    assert _aligned(frames, 3) > 0.85


@pytest.mark.fault("V07")
@pytest.mark.parametrize("begin", [0.3, 0.37, 0.44, 0.57, 0.66])
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_what_is_lost_between_two_whole_packets_is_missing_as_well(tmp_path: Path, begin: float, codec: str) -> None:
    """No packet of such a broadcast is broken; the counters of its pieces tell that some are gone."""
    path = write_video(tmp_path / "a.ts", 100, codec=codec, options={"g": "12"})
    source, frames = read(spoil(path, begin=begin, share=0.08, mode="cut"))
    assert len(frames) == 100
    assert source.report.missing >= 8
    assert _aligned(frames, 3) > 0.85


@pytest.mark.fault("V07")
def test_a_little_damage_is_not_degraded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 100, codec="mjpeg", pix_fmt="yuvj420p")
    spoil(path, begin=0.5, share=0.01, mode="zero")
    source, frames = read(path)
    assert len(frames) == 100
    assert 0 < source.report.missing <= 5
    assert not source.report.degraded
    assert source.report.warnings
    source, _ = read(path, limits=Limits(bad_share=0))
    assert source.report.degraded


@pytest.mark.fault("V17")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt", "count"), [(".mkv", "libx264", "yuv420p", 1500), (".avi", "mjpeg", "yuvj420p", 700)]
)
def test_memory_does_not_grow_with_the_length(
    tmp_path: Path, suffix: str, codec: str, pix_fmt: str, count: int
) -> None:
    width, height = (64, 48) if codec == "libx264" else (320, 240)
    images = [numbered_image(i % 100, width, height) for i in range(count)]
    path = tmp_path / f"a{suffix}"
    write_video(path, count, codec=codec, pix_fmt=pix_fmt, images=images, width=width, height=height)
    with open_source(path) as source:
        assert source.info.frames == (None if suffix == ".mkv" else count)
        assert source.info.seconds == pytest.approx(count / 25, abs=0.1)
        _check_memory(source, 300, count - 1)


@pytest.mark.fault("V17")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_endless_stream_is_read_in_constant_memory(tmp_path: Path) -> None:
    """Standard input that never ends, of which a part is taken; and a file of 24 hours."""
    code = (
        "import os, sys\n"
        "head = b'YUV4MPEG2 W160 H120 F25:1 C420jpeg\\n'\n"
        "os.write(1, head)\n"
        "while True: os.write(1, b'FRAME\\n' + bytes(160 * 120 * 3 // 2))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        with StreamSource(kind="stdin", name="-", media=os.dup(endless.stdout.fileno())) as source:
            assert source.info.frames is None
            _check_memory(source, 300, 2500)
            endless.kill()
    day = write_video(
        tmp_path / "a.mkv",
        2400,
        width=64,
        height=48,
        milliseconds=[36_000 * k for k in range(2400)],
        images=[numbered_image(0, 64, 48)] * 2400,
    )
    with open_source(day) as source:
        assert source.info.seconds == pytest.approx(86_400, abs=40)
        _check_memory(source, 300, 2399)


def _check_memory(source: FrameSource, early: int, late: int) -> None:
    """Check that both processes take no more at a late frame than at an early one, but for 8 MB."""
    resident = {}
    for frame in source:
        if frame.index in (early, late):
            resident[frame.index] = _resident(_pid(source)) + _resident(os.getpid())
        if frame.index == late:
            break
    assert resident[late] - resident[early] < 8 << 20


def _pid(source: FrameSource) -> int:
    """Process id of a source's decoder."""
    return source._decoder.process.pid  # type: ignore[attr-defined, no-any-return]


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _images(folder: Path, names: list[str], size: tuple[int, int] = (40, 60)) -> Path:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        ok, data = cv2.imencode(Path(name).suffix, numbered_image(number, size[1], size[0]))
        assert ok
        (folder / name).write_bytes(data.tobytes())
    return folder


@pytest.mark.fault("V18")
def test_a_messy_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    folder = _images(tmp_path / "f", ["f1.png", "f2.jpg", "f9.bmp", "f10.png", "f11.PNG", "f100.webp"])
    for name in (".hidden.png", "Thumbs.db", "notes.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "sub").mkdir()
    source, frames = read(folder)
    assert [number_of(f.image) for f in frames if f.image is not None] == [0, 1, 2, 3, 4, 5]
    assert [f.seconds for f in frames] == [pytest.approx(k / 25) for k in range(6)]
    assert source.report.ignored_files == 3
    assert source.info.kind == "folder"
    assert source.info.frames == 6
    assert not source.report.degraded


@pytest.mark.fault("V18")
def test_no_image_of_a_folder_is_left_out_without_a_word(tmp_path: Path) -> None:
    folder = _images(tmp_path / "f", ["1.jpg", "2.JPG", "3.jpe", "4.jpg", "5.jpg", "6.dib", "7.ppm"])
    (folder / "4.jpg").rename(folder / "4.jfif")
    (folder / "5.jpg").rename(folder / "5.JIF")
    for name in ("8.heic", "9.HEIC", "10.avif", "notes.txt", "._11.heic"):
        (folder / name).write_bytes(b"x")
    source, frames = read(folder)
    assert [f.image is not None for f in frames] == [True] * 7
    assert "3 images of another format are left out (.heic 2, .avif 1)" in " ".join(source.report.warnings)
    assert source.report.ignored_files == 5
    for path in folder.glob("[1-7].*"):
        path.unlink()
    with pytest.raises(VideoNotFound, match=r"5 other files: \.heic 3"):
        open_source(folder)


@pytest.mark.fault("V18")
def test_gaps_and_repeats_in_the_numbering_are_reported(tmp_path: Path) -> None:
    names = [f"{n:04d}.png" for n in (1, 2, 3, 6, 7)]
    with open_source(_images(tmp_path / "gap", names)) as source:
        assert len(list(source)) == 5
    assert "2 numbers are missing" in " ".join(source.report.warnings)
    with open_source(_images(tmp_path / "twice", ["1.png", "1.jpg", "2.png"])) as source:
        assert len(list(source)) == 3
    assert "more than once" in " ".join(source.report.warnings)


@pytest.mark.fault("V18")
@pytest.mark.fault("V13")
def test_mixed_sizes_are_flagged(tmp_path: Path) -> None:
    folder = _images(tmp_path / "f", ["1.png", "2.png"])
    (folder / "2.png").write_bytes(cv2.imencode(".png", np.zeros((50, 20, 3), np.uint8))[1].tobytes())
    _, frames = read(folder)
    assert [f.flags for f in frames] == [(), ("size-changed",)]
    assert frames[1].image is not None
    assert frames[1].image.shape == (50, 20, 3)


def _harm(data: bytes, how: str) -> bytes:
    if how.startswith("cut"):
        return data[: int(len(data) * float(how[3:]))]
    flipped = bytearray(data)
    rng = np.random.default_rng(3)
    for place in rng.integers(len(data) // 3, len(data) - 20, 12):
        flipped[place] ^= 1 << int(rng.integers(8))
    return bytes(flipped)


@pytest.mark.fault("V19")
def test_damaged_images_are_gap_rows_never_half_gray(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    cases = [(suffix, how) for suffix in (".jpg", ".png") for how in ("cut0.9", "cut0.5", "cut0.1", "flip")]
    for number, (suffix, how) in enumerate(cases, start=1):
        data = cv2.imencode(suffix, image)[1].tobytes()
        (tmp_path / f"{number}{suffix}").write_bytes(_harm(data, how))
    (tmp_path / "0.jpg").write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    (tmp_path / "9.jpg").write_bytes(b"not an image at all")
    source, frames = read(tmp_path)
    assert [f.image is None for f in frames] == [False] + [True] * (len(cases) + 1)
    assert source.report.missing == len(cases) + 1
    assert source.report.degraded


@pytest.mark.fault("V19")
def test_broken_links_are_gap_rows_and_named(tmp_path: Path) -> None:
    folder = _images(tmp_path / "f", ["1.png", "5.png"])
    for name, place in (("2.png", "3.png"), ("3.png", "2.png"), ("4.png", "nowhere"), ("6.png", os.devnull)):
        (folder / name).symlink_to(place)
    (folder / "7.png").symlink_to("1.png")
    (folder / "8.png").symlink_to(tmp_path, target_is_directory=True)
    for given in (folder, str(folder / "*.png")):
        source, frames = read(given)
        assert [f.image is None for f in frames] == [False, True, True, True, False, True, False]
        assert all(
            f"{number}.png is damaged: cannot be read" in " ".join(source.report.warnings) for number in (2, 3, 4, 6)
        )
        assert source.report.degraded
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoNotFound, match="empty holds no file"):
        open_source(tmp_path / "empty")


@pytest.mark.fault("V21")
def test_odd_file_names_work(tmp_path: Path) -> None:
    original = write_video(tmp_path / "a.mp4", 2).read_bytes()
    names = ["ünï ✓ 🦊.mp4", "line\nbreak.mp4", "-v.mp4", "x" * 251 + ".mp4"]
    raw = [os.fsencode(name) for name in names] + [b"latin-\xe9.mp4"]
    for name in raw:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes(original)
        with open_source(path) as source:
            assert len(list(source)) == 2
        assert source.info.name.isprintable()
        path.unlink()
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with open_source(_images(folder, ["-1.png", "2 ü.png"])) as source:
        assert len(list(source)) == 2


@pytest.mark.fault("V22")
def test_a_video_that_is_deleted_meanwhile_is_finished(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 40)
    with open_source(path) as source:
        next(source)
        path.unlink()
        path.write_bytes(b"something else")
        assert len(list(source)) == 39
    assert not source.report.degraded


@pytest.mark.fault("V22")
def test_a_video_that_shrinks_meanwhile_ends_with_a_read_error(tmp_path: Path) -> None:
    noise = [np.random.default_rng(k).integers(0, 255, (240, 320, 3), dtype=np.uint8) for k in range(60)]
    path = write_video(tmp_path / "a.avi", 60, codec="mjpeg", pix_fmt="yuvj420p", width=320, height=240, images=noise)
    with open_source(path) as source:
        first = next(source)
        os.truncate(path, path.stat().st_size // 3)
        rest = list(source)
    assert first.image is not None
    assert 0 < len(rest) < 59
    assert isinstance(source.report.failure, VideoReadError)
    assert source.report.failure.exit_code == 7
    assert source.report.degraded


@pytest.mark.fault("V22")
def test_a_video_that_grows_meanwhile_is_read_to_an_end_that_it_had(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.ts", 100, options={"g": "10"}).read_bytes()
    path, half = tmp_path / "a.ts", len(whole) // 2 // 188 * 188
    path.write_bytes(whole[:half])
    with open_source(path) as source, path.open("ab") as more:
        frames = [next(source)]
        more.write(whole[half:])
        more.flush()
        frames += list(source)
    assert source.report.failure is None
    assert 40 < len(frames) <= 100
    assert _aligned(frames, 3) == 1


@pytest.mark.fault("V22")
def test_a_drive_that_is_gone_ends_with_the_last_frames_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.ts", 100, options={"g": "10", "qp": "1"})
    gone = f"""
import errno, os, sys
from vltrack.video import decode, decoder_main
class Gone(decoder_main.MediaFile):
    def read(self, count):
        real, os.read = os.read, self.fail if self.tell() > {path.stat().st_size // 2} else os.read
        try:
            return super().read(min(count, 4096))
        finally:
            os.read = real
    def fail(self, *given):
        raise OSError(errno.EIO, "Input/output error")
decode.MediaFile = decoder_main.MediaFile = Gone
sys.exit(decoder_main.main())
"""
    monkeypatch.setattr(client, "COMMAND", (sys.executable, "-P", "-c", gone))
    with open_source(path) as source:
        frames = list(source)
    failure = source.report.failure
    assert isinstance(failure, VideoReadError)
    assert 20 < len(frames) < 100
    assert f"Input/output error (after frame {frames[-1].index})" in str(failure)
    assert _aligned(frames, 3) == 1


@pytest.mark.fault("V22")
def test_the_command_keeps_the_rows_of_a_video_that_is_cut_meanwhile(tmp_path: Path) -> None:
    noise = [np.random.default_rng(k).integers(0, 255, (240, 320, 3), dtype=np.uint8) for k in range(60)]
    path = write_video(tmp_path / "a.avi", 60, codec="mjpeg", pix_fmt="yuvj420p", width=320, height=240, images=noise)
    stub = Path(__file__).parent.parent / "cli" / "stub_command.py"
    words = [sys.executable, str(stub), "track", str(path), "--box", "9,9,20,20"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "STUB_DELAY": "0.02"}
    ) as run:
        assert run.stdout is not None
        first = [run.stdout.readline() for _ in range(3)]
        os.truncate(path, path.stat().st_size // 2)
        rest, said = run.communicate()
    rows = [*first, *rest.splitlines()]
    assert run.returncode == 7
    assert 20 < len(rows) < 60
    assert f"(after frame {len(rows) - 2})" in said


@pytest.mark.fault("V22")
def test_images_deleted_meanwhile_are_gap_rows(tmp_path: Path) -> None:
    folder = _images(tmp_path / "f", [f"{n}.png" for n in range(8)])
    with open_source(folder) as source:
        next(source)
        (folder / "6.png").unlink()
        rest = list(source)
    assert [f.image is None for f in rest] == [False] * 5 + [True, False]
    assert source.report.degraded


def _fake(code: str, tmp_path: Path, limits: Limits) -> StreamSource:
    """A source whose decoder is ``code`` after a good start: it sends its facts and one frame."""
    start = """
import json, os, signal, time
from vltrack.video.ipc import IpcServer, Receiver, Ring
receiver = Receiver(0); job = json.loads(receiver.receive())
server = IpcServer(1, receiver, Ring(job["ring"], job["slot_bytes"]))
facts = dict(width=4, height=2, rate=25.0, frames=9, seconds=1.0)
server.send("info", **facts, rotation=0, mirrored=False, sample_aspect=1.0)
server.send_frame(server.reserve(2, 4), index=0, seconds=0.0, flags=[], bad=0)
"""
    path = tmp_path / "x"
    path.write_bytes(b"x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "COMMAND", (sys.executable, "-P", "-c", start + code))
        return StreamSource(kind="file", name="x", media=os.open(path, os.O_RDONLY), limits=limits)


@pytest.mark.fault("V24")
def test_a_hanging_decoder_is_stopped_and_the_rows_so_far_kept(tmp_path: Path) -> None:
    with _fake("time.sleep(1000)", tmp_path, Limits(frame_timeout_s=5)) as source:
        source._decoder._timeout_s = 0.3  # type: ignore[attr-defined]
        frames = list(source)
    assert [f.index for f in frames] == [0]
    assert isinstance(source.report.failure, VideoTimeout)
    assert source.report.failure.exit_code == 7
    assert source.report.degraded
    assert _is_gone(_pid(source))


@pytest.mark.fault("V24")
def test_a_decoder_that_reads_nothing_is_stopped(tmp_path: Path) -> None:
    big = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), big)
    with open_source(tmp_path) as source:
        source._decoder._timeout_s = 0.3  # type: ignore[attr-defined]
        os.kill(_pid(source), signal.SIGSTOP)
        list(source)
    assert isinstance(source.report.failure, VideoTimeout)


@pytest.mark.fault("V25")
@pytest.mark.parametrize("blow", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crashed_decoder_is_reported_with_its_frame(tmp_path: Path, blow: signal.Signals) -> None:
    path = write_video(tmp_path / "a.mp4", 100)
    with open_source(path) as source:
        frames = [next(source) for _ in range(5)]
        os.kill(_pid(source), blow)
        frames += list(source)
        failure = source.report.failure
    assert isinstance(failure, VideoDecoderCrashed)
    assert failure.exit_code == 7
    assert blow.name in str(failure)
    assert f"after frame {frames[-1].index}" in str(failure)
    assert [f.index for f in frames] == list(range(len(frames)))
    assert len(frames) < 100
    assert _is_gone(_pid(source))


@pytest.mark.fault("V25")
def test_invalid_data_from_the_decoder_is_a_crash(tmp_path: Path) -> None:
    for code in (
        "os.write(1, b'\\xff' * 40)",
        "server.send('frame', slot=77, height=2, width=4)",
        "raise SystemExit(3)",
    ):
        with _fake(code, tmp_path, Limits(frame_timeout_s=20)) as source:
            assert len(list(source)) == 1
        assert isinstance(source.report.failure, VideoDecoderCrashed)


@pytest.mark.fault("V25")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_thread_or_descriptor_is_left(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    folder = _images(tmp_path / "f", ["1.png", "2.png"])
    before = set(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    pids = []
    for what in (path, folder):
        with open_source(what) as source:
            next(source)
            pids.append(_pid(source))
        source.close()
    forgotten = open_source(path)
    pids.append(_pid(forgotten))
    del forgotten, source
    assert set(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads
    assert all(_is_gone(pid) for pid in pids)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False

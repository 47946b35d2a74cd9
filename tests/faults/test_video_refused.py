"""Fault rows V01-V05, V08, V09, V16, V20: what must be refused before anything else happens."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from video_samples import number_of, read, write_video

from vltrack.core.errors import (
    InputError,
    VideoDecoderCrashed,
    VideoEmpty,
    VideoForbiddenFormat,
    VideoNoStream,
    VideoNotFound,
    VideoTooLarge,
    VideoUnreadable,
)
from vltrack.video import client
from vltrack.video.client import StreamSource
from vltrack.video.decode import video_stream
from vltrack.video.ipc import MediaError
from vltrack.video.source import Limits, open_source


def refused(error: type[InputError], source: Any, match: str | None = None, **options: Any) -> InputError:
    """Check that a source is refused with this error and exit code 3; return the error."""
    with pytest.raises(error, match=match) as caught:
        open_source(source, **options)
    assert caught.value.exit_code == 3
    return caught.value


@pytest.mark.fault("V01")
def test_a_missing_path_is_not_found(tmp_path: Path) -> None:
    for name in ("nothing.mp4", "", "no/such/folder", "a\0b"):
        refused(VideoNotFound, name if "\0" in name or not name else tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.fault("V01")
def test_a_folder_without_images_is_not_found(tmp_path: Path) -> None:
    refused(VideoNotFound, tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    refused(VideoNotFound, tmp_path, match="1")
    refused(VideoNotFound, str(tmp_path / "*.jpg"))


@pytest.mark.fault("V01")
def test_no_permission_is_not_found(tmp_path: Path) -> None:
    locked = tmp_path / "locked.mp4"
    locked.write_bytes(b"x")
    locked.chmod(0)
    code = (
        "import os, sys\n"
        "from vltrack.core.errors import VideoNotFound\n"
        "from vltrack.video.source import open_source\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try: open_source(sys.argv[1])\n"
        "except VideoNotFound as error: sys.exit(0 if 'permission' in str(error) else 1)\n"
        "sys.exit(2)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(locked)], check=False).returncode == 0


@pytest.mark.fault("V01")
def test_the_command_says_so_and_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").mkdir()
    costs = []
    for name in ("nothing.mp4", "empty"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        words = ["track", str(tmp_path / name), "--box", "1,2,3,4", "-o", str(tmp_path / "out/a.csv")]
        words += ["-o", str(tmp_path / "out/a.mp4")]
        done = subprocess.run([sys.executable, "-m", "vltrack", *words], capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 3
        assert done.stderr.startswith("vltrack: error[VideoNotFound]: ")
        assert len(done.stderr.splitlines()) == 1
    assert min(costs) < 1, costs
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.fault("V02")
@pytest.mark.parametrize("content", [b"", b"just words\n" * 200, np.random.default_rng(0).bytes(20_000)])
def test_a_file_that_is_not_a_video_is_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thing.mp4"
    path.write_bytes(content)
    refused(VideoUnreadable, path)


PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{sibling}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile {sibling}\n",
    "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 9 RTP/AVP 96\r\n",
    "mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>\n',
    "list": "file '{sibling}'\n",
}


@pytest.mark.fault("V03")
@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.m3u8"])
def test_playlists_are_refused_under_any_name(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_text(PLAYLISTS[kind].format(sibling="base.mp4"))
    refused(VideoForbiddenFormat, path)


@pytest.mark.fault("V03")
@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "list"])
def test_the_decoder_itself_opens_no_other_file(tmp_path: Path, kind: str) -> None:
    sibling = write_video(tmp_path / "base.mp4", 3)
    path = tmp_path / "clip.mp4"
    path.write_text(PLAYLISTS[kind].format(sibling=sibling))
    with pytest.raises(VideoUnreadable):
        # Past the check of the first bytes: the decoder has its own list of containers.
        StreamSource(kind="file", name="clip", media=os.open(path, os.O_RDONLY))


@pytest.mark.fault("V03")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_decoder_cannot_open_anything_while_it_decodes(tmp_path: Path) -> None:
    with open_source(write_video(tmp_path / "a.mp4", 12)) as source:
        proc = Path(f"/proc/{source._decoder.process.pid}")  # type: ignore[attr-defined]
        limits = proc.joinpath("limits").read_text().splitlines()
        values = {line[:26].strip(): line[26:].split()[:2] for line in limits}
        assert values["Max open files"] == ["0", "0"]
        assert values["Max file size"] == ["0", "0"]
        assert values["Max core file size"] == ["0", "0"]
        assert values["Max address space"][1] != "unlimited"
        assert "NoNewPrivs:\t1" in proc.joinpath("status").read_text()
        if os.geteuid() == 0:
            assert os.readlink(proc / "ns/net") != os.readlink("/proc/self/ns/net")


@pytest.mark.fault("V03")
def test_formats_that_name_other_files_cannot_be_forced(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 2)
    for name in ("hls", "concat", "dash", "image2", "lavfi", "sdp"):
        refused(VideoForbiddenFormat, path, input_format=name)


@pytest.mark.fault("V04")
@pytest.mark.parametrize(
    "name",
    [
        "http://127.0.0.1:9/a.mp4",
        "https://user:secret@example.org/a.mp4",
        "concat:a.mp4|b.mp4",
        "subfile,,start,0,end,9,,:a.mp4",
        "pipe:0",
        "data:video/mp4;base64,AAAA",
        "file:a.mp4",
        "rtsp://user:secret@127.0.0.1:9/live",
        "img_%04d.jpg",
    ],
)
def test_addresses_are_refused(name: str) -> None:
    assert "secret" not in str(refused(VideoForbiddenFormat, name))


@pytest.mark.fault("V04")
def test_rtsp_is_tried_only_when_allowed() -> None:
    refused(VideoNotFound, "rtsp://127.0.0.1:9/live", allow_network=True, limits=Limits(frame_timeout_s=5))


@pytest.mark.fault("V04")
def test_names_with_colons_that_exist_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http:clip.mp4", "12:30 clip.mp4", "img_%04d.mp4", "a[1]*.mp4"):
        write_video(tmp_path / "plain.mp4", 2).rename(tmp_path / name)
        with open_source(name) as source:
            assert [frame.index for frame in source] == [0, 1]


@pytest.mark.fault("V04")
def test_a_missing_camera_is_not_found() -> None:
    for name in (97, "97"):
        refused(VideoNotFound, name)


@pytest.mark.fault("V05")
def test_an_mp4_without_its_index_is_unreadable(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    refused(VideoUnreadable, path, match="index missing")


def _sound(path: Path, cover: bool) -> Path:
    with av.open(str(path), "w", format="mp4" if cover else None) as out:
        sound = out.add_stream("aac" if cover else "pcm_s16le", rate=8000)
        if cover:
            art = out.add_stream("mjpeg", rate=1)
            art.width = art.height = 64
            art.pix_fmt = "yuvj420p"
            art.disposition = av.stream.Disposition.attached_pic
        for _ in range(4):
            silence = np.zeros((1, 1024), np.float32 if cover else np.int16)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp" if cover else "s16", layout="mono")
            frame.sample_rate = 8000
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
        if cover:
            out.mux(art.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
            out.mux(art.encode(None))
    return path


@pytest.mark.fault("V08")
@pytest.mark.parametrize("cover", [False, True])
def test_sound_and_cover_images_are_not_a_video(tmp_path: Path, cover: bool) -> None:
    refused(VideoNoStream, _sound(tmp_path / ("a.m4a" if cover else "a.wav"), cover))


@pytest.mark.fault("V08")
def test_a_tile_of_an_image_is_not_taken_for_it() -> None:
    """FFmpeg lists the tiles of a HEIC photo as videos of their own."""
    tile = SimpleNamespace(disposition=av.stream.Disposition.dependent)
    with pytest.raises(MediaError, match="in tiles") as caught:
        video_stream(SimpleNamespace(streams=SimpleNamespace(video=[tile] * 4)))
    assert caught.value.code == "VideoUnreadable"


@pytest.mark.fault("V09")
def test_a_video_of_which_nothing_decodes_is_empty(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    data = bytearray(path.read_bytes())
    begin = data.find(b"mdat") + 4
    data[begin : data.find(b"moov") - 4] = bytes(data.find(b"moov") - 4 - begin)
    path.write_bytes(data)
    refused(VideoEmpty, path)


@pytest.mark.fault("V16")
def test_frames_above_the_limit_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    refused(VideoTooLarge, path, limits=Limits(max_pixels=160 * 120 - 1), match="160x120")
    with open_source(path, limits=Limits(max_pixels=160 * 120)) as source:
        assert len(list(source)) == 3


def _motion_jpeg_8k(folder: Path) -> tuple[NDArray[np.uint8], Path]:
    """Three frames of 7680x4320."""
    image = np.zeros((4320, 7680, 3), np.uint8)
    image[:, :3840] = 200
    (folder / "a.mjpeg").write_bytes(cv2.imencode(".jpg", image)[1].tobytes() * 3)
    return image, folder / "a.mjpeg"


_MEASURE = """
import json, resource, sys
from vltrack.core.errors import VltrackError
from vltrack.video.source import open_source
for path in sys.argv[1:]:
    images, error = 0, None
    try:
        with open_source(path) as source:
            images = sum(frame.image is not None for frame in source)
    except VltrackError as raised:
        error = str(raised)
    own = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])  # rusage starts at the parent's
    print(json.dumps([images, error, 1024 * own, 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


def measured(*paths: Path) -> list[tuple[int, str | None, int, int]]:
    """Read sources in a fresh process: images, error, peak bytes of it and of the decoders so far."""
    done = subprocess.run([sys.executable, "-c", _MEASURE, *map(str, paths)], capture_output=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.fault("V16")
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in KiB")
def test_8k_works_in_six_frames_of_memory(tmp_path: Path) -> None:
    image, path = _motion_jpeg_8k(tmp_path)
    (_, _, *small), (images, error, *large) = measured(write_video(tmp_path / "small.mp4", 3), path)
    assert (images, error) == (3, None)
    ours, decoders = np.subtract(large, small) / image.nbytes
    assert ours + decoders <= 6


def _bomb_png(side: int) -> bytes:
    """A PNG that claims ``side`` squared pixels of one bit each, all zero."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = zlib.compress(bytes(side * (1 + side // 8)), 9)
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _bombs(side: int) -> dict[str, bytes]:
    """Files of every image format, and videos of two, whose header claims ``side`` squared pixels."""
    wide, png = struct.pack("<I", side), _bomb_png(side)
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", side, side)
    frames = struct.pack(">I4sIII", 8, b"acTL", 5, 0, zlib.crc32(b"acTL" + struct.pack(">II", 5, 0)))
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, side) for tag in (256, 257))
    gif = b"GIF89a" + wide[:2] * 2 + b"\x80\0\0" + bytes(6) + b"\x2c" + bytes(4) + wide[:2] * 2
    return {
        "a.png": png,
        "animated.png": png[:33] + frames + png[33:],
        "a.jpg": bytes(jpeg),
        "a.mjpeg": bytes(jpeg) * 3,
        "a.gif": gif + b"\0\x02\x02\x44\x01\0\x3b",
        "a.tif": struct.pack("<2sHIH", b"II", 42, 8, 2) + tags + bytes(4),
        "a.bmp": b"BM" + bytes(12) + struct.pack("<Iii", 40, side, side) + b"\1\0\x18\0" + bytes(24),
        "a.pgm": b"P5 %d %d 255\n" % (side, side) + bytes(99),
        "a.webp": b"RIFF\x30\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + struct.pack("<I", side - 1)[:3] * 2 + bytes(20),
    }


@pytest.mark.fault("V16")
@pytest.mark.fault("V20")
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in KiB")
def test_what_claims_too_many_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    """Within 100 MB of both processes, however much its pixels would take."""
    bombs = _bombs(16_384)
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    for name, (images, error, *peaks) in zip(bombs, measured(*map(tmp_path.joinpath, bombs)), strict=True):
        assert images == 0
        assert "16384x16384 pixels" in str(error), name
        assert sum(peaks) < 100 << 20, (name, peaks)
    for source in (tmp_path / "a.png", str(tmp_path / "*.png")):
        refused(VideoTooLarge, source, match="16384x16384")


@pytest.mark.fault("V20")
def test_a_bomb_among_good_images_costs_only_its_own_row(tmp_path: Path) -> None:
    for number in (1, 3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((20, 30, 3), 100, np.uint8))
    (tmp_path / "2.png").write_bytes(_bomb_png(20_000))
    source, frames = read(tmp_path)
    assert [frame.image is None for frame in frames] == [False, True, False]
    assert source.report.degraded


@pytest.mark.fault("V20")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_video_bomb_hits_the_memory_limit_of_its_own_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that needs more than it may have costs its own process, not ours."""
    _, path = _motion_jpeg_8k(tmp_path)
    limits = Limits(memory_bytes=512 << 20)
    monkeypatch.setattr(client, "COMMAND", (sys.executable, "-P", "-c", _STARVED))
    with pytest.raises((VideoDecoderCrashed, VideoEmpty)):
        StreamSource(kind="file", name="a", media=os.open(path, os.O_RDONLY), limits=limits)


_STARVED = """
import resource, sys
import av
from vltrack.video import decode, decoder_main
limit_process = decoder_main.limit_process
def starve(memory_bytes, network):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limit_process(used + (40 << 20), network=network)
decoder_main.limit_process = starve
sys.exit(decoder_main.main())
"""


@pytest.mark.fault("V10")
def test_the_slice_keeps_the_numbers_of_the_file(tmp_path: Path) -> None:
    source, frames = read(write_video(tmp_path / "a.mp4", 20), start=3, end=12, stride=4)
    assert [frame.index for frame in frames] == [3, 7, 11]
    assert all(f.image is not None and abs(number_of(f.image) - f.index) <= 1 for f in frames)
    assert not source.report.degraded

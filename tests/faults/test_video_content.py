"""Fault rows V10-V15: time, rotation, pixel shape, color and odd sizes of what is read."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from video_samples import number_of, numbered_image, read, write_video

from vltrack.api.track import track_meta
from vltrack.core.errors import VideoEmpty
from vltrack.core.types import Frame, Target
from vltrack.video.decode import rgb_of
from vltrack.video.source import SourceInfo, open_source


def _read(path: Path | str) -> tuple[SourceInfo, list[Frame]]:
    source, frames = read(path)
    assert not source.report.degraded
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return source.info, frames


def _numbers(frames: list[Frame]) -> list[int]:
    return [number_of(frame.image) for frame in frames if frame.image is not None]


@pytest.mark.fault("V10")
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_uneven_time_and_b_frames(tmp_path: Path, suffix: str) -> None:
    times = [0, 40, 80, 200, 210, 400, 440, 480, 1500, 1540, 1580, 1620]
    path = write_video(tmp_path / f"a{suffix}", 12, milliseconds=times, options={"bf": "3", "crf": "1"})
    info, frames = _read(path)
    assert [f.seconds for f in frames] == [pytest.approx(t / 1000, abs=0.0011) for t in times]
    assert all(abs(n - k) <= 1 for k, n in enumerate(_numbers(frames)))
    assert info.seconds == pytest.approx(1.62, abs=0.2)


@pytest.mark.fault("V10")
@pytest.mark.parametrize("first", [-80, 5000])
def test_time_runs_from_the_first_frame(tmp_path: Path, first: int) -> None:
    times = [first + 40 * k for k in range(10)]
    _, frames = _read(write_video(tmp_path / "a.mkv", 10, milliseconds=times))
    assert frames[0].seconds == 0
    assert all(b.seconds >= a.seconds for a, b in pairwise(frames))
    assert frames[-1].seconds == pytest.approx(0.36, abs=0.1)


@pytest.mark.fault("V10")
@pytest.mark.parametrize("name", ["a.h264", "a.avi", "a.ts", "a.webm", "a.mpg"])
def test_containers_with_poor_or_no_time(tmp_path: Path, name: str) -> None:
    codec = {"a.webm": "libvpx", "a.mpg": "mpeg2video"}.get(name, "libx264")
    path = write_video(tmp_path / name, 40, codec=codec, options={"cpu-used": "8"} if codec == "libvpx" else {})
    info, frames = _read(path)
    assert len(frames) == 40
    assert info.rate == 25
    assert [f.seconds for f in frames] == [pytest.approx(k / 25, abs=0.002) for k in range(40)]
    assert all(abs(n - k) <= 3 for k, n in enumerate(_numbers(frames)))


@pytest.mark.fault("V10")
@pytest.mark.parametrize(
    ("name", "first"),
    [
        *((name, 0) for name in ("a.ts", "a.m2ts", "a.flv", "a.mkv", "a.mp4")),
        ("a.ts", 95_443_000),  # where the 33 bits of MPEG's clock end
        ("a.m2ts", 95_443_000),
    ],
)
def test_uneven_time_is_the_same_in_every_container(tmp_path: Path, name: str, first: int) -> None:
    times = [*range(0, 440, 40), 600, 620, 1100, 1140, 1180, *range(1500, 1740, 40), 2900]
    path = write_video(tmp_path / name, len(times), milliseconds=[first + t for t in times], options={"bf": "2"})
    _, frames = _read(path)
    assert [f.seconds for f in frames] == [pytest.approx(t / 1000, abs=0.0011) for t in times]


@pytest.mark.fault("V10")
@pytest.mark.parametrize("offset", [60_000, 2_400, 1_000, -60_000])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.ts", "libx264"), ("a.m2ts", "libx264"), ("a.ts", "mpeg2video"), ("a.vob", "mpeg2video")]
)
def test_joined_streams_have_their_own_frames_only(tmp_path: Path, name: str, codec: str, offset: int) -> None:
    """Pieces whose stamps jump ahead, overlap or begin again: no row is invented, time rises."""
    parts = []
    for first in (max(0, -offset), max(0, offset)):
        times = [first + 40 * k for k in range(60)]
        parts.append(write_video(tmp_path / name, 60, codec=codec, milliseconds=times, options={"g": "12"}))
        parts[-1] = parts[-1].rename(tmp_path / f"{len(parts)}{parts[-1].suffix}")
    (tmp_path / name).write_bytes(b"".join(part.read_bytes() for part in parts))
    _, frames = _read(tmp_path / name)
    assert len(frames) == 120
    assert all(abs(n - k % 60) <= 3 for k, n in enumerate(_numbers(frames)))
    assert all(a.seconds < b.seconds for a, b in pairwise(frames))
    longest = max(b.seconds - a.seconds for a, b in pairwise(frames))
    assert longest == pytest.approx(57.64, abs=0.6) if offset == 60_000 else longest < 0.09


def _quarters(width: int = 160, height: int = 96) -> NDArray[np.uint8]:
    """Red, green, blue, white in reading order."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2, 0] = 255
    image[: height // 2, width // 2 :, 1] = 255
    image[height // 2 :, : width // 2, 2] = 255
    image[height // 2 :, width // 2 :] = 255
    return image


ONE = 1 << 16
MATRICES = {  # linear part a, b, c, d -> what the stored image becomes
    "upright": ((ONE, 0, 0, ONE), lambda i: i),
    "90 clockwise": ((0, ONE, -ONE, 0), lambda i: np.rot90(i, -1)),
    "180": ((-ONE, 0, 0, -ONE), lambda i: np.rot90(i, 2)),
    "270 clockwise": ((0, -ONE, ONE, 0), lambda i: np.rot90(i, 1)),
    "mirrored": ((-ONE, 0, 0, ONE), lambda i: i[:, ::-1]),
    "upside down": ((ONE, 0, 0, -ONE), lambda i: i[::-1]),
    "transposed": ((0, ONE, ONE, 0), lambda i: i.transpose(1, 0, 2)),
}


@pytest.mark.fault("V11")
@pytest.mark.parametrize("turn", MATRICES)
def test_rotation_is_applied_before_everything(tmp_path: Path, turn: str) -> None:
    (a, b, c, d), expected = MATRICES[turn]
    image = _quarters()
    path = write_video(
        tmp_path / "a.mp4",
        2,
        width=160,
        height=96,
        images=[image] * 2,
        matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30),
        options={"crf": "5"},
    )
    info, frames = _read(path)
    wanted = expected(image)
    seen = frames[0].image
    assert seen is not None
    assert (info.height, info.width) == seen.shape[:2] == wanted.shape[:2]
    assert np.abs(seen.astype(int) - wanted).mean() < 4
    assert (info.rotation in (90, 270)) == (wanted.shape != image.shape)
    assert info.mirrored == (turn in ("mirrored", "upside down", "transposed"))


def _exif(orientation: int) -> bytes:
    """A TIFF structure with one entry."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _with_exif(suffix: str, image: NDArray[np.uint8], orientation: int) -> bytes:
    data, exif = cv2.imencode(suffix, image[..., ::-1])[1].tobytes(), _exif(orientation)
    if suffix == ".png":
        body = b"eXIf" + exif
        return data[:33] + struct.pack(">I", len(exif)) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]
    exif = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


@pytest.mark.fault("V11")
@pytest.mark.parametrize(
    ("suffix", "name"),
    [*((s, n) for s in (".jpg", ".png") for n in ("stream", "a.mov", "a.avi", "folder")), (".jpg", "a.mkv")],
)
def test_exif_of_frames_is_applied_per_frame(tmp_path: Path, suffix: str, name: str) -> None:
    """Image files copied into a video: the orientation is that of an image folder, other entries do no harm."""
    image = _quarters(64, 48)
    files = [_with_exif(suffix, image, orientation) for orientation in range(1, 9)]
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        for number, data in enumerate(files):
            (path / f"{number}{suffix}").write_bytes(data)
    elif name == "stream":
        path.write_bytes(b"".join(files))
    else:
        with av.open(str(path), "w") as out:
            stream = out.add_stream("png" if suffix == ".png" else "mjpeg", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24" if suffix == ".png" else "yuvj420p"
            for number, data in enumerate(files):
                packet = av.Packet(data)
                packet.stream, packet.pts, packet.dts, packet.duration = stream, number, number, 1
                packet.time_base = Fraction(1, 25)
                out.mux(packet)
    _, frames = _read(path)
    t = image.transpose(1, 0, 2)
    shown = [image, image[:, ::-1], image[::-1, ::-1], image[::-1], t, t[:, ::-1], t[::-1, ::-1], t[::-1]]
    for frame, wanted in zip(frames, shown, strict=True):
        assert frame.image is not None
        assert frame.image.shape == wanted.shape
        assert np.abs(frame.image.astype(int) - wanted).mean() < 8


@pytest.mark.fault("V11")
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_gain_map_of_a_photo_is_no_frame(tmp_path: Path, order: str) -> None:
    """Phones append further images to a JPEG and list them in its multi-picture segment."""
    photo, other = (cv2.imencode(".jpg", _quarters(w, h))[1].tobytes() for w, h in ((64, 48), (32, 24)))
    segment = b"MPF\0" + (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 3)
    segment += struct.pack(order + "HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(order + "HHII", 0xB001, 4, 1, 3)
    segment += struct.pack(order + "HHII", 0xB002, 7, 48, 50) + bytes(52)
    photo = photo[:2] + b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment + photo[2:] + other * 2
    (tmp_path / "photos").write_bytes(photo * 3)
    _, frames = _read(tmp_path / "photos")
    assert [frame.image.shape for frame in frames if frame.image is not None] == [(48, 64, 3)] * 3
    assert [frame.seconds for frame in frames] == [0, pytest.approx(0.04), pytest.approx(0.08)]


@pytest.mark.fault("V12")
def test_pixels_that_are_not_square_are_reported_not_scaled(tmp_path: Path) -> None:
    wide = Fraction(16, 11)
    info, frames = _read(write_video(tmp_path / "a.mp4", 3, sample_aspect=wide))
    assert info.sample_aspect == pytest.approx(16 / 11, abs=0.001)
    assert frames[0].image is not None
    assert frames[0].image.shape == (120, 160, 3)
    turned, _ = _read(write_video(tmp_path / "b.mp4", 3, sample_aspect=wide, rotation=90))
    assert turned.sample_aspect == pytest.approx(11 / 16, abs=0.001)
    source, _ = read(tmp_path / "a.mp4")
    assert "not square (sample aspect 1.455)" in source.report.warnings[0]
    head = track_meta(info, Target(text="x"), "model", 0, None, 1)
    assert (head["width"], head["sample_aspect"]) == (160, pytest.approx(16 / 11, abs=0.001))
    square, _ = _read(write_video(tmp_path / "c.mp4", 3))
    assert "sample_aspect" not in track_meta(square, Target(text="x"), "model", 0, None, 1)


@pytest.mark.fault("V13")
def test_a_size_that_changes_meanwhile_is_flagged(tmp_path: Path) -> None:
    small = write_video(tmp_path / "a.h264", 10).read_bytes()
    large = write_video(tmp_path / "b.h264", 10, width=320, height=240).read_bytes()
    (tmp_path / "c.h264").write_bytes(small + large)
    source, frames = read(tmp_path / "c.h264")
    shapes = [f.image.shape[:2] for f in frames if f.image is not None]
    assert shapes == [(120, 160)] * 10 + [(240, 320)] * 10
    assert [f.flags for f in frames] == [()] * 10 + [("size-changed",)] * 10
    assert (source.info.width, source.info.height) == (160, 120)


WEIGHTS = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}
CODES = {"601": 5, "709": 1, "2020": 9}


def _flat(rgb: tuple[int, int, int], matrix: str, full: bool, pix_fmt: str) -> av.VideoFrame:
    """A frame of one color, its numbers computed from the standard, not by the library under test."""
    red, blue = WEIGHTS[matrix]
    r, g, b = (value / 255 for value in rgb)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    depth = 10 if "10" in pix_fmt else 12 if "12" in pix_fmt else 8
    unit = 1 << (depth - 8)
    top = (1 << depth) - 1
    levels = (
        (y * top, 128 * unit + u * top, 128 * unit + v * top)
        if full
        else ((16 + 219 * y) * unit, (128 + 224 * u) * unit, (128 + 224 * v) * unit)
    )
    frame = av.VideoFrame(64, 64, pix_fmt)
    for plane, level in zip(frame.planes, levels, strict=False):
        kind = np.uint8 if depth == 8 else np.dtype("<u2")
        count = plane.buffer_size // np.dtype(kind).itemsize
        plane.update(np.full(count, min(round(level), top), kind).tobytes())
    frame.colorspace, frame.color_range = CODES[matrix], 2 if full else 1
    return frame


@pytest.mark.fault("V14")
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le", "yuv422p12le"])
def test_colors_follow_matrix_range_and_depth(matrix: str, full: bool, pix_fmt: str) -> None:
    reformatter = VideoReformatter()
    for rgb in ((255, 0, 0), (200, 30, 60), (10, 120, 250), (128, 128, 128), (255, 255, 255), (0, 0, 0)):
        image = rgb_of(_flat(rgb, matrix, full, pix_fmt), reformatter)
        assert image.shape == (64, 64, 3)
        assert np.abs(image.astype(int) - rgb).mean() <= 2, (rgb, image[0, 0])


@pytest.mark.fault("V14")
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("matrix", [8, 10, 11, 12, 13, 14, 15, 16])
def test_matrices_that_cannot_be_converted_are_read_as_unspecified(tmp_path: Path, codec: str, matrix: int) -> None:
    options = {"crf": "5"} | ({"x265-params": "log-level=none"} if codec == "libx265" else {})
    bare = write_video(tmp_path / "a.mp4", 3, codec=codec, images=[_quarters(160, 120)] * 3, options=options)
    with av.open(str(bare)) as whole, av.open(str(tmp_path / "b.mp4"), "w") as out:
        stream = out.add_stream_from_template(whole.streams.video[0])
        name = "h264" if codec == "libx264" else "hevc"
        change = BitStreamFilterContext(f"{name}_metadata=matrix_coefficients={matrix}", whole.streams.video[0], stream)
        for packet in whole.demux(video=0):
            for changed in change.filter(packet if packet.size else None):
                changed.stream = stream
                out.mux(changed)
    source, frames = read(tmp_path / "b.mp4")
    assert len(frames) == 3
    assert f"color matrix {matrix} " in " ".join(source.report.warnings)
    _, wanted = _read(bare)
    for frame, other in zip(frames, wanted, strict=True):
        assert frame.image is not None
        assert other.image is not None
        assert np.abs(frame.image.astype(int) - other.image).mean() < 4


@pytest.mark.fault("V14")
@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".mkv", "ffv1", "bgra"),
        (".mkv", "ffv1", "gbrp10le"),
        (".mkv", "ffv1", "yuv444p16le"),
        (".mov", "qtrle", "argb"),
        (".avi", "png", "rgb24"),
        (".avi", "mjpeg", "yuvj444p"),
        (".mkv", "libx264", "yuv444p10le"),
        (".y4m", "wrapped_avframe", "yuv420p"),
    ],
)
def test_pure_red_stays_red(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    path = write_video(tmp_path / f"a{suffix}", 2, codec=codec, pix_fmt=pix_fmt, width=64, height=64, images=[red] * 2)
    _, frames = _read(path)
    for frame in frames:
        assert frame.image is not None
        assert np.abs(frame.image.astype(int) - (255, 0, 0)).mean() <= 2


@pytest.mark.fault("V14")
def test_gray_stays_gray(tmp_path: Path) -> None:
    for codec_format in ("gray", "gray16le"):
        path = write_video(tmp_path / f"{codec_format}.mkv", 2, codec="ffv1", pix_fmt=codec_format)
        _, frames = _read(path)
        image = frames[1].image
        assert image is not None
        assert np.abs(image.astype(int) - numbered_image(1)).mean() <= 2


@pytest.mark.fault("V14")
def test_image_files_of_every_kind(tmp_path: Path) -> None:
    """16 bit is scaled, alpha dropped, gray repeated, EXIF orientation applied, red is red."""
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 2] = 255
    cv2.imwrite(str(tmp_path / "1.png"), red)
    cv2.imwrite(str(tmp_path / "2.png"), np.dstack([red, np.full((20, 30), 9, np.uint8)]))
    cv2.imwrite(str(tmp_path / "3.png"), np.full((20, 30), 40_000, np.uint16))
    cv2.imwrite(str(tmp_path / "4.tiff"), red)
    cv2.imwrite(str(tmp_path / "5.png"), np.full((20, 30), 77, np.uint8))
    turned = cv2.imencode(".jpg", red)[1].tobytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "6.jpg").write_bytes(turned[:2] + segment + turned[2:])
    with open_source(tmp_path) as source:
        images = [frame.image for frame in source]
    wanted = [(255, 0, 0), (255, 0, 0), (156, 156, 156), (255, 0, 0), (77, 77, 77), (255, 0, 0)]
    for image, color in zip(images, wanted, strict=True):
        assert image is not None
        assert np.abs(image.astype(int) - color).mean() <= 2
    assert images[5] is not None
    assert images[5].shape == (30, 20, 3)


@pytest.mark.fault("V14")
@pytest.mark.parametrize("name", ["a.png", "a.tiff", "stream"])
def test_the_range_of_16_bit_images_is_that_of_their_values(tmp_path: Path, name: str) -> None:
    """12-bit values are not near-black; the range grows with a later image and never narrows again."""
    (tmp_path / "f").mkdir()
    suffix = Path(name).suffix or ".png"
    for number, level in enumerate((2_000, 4_000, 500, 60_000, 4_000)):
        image = np.full((20, 30, 3 if number % 2 else 1), level, np.uint16)
        cv2.imwrite(str(tmp_path / f"f/{number}{suffix}"), image)
    (tmp_path / "stream").write_bytes(b"".join(path.read_bytes() for path in sorted((tmp_path / "f").iterdir())))
    _, frames = _read(tmp_path / ("stream" if name == "stream" else "f"))
    levels = [int(frame.image[0, 0, 1]) for frame in frames if frame.image is not None]
    assert levels == [2_000 >> 4, 4_000 >> 4, 500 >> 4, 60_000 >> 8, 4_000 >> 8]


def tiff(pages: list[NDArray[Any]], kinds: list[int] | None = None, *, big: bool = False) -> bytes:
    """A TIFF file of gray pages, their directories first."""
    word, many, entry, head = ("Q", "Q", 20, 16) if big else ("I", "H", 12, 8)
    begin = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
    length = struct.calcsize("<" + many) + 9 * entry + struct.calcsize("<" + word)
    data, place = b"", head + length * len(pages)
    for number, page in enumerate(pages):
        height, width = page.shape
        kind = (kinds or [0] * len(pages))[number]
        values = (kind, width, height, 8 * page.itemsize, 1, 1, place + len(data), height, page.nbytes)
        tags = (254, 256, 257, 258, 259, 262, 273, 278, 279)
        begin += struct.pack("<" + many, 9)
        begin += b"".join(struct.pack(f"<HH{word}{word}", t, 4, 1, v) for t, v in zip(tags, values, strict=True))
        begin += struct.pack("<" + word, 0 if number + 1 == len(pages) else head + length * (number + 1))
        data += page.tobytes()
    return begin + data


@pytest.mark.fault("V14")
@pytest.mark.parametrize("kind", [np.uint32, np.float32])
def test_samples_of_32_bits_are_named(tmp_path: Path, kind: type[np.generic]) -> None:
    (tmp_path / "a.tif").write_bytes(tiff([np.ones((20, 30), kind)]))
    with pytest.raises(VideoEmpty, match=r"\(32 bits per sample; convert it to 8 or 16\)"):
        open_source(tmp_path / "a.tif")


@pytest.mark.fault("V14")
def test_tags_that_are_not_right_are_no_damage(tmp_path: Path) -> None:
    """Cameras and scanners write dates without an end, tags out of order, odd versions; the pixels are whole."""
    image = numbered_image(20, 60, 40)
    jpeg, png = (cv2.imencode(suffix, image)[1].tobytes() for suffix in (".jpg", ".png"))
    chunks = {
        kind: struct.pack(">I", 1) + kind + b"\1" + struct.pack(">I", zlib.crc32(kind + b"\1"))
        for kind in (b"pHYs", b"tIME")
    }
    rows = struct.pack("<HHII", 278, 4, 1, 40)
    files = {
        "1.jpg": jpeg.replace(b"JFIF\0\1\1", b"JFIF\0\2\1"),
        "2.jpg": _with_exif(".jpg", image[..., ::-1], 9),
        "3.jpg": jpeg[:2] + b"\xff\xe1\0\x10Exif\0\0" + bytes([0x99] * 8) + jpeg[2:],
        "4.png": png[:33] + chunks[b"pHYs"] + png[33:],
        "5.png": png[:33] + chunks[b"tIME"] + png[33:],
        "6.tif": tiff([image[..., 0]]).replace(rows, struct.pack("<HHI4s", 306, 2, 4, b"2020")),
    }
    assert files["6.tif"] != tiff([image[..., 0]])
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    _, frames = _read(tmp_path)
    assert _numbers(frames) == [20] * 6


def _animated(path: Path, images: list[NDArray[np.uint8]]) -> Path:
    if path.suffix in (".tif", ".tiff"):
        path.write_bytes(tiff([image[..., 0] for image in images], big=path.suffix == ".tiff"))
    elif path.suffix == ".webp":
        animation = cv2.Animation()
        animation.frames = [image[..., ::-1].copy() for image in images]
        animation.durations = np.array([40, 80] * (len(images) // 2))
        cv2.imwriteanimation(str(path), animation)
    else:
        gif = path.suffix == ".gif"
        with av.open(str(path), "w", format="gif" if gif else "apng") as out:
            stream = out.add_stream("gif" if gif else "apng", rate=25)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "gray" if gif else "rgb24"
            for image in images:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode(None))
    return path


@pytest.mark.fault("V26")
@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".webp", ".png", ".gif"])
def test_every_page_of_an_image_file_is_a_frame(tmp_path: Path, suffix: str) -> None:
    path = _animated(tmp_path / f"a{suffix}", [numbered_image(5 * k) for k in range(20)])
    info, frames = _read(path)
    assert [(n + 2) // 5 for n in _numbers(frames)] == list(range(20))
    assert (info.width, info.height) == (160, 120)
    steps = [b.seconds - a.seconds for a, b in pairwise(frames)]
    assert steps == [pytest.approx(0.08 if suffix == ".webp" and k % 2 else 0.04, abs=0.002) for k in range(19)]
    _, frames = read(path, start=3, end=18, stride=7)
    assert [frame.index for frame in frames] == [3, 10, 17]
    assert [(n + 2) // 5 for n in _numbers(frames)] == [3, 10, 17]


@pytest.mark.fault("V26")
def test_of_animated_images_in_a_folder_the_first_page_is_read(tmp_path: Path) -> None:
    for number, suffix in enumerate((".png", ".tif", ".webp")):
        _animated(tmp_path / f"{number}{suffix}", [numbered_image(5 * k) for k in range(4)])
    source, frames = read(tmp_path)
    assert [abs(n) <= 1 for n in _numbers(frames)] == [True] * 3
    assert [text for text in source.report.warnings if "0.png has 4 pages" in text]


@pytest.mark.fault("V19")
@pytest.mark.fault("V26")
@pytest.mark.parametrize("suffix", [".tif", ".webp"])
def test_a_damaged_page_costs_no_page_before_it(tmp_path: Path, suffix: str) -> None:
    path = _animated(tmp_path / f"a{suffix}", [numbered_image(5 * k) for k in range(8)])
    data = bytearray(path.read_bytes())
    if suffix == ".tif":
        del data[-160 * 120 - 99 :]  # in the last but one
    else:
        data[len(data) * 2 // 3] ^= 0x55
    path.write_bytes(data)
    source, frames = read(path)
    seen = [frame.index for frame in frames if frame.image is not None]
    assert len(frames) == 8
    assert seen == list(range(len(seen)))
    assert 4 <= len(seen) < 8
    assert source.report.degraded


@pytest.mark.fault("V26")
def test_thumbnails_and_masks_of_a_page_are_not_frames(tmp_path: Path) -> None:
    pages = [numbered_image(k * 20)[..., 0] for k in range(4)]
    pages[1] = pages[1][::4, ::4].copy()
    (tmp_path / "a.tif").write_bytes(tiff(pages, kinds=[0, 1, 2, 4]))
    _, frames = _read(tmp_path / "a.tif")
    assert _numbers(frames) == [0, 40]


@pytest.mark.fault("V15")
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 37), (37, 1), (16, 16), (65, 49)])
def test_odd_and_tiny_sizes(tmp_path: Path, width: int, height: int) -> None:
    images = [np.random.default_rng(k).integers(0, 255, (height, width, 3), dtype=np.uint8) for k in range(3)]
    path = write_video(tmp_path / "a.avi", 3, codec="png", pix_fmt="rgb24", width=width, height=height, images=images)
    _, frames = _read(path)
    assert len(frames) == 3
    for frame, image in zip(frames, images, strict=True):
        assert np.array_equal(frame.image, image)

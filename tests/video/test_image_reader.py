"""Single image files: decoded in another process, strictly, whatever that process or the file does."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from vltrack.core.errors import DataError
from vltrack.video import client
from vltrack.video.base import Limits
from vltrack.video.images import ImageReader, shared_reader


@pytest.fixture
def reader() -> Iterator[ImageReader]:
    made = ImageReader(Limits(frame_timeout_s=20.0))
    yield made
    made.close()


def picture(width: int = 64, height: int = 48, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Smooth random colors, RGB(A)."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def png(width: int, height: int, rows: bytes) -> bytes:
    """A gray PNG file whose header may claim anything."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    framed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def turned(path: Path, image: np.ndarray) -> None:
    """Write a JPEG file with an EXIF orientation of 6: a quarter turn clockwise."""
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])


def test_pixels_are_those_of_the_file(reader: ImageReader, tmp_path: Path) -> None:
    image = picture()
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    cv2.imwrite(str(tmp_path / "deep.png"), image[..., ::-1].astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "gray.png"), image[..., 0])
    assert np.array_equal(reader.read(tmp_path / "a.png"), image)
    assert np.array_equal(reader.read(tmp_path / "deep.png", stored=True), image)
    assert np.array_equal(reader.read(tmp_path / "gray.png"), np.repeat(image[..., :1], 3, axis=2))


def test_a_turned_image_as_displayed_and_as_stored(reader: ImageReader, tmp_path: Path) -> None:
    image = picture()
    turned(tmp_path / "a.jpg", image)
    shown, stored = reader.read(tmp_path / "a.jpg"), reader.read(tmp_path / "a.jpg", stored=True)
    assert shown.shape == (64, 48, 3)
    assert np.array_equal(np.rot90(stored, -1), shown)
    assert np.abs(stored.astype(int) - image).mean() < 3


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_alpha_is_kept_on_request(reader: ImageReader, tmp_path: Path, suffix: str) -> None:
    rgba = picture(channels=4)
    rgba[..., 3] = np.maximum(rgba[..., 3], 1)  # WebP stores no color where nothing is seen
    cv2.imwrite(str(tmp_path / f"a{suffix}"), rgba[..., [2, 1, 0, 3]], [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert np.array_equal(reader.read(tmp_path / f"a{suffix}", alpha=True), rgba)
    assert reader.read(tmp_path / f"a{suffix}").shape == (48, 64, 3)


def test_without_alpha_an_image_is_opaque(reader: ImageReader, tmp_path: Path) -> None:
    for name, image in {
        "a.png": picture(),
        "gray.png": picture()[..., 0],
        "deep.png": np.uint16(picture()) * 257,
    }.items():
        cv2.imwrite(str(tmp_path / name), image)
        found = reader.read(tmp_path / name, alpha=True)
        assert found.shape == (48, 64, 4)
        assert (found[..., 3] == 255).all()


# -- damage --------------------------------------------------------------------------------------------------


@pytest.mark.fault("D07")
def test_what_is_no_whole_image_is_named(reader: ImageReader, tmp_path: Path) -> None:
    whole = cv2.imencode(".jpg", picture(400, 300))[1].tobytes()
    spoiled = bytearray(cv2.imencode(".png", picture(400, 300))[1].tobytes())
    spoiled[len(spoiled) // 2] ^= 255
    files = {
        "no.jpg": b"not an image",
        "empty.png": b"",
        "cut.jpg": whole[: len(whole) // 2],
        "spoiled.png": bytes(spoiled),
    }
    cv2.imwrite(str(tmp_path / "good.png"), picture())
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            reader.read(tmp_path / name)
        assert reader.read(tmp_path / "good.png").shape == (48, 64, 3)
    with pytest.raises(DataError, match=r"missing\.png.*No such file"):
        reader.read(tmp_path / "missing.png")
    with pytest.raises(DataError, match="cannot be read"):
        reader.read(tmp_path)


def test_a_claimed_size_above_the_limit_reaches_no_decoder(reader: ImageReader, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(40_000, 40_000, zlib.compress(bytes(1000))))
    with pytest.raises(DataError, match=r"a\.png.*40000x40000"):
        reader.read(tmp_path / "a.png")
    assert reader._decoder is None
    (tmp_path / "b.png").write_bytes(png(10_000, 9_000, zlib.compress(bytes(1000))))
    with pytest.raises(DataError, match="75 million"):  # four channels take the place of three
        reader.read(tmp_path / "b.png", alpha=True)
    assert reader._decoder is None


def test_a_bomb_takes_no_memory_of_the_caller(reader: ImageReader, tmp_path: Path) -> None:
    width, height = 9_000, 9_000
    rows = zlib.compress(bytes((width + 1) * height), 9)
    (tmp_path / "bomb.png").write_bytes(png(width, height, rows[: len(rows) - 1000]))
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="bomb"):
        reader.read(tmp_path / "bomb.png")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20_000 * (1 if sys.platform == "linux" else 1024)  # decoded it has 243 MB


# -- the decoder process -------------------------------------------------------------------------------------


def test_a_decoder_that_was_killed_is_replaced(reader: ImageReader, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    first = reader.read(tmp_path / "a.png")
    assert reader._decoder is not None
    killed = reader._decoder.process
    killed.kill()
    assert np.array_equal(reader.read(tmp_path / "a.png"), first)
    assert reader._decoder.process.pid != killed.pid


@pytest.mark.parametrize(
    ("code", "said"), [("raise SystemExit(3)", "exit status 3"), ("import time; time.sleep(99)", "0.5 s")]
)
def test_an_image_that_no_decoder_survives_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    reader = ImageReader(Limits(frame_timeout_s=0.5))
    monkeypatch.setattr(client, "COMMAND", (sys.executable, "-c", code))
    with pytest.raises(DataError, match=rf"a\.png.*{said}"):
        reader.read(tmp_path / "a.png")
    monkeypatch.undo()
    reader._limits = Limits()
    assert reader.read(tmp_path / "a.png").shape == (48, 64, 3)
    reader.close()


def test_threads_take_turns(reader: ImageReader, tmp_path: Path) -> None:
    images = [picture(seed=k) for k in range(4)]
    for k, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{k}.png"), image[..., ::-1])
    wrong: list[int] = []

    def read(k: int) -> None:
        wrong.extend(k for _ in range(20) if not np.array_equal(reader.read(tmp_path / f"{k}.png"), images[k]))

    threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _decoder_pid(path: Path) -> int:
    shared_reader().read(path)
    decoder = shared_reader()._decoder
    assert decoder is not None
    return decoder.process.pid


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_a_forked_process_has_a_decoder_of_its_own(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    own = _decoder_pid(tmp_path / "a.png")
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(into, str(_decoder_pid(tmp_path / "a.png")).encode())
        finally:
            os._exit(0)
    os.close(into)
    os.waitpid(child, 0)
    theirs = int(os.read(out, 99))
    os.close(out)
    assert theirs != own
    assert _decoder_pid(tmp_path / "a.png") == own
    assert gone(theirs)


def gone(process: int) -> bool:
    """Wait until a process has ended."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            state = (
                Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
                if sys.platform == "linux"
                else ""
            )
            os.kill(process, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_decoder_ends_with_a_killed_process(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    code = (
        "import sys, time; from pathlib import Path; from vltrack.video.images import shared_reader as r;"
        "r().read(Path(sys.argv[1])); print(r()._decoder.process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.png")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        decoder = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    assert gone(decoder)

"""The sound of an annotated video is that of its source, at the same times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vltrack.video.audio import RATE, AudioReader
from vltrack.video.source import open_source
from vltrack.video.writer import VideoWriter

SECONDS, FPS = 3, 25
CODECS = {"aac": "mp4", "mp3": "avi", "libopus": "mkv", "pcm_s16le": "mkv", "flac": "mkv"}


def write_clip(path: Path, codec: str | None = "aac") -> Path:
    """A silent clip with a tone of 1 kHz from second 1 to second 2."""
    rate = RATE if codec == "libopus" else 44_100
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = None if codec is None else file.add_stream(codec, rate=rate, layout="mono")
        for index in range(SECONDS * FPS):
            image = np.full((48, 64, 3), index, dtype=np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(video.encode(None))
        if sound is not None:
            times = np.arange(SECONDS * rate) / rate
            wave = np.where((times >= 1) & (times < 2), 12_000 * np.sin(2000 * np.pi * times), 0)
            fifo = av.AudioFifo()
            whole = av.AudioFrame.from_ndarray(wave.astype(np.int16).reshape(1, -1), format="s16", layout="mono")
            whole.sample_rate, whole.pts, whole.time_base = rate, 0, Fraction(1, rate)
            fifo.write(whole)
            while (part := fifo.read(1024, partial=True)) is not None:
                file.mux(sound.encode(part))
            file.mux(sound.encode(None))
    return path


def copy(path: Path, out: Path, **span: int) -> Path:
    """Write the frames and the sound of a clip once more."""
    with open_source(path, **span) as source:
        audio = path if source.info.audio else None
        with VideoWriter(out, width=64, height=48, rate=FPS, audio=audio) as writer:
            for frame in source:
                writer.write(frame.image, frame.seconds)
    return out


def loud(path: Path) -> tuple[float, float, float]:
    """First and last time of the tone, and the end of the sound; all in the time of the file."""
    pieces, begin = [], None
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            begin = frame.time if begin is None else begin
            pieces.append(np.abs(frame.to_ndarray().astype(float)).max(axis=0))
        rate = file.streams.audio[0].rate
    wave = np.concatenate(pieces)
    places = np.flatnonzero(wave > 0.2 * wave.max()) / rate + begin
    return float(places[0]), float(places[-1]), begin + len(wave) / rate


@pytest.mark.parametrize("codec", CODECS)
def test_sound_is_kept_at_its_time(codec: str, tmp_path: Path) -> None:
    source = write_clip(tmp_path / f"a.{CODECS[codec]}", codec)
    first, last, end = loud(copy(source, tmp_path / "b.mp4"))
    wanted = loud(source)
    assert (first, last) == pytest.approx(wanted[:2], abs=0.03)
    assert (first, last, end) == pytest.approx((1, 2, SECONDS), abs=0.08)
    with open_source(tmp_path / "b.mp4") as again:
        assert again.info.frames == SECONDS * FPS


def test_a_part_has_the_sound_of_that_part(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4")
    first, last, end = loud(copy(source, tmp_path / "b.mp4", start=30, end=45))
    assert (first, last) == pytest.approx((30 / FPS, 45 / FPS), abs=0.05)
    assert end == pytest.approx(45 / FPS, abs=0.05)


def test_the_same_bytes_again(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4")
    assert copy(source, tmp_path / "b.mp4").read_bytes() == copy(source, tmp_path / "c.mp4").read_bytes()


def test_without_sound(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", None)
    with av.open(str(copy(source, tmp_path / "b.mp4"))) as file:
        assert not file.streams.audio
    assert list(AudioReader(source, 0.0).until(9)) == []
    assert list(AudioReader(tmp_path / "no.mp4", 0.0).until(9)) == []
    assert list(AudioReader(tmp_path, 0.0).until(9)) == []


def test_damaged_sound_costs_no_image(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", "flac")
    data = bytearray(source.read_bytes())
    noise = np.random.default_rng(0).integers(0, 256, len(data) // 3, dtype=np.uint8)
    data[len(data) // 2 : len(data) // 2 + len(noise)] = noise.tobytes()
    (tmp_path / "b.mkv").write_bytes(data)
    images = copy(source, tmp_path / "good.mp4")
    writer = VideoWriter(tmp_path / "c.mp4", width=64, height=48, rate=FPS, audio=tmp_path / "b.mkv")
    with writer, open_source(images) as frames:
        for frame in frames:
            writer.write(frame.image, frame.seconds)
    with open_source(tmp_path / "c.mp4") as again:
        assert again.info.frames == SECONDS * FPS


def test_the_annotated_video_of_the_command_has_sound(tmp_path: Path) -> None:
    from vltrack.core.track import Track
    from vltrack.core.types import Step

    source = write_clip(tmp_path / "a.mp4")
    step = {"box": np.array([4.0, 4, 9, 9]), "score": 1.0, "visible": True}
    rows = [Step(**step, index=index, seconds=index / FPS) for index in range(SECONDS * FPS)]
    Track.from_steps(rows, {"source": str(source)}).save(tmp_path / "b.mp4")
    assert loud(tmp_path / "b.mp4")[:2] == pytest.approx((1, 2), abs=0.08)

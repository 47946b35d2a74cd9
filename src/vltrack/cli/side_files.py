"""What ``vltrack compare`` writes: boxes of each tracker, agreement, one picture, one video. Counts nothing.

Every file is written under a temporary name and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltrack.cli.console import shown
from vltrack.cli.side_tally import number_or_none
from vltrack.cli.tables import csv_line, safe_cell
from vltrack.core.errors import ResourceError
from vltrack.core.files import write_bytes, write_text

if TYPE_CHECKING:
    from vltrack.cli.side_tally import Now, Tally
    from vltrack.core.types import Image, Target
    from vltrack.plots.agreement import Story
    from vltrack.plots.lanes import Band
    from vltrack.plots.moments import Moment
    from vltrack.video.contract import SourceInfo
    from vltrack.video.writer import VideoWriter

FORMAT, VERSION = "vltrack.compare", 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """Where everything goes: boxes of each tracker, agreement, all of it in one file, picture, video."""

    folder: Path
    boxes: Mapping[str, Path]
    agreement: Path
    summary: Path
    picture: Path
    video: Path | None

    @classmethod
    def under(cls, folder: Path, names: Sequence[str], *, video: bool) -> Files:
        """The usual names in a folder."""
        return cls(
            folder=folder,
            boxes={name: folder / f"boxes-{name}.csv" for name in names},
            agreement=folder / "agreement.csv",
            summary=folder / "compare.json",
            picture=folder / "compare.png",
            video=folder / "compare.mp4" if video else None,
        )

    def all(self) -> tuple[Path, ...]:
        """Every path, the most useful first."""
        video = () if self.video is None else (self.video,)
        return (self.picture, *video, self.summary, self.agreement, *self.boxes.values())


class Film:
    """The video with all boxes and the band below it. Frames that did not decode are left out."""

    def __init__(self, path: Path, info: SourceInfo, names: Sequence[str], total: int | None) -> None:
        self._path, self._info, self._names, self._total = path, info, names, total
        self._band: Band | None = None
        self._writer: VideoWriter | None = None
        self._open = ExitStack()

    def add(self, image: Image, now: Now) -> None:
        """Draw and write one frame. Raises ``ResourceError``; the file is gone then."""
        from vltrack.plots.lanes import STRAY, Band, compose, draw_boxes

        size = (self._info.width, self._info.height)
        if self._band is None:
            self._band = Band(self._names, size[0], self._total)
        tagged = [value < STRAY for value in now.each]
        picture = draw_boxes(image, now.boxes, now.visible, self._names, tagged)
        band = self._band.draw(now.frame, now.mean, now.each, now.scores, now.visible)
        try:
            if self._writer is None:
                self._writer = self._begin(size[0], size[1] + self._band.height)
            self._writer.write(compose(picture, band, size), now.frame[1])
        except ResourceError as error:
            self._open.__exit__(type(error), error, error.__traceback__)
            raise

    def _begin(self, width: int, height: int) -> VideoWriter:
        from vltrack.video.writer import VideoWriter

        info = self._info
        writer = VideoWriter(
            self._path,
            width=width,
            height=height,
            rate=info.rate,
            sample_aspect=info.sample_aspect,
            overwrite=True,
        )
        return self._open.enter_context(writer)

    def finish(self) -> None:
        """Finish the file and give it its name, also where the run was stopped. Raises ``ResourceError``."""
        self._open.close()


def save_tables(files: Files, tally: Tally, source: str) -> None:
    """Boxes of each tracker, agreement, and everything in one file. Raises ``ResourceError``."""
    for name, track in tally.tracks.items():
        if len(track):
            track.save(files.boxes[name], overwrite=True)
    write_text(files.agreement, _agreement_csv(tally))
    document = json.dumps(_document(tally, source), allow_nan=False)
    write_text(files.summary, document + "\n")


def save_picture(files: Files, tally: Tally, target: Target, source: str, moments: Sequence[Moment]) -> None:
    """The picture, where at least one frame was decoded. Raises ``ResourceError``."""
    import cv2

    from vltrack.plots.agreement import agreement_picture

    if moments:
        picture = agreement_picture(_story(tally, target, source), moments)
        write_bytes(files.picture, cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())


def _agreement_csv(tally: Tally) -> str:
    """A row a frame: mean of all pairs, then each tracker with the others; empty where there is nothing."""
    found = tally.agreement
    lines = [csv_line({name: name for name in ("frame", "seconds", "mean", *map(safe_cell, tally.tracks))})]
    for row, (index, seconds) in enumerate(tally.frames):
        values = [number_or_none(value) for value in (found.mean_N[row], *found.each_TN[:, row])]
        cells: list[Any] = [index, seconds, *("" if value is None else value for value in values)]
        lines.append(csv_line(dict(enumerate(cells))))  # type: ignore[arg-type]
    return "\n".join(lines) + "\n"


def _document(tally: Tally, source: str) -> dict[str, Any]:
    """Everything in one object; null where there is nothing to tell."""
    found = tally.agreement
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": shown(source),
        "trackers": {name: tally.fare(name) for name in tally.tracks},
        "failed": {name: failure.told() for name, failure in tally.failures.items()},
        "left_out": dict(tally.left_out),
        "pairs": [[number_or_none(value) for value in row] for row in found.matrix_TT],
        "frames": [index for index, _ in tally.frames],
        "seconds": [seconds for _, seconds in tally.frames],
        "agreement": [number_or_none(value) for value in found.mean_N],
        "agreement_of": {
            name: [number_or_none(value) for value in row]
            for name, row in zip(tally.tracks, found.each_TN, strict=True)
        },
        "tracks": {name: json.loads(track.to_json()) for name, track in tally.tracks.items()},
    }


def _story(tally: Tally, target: Target, source: str) -> Story:
    """What the picture tells."""
    import numpy as np

    from vltrack.plots.agreement import Story

    shape = (len(tally.tracks), len(tally.frames))
    scores, visible = np.full(shape, np.nan), np.zeros(shape, dtype=np.bool_)
    for row, track in enumerate(tally.tracks.values()):
        scores[row, : len(track)] = track.scores
        visible[row, : len(track)] = track.visible
    named = [] if target.text is None else [f"\u201c{target.text}\u201d"]
    if target.box is not None:
        named.append("box " + ", ".join(f"{value:g}" for value in target.box))
    return Story(
        title="/".join(Path(source).parts[-2:]) if Path(source).is_dir() else Path(source).name or source,
        subtitle="   \u00b7   ".join([*named, f"{shape[1]} frames"]),
        names=list(tally.tracks),
        notes=[_note(tally, name) for name in tally.tracks],
        seconds_N=np.array([seconds for _, seconds in tally.frames]),
        mean_N=tally.agreement.mean_N,
        each_TN=tally.agreement.each_TN,
        matrix_TT=tally.agreement.matrix_TT,
        scores_TN=scores,
        visible_TN=visible,
    )


def _note(tally: Tally, name: str) -> str:
    """A tracker's line in the legend."""
    if name in tally.failures:
        return str(tally.failures[name])
    known = {key: value for key, value in tally.fare(name).items() if value is not None}
    words = {"agreement": "agreement {:.2f}", "lost": "lost {:.0%}", "success_auc": "AUC {:.3f}"}
    return " \u00b7 ".join(text.format(known[key]) for key, text in words.items() if key in known)

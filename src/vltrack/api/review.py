"""``vltrack.review``: the frames of a track that deserve a look, best first, and the single next one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltrack.api import inputs
from vltrack.api.reporter import QUIET, Reporter
from vltrack.core.errors import UsageError
from vltrack.core.files import printable
from vltrack.core.track import Track
from vltrack.core.types import whole
from vltrack.tracking.doubt import doubt_of, next_rows
from vltrack.video.source import is_place, open_source

if TYPE_CHECKING:
    from vltrack.api.track import Source

COUNT = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """Frames that deserve a look, best first.

    Attributes:
        source: name of the video.
        frames: their numbers; doubts: of each, in [0, 1].
        marks: how many marks the track has.
        files: that were written.
    """

    source: str
    frames: tuple[int, ...]
    doubts: tuple[float, ...]
    marks: int
    files: tuple[Path, ...] = ()

    @property
    def next(self) -> int | None:
        """The single next frame to look at; None where all are marked."""
        return self.frames[0] if self.frames else None

    def to_dict(self) -> dict[str, Any]:
        """Return what ``vltrack review --json`` prints."""
        look = [{"frame": frame, "doubt": round(one, 4)} for frame, one in zip(self.frames, self.doubts, strict=True)]
        return {
            "source": self.source,
            "next": self.next,
            "frames": look,
            "marks": self.marks,
            "outputs": [printable(path) for path in self.files],
        }


def review(
    track: Track | str | Path,
    source: Source | None = None,
    *,
    count: int = COUNT,
    output: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter = QUIET,
) -> Review:
    """Name the frames of a track that deserve a look, best first and spread over time, and the next one.

    The frame to look at is where the span between two marks that holds the most doubt is halved by it; the following
    ones are chosen as if those before them were marked. A track without doubts (``track(..., doubt=True)``) is judged
    by its scores alone.

    Args:
        track: to look at; or its ``.csv`` or ``.json``.
        source: its video; None is the ``source`` of its ``meta``, read only for ``output``.
        count: frames at most.
        output: a ``.png`` to write: a contact sheet of these frames, in the order of time.
        overwrite: replace ``output`` if it exists.
        reporter: receives a note where the track has no doubts.

    Raises:
        UsageError: a track without rows, a count below 1, an output that exists or is no ``.png``, or another video
            than the track's.
        DataError: the file is not a track of one target.
        InputError: the video cannot be read, see ``open_source``.
        ResourceError: the output cannot be written.

    Examples:
        >>> import vltrack
        >>> track = vltrack.track("clip.mp4", box=(313, 88, 342, 194), end=9, doubt=True)
        >>> len(vltrack.review(track, count=3).frames)
        3
    """
    if not isinstance(track, Track):
        track = Track.load(track)
    if whole("count", count) < 1:
        raise UsageError(f"The count {count} is below 1.")
    if not len(track):
        raise UsageError("A track without rows cannot be reviewed.")
    path = None if output is None else Path(output)
    if path is not None:
        if path.suffix.lower() not in inputs.SHEETS:
            raise UsageError(f"The output {printable(path)} does not end in .png.")
        source = inputs.video_of(track, source)
        inputs.check_outputs([path], source, overwrite=overwrite)
    elif source is not None and is_place(source):
        with open_source(source) as frames:
            inputs.check_video_of(track, frames.info, frames.info.frames)
    doubt = track.doubt
    if doubt is None:
        reporter.note("the track has no doubts: judged by its scores alone. Track with doubt (--doubt) for more.")
        doubt = doubt_of(track.scores)
    marked = {mark.frame for mark in track.marks}
    rows = next_rows(doubt, [row for row, index in enumerate(track.indices) if int(index) in marked], count)
    if path is not None and rows:
        chosen = track[sorted(rows)]
        from vltrack.api.outputs import draw_track

        draw_track(chosen, path, source)
    return Review(
        source=str(track.meta.get("source", "")),
        frames=tuple(int(track.indices[row]) for row in rows),
        doubts=tuple(float(doubt[row]) for row in rows),
        marks=len(track.marks),
        files=(path,) if path is not None and rows else (),
    )

"""``vltrack.convert``, ``read_tracks`` and ``write_tracks``: boxes in the formats of other programs, in and out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vltrack.api import inputs
from vltrack.api.outputs import load_tracks, save_tracks
from vltrack.core.errors import DataError, UsageError
from vltrack.core.files import as_resource_error, printable
from vltrack.core.json_io import read_text
from vltrack.core.track import MAX_FILE_BYTES, Track
from vltrack.core.types import Target
from vltrack.formats import FORMATS, detect
from vltrack.formats.base import Clip, clip_of
from vltrack.formats.layouts import IMAGE_FOLDERS

OWN = {"csv": ".csv", "json": ".json"}
NAMES = (*OWN, *FORMATS)
_BY_SUFFIX = {".csv": "csv", ".json": "json", ".xml": "cvat", ".parquet": "parquet"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What ``convert`` has done.

    Attributes:
        tracks: by target, as they were read.
        format: of the input; ``to``: of the output.
        path: the output.
    """

    tracks: dict[str, Track]
    format: str
    to: str
    path: Path


def convert(
    source: str | Path,
    output: str | Path,
    *,
    to: str | None = None,
    format: str | None = None,
    video: str | Path | None = None,
    targets: Sequence[str] = (),
    label: str | None = None,
    overwrite: bool = False,
) -> Converted:
    """Convert boxes from the format of one program into that of another.

    Conventions of every format, and what each cannot hold: docs/formats.md.

    Args:
        source: a file or a folder.
        output: the file or the folder to write.
        to: ``cvat``, ``coco``, ``mot``, ``yolo``, ``voc``, ``label-studio``, ``lasot``, ``got10k``, ``got10k-results``,
            ``vot``, ``csv``, ``json`` or ``parquet``; None follows the extension of ``output``.
        format: of ``source``; None recognizes it by its content.
        video: the video or folder of images that the boxes belong to, for its size, rate and number of frames.
        targets: names of those to keep; none keeps all.
        label: class of the targets in formats that have classes; by default the one that was read, else their name.
        overwrite: replace files that exist.

    Returns:
        The tracks and both formats.

    Raises:
        DataError: the input is damaged, or in no format that is read.
        UsageError: an unknown format or target, an output that exists, an input that may be in several formats, or a
            fact about the video that is missing.
        ResourceError: the output cannot be written. VideoNotFound, ...: see ``open_source``.
        ImportError: parquet without pandas and pyarrow.

    Examples:
        >>> import vltrack
        >>> done = vltrack.convert("boxes.csv", "boxes.xml", label="car")
        >>> done.format, done.to, list(done.tracks)
        ('csv', 'cvat', ['1'])
    """
    file, path = Path(source), Path(output)
    to = _format_of(path, to)
    _check_output(path, file, to, overwrite=overwrite)
    found = _format_in(file, format)
    clip = _facts(video)
    tracks = _read(file, found, clip, video)
    if unknown := [name for name in targets if name not in tracks]:
        raise UsageError(
            f"{printable(file)} has no target {printable(unknown[0])!r}.",
            hint=f"It has {', '.join(map(printable, tracks))}.",
        )
    tracks = {name: track for name, track in tracks.items() if not targets or name in targets}
    _write(tracks, path, to, clip, label, overwrite=overwrite)
    return Converted(tracks=tracks, format=found, to=to, path=path)


def read_tracks(path: str | Path, *, format: str | None = None, video: str | Path | None = None) -> dict[str, Track]:
    """Read the targets of an annotation or a result file of another program, or of our own.

    What a person set, such as keyframes of CVAT and Label Studio, is in ``meta["marks"]`` of each track.

    Args:
        path: a file or a folder.
        format, video: as of ``convert``.

    Returns:
        Tracks by target, each with rows from its first box on.

    Raises:
        DataError, UsageError, ImportError, VideoNotFound, ...: see ``convert``.

    Examples:
        >>> import vltrack
        >>> vltrack.read_tracks("boxes.csv")["1"].boxes.shape
        (3, 4)
    """
    return _read(Path(path), _format_in(Path(path), format), _facts(video), video)


def write_tracks(
    tracks: Track | Mapping[str, Track],
    path: str | Path,
    *,
    format: str | None = None,
    video: str | Path | None = None,
    label: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write targets in the format of another program, or in our own.

    Args:
        tracks: by name, or a single one.
        path: the file or the folder to write.
        format: as ``to`` of ``convert``; ``video``, ``label``, ``overwrite``: as there.

    Raises:
        UsageError, ResourceError, ImportError, VideoNotFound, ...: see ``convert``.

    Examples:
        >>> import vltrack
        >>> vltrack.write_tracks(vltrack.Track.load("boxes.csv"), "boxes", format="lasot")
        >>> len(vltrack.read_tracks("boxes")["boxes"])
        3
    """
    named = {"1": tracks} if isinstance(tracks, Track) else dict(tracks)
    if not named:
        raise UsageError("No track to write.")
    file = Path(path)
    to = _format_of(file, format)
    _check_output(file, None, to, overwrite=overwrite)
    _write(named, file, to, _facts(video), label, overwrite=overwrite)


def starts_of(tracks: Mapping[str, Track]) -> dict[str, tuple[int, Target]]:
    """Return for each target the frame in which it is first visible, with its box and sentence there.

    Raises ``UsageError`` where no target is visible.
    """
    found = {}
    for name, track in tracks.items():
        if len(seen := track[track.visible]):
            x, y, w, h = seen.boxes[0].tolist()
            found[name] = int(seen.indices[0]), Target(box=(x, y, w, h), text=track.meta.get("sentence"))
    if not found:
        raise UsageError("No target of the annotations is visible in any frame.")
    return found


# -- formats ------------------------------------------------------------------------------------------


def _format_of(path: Path, name: str | None) -> str:
    """Return the format to write. Raises ``UsageError``."""
    suffix = path.suffix.lower()
    if name is not None:
        inputs.check_choice("format", name, NAMES)
        suffixes = (OWN[name],) if name in OWN else FORMATS[name].suffixes
        if suffix not in suffixes:
            wanted = " or ".join(one or "a folder without extension" for one in suffixes)
            raise UsageError(f"{name} is written as {wanted}, not {printable(path.name)!r}.")
        return name
    if suffix not in _BY_SUFFIX:
        raise UsageError(
            f"The format of {printable(path.name)!r} does not follow from its name.",
            hint=f"Say which (--to): {', '.join(NAMES)}.",
        )
    return _BY_SUFFIX[suffix]


def _format_in(path: Path, name: str | None) -> str:
    if not path.exists():
        raise DataError(f"{printable(path)}: no such file or folder.", hint="Check the path.")
    if name is None:
        return detect(path)
    inputs.check_choice("format", name, NAMES)
    return name


def _facts(video: str | Path | None) -> Clip:
    """Facts of the video, none without one. Raises what ``open_source`` raises."""
    if video is None:
        return Clip()
    from vltrack.video.source import open_source

    with open_source(video) as source:
        info = source.info
    place = Path(video)
    name = place.resolve().parent.name if place.is_dir() and place.name in IMAGE_FOLDERS else place.name
    return Clip(name=name, width=info.width, height=info.height, frames=info.frames or None, rate=info.rate)


def _read(path: Path, name: str, clip: Clip, video: str | Path | None) -> dict[str, Track]:
    if name in OWN:
        head = read_text(path, MAX_FILE_BYTES)[:200]
        several = "vltrack.tracks" in head
        tracks = load_tracks(path) if several else {str((one := Track.load(path)).meta.get("target", "1")): one}
        clip_of(tracks, clip)  # refuses another size
    else:
        tracks = FORMATS[name].read(path, clip)
    if video is None:
        return tracks
    return {each: replace(track, meta={**track.meta, "source": os.fspath(video)}) for each, track in tracks.items()}


def _write(
    tracks: Mapping[str, Track], path: Path, name: str, clip: Clip, label: str | None, *, overwrite: bool
) -> None:
    if label is not None:
        tracks = {each: replace(track, meta={**track.meta, "label": label}) for each, track in tracks.items()}
    if name in OWN:
        save_tracks(tracks, path)
        return
    write = FORMATS[name].write
    if path.suffix or (overwrite and path.is_dir()):
        write(tracks, path, clip)
        return
    # A folder appears as a whole.
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name[:40]}.", dir=path.parent) as folder:
            made = Path(folder) / path.name
            made.mkdir()
            write(tracks, made, clip)
            made.replace(path)
    except OSError as error:
        raise as_resource_error(error, path) from error


def _check_output(path: Path, source: Path | None, name: str, *, overwrite: bool) -> None:
    """Raise ``UsageError`` or ``ResourceError`` where the output is the input, exists, or cannot be written."""
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"The output {printable(path)} is the input itself.", hint="Choose another name.")
    if path.suffix:
        inputs.check_writable(path, overwrite=overwrite)
    elif overwrite:
        inputs.check_folder(path)
    else:
        inputs.check_empty(path, "Pass overwrite (--overwrite) to replace files in it.")

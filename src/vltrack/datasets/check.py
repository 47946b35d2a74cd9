"""A look at a data set of videos that tells everything at once. Changes nothing; writes nothing.

What makes it unreadable is found by the reader itself (``opening``). Here is what needs a second look: boxes
that no frame holds, starts that no box gives, pictures that do not decode.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vltrack.core.errors import DataError, VltrackError
from vltrack.core.files import counted
from vltrack.datasets.detect import Detected, detect, splits_there
from vltrack.datasets.images import read_rgb
from vltrack.datasets.parsing import Issue, Issues
from vltrack.datasets.reader import Dataset, read_place, resolved
from vltrack.datasets.referring import (
    ReferringLayout,
    ReferringSplit,
    annotation_files,
    detect_referring,
    missing_annotations,
    open_referring,
    picture_file,
    raw_files,
    referring_layout,
)
from vltrack.datasets.sequences import Sequence
from vltrack.video.images import image_size

_HEAD = 256 * 1024  # bytes that hold the header of any usual image


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """What a look at a data set told.

    Attributes:
        detected: what was detected.
        datasets: the sound sequences of each split that was read.
        issues: everything that is wrong or odd.
    """

    detected: Detected
    datasets: list[Dataset]
    issues: Issues = field(default_factory=Issues)


def check_dataset(
    path: Path, *, name: str | None = None, split: str | None = None, images: bool = False
) -> CheckReport:
    """Look at every split that is there, or at ``split``; with ``images`` every picture is decoded.

    The folder of one split, and the folder of one clip, is looked at alone.

    Raises:
        DataError: there is no data set here to look into.
    """
    path = resolved(path)
    detected = detect(path, name, split)
    issues = Issues()
    places = splits_there(detected) if split is None and detected.root == path else [detected]
    datasets = [read_place(one, issues) for one in places]
    for dataset in datasets:
        for sequence in dataset.sequences:
            _look_at_boxes(sequence, issues)
            if images:
                _decode(sequence, issues)
    return CheckReport(detected=detected, datasets=datasets, issues=issues)


def _look_at_boxes(sequence: Sequence, issues: Issues) -> None:
    """Boxes against presence and against the first image's size."""
    boxes, seen = sequence.boxes, ~sequence.absent
    where = f"{sequence.source} ({sequence.name})" if not sequence.files else str(sequence.source)
    flat = seen & ~(boxes[:, 2:] > 0).all(axis=1)
    if flat.any():
        first = int(np.argmax(flat)) + 1
        frames = counted(int(flat.sum()), "frame")
        said = f"in {frames} the target is not absent, but its box has no width or no height"
        issues.warn("box", where, f"{said}; first frame {first}.", "Scoring counts them by its own rule.")
    if not seen[0] or flat[0]:
        said = "the first frame has no box to start from."
        issues.warn("start", where, said, "A tracker cannot be started there by a box.")
    size = _size(sequence, issues)
    if size is None:
        return
    width, height = size
    ends = boxes[:, :2] + boxes[:, 2:]
    outside = seen & ~flat & ((boxes[:, 0] >= width) | (boxes[:, 1] >= height) | (ends <= 0).any(axis=1))
    if outside.any():
        first = int(np.argmax(outside)) + 1
        count = counted(int(outside.sum()), "box", "boxes")
        said = f"wholly outside of {width}x{height}: {count}, first frame {first}."
        issues.warn("box", where, said, "Boxes or images may be those of another version.")


def _size(sequence: Sequence, issues: Issues) -> tuple[int, int] | None:
    """(width, height) of the first image, by its header."""
    if not sequence.files:
        return None
    try:
        with sequence.files[0].open("rb") as file:
            found = image_size(file.read(_HEAD))
    except OSError as error:
        issues.error("image", sequence.files[0], f"cannot be read ({error.strerror}).")
        return None
    if found is None:
        issues.error("image", sequence.files[0], "is no image that is known.", "Copy the file again.")
    elif sequence.size not in (None, found):
        said = f"is {found[0]}x{found[1]}, the annotation says {sequence.size}."
        issues.warn("image", sequence.files[0], said)
    return found


def _decode(sequence: Sequence, issues: Issues) -> None:
    """Every picture, in the decoder's own process; each damaged one is an error."""
    if sequence.files == ():
        return
    count, odd = 0, 0
    try:
        with sequence.open_frames() as frames:
            for frame in frames:
                count += 1
                odd += "size-changed" in frame.flags
                if frame.image is None and sequence.files is not None:
                    reason = frame.flags[-1] if frame.flags else "damaged"
                    issues.error("image", sequence.files[frame.index], f"does not decode ({reason}).")
    except VltrackError as error:
        issues.error("image", sequence.source, error.message, error.hint)
        return
    if sequence.files is None and count != len(sequence.boxes):
        said = f"has {counted(count, 'frame')} for {counted(len(sequence.boxes), 'box', 'boxes')}."
        issues.error("rows", sequence.source, said, "Every frame needs one row.")
    if odd:
        issues.warn("image", sequence.source, f"{counted(odd, 'image')} of another size than the first.")


# MERGED datasets/check.py
# A look at a set of pictures with phrases that tells everything at once. Knows no video; changes nothing.


_SHOWN = 3
_DECODED = 16
_NUMBERS = re.compile(r"[\d\s.,;+-]+")


def check_referring(path: Path, name: str | None = None) -> list[Issue]:
    """All issues over the set in ``path``, errors first; none where it is as it should be.

    Every split's annotations are read whole and every picture is looked for. Of each split about 16 pictures,
    evenly spread, are decoded. Nothing is written.
    """
    issues = Issues()
    try:
        layout = referring_layout(name) if name is not None else detect_referring(path)
    except DataError as error:
        issues.error("set", path, error.message, error.hint)
        return issues.found
    files = annotation_files(layout, path)
    if not files:
        missing = missing_annotations(layout, path, None)
        issues.error("annotations", path, missing.message, missing.hint)
        return issues.found
    _missing_splits(issues, layout, path, files)
    for split, file in files.items():
        try:
            (read,) = open_referring(path, name=layout.name, split=split).splits
        except DataError as error:
            issues.error("annotations", file, error.message, error.hint)
            continue
        _annotations(issues, read)
        _pictures(issues, layout, path, read)
    return [*issues.errors, *issues.warnings]


def _missing_splits(issues: Issues, layout: ReferringLayout, root: Path, files: dict[str, Path]) -> None:
    for split in layout.splits:
        if split not in files:
            raw = [file for file in raw_files(layout, root) if file.stem.endswith(f"_{split}")]
            remedy = f"Convert it: vltrack datasets convert '{raw[0]}'" if raw else "It is left out."
            issues.warn("split", root, f"the split {split} has no annotations here.", remedy)


def _annotations(issues: Issues, read: ReferringSplit) -> None:
    for why, count in read.left_out.items():
        if why != "a crowd":  # belongs to COCO
            issues.warn("unusable", read.annotations, f"{read.split}: {count} times {why}; left out.")
    pasted = sum(_NUMBERS.fullmatch(phrase) is not None for phrase in read.phrases)
    if pasted:
        issues.warn(
            "sentence", read.annotations, f"{read.split}: only numbers in {counted(pasted, 'phrase')}."
        )
    sizes = np.array([read.sizes.get(name, (0, 0)) for name in read.names], dtype=np.float64)[read.image]
    corner = read.boxes[:, :2] + read.boxes[:, 2:]
    over = (read.boxes[:, :2] < -1) | (corner > sizes + 1)
    outside = (sizes > 0).all(axis=1) & over.any(axis=1)
    if outside.any():
        first = read.names[read.image[int(np.argmax(outside))]]
        issues.warn(
            "boxes",
            read.annotations,
            f"{read.split}: {int(outside.sum())} boxes reach over the edge of their picture by more than a "
            f"pixel, first in {first}.",
        )


def _pictures(issues: Issues, layout: ReferringLayout, root: Path, read: ReferringSplit) -> None:
    names = [read.names[which] for which in np.unique(read.image)]
    files = {name: picture_file(layout, root, read.split, name) for name in names}
    there = [name for name in names if files[name].is_file()]
    if len(there) < len(names):
        missing = [files[name] for name in names if not files[name].is_file()]
        issues.error(
            "pictures",
            missing[0].parent,
            f"{read.split}: {len(missing)} of {len(names)} pictures are missing, first "
            f"{', '.join(file.name for file in missing[:_SHOWN])}.",
            f"`vltrack datasets fetch-help {layout.name}` says what to fetch.",
        )
    for name in there[:: max(1, len(there) // _DECODED)]:
        try:
            height, width = read_rgb(files[name]).shape[:2]
        except DataError as error:
            issues.error("image", files[name], error.message, error.hint)
            continue
        told = read.sizes.get(name, (width, height))
        if told != (width, height):
            message = f"it is {width}x{height}, its annotation says {told[0]}x{told[1]}."
            issues.error("image", files[name], message, "Fetch the pictures of the same release.")

"""Check data sets: list everything that is wrong or odd. Nothing is written.

Errors of the annotations come from the readers. Added here are issues that do not prevent reading: boxes
outside of the frame, missing start boxes, images that do not decode.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vltrack.core.errors import DataError, VltrackError
from vltrack.core.files import counted, open_limited
from vltrack.datasets.detect import Detected, detect, splits_there
from vltrack.datasets.images import read_rgb
from vltrack.datasets.parsing import Issue, Issues
from vltrack.datasets.reader import Dataset, read_detected, resolved
from vltrack.datasets.referring import (
    ReferringLayout,
    ReferringSplit,
    annotation_files,
    detect_referring,
    image_file,
    missing_annotations,
    open_referring,
    raw_files,
    referring_layout,
)
from vltrack.datasets.sequences import Sequence
from vltrack.video.images import image_size
from vltrack.video.ipc import MAX_IMAGE_BYTES

_ONLY_NUMBERS = re.compile(r"[\d\s.,;+-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """Result of a check.

    Attributes:
        detected: the data set that was found.
        datasets: the sequences without errors of each split that was read.
        issues: everything that is wrong or odd.
    """

    detected: Detected
    datasets: list[Dataset]
    issues: Issues


def check_dataset(
    path: Path, *, name: str | None = None, split: str | None = None, images: bool = False
) -> CheckReport:
    """Check a video data set: every split that is there, or ``split``; ``images`` decodes every image.

    The folder of one split, and the folder of one clip, is checked alone.

    Raises:
        DataError: ``path`` does not hold a data set.
    """
    path = resolved(path)
    detected = detect(path, name, split)
    issues = Issues()
    parts = splits_there(detected) if split is None and detected.root == path else [detected]
    datasets = [read_detected(part, issues) for part in parts]
    for dataset in datasets:
        for sequence in dataset.sequences:
            frames = _check_boxes(sequence, issues)
            if sequence.files != () and frames != 0 and (images or frames not in (None, len(sequence.boxes))):
                _check_images(sequence, issues)
    return CheckReport(detected=detected, datasets=datasets, issues=issues)


def _check_boxes(sequence: Sequence, issues: Issues) -> int | None:
    """Check boxes against absence flags and the size of the first image; return the frames that a video promises."""
    boxes, visible = sequence.boxes, ~sequence.absent
    where = str(sequence.source) if sequence.files else f"{sequence.source} ({sequence.name})"
    flat = visible & ~(boxes[:, 2:] > 0).all(axis=1)
    if flat.any():
        frames = counted(int(flat.sum()), "frame")
        said = f"The target is not absent but its box has no width or height in {frames}"
        said += f", first in frame {int(np.argmax(flat)) + 1}."
        issues.warn("box", where, said, "How they count depends on the protocol.")
    if not visible[0] or flat[0]:
        hint = "A tracker cannot be started there by a box."
        issues.warn("start", where, "The first frame has no box to start from.", hint)
    size, promised = _video_size(sequence, issues) if sequence.files is None else (_image_size(sequence, issues), None)
    if size is None:
        return promised
    width, height = size
    ends = boxes[:, :2] + boxes[:, 2:]
    outside = visible & ~flat & ((boxes[:, 0] >= width) | (boxes[:, 1] >= height) | (ends <= 0).any(axis=1))
    if outside.any():
        count = counted(int(outside.sum()), "box", "boxes")
        said = f"Completely outside of {width}x{height}: {count}, first in frame {int(np.argmax(outside)) + 1}."
        issues.warn("box", where, said, "Boxes or images may be those of another version.")
    return promised


def _video_size(sequence: Sequence, issues: Issues) -> tuple[tuple[int, int] | None, int | None]:
    """Return (width, height) of a video and the number of frames that its container promises; 0: it does not open."""
    try:
        with sequence.open_frames() as source:
            return (source.info.width, source.info.height), source.info.frames_about
    except VltrackError as error:
        issues.error("image", sequence.source, error.message, error.hint)
        return None, 0


def _image_size(sequence: Sequence, issues: Issues) -> tuple[int, int] | None:
    """Return (width, height) of the first image, by its header."""
    if not sequence.files:
        return None
    file = sequence.files[0]
    try:
        with open_limited(file, MAX_IMAGE_BYTES) as opened:
            found = image_size(opened.read(256 << 10))  # holds the header of any usual image
    except OSError as error:
        issues.error("image", file, f"Cannot be read ({error.strerror}).")
        return None
    if found is None:
        issues.error("image", file, "Not an image of a known format.", "Copy the file again.")
    elif sequence.size not in (None, found):
        issues.warn("image", file, f"The size is {found}, the annotation says {sequence.size}.")
    return found


def _check_images(sequence: Sequence, issues: Issues) -> None:
    """Decode every image in the decoder's own process; each damaged one is an error."""
    count, odd = 0, 0
    try:
        with sequence.open_frames() as frames:
            for frame in frames:
                count += 1
                odd += "size-changed" in frame.flags
                if frame.image is None and sequence.files is not None:
                    reason = frame.flags[-1] if frame.flags else "damaged"
                    issues.error("image", sequence.files[frame.index], f"Cannot be decoded ({reason}).")
    except VltrackError as error:
        issues.error("image", sequence.source, error.message, error.hint)
        return
    if sequence.files is None and count != len(sequence.boxes):
        said = f"{counted(count, 'frame')} for {counted(len(sequence.boxes), 'box', 'boxes')}."
        issues.error("rows", sequence.source, said, "Every frame needs one row.")
    if odd:
        issues.warn("image", sequence.source, f"{counted(odd, 'image')} of another size than the first.")


def check_referring(path: Path, name: str | None = None) -> list[Issue]:
    """Check a set of referring expressions; return all issues, errors first.

    Every split's annotations are read completely and every image file is looked for. Of each split about 16
    images, evenly spread, are decoded.
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
    for split in layout.splits:
        if split not in files:
            raw = [file for file in raw_files(layout, path) if file.stem.endswith(f"_{split}")]
            hint = f"Convert it: vltrack datasets convert '{raw[0]}'" if raw else "It is left out."
            issues.warn("split", path, f"Split {split!r} has no annotations here.", hint)
    for split, file in files.items():
        try:
            (read,) = open_referring(path, name=layout.name, split=split).splits
        except DataError as error:
            issues.error("annotations", file, error.message, error.hint)
            continue
        _check_expressions(issues, read)
        _check_image_files(issues, layout, path, read)
    return [*issues.errors, *issues.warnings]


def _check_expressions(issues: Issues, read: ReferringSplit) -> None:
    for why, count in read.left_out.items():
        if why != "a crowd":  # these are normal in COCO
            issues.warn("unusable", read.annotations, f"Split {read.split}: left out {counted(count, 'time')}: {why}.")
    pasted = sum(_ONLY_NUMBERS.fullmatch(phrase) is not None for phrase in read.phrases)
    if pasted:
        said = f"Split {read.split}: only numbers in {counted(pasted, 'expression')}."
        issues.warn("sentence", read.annotations, said)
    sizes = np.array([read.sizes.get(name, (0, 0)) for name in read.names], dtype=np.float64)[read.image]
    corner = read.boxes[:, :2] + read.boxes[:, 2:]
    over = (read.boxes[:, :2] < -1) | (corner > sizes + 1)
    outside = (sizes > 0).all(axis=1) & over.any(axis=1)
    if outside.any():
        boxes = counted(int(outside.sum()), "box", "boxes")
        first = read.names[read.image[int(np.argmax(outside))]]
        said = f"Split {read.split}: {boxes} more than a pixel outside of the image, first in {first}."
        issues.warn("boxes", read.annotations, said)


def _check_image_files(issues: Issues, layout: ReferringLayout, root: Path, read: ReferringSplit) -> None:
    names = [read.names[which] for which in np.unique(read.image)]
    files = {name: image_file(layout, root, read.split, name) for name in names}
    there = [name for name in names if files[name].is_file()]
    if len(there) < len(names):
        missing = [file for file in files.values() if not file.is_file()]
        shown = ", ".join(file.name for file in missing[:3])
        said = f"Split {read.split}: {len(missing)} of {len(names)} images are missing, such as {shown}."
        hint = f"`vltrack datasets fetch-help {layout.name}` says what to fetch."
        issues.error("pictures", missing[0].parent, said, hint)
    for name in there[:: max(1, len(there) // 16)]:
        try:
            height, width = read_rgb(files[name]).shape[:2]
        except DataError as error:
            issues.error("image", files[name], error.message, error.hint)
            continue
        annotated = read.sizes.get(name, (width, height))
        if annotated != (width, height):
            said = f"The image is {width}x{height}, its annotation says {annotated[0]}x{annotated[1]}."
            issues.error("image", files[name], said, "Fetch the images of the same release.")

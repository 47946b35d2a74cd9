"""A look at a data set of videos that tells everything at once. Changes nothing; writes nothing.

What makes it unreadable is found by the reader itself (``opening``). Here is what needs a second look: boxes
that no frame holds, starts that no box gives, pictures that do not decode.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vltrack.core.errors import VltrackError
from vltrack.core.text import counted
from vltrack.datasets.findings import Findings
from vltrack.datasets.opening import Dataset, read_place, resolved
from vltrack.datasets.recognise import Place, recognise, splits_there
from vltrack.datasets.sequences import Sequence
from vltrack.video.headers import image_size

_HEAD = 256 * 1024  # bytes that hold the header of any usual image


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a look at a data set told.

    Attributes:
        place: what was recognised.
        datasets: the sound sequences of each split that was read.
        findings: everything that is wrong or odd.
    """

    place: Place
    datasets: list[Dataset]
    findings: Findings = field(default_factory=Findings)


def check_dataset(
    path: Path, *, name: str | None = None, split: str | None = None, images: bool = False
) -> Report:
    """Look at every split that is there, or at ``split``; with ``images`` every picture is decoded.

    The folder of one split, and the folder of one clip, is looked at alone.

    Raises:
        DataError: there is no data set here to look into.
    """
    path = resolved(path)
    place = recognise(path, name, split)
    findings = Findings()
    places = splits_there(place) if split is None and place.root == path else [place]
    datasets = [read_place(one, findings) for one in places]
    for dataset in datasets:
        for sequence in dataset.sequences:
            _look_at_boxes(sequence, findings)
            if images:
                _decode(sequence, findings)
    return Report(place=place, datasets=datasets, findings=findings)


def _look_at_boxes(sequence: Sequence, findings: Findings) -> None:
    """Boxes against presence and against the first image's size."""
    boxes, seen = sequence.boxes, ~sequence.absent
    where = f"{sequence.source} ({sequence.name})" if not sequence.files else str(sequence.source)
    flat = seen & ~(boxes[:, 2:] > 0).all(axis=1)
    if flat.any():
        first = int(np.argmax(flat)) + 1
        frames = counted(int(flat.sum()), "frame")
        said = f"in {frames} the target is not absent, but its box has no width or no height"
        findings.warn("box", where, f"{said}; first frame {first}.", "Scoring counts them by its own rule.")
    if not seen[0] or flat[0]:
        said = "the first frame has no box to start from."
        findings.warn("start", where, said, "A tracker cannot be started there by a box.")
    size = _size(sequence, findings)
    if size is None:
        return
    width, height = size
    ends = boxes[:, :2] + boxes[:, 2:]
    outside = seen & ~flat & ((boxes[:, 0] >= width) | (boxes[:, 1] >= height) | (ends <= 0).any(axis=1))
    if outside.any():
        first = int(np.argmax(outside)) + 1
        count = counted(int(outside.sum()), "box", "boxes")
        said = f"wholly outside of {width}x{height}: {count}, first frame {first}."
        findings.warn("box", where, said, "Boxes or images may be those of another version.")


def _size(sequence: Sequence, findings: Findings) -> tuple[int, int] | None:
    """(width, height) of the first image, by its header."""
    if not sequence.files:
        return None
    try:
        with sequence.files[0].open("rb") as file:
            found = image_size(file.read(_HEAD))
    except OSError as error:
        findings.error("image", sequence.files[0], f"cannot be read ({error.strerror}).")
        return None
    if found is None:
        findings.error("image", sequence.files[0], "is no image that is known.", "Copy the file again.")
    elif sequence.size not in (None, found):
        said = f"is {found[0]}x{found[1]}, the annotation says {sequence.size}."
        findings.warn("image", sequence.files[0], said)
    return found


def _decode(sequence: Sequence, findings: Findings) -> None:
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
                    findings.error("image", sequence.files[frame.index], f"does not decode ({reason}).")
    except VltrackError as error:
        findings.error("image", sequence.source, error.message, error.hint)
        return
    if sequence.files is None and count != len(sequence.boxes):
        said = f"has {counted(count, 'frame')} for {counted(len(sequence.boxes), 'box', 'boxes')}."
        findings.error("rows", sequence.source, said, "Every frame needs one row.")
    if odd:
        findings.warn("image", sequence.source, f"{counted(odd, 'image')} of another size than the first.")

"""Which data a run is trained on: ``--data lasot=/data/lasot``, or a folder in which all data sets lie."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from vltrack.core.errors import DataError, UsageError, did_you_mean
from vltrack.core.files import counted, printable
from vltrack.datasets.catalogue import videos
from vltrack.datasets.detect import detect, splits_there
from vltrack.datasets.images import load_clips
from vltrack.datasets.layouts import ALL
from vltrack.datasets.parsing import Issues
from vltrack.datasets.reader import Dataset, read_detected, resolved
from vltrack.datasets.referring import REFERRING_LAYOUTS, detect_referring, image_file, open_referring
from vltrack.datasets.sequences import Sequence as AnnotatedSequence
from vltrack.training.own_clips import has_tracks
from vltrack.training.videos import AnnotatedTarget

log = logging.getLogger(__name__)
STILLS, CLIPS, OWN = "stills", "clips", "folder"
"""Names of folders with an index.jsonl, with a clips.jsonl (docs/train.md), and of clips of one's own."""
KNOWN = (*videos(), *REFERRING_LAYOUTS, STILLS, CLIPS)
DAMAGED_ALLOWED = 0.05
"""Share of the sequences of a data set that may be unreadable; they are left out (TNL2K: 12 of 1,300)."""
COCO_MIN_SIDE = 50.0
"""Smallest sides of COCO's objects that trackers are trained on, in pixels (STARK, OSTrack)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One data set to train on.

    Attributes:
        name: as ``vltrack datasets list`` has it; ``stills``, ``clips``, or ``folder`` for clips of one's own.
        root: its folder.
    """

    name: str
    root: Path

    @property
    def is_video(self) -> bool:
        """Whether it has videos, from which clips can be drawn."""
        return self.name != STILLS and self.name not in REFERRING_LAYOUTS


def find_sources(given: Iterable[str | Path]) -> tuple[Source, ...]:
    """Find the data sets of ``NAME=FOLDER``, or of ``FOLDER``: itself a data set, or the folder of several.

    Raises:
        UsageError: an unknown name. DataError: no such folder, or nothing in it to train on.
    """
    found: list[Source] = []
    for text in map(str, given):
        name, equals, folder = text.partition("=")
        if equals and name in KNOWN:
            found.append(Source(name=name, root=_existing(folder)))
        elif equals and not Path(text).exists():
            raise UsageError(f"Unknown data set: {printable(name)!r}.", hint=did_you_mean(name, KNOWN))
        else:
            found += _search(_existing(text))
    return tuple(dict.fromkeys(found))


def _existing(folder: str) -> Path:
    root = resolved(folder)
    if not root.is_dir():
        raise DataError(f"{printable(folder)} is not a folder of training data.", hint="See docs/train.md.")
    return root


def _search(root: Path) -> list[Source]:
    """The data set ``root``, or those in its folders."""
    if found := _identify(root):
        return found
    children = sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
    by_child = {child: _identify(child) for child in children}
    if not any(by_child.values()):
        raise DataError(
            f"{printable(root)} has nothing to train on.",
            hint="See `vltrack datasets list` and docs/train.md; `vltrack datasets check FOLDER` says what is missing.",
        )
    found = []
    for child, sources in by_child.items():
        if not sources:
            log.warning("%s is left out: no known data set. See `vltrack datasets check`.", printable(child))
        for source in sources:
            if _has_training_split(source):
                found.append(source)
            else:
                log.warning("%s is left out: it has no training split.", printable(source.root))
    return found


def _has_training_split(source: Source) -> bool:
    """Whether a video data set has its training split in the folder; others have one."""
    if not source.is_video or source.name in (CLIPS, OWN):
        return True
    return any(one.split.name == "train" for one in splits_there(detect(source.root, source.name)))


def _identify(root: Path) -> list[Source]:
    found = [
        Source(name=name, root=root)
        for name, file in ((STILLS, "index.jsonl"), (CLIPS, "clips.jsonl"))
        if (root / file).is_file()
    ]
    if found or has_tracks(root):
        return found or [Source(name=OWN, root=root)]
    try:
        video = detect(root)
        return [Source(name=video.layout.name, root=root if video.only else video.root)]
    except DataError:
        pass
    try:
        return [Source(name=detect_referring(root).name, root=root)]
    except DataError:
        return []


def read_targets(source: Source, split: str | None) -> Iterator[AnnotatedTarget]:
    """Yield the targets of a video or image data set, of its training split where ``split`` is None.

    Raises:
        DataError: it has no training split, no images, or too many sequences that cannot be read.
    """
    if source.name in REFERRING_LAYOUTS:
        yield from _referring_targets(source, split)
    elif source.name == CLIPS:
        yield from map(as_target, load_clips(source.root))
    else:
        yield from map(as_target, _open(source, split).sequences)


def as_target(sequence: AnnotatedSequence) -> AnnotatedTarget:
    """A sequence as a target to train on. Raises ``DataError`` where it has no images."""
    if not sequence.files:
        raise DataError(
            f"{sequence.name} has no images: {printable(sequence.source)}.", hint="Give the data set with its images."
        )
    count = min(len(sequence.files), len(sequence.boxes))
    boxes = sequence.boxes[:count].astype(np.float32)
    with np.errstate(invalid="ignore"):
        unseen = sequence.absent[:count] | ~(boxes[:, 2:].min(axis=1) > 0) | ~np.isfinite(boxes).all(axis=1)
    boxes[unseen] = np.nan
    return AnnotatedTarget(
        name=sequence.name,
        files=sequence.files[:count],
        boxes=boxes,
        sentences=_readable(sequence.sentences or (sequence.sentence,)),
    )


def _readable(sentences: Sequence[str]) -> tuple[str, ...]:
    """The sentences with a letter in them: some files are empty or hold numbers (TNL2K)."""
    return tuple(text for text in sentences if any(letter.isalpha() for letter in text))


def _open(source: Source, split: str | None) -> Dataset:
    """The sequences of the split that can be read; the others are counted in a warning."""
    layout = videos()[source.name]
    splits = [one.name for one in layout.splits]
    if layout.own:
        split = ALL
    elif split is None and "train" not in splits:
        raise DataError(
            f"{layout.title} has no training split: {printable(source.root)}.",
            hint="It is a test set; train on others. Clips of one's own: --data folder=FOLDER.",
        )
    issues = Issues()
    dataset = read_detected(detect(source.root, source.name, split or "train"), issues)
    if split in splits and any(issue.kind == "list" for issue in issues.errors):
        log.warning("%s: the list of split %s is missing; all of train is used.", layout.title, split)
        return _open(source, None)
    damaged, whole = len(issues.errors), len(dataset.sequences)
    if damaged > DAMAGED_ALLOWED * (damaged + whole) or (layout.own and damaged):
        issues.raise_errors(f"`vltrack datasets check {printable(source.root)}` lists everything that is wrong.")
    if damaged:
        first = issues.errors[0]
        log.warning("%s: left out %s, such as %s", layout.title, counted(damaged, "unreadable sequence"), first)
    return dataset


def _referring_targets(source: Source, split: str | None) -> Iterator[AnnotatedTarget]:
    """The objects of a set of single images, each with all its phrases, in order of the files."""
    layout = REFERRING_LAYOUTS[source.name]
    is_coco = layout.format == "coco"
    wanted = split or ("train" if "train" in layout.splits else layout.splits[0])
    (part,) = open_referring(source.root, name=source.name, split=wanted).splits
    images, boxes = part.image, part.boxes
    counts = Counter(zip(images.tolist(), part.phrases, strict=True)) if is_coco else Counter()
    for _, group in groupby(range(len(part)), key=lambda row: (images[row], part.references[row])):
        rows = list(group)
        if is_coco and boxes[rows[0], 2:].min() <= COCO_MIN_SIDE:
            continue
        file = image_file(layout, source.root, part.split, part.names[images[rows[0]]])
        phrases = [part.phrases[row] for row in rows]
        if is_coco:  # a category names an object only where the image has one of it
            phrases = [phrase for phrase in phrases if counts[(int(images[rows[0]]), phrase)] == 1]
        yield AnnotatedTarget(
            name=part.references[rows[0]],
            files=(file,),
            boxes=boxes[rows[:1]].astype(np.float32),
            sentences=_readable(phrases),
        )

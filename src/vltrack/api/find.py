"""``vltrack.find``: what a sentence names in one frame, its rivals, and the words that would set them apart.

Unpublished; our design.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vltrack.api import inputs
from vltrack.api.track import open_frames
from vltrack.core.errors import BoxFrameOutOfRange, NothingFits, PromptUnreadable, UsageError
from vltrack.core.files import printable, write_bytes
from vltrack.core.track import box_of
from vltrack.core.types import Box, Candidate, Frame, Image, check_str
from vltrack.prep.prompts import clean_text
from vltrack.prep.tokenizers import check_readable
from vltrack.tracking.grounding import Grounding
from vltrack.tracking.starts import DOUBTFUL_START, fits, probability_of, rivals_of

if TYPE_CHECKING:
    from vltrack.api.track import Source

_COVERED = (
    ("left", "right"), ("top", "bottom", "upper", "lower"), ("large", "small", "big", "little", "tall", "tiny"),
)  # fmt: skip
"""Words about one axis: where a sentence has one of them, it says enough about it."""
MOST_WORDS, CHANGES = 16, 0.05
"""Words of a sentence of which each is left out; change of a probability that is worth naming."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundBox:
    """A candidate with the words that set it apart from the best one (the best: from its rivals).

    Attributes:
        box: (x, y, w, h) float64 in pixels of the frame.
        score: probability in [0, 1] that the sentence names it.
        label: the detector's class.
        words: that would set it apart and are not in the sentence, such as ``("left", "red")``.
    """

    box: Box
    score: float
    label: str
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one sentence names in one frame.

    Attributes:
        text: the sentence.
        fits: whether anything in the frame fits it.
        nothing: probability that nothing does.
        boxes: the best one and up to three rivals, best first; those of a sentence that nothing fits are the
            nearest ones.
        warnings: about the sentence: parts that were not read.
    """

    text: str
    fits: bool
    nothing: float
    boxes: tuple[FoundBox, ...]
    warnings: tuple[str, ...] = ()

    @property
    def ambiguous(self) -> bool:
        """Whether the sentence may mean several things: it has rivals, and the best box is below 0.6."""
        return self.fits and len(self.boxes) > 1 and self.boxes[0].score < DOUBTFUL_START


@dataclass(frozen=True, kw_only=True, slots=True)
class WordEffect:
    """What one word of a sentence does, by what the sentence without it names.

    Attributes:
        word: as written.
        kind: ``decides`` (without it another box is the best), ``helps`` or ``hurts`` (without it the best box is less
            or more probable by 0.05), or ``nothing``.
        change: of the probability of the best box, with the word and without.
    """

    word: str
    kind: str
    change: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The answers to all sentences about one frame.

    Attributes:
        source: name of the input.
        frame, seconds: number and time of the frame; width, height: its size in pixels.
        answers: one per sentence.
        files: that were written.
    """

    source: str
    frame: int
    seconds: float
    width: int
    height: int
    answers: tuple[Answer, ...]
    files: tuple[Path, ...] = ()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one flat row per sentence and box, for pandas."""
        for answer in self.answers:
            for place, one in enumerate(answer.boxes):
                known = {"text": answer.text, "fits": answer.fits, "ambiguous": answer.ambiguous, "place": place + 1}
                yield {**known, **_box_record(one)}

    def to_dict(self) -> dict[str, Any]:
        """Return what ``vltrack find --json`` prints."""
        return {
            "source": printable(self.source),
            "frame": self.frame,
            "seconds": round(self.seconds, 3),
            "width": self.width,
            "height": self.height,
            "answers": [
                {
                    "text": answer.text,
                    "fits": answer.fits,
                    "ambiguous": answer.ambiguous,
                    "nothing": round(answer.nothing, 4),
                    "boxes": [_box_record(one) for one in answer.boxes],
                    "warnings": list(answer.warnings),
                }
                for answer in self.answers
            ],
            "outputs": [printable(path) for path in self.files],
        }

    def refusal(self) -> NothingFits | None:
        """Return the error for sentences that nothing in the frame fits; None where there are none."""
        texts = ", ".join(repr(answer.text) for answer in self.answers if not answer.fits)
        return NothingFits(f"Nothing in frame {self.frame} fits the text: {texts}.") if texts else None


def find(
    source: Source | Frame | Image,
    text: str | Iterable[str],
    *,
    at: float | str | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    allow_network: bool = False,
    device: str = "auto",
    backend: str = "auto",
) -> Found:
    """Find what a sentence names in one frame of a video, or in an image.

    Args:
        source: as in ``vltrack.track``; an image file counts as a video of one frame, and so does a ``Frame`` or
            one RGB uint8 array of shape (H, W, 3).
        text: a sentence in English, or several.
        at: which frame: an int is its number, a float a time in seconds (the first frame from then on), a str
            either (``"300"``, ``"12.5s"``); None is the first one. A frame that does not decode is passed over.
        output: a ``.png`` to write: the frame with the best box and its rivals.
        overwrite: replace ``output`` if it exists.
        allow_network: allow ``rtsp://`` addresses.
        device, backend: as in ``vltrack.track``.

    Returns:
        Per sentence the best box and up to three rivals with their probabilities, or that nothing fits.

    Raises:
        UsageError: no sentence, an ``at`` that is negative or neither a time nor a frame, an ``output`` that
            exists or is no ``.png``, an unknown device or backend.
        InputError: a source or sentence that cannot be used (``VideoNotFound``, ``PromptUnreadable``, ...).
        BoxFrameOutOfRange: the video ends before ``at``.
        ModelNotFound: the grounder's weights are not installed.
        ResourceError: the output cannot be written, or the device or backend is not available.

    Examples:
        >>> import vltrack
        >>> found = vltrack.find("clip.mp4", "the silver car", at=1.5)
        >>> found.frame, found.answers[0].text
        (36, 'the silver car')
    """
    inputs.check_choice("device", device, inputs.DEVICES)
    texts = _sentences(text)
    start, since = _place(at)
    if isinstance(source, Frame) or (isinstance(source, np.ndarray) and source.ndim == 3 and source.shape[2] == 3):
        source = [source]
    path = None if output is None else Path(output)
    if path is not None:
        if path.suffix.lower() not in inputs.SHEETS:
            raise UsageError(f"The output {printable(path)} does not end in .png.")
        inputs.check_outputs([path], source, overwrite=overwrite)
    name, index, seconds, image = _frame_at(source, start, since, allow_network)
    grounding = Grounding.load(device, backend)
    candidates = grounding.find(image, texts)
    answers = tuple(
        replace(answer_of(image, each, found), warnings=grounding.warnings(each))
        for each, found in zip(texts, candidates, strict=True)
    )
    if path is not None:
        write_bytes(path, _drawn(image, answers))
    return Found(
        source=name,
        frame=index,
        seconds=seconds,
        width=image.shape[1],
        height=image.shape[0],
        answers=answers,
        files=() if path is None else (path,),
    )


def _sentences(text: str | Iterable[str]) -> list[str]:
    """Return the sentences, cleaned. Raises ``UsageError``, ``TypeError``, and what ``clean_text`` raises."""
    given: list[object] = [text] if isinstance(text, str | bytes) or not isinstance(text, Iterable) else [*text]
    if not given:
        raise UsageError("No sentence says what to find.", hint='Give --text "the white car".')
    texts = []
    for each in given:
        texts.append(clean_text(check_str(each)))
        try:
            check_readable(texts[-1])
        except PromptUnreadable as error:
            error.hint = "Say it in English."
            raise
    return texts


def _place(at: object) -> tuple[int, float | None]:
    """Return the number of the first frame to read, and the time, if one is given. Raises ``UsageError``."""
    place = inputs.read_time(at) if isinstance(at, str) else 0 if at is None else at
    if (
        isinstance(place, bool)
        or not isinstance(place, int | float | np.integer | np.floating)
        or not 0 <= place < math.inf
    ):
        hint = "Give seconds (12.5 or '12.5s') or the number of a frame (300), neither below 0."
        raise UsageError(f"Not a time or a frame: {at!r}.", hint=hint)
    return (int(place), None) if isinstance(place, int | np.integer) else (0, float(place))


def _frame_at(source: Source, start: int, since: float | None, allow_network: bool) -> tuple[str, int, float, Image]:
    """Return the name of the source, and number, time and image of the frame. Raises ``BoxFrameOutOfRange``."""
    with open_frames(source, start, None, 1, allow_network) as frames:
        count, last = 0, 0.0
        for frame in frames:
            count, last = count + 1, frame.seconds
            if frame.image is not None and frame.seconds >= (since or 0):
                return frames.info.name, frame.index, frame.seconds, frame.image
        number = frames.info.frames if since is None else count
        beyond = bool(since) or (number is not None and start >= number)
        where = f"frame {start}" if since is None else f"frame at {since:g} s"
        end = f"frame {(number or 1) - 1}" if since is None else f"at {last:.3f} s"
        hint = f"It has {number} frames; the last is {end}." if beyond else "Choose another one."
        raise BoxFrameOutOfRange(f"{printable(frames.info.name)} has no {where}.", hint=hint)


def answer_of(image: Image, text: str, candidates: Sequence[Candidate]) -> Answer:
    """Return the best candidate and its rivals, with the words that set them apart."""
    rivals = rivals_of(candidates)
    best = candidates[:1]
    apart = [words_apart(image, text, candidates[0], rival) for rival in rivals]
    words: list[tuple[str, ...]] = [()]
    if rivals:
        words = [tuple(word for word in apart[0] if all(word in other for other in apart)) or apart[0]]
    words += [words_apart(image, text, rival, candidates[0]) for rival in rivals]
    return Answer(
        text=text,
        fits=fits(candidates),
        nothing=max(0.0, 1.0 - sum(one.score for one in candidates)),
        boxes=tuple(
            FoundBox(box=one.box, score=one.score, label=one.label, words=said)
            for one, said in zip([*best, *rivals], words, strict=False)
        ),
    )


def explain(grounding: Grounding, image: Image, text: str) -> tuple[Answer, tuple[WordEffect, ...]]:
    """Find what one sentence names, and what each of its words does: it is left out in turn, in one pass.

    Raises:
        PromptEmpty, PromptTooLong, PromptInvalid, PromptUnreadable: the sentence cannot be used.
    """
    (text,) = _sentences(text)
    words = text.split()
    shorter = [" ".join(words[:n] + words[n + 1 :]) for n in range(len(words))] if 1 < len(words) <= MOST_WORDS else []
    readable = [each for each in shorter if re.search(r"\w", each)]
    whole, *without = grounding.find(image, [text, *readable])
    answer = replace(answer_of(image, text, whole), warnings=grounding.warnings(text))
    if len(readable) < len(shorter) or not whole:
        return answer, ()
    effects = []
    for word, found in zip(words, without, strict=False):
        change = whole[0].score - probability_of(whole[0].box, found)
        decides = not found or not _same_box(found[0], whole[0])
        kind = "decides" if decides else "helps" if change >= CHANGES else "hurts" if change <= -CHANGES else "nothing"
        effects.append(WordEffect(word=word, kind=kind, change=change))
    return answer, tuple(effects)


def _same_box(one: Candidate, other: Candidate) -> bool:
    return probability_of(other.box, [one]) > 0


def words_apart(image: Image, text: str, one: Candidate, other: Candidate) -> tuple[str, ...]:
    """Return words that are right for ``one`` and wrong for ``other``, and that the sentence does not have.

    The class, the color of the inside of the box, the side (centers further apart than half a box), and the size
    (twice the area).
    """
    from vltrack.datasets.cutouts import dominant_color

    said = set(re.findall(r"[a-z]+", text.lower()))
    words: list[str] = []
    if not set(one.label.split()) <= {"and", *other.label.split()}:
        words.append(one.label)
    colors = [dominant_color(_inside(image, each.box).reshape(-1, 3)) for each in (one, other)]
    if all(colors) and colors[0] != colors[1]:
        words.append(colors[0])
    offset = (one.box[:2] + one.box[2:] / 2) - (other.box[:2] + other.box[2:] / 2)
    clear = np.abs(offset) > np.maximum((one.box[2:] + other.box[2:]) / 4, np.array(image.shape[1::-1]) * 0.03)
    for axis, (before, after) in enumerate((("left", "right"), ("top", "bottom"))):
        if clear[axis] and said.isdisjoint(_COVERED[axis]):
            words.append(before if offset[axis] < 0 else after)
    ratio = float(one.box[2:].prod() / other.box[2:].prod())
    if max(ratio, 1 / ratio) >= 2 and said.isdisjoint(_COVERED[2]):
        words.append("large" if ratio > 1 else "small")
    return tuple(word for word in words if word and not set(re.findall(r"[a-z]+", word)) <= said)


def _inside(image: Image, box: Box) -> Image:
    """The middle of a box, at least one pixel."""
    height, width = image.shape[:2]
    x1, y1 = (box[:2] + box[2:] * (0.25, 0.2)).clip(0, (width - 1, height - 1)).astype(int)
    x2, y2 = (box[:2] + box[2:] * (0.75, 0.7)).clip((x1 + 1, y1 + 1), (width, height)).astype(int)
    return image[y1:y2, x1:x2]


def _drawn(image: Image, answers: Iterable[Answer]) -> bytes:
    """A PNG of the frame: a color per sentence, rivals dashed; gray where nothing fits."""
    import cv2

    from vltrack.plots.draw import GRAY, TARGET_COLORS, draw_labels, label_size, rectangle
    from vltrack.plots.text import shortened

    drawn = image.copy()
    labels: list[tuple[str, Box, tuple[int, int, int]]] = []
    for number, answer in enumerate(answers):
        color = TARGET_COLORS[number % len(TARGET_COLORS)] if answer.fits else GRAY
        for place, one in reversed(list(enumerate(answer.boxes))):
            rectangle(drawn, one.box, color, dashed=place > 0 or not answer.fits)
            text = ", ".join(one.words) if place else answer.text if answer.fits else f"nothing fits: {answer.text}"
            # Shortened, so that a long sentence never pushes the score off the plate.
            text = shortened(text, label_size(image), round(image.shape[1] * 0.6))
            labels.append((f"{text} {one.score:.2f}".strip(), one.box, color))
    draw_labels(drawn, labels[::-1])  # the best first: next to its box
    return bytes(cv2.imencode(".png", drawn[:, :, ::-1])[1].tobytes())


def _box_record(one: FoundBox) -> dict[str, Any]:
    return {**box_of(one.box), "score": round(one.score, 4), "label": one.label, "words": list(one.words)}

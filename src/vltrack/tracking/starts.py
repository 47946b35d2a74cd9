"""Rules of a start from text: what fits, who gets which object, who keeps an object that two targets share.

Unpublished; our design. The probabilities are those of the grounder (``tracking.grounding``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from vltrack.core.errors import NothingFits
from vltrack.core.types import Box, Candidate, clip_xywh, iou_xywh

FITS_ABOVE = 0.9
"""Probability that anything in the image fits a text, below which a start is refused: one in seven of the grounder's
training sentences names what is absent, and as many absent as present ones are expected of users."""
DOUBTFUL_START = 0.6
"""Score of a box found from text below which a warning is given."""
CLEAR_ABOVE = 0.4
"""Score of a box at which waiting for a target ends."""
MEANT_ABOVE = 0.3
"""Claim of a start below which the target never counts as visible."""
RIVAL_ABOVE = 0.1
"""Probability from which another object is worth naming, or starting on where the best one is taken."""
RIVALS = 3
SAME_OBJECT, SHARED_OBJECT, SHARED_FRAMES = 0.5, 0.7, 5
"""Overlap at which two candidates are one object; overlap, and frames of it, at which two targets share one."""
MOST = 16
"""Candidates of a text among which the best total is sought, at least as many as targets."""
_STEP = 1e-3  # of the auction: the assignment is this close to the best one, per target


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A box found from text: xywh in frame pixels, the probability that it is what was meant, and warnings."""

    box: Box
    claim: float
    warnings: tuple[str, ...] = ()


def probability_of(box: Box, candidates: Sequence[Candidate]) -> float:
    """Return the probability that a text names the object in a box: the sum over the candidates on it."""
    return sum(one.score for one in candidates if _same(one, box))


def fits(candidates: Sequence[Candidate]) -> bool:
    """Return whether anything in the image fits the text well enough."""
    return sum(one.score for one in candidates) >= FITS_ABOVE


def rivals_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates besides the first that are worth naming, at most ``RIVALS``."""
    return [one for one in candidates[1 : RIVALS + 1] if one.score >= RIVAL_ABOVE]


def choose_starts(
    found: Mapping[str, tuple[str, Sequence[Candidate]]],
    taken: Mapping[str, Box],
    frame_size: tuple[int, int],
    *,
    anyway: bool,
    distinct: bool,
    least: float = 0.0,
) -> dict[str, Start | NothingFits]:
    """Choose a box for each target that has only a text, or the error that refuses it.

    Args:
        found: text and candidates (best first) of each target.
        taken: boxes of other targets, by name.
        frame_size: (width, height) of the image.
        anyway: never refuse: the best box that is left, or else the whole frame.
        distinct: no two targets get the same object, nor one of ``taken``.
        least: probability that the best box needs.
    """
    taken = taken if distinct else {}
    free = {
        name: [c for c in candidates if not any(_same(c, box) for box in taken.values())]
        for name, (_, candidates) in found.items()
        if anyway or fits(candidates)
    }
    given = _assigned(free) if distinct else {name: left[0] for name, left in free.items() if left}
    used = {**taken, **{name: one.box for name, one in given.items()}}
    whole = Candidate(box=np.array([0.0, 0.0, *frame_size]), score=0.0, label="")
    starts: dict[str, Start | NothingFits] = {}
    for name, (text, candidates) in found.items():
        one, total = given.get(name, whole), min(1.0, sum(c.score for c in candidates))
        passed = bool(candidates) and one is not candidates[0]
        elsewhere = {n: box for n, box in used.items() if n != name}
        holder = next((n for n, box in elsewhere.items() if passed and _same(candidates[0], box)), None)
        warnings = []
        if not fits(candidates):
            why = f"that nothing does has a probability of {1 - total:.2f}, more than {1 - FITS_ABOVE:.2g}"
            refusal = f"Nothing in the frame fits the text {text!r}: {why}."
            warnings.append(f"nothing in the frame fits the text ({why}); started all the same.")
        elif passed:
            refusal = f"What fits the text {text!r} is followed as {holder!r}." if one.score < RIVAL_ABOVE else ""
            warnings.append(f"the object that the text fits best is followed as {holder!r}; started on another.")
        else:
            refusal = f"Nothing clearly fits the text {text!r} yet: {one.score:.2f}." if one.score < least else ""
        if refusal and not anyway:
            hint = "Say it differently, give a box, start later, or wait until it is in view (--wait)."
            starts[name] = NothingFits(refusal, hint=hint)
            continue
        if one.score < DOUBTFUL_START:
            left = [c for c in candidates if not any(_same(c, box) for box in elsewhere.values())]
            warnings.append(_doubt(one, left))
        starts[name] = Start(box=clip_xywh(one.box, *frame_size), claim=one.score, warnings=tuple(warnings))
    return starts


def described(candidate: Candidate) -> str:
    """Return the candidate's class and box as text: ``person 12,40,31,80``."""
    numbers = ",".join(f"{side:.0f}" for side in candidate.box)
    return f"{candidate.label or 'the box'} {numbers}"


def _doubt(chosen: Candidate, candidates: Sequence[Candidate]) -> str:
    rivals = rivals_of([chosen, *(c for c in candidates if c is not chosen)])
    others = ", ".join(f"{described(rival)} with {rival.score:.2f}" for rival in rivals)
    also = f"; it may also name {others}" if others else ""
    if chosen.score < MEANT_ABOVE:
        also += f"; below {MEANT_ABOVE} no row counts as visible"
    return (
        f"the text names {described(chosen)} with a probability of only {chosen.score:.2f}{also}: "
        "check the first frame, or give a box too."
    )


def _same(one: Candidate, box: Box) -> bool:
    return bool(iou_xywh(one.box, box) > SAME_OBJECT)


def _assigned(free: Mapping[str, Sequence[Candidate]]) -> dict[str, Candidate]:
    """Give targets candidates on distinct objects so that the sum of their scores is the greatest.

    An auction: a target without an object bids for the one that is worth most to it at the present prices, and
    outbids who had it. A target that gets nothing is left out.
    """
    many = max(MOST, len(free))
    objects: list[Box] = []
    offers: dict[str, dict[int, Candidate]] = {name: {} for name in free}
    every = [(name, candidate) for name, left in free.items() for candidate in left[:many]]
    for name, candidate in sorted(every, key=lambda offer: -offer[1].score):
        number = next((k for k, box in enumerate(objects) if _same(candidate, box)), len(objects))
        if number == len(objects):
            objects.append(candidate.box)
        offers[name].setdefault(number, candidate)
    prices = [0.0] * len(objects)
    owners: dict[int, str] = {}
    bidding = list(free)
    while bidding:
        name = bidding.pop(0)
        gains = sorted(((c.score - prices[k], k) for k, c in offers[name].items()), reverse=True)
        if not gains or gains[0][0] <= 0:
            continue
        best, k = gains[0]
        prices[k] += best - max(0.0, gains[1][0] if len(gains) > 1 else 0.0) + _STEP
        if k in owners:
            bidding.append(owners[k])
        owners[k] = name
    given = {name: offers[name][k] for k, name in owners.items()}
    for a, b in combinations(given, 2):  # overlap is not transitive: two objects may yet overlap
        if _same(given[a], given[b].box):
            loser = min(a, b, key=lambda name: given[name].score)
            return _assigned({**free, loser: [c for c in free[loser] if c is not given[loser]]})
    return given

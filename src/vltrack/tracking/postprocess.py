"""Post-processing of a network's score and box maps: window, size penalty, smoothing, and the ``Policy``.

Every rule is an option, none depends on a data set. Sources: Hann window and size penalty as in SiamRPN and
OSTrack; memory updates as in UVLTrack; the rule for lost targets and their search are ours (unpublished).
Boxes in this file are cx, cy, w, h unless the name says xywh; S is the side of a model's map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import ConfigError, did_you_mean
from vltrack.core.types import Floats, cxcywh_to_xywh, iou_xywh
from vltrack.models import MODELS

APART, RIVAL_SCORE, MOST_RIVALS = 0.3, 0.5, 4
"""Overlap below which two boxes of a map are two objects; share of the best score that makes one a rival."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Options of the post-processing, and of when a tracker updates its memory and searches for its target.

    Scores are in [0, 1], intervals in frames, ``margin`` in pixels of the frame. The names that pysot and
    OSTrack use are given in brackets.

    Attributes:
        window: weight of the Hann window that favors small motion, in [0, 1] (``window_influence``).
        window_product: multiply scores by the window instead, as OSTrack and UVLTrack do; ``window`` then
            only switches it on or off.
        window_rims: the window is zero in the outermost cells, as UVLTrack's.
        penalty: strength of the penalty on changes of size and aspect; 0 is none (``penalty_k``).
        smooth: share of a new size that is taken at full confidence, in [0, 1] (``lr``, ``scale_lr``).
        damp: whether confidence and size penalty slow a change of size; published trackers take it at once.
        presence_power: exponent of the presence map in the score that chooses the box.
        refresh_every: frames between updates of the memory; 0 never updates (``update_interval``).
        refresh_above: score that an update of the memory needs (``update_threshold``).
        refresh_template: whether an update takes a new recent template too, together with new prompts.
        refresh_by_number: updates fall on the frame numbers that are multiples of ``refresh_every``, whenever the
            last one was, as in STARK and UVLTrack.
        refresh_best: with it, prompts come from the best-scoring frame since the last update, and from its box as
            the network predicted it, as in UVLTrack.
        visible_above: a target scoring below this is reported as not visible.
        visible_smooth: share of a frame's score in the running mean of scores that this asks for, in [0, 1]; 1 is the
            score of the frame alone.
        lost_below: below this score the target counts as lost: its size is held, the search region grows.
        hold_below: below this score its place is held too.
        grow: factor per frame by which the search region grows while the target is lost.
        grow_limit: largest search region, as a multiple of the usual one.
        search_again_every: while lost, frames between searches of the whole frame; 0 never.
        search_again_above: score that a detection elsewhere in the frame needs; where the grounder finds it from
            the text, the geometric mean of its probability and the score.
        heed_text_above: probability, given the text, that the box of the start needs for the grounder to be asked
            later, and by which a look-alike must lead over the box that is followed to be taken instead.
        follow_rivals: boxes beside the target that score half as much or more are remembered from one frame to the
            next, and the target does not jump onto one.
        refresh_overlap: overlap of a new box with the one before that an update of the memory needs.
        refresh_agreement: overlap with the box found in a second, shifted region that it needs; 0: none is looked at.
        margin: pixels of the box that stay inside the frame.
        steady: boxes are kept to 1/16 pixel, and regions are cut on a grid relative to the target, so that the rounding
            of another machine or number of threads does not grow from frame to frame; published code has no such grid.
        own_grounding: a target given by text alone is found by the network itself, as its paper does it, not by
            the grounder.
        published_crops: crops of whole pixels, black beyond the frame, and boxes cut to it, to the letter of
            the code that the published trackers share (see ``prep.crops.cut_published``); a start from text as
            UVLTrack's (``letterbox_published``), from the box that it finds, uncut.

    Raises:
        ConfigError: an option out of range.

    Examples:
        >>> import vltrack
        >>> tracker = vltrack.load("litetrack-tiny", policy=vltrack.Policy(window=0.2, refresh_every=0))
        >>> vltrack.Policy().changed({"window": "0.4"}).window
        0.4
    """

    window: float = 0.25
    window_product: bool = False
    window_rims: bool = False
    penalty: float = 0.1
    smooth: float = 0.6
    damp: bool = True
    presence_power: float = 1.0
    refresh_every: int = 10
    refresh_above: float = 0.5
    refresh_template: bool = True
    refresh_by_number: bool = False
    refresh_best: bool = False
    visible_above: float = 0.3
    visible_smooth: float = 1.0
    lost_below: float = 0.3
    hold_below: float = 0.1
    grow: float = 1.03
    grow_limit: float = 3.0
    search_again_every: int = 5
    search_again_above: float = 0.6
    heed_text_above: float = 0.5
    follow_rivals: bool = True
    refresh_overlap: float = 0.0
    refresh_agreement: float = 0.0
    margin: float = 10.0
    steady: bool = True
    own_grounding: bool = False
    published_crops: bool = False

    def __post_init__(self) -> None:
        for entry in fields(self):
            low, high = _RANGES.get(entry.name, (0.0, math.inf))
            value = getattr(self, entry.name)
            if not (math.isfinite(value) and low <= value <= high):
                allowed = f"between {low:g} and {high:g}" if math.isfinite(high) else f"at least {low:g}"
                raise ConfigError(f"policy.{entry.name} must be {allowed}, got {value}.")

    def changed(self, values: Mapping[str, Any]) -> Policy:
        """A copy with some options changed; values may be text (``"0.2"``, ``"no"``).

        Raises:
            ConfigError: an unknown option, or a value of the wrong type or out of range.
        """
        known = {f.name: type(getattr(self, f.name)) for f in fields(self)}
        for name in values:
            if name not in known:
                raise ConfigError(f"Unknown policy option: {name!r}.", hint=did_you_mean(name, known))
        return replace(self, **{name: _parse(name, value, known[name]) for name, value in values.items()})


def default_policy(tracker: str, size: str) -> Policy:
    """Post-processing of a tracker's size: the defaults, changed by ``models.ModelCard.policies``.

    For ``""``, a tracker from outside the package that does everything itself, what has no effect on its boxes.
    """
    if not tracker:
        return Policy(visible_above=0.0, search_again_every=0, follow_rivals=False)
    return Policy().changed(MODELS[tracker].policies.get(size, {}))


_SHARES = (
    "window", "smooth", "refresh_above", "visible_above", "visible_smooth", "lost_below", "hold_below",
    "search_again_above", "heed_text_above", "refresh_overlap", "refresh_agreement",
)  # fmt: skip
_RANGES = dict.fromkeys(_SHARES, (0.0, 1.0)) | dict.fromkeys(("grow", "grow_limit"), (1.0, math.inf))
"""Range of an option, both ends included; the others are finite and at least 0."""

_SWITCHES = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)


def _parse(name: str, value: Any, kind: type) -> Any:
    """An option's value from a text or a number. Switches are read as words: ``bool("no")`` is True."""
    word = str(value).strip().lower()
    if kind is bool and word in _SWITCHES:
        return _SWITCHES[word]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if kind is bool or not math.isfinite(number) or (kind is int and number != int(number)):
        expected = {bool: "true or false", int: "a whole number"}.get(kind, "a number")
        raise ConfigError(f"policy.{name} must be {expected}, got {value!r}.")
    return kind(number)


@dataclass(frozen=True, kw_only=True)
class Maps:
    """One target's prediction as arrays: center and presence (S, S), boxes (S, S, 4) in units of the crop."""

    center: Floats
    presence: Floats
    boxes: Floats

    def only(self, kept: NDArray[np.bool_]) -> Maps:
        """The same without the boxes of the other cells: (S, S) ``kept``."""
        return replace(self, boxes=np.where(kept[..., None], self.boxes, np.nan))

    def overlap(self, box: Floats) -> Floats:
        """(S, S) intersection over union of each cell's box with a box."""
        with np.errstate(all="ignore"):  # boxes that are not finite
            return iou_xywh(cxcywh_to_xywh(self.boxes), cxcywh_to_xywh(box))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen cell: its box (in crop units), score in [0, 1] and size penalty (1: size unchanged)."""

    box: Floats
    score: float
    size_penalty: float


@lru_cache(maxsize=8)
def hann(side: int, *, rims: bool = False) -> Floats:
    """(side, side) Hann window, with its zeros in the outermost cells (``rims``) or beyond them."""
    line = np.hanning(side) if rims else np.hanning(side + 2)[1:-1]
    window: Floats = np.outer(line, line)
    window.setflags(write=False)
    return window


def choose(maps: Maps, size: Floats | None, policy: Policy, *, window: float) -> Choice | None:
    """Choose the best cell; None if no cell is finite.

    Args:
        maps: prediction of the network.
        size: (w, h) in crop units of the target's last box, None without one (a start from text).
        policy: post-processing.
        window: weight of the Hann window.
    """
    extent = maps.boxes[..., 2:]
    with np.errstate(all="ignore"):  # non-finite values are masked out below
        confidence = maps.center * maps.presence**policy.presence_power
    usable = np.isfinite(maps.boxes).all(axis=-1) & (extent > 0).all(axis=-1)
    usable &= np.isfinite(confidence) & (maps.center >= 0) & (maps.presence >= 0)
    if not usable.any():
        return None
    confidence, extent = np.where(usable, confidence, 0.0), np.where(usable[..., None], extent, 1.0)
    penalty = np.ones_like(confidence)
    if size is not None and policy.penalty > 0:
        penalty = size_penalty(extent, size, policy.penalty)
    ranked, near = confidence * penalty, hann(len(confidence), rims=policy.window_rims)
    if not policy.window_product:
        ranked = ranked * (1 - window) + near * window
    elif window:
        ranked = ranked * near
    best = np.unravel_index(np.argmax(np.where(usable, ranked, -np.inf)), ranked.shape)
    score = float(np.clip(maps.center[best] * maps.presence[best], 0.0, 1.0))
    return Choice(box=maps.boxes[best].astype(np.float64), score=score, size_penalty=float(penalty[best]))


def rivals_in(maps: Maps, best: Choice | None, policy: Policy) -> list[Choice]:
    """Boxes apart from the best one and from each other that score more than half as much as it, best first."""
    found: list[Choice] = []
    one = best
    while one is not None and len(found) < MOST_RIVALS:
        maps = maps.only(maps.overlap(one.box) < APART)
        one = choose(maps, None, policy, window=0)
        if one is None or best is None or one.score <= RIVAL_SCORE * best.score:
            break
        found.append(one)
    return found


def size_penalty(new: Floats, old: Floats, strength: float) -> Floats:
    """Factor in (0, 1] for each (..., 2) new size (w, h): exp(-strength (r s - 1)), as in SiamRPN.

    r and s are the changes, at least 1, of aspect and of padded size.
    """
    with np.errstate(over="ignore"):
        change = np.exp(np.abs(np.log(_padded(new) / _padded(old))))
        aspect = np.exp(np.abs(np.log((new[..., 0] / new[..., 1]) / (old[0] / old[1]))))
    factor: Floats = np.exp(-(change * aspect - 1) * strength)
    return factor


def _padded(size: Floats) -> Floats:
    """sqrt((w + p) (h + p)) with p = (w + h) / 2: a size that depends on the aspect too (SiamRPN)."""
    pad = size.sum(axis=-1, keepdims=True) / 2
    side: Floats = np.sqrt((size + pad).prod(axis=-1))
    return side


def smooth_size(old: Floats, new: Floats, choice: Choice, policy: Policy) -> Floats:
    """(w, h) moved from the old size towards the new one as far as confidence and size penalty allow."""
    if not policy.damp:
        return new
    rate = policy.smooth * choice.size_penalty * choice.score
    smoothed: Floats = old * (1 - rate) + new * rate
    return smoothed

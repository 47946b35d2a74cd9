"""The policy: which of a model's boxes to believe, what is kept, when a target counts as lost. Numpy only.

Nothing here depends on a data set; every rule is an option. Sources: Hann window and size penalty as in
SiamRPN and OSTrack; refresh as in UVLTrack; the lost rule and the search for lost targets are ours
(unpublished).
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

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Options of the tracking policy.

    Attributes:
        window: weight of the Hann window that favours small motion, in [0, 1).
        window_product: multiply scores by the window instead, as OSTrack and UVLTrack do; ``window`` then
            tells only whether there is one.
        window_rims: the window is zero in the outermost cells, as UVLTrack's.
        penalty: strength of the penalty on changes of size and aspect; 0 is none.
        smooth: how much of a new size is taken at full confidence, in (0, 1].
        damp: whether confidence and size_penalty slow a change of size; published trackers take it at once.
        presence_power: exponent of the presence map in the score that chooses the box.
        refresh_every: frames between refreshes of the memory; 0 never refreshes.
        refresh_above: a frame must score above this to refresh the memory.
        refresh_template: whether a refresh takes a new recent template too, beside new prompts.
        visible_above: a target scoring below this is reported as not visible.
        lost_below: below this score the target counts as lost: its size is held, the search region grows.
        hold_below: below this score its place is held too.
        grow: factor a frame by which the search region grows while lost.
        grow_limit: largest search region, as a multiple of the usual one.
        search_again_every: while lost, frames between searches of the whole frame; 0 never.
        search_again_above: score that a find elsewhere needs.
        margin: pixels of the box that stay inside the frame.
        published_crops: crops of whole pixels, black beyond the frame, and boxes cut to it, to the letter of
            the code that the published trackers share (see ``prep.crops.cut_published``).
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
    visible_above: float = 0.3
    lost_below: float = 0.3
    hold_below: float = 0.1
    grow: float = 1.03
    grow_limit: float = 3.0
    search_again_every: int = 5
    search_again_above: float = 0.6
    margin: float = 10.0
    published_crops: bool = False

    def __post_init__(self) -> None:
        for entry in fields(self):
            low, high = _RANGES.get(entry.name, (0.0, math.inf))
            value = getattr(self, entry.name)
            if not (math.isfinite(value) and low <= value <= high):
                said = f"between {low:g} and {high:g}" if math.isfinite(high) else f"at least {low:g}"
                raise ConfigError(f"policy.{entry.name} must be {said}, got {value}.")

    def changed(self, values: Mapping[str, Any]) -> Policy:
        """A copy with some options changed; texts are read.

        Raises:
            ConfigError: an unknown option (names the nearest), or a value that cannot be or is out of range.
        """
        known = {f.name: type(getattr(self, f.name)) for f in fields(self)}
        for name in values:
            if name not in known:
                raise ConfigError(f"policy has no option {name!r}.", hint=did_you_mean(name, known))
        return replace(self, **{name: _read(name, value, known[name]) for name, value in values.items()})


_RANGES = {
    "window": (0.0, 1.0),
    "smooth": (0.0, 1.0),
    "refresh_above": (0.0, 1.0),
    "visible_above": (0.0, 1.0),
    "lost_below": (0.0, 1.0),
    "hold_below": (0.0, 1.0),
    "grow": (1.0, math.inf),
    "grow_limit": (1.0, math.inf),
    "search_again_above": (0.0, 1.0),
}
"""Where an option may lie, both ends included; the others are finite and at least 0."""

_SWITCHES = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def _read(name: str, value: Any, kind: type) -> Any:
    """An option's value from a text or a number. Switches are read by their words: ``bool("no")`` is True."""
    word = str(value).strip().lower()
    if kind is bool and word in _SWITCHES:
        return _SWITCHES[word]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if kind is bool or not math.isfinite(number) or (kind is int and number != int(number)):
        said = {bool: "true or false", int: "a whole number"}.get(kind, "a number")
        raise ConfigError(f"policy.{name}: {value!r} is not {said}.")
    return kind(number)


@dataclass(frozen=True, kw_only=True)
class Maps:
    """One target's prediction as arrays: centre and presence (S, S), boxes (S, S, 4) in units of the crop."""

    centre: Array
    presence: Array
    boxes: Array


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen cell: its box (cx, cy, w, h in crop units), score in [0, 1], how little the size changed."""

    box: Array
    score: float
    size_penalty: float


@lru_cache(maxsize=8)
def hann(side: int, *, rims: bool = False) -> Array:
    """(side, side) Hann window, with its zeros in the outermost cells (``rims``) or beyond them."""
    line = np.hanning(side) if rims else np.hanning(side + 2)[1:-1]
    window: Array = np.outer(line, line)
    window.setflags(write=False)
    return window


def choose(maps: Maps, size: Array | None, policy: Policy, *, window: float) -> Choice | None:
    """The best cell, or None if nothing finite is left.

    ``size`` (w, h) in crop units is the target's last one, None where none is known (a start by words).
    """
    extent = maps.boxes[..., 2:]
    with np.errstate(all="ignore"):  # what is no number is sorted out below
        confidence = maps.centre * maps.presence**policy.presence_power
    usable = np.isfinite(maps.boxes).all(axis=-1) & (extent > 0).all(axis=-1)
    usable &= np.isfinite(confidence) & (maps.centre >= 0) & (maps.presence >= 0)
    if not usable.any():
        return None
    confidence, extent = np.where(usable, confidence, 0.0), np.where(usable[..., None], extent, 1.0)
    size_penalty = np.ones_like(confidence)
    if size is not None and policy.penalty > 0:
        with np.errstate(over="ignore"):
            change = np.exp(np.abs(np.log(_padded(extent) / _padded(size))))
            aspect = np.exp(np.abs(np.log((extent[..., 0] / extent[..., 1]) / (size[0] / size[1]))))
        size_penalty = np.exp(-(change * aspect - 1) * policy.penalty)
    likely, near = confidence * size_penalty, hann(len(confidence), rims=policy.window_rims)
    if policy.window_product:
        ranked = likely * near if window else likely
    else:
        ranked = likely * (1 - window) + near * window
    best = np.unravel_index(np.argmax(np.where(usable, ranked, -np.inf)), ranked.shape)
    score = float(np.clip(maps.centre[best] * maps.presence[best], 0.0, 1.0))
    return Choice(
        box=maps.boxes[best].astype(np.float64), score=score, size_penalty=float(size_penalty[best])
    )


def _padded(size: Array) -> Array:
    """sqrt((w + p) (h + p)) with p = (w + h) / 2: a size that also feels the aspect (SiamRPN)."""
    pad = size.sum(axis=-1, keepdims=True) / 2
    side: Array = np.sqrt((size + pad).prod(axis=-1))
    return side


def smooth_size(old: Array, new: Array, choice: Choice, policy: Policy) -> Array:
    """(w, h) that moves towards the new size as far as confidence and size_penalty allow."""
    if not policy.damp:
        return new
    rate = policy.smooth * choice.size_penalty * choice.score
    blended: Array = old * (1 - rate) + new * rate
    return blended

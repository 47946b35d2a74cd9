"""Plans of rendered views and their execution: who stands where, what hides whom, where the frame ends.

Knows the recipe's shares of events; the numbers are ours unless ``pairs.PairConfig`` has them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vltrack.core.types import Image
from vltrack.datasets.cutouts import Patch
from vltrack.training.pairs_geometry import (
    Floats,
    Pose,
    apply,
    bend,
    bounds,
    corners,
    draw_pose,
    flipped,
    place,
)
from vltrack.training.pairs_library import Actor, Library, Neighbour
from vltrack.training.pairs_render import Look, Sensor, draw_look, near_look, paste, warp_picture
from vltrack.training.pairs_text import Fact, describe

if TYPE_CHECKING:
    from vltrack.training.pairs import PairConfig

_NO_TARGET = np.zeros(4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Slab:
    """An occluder: a box x, y, w, h of the view filled with a window of a picture, or with one colour."""

    box: Floats
    picture: int
    colour: tuple[int, int, int] | None


@dataclass(kw_only=True, slots=True)
class View:
    """One view to render. ``base``: picture, map, mirrored at its borders or not; ``layers`` and ``front``: patches
    behind and in front of the occluders; ``frame``: x0, y0, x1, y1 beyond which the video frame ends; ``shown``: the
    other things and their boxes."""

    size: int
    base: tuple[int, Floats, bool]
    box: Floats
    look: Look
    present: bool = True
    layers: list[tuple[Patch, Floats]] = field(default_factory=list)
    slabs: list[Slab] = field(default_factory=list)
    front: list[tuple[Patch, Floats]] = field(default_factory=list)
    frame: tuple[float, float, float, float] | None = None
    shown: list[tuple[Actor, Floats]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Template view, two search views, the template box as given, sentence and mode."""

    views: tuple[View, View, View]
    given: Floats
    text: str
    mode: str


def render(view: View, library: Library, sensor: Sensor, rng: np.random.Generator) -> tuple[Image, Floats]:
    """Pixels (size, size, 3) of a view and the target's box cut where the frame ends."""
    picture, matrix, mirrored = view.base
    image, outside = warp_picture(library.image(picture), matrix, view.size, reflect=mirrored)
    for patch, placed in view.layers:
        paste(image, patch, placed)
    for slab in view.slabs:
        _lay(image, slab, library)
    for patch, placed in view.front:
        paste(image, patch, placed)
    image = sensor.develop(image, view.look, rng)
    box = view.box
    if view.frame is not None:
        x0, y0, x1, y1 = view.frame
        beyond = np.ones(image.shape[:2], dtype=bool)
        beyond[round(y0) : round(y1), round(x0) : round(x1)] = False
        outside = beyond if outside is None else outside | beyond
        low = np.clip(box[:2], (x0, y0), (x1, y1))
        high = np.clip(box[:2] + box[2:], (x0, y0), (x1, y1))
        box = np.concatenate([low, high - low])
    if outside is not None and not outside.all():
        inside = cv2.mean(image, np.where(outside, 0, 255).astype(np.uint8))[:3]
        image[outside] = np.round(inside).astype(np.uint8)
    return image, box


def _lay(image: Image, slab: Slab, library: Library) -> None:
    size = image.shape[0]
    low = np.clip(np.round(slab.box[:2]), 0, size).astype(int)
    high = np.clip(np.round(slab.box[:2] + slab.box[2:]), 0, size).astype(int)
    w, h = high - low
    if w < 1 or h < 1:
        return
    if slab.colour is not None:
        image[low[1] : high[1], low[0] : high[0]] = slab.colour
        return
    source = library.image(slab.picture)
    sh, sw = source.shape[:2]
    piece = source[: max(2, min(sh, h)), : max(2, min(sw, w))]
    image[low[1] : high[1], low[0] : high[0]] = cv2.resize(piece, (int(w), int(h)))


def compose_track(config: PairConfig, library: Library, rng: np.random.Generator, *, talk: bool) -> Scene:
    """A template and two search views around a tracked target. ``talk``: with a sentence where one can be said."""
    chance = rng.random()
    neighbours: list[Neighbour] = []
    if chance < config.cutout_share:
        actor = library.draw_object(rng)
    elif chance < config.cutout_share + config.own_share:
        actor, neighbours = library.draw_owned(rng)
    else:
        actor = library.draw_texture(rng)
    moves = _Moves(config, library, actor, rng)
    near = rng.random() < 0.5
    first = draw_pose(rng, calm=actor.calm)
    second = draw_pose(rng, calm=actor.calm, near=first if near else None)
    views = [
        moves.template(draw_pose(rng, calm=actor.calm)),
        moves.search(first, 0),
        moves.search(second, 1, near=near),
    ]
    phrase = None
    if talk:
        phrase = describe(
            moves.fact(views), moves.other_facts(views, neighbours), rng, places=0.08, whole_scene=False
        )
    looks = _looks(rng, mild=phrase is not None and phrase.colour, near=near, count=3)
    for view, look in zip(views, looks, strict=True):
        view.look = look
    return Scene(
        views=(views[0], views[1], views[2]),
        given=moves.given,
        text="" if phrase is None else phrase.text,
        mode="bbox" if phrase is None else "nlbbox",
    )


def _looks(rng: np.random.Generator, *, mild: bool, near: bool, count: int) -> list[Look]:
    """Looks of template and searches: one video has one resolution, more or less."""
    reduce = 1.0
    if rng.random() < 0.45:
        reduce = float(rng.uniform(0.18, 0.36) if rng.random() < 0.35 else rng.uniform(0.36, 0.9))
    grey, only = rng.random() < 0.12, int(rng.integers(4))
    looks: list[Look] = []
    for number in range(count):
        scale = float(np.clip(reduce * np.exp(rng.normal() * 0.12), 0.15, 1.0)) if reduce < 1 else 1.0
        if number == 2 and near:
            looks.append(near_look(looks[1], rng))
            continue
        one = grey and (only > 0 or number == 0)
        looks.append(draw_look(rng, mild=mild, grey=one, reduce=scale))
    return looks


class _Moves:
    """The views of one tracked target: everything that they share is drawn once, here."""

    def __init__(self, config: PairConfig, library: Library, actor: Actor, rng: np.random.Generator) -> None:
        self._config, self._library, self._actor, self._rng = config, library, actor, rng
        self._mirror = bool(rng.random() < 0.5)
        self._backdrop = library.draw_background(rng, avoid=actor.name)
        self._zoom = float(np.exp(rng.uniform(np.log(0.4), np.log(1.0))))
        self._middle = rng.uniform(0.3, 0.7, size=2)
        self._others = self._draw_others()
        self._spots: list[list[tuple[Pose, Floats]]] = []
        self.given = np.zeros(4)
        self._bends = rng.random() < 0.3
        self._last: Patch | None = None

    def hush(self) -> None:
        """No other things in the views to come."""
        self._others = []

    def _draw_others(self) -> list[Actor]:
        rng, cut = self._rng, self._actor.patch is not None
        count = int(rng.choice(4, p=(0.3, 0.35, 0.22, 0.13) if cut else (0.62, 0.24, 0.1, 0.04)))
        others = []
        for _ in range(count):
            like = self._library.draw_like(self._actor, rng) if rng.random() < 0.7 else None
            others.append(like if like is not None else self._library.draw_object(rng))
        return others

    def _base(self, size: int, *, shift: float, other: bool = False) -> tuple[int, Floats, bool]:
        """The backdrop mapped to a view of ``size`` pixels; ``shift`` in search views."""
        rng = self._rng
        picture = self._library.draw_background(rng, avoid=self._actor.name) if other else self._backdrop
        h, w = self._library.image(picture).shape[:2]
        scale = self._config.search_size / (min(h, w) * self._zoom) * np.exp(rng.normal() * 0.08)
        angle = rng.normal() * 0.06
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        if self._mirror:
            linear = flipped(linear)
        centre = self._middle * (w, h) + rng.normal(size=2) * shift * self._config.search_size / scale
        return picture, np.concatenate([linear, (size / 2 - linear @ centre)[:, None]], axis=1), True

    def _linear(self, pose: Pose) -> Floats:
        return flipped(pose.linear) if self._mirror else pose.linear

    def template(self, pose: Pose) -> View:
        """The template view; sets ``given``."""
        rng, size, jitter = self._rng, self._config.template_size, self._config.template_jitter
        side = size / self._config.template_factor
        centre = size / 2 + np.clip(rng.normal(size=2), -2, 2) * jitter * side
        extent = side * np.exp(np.clip(rng.normal(), -2, 2) * jitter)
        view = self._around(size, pose, extent, centre, other=rng.random() < 0.4, patch=self._bent())
        ratio = np.sqrt(view.box[2] / view.box[3]) * np.exp(np.clip(rng.normal(), -2, 2) * jitter)
        self.given = np.array([size / 2 - side * ratio / 2, size / 2 - side / ratio / 2, side * ratio, side / ratio])
        if rng.random() < 0.5:
            self._crowd(view, wide=True)
        self._sort(view)
        return view

    def search(self, pose: Pose, number: int, *, near: bool = False) -> View:
        """Search view ``number``; ``near``: the moment after the one before."""
        rng, size = self._rng, self._config.search_size
        patch = self._last if near and rng.random() < 0.5 else self._bent()
        if rng.random() < self._config.negative_share:
            view = self._empty(size)
        else:
            side = size / self._config.search_factor * pose.size
            centre = size * (0.5 + pose.numbers[4:])
            view = self._around(size, pose, side, centre, other=rng.random() < 0.25 and not near, patch=patch)
        self._last = patch
        self._crowd(view, wide=False, near=near)
        self._sort(view)
        if view.present:
            if rng.random() < 0.18:
                self._hide(view)
            if rng.random() < 0.09 and view.base[2]:
                view.frame = _frame_end(view.box, size, rng)
        return view

    def _bent(self) -> Patch | None:
        patch = self._actor.patch
        if patch is None or not self._bends or self._rng.random() < 0.25:
            return patch
        return bend(patch, self._rng, level=1 if len(patch.levels) > 1 and max(patch.levels[0].shape) > 150 else 0)

    def _around(
        self, size: int, pose: Pose, extent: float, centre: Floats, *, other: bool, patch: Patch | None
    ) -> View:
        linear = self._linear(pose)
        if patch is None:
            matrix = place(self._actor.outline, linear, extent, centre)
            box = bounds(apply(matrix, self._actor.outline))
            return View(size=size, base=(self._actor.picture, matrix, False), box=box, look=_PLAIN)
        matrix = place(patch.outline, linear, extent, centre)
        box = bounds(apply(matrix, patch.outline))
        view = View(size=size, base=self._base(size, shift=0.2, other=other), box=box, look=_PLAIN)
        view.layers.append((patch, matrix))
        return view

    def _empty(self, size: int) -> View:
        if not self._others:
            like = self._library.draw_like(self._actor, self._rng)
            self._others.append(like if like is not None else self._library.draw_object(self._rng))
        base = self._base(size, shift=0.3, other=self._actor.patch is None)
        return View(size=size, base=base, box=_NO_TARGET, look=_PLAIN, present=False)

    def _crowd(self, view: View, *, wide: bool, near: bool = False) -> None:
        """Put the other objects somewhere into the view, mostly clear of the target."""
        rng, size = self._rng, view.size
        side = self._config.search_size / self._config.search_factor
        spots = []
        before = self._spots[-1] if near and self._spots else []
        for number, other in enumerate(self._others):
            last = before[number] if number < len(before) else None
            for _ in range(5):
                pose = draw_pose(rng, near=last[0] if last else None)
                spread = rng.uniform(-0.5, 1.5, 2) if wide else rng.uniform(-0.02, 1.02, 2)
                centre = last[1] + rng.normal(size=2) * 0.06 * size if last else spread * size
                matrix = place(other.outline, self._linear(pose), side * pose.size, centre)
                box = bounds(apply(matrix, other.outline))
                if _covered(box, view.box) < 0.4:
                    break
            spots.append((pose, centre))
            if other.patch is None or _covered(box, view.box) >= 0.4:
                continue
            view.layers.append((other.patch, matrix))
            view.shown.append((other, box))
        self._spots.append(spots)

    def _sort(self, view: View) -> None:
        """The target in front of the others: what hides it is drawn on purpose, elsewhere."""
        if view.present and self._actor.patch is not None:
            view.layers.append(view.layers.pop(0))

    def _hide(self, view: View) -> None:
        """Cover up to half of the target from one side."""
        rng, (x, y, w, h) = self._rng, view.box
        part = rng.uniform(0.12, 0.5)
        across = rng.random() < 0.5
        thick = rng.uniform(0.4, 1.2)
        if rng.random() < 0.35:  # a bar right across the target
            part *= 0.6
            start = rng.uniform(0, 1 - part)
            box = [x + start * w, -8, part * w, view.size + 16] if across else [-8, y + start * h, view.size + 16, part * h]
        elif across:
            left = rng.random() < 0.5
            box = [x - thick * w if left else x + (1 - part) * w, y - rng.uniform(0, 0.5) * h, (thick + part) * w, 1.6 * h]
        else:
            top = rng.random() < 0.35
            box = [x - rng.uniform(0, 0.5) * w, y - thick * h if top else y + (1 - part) * h, 1.6 * w, (thick + part) * h]
        area = np.array(box, dtype=np.float64)
        if rng.random() < 0.4:
            blocker = self._library.draw_object(rng)
            turned = flipped(np.eye(2)) if rng.random() < 0.5 else np.eye(2)
            matrix = place(blocker.outline, turned, float(np.sqrt(min(area[2], 2 * w) * min(area[3], 2 * h))), area[:2] + area[2:] / 2)
            if blocker.patch is not None and _covered(view.box, bounds(apply(matrix, blocker.outline))) < 0.6:
                view.front.append((blocker.patch, matrix))
                return
        colour = None
        if rng.random() < 0.4:
            red, green, blue = (int(v) for v in rng.integers(0, 256, size=3))
            colour = (red, green, blue)
        view.slabs.append(Slab(box=area, picture=self._library.draw_background(rng), colour=colour))

    def fact(self, views: list[View]) -> Fact:
        """What can be said of the target from the search views in which it is."""
        actor = self._actor
        boxes = np.array([v.box for v in views[1:] if v.present]).reshape(-1, 4)
        if not len(boxes):
            boxes = np.array([[0.0, 0.0, 1.0, 1.0], [1e3, 1e3, 1.0, 1.0]])  # no place holds for it
        return Fact(name=actor.name, colour=actor.colour, upper=actor.upper, boxes=boxes, side=self._config.search_size)

    def other_facts(self, views: list[View], neighbours: list[Neighbour]) -> list[Fact]:
        """The same for the other things. One that is not in every view counts with a place that decides nothing."""
        side = self._config.search_size
        seen = [number for number in (1, 2) if views[number].present]
        facts = []
        for other in self._others:
            boxes = []
            for number in seen:
                shown = [box for actor, box in views[number].shown if actor is other]
                boxes.append(shown[0] if shown else views[number].box)
            array = np.array(boxes).reshape(-1, 4) if boxes else np.tile([[0.0, 0.0, 1.0, 1.0]], (2, 1))
            facts.append(Fact(name=other.name, colour=other.colour, upper=other.upper, boxes=array, side=side))
        for neighbour in neighbours:
            placed = [bounds(apply(views[number].base[1], corners(neighbour.box))) for number in seen]
            array = np.array(placed).reshape(-1, 4) if placed else np.tile([[0.0, 0.0, 1.0, 1.0]], (2, 1))
            facts.append(Fact(name=neighbour.name, colour="", upper="", boxes=array, side=side))
        return facts


def _covered(inner: Floats, outer: Floats) -> float:
    """The larger of the shares of each box that the other covers."""
    low = np.maximum(inner[:2], outer[:2])
    high = np.minimum(inner[:2] + inner[2:], outer[:2] + outer[2:])
    inter = float(np.clip(high - low, 0, None).prod())
    return inter / max(1e-6, min(float(inner[2:].prod()), float(outer[2:].prod()) or 1e-6)) if inter else 0.0


def _frame_end(box: Floats, size: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Where the frame ends on one side, so that at least half of the target stays inside."""
    x, y, w, h = box
    limit = rng.uniform(0.05, 0.4) * size
    side = int(rng.integers(4))
    if side == 0:
        return (max(0.0, min(limit, x + w / 2)), 0.0, float(size), float(size))
    if side == 1:
        return (0.0, max(0.0, min(limit, y + h / 2)), float(size), float(size))
    if side == 2:
        return (0.0, 0.0, min(float(size), max(size - limit, x + w / 2)), float(size))
    return (0.0, 0.0, float(size), min(float(size), max(size - limit, y + h / 2)))


_PLAIN = Look(
    colour=np.eye(3, 4), gamma=1.0, grey=False, shadow=None, reduce=1.0, blur=0.0, motion=None, noise=0.0, jpeg=0
)  # fmt: skip


def compose_scene(
    config: PairConfig, library: Library, shared: np.random.Generator, rng: np.random.Generator, which: int
) -> Scene:
    """A whole picture in which the words decide: several things, two layouts; ``which`` of the first two is meant."""
    actors = _cast(library, shared)
    target = actors[which % 2]
    size = config.search_size
    ratio = float(shared.choice((1.0, 4 / 3, 16 / 9, 3 / 4)))
    wide, high = (size, size / ratio) if ratio >= 1 else (size * ratio, size)
    frame = ((size - wide) / 2, (size - high) / 2, (size + wide) / 2, (size + high) / 2)
    backdrop = library.draw_background(shared)
    first = _layout(actors, frame, shared, None)
    second = _layout(actors, frame, shared, first if shared.random() < 0.5 else None)
    looks = _looks(shared, mild=True, near=False, count=3)
    facts = []
    for number, actor in enumerate(actors):
        boxes = np.array([bounds(apply(layout[number], actor.outline)) for layout in (first, second)])
        facts.append(Fact(name=actor.name, colour=actor.colour, upper=actor.upper, boxes=boxes, side=size))
    others = [fact for number, fact in enumerate(facts) if actors[number] is not target]
    phrase = describe(facts[which % 2], others, rng, places=0.35, whole_scene=True)
    views = []
    for number, layout in enumerate((first, second)):
        absent = rng.random() < config.negative_share
        base = _cover(library, backdrop, size, shared)
        view = View(size=size, base=base, box=facts[which % 2].boxes[number], look=looks[number + 1], present=not absent)
        view.frame = None if ratio == 1.0 else frame
        view.layers = [(a.patch, m) for a, m in zip(actors, layout, strict=True) if a.patch is not None and not (absent and a is target)]
        views.append(view)
    moves = _Moves(config, library, target, rng)
    moves.hush()
    template = moves.template(draw_pose(rng))
    template.look = looks[0]
    text = "the object" if phrase is None else phrase.text
    return Scene(views=(template, views[0], views[1]), given=moves.given, text=text, mode="nl")


def _cast(library: Library, rng: np.random.Generator) -> list[Actor]:
    """Two to five things; the second is a look-alike of the first half of the time, told by its colour if possible."""
    first = library.draw_object(rng)
    second: Actor | None = None
    if rng.random() < 0.5:
        for _ in range(8):
            second = library.draw_like(first, rng)
            if second is None or (second.colour and first.colour and second.colour != first.colour):
                break
    cast = [first, second if second is not None else library.draw_object(rng)]
    cast += [library.draw_object(rng) for _ in range(int(rng.choice(4, p=(0.35, 0.35, 0.2, 0.1))))]
    return cast


def _cover(library: Library, picture: int, size: int, rng: np.random.Generator) -> tuple[int, Floats, bool]:
    h, w = library.image(picture).shape[:2]
    scale = size / min(h, w) * np.exp(rng.uniform(-0.1, 0.5))
    middle = np.array([w, h]) * rng.uniform(0.4, 0.6, size=2)
    linear = scale * np.eye(2)
    return picture, np.concatenate([linear, (size / 2 - linear @ middle)[:, None]], axis=1), True


def _layout(
    actors: list[Actor], frame: tuple[float, float, float, float], rng: np.random.Generator, last: list[Floats] | None
) -> list[Floats]:
    """A map for every actor so that they hardly overlap; ``last``: close to that layout."""
    x0, y0, x1, y1 = frame
    side = np.sqrt((x1 - x0) * (y1 - y0))
    low, high = np.log(0.09), np.log(0.62 if len(actors) < 3 else 0.42)
    maps: list[Floats] = []
    boxes: list[Floats] = []
    mirror = rng.random(len(actors)) < 0.5
    for number, actor in enumerate(actors):
        best, least = None, np.inf
        for attempt in range(10):
            pose = draw_pose(rng)
            linear = flipped(pose.linear) if mirror[number] else pose.linear
            extent = float(np.exp(rng.uniform(low, high - 0.06 * attempt)) * side)
            centre = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1)])
            if last is not None:
                old = bounds(apply(last[number], actor.outline))
                extent = float(np.sqrt(old[2] * old[3]) * np.exp(rng.normal() * 0.15))
                centre = old[:2] + old[2:] / 2 + rng.normal(size=2) * 0.05 * side
            box = bounds(apply(place(actor.outline, linear, extent, centre), actor.outline))
            span = min(1.0, 0.95 * (x1 - x0) / box[2], 0.95 * (y1 - y0) / box[3])
            half = span * box[2:] / 2
            centre = np.clip(centre, (x0, y0) + half, (x1, y1) - half)
            matrix = place(actor.outline, linear, extent * span, centre)
            box = bounds(apply(matrix, actor.outline))
            hidden = max((_covered(box, other) for other in boxes), default=0.0)
            if hidden < least:
                best, least = matrix, hidden
            if hidden < 0.1:
                break
        if best is None:
            raise AssertionError("no attempt was made")
        maps.append(best)
        boxes.append(bounds(apply(best, actor.outline)))
    return maps

"""Plans of a tracked target: a template and two search views around it, with look-alikes, occluders,
absences.

Knows the recipe's shares of events; the numbers are ours unless ``pairs.PairConfig`` has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vltrack.core.types import Floats
from vltrack.datasets.cutouts import Patch
from vltrack.training.pairs.objects import Actor, Library, Neighbour
from vltrack.training.pairs.rendering import (
    Pose,
    Wobble,
    apply,
    bend,
    bounds,
    corners,
    dense,
    draw_pose,
    flipped,
    place,
)
from vltrack.training.pairs.scene import PLAIN, Scene, Slab, View, covered, draw_looks, frame_end
from vltrack.training.pairs.sentences import Fact, describe

if TYPE_CHECKING:
    from vltrack.training.pairs.sampler import PairConfig


_NO_TARGET = np.zeros(4)


def compose_track(config: PairConfig, library: Library, rng: np.random.Generator, *, talk: bool) -> Scene:
    """A template and two search views around a tracked target. ``talk``: with a sentence where one can be
    said."""
    actor, neighbours = _draw_target(config, library, rng, talk=talk)
    moves = Moves(config, library, actor, rng)
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
    looks = draw_looks(rng, mild=phrase is not None and phrase.colour, near=near, count=3)
    for view, look in zip(views, looks, strict=True):
        view.look = look
    return Scene(
        views=(views[0], views[1], views[2]),
        given=moves.given,
        text="" if phrase is None else phrase.text,
        mode="bbox" if phrase is None else "nlbbox",
    )


def _draw_target(
    config: PairConfig, library: Library, rng: np.random.Generator, *, talk: bool
) -> tuple[Actor, list[Neighbour]]:
    """The target and what is annotated around it. Textured pieces have no name: they come less where words
    are due."""
    texture = min(1.0, (1 - config.cutout_share - config.own_share) * (0.6 if talk else 1.35))
    chance = rng.random()
    if chance < texture:
        actor = library.draw_texture(rng)
        if not talk or actor.colour:
            return actor, []
        return library.draw_object(rng), []
    named = max(1e-9, config.cutout_share + config.own_share)
    if rng.random() < config.cutout_share / named:
        return library.draw_object(rng), []
    return library.draw_owned(rng)


class Moves:
    """The views of one tracked target: everything that they share is drawn once, here."""

    def __init__(self, config: PairConfig, library: Library, actor: Actor, rng: np.random.Generator) -> None:
        self._config, self._library, self._actor, self._rng = config, library, actor, rng
        self._mirror = bool(rng.random() < 0.5)
        self._backdrop = library.draw_background(rng, avoid=(actor.name,))
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
        picture = self._library.draw_background(rng, avoid=(self._actor.name,)) if other else self._backdrop
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
        self.given = np.array(
            [size / 2 - side * ratio / 2, size / 2 - side / ratio / 2, side * ratio, side / ratio]
        )
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
                view.frame = frame_end(view.box, size, rng)
        return view

    def _bent(self) -> Patch | None:
        patch = self._actor.patch
        if patch is None or not self._bends or self._rng.random() < 0.25:
            return patch
        return bend(
            patch, self._rng, level=1 if len(patch.levels) > 1 and max(patch.levels[0].shape) > 150 else 0
        )

    def _around(
        self, size: int, pose: Pose, extent: float, centre: Floats, *, other: bool, patch: Patch | None
    ) -> View:
        linear = self._linear(pose)
        if patch is None:
            matrix = place(self._actor.outline, linear, extent, centre)
            points = apply(matrix, dense(self._actor.outline))
            wobble = Wobble.draw(size, self._rng) if self._rng.random() < 0.2 and size >= 160 else None
            box = bounds(points if wobble is None else wobble.moved(points))
            return View(
                size=size, base=(self._actor.picture, matrix, False), box=box, look=PLAIN, wobble=wobble
            )
        matrix = place(patch.outline, linear, extent, centre)
        box = bounds(apply(matrix, patch.outline))
        view = View(size=size, base=self._base(size, shift=0.2, other=other), box=box, look=PLAIN)
        view.layers.append((patch, matrix))
        return view

    def _empty(self, size: int) -> View:
        if not self._others:
            like = self._library.draw_like(self._actor, self._rng)
            self._others.append(like if like is not None else self._library.draw_object(self._rng))
        base = self._base(size, shift=0.3, other=self._actor.patch is None)
        return View(size=size, base=base, box=_NO_TARGET, look=PLAIN, present=False)

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
                if covered(box, view.box) < 0.4:
                    break
            spots.append((pose, centre))
            if other.patch is None or covered(box, view.box) >= 0.4:
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
            box = (
                [x + start * w, -8, part * w, view.size + 16]
                if across
                else [-8, y + start * h, view.size + 16, part * h]
            )
        elif across:
            left = rng.random() < 0.5
            box = [
                x - thick * w if left else x + (1 - part) * w,
                y - rng.uniform(0, 0.5) * h,
                (thick + part) * w,
                1.6 * h,
            ]
        else:
            top = rng.random() < 0.35
            box = [
                x - rng.uniform(0, 0.5) * w,
                y - thick * h if top else y + (1 - part) * h,
                1.6 * w,
                (thick + part) * h,
            ]
        area = np.array(box, dtype=np.float64)
        if rng.random() < 0.4:
            blocker = self._library.draw_object(rng)
            turned = flipped(np.eye(2)) if rng.random() < 0.5 else np.eye(2)
            matrix = place(
                blocker.outline,
                turned,
                float(np.sqrt(min(area[2], 2 * w) * min(area[3], 2 * h))),
                area[:2] + area[2:] / 2,
            )
            if blocker.patch is not None and covered(view.box, bounds(apply(matrix, blocker.outline))) < 0.6:
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
        return Fact(
            name=actor.name,
            colour=actor.colour,
            upper=actor.upper,
            boxes=boxes,
            side=self._config.search_size,
            roles=actor.roles,
        )

    def other_facts(self, views: list[View], neighbours: list[Neighbour]) -> list[Fact]:
        """The same for the other things. One that is not in every view counts with a place that decides
        nothing."""
        side = self._config.search_size
        seen = [number for number in (1, 2) if views[number].present]
        facts = []
        for other in self._others:
            boxes = []
            for number in seen:
                shown = [box for actor, box in views[number].shown if actor is other]
                boxes.append(shown[0] if shown else views[number].box)
            array = np.array(boxes).reshape(-1, 4) if boxes else np.tile([[0.0, 0.0, 1.0, 1.0]], (2, 1))
            facts.append(
                Fact(
                    name=other.name,
                    colour=other.colour,
                    upper=other.upper,
                    boxes=array,
                    side=side,
                    roles=other.roles,
                )
            )
        for neighbour in neighbours:
            placed = [bounds(apply(views[number].base[1], corners(neighbour.box))) for number in seen]
            array = np.array(placed).reshape(-1, 4) if placed else np.tile([[0.0, 0.0, 1.0, 1.0]], (2, 1))
            facts.append(
                Fact(
                    name=neighbour.name,
                    colour=neighbour.colour,
                    upper=neighbour.upper,
                    boxes=array,
                    side=side,
                )
            )
        return facts

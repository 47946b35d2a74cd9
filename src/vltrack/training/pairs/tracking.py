"""Tracked targets: a template and two search views, with look-alikes, occluders and absences (ours)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vltrack.core.types import Floats
from vltrack.datasets.cutouts import Patch
from vltrack.training.pairs.objects import Instance, Library
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
from vltrack.training.pairs.scene import PLAIN, Occluder, Scene, View, covered, draw_looks, frame_end
from vltrack.training.pairs.sentences import SceneObject, describe

if TYPE_CHECKING:
    from vltrack.training.pairs.sampler import PairConfig


_NO_TARGET = np.zeros(4)


def compose_tracking(config: PairConfig, library: Library, rng: np.random.Generator, *, with_text: bool) -> Scene:
    """A template and two search views around a tracked target, with a sentence if there is one.

    In ``config.recolor_share`` of those with a sentence a look-alike is there that only the sentence excludes: it
    names a color, and the template is gray.
    """
    twins = _draw_twins(library, rng) if with_text and rng.random() < config.recolor_share else None
    instance, neighbors = (twins[0], []) if twins else _draw_target(config, library, rng, with_text=with_text)
    tracking = TrackingViews(config, library, instance, rng)
    if twins:
        tracking.others = [twins[1]]
    near = rng.random() < 0.5
    first = draw_pose(rng, calm=instance.calm)
    second = draw_pose(rng, calm=instance.calm, near=first if near else None)
    views = [
        tracking.template(draw_pose(rng, calm=instance.calm)),
        tracking.search(first),
        tracking.search(second, near=near),
    ]
    phrase = None
    if with_text:
        target, others = tracking.described(views, neighbors)
        phrase = describe(target, others, rng, places=0.08, whole_scene=twins is not None)
    if twins and not (phrase and phrase.color and phrase.decided):
        return compose_tracking(config, library, rng, with_text=with_text)
    looks = draw_looks(rng, mild=phrase is not None and phrase.color, near=near, count=3)
    if twins:
        looks[0] = replace(looks[0], gray=True)
    for view, look in zip(views, looks, strict=True):
        view.look = look
    return Scene(
        views=(views[0], views[1], views[2]),
        given=tracking.given,
        text="" if phrase is None else phrase.text,
        mode="bbox" if phrase is None else "nlbbox",
    )


def _draw_twins(library: Library, rng: np.random.Generator) -> tuple[Instance, Instance] | None:
    """Two objects of one class in two colors, half of them one object recolored; None where none was found."""
    if rng.random() < 0.5:
        return library.draw_recolored(rng)
    for _ in range(8):
        first = library.draw_object(rng)
        second = library.draw_like(first, rng)
        shades = [one.clothing_color if one.name == "person" else one.color for one in (first, second) if one]
        if second is not None and all(shades) and shades[0] != shades[1]:
            return first, second
    return None


def _draw_target(
    config: PairConfig, library: Library, rng: np.random.Generator, *, with_text: bool
) -> tuple[Instance, list[Instance]]:
    """The target, and the objects annotated around it; with text, fewer pieces without a name."""
    texture = min(1.0, (1 - config.cutout_share - config.own_share) * (0.6 if with_text else 1.35))
    chance = rng.random()
    if chance < texture:
        instance = library.draw_texture(rng)
        if not with_text or instance.color:
            return instance, []
        return library.draw_object(rng), []
    named = max(1e-9, config.cutout_share + config.own_share)
    if rng.random() < config.cutout_share / named:
        return library.draw_object(rng), []
    return library.draw_owned(rng)


class TrackingViews:
    """The views of one tracked target; what they share is drawn once."""

    def __init__(self, config: PairConfig, library: Library, instance: Instance, rng: np.random.Generator) -> None:
        self._config, self._library, self._instance, self._rng = config, library, instance, rng
        self._mirror = bool(rng.random() < 0.5)
        self._backdrop = library.draw_background(rng, avoid=(instance.name,))
        self._zoom = float(np.exp(rng.uniform(np.log(0.4), np.log(1.0))))
        self._middle = rng.uniform(0.3, 0.7, size=2)
        self.others = self._draw_others()
        self._spots: list[list[tuple[Pose, Floats]]] = []
        self.given = np.zeros(4)
        self._bends = rng.random() < 0.3
        self._last: Patch | None = None

    def _draw_others(self) -> list[Instance]:
        rng, cut = self._rng, self._instance.patch is not None
        count = int(rng.choice(4, p=(0.3, 0.35, 0.22, 0.13) if cut else (0.62, 0.24, 0.1, 0.04)))
        others = []
        for _ in range(count):
            like = self._library.draw_like(self._instance, rng) if rng.random() < 0.7 else None
            others.append(like if like is not None else self._library.draw_object(rng))
        return others

    def _base(self, size: int, *, shift: float, other: bool = False) -> tuple[int, Floats, bool]:
        """The background mapped into a view of ``size`` pixels, or another one; see ``View.base``."""
        rng = self._rng
        index = self._library.draw_background(rng, avoid=(self._instance.name,)) if other else self._backdrop
        h, w = self._library.image(index).shape[:2]
        scale = self._config.search_size / (min(h, w) * self._zoom) * np.exp(rng.normal() * 0.08)
        angle = rng.normal() * 0.06
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        if self._mirror:
            linear = flipped(linear)
        center = self._middle * (w, h) + rng.normal(size=2) * shift * self._config.search_size / scale
        return index, np.concatenate([linear, (size / 2 - linear @ center)[:, None]], axis=1), True

    def _linear(self, pose: Pose) -> Floats:
        return flipped(pose.linear) if self._mirror else pose.linear

    def template(self, pose: Pose) -> View:
        """The template view; sets ``given``."""
        rng, size, jitter = self._rng, self._config.template_size, self._config.template_jitter
        side = size / self._config.template_factor
        center = size / 2 + np.clip(rng.normal(size=2), -2, 2) * jitter * side
        extent = side * np.exp(np.clip(rng.normal(), -2, 2) * jitter)
        view = self._around(size, pose, extent, center, other=rng.random() < 0.4, patch=self._bent())
        ratio = np.sqrt(view.box[2] / view.box[3]) * np.exp(np.clip(rng.normal(), -2, 2) * jitter)
        self.given = np.array([size / 2 - side * ratio / 2, size / 2 - side / ratio / 2, side * ratio, side / ratio])
        if rng.random() < 0.5:
            self._crowd(view, wide=True)
        self._target_to_front(view)
        return view

    def search(self, pose: Pose, *, near: bool = False) -> View:
        """A search view; ``near``: just after the one before."""
        rng, size = self._rng, self._config.search_size
        patch = self._last if near and rng.random() < 0.5 else self._bent()
        if rng.random() < self._config.negative_share:
            view = self._drifted(size, pose) or self._empty(size)
        else:
            side = size / self._config.search_factor * pose.size
            center = size * (0.5 + pose.numbers[4:])
            view = self._around(size, pose, side, center, other=rng.random() < 0.25 and not near, patch=patch)
        self._last = patch
        self._crowd(view, wide=False, near=near)
        self._target_to_front(view)
        if view.present:
            if rng.random() < 0.18:
                self._hide(view)
            if rng.random() < 0.09 and view.base[2]:
                view.frame = frame_end(view.box, size, rng)
        return view

    def _bent(self) -> Patch | None:
        patch = self._instance.patch
        if patch is None or not self._bends or self._rng.random() < 0.25:
            return patch
        return bend(patch, self._rng, level=1 if len(patch.levels) > 1 and max(patch.levels[0].shape) > 150 else 0)

    def _around(
        self, size: int, pose: Pose, extent: float, center: Floats, *, other: bool, patch: Patch | None
    ) -> View:
        linear = self._linear(pose)
        if patch is None:
            matrix = place(self._instance.outline, linear, extent, center)
            points = apply(matrix, dense(self._instance.outline))
            wobble = Wobble.draw(size, self._rng) if self._rng.random() < 0.2 and size >= 160 else None
            box = bounds(points if wobble is None else wobble.moved(points))
            return View(size=size, base=(self._instance.image_index, matrix, False), box=box, look=PLAIN, wobble=wobble)
        matrix = place(patch.outline, linear, extent, center)
        box = bounds(apply(matrix, patch.outline))
        view = View(size=size, base=self._base(size, shift=0.2, other=other), box=box, look=PLAIN)
        view.layers.append((patch, matrix))
        return view

    def _empty(self, size: int) -> View:
        if not self.others:
            like = self._library.draw_like(self._instance, self._rng)
            self.others.append(like if like is not None else self._library.draw_object(self._rng))
        base = self._base(size, shift=0.3, other=self._instance.patch is None)
        return View(size=size, base=base, box=_NO_TARGET, look=PLAIN, present=False)

    def _drifted(self, size: int, pose: Pose) -> View | None:
        """What a tracker sees that has drifted off the target: what is beside it; None where that is little."""
        rng, instance = self._rng, self._instance
        if instance.patch is not None:
            return None
        side = size / self._config.search_factor * pose.size
        center, axis = rng.uniform(0, size, 2), int(rng.integers(2))
        away = 0.5 * size + side * rng.uniform(1.0, 2.0)
        center[axis] = 0.5 * size + (away if rng.random() < 0.5 else -away)
        view = self._around(size, pose, side, center, other=False, patch=None)
        h, w = self._library.image(instance.image_index).shape[:2]
        seen = apply(view.base[1], corners(np.array([0.0, 0.0, w, h]))).clip(0, size)
        if (np.maximum(view.box[:2], 0) < np.minimum(view.box[:2] + view.box[2:], size)).all():
            return None  # the target is long and reaches into the view
        if bounds(seen)[2:].prod() < 0.4 * size**2:
            return None
        view.box, view.present = _NO_TARGET, False
        return view

    def _crowd(self, view: View, *, wide: bool, near: bool = False) -> None:
        """Put the other objects into the view, mostly clear of the target."""
        rng, size = self._rng, view.size
        side = self._config.search_size / self._config.search_factor
        spots = []
        before = self._spots[-1] if near and self._spots else []
        for number, other in enumerate(self.others):
            last = before[number] if number < len(before) else None
            for _ in range(5):
                pose = draw_pose(rng, near=last[0] if last else None)
                spread = rng.uniform(-0.5, 1.5, 2) if wide else rng.uniform(-0.02, 1.02, 2)
                center = last[1] + rng.normal(size=2) * 0.06 * size if last else spread * size
                matrix = place(other.outline, self._linear(pose), side * pose.size, center)
                box = bounds(apply(matrix, other.outline))
                if covered(box, view.box) < 0.4:
                    break
            spots.append((pose, center))
            if other.patch is None or covered(box, view.box) >= 0.4:
                continue
            view.layers.append((other.patch, matrix))
            view.shown.append((other, box))
        self._spots.append(spots)

    def _target_to_front(self, view: View) -> None:
        """Draw the target in front of the other objects; ``_hide`` alone occludes it."""
        if view.present and self._instance.patch is not None:
            view.layers.append(view.layers.pop(0))

    def _hide(self, view: View) -> None:
        """Cover up to half of the target from one side."""
        rng, spot, sides = self._rng, view.box[:2], view.box[2:]
        part = rng.uniform(0.12, 0.5)
        axis = 0 if rng.random() < 0.5 else 1
        thick = rng.uniform(0.4, 1.2)
        if rng.random() < 0.35:  # a bar right across the target
            part *= 0.6
            low, extent = spot + rng.uniform(0, 1 - part) * sides, part * sides
            low[1 - axis], extent[1 - axis] = -8, view.size + 16
        else:
            before = rng.random() < (0.5, 0.35)[axis]
            low, extent = spot - rng.uniform(0, 0.5) * sides, 1.6 * sides
            low[axis] = (spot - thick * sides if before else spot + (1 - part) * sides)[axis]
            extent[axis] = (thick + part) * sides[axis]
        if rng.random() < 0.4:
            blocker = self._library.draw_object(rng)
            turned = flipped(np.eye(2)) if rng.random() < 0.5 else np.eye(2)
            size = float(np.sqrt(np.minimum(extent, 2 * sides).prod()))
            matrix = place(blocker.outline, turned, size, low + extent / 2)
            if blocker.patch is not None and covered(view.box, bounds(apply(matrix, blocker.outline))) < 0.6:
                view.front.append((blocker.patch, matrix))
                return
        color = rng.integers(0, 256, size=3) if rng.random() < 0.4 else None
        box, index = np.concatenate([low, extent]), self._library.draw_background(rng)
        view.occluders.append(Occluder(box=box, image_index=index, color=color))

    def described(self, views: list[View], neighbors: list[Instance]) -> tuple[SceneObject, list[SceneObject]]:
        """The target and the other objects as sentences describe them, from the views with the target.

        An object that is not in every view has boxes for which no place or relation holds.
        """
        side, nowhere = self._config.search_size, [[0.0, 0.0, 1.0, 1.0], [1e3, 1e3, 1.0, 1.0]]
        seen = [view for view in views[1:] if view.present]
        target = self._instance.in_views(np.array([v.box for v in seen] or nowhere), side)
        others = []
        for other in self.others:
            boxes = [next((b for o, b in view.shown if o is other), view.box) for view in seen]
            others.append(other.in_views(np.array(boxes or nowhere[:1] * 2), side))
        for neighbor in neighbors:
            boxes = [bounds(apply(view.base[1], neighbor.outline)) for view in seen]
            others.append(neighbor.in_views(np.array(boxes or nowhere[:1] * 2), side))
        return target, others

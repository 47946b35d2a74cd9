"""Whole scenes in which the text decides: pasted objects in two layouts, and real images with annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vltrack.core.types import Floats
from vltrack.training.pairs.objects import Instance, Library
from vltrack.training.pairs.rendering import Look, apply, bounds, draw_pose, flipped, place
from vltrack.training.pairs.scene import Scene, View, covered, draw_looks
from vltrack.training.pairs.sentences import Phrase, describe
from vltrack.training.pairs.tracking import TrackingViews

if TYPE_CHECKING:
    from vltrack.training.pairs.sampler import PairConfig


def compose_scene(
    config: PairConfig, library: Library, shared: np.random.Generator, rng: np.random.Generator, which: int
) -> Scene:
    """A real image, or several objects pasted in two layouts; ``which`` of the first two is the target."""
    if shared.random() < 0.45:
        real = _real_scene(config, library, shared, rng, which)
        if real is not None:
            return real
    return _pasted_scene(config, library, shared, rng, which)


def _pasted_scene(
    config: PairConfig, library: Library, shared: np.random.Generator, rng: np.random.Generator, which: int
) -> Scene:
    instances = _sample_objects(library, shared, config.recolor_share)
    target = instances[which]
    size = config.search_size
    ratio = float(shared.choice((1.0, 4 / 3, 16 / 9, 3 / 4)))
    wide, high = (size, size / ratio) if ratio >= 1 else (size * ratio, size)
    frame = ((size - wide) / 2, (size - high) / 2, (size + wide) / 2, (size + high) / 2)
    backdrop = library.draw_background(shared, avoid={instance.name for instance in instances})
    first = _layout(instances, frame, shared, None)
    second = _layout(instances, frame, shared, first if shared.random() < 0.5 else None)
    looks = draw_looks(shared, mild=True, near=False, count=3)
    objects = []
    for number, instance in enumerate(instances):
        boxes = np.array([bounds(apply(layout[number], instance.outline)) for layout in (first, second)])
        objects.append(instance.in_views(boxes, size))
    meant = objects[which]
    others = [entry for entry in objects if entry is not meant]
    phrase = describe(meant, others, rng, places=0.35, whole_scene=True)
    rivals: set[int] = set()
    if phrase is not None and not phrase.decided:  # no sentence excludes the look-alikes: leave them out
        rivals = {n for n, entry in enumerate(objects) if entry is not meant and entry.kind == meant.kind}
        others = [entry for entry in others if entry.kind != meant.kind]
        phrase = describe(meant, others, rng, places=0.35, whole_scene=True)
    views = []
    for number, layout in enumerate((first, second)):
        present = bool(rng.random() >= config.negative_share)
        base = _cover(library, backdrop, size, shared)
        view = View(size=size, base=base, box=meant.boxes[number], look=looks[number + 1], present=present)
        view.frame = None if ratio == 1.0 else frame
        left_out = rivals if present else rivals | {which}
        view.layers = [
            (instance.patch, matrix)
            for rank, (instance, matrix) in enumerate(zip(instances, layout, strict=True))
            if instance.patch is not None and rank not in left_out
        ]
        views.append(view)
    text = "the object" if phrase is None else phrase.text
    return _scene(config, library, target, (views[0], views[1]), text, rng, looks[0])


def _scene(
    config: PairConfig,
    library: Library,
    target: Instance,
    searches: tuple[View, View],
    text: str,
    rng: np.random.Generator,
    look: Look,
) -> Scene:
    views = TrackingViews(config, library, target, rng)
    views.others = []
    template = views.template(draw_pose(rng, calm=target.calm))
    template.look = look
    return Scene(views=(template, *searches), given=views.given, text=text, mode="nl")


def _real_scene(
    config: PairConfig, library: Library, shared: np.random.Generator, rng: np.random.Generator, which: int
) -> Scene | None:
    """A real image and one of its annotated objects, whole and cropped a little; None where no sentence
    fits one object only."""
    drawn = library.draw_crowded(shared)
    if drawn is None:
        return None
    index, numbers = drawn
    mirror = bool(shared.random() < 0.5)
    size = config.search_size
    looks = draw_looks(shared, mild=True, near=False, count=3)
    zooms = shared.uniform(1.0, 1.5, size=2)
    aims = shared.uniform(size=(2, 2))
    found: list[tuple[Instance, tuple[View, View], Phrase]] = []
    for number in numbers[:6]:
        instance, neighbors = library.owned(index, number)
        maps = [
            _letterbox(library, index, size, zoom, aim, instance.outline, mirror)
            for zoom, aim in zip((1.0, zooms[1]), aims, strict=True)
        ]
        target, *others = (
            entry.in_views(np.array([bounds(apply(m, entry.outline)) for m in maps]), size)
            for entry in (instance, *neighbors)
        )
        phrase = describe(target, others, rng, places=0.3, whole_scene=True)
        if phrase is None or not phrase.decided or target.boxes[:, 2:].min() < 0.06 * size:
            continue
        views = [
            View(size=size, base=(index, m, False), box=box, look=look)
            for m, box, look in zip(maps, target.boxes, looks[1:], strict=True)
        ]
        found.append((instance, (views[0], views[1]), phrase))
        if len(found) > which:
            break
    if not found:
        return None
    instance, searches, phrase = found[-1]
    return _scene(config, library, instance, searches, phrase.text, rng, looks[0])


def _letterbox(
    library: Library, index: int, size: int, zoom: float, aim: Floats, outline: Floats, mirror: bool
) -> Floats:
    """Map of an image into the view: whole, or cropped by ``zoom`` with the outline inside.

    ``aim`` in [0, 1] places the crop.
    """
    h, w = library.image(index).shape[:2]
    x, y, bw, bh = bounds(outline)
    window = np.full(2, max(w, h) / zoom)
    window = np.maximum(window, np.array([bw, bh]) * 1.1)
    side = float(window.max())
    low, high = np.array([x + bw, y + bh]) - side, np.array([x, y])
    spare = np.array([w, h]) - side  # negative where the image is narrower than the window: it is centered
    start = np.where(spare > 0, np.clip(aim * spare, low, high), spare / 2)
    scale = size / side
    matrix = np.array([[scale, 0, -scale * start[0]], [0, scale, -scale * start[1]]])
    if mirror:
        matrix[0] = (-matrix[0, 0], 0, size - matrix[0, 2])
    return matrix


def _sample_objects(library: Library, rng: np.random.Generator, recolor_share: float) -> list[Instance]:
    """Two to five objects; the second is often a look-alike of the first, in another color if possible.

    In ``recolor_share`` of the scenes it is the first itself, in another clear color.
    """
    pair = library.draw_recolored(rng) if recolor_share and rng.random() < recolor_share else None
    first, second = pair or (library.draw_object(rng), None)
    if pair is None and rng.random() < 0.5:
        for _ in range(8):
            second = library.draw_like(first, rng)
            if second is None or (second.color and first.color and second.color != first.color):
                break
    objects = [first, second if second is not None else library.draw_object(rng)]
    objects += [library.draw_object(rng) for _ in range(int(rng.choice(4, p=(0.35, 0.35, 0.2, 0.1))))]
    return objects


def _cover(library: Library, index: int, size: int, rng: np.random.Generator) -> tuple[int, Floats, bool]:
    h, w = library.image(index).shape[:2]
    scale = size / min(h, w) * np.exp(rng.uniform(-0.1, 0.5))
    middle = np.array([w, h]) * rng.uniform(0.4, 0.6, size=2)
    linear = scale * np.eye(2)
    return index, np.concatenate([linear, (size / 2 - linear @ middle)[:, None]], axis=1), True


def _layout(
    instances: list[Instance],
    frame: tuple[float, float, float, float],
    rng: np.random.Generator,
    last: list[Floats] | None,
) -> list[Floats]:
    """A map for every instance so that they hardly overlap; ``last``: close to that layout."""
    x0, y0, x1, y1 = frame
    side = np.sqrt((x1 - x0) * (y1 - y0))
    low, high = np.log(0.09), np.log(0.62 if len(instances) < 3 else 0.42)
    maps: list[Floats] = []
    boxes: list[Floats] = []
    mirror = rng.random(len(instances)) < 0.5
    for number, instance in enumerate(instances):
        best, least = None, np.inf
        for attempt in range(10):
            pose = draw_pose(rng)
            linear = flipped(pose.linear) if mirror[number] else pose.linear
            extent = float(np.exp(rng.uniform(low, high - 0.06 * attempt)) * side)
            center = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1)])
            if last is not None:
                old = bounds(apply(last[number], instance.outline))
                extent = float(np.sqrt(old[2] * old[3]) * np.exp(rng.normal() * 0.15))
                center = old[:2] + old[2:] / 2 + rng.normal(size=2) * 0.05 * side
            box = bounds(apply(place(instance.outline, linear, extent, center), instance.outline))
            span = min(1.0, 0.95 * (x1 - x0) / box[2], 0.95 * (y1 - y0) / box[3])
            half = span * box[2:] / 2
            center = np.clip(center, np.array([x0, y0]) + half, np.array([x1, y1]) - half)
            matrix = place(instance.outline, linear, extent * span, center)
            box = bounds(apply(matrix, instance.outline))
            hidden = max((covered(box, other) for other in boxes), default=0.0)
            if hidden < least:
                best, least = matrix, hidden
            if hidden < 0.1:
                break
        if best is None:
            raise AssertionError("no attempt was made")
        maps.append(best)
        boxes.append(bounds(apply(best, instance.outline)))
    return maps

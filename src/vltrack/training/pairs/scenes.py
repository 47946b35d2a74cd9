"""Plans of whole pictures in which the words decide: scenes of pasted things, and real pictures with
annotations.

Knows layouts and which sentence is needed; knows no tracked motion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vltrack.core.types import Floats
from vltrack.training.pairs.objects import Actor, Library
from vltrack.training.pairs.rendering import (
    Look,
    apply,
    bounds,
    corners,
    draw_pose,
    flipped,
    place,
)
from vltrack.training.pairs.scene import Scene, View, covered, draw_looks
from vltrack.training.pairs.sentences import Fact, Phrase, describe
from vltrack.training.pairs.tracking import Moves

if TYPE_CHECKING:
    from vltrack.training.pairs.sampler import PairConfig


def compose_scene(
    config: PairConfig, library: Library, shared: np.random.Generator, rng: np.random.Generator, which: int
) -> Scene:
    """A whole picture in which the words decide: a real one, or several things pasted in two layouts.
    ``which`` of the first two things is meant."""
    if shared.random() < 0.45:
        real = _real_scene(config, library, shared, rng, which)
        if real is not None:
            return real
    return _pasted_scene(config, library, shared, rng, which)


def _pasted_scene(
    config: PairConfig, library: Library, shared: np.random.Generator, rng: np.random.Generator, which: int
) -> Scene:
    actors = _cast(library, shared, config.recolour_share)
    target = actors[which % 2]
    size = config.search_size
    ratio = float(shared.choice((1.0, 4 / 3, 16 / 9, 3 / 4)))
    wide, high = (size, size / ratio) if ratio >= 1 else (size * ratio, size)
    frame = ((size - wide) / 2, (size - high) / 2, (size + wide) / 2, (size + high) / 2)
    backdrop = library.draw_background(shared, avoid={actor.name for actor in actors})
    first = _layout(actors, frame, shared, None)
    second = _layout(actors, frame, shared, first if shared.random() < 0.5 else None)
    looks = draw_looks(shared, mild=True, near=False, count=3)
    facts = []
    for number, actor in enumerate(actors):
        boxes = np.array([bounds(apply(layout[number], actor.outline)) for layout in (first, second)])
        facts.append(
            Fact(
                name=actor.name,
                colour=actor.colour,
                upper=actor.upper,
                boxes=boxes,
                side=size,
                roles=actor.roles,
            )
        )
    meant = facts[which % 2]
    others = [fact for fact in facts if fact is not meant]
    phrase = describe(meant, others, rng, places=0.35, whole_scene=True)
    rivals: set[int] = set()
    if phrase is not None and not phrase.decided:  # no words tell the look-alikes apart: leave them out
        rivals = {
            number for number, fact in enumerate(facts) if fact is not meant and fact.kind == meant.kind
        }
        others = [fact for fact in others if fact.kind != meant.kind]
        phrase = describe(meant, others, rng, places=0.35, whole_scene=True)
    views = []
    for number, layout in enumerate((first, second)):
        present = bool(rng.random() >= config.negative_share)
        base = _cover(library, backdrop, size, shared)
        view = View(size=size, base=base, box=meant.boxes[number], look=looks[number + 1], present=present)
        view.frame = None if ratio == 1.0 else frame
        left_out = rivals if present else rivals | {which % 2}
        view.layers = [
            (actor.patch, matrix)
            for rank, (actor, matrix) in enumerate(zip(actors, layout, strict=True))
            if actor.patch is not None and rank not in left_out
        ]
        views.append(view)
    text = "the object" if phrase is None else phrase.text
    return _scene(config, library, target, (views[0], views[1]), text, rng, looks[0])


def _scene(
    config: PairConfig,
    library: Library,
    target: Actor,
    searches: tuple[View, View],
    text: str,
    rng: np.random.Generator,
    look: Look,
) -> Scene:
    moves = Moves(config, library, target, rng)
    moves.hush()
    template = moves.template(draw_pose(rng, calm=target.calm))
    template.look = look
    return Scene(views=(template, *searches), given=moves.given, text=text, mode="nl")


def _real_scene(
    config: PairConfig, library: Library, shared: np.random.Generator, rng: np.random.Generator, which: int
) -> Scene | None:
    """A real picture and one of its annotated things, whole and once more cut a little; None where words
    cannot tell two things apart."""
    drawn = library.draw_crowded(shared)
    if drawn is None:
        return None
    picture, numbers = drawn
    mirror = bool(shared.random() < 0.5)
    size = config.search_size
    looks = draw_looks(shared, mild=True, near=False, count=3)
    zooms = shared.uniform(1.0, 1.5, size=2)
    aims = shared.uniform(size=(2, 2))
    found: list[tuple[Actor, tuple[View, View], Phrase]] = []
    for number in numbers[:6]:
        actor, neighbours = library.owned(picture, number)
        maps = [_letterbox(library, picture, size, zoom, aim, actor.outline, mirror) for zoom, aim in
                zip((1.0, zooms[1]), aims, strict=True)]  # fmt: skip
        boxes = np.array([bounds(apply(m, actor.outline)) for m in maps])
        fact = Fact(
            name=actor.name, colour=actor.colour, upper=actor.upper, boxes=boxes, side=size, roles=actor.roles
        )
        others = [
            Fact(
                name=o.name, colour=o.colour, upper=o.upper, side=size,
                boxes=np.array([bounds(apply(m, corners(o.box))) for m in maps]),
            )
            for o in neighbours
        ]  # fmt: skip
        phrase = describe(fact, others, rng, places=0.3, whole_scene=True)
        if phrase is None or not phrase.decided or boxes[:, 2:].min() < 0.06 * size:
            continue
        views = [
            View(size=size, base=(picture, m, False), box=box, look=look)
            for m, box, look in zip(maps, boxes, looks[1:], strict=True)
        ]
        found.append((actor, (views[0], views[1]), phrase))
        if len(found) > which % 2:
            break
    if not found:
        return None
    actor, searches, phrase = found[-1]
    return _scene(config, library, actor, searches, phrase.text, rng, looks[0])


def _letterbox(
    library: Library, picture: int, size: int, zoom: float, aim: Floats, outline: Floats, mirror: bool
) -> Floats:
    """The whole picture in the view, or cut by ``zoom`` with the outline kept inside; ``aim`` in [0, 1] says
    where."""
    h, w = library.image(picture).shape[:2]
    x, y, bw, bh = bounds(outline)
    window = np.full(2, max(w, h) / zoom)
    window = np.maximum(window, np.array([bw, bh]) * 1.1)
    side = float(window.max())
    low, high = np.array([x + bw, y + bh]) - side, np.array([x, y])
    spare = (
        np.array([w, h]) - side
    )  # negative where the picture is narrower than the window: then it is centred
    start = np.where(spare > 0, np.clip(aim * spare, low, high), spare / 2)
    scale = size / side
    matrix = np.array([[scale, 0, -scale * start[0]], [0, scale, -scale * start[1]]])
    if mirror:
        matrix[0] = (-matrix[0, 0], 0, size - matrix[0, 2])
    return matrix


def _cast(library: Library, rng: np.random.Generator, recolour_share: float) -> list[Actor]:
    """Two to five things; half of the time the second is a look-alike of the first, of another colour if
    possible. In ``recolour_share`` of the casts it is the first itself, in another clear colour."""
    twins = library.draw_recoloured(rng) if recolour_share and rng.random() < recolour_share else None
    first = library.draw_object(rng) if twins is None else twins[0]
    second: Actor | None = None if twins is None else twins[1]
    if twins is None and rng.random() < 0.5:
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
    actors: list[Actor],
    frame: tuple[float, float, float, float],
    rng: np.random.Generator,
    last: list[Floats] | None,
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
            centre = np.clip(centre, np.array([x0, y0]) + half, np.array([x1, y1]) - half)
            matrix = place(actor.outline, linear, extent * span, centre)
            box = bounds(apply(matrix, actor.outline))
            hidden = max((covered(box, other) for other in boxes), default=0.0)
            if hidden < least:
                best, least = matrix, hidden
            if hidden < 0.1:
                break
        if best is None:
            raise AssertionError("no attempt was made")
        maps.append(best)
        boxes.append(bounds(apply(best, actor.outline)))
    return maps

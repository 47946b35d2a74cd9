"""Draw a ``Figure`` with the numbers of a ``Recording``; refuse one that is untrue or unreadable."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from figures.chart import Arrow, Figure, Frame, Item, Note, Part, Sign, Stack, Thing
from figures.layout import LayoutError, check_places, check_ways
from figures.recording import TRAINING, Recording, TableError, millions
from figures.scenes import draw_crop, draw_sentence
from figures.svg import INK, QUIET, Canvas, Point, Rect, width_of

WIDTH = 1200
IDEA = "#c2570c"
LANES: dict[str, tuple[str, str, str]] = {
    "read_text": ("#6b4fa0", "#f1edf9", "once per sentence: {work/text}"),
    "init_template": ("#0b7a6f", "#e3f4f1", "once per start: {work/start}"),
    "locate": ("#2563a8", "#e8f1fb", "every frame: {work/frame}"),
    "kept": ("#2563a8", "#e8f1fb", "every frame: {work/frame_kept} (all tokens: {work/frame})"),
    TRAINING: ("#6b7280", "#ffffff", "in training only"),
}
"""By phase: line, area, what the legend says."""
TOKENS = {"template": "#4fae9f", "search": "#6fa6dd", "text": "#a08acf", "class": "#9aa5b1"}
_TITLE, _SMALL, _LINE, _RADIUS = 12.0, 10.5, 15.0, 13.0
_SIDES = {"l": (0.0, 0.5), "r": (1.0, 0.5), "t": (0.5, 0.0), "b": (0.5, 1.0)}


def draw(figure: Figure, seen: Recording) -> str:
    """The figure as the text of an SVG file.

    Raises:
        TableError: the table names a module, a shape or a switch that the running code does not have, or
            leaves out a part of the tracker.
        LayoutError: a text does not fit, or things hide each other.
    """
    return _Drawing(figure, seen).whole()


class _Drawing:
    """One figure on its way.

    Attributes:
        places: of all items. ports: where arrows meet scenes and the bars of stacks.
        words: places of texts outside of items; ``tags`` are those that may lie on an item's edge.
        ways: of the arrows.
        shown: the parameters that have been drawn.
    """

    def __init__(self, figure: Figure, seen: Recording) -> None:
        self.figure, self.seen = figure, seen
        self.canvas = Canvas(WIDTH, figure.height, f"{seen.card.title}: {figure.says}")
        self.places = {name: _place(item) for name, item in figure.items.items()}
        self.ports: dict[str, Rect] = {}
        self.words: list[tuple[str, Rect]] = []
        self.tags: set[str] = set()
        self.ways: list[tuple[str, str, list[Point]]] = []
        self.shown: set[int] = set()

    def whole(self) -> str:
        """Everything, from the back to the front."""
        canvas, figure, seen = self.canvas, self.figure, self.seen
        canvas.rect(Rect(0.5, 0.5, WIDTH - 1, figure.height - 1), fill="#ffffff", stroke="#d5dbe1", radius=12)
        canvas.text((24, 36), seen.card.title, size=20, bold=True)
        self.words.append((figure.says, canvas.text((24, 57), figure.says, size=_TITLE, fill=QUIET)))
        facts = f"base: {millions(seen.running)} parameters when it runs"
        canvas.text((WIDTH - 24, 36), facts, size=_TITLE, bold=True, anchor="end")
        units = "M: million parameters. G: billion multiplications"
        self.words.append((units, canvas.text((WIDTH - 24, 57), units, size=11, fill=QUIET, anchor="end")))
        for frame in figure.frames:
            self._frame(frame)
        for name, item in figure.items.items():
            self._item(name, item)
        for arrow in figure.arrows:
            self._arrow(arrow)
        for note in figure.notes:
            self._note(note)
        self._legend()
        self._check_complete()
        check_places(self.places, self.words, self.tags, Rect(0, 0, WIDTH, figure.height - 26))
        check_ways(self.ways, self.places, self.words)
        return canvas.file()

    # -- items --------------------------------------------------------------------------------------------

    def _item(self, name: str, item: Item) -> None:
        if isinstance(item, Part):
            self._part(item)
        elif isinstance(item, Stack):
            self._stack(name, item)
        elif isinstance(item, Sign):
            stroke = IDEA if item.idea else QUIET
            self.canvas.circle(item.at, _RADIUS, fill="#ffffff", stroke=stroke, thick=2.4 if item.idea else 1.4)
            self.canvas.text((item.at[0], item.at[1] + 6), item.sign, size=17, bold=True, anchor="middle")
            away = _RADIUS + 11
            self._tag(item.idea, (item.at[0], item.at[1] + (away if item.tag_below else -away)))
        else:
            self._thing(name, item)

    def _part(self, part: Part) -> None:
        for name in part.modules:
            self.seen.calls(part.lane, name)
        place = _place(part)
        stroke, fill, _ = LANES[part.lane]
        self.canvas.rect(
            place,
            fill=fill,
            stroke=IDEA if part.idea else stroke,
            thick=2.4 if part.idea else 1.2,
            dash="6 4" if part.lane == TRAINING else "",
        )
        shows = f"{{{part.lane}/{part.modules[0]}}}" if part.shows is None else part.shows
        called = part.called or ", ".join(name.removeprefix("embed.") for name in part.modules)
        small = [called, self._weight(*part.modules), self.seen.say(shows)]
        if part.modules and width_of(" · ".join(small[:2]), _SMALL, "mono") <= place.w - 8:
            small[:2] = [" · ".join(small[:2])]
        room = Rect(place.x, place.y + 2, place.w, place.h - 4)
        self._lines(room, part.title.split("\n"), [line for line in small if line])
        if part.tag:
            self._tag(part.idea, (place.x + place.w / 2, place.y + (place.h if part.tag == "below" else 0)))

    def _stack(self, name: str, stack: Stack) -> None:
        seen, place = self.seen, _place(stack)
        first, last = (seen.number(text) for text in stack.span)
        blocks = [f"{stack.modules}.{i}" for i in range(first, last)]
        stroke, fill, _ = LANES[stack.lane]
        self.canvas.rect(place, fill=fill, stroke=stroke)
        small = [f"{stack.called or stack.modules}.{first} … {last - 1} · {self._weight(*blocks)}", stack.shows]
        small = [seen.say(line) for line in small if line]
        height = _LINE * (1 + len(small)) + 2
        head = Rect(place.x, place.y + (10 if stack.idea else 4), place.w, height)
        top, end = head.y + height + 12, place.y + place.h - 6
        if stack.title_below:
            head = Rect(place.x, end - height, place.w, height)
            top, end = place.y + 18, head.y - 2
        self._lines(head, [stack.title], small)
        special = self._special(stack.marked, last) if stack.marked else ()
        left = place.x + (place.w - stack.pitch * len(blocks)) / 2 + (stack.pitch - stack.bar) / 2
        before: dict[str, int] = {}
        for i, block in enumerate(blocks):
            counts, number = self._tokens(stack, block), first + i + stack.count_from
            bar = Rect(left + i * stack.pitch, top, stack.bar, sum(counts.values()) / stack.scale)
            if bar.y + bar.h > end:
                raise LayoutError(f"the bars of {name!r} are {bar.y + bar.h - end:.0f} pixels too long")
            self._bar(bar, counts, before, stack.scale)
            before, mark = counts, number in special
            if mark:
                self.canvas.rect(bar, stroke=IDEA, thick=2.6, radius=2)
            at, color = (bar.x + bar.w / 2, top - 4), IDEA if mark else QUIET
            self.canvas.text(at, str(number), size=9.5, bold=mark, fill=color, anchor="middle")
            self.ports[f"{name}.{number}"] = bar
        self._tag(stack.idea, (place.x + place.w / 2, place.y))

    def _special(self, field: str, blocks: int) -> range | tuple[int, ...]:
        """The numbers of the blocks that a switch lists."""
        value = self._switch(field)
        special = range(value) if isinstance(value, int) else cast(tuple[int, ...], value)
        if not special or max(special) > blocks:
            raise TableError(f"{field}={value!r} names no blocks of {self.seen.card.name}")
        return special

    def _tokens(self, stack: Stack, block: str) -> dict[str, int]:
        """How many tokens of each kind enter a block."""
        total = self.seen.shape(f"{stack.lane}/{block}/in")[0]
        counts = {kind: self.seen.number(text) if text else 0 for kind, text in stack.tokens}
        rest = [kind for kind, text in stack.tokens if not text]
        if rest:
            counts[rest[0]] = total - sum(counts.values())
        if sum(counts.values()) != total or min(counts.values()) < 1:
            raise TableError(f"{total} tokens enter {block!r} of {self.seen.card.name}, not {counts}")
        return counts

    def _bar(self, bar: Rect, counts: dict[str, int], before: dict[str, int], scale: float) -> None:
        """Kinds of tokens from the top down; a number is written where it is new."""
        top = bar.y
        for kind, count in counts.items():
            height = count / scale
            self.canvas.rect(Rect(bar.x, top, bar.w, height), fill=TOKENS[kind], radius=1)
            if before.get(kind) != count and height >= 10:
                at = (bar.x + bar.w / 2, top + height / 2 + 3)
                self.canvas.text(at, str(count), size=9, bold=True, fill="#0f1c2b", anchor="middle")
            top += height

    def _thing(self, name: str, thing: Thing) -> None:
        x, y, width, height = _place(thing)
        title, shows = ((y + height - 19, _TITLE, True), (y + height - 5, _SMALL, False))
        room = height - 34
        scene = Rect(x, y, width, room)
        if thing.kind == "sentence":
            draw_sentence(self.canvas, scene)
        else:
            model = self.seen.model
            share = 1 / (model.template_factor if thing.kind == "template" else model.search_factor)
            boxes = {"past": max(1, model.history), "box": 1}.get(thing.kind, 0)
            stroke = LANES["init_template" if thing.kind == "template" else "locate"][0]
            scene = Rect(x + (width - room) / 2, y, room, room)
            draw_crop(self.canvas, scene, share, boxes=boxes, stroke=stroke)
        self.ports[name] = scene
        for words, (base, size, bold) in zip((thing.title, thing.shows), (title, shows), strict=True):
            self._fitted((x + width / 2, base), self.seen.say(words), width, size=size, bold=bold)

    def _frame(self, frame: Frame) -> None:
        place = Rect(*frame.at, *frame.size)
        self.canvas.rect(place, stroke=IDEA if frame.idea else QUIET, dash="3 3", thick=1.4)
        took = self.canvas.text((place.x + 9, place.y + 16), frame.title, size=_TITLE, bold=True)
        after = (took.x + took.w + 8, took.y + 0.8 * _TITLE)
        weight = f"{frame.module} · {millions(self.seen.parameters(frame.module))}"
        own = self.canvas.text(after, weight, size=_SMALL, family="mono", fill=QUIET)
        self.words += [(frame.title, took), (f"{frame.title}'s weight", own)]
        self._tag(frame.idea, (place.x + place.w / 2, place.y + place.h))

    # -- words --------------------------------------------------------------------------------------------

    def _lines(self, room: Rect, titles: list[str], small: list[str]) -> None:
        """Titles and smaller lines, in the middle of a room."""
        count = len(titles) + len(small)
        if _LINE * count > room.h - 2:
            raise LayoutError(f"{titles[0]!r} has {count} lines, too many for {room.h:g} pixels")
        base = room.y + (room.h - _LINE * count) / 2 + 11.5
        for i, line in enumerate(titles + small):
            at, title = (room.x + room.w / 2, base + i * _LINE), i < len(titles)
            self._fitted(at, line, room.w - 6, size=_TITLE if title else _SMALL, bold=title)

    def _fitted(self, at: Point, words: str, room: float, *, size: float, bold: bool) -> None:
        family, color = ("sans", INK) if bold else ("mono", QUIET)
        took = self.canvas.text(
            at, words, size=size, family="sans" if bold else "mono", bold=bold, fill=color, anchor="middle"
        )
        if took.w > room:
            raise LayoutError(f"{words!r} takes {took.w:.0f} pixels in {family}, there are {room:g}")

    def _weight(self, *modules: str) -> str:
        """Their parameters, or that these have been drawn before."""
        held = {id(p) for name in modules for p in self.seen.module(name).parameters()}
        again = held <= self.shown
        self.shown |= held
        if not held:
            return ""
        count = millions(self.seen.parameters(*modules))
        return "same weights" if again else f"{count}{', frozen' if self.seen.frozen(*modules) else ''}"

    def _switch(self, name: str) -> object:
        if not hasattr(self.seen.config, name):
            raise TableError(f"{type(self.seen.config).__name__} has no switch {name!r}")
        return getattr(self.seen.config, name)

    def _tag(self, idea: tuple[str, ...], middle: Point) -> None:
        """The switches of an idea, with what they are set to."""
        if not idea:
            return
        words, width = self._setting(idea), self._tag_width(idea)
        place = Rect(middle[0] - width / 2, middle[1] - 8, width, 16)
        self.canvas.rect(place, fill=IDEA, radius=8)
        at = (middle[0], middle[1] + 3.5)
        self.canvas.text(at, words, size=10, family="mono", fill="#ffffff", anchor="middle")
        self.words.append((words, place))
        self.tags.add(words)

    def _setting(self, idea: tuple[str, ...]) -> str:
        return ", ".join(f"{name}={self._switch(name)!r}" for name in idea).replace("'", '"')

    def _tag_width(self, idea: tuple[str, ...]) -> float:
        return round(width_of(self._setting(idea), 10, "mono")) + 12

    def _note(self, note: Note) -> None:
        if note.idea:
            self._tag(note.idea, (note.at[0] + self._tag_width(note.idea) / 2, note.at[1] - 22))
        for i, line in enumerate(self.seen.say(note.words).split("\n")):
            at = (note.at[0], note.at[1] + 14 * i)
            took = self.canvas.text(at, line, size=11, fill=QUIET)
            self.words.append((line, took))

    def _legend(self) -> None:
        x, y = 24.0, self.figure.height - 22.0
        for lane, (stroke, fill, words) in LANES.items():
            if lane in self.figure.lanes:
                dash = "4 3" if lane == TRAINING else ""
                self.canvas.rect(Rect(x, y - 10, 18, 13), fill=fill, stroke=stroke, radius=3, dash=dash)
                x = self._legend_words(x + 24, self.seen.say(words))
        self.canvas.rect(Rect(x, y - 10, 18, 13), fill="#ffffff", stroke=IDEA, thick=2.4, radius=3)
        x = self._legend_words(x + 24, f"idea of the paper, its switch in {type(self.seen.config).__name__}")
        stacks = [item for item in self.figure.items.values() if isinstance(item, Stack)]
        kinds = {kind for stack in stacks for kind, _ in stack.tokens}
        for kind, color in TOKENS.items():
            if kind in kinds:
                self.canvas.rect(Rect(x, y - 9, 11, 11), fill=color, radius=1)
                x = self._legend_words(x + 16, kind, gap=8)
        x = self._legend_words(x, "tokens")
        if x > WIDTH:
            raise LayoutError(f"the legend takes {x:.0f} pixels")

    def _legend_words(self, x: float, words: str, gap: float = 15) -> float:
        took = self.canvas.text((x, self.figure.height - 22), words, size=11)
        return round(x + took.w + gap)

    # -- arrows -------------------------------------------------------------------------------------------

    def _port(self, text: str) -> tuple[Point, str]:
        """``NAME:SIDE+PIXELS`` -> the point, and whether it leads out ``h`` or ``v``."""
        name, _, port = text.partition(":")
        place = self.ports.get(name) or self.places.get(name)
        if place is None or port[:1] not in _SIDES:
            raise TableError(f"no port {text!r} in the figure of {self.seen.card.name}")
        (across, down), away = _SIDES[port[0]], float(port[1:] or 0)
        x, y = place.x + across * place.w, place.y + down * place.h
        return ((x, y + away), "h") if port[0] in "lr" else ((x + away, y), "v")

    def _arrow(self, arrow: Arrow) -> None:
        (start, out), (end, into) = self._port(arrow.start), self._port(arrow.end)
        points = [start, *arrow.via, end]
        if not arrow.via and out != into:
            points = [start, (end[0], start[1]) if out == "h" else (start[0], end[1]), end]
        elif not arrow.via and out == "h" and start[1] != end[1]:
            bend = (start[0] + end[0]) / 2 if arrow.bend is None else arrow.bend
            points = [start, (bend, start[1]), (bend, end[1]), end]
        elif not arrow.via and out == "v" and start[0] != end[0]:
            bend = (start[1] + end[1]) / 2 if arrow.bend is None else arrow.bend
            points = [start, (start[0], bend), (end[0], bend), end]
        if any(a[0] != b[0] and a[1] != b[1] for a, b in pairwise(points)):
            raise LayoutError(f"{arrow.start} > {arrow.end} is slanted: {points}")
        color = LANES[_ARROWS[arrow.kind]][0] if arrow.kind else QUIET
        self.canvas.arrow(points, color=color, dash="5 4" if arrow.dashed else "")
        self.ways.append((arrow.start, arrow.end, points))
        if arrow.label:
            longest = max(pairwise(points), key=lambda p: abs(p[0][0] - p[1][0]) + abs(p[0][1] - p[1][1]))
            middle = ((longest[0][0] + longest[1][0]) / 2, (longest[0][1] + longest[1][1]) / 2 - 6)
            at = arrow.label_at or middle
            for i, line in enumerate(self.seen.say(arrow.label).split("\n")):
                where = (at[0], at[1] + 13 * i)
                took = self.canvas.text(where, line, size=10.5, fill=color, anchor="middle")
                self.words.append((line, took))

    # -- what must hold -----------------------------------------------------------------------------------

    def _check_complete(self) -> None:
        """Every module with parameters is in the figure."""
        for frame in self.figure.frames:
            self._weight(frame.module)
        left = {
            name.split(".")[0]
            for name, parameter in self.seen.model.named_parameters()
            if "." in name and id(parameter) not in self.shown
        }
        if left:
            raise TableError(f"the figure of {self.seen.card.name} leaves out {', '.join(sorted(left))}")


_ARROWS = {"text": "read_text", "template": "init_template", "search": "locate"}


def _place(item: Item) -> Rect:
    if isinstance(item, Sign):
        return Rect(item.at[0] - _RADIUS, item.at[1] - _RADIUS, 2 * _RADIUS, 2 * _RADIUS)
    return Rect(*item.at, *item.size)

"""Small drawings of what goes in and out: a sentence, a crop with its target, boxes. Knows no tracker."""

from __future__ import annotations

from figures.svg import Canvas, Point, Rect

_SKY, _GROUND, _CAR, _GLASS, _WHEEL, BOX = "#dce7f1", "#cbd3c4", "#7b8794", "#eef3f8", "#323f4b", "#d92d20"
SENTENCE = ("“the silver car", "on the road”")


def draw_sentence(canvas: Canvas, place: Rect) -> None:
    """Two lines in a bubble."""
    canvas.rect(place, fill="#ffffff", stroke="#6b4fa0", radius=10)
    for i, line in enumerate(SENTENCE):
        middle = (place.x + place.w / 2, place.y + place.h / 2 - 3 + 15 * i)
        canvas.text(middle, line, size=11.5, anchor="middle")


def draw_crop(canvas: Canvas, place: Rect, share: float, *, boxes: int, stroke: str) -> None:
    """A car whose box is ``share`` of the crop's side, in the last of ``boxes`` boxes."""
    canvas.rect(place, fill=_SKY, stroke=stroke, radius=4)
    horizon = place.y + place.h * 0.56
    canvas.rect(Rect(place.x + 1, horizon, place.w - 2, place.y + place.h - horizon - 1), fill=_GROUND, radius=3)
    side = place.w * share
    middle = (place.x + place.w / 2, place.y + place.h / 2)
    _car(canvas, middle, side)
    for i in range(boxes):
        away = (boxes - 1 - i) * place.w * 0.06
        box = Rect(middle[0] - side / 2 - away, middle[1] - side / 2 - away / 3, side, side)
        canvas.rect(box, stroke=BOX if i == boxes - 1 else "#e59a93", thick=1.8, radius=1.5)


def _car(canvas: Canvas, middle: Point, side: float) -> None:
    x, y, unit = middle[0] - side / 2, middle[1] - side / 2, side / 20
    roof = ((4.5, 9), (7, 5), (13, 5), (16, 9))
    canvas.polygon([(x + a * unit, y + b * unit) for a, b in roof], fill=_GLASS)
    canvas.rect(Rect(x + 1.5 * unit, y + 9 * unit, 17 * unit, 5 * unit), fill=_CAR, radius=1.5 * unit)
    for wheel in (6, 14):
        canvas.circle((x + wheel * unit, y + 14.3 * unit), 2 * unit, fill=_WHEEL, stroke="none")

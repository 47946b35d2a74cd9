"""Boxes and labels on frames: in place, in their color, inside the image, and not on the original."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.types import Image, Status, Step
from vltrack.plots.draw import DARK, GRAY, TARGET_COLORS, draw_labels, draw_steps, rectangle
from vltrack.plots.text import shortened, width_of

GREEN, AMBER, BLUE = TARGET_COLORS[:3]


def has(image: Image, color: tuple[int, int, int]) -> np.ndarray:
    """(H, W) where the image has nearly this color."""
    return np.abs(image.astype(int) - color).max(axis=2) < 40


def step(box=(20, 30, 40, 50), visible: bool = True, score: float = 0.8) -> Step:
    status = Status.OK if visible else Status.LOST
    return Step(box=np.array(box, float), score=score, visible=visible, index=0, seconds=0.0, status=status)


def black(width: int = 320, height: int = 240) -> Image:
    return np.zeros((height, width, 3), np.uint8)


def test_a_box_is_drawn_on_its_sides_and_not_on_the_original() -> None:
    image = np.full((240, 320, 3), 128, np.uint8)
    image.flags.writeable = False
    drawn = draw_steps(image, [step((100, 80, 60, 90))])
    assert (image == 128).all()
    green = has(drawn, GREEN)
    ys, xs = np.nonzero(green[80:])
    assert (xs.min(), xs.max(), ys.max() + 80) == pytest.approx((100, 160, 170), abs=2)
    assert green[80, 100:160].all()
    assert green[80:170, 160].all()
    assert (drawn[90:160, 110:150] == 128).all()


def test_a_lost_target_is_gray_dashed_and_marked() -> None:
    seen, lost = (draw_steps(black(), [step((100, 80, 100, 90), v, 0.1)], ["dog"]) for v in (True, False))
    assert has(seen, GREEN).any()
    assert not has(lost, GREEN).any()
    side = has(lost, GRAY)[85:165, 100]
    assert 0 < side.sum() < side.size
    assert has(lost, GRAY)[:78].sum() > has(seen, GREEN)[:78].sum()  # the plate also holds the word


@pytest.mark.parametrize("box", [(-30, -30, 80, 60), (290, 200, 80, 80), (0, 0, 320, 240), (250, 0, 60, 20)])
def test_the_plate_stays_inside(box) -> None:
    drawn = draw_steps(black(), [step(box)], ["the dog " * 30])
    assert has(drawn, GREEN).sum() > 1000


@settings(max_examples=60, deadline=None)
@given(
    box=st.tuples(st.floats(-1e7, 1e7), st.floats(-1e7, 1e7), st.floats(1e-3, 1e7), st.floats(1e-3, 1e7)),
    visible=st.booleans(),
    label=st.text(max_size=40),
    height=st.integers(1, 200),
    width=st.integers(1, 200),
)
def test_any_box_label_and_image(box, visible, label, height, width) -> None:
    image = black(width, height)
    assert draw_steps(image, [step(box, visible)], [label]).shape == image.shape


def test_lines_grow_with_the_image() -> None:
    widths = []
    for width in (320, 960, 1600):
        image = black(width, width // 2)
        rectangle(image, (width // 4, width // 8, width // 4, width // 4), GREEN)
        widths.append(has(image, GREEN)[width // 4, : 3 * width // 8].sum())
        assert has(image, DARK)[width // 4].any()
    assert widths[0] < widths[1] < widths[2]


def test_several_targets_have_several_colors() -> None:
    assert len(set(TARGET_COLORS)) == len(TARGET_COLORS)
    steps = [step(), step((150, 100, 60, 60)), step((250, 20, 30, 30), visible=False)]
    drawn = draw_steps(black(), steps, ["a", "b"])
    assert [bool(has(drawn, color).any()) for color in (GREEN, AMBER, BLUE, GRAY)] == [True, True, False, True]
    many = draw_steps(black(), [step()] * (len(TARGET_COLORS) + 1))  # the last one is on top
    assert has(many, GREEN).any()


@pytest.mark.fault("P07")
def test_control_characters_of_labels_are_escaped() -> None:
    assert shortened("\x1b[31m dog", 12, 300).startswith("\\x1b")
    plain, hostile = (draw_steps(black(), [step()], [label]) for label in ("\\x1b[31m dog", "\x1b[31m dog"))
    assert (hostile == plain).all()


@pytest.mark.parametrize("box", [(100, 80, 60, 70), (0, 0, 320, 240), (0, 0, 30, 20)])
def test_labels_of_boxes_that_coincide_do_not_hide_each_other(box) -> None:
    box = np.array(box, float)
    alone = [
        (draw_labels(image := black(), [("cup", box, color)]), has(image, color).sum())[1] for color in TARGET_COLORS
    ]
    together = black()
    draw_labels(together, [("cup", box, color) for color in TARGET_COLORS])
    seen = [has(together, color).sum() for color in TARGET_COLORS]
    assert all(now >= before for now, before in zip(seen, alone, strict=True))


def test_a_label_keeps_off_the_box_of_another() -> None:
    drawn = black()
    green, amber = np.array([150.0, 100.0, 40.0, 60.0]), np.array([150.0, 40.0, 30.0, 58.0])  # one above the other
    draw_labels(drawn, [("the cup", green, GREEN), ("the dog", amber, AMBER)])
    assert has(drawn, GREEN).any()
    assert not has(drawn, GREEN)[42:96, 152:178].any()


def test_words_are_apart() -> None:
    assert width_of("red cup", 11) >= width_of("red", 11) + width_of("cup", 11) + 3

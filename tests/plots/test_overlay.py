"""What is drawn is where it should be, in its color, and never outside or onto the original."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.track import Track
from vltrack.core.types import Frame, Status, Step
from vltrack.plots import draw as pen
from vltrack.plots.draw import draw_step, draw_steps, draw_tracks

RED = (255, 0, 0)


def has(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """(H, W) where the picture has nearly this color."""
    return np.abs(picture.astype(int) - color).max(axis=2) < 40


def step(index: int, box=(20, 30, 40, 50), visible: bool = True) -> Step:
    status = Status.OK if visible else Status.LOST
    return Step(
        box=np.array(box, float), score=0.8, visible=visible, index=index, seconds=index / 25, status=status
    )


def test_a_box_is_drawn_on_its_sides_in_its_colour() -> None:
    image = np.full((240, 320, 3), 128, np.uint8)
    image.flags.writeable = False
    picture = draw_step(image, (100, 80, 60, 90), None, "", RED)
    assert (image == 128).all()
    red = has(picture, RED)
    ys, xs = np.nonzero(red)
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == pytest.approx((100, 160, 80, 170), abs=2)
    assert red[80, 100:160].all()
    assert red[80:170, 160].all()
    assert not red[90:160, 110:150].any()
    assert (picture[90:160, 110:150] == 128).all()


def test_a_lost_target_is_grey_dashed_and_says_lost() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    seen = draw_step(image, (100, 80, 100, 90), 0.1, "dog", RED)
    lost = draw_step(image, (100, 80, 100, 90), 0.1, "dog", RED, visible=False)
    assert has(seen, RED).any()
    assert not has(lost, RED).any()
    side = has(lost, pen.GREY)[85:165, 100]
    assert side.any()
    assert not side.all()
    plates = [has(seen, RED)[:78].sum(), has(lost, pen.GREY)[:78].sum()]
    assert plates[1] > plates[0]  # the plate is wider by the word


def test_the_plate_stays_inside_and_the_score_on_it() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    for box in ((-30, -30, 80, 60), (290, 200, 80, 80), (0, 0, 320, 240), (250, 0, 60, 20)):
        picture = draw_step(image, box, 0.5, "the dog " * 30, RED)
        assert has(picture, RED).sum() > 1000  # a plate of some size is to be seen


@settings(max_examples=60, deadline=None)
@given(
    box=st.tuples(st.floats(-1e7, 1e7), st.floats(-1e7, 1e7), st.floats(1e-3, 1e7), st.floats(1e-3, 1e7)),
    visible=st.booleans(),
    label=st.text(max_size=40),
    height=st.integers(1, 200),
    width=st.integers(1, 200),
)
def test_any_box_any_label_any_picture(box, visible, label, height, width) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    assert draw_step(image, box, 0.5, label, visible=visible).shape == image.shape


def test_lines_grow_with_the_picture() -> None:
    widths = []
    for width in (320, 960, 1600):
        image = np.zeros((width // 2, width, 3), np.uint8)
        quarter = width // 4
        picture = draw_step(image, (quarter, quarter // 2, quarter, quarter), None, "", RED)
        widths.append(has(picture, RED)[quarter, : width // 2 - quarter // 2].sum())
    assert widths[0] < widths[1] < widths[2]


def test_several_targets_have_several_colours() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    picture = draw_steps(
        image, [step(0), step(0, (150, 100, 60, 60)), step(0, (250, 20, 30, 30), False)], ["a", "b"]
    )
    assert has(picture, pen.target_color(0)).any()
    assert has(picture, pen.target_color(1)).any()
    assert not has(picture, pen.target_color(2)).any()
    assert has(picture, pen.GREY).any()
    assert len(set(pen.PALETTE)) == len(pen.PALETTE)
    assert pen.target_color(len(pen.PALETTE)) == pen.target_color(0)


def test_a_track_draws_itself_on_its_frames() -> None:
    frames = [Frame(image=np.full((100, 120, 3), 9, np.uint8), index=i, seconds=i / 25) for i in range(5)]
    frames[3] = Frame(image=None, index=3, seconds=3 / 25)
    track = Track.from_steps([step(i, (20, 40, 30, 30)) for i in (1, 2, 3)], {"sentence": "the dog"})
    pictures = list(draw_tracks(frames, [track]))
    assert len(pictures) == 4
    assert [bool(has(picture, pen.PALETTE[0]).any()) for picture in pictures] == [False, True, True, False]


@pytest.mark.fault("P07")
def test_labels_are_shown_not_obeyed() -> None:
    image = np.zeros((60, 300, 3), np.uint8)
    assert pen.fitted("\x1b[31m dog", 0.4, 1, 300).startswith("\\x1b")
    plain = draw_step(image, (20, 30, 30, 20), None, "\\x1b[31m dog")
    assert (draw_step(image, (20, 30, 30, 20), None, "\x1b[31m dog") == plain).all()

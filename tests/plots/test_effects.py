"""Effects of annotated videos, and GIF."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from vltrack.core.errors import ResourceError
from vltrack.core.types import Status, Step
from vltrack.plots.effects import Effects
from vltrack.video.gif import LONGEST_SIDE, GifWriter

BOX = np.array([40.0, 30, 40, 30])


def scene() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 200, 3)).astype(np.uint8)


def step(index: int = 0, *, visible: bool = True, move: float = 0, status: Status | None = None) -> Step:
    state = status or (Status.OK if visible else Status.LOST)
    box = BOX + np.array([move, 0, 0, 0])
    return Step(box=box, score=float(visible), visible=visible, index=index, seconds=index / 25, status=state)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(4,) the smallest box x, y, right, bottom around all pixels that differ."""
    rows, columns = np.nonzero((before != after).any(axis=2))
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("visible", [True, False])
def test_blur_hides_the_target_and_nothing_else(visible: bool) -> None:
    image = scene()
    drawn = Effects(["blur"], ["a"]).draw(image, [step(visible=visible)])
    np.testing.assert_allclose(changed(image, drawn), [38, 28, 82, 62], atol=1)
    assert drawn[30:60, 40:80].astype(float).std() < image[30:60, 40:80].astype(float).std() / 4
    waiting = Effects(["blur"], ["a"]).draw(image, [step(visible=False, status=Status.WAITING)])
    np.testing.assert_array_equal(waiting, image)


def test_blur_at_the_edge_and_outside() -> None:
    image = scene()
    for box in ([-30, -30, 40, 40], [190, 110, 40, 40], [300, 300, 20, 20], [-500, 0, 2000, 2000]):
        one = Step(box=np.array(box, dtype=float), score=1.0, visible=True, index=0, seconds=0.0)
        assert Effects(["blur"], ["a"]).draw(image, [one]).shape == image.shape


def test_a_trail_is_drawn_behind_the_target_but_not_across_an_absence() -> None:
    image = np.full((120, 200, 3), 90, dtype=np.uint8)
    plain, trail = Effects([], ["a"]), Effects(["trail"], ["a"])
    found = {}
    for index in range(40):
        now = step(index, visible=not 12 <= index < 30, move=2.0 * index)
        found[index] = (plain.draw(image, [now]), trail.draw(image, [now]))
    np.testing.assert_array_equal(*found[0])
    left, _, right, _ = changed(*found[11])
    assert left <= 61 and 80 <= right <= 86  # from the first center to the present one
    apart = (found[39][0] != found[39][1]).any(axis=(0, 2))
    assert apart[66:78].any() and not apart[88:116].any() and apart[122:].any()


def test_the_view_follows_the_target() -> None:
    image = np.zeros((120, 200, 3), dtype=np.uint8)
    image[30:60, 40:80] = 255
    crop = Effects(["crop"], [""])
    for index in range(3):
        drawn = crop.draw(image, [step(index)])
    assert drawn.shape == image.shape
    assert 1.7 < (drawn > 128).all(axis=2).sum() / (image > 128).all(axis=2).sum() < 5
    lost = crop.draw(image, [step(3, visible=False, move=90)])
    assert (lost > 128).all(axis=2).sum() > 1.7 * (image > 128).all(axis=2).sum()  # the view stays
    assert Effects(["crop"], [""]).draw(image, [step(visible=False)]).shape == image.shape


def test_gif(tmp_path: Path) -> None:
    path, image = tmp_path / "a.gif", np.zeros((300, 960, 3), dtype=np.uint8)
    with GifWriter(path, width=960, height=300) as writer:
        for index in range(25):
            image[:, : 30 * index] = (200, 30, 40)
            writer.write(image, 3 + index / 25)
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
    assert (frames[0].width, frames[0].height) == (LONGEST_SIDE, 150)
    assert 12 <= len(frames) <= 13
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(len(frames)) * 0.08, atol=0.011)
    np.testing.assert_allclose(frames[-1].to_ndarray(format="rgb24")[75, 100], (200, 30, 40), atol=8)


def test_a_gif_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), GifWriter(tmp_path / "a.gif", width=20, height=20) as writer:
        writer.write(np.zeros((20, 20, 3), dtype=np.uint8), 0.0)
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with pytest.raises(ResourceError), GifWriter(tmp_path / "no" / "a.gif", width=20, height=20):
        pass

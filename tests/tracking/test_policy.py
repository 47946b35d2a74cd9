"""The policy's arithmetic: what is chosen, how sizes move, which options are known. No numbers of taste."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vltrack.core.errors import ConfigError
from vltrack.tracking.postprocess import Choice, Maps, Policy, choose, hann, smooth_size

SIZE = np.array([0.25, 0.25])


def maps(**peaks: float) -> Maps:
    """(5, 5) maps whose named cells, for example r2c3, hold a probability; all boxes are of ``SIZE``."""
    center = np.zeros((5, 5))
    for name, value in peaks.items():
        center[int(name[1]), int(name[3])] = value
    boxes = np.tile(np.array([0.5, 0.5, *SIZE]), (5, 5, 1))
    rows, columns = np.mgrid[:5, :5]
    boxes[..., 0], boxes[..., 1] = (columns + 0.5) / 5, (rows + 0.5) / 5
    return Maps(center=center, presence=np.ones((5, 5)), boxes=boxes)


def test_the_likeliest_cell_is_chosen_without_window_and_penalty() -> None:
    choice = choose(maps(r0c4=0.9, r2c2=0.8), SIZE, Policy(penalty=0.0), window=0.0)
    assert choice is not None
    np.testing.assert_allclose(choice.box, [0.9, 0.1, *SIZE])
    assert choice.score == pytest.approx(0.9)


def test_the_window_favours_small_motion() -> None:
    seen = maps(r0c4=0.9, r2c2=0.8)
    near = choose(seen, SIZE, Policy(), window=0.5)
    assert near is not None
    np.testing.assert_allclose(near.box[:2], [0.5, 0.5])


def test_the_penalty_favours_the_size_that_was() -> None:
    seen = maps(r2c1=0.85, r2c3=0.8)
    seen.boxes[2, 1, 2:] = 0.9
    large = choose(seen, SIZE, Policy(penalty=0.0), window=0.0)
    same = choose(seen, SIZE, Policy(penalty=0.3), window=0.0)
    assert large is not None
    assert same is not None
    assert large.box[2] == 0.9
    assert same.box[2] == 0.25
    assert same.size_penalty == pytest.approx(1.0)


def test_presence_outvotes_a_distractor() -> None:
    seen = maps(r2c1=0.9, r2c3=0.8)
    seen.presence[2, 1] = 0.1
    choice = choose(seen, SIZE, Policy(), window=0.0)
    assert choice is not None
    assert choice.box[0] == pytest.approx(0.7)


@pytest.mark.parametrize("side", [1, 2, 14, 16])
def test_the_window_has_no_zero_rim_and_its_peak_in_the_middle(side: int) -> None:
    window = hann(side)
    assert window.shape == (side, side)
    assert (window > 0).all()
    np.testing.assert_allclose(window, window[::-1, ::-1])
    with pytest.raises(ValueError, match="read-only"):
        window[0, 0] = 2.0


wild = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=100, deadline=None)
@given(
    center=hnp.arrays(np.float64, (3, 3), elements=wild),
    presence=hnp.arrays(np.float64, (3, 3), elements=wild),
    boxes=hnp.arrays(np.float64, (3, 3, 4), elements=wild),
    size=st.tuples(st.floats(1e-6, 100), st.floats(1e-6, 100)) | st.none(),
    penalty=st.floats(0, 5),
)
def test_whatever_the_maps_hold_a_choice_is_usable(center, presence, boxes, size, penalty) -> None:
    policy = Policy(penalty=penalty)
    last = np.array(size) if size is not None else None
    choice = choose(Maps(center=center, presence=presence, boxes=boxes), last, policy, window=0.35)
    if choice is None:
        return
    assert np.isfinite(choice.box).all()
    assert (choice.box[2:] > 0).all()
    assert 0 <= choice.score <= 1
    assert 0 <= choice.size_penalty <= 1


@given(
    old=st.tuples(st.floats(1, 1e4), st.floats(1, 1e4)),
    new=st.tuples(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6)),
    score=st.floats(0, 1),
    size_penalty=st.floats(0, 1),
)
def test_a_size_moves_towards_the_new_one_and_never_past_it(old, new, score, size_penalty) -> None:
    choice = Choice(box=np.zeros(4), score=score, size_penalty=size_penalty)
    blended = smooth_size(np.array(old), np.array(new), choice, Policy())
    assert (blended >= np.minimum(old, new) - 1e-9).all()
    assert (blended <= np.maximum(old, new) * (1 + 1e-12)).all()
    if score == 0:
        np.testing.assert_allclose(blended, old)


def test_options_are_checked_and_misspellings_named() -> None:
    changed = Policy().changed({"window": "0.2", "refresh_every": 5})
    assert (changed.window, changed.refresh_every) == (0.2, 5)
    with pytest.raises(ConfigError, match="window"):
        Policy().changed({"windw": 0.2})
    with pytest.raises(ConfigError, match="lost_below"):
        Policy(lost_below=1.5)
    with pytest.raises(ConfigError, match="smooth"):
        Policy(smooth=-0.1)
    with pytest.raises(ConfigError, match="wide"):
        Policy().changed({"window": "wide"})


def test_changing_options_leaves_the_callers_dict_alone() -> None:
    asked = {"window": "0.2"}
    Policy().changed(asked)
    assert asked == {"window": "0.2"}


@pytest.mark.parametrize("value", ["no", "false", "0"])
def test_a_switch_can_be_turned_off_by_its_name(value: str) -> None:
    assert Policy().changed({"refresh_template": value}).refresh_template is False


@pytest.mark.parametrize(
    "bad",
    [
        {"margin": -1},
        {"refresh_every": "-1"},
        {"window": float("nan")},
        {"grow": "inf"},
        {"refresh_every": 1.5},
    ],
)
def test_options_out_of_range_are_refused(bad) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Policy().changed(bad)

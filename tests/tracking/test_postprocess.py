"""Post-processing: the chosen box, how sizes move, the options; our defaults and the published rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scripted import Spotter, scene, tracker
from vltrack.core.errors import ConfigError
from vltrack.models import MODELS, PUBLISHED
from vltrack.tracking.postprocess import Choice, Maps, Policy, choose, default_policy, hann, rivals_in, smooth_size

SIZE = np.array([0.25, 0.25])
RULES = Policy().changed(PUBLISHED)


def maps(peaks: dict[tuple[int, int], float], side: int = 5, floor: float = 0.0) -> Maps:
    """Maps whose cells (row, column) in ``peaks`` hold a probability; all boxes are of ``SIZE``."""
    center = np.full((side, side), floor)
    for cell, value in peaks.items():
        center[cell] = value
    boxes = np.tile(np.array([0.0, 0.0, *SIZE]), (side, side, 1))
    boxes[..., :2] = (np.indices((side, side))[::-1].transpose(1, 2, 0) + 0.5) / side
    return Maps(center=center, presence=np.ones((side, side)), boxes=boxes)


def chosen(*args, **options) -> Choice:
    choice = choose(*args, **options)
    assert choice is not None
    return choice


def test_the_likeliest_cell_is_chosen_without_window_and_penalty() -> None:
    choice = chosen(maps({(0, 4): 0.9, (2, 2): 0.8}), SIZE, Policy(penalty=0.0), window=0.0)
    np.testing.assert_allclose(choice.box, [0.9, 0.1, *SIZE])
    assert choice.score == pytest.approx(0.9)


def test_the_window_favors_small_motion() -> None:
    near = chosen(maps({(0, 4): 0.9, (2, 2): 0.8}), SIZE, Policy(), window=0.5)
    np.testing.assert_allclose(near.box[:2], [0.5, 0.5])


def test_the_penalty_favors_the_former_size() -> None:
    seen = maps({(2, 1): 0.85, (2, 3): 0.8})
    seen.boxes[2, 1, 2:] = 0.9
    large, same = (chosen(seen, SIZE, Policy(penalty=p), window=0.0) for p in (0.0, 0.3))
    assert (large.box[2], same.box[2]) == (0.9, 0.25)
    assert same.size_penalty == pytest.approx(1.0)


def test_presence_outweighs_a_distractor() -> None:
    seen = maps({(2, 1): 0.9, (2, 3): 0.8})
    seen.presence[2, 1] = 0.1
    assert chosen(seen, SIZE, Policy(), window=0.0).box[0] == pytest.approx(0.7)


@pytest.mark.parametrize("side", [1, 2, 14, 16])
def test_the_window_has_its_peak_in_the_middle_and_cannot_be_changed(side: int) -> None:
    window = hann(side)
    assert window.shape == (side, side)
    assert (window > 0).all()
    np.testing.assert_allclose(window, window[::-1, ::-1])
    with pytest.raises(ValueError, match="read-only"):
        window[0, 0] = 2.0


def test_windows_are_those_of_the_two_families() -> None:
    line = [0.5 * (1 - np.cos(2 * np.pi * k / 9)) for k in range(1, 9)]  # OSTrack: zeros beyond the map
    assert np.allclose(hann(8), np.outer(line, line))
    assert np.allclose(hann(8, rims=True), np.outer(np.hanning(8), np.hanning(8)))  # UVLTrack: zeros in it


@pytest.mark.parametrize(
    ("cell", "score", "rival"), [((0, 4), 0.5, True), ((0, 4), 0.4, False), ((2, 3), 0.85, False), (None, 0.0, False)]
)
def test_a_rival_scores_over_half_as_much_elsewhere(cell, score, rival) -> None:
    seen = maps({(2, 2): 0.9} | ({cell: score} if cell else {}))
    seen.boxes[2, 3, 0] = 0.6  # overlaps the best by 0.43
    best = choose(seen, None, Policy(), window=0)
    assert [one.score for one in rivals_in(seen, best, Policy())] == ([score] if rival else [])


wild = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=100, deadline=None)
@given(
    center=hnp.arrays(np.float64, (3, 3), elements=wild),
    presence=hnp.arrays(np.float64, (3, 3), elements=wild),
    boxes=hnp.arrays(np.float64, (3, 3, 4), elements=wild),
    size=st.tuples(st.floats(1e-6, 100), st.floats(1e-6, 100)) | st.none(),
    penalty=st.floats(0, 5),
)
def test_a_choice_is_usable_for_any_maps(center, presence, boxes, size, penalty) -> None:
    last = np.array(size) if size is not None else None
    seen = Maps(center=center, presence=presence, boxes=boxes)
    choice = choose(seen, last, Policy(penalty=penalty), window=0.35)
    rivals_in(seen, choice, Policy())
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
    penalty=st.floats(0, 1),
)
def test_a_size_moves_towards_the_new_one_and_never_past_it(old, new, score, penalty) -> None:
    choice = Choice(box=np.zeros(4), score=score, size_penalty=penalty)
    smoothed = smooth_size(np.array(old), np.array(new), choice, Policy())
    assert (smoothed >= np.minimum(old, new) - 1e-9).all()
    assert (smoothed <= np.maximum(old, new) * (1 + 1e-12)).all()
    if score == 0:
        np.testing.assert_allclose(smoothed, old)


# -- options ------------------------------------------------------------------------------------------


def test_options_are_read_from_text_and_the_callers_dict_stays() -> None:
    asked = {"window": "0.2", "refresh_every": 5}
    changed = Policy().changed(asked)
    assert (changed.window, changed.refresh_every) == (0.2, 5)
    assert not any(Policy().changed({"refresh_template": word}).refresh_template for word in ("no", "false", "0"))
    assert asked == {"window": "0.2", "refresh_every": 5}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"windw": 0.2}, "window"),
        ({"window_rim": True}, "window_rims"),
        ({"window": "wide"}, "'wide'"),
        ({"window": float("nan")}, "window"),
        ({"lost_below": 1.5}, "1.5"),
        ({"smooth": -0.1}, "-0.1"),
        ({"margin": -1}, "margin"),
        ({"refresh_every": "-1"}, "refresh_every"),
        ({"refresh_every": 1.5}, "1.5"),
        ({"grow": "inf"}, "grow"),
    ],
)
def test_wrong_options_are_refused_by_name(options, named) -> None:
    with pytest.raises(ConfigError, match=named):
        Policy().changed(options)


def test_every_policy_of_the_registry_is_valid() -> None:
    for card in MODELS.values():
        assert set(card.policies) <= set(card.sizes)
        for size in card.sizes:
            assert isinstance(default_policy(card.name, size), Policy)
    assert default_policy("litetrack", "uvltrack-base").window_rims
    assert default_policy("litetrack", "tiny").changed({"visible_above": 0.3, "visible_smooth": 1}) == Policy()


# -- the published rules ------------------------------------------------------------------------------


def test_scores_are_multiplied_by_the_window() -> None:
    seen = maps({(3, 3): 0.3, (0, 0): 0.9, (3, 0): 0.6}, side=8, floor=1e-4)
    picked = chosen(seen, SIZE, RULES, window=RULES.window)
    best = np.unravel_index((seen.center * hann(8)).argmax(), (8, 8))
    assert tuple(best) == (3, 3)  # a sum with a weak window would take the corner
    assert np.allclose(picked.box, seen.boxes[best])
    assert picked.score == pytest.approx(0.3)
    assert chosen(seen, None, RULES, window=0).score == pytest.approx(0.9)


def test_a_new_size_is_taken_at_once() -> None:
    picked = chosen(maps({(3, 3): 0.2}), None, RULES, window=0)
    old, new = np.array([10.0, 10.0]), np.array([20.0, 30.0])
    assert np.array_equal(smooth_size(old, new, picked, RULES), new)
    assert not np.array_equal(smooth_size(old, new, picked, Policy()), new)


def test_a_target_that_leaves_is_followed_by_both_rules() -> None:
    published, ours = tracker(Spotter(), **PUBLISHED), tracker(Spotter(), smooth=1.0, penalty=0.0)
    for following in (published, ours):
        following.init(scene((70, 40, 16, 12)), box=(70, 40, 16, 12))
        assert following.update(scene((74, 42, 16, 12))).box[0] == pytest.approx(74, abs=1.5)

"""Faults V13, B04-B11, P10 and P12 (docs/faults.md) in the tracker."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import vltrack
from scripted import Puppet, Spotter, clip, one_box, scene, tiny_weights, tracker
from vltrack.api.inputs import demo_clip
from vltrack.core.errors import BoxFrameOutOfRange, GroundingFailed, StateError
from vltrack.core.types import Frame, Status, Step
from vltrack.nn.boxes import box_mask
from vltrack.tracking.postprocess import Policy
from vltrack.tracking.tracker import Tracker
from vltrack.video.source import open_source

RED = (40, 30, 16, 12)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def loaded(weights):
    return Tracker.load(weights, policy={"own_grounding": True})


def assert_sound(step: Step, width: int, height: int, margin: float = 10.0) -> None:
    """Finite, of a size, and at least ``margin`` pixels (half of a smaller box) of it in the frame."""
    x, y, w, h = step.box
    assert np.isfinite(step.box).all()
    assert 1 <= w <= max(1, width) + 1e-6
    assert 1 <= h <= max(1, height) + 1e-6
    assert min(x + w, width) - max(x, 0) >= min(margin, w / 2, width) - 1e-6
    assert min(y + h, height) - max(y, 0) >= min(margin, h / 2, height) - 1e-6
    assert 0 <= step.score <= 1


# -- V13: the frame changes its size --------------------------------------------------------------


@pytest.mark.fault("V13")
@pytest.mark.parametrize(("size", "factor"), [((192, 144), 2.0), ((48, 36), 0.5)])
def test_the_box_keeps_its_place_when_the_frame_changes_its_size(size, factor) -> None:
    following = tracker(Spotter(), smooth=1.0)
    following.init(scene(RED), box=RED)
    assert not following.update(scene(RED)).extras["resized"]
    other = cv2.resize(scene(RED), size, interpolation=cv2.INTER_NEAREST)
    step = following.update(other)
    np.testing.assert_allclose(step.box, np.array(RED) * factor, atol=1.5)
    assert step.extras["resized"]
    assert step.visible
    assert not following.update(other).extras["resized"]


@pytest.mark.fault("V13")
def test_a_lost_targets_box_keeps_its_place_too() -> None:
    following = tracker(Spotter())
    following.init(scene(RED), box=RED)
    step = following.update(scene(size=(480, 72)))
    np.testing.assert_allclose(step.box, np.array(RED) * (5, 1, 5, 1))
    for size in [(1, 1), (3000, 2), (2, 900), (96, 72)]:
        assert_sound(following.update(scene(size=size)), *size)


@pytest.mark.fault("V13")
def test_the_network_always_gets_one_shape(loaded) -> None:
    following = loaded.with_policy(Policy())
    following.init(clip(1, (160, 120))[0], box=(40, 30, 40, 40))
    for size in [(64, 200), (320, 40)]:
        assert_sound(following.update(clip(1, size)[0]), *size)


# -- B04-B07: where the box may lie ---------------------------------------------------------------


@pytest.mark.fault("B04")
def test_a_box_over_the_edge_is_cut_with_a_warning(weights) -> None:
    following = tracker(Spotter())
    step = following.init(scene((0, 10, 12, 12)), box=(-8.0, 10.0, 20.0, 12.0))
    assert step.box.tolist() == [0, 10, 12, 12]
    assert len(following.warnings) == 1
    assert "part inside" in following.warnings[0]
    done = vltrack.track(clip(2), box=(-8, 10, 40, 12), model=weights)
    assert done.meta["box"] == [-8, 10, 40, 12]
    assert done.boxes[0].tolist() == [0, 10, 32, 12]
    assert any("part inside" in text for text in done.meta["warnings"])


@pytest.mark.fault("B05")
@pytest.mark.parametrize("size", [(96, 72), (1, 1), (2, 500), (1200, 900)])
@pytest.mark.parametrize("box", [(0.0, 0.0, 0.2, 0.3), (0.0, 0.0, 1.0, 1.0), (-99.0, -99.0, 9000.0, 9000.0)])
def test_tiny_and_whole_boxes_are_followed(size, box) -> None:
    following = tracker(Spotter())
    image = scene(size=size)
    assert_sound(following.init(image, box=box), *size)
    for _ in range(7):
        assert_sound(following.update(image), *size)


@pytest.mark.fault("B05")
def test_looking_for_a_pixel_in_a_large_frame_stays_cheap() -> None:
    """A lost target of one pixel in 8K: as many places as pixels would fill the memory."""
    model = Spotter()
    following = tracker(model, search_again_every=1)
    image = np.full((4320, 7680, 3), 90, dtype=np.uint8)
    following.init(image, box=(10, 10, 1, 1))
    for _ in range(3):
        following.update(image)
    assert len(model.searched) <= 3 * 8


@pytest.mark.fault("B07")
@settings(max_examples=60, deadline=None)
@given(side=st.sampled_from([1, 7, 8, 14, 16]), x=st.floats(0, 1), y=st.floats(0, 1), edge=st.integers(0, 3))
def test_a_center_on_the_border_has_its_cell(side, x, y, edge) -> None:
    x, y = [(0.0, y), (1.0, y), (x, 0.0), (x, 1.0)][edge]
    inside = box_mask(torch.tensor([[x, y, 1e-3, 1e-3]]), side)
    column, row = (min(int(np.float32(v) * np.float32(side)), side - 1) for v in (x, y))
    assert inside.view(side, side)[row, column]


@pytest.mark.fault("B07")
@pytest.mark.parametrize("x", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("y", [0.0, 0.5, 1.0])
def test_the_network_learns_from_a_target_on_the_border(loaded, x, y) -> None:
    """Centre exactly on the border of the frame: at the start, in the search region and in a refresh."""
    eager = Policy(lost_below=0.0, refresh_above=0.0, refresh_every=1, visible_above=0.0)
    following = loaded.with_policy(eager)
    image = clip(1, (96, 72))[0]
    following.init(image, box=(96 * x - 10, 72 * y - 10, 20, 20))
    model = following.engine.network.model
    now = following._state
    memory = now.states["target"].memory
    with torch.inference_mode():
        seen = model.locate(torch.zeros(1, 3, model.search_size, model.search_size), memory)
        refreshed = model.update_template(memory, seen, torch.tensor([[x, y, 0.2, 0.2]]))
    assert torch.isfinite(refreshed.prompts_B3C).all()
    assert_sound(following.update(image), 96, 72)


@pytest.mark.fault("B07")
@pytest.mark.parametrize("centre", [(0.0, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0), (1.0, 1.0), (0.0, 0.0)])
def test_a_box_on_the_regions_border_is_taken(centre) -> None:
    model = one_box((*centre, 0.2, 0.2))
    following = tracker(model, refresh_every=1, refresh_above=0.0)
    following.init(scene(RED), box=RED)
    for _ in range(30):
        step = following.update(scene(RED))
        assert_sound(step, 96, 72)
        assert step.status is Status.OK
    assert model.refreshed > 0


# -- B08: outputs of the network -----------------------------------------------------------------

wild = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1e-45, 1e-6, 3e38, -3e38, 0.5, 1.0])


@pytest.mark.fault("B08")
@settings(max_examples=60, deadline=None)
@given(
    centre=hnp.arrays(np.float32, (3, 3), elements=wild),
    presence=hnp.arrays(np.float32, (3, 3), elements=wild),
    boxes=hnp.arrays(np.float32, (3, 3, 4), elements=wild),
    options=st.fixed_dictionaries(
        {},
        optional={
            "penalty": st.sampled_from([0.0, 3.0]),
            "smooth": st.just(1.0),
            "lost_below": st.just(0.0),
            "search_again_above": st.just(0.0),
        },
    ),
)
def test_the_box_is_sound_for_any_output_of_the_network(centre, presence, boxes, options) -> None:
    model = Puppet(centre, presence, boxes)
    following = tracker(model, search_again_every=2, **options)
    following.init(scene(RED), box=RED)
    for _ in range(5):
        assert_sound(following.update(scene(RED)), 96, 72)


@pytest.mark.fault("B08")
@pytest.mark.parametrize(
    "spoilt",
    [
        lambda a: a * np.nan,
        lambda a: a * 0 - np.inf,
        lambda a: a * 0 + np.inf,
        lambda a: np.concatenate([a[..., :2], a[..., 2:] * 0], axis=-1),
        lambda a: np.concatenate([a[..., :2], -a[..., 2:]], axis=-1),
    ],
    ids=["nan", "-inf", "inf", "no size", "negative size"],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_without_a_usable_box_the_last_one_is_held(spoilt) -> None:
    model = one_box((0.5, 0.5, 0.25, 0.25))
    following = tracker(model)
    following.init(scene(RED), box=RED)
    good, last = model.answer, following.update(scene(RED)).box
    model.answer = (good[0], good[1], spoilt(good[2]))
    step = following.update(scene(RED))
    assert (step.status, step.score, step.visible) == (Status.INVALID, 0.0, False)
    np.testing.assert_array_equal(step.box, last)
    model.answer = good
    assert following.update(scene(RED)).status is Status.OK


@pytest.mark.fault("B08")
@pytest.mark.parametrize("side", [1e-6, 3e38])
def test_collapse_and_explosion_stop_at_a_pixel_and_the_frame(side) -> None:
    following = tracker(one_box((0.5, 0.5, side, side)), penalty=0.0, smooth=1.0)
    following.init(scene(RED), box=RED)
    for _ in range(20):
        step = following.update(scene(RED))
        assert_sound(step, 96, 72)
    np.testing.assert_allclose(step.box[2:], (1, 1) if side < 1 else (96, 72), atol=0.1)


# -- B09: the target leaves -----------------------------------------------------------------------


@pytest.mark.fault("B09")
@pytest.mark.parametrize("back", ["where it left", "on the other side"])
@pytest.mark.parametrize("away", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_target_that_was_away_for_thousands_of_frames_is_found_when_it_comes_back(back, away) -> None:
    following = tracker(Spotter())
    following.init(scene((60, 30, 16, 12)), box=(60, 30, 16, 12))
    for i in range(1, 20):
        step = following.update(scene((60 + 2 * i, 30, 16, 12)))
        assert_sound(step, 96, 72)
    assert not step.visible
    held = step.box
    for _ in range(away):
        step = following.update(scene())
        assert_sound(step, 96, 72)
        assert step.score < 0.1
        np.testing.assert_array_equal(step.box, held)
    assert step.status is Status.LOST
    x = 70 if back == "where it left" else 10
    for i in range(40):
        step = following.update(scene((x, 30 + 0.2 * i, 16, 12)))
    assert step.visible
    np.testing.assert_allclose(step.box, (x, 38, 16, 12), atol=1.5)


@pytest.mark.fault("B09")
@pytest.mark.parametrize("grow", [1.03, 100.0])
def test_the_search_region_has_a_limit(grow, monkeypatch: pytest.MonkeyPatch) -> None:
    following = tracker(Spotter(), grow=grow, search_again_every=0)
    following.init(scene(RED), box=RED)
    cut_around, regions = following.engine._search, []

    def watched(*given):
        view = cut_around(*given)
        regions.append(view.region)
        return view

    monkeypatch.setattr(following.engine, "_search", watched)
    assert_sound(following.update(scene(RED)), 96, 72)
    state = following._state.states["target"]
    object.__setattr__(state, "lost_for", 10_000_000)
    assert_sound(following.update(scene()), 96, 72)
    usual, region = regions
    assert usual.scale / region.scale == pytest.approx(Policy().grow_limit, rel=0.02)


# -- B10, B11: the first frame --------------------------------------------------------------------


@pytest.mark.fault("B10")
@pytest.mark.parametrize("kind", ["black", "white", "constant", "noise"])
def test_a_first_frame_without_a_target_works(loaded, kind) -> None:
    shape = (90, 120, 3)
    noise = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    first = {"black": noise * 0, "white": noise * 0 + 255, "constant": noise * 0 + 77, "noise": noise}[kind]
    following = loaded.with_policy(Policy(lost_below=0.0, refresh_above=0.0, refresh_every=1))
    following.init(first.astype(np.uint8), box=(30, 30, 30, 20), text="a car")
    for image in (first.astype(np.uint8), noise):
        step = following.update(image)
        assert_sound(step, 120, 90)
        assert step.status is not Status.INVALID


@pytest.mark.fault("B11")
def test_the_start_may_be_later_but_not_behind_the_end(tmp_path) -> None:
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), scene((40 + number, 30, 16, 12))[:, :, ::-1])
    following = tracker(Spotter())
    steps = list(following.stream(tmp_path, box=(43, 30, 16, 12), start=3))
    assert [s.index for s in steps] == [3, 4]
    with pytest.raises(BoxFrameOutOfRange) as caught:
        list(following.stream(tmp_path, box=RED, start=5))
    assert caught.value.exit_code == 3
    frame = Frame(image=scene(RED), index=17, seconds=0.68)
    assert following.init(frame, box=RED).index == 17


# -- P10, P12: starts from text --------------------------------------------------------------------


@pytest.mark.fault("P10")
def test_a_text_that_matches_nothing_gives_a_finite_box_and_a_low_score() -> None:
    following = tracker(Spotter())
    for sentence in ("the elephant", "the green thing"):
        step = following.init(scene(RED), text=sentence)
        assert_sound(step, 96, 72)
        assert step.score < 0.1
        assert (step.visible, step.status) == (False, Status.LOST)
    assert_sound(following.update(scene(RED)), 96, 72)


@pytest.mark.fault("P10")
@pytest.mark.parametrize("model", ["aitrack", "all-in-one", "bit-tracker", "litetrack", "sa-tracker"])
def test_a_text_that_matches_nothing_gives_a_finite_box_and_is_warned_of_by_its_score(model) -> None:
    """The weights that ship, on their clip: bit-tracker's score of a start from text does not depend on the text."""
    following = Tracker.load(f"{model}-tiny", policy={"own_grounding": True})
    with open_source(demo_clip()[0], end=2) as frames:
        first, second = frames
    step = following.init(first, text="a red banana on a plate")
    assert_sound(step, 854, 480)
    assert (step.score < 0.5) == (model != "bit-tracker")
    assert ("score of only" in " ".join(following.warnings)) == (step.score < 0.5)
    assert_sound(following.update(second), 854, 480)


@pytest.mark.fault("P12")
@pytest.mark.parametrize(
    "box",
    [
        (np.nan, 0.5, 0.2, 0.2),
        (0.5, 0.5, np.inf, 0.2),
        (0.5, 0.5, 0.0, 0.2),
        (0.5, 0.5, 0.2, -0.2),
        (0.5, 0.5, 1e-5, 1e-5),
        (0.5, 0.02, 0.5, 0.02),
        (3.0, 0.5, 0.2, 0.2),
    ],
    ids=["nan", "inf", "no width", "negative", "below a pixel", "beside the frame", "far away"],
)
def test_a_degenerate_grounding_is_refused(box) -> None:
    model = one_box((0.5, 0.5, 0.2, 0.2), 0.9)
    model.answer = (model.answer[0], model.answer[1], np.broadcast_to(box, (8, 8, 4)))
    following = tracker(model)
    with pytest.raises(GroundingFailed) as caught:
        following.init(scene(RED), text="the red thing")
    assert caught.value.exit_code == 3
    with pytest.raises(StateError):
        following.update(scene(RED))


@pytest.mark.fault("P12")
def test_a_box_outside_the_frame_is_passed_over() -> None:
    """The letterbox has bars above and below a wide frame; the best cell is in one, the next one is right."""
    model = one_box((0.5, 0.5, 0.2, 0.2), 0.6)
    centre, presence, boxes = (a.copy() for a in model.answer)
    centre[0, 4] = presence[0, 4] = 0.99
    boxes[0, 4] = (0.5, 0.02, 0.3, 0.04)
    model.answer = (centre, presence, boxes)
    step = tracker(model).init(scene(RED), text="the red thing")
    np.testing.assert_allclose(step.box[:2] + step.box[2:] / 2, (48, 36))
    assert step.score == pytest.approx(0.6)

"""``Tracker``: its inputs, its steps, and when they come. The network only sees colors."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

import vltrack
from scripted import Puppet, Spotter, moving, one_box, scene, tiny_weights, tracker
from vltrack.core.errors import BoxFrameOutOfRange, ImageError, StateError, UsageError, VideoNotFound, VideoReadError
from vltrack.core.types import Frame, Status, Step
from vltrack.tracking.postprocess import Policy
from vltrack.video.base import FrameSource, ReadReport, SourceInfo


def frames_of(images: list[np.ndarray | None], first: int = 0) -> list[Frame]:
    """The same with numbers and times of their own."""
    return [Frame(image=m, index=first + i, seconds=(first + i) * 0.1) for i, m in enumerate(images)]


def test_the_target_is_followed_in_frame_pixels() -> None:
    following = tracker(Spotter())
    images = moving()
    first = following.init(images[0], box=(20, 20, 16, 12))
    assert first.box.tolist() == [20, 20, 16, 12]
    assert (first.score, first.visible, first.index, first.seconds) == (1.0, True, 0, 0.0)
    for number, image in enumerate(images[1:], start=1):
        step = following.update(image)
        assert isinstance(step, Step)
        assert step.box.dtype == np.float64
        np.testing.assert_allclose(step.box, (20 + 2 * number, 20 + number, 16, 12), atol=1.0)
        assert (step.index, step.visible, step.status) == (number, True, Status.OK)
        assert step.seconds == pytest.approx(number / 25)
        assert step.score == pytest.approx(0.95)


def test_stream_equals_init_and_update_and_keeps_numbers_and_times() -> None:
    frames = frames_of(moving(4), first=7)
    streamed = list(tracker(Spotter()).stream(frames, box=(20, 20, 16, 12)))
    following = tracker(Spotter())
    single = [following.init(frames[0], box=(20, 20, 16, 12)), *map(following.update, frames[1:])]
    np.testing.assert_array_equal([s.box for s in streamed], [s.box for s in single])
    assert [s.index for s in streamed] == [7, 8, 9, 10]
    assert [s.seconds for s in streamed] == pytest.approx([0.7, 0.8, 0.9, 1.0])


def test_stream_takes_frames_one_by_one() -> None:
    taken = []

    def frames():
        for number, image in enumerate(moving(5)):
            taken.append(number)
            yield image

    steps = tracker(Spotter()).stream(frames(), box=(20, 20, 16, 12))
    assert taken == []
    next(steps)
    assert taken == [0]
    next(steps)
    assert taken == [0, 1]


def test_a_step_belongs_to_the_user() -> None:
    following = tracker(Spotter())
    first = following.init(moving()[0], box=(20, 20, 16, 12))
    first.box[:] = 0
    assert following.update(moving()[1]).box[0] == pytest.approx(22, abs=1)


def test_a_missing_frame_has_its_own_step_and_the_next_goes_on() -> None:
    images: list[np.ndarray | None] = [*moving(8)]
    images[3] = images[4] = None
    steps = list(tracker(Spotter()).stream(frames_of(images), box=(20, 20, 16, 12)))
    assert [s.status for s in steps] == [*["ok"] * 3, "missing", "missing", *["ok"] * 3]
    assert not steps[3].visible
    assert steps[3].score == 0
    np.testing.assert_array_equal(steps[4].box, steps[2].box)
    np.testing.assert_allclose(steps[7].box, (34, 27, 16, 12), atol=1.5)


def test_a_failed_start_leaves_the_old_target() -> None:
    following = tracker(Spotter())
    images = moving()
    following.init(images[0], box=(20, 20, 16, 12))
    with pytest.raises(UsageError):
        following.init(images[1])
    with pytest.raises(ImageError, match="4"):
        following.init(Frame(image=None, index=4, seconds=0.2), box=(1, 1, 5, 5))
    np.testing.assert_allclose(following.update(images[1]).box, (22, 21, 16, 12), atol=1)


def test_reset_drops_the_target() -> None:
    following = tracker(Spotter())
    following.init(moving()[0], box=(-4, 20, 40, 12))
    assert following.warnings
    following.reset()
    assert following.warnings == ()
    with pytest.raises(StateError):
        following.update(moving()[1])


def test_a_start_from_text_has_presence_as_its_score() -> None:
    image = scene((10, 10, 14, 10), (60, 40, 18, 12))
    following = tracker(Spotter())
    step = following.init(image, text="the green thing")
    np.testing.assert_allclose(step.box, (60, 40, 18, 12), atol=1.5)
    assert step.score == pytest.approx(0.95)
    assert step.visible
    np.testing.assert_allclose(following.update(image).box, (60, 40, 18, 12), atol=1)


def test_the_box_of_a_lost_target_is_held() -> None:
    following = tracker(Spotter())
    following.init(moving()[0], box=(20, 20, 16, 12))
    held = following.update(moving()[1]).box
    for number in range(1, 4):
        step = following.update(scene())
        assert (step.status, step.visible) == (Status.LOST, False)
        assert step.score < 0.1
        assert step.extras["lost_for"] == number
        np.testing.assert_array_equal(step.box, held)


def test_a_target_below_the_threshold_is_not_visible() -> None:
    following = tracker(one_box((0.5, 0.5, 0.25, 0.25), 0.5), visible_above=0.6)
    following.init(scene((20, 20, 16, 12)), box=(20, 20, 16, 12))
    step = following.update(scene((20, 20, 16, 12)))
    assert step.score == pytest.approx(0.5)
    assert (step.visible, step.status) == (False, Status.LOST)


def test_visibility_follows_the_mean_score() -> None:
    following = tracker(one_box((0.5, 0.5, 0.25, 0.25), 0.5), visible_above=0.6, visible_smooth=0.5)
    following.init(scene((20, 20, 16, 12)), box=(20, 20, 16, 12))
    steps = [following.update(scene((20, 20, 16, 12))) for _ in range(3)]  # means 0.75, 0.625, 0.5625
    assert [step.visible for step in steps] == [True, True, False]
    assert steps[0].score == pytest.approx(0.5)


def test_a_jump_across_the_frame_is_found_again() -> None:
    following = tracker(Spotter())
    following.init(scene((10, 10, 12, 12), size=(400, 300)), box=(10, 10, 12, 12))
    there = scene((340, 250, 12, 12), size=(400, 300))
    steps = [following.update(there) for _ in range(120)]
    assert steps[0].status is Status.LOST
    np.testing.assert_allclose(steps[-1].box, (340, 250, 12, 12), atol=1.5)
    assert steps[-1].visible


def test_without_searching_again_the_region_grows_to_its_limit_only() -> None:
    model = Spotter()
    following = tracker(model, search_again_every=0, grow=2.0, grow_limit=3.0)
    following.init(scene((10, 10, 12, 12), size=(400, 300)), box=(10, 10, 12, 12))
    for _ in range(20):
        following.update(scene((340, 250, 12, 12), size=(400, 300)))
    assert set(model.searched) == {1}


def test_the_memory_is_updated_while_the_target_is_seen() -> None:
    model = Spotter()
    following = tracker(model, refresh_every=3, refresh_above=0.5)
    list(following.stream(moving(10), box=(20, 20, 16, 12)))
    assert model.refreshed == 3
    for _ in range(10):
        following.update(scene())
    assert model.refreshed == 3


def test_another_policy_shares_the_weights_and_nothing_else() -> None:
    following = tracker(Spotter())
    following.init(moving()[0], box=(20, 20, 16, 12))
    other = following.with_policy(Policy(smooth=0.1))
    assert other.engine.network.model is following.engine.network.model
    with pytest.raises(StateError):
        other.update(moving()[1])


def test_a_folder_of_images_is_a_video(tmp_path) -> None:
    for number, image in enumerate(moving(6)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image[:, :, ::-1])
    following = tracker(Spotter())
    steps = list(following.stream(tmp_path, box=(24, 22, 16, 12), start=2, end=5))
    assert [s.index for s in steps] == [2, 3, 4]
    np.testing.assert_allclose(steps[-1].box, (28, 24, 16, 12), atol=1)
    with pytest.raises(BoxFrameOutOfRange):
        list(following.stream(tmp_path, box=(24, 22, 16, 12), start=60))


def test_wrong_sources_are_refused() -> None:
    following = tracker(Spotter())
    with pytest.raises(VideoNotFound):
        next(following.stream("no-such-clip.mp4", box=(1, 1, 5, 5)))
    with pytest.raises(UsageError):
        next(following.stream(moving(), box=(1, 1, 5, 5), start=2))
    with pytest.raises(TypeError):
        next(following.stream(3.5, box=(1, 1, 5, 5)))


class BrokenSource(FrameSource):
    """A source that breaks off after its frames, as files on a pulled-out disk do."""

    def __init__(self, images: list[np.ndarray], failure: Exception | None) -> None:
        self.info = SourceInfo(kind="file", name="pulled.mp4", width=96, height=72, rate=25.0, frames=9, seconds=1)
        self.report = ReadReport(warnings=["a packet was damaged"])
        self._frames, self._failure = iter(frames_of(images)), failure

    def __next__(self) -> Frame:
        for frame in self._frames:
            return frame
        self.report.failure = self._failure
        raise StopIteration

    def cancel(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_weights(tmp_path_factory.mktemp("weights"))


def test_a_video_that_breaks_off_raises_after_its_last_step() -> None:
    source = BrokenSource(moving(3), VideoReadError("gone."))
    steps = []
    with pytest.raises(VideoReadError):
        for step in tracker(Spotter()).stream(source, box=(20, 20, 16, 12)):
            steps.append(step)
    assert len(steps) == 3


def test_track_keeps_what_it_had_when_the_video_breaks_off(weights) -> None:
    with pytest.raises(VideoReadError) as caught:
        vltrack.track(BrokenSource(moving(3), VideoReadError("gone.")), box=(20, 20, 16, 12), model=weights)
    assert len(caught.value.result) == 3


def test_track_records_target_and_warnings(weights) -> None:
    source = BrokenSource(moving(3), None)
    box = np.array([-4, 20, 30, 12])
    track = vltrack.track(source, box=box, text="the red thing", model=weights, policy=Policy(window=0.1))
    assert len(track) == 3
    assert track.meta["box"] == [-4.0, 20.0, 30.0, 12.0]
    assert track.meta["source"] == "pulled.mp4"
    assert (track.meta["width"], track.meta["height"]) == (96, 72)
    assert track.meta["sentence"] == "the red thing"
    assert len(track.meta["warnings"]) == 3, "the box, the text that does not name it, the damaged packet"
    json.dumps(track.meta)
    assert np.isfinite(track.boxes).all()


def two_peaks(first: float, second: float) -> Puppet:
    """A target in the middle of the region and a look-alike to the right, with their scores."""
    seen = one_box((0.5, 0.5, 0.25, 0.25), first)
    centre, presence, boxes = (part.copy() for part in seen.answer)
    centre[4, 6], boxes[4, 6] = second, (0.85, 0.5, 0.25, 0.25)
    return Puppet(centre, presence, boxes)


@pytest.mark.parametrize(
    ("scores", "follow", "stays"),
    [
        (((0.9, 0.6), (0.5, 0.8)), True, True),  # remembered: no jump
        (((0.9, 0.6), (0.5, 0.8)), False, False),
        (((0.9, 0.3), (0.5, 0.8)), True, False),  # too weak to be remembered
        (((0.9, 0.6), (0.3, 0.8)), True, False),  # more than twice as high: the box was on the wrong object
    ],
)
def test_the_target_does_not_jump_onto_a_look_alike_that_was_there(scores, follow: bool, stays: bool) -> None:
    model = two_peaks(*scores[0])
    following = tracker(model, window=0.0, follow_rivals=follow, search_again_every=0, refresh_every=0)
    following.init(scene(), box=(40, 30, 12, 12))
    following.update(scene())
    model.answer = two_peaks(*scores[1]).answer
    x = following.update(scene()).box[0]
    assert (x < 45) == stays


@pytest.mark.parametrize(("overlap", "refreshed"), [(0.5, 0), (0.2, 3)])
def test_the_memory_is_refreshed_only_where_the_box_has_hardly_moved(overlap: float, refreshed: int) -> None:
    model = Spotter()
    following = tracker(model, refresh_every=1, refresh_overlap=overlap)
    for number, x in enumerate((20, 26, 32, 38)):  # steps of six pixels, of twelve
        image = scene((x, 20, 12, 12))
        _ = following.update(image) if number else following.init(image, box=(20, 20, 12, 12))
    assert model.refreshed == refreshed


@pytest.mark.parametrize(("model", "refreshed"), [(Spotter(), 3), (one_box((0.5, 0.5, 0.25, 0.25), 0.9), 0)])
def test_the_memory_is_refreshed_only_where_a_second_region_has_the_same_box(model: Spotter, refreshed: int) -> None:
    following = tracker(model, refresh_every=1, refresh_agreement=0.6)
    following.init(scene((40, 30, 12, 12)), box=(40, 30, 12, 12))
    for _ in range(3):
        following.update(scene((40, 30, 12, 12)))
    assert model.refreshed == refreshed

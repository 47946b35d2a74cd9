"""Starts from text through the grounder: refused, waited for, parted; the score says what the start was worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from scripted import Spotter, scene, tracker
from vltrack.core.errors import NothingFits, PromptUnreadable, UsageError
from vltrack.core.types import Candidate, Frame, Target
from vltrack.tracking import starts
from vltrack.tracking.engine import Engine
from vltrack.tracking.postprocess import Policy
from vltrack.tracking.starts import Start, choose_starts
from vltrack.tracking.torch_network import TorchNetwork
from vltrack.tracking.tracker import WAIT_EVERY, MultiTracker, Tracker

RED, GREEN, BLUE = (10.0, 10.0, 14.0, 12.0), (60.0, 30.0, 12.0, 12.0), (40.0, 50.0, 14.0, 10.0)


def candidate(box: Sequence[float], score: float, label: str = "block") -> Candidate:
    return Candidate(box=np.array(box, dtype=np.float64), score=score, label=label)


@pytest.fixture(autouse=True)
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round probabilities: refused below one half."""
    monkeypatch.setattr(starts, "FITS_ABOVE", 0.5)


class Naming:
    """In place of the grounder: candidates by text, from ``shown_from`` on (count of images)."""

    def __init__(self, shown_from: int = 0, **found: list[Candidate]) -> None:
        self.found, self.shown_from, self.seen = found, shown_from, 0

    def find(self, image: np.ndarray, texts: Sequence[str]) -> list[list[Candidate]]:
        self.seen += 1
        return [self.found.get(text, []) if self.seen > self.shown_from else [] for text in texts]


def follower(grounder: Naming, *, anyway: bool = False) -> Tracker:
    return Tracker(
        Engine(TorchNetwork(Spotter()), Policy(), grounder=lambda: grounder, anyway=anyway), {"size": "tiny"}
    )


def test_the_score_says_what_the_start_was_worth() -> None:
    following = follower(Naming(red=[candidate(RED, 0.7), candidate(GREEN, 0.2)]))
    only = tracker(Spotter())
    first = following.init(scene(RED, GREEN), text="red")
    only.init(scene(RED, GREEN), box=RED)
    assert (first.score, first.visible, first.extras["claim"]) == (0.7, True, 0.7)
    assert following.warnings == ()
    for i in range(1, 4):
        image = scene((10 + i, 10, 14, 12), GREEN)
        step, sure = following.update(image), only.update(image)
        np.testing.assert_array_equal(step.box, sure.box)
        assert step.score == sure.score * 0.7
        assert sure.extras["claim"] == 1


def test_a_doubtful_start_names_its_rivals_and_is_not_visible() -> None:
    several = [candidate(RED, 0.28), candidate(GREEN, 0.25, "car"), candidate(BLUE, 0.05)]
    following = follower(Naming(block=several))
    assert not following.init(scene(RED), text="block").visible
    assert not following.update(scene(RED)).visible
    (doubt,) = following.warnings
    assert "car 60,30,12,12 with 0.25" in doubt
    assert "40,50" not in doubt, "a candidate of 0.05 is no rival"


@pytest.mark.fault("P13")
def test_nothing_fits() -> None:
    grounder = Naming(elephant=[candidate(RED, 0.3)], nothing=[])
    following = follower(grounder)
    with pytest.raises(NothingFits, match=r"'elephant'.*0\.70") as caught:
        following.init(scene(RED), text="elephant")
    assert caught.value.exit_code == 10
    assert follower(grounder).init(scene(RED), box=RED, text="elephant").score == 1
    forced = follower(grounder, anyway=True)
    np.testing.assert_array_equal(forced.init(scene(RED), text="elephant").box, RED)
    np.testing.assert_array_equal(forced.init(scene(RED), text="nothing").box, (0, 0, 96, 72))
    assert forced.find(scene(RED), "nothing") == []


def test_waiting_ends_with_a_clear_box() -> None:
    following = follower(Naming(block=[candidate(RED, 0.35), candidate(GREEN, 0.3)]))
    assert following.init(scene(RED), text="block", wait=True).status == "waiting"
    assert following.init(scene(RED), text="block").status == "ok"


def test_a_text_that_does_not_name_the_box_is_reported() -> None:
    following = follower(Naming(block=[candidate(RED, 0.9)]))
    following.init(scene(RED, GREEN), box=GREEN, text="block")
    assert "0.00" in following.warnings[0]
    following.init(scene(RED, GREEN), box=RED, text="block")
    assert not following.warnings


@pytest.mark.fault("P14")
@pytest.mark.parametrize("text", ["белая машина", "🚗🚙", "xqzv", "the"])
def test_a_text_that_cannot_be_read_needs_a_box(text: str) -> None:
    for following in (follower(Naming()), tracker(Spotter())):
        with pytest.raises(PromptUnreadable, match=text) as caught:
            following.init(scene(RED), text=text)
        assert caught.value.exit_code == 3
        assert following.init(scene(RED), box=RED, text=text).visible


def test_waiting_ends_when_the_target_comes_into_view() -> None:
    following = follower(Naming(shown_from=2, red=[candidate(RED, 0.9)]))
    steps = [following.init(scene(RED), text="red", wait=True)]
    steps += [following.update(scene(RED)) for _ in range(3)]
    steps.append(following.update(Frame(image=None, index=4, seconds=0.1)))
    steps += [following.update(scene(RED)) for _ in range(2 * WAIT_EVERY)]
    statuses = [str(step.status) for step in steps]
    begin = 2 * WAIT_EVERY + 1  # the second look; the frame that did not decode does not count
    assert statuses == [*["waiting"] * 4, "missing", *["waiting"] * (begin - 5), *["ok"] * (len(steps) - begin)]
    assert [step.index for step in steps] == list(range(len(steps)))
    np.testing.assert_array_equal(steps[0].box, (0, 0, 96, 72))
    np.testing.assert_array_equal(steps[begin].box, RED)
    assert steps[begin].score == 0.9


def test_only_the_grounder_waits() -> None:
    for following in (tracker(Spotter()), follower(Naming(), anyway=True)):
        with pytest.raises(UsageError):
            following.init(scene(RED), text="red", wait=True)


def chosen(distinct: bool = True, taken: dict | None = None, **found: list[Candidate]) -> dict:
    starts = choose_starts(
        {name: (name, each) for name, each in found.items()}, taken or {}, (96, 72), anyway=False, distinct=distinct
    )
    return {name: tuple(one.box) if isinstance(one, Start) else type(one).__name__ for name, one in starts.items()}


@pytest.mark.fault("P15")
def test_the_best_total_over_distinct_objects() -> None:
    near = (10.0, 11.0, 14.0, 12.0)  # the same object as RED
    both = {"a": [candidate(RED, 0.5), candidate(GREEN, 0.45)], "b": [candidate(near, 0.6), candidate(BLUE, 0.1)]}
    assert chosen(**both) == {"a": GREEN, "b": near}
    assert chosen(distinct=False, **both) == {"a": RED, "b": near}
    assert chosen(taken={"c": np.array(RED)}, **both) == {"a": GREEN, "b": BLUE}
    assert chosen(a=[candidate(RED, 0.9)], b=[candidate(near, 0.8)]) == {"a": RED, "b": "NothingFits"}
    sentences = {
        name: [candidate(box, score) for box, score in zip((RED, GREEN, BLUE), scores, strict=True)]
        for name, scores in {"a": (0.5, 0.4, 0.1), "b": (0.5, 0.1, 0.3), "c": (0.6, 0.2, 0.2)}.items()
    }
    assert chosen(**sentences) == {"a": GREEN, "b": BLUE, "c": RED}


def test_many_equal_texts_get_an_object_each() -> None:
    row = [candidate((11.0 * k, 0, 10, 20), 0.12) for k in range(8)]
    assert len(set(chosen(**{f"t{k}": row for k in range(8)}).values())) == 8


@pytest.mark.fault("P15")
def test_targets_given_by_text_start_apart_and_say_so() -> None:
    grounder = Naming(first=[candidate(RED, 0.9)], second=[candidate(RED, 0.6), candidate(GREEN, 0.3)])
    together = MultiTracker(follower(grounder))
    targets = {"a": Target(text="first"), "b": Target(text="second")}
    steps = together.init(scene(RED, GREEN), targets)
    np.testing.assert_array_equal([steps[n].box for n in "ab"], [RED, GREEN])
    assert together.warnings["a"] == ()
    passed, doubt = together.warnings["b"]
    assert "followed as 'a'" in passed
    assert "60,30,12,12" in doubt
    assert "10,10" not in doubt, "what another target follows is no rival"
    same = MultiTracker(follower(grounder), distinct=False).init(scene(RED, GREEN), targets)
    np.testing.assert_array_equal([same[n].box for n in "ab"], [RED, RED])


@pytest.mark.fault("P15")
def test_the_better_claim_keeps_an_object_that_two_come_to_lie_on() -> None:
    """Two red blocks become one: the stand-in sees red alone."""
    grounder = Naming(left=[candidate((10, 30, 12, 12), 0.9)], right=[candidate((70, 30, 12, 12), 0.7)])
    together = MultiTracker(follower(grounder))
    together.init(
        scene((10, 30, 12, 12), (70, 30, 12, 12), colours="red red"),
        {"b": Target(text="right"), "a": Target(text="left")},
    )
    said = []
    for i in range(20):
        steps = together.update(scene((40 + i % 2, 30, 12, 12)))
        said.append(len(together.warnings["b"]))
    assert steps["a"].visible
    assert (str(steps["b"].status), steps["b"].score) == ("lost", 0)
    assert said[-1] == 1, "said once"
    assert together.warnings["a"] == ()


def test_targets_given_by_boxes_are_never_parted() -> None:
    together = MultiTracker(tracker(Spotter()))
    together.init(scene(RED), {"a": Target(box=RED), "b": Target(box=RED)})
    for _ in range(12):
        steps = together.update(scene(RED))
    assert steps["a"].visible
    assert steps["b"].visible
    np.testing.assert_array_equal(steps["a"].box, steps["b"].box)

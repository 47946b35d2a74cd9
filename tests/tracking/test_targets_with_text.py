"""Targets with a text while they are tracked: lost ones are found by the grounder, look-alikes told apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from scripted import Spotter, one_box, scene
from vltrack.core.types import Candidate, Target
from vltrack.models.base import Prediction
from vltrack.tracking.engine import Engine
from vltrack.tracking.postprocess import Policy
from vltrack.tracking.torch_network import TorchNetwork
from vltrack.tracking.tracker import MultiTracker, Tracker

SIZE = (400, 300)
RED, FAR, GREEN = (10.0, 10.0, 12.0, 12.0), (340.0, 250.0, 12.0, 12.0), (28.0, 10.0, 12.0, 12.0)
Found = list[tuple[tuple[float, ...], float]]


class Naming:
    """In place of the grounder: ``first`` in the image of the start, then ``later``; ``asked`` lists the texts."""

    def __init__(self, first: Found, later: Found) -> None:
        self.answers, self.asked = [first, later], list[list[str]]()

    def find(self, image: np.ndarray, texts: Sequence[str]) -> list[list[Candidate]]:
        answer = self.answers[min(len(self.asked), 1)]
        self.asked.append(list(texts))
        return [[Candidate(box=np.array(box), score=score, label="block") for box, score in answer] for _ in texts]


class Blocks(Spotter):
    """Takes blocks of the other colors for look-alikes: they score 0.6."""

    def _seen(self, crops_B3SS: Tensor, channel_B: Tensor) -> Prediction:
        every = [super(Blocks, self)._seen(crops_B3SS, torch.full_like(channel_B, k)) for k in range(3)]
        likeness_3B = torch.where(channel_B == torch.arange(3)[:, None], 1.0, 0.6 / 0.95)
        center_3BSS = torch.stack([p.center_BSS for p in every]) * likeness_3B[..., None, None]
        center_BSS, which_BSS = center_3BSS.max(dim=0)
        boxes_3BSS4 = torch.stack([p.boxes_BSS4 for p in every])
        index = which_BSS[None, ..., None].expand(1, *boxes_3BSS4.shape[1:])
        return Prediction(
            center_BSS=center_BSS, presence_BSS=torch.ones_like(center_BSS), boxes_BSS4=boxes_3BSS4.gather(0, index)[0]
        )


def follower(grounder: Naming, model: Spotter | None = None, **options: object) -> Tracker:
    policy = Policy().changed(options)
    return Tracker(Engine(TorchNetwork(model or Spotter()), policy, grounder=lambda: grounder), {"size": "tiny"})


def test_a_lost_target_is_found_by_its_text() -> None:
    grounder, model = Naming([(RED, 0.9)], [(GREEN, 0.5), (FAR, 0.4)]), Spotter()
    following = follower(grounder, model)
    following.init(scene(RED, size=SIZE), box=RED, text="the red block")
    steps = [following.update(scene(FAR, size=SIZE)) for _ in range(6)]
    assert [s.visible for s in steps] == [False] * 4 + [True] * 2
    assert len(grounder.asked) == 2
    np.testing.assert_allclose([s.box for s in steps[4:]], [FAR] * 2, atol=1)
    assert steps[4].score == pytest.approx(0.95), "the network's"
    assert model.searched == [1] * 8


@pytest.mark.parametrize(("shown", "probability"), [(RED, 0.3), (GREEN, 0.9)])
def test_network_and_grounder_must_agree(shown: tuple[float, ...], probability: float) -> None:
    """Red is far away; what the grounder finds is improbable, or elsewhere."""
    place = FAR if shown == RED else (200.0, 200.0, 12.0, 12.0)
    following = follower(Naming([(RED, 0.9)], [(place, probability)]))
    following.init(scene(RED, size=SIZE), box=RED, text="the red block")
    assert not any(following.update(scene(FAR, size=SIZE)).visible for _ in range(30))


@pytest.mark.fault("B09")
def test_the_grounder_is_asked_less_and_less() -> None:
    grounder = Naming([(RED, 0.9)], [])
    following = follower(grounder)
    following.init(scene(RED, size=SIZE), box=RED, text="the red block")
    frames = []
    for number in range(1, 130):
        before = len(grounder.asked)
        following.update(scene(size=SIZE))
        if len(grounder.asked) > before:
            frames.append(number)
    assert frames == [5, 15, 35, 75, 115]


def test_several_lost_targets_are_asked_for_at_once() -> None:
    both: Found = [(RED, 0.9), (GREEN, 0.8)]
    grounder = Naming(both, both)
    together = MultiTracker(follower(grounder))
    image = scene(RED, GREEN, size=SIZE)
    together.init(image, {"a": Target(box=RED, text="red"), "b": Target(box=GREEN, text="green"), "c": Target(box=RED)})
    assert grounder.asked == [["red"], ["green"]]
    for _ in range(6):
        together.update(scene(size=SIZE))
    assert grounder.asked[2:] == [["red", "green"]]


@pytest.mark.parametrize("fit", [0.4, 0.9])
def test_a_text_that_does_not_name_the_box_is_not_heeded(fit: float) -> None:
    grounder = Naming([(RED, fit)], [])
    following = follower(grounder)
    following.init(scene(RED, size=SIZE), box=RED, text="the red block")
    steps = [following.update(scene(FAR, size=SIZE)) for _ in range(120)]
    assert steps[-1].visible == (fit < 0.5), "found by the network alone"
    assert (len(grounder.asked) == 1) == (fit < 0.5)


def look_alike(found: Found, **options: object) -> tuple[np.ndarray, Naming, Blocks]:
    """The last box of a red target that stands beside a green block, after the grounder was asked once."""
    grounder, model = Naming([(RED, 0.9)], found), Blocks()
    following = follower(grounder, model, **options)
    image = scene(RED, GREEN, size=SIZE)
    following.init(image, box=RED, text="the block on the right")
    for _ in range(5):
        step = following.update(image)
    return step.box, grounder, model


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ([(GREEN, 0.8), (RED, 0.2)], GREEN),
        ([(GREEN, 0.6), (RED, 0.2)], RED),  # it does not lead enough
        ([((28.0, 40.0, 12.0, 12.0), 0.9)], RED),  # the network sees nothing there
        ([((10.0, 10.0, 12.0, 20.0), 0.9)], RED),  # the same object, otherwise bounded
        ([((4.0, 4.0, 36.0, 24.0), 0.9)], RED),  # both of them
    ],
)
def test_among_look_alikes_the_text_decides(found: Found, right: tuple[float, ...]) -> None:
    box, grounder, _ = look_alike(found)
    assert len(grounder.asked) == 2
    np.testing.assert_allclose(box, right, atol=1)


def test_a_target_by_text_alone_stays_where_it_is_beside_a_look_alike() -> None:
    grounder = Naming([(RED, 0.9)], [(GREEN, 0.8), (RED, 0.2)])
    following = follower(grounder, Blocks())
    image = scene(RED, GREEN, size=SIZE)
    following.init(image, text="the block on the right")
    boxes = [following.update(image).box for _ in range(12)]
    np.testing.assert_allclose(boxes, [RED] * 12, atol=1)
    assert len(grounder.asked) == 1


@pytest.mark.parametrize(("found", "refreshed"), [([((28.0, 40.0, 12.0, 12.0), 0.9)], 0), ([(RED, 0.9)], 1)])
def test_no_update_of_the_memory_where_the_text_names_another_object(found: Found, refreshed: int) -> None:
    assert look_alike(found, refresh_every=5)[2].refreshed == refreshed


@pytest.mark.parametrize(
    ("later", "box", "claim"),
    [
        ([(GREEN, 0.9)], GREEN, 0.9),
        ([(GREEN, 0.6), (RED, 0.3)], RED, 0.48),  # no clearer than the start
        ([(RED, 0.8), (GREEN, 0.1)], RED, 0.8),
    ],
)
def test_a_doubtful_start_is_made_anew_where_the_text_names_something_clearly(later: Found, box, claim) -> None:
    following = follower(Naming([(RED, 0.48), (GREEN, 0.45)], later))
    image = scene(RED, GREEN, size=SIZE)
    assert following.init(image, text="the block on the right").extras["claim"] == 0.48
    steps = [following.update(image) for _ in range(7)]
    np.testing.assert_allclose([s.box for s in steps[5:]], [box] * 2, atol=1)
    assert [s.extras["claim"] for s in steps[3:]] == [0.48] + [claim] * 3
    assert steps[-1].score == pytest.approx(0.95 * claim)


def test_a_doubtful_start_is_looked_at_for_a_second_only() -> None:
    grounder = Naming([(RED, 0.48), (GREEN, 0.45)], [])
    following = follower(grounder)
    following.init(scene(RED, size=SIZE), text="the block on the right")
    for _ in range(60):
        following.update(scene(RED, size=SIZE))
    assert len(grounder.asked) == 3, "at the start, 5 and 15 frames later"


def test_no_target_takes_the_object_of_another_one() -> None:
    together = MultiTracker(follower(Naming([(RED, 0.48), (FAR, 0.45)], [(GREEN, 0.9)])))
    image = scene(RED, GREEN, size=SIZE)
    together.init(image, {"a": Target(box=GREEN), "b": Target(text="the block on the right")})
    for _ in range(7):
        steps = together.update(image)
    np.testing.assert_allclose(steps["b"].box, RED, atol=1)


@pytest.mark.parametrize(("score", "asked"), [(0.4, 2), (0.6, 1)])
def test_the_grounder_is_asked_where_the_network_is_unsure(score: float, asked: int) -> None:
    grounder = Naming([(RED, 0.9)], [])
    following = follower(grounder, one_box((0.5, 0.5, 0.25, 0.25), score))
    following.init(scene(RED), box=RED, text="the red block")
    assert all(following.update(scene(RED)).visible for _ in range(9))
    assert len(grounder.asked) == asked


def test_the_grounder_is_not_asked_without_a_text_or_a_look_alike() -> None:
    grounder = Naming([(RED, 0.9)], [(GREEN, 0.9)])
    following = follower(grounder)
    for text, asked in ((None, 0), ("the red block", 1)):
        following.init(scene(RED, GREEN, size=SIZE), box=RED, text=text)
        for _ in range(20):
            assert following.update(scene(RED, GREEN, size=SIZE)).visible
        assert len(grounder.asked) == asked
    off = follower(grounder, Blocks(), search_again_every=0)
    off.init(scene(RED, GREEN, size=SIZE), box=RED, text="the red block")
    assert len(grounder.asked) == 1

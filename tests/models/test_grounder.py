"""The grounder: sentences decide, padding does not; heads and pairs of fabricated detections; weights on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vltrack.checkpoints import store
from vltrack.core.errors import CheckpointCorrupt, CheckpointMismatch, ModelNotFound
from vltrack.models.grounder import NOUNS, Grounder, GrounderConfig
from vltrack.nn.picodet import BINS, CLASSES, Level
from vltrack.tracking.proposals import BOX, HEAD, PAIR, Proposals, Proposer, lab_of

SMALL = GrounderConfig(
    scales=(128,), width=32, heads=2, text_layers=1, joint_layers=2, table_width=8, max_words=6, vocabulary=20
)
CUP, DOG, NOTHING = 3, 4, 5
"""Word pieces of the tests."""
Tokens = dict[str, Tensor]


def fresh(config: GrounderConfig = SMALL) -> Grounder:
    """A grounder with random weights and a random word table."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Grounder(config)
        made.table.copy_(torch.randint(-127, 128, made.table.shape).to(torch.int8))
        made.table_scale.fill_(1 / 64)
    return made.eval()


def tokens(generator: torch.Generator, *names: str) -> Tokens:
    """One image with a box for each class, at random places with random features."""
    count = len(names)
    corner = torch.rand(1, count, 2, generator=generator) * 0.6
    logits = torch.full((1, count, len(CLASSES)), -5.0)
    for row, name in enumerate(names):
        logits[0, row, CLASSES.index(name)] = 2.0
    return {
        "box_BN4": torch.cat([corner, corner + 0.1 + torch.rand(1, count, 2, generator=generator) * 0.3], dim=2),
        "aspect_B": torch.tensor([1.5]), "logits_BNK": logits,
        "feature_BNF": torch.randn(1, count, 960, generator=generator),
        "color_BNG": torch.rand(1, count, 54, generator=generator),
        "kind_BN": torch.full((1, count), BOX), "owners_BN2": torch.full((1, count, 2), -1),
    }  # fmt: skip


def ranked(grounder: Grounder, boxes: Tokens, ids: list[list[int]], valid_QN: Tensor | None = None) -> Tensor:
    """Logits (Q, N + 1) of sentences, each about the image of its row."""
    longest = max(len(row) for row in ids)
    ids_QL = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    words_QL = torch.tensor([[n < len(row) for n in range(longest)] for row in ids])
    x_QNC = grounder.embed_boxes(**boxes)
    valid_QN = torch.ones(x_QNC.shape[:2], dtype=torch.bool) if valid_QN is None else valid_QN
    logits, noun = grounder.rank(x_QNC, boxes["logits_BNK"], boxes["kind_BN"], valid_QN, ids_QL, words_QL)
    assert logits.shape == (len(ids), x_QNC.shape[1] + 1)
    assert noun.shape == (len(ids), len(NOUNS))
    return logits


def test_a_sentence_can_decide_and_the_place_need_not() -> None:
    grounder, generator = fresh(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(grounder.parameters(), lr=3e-3)
    rng = np.random.default_rng(1)

    def scenes(count: int) -> tuple[Tokens, list[list[int]], Tensor]:
        orders = [("cup", "dog") if rng.random() < 0.5 else ("dog", "cup") for _ in range(count)]
        made = [tokens(generator, *order) for order in orders]
        asked = [int(rng.integers(CUP, NOTHING + 1)) for _ in range(count)]
        answers = [2 if a == NOTHING else order.index({CUP: "cup", DOG: "dog"}[a])
                   for a, order in zip(asked, orders, strict=True)]  # fmt: skip
        return {k: torch.cat([m[k] for m in made]) for k in made[0]}, [[1, a, 2] for a in asked], torch.tensor(answers)

    for _ in range(60):
        boxes, ids, answer = scenes(24)
        loss = functional.cross_entropy(ranked(grounder, boxes, ids), answer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    boxes, ids, answer = scenes(60)
    with torch.inference_mode():
        assert (ranked(grounder, boxes, ids).argmax(dim=1) == answer).float().mean() > 0.95


@torch.inference_mode()
def test_padding_changes_nothing() -> None:
    grounder, generator = fresh(), torch.Generator().manual_seed(2)
    few, many = tokens(generator, "cup", "dog"), tokens(generator, "person", "bicycle", "dog", "cup")
    many["kind_BN"][0, 2], many["owners_BN2"][0, 2] = PAIR, torch.tensor([0, 1])
    alone = [ranked(grounder, few, [[CUP]]), ranked(grounder, many, [[7, DOG, 8, 9]])]
    both = {}
    for name, part in few.items():
        if name != "aspect_B":  # what lies in the padding does not matter
            garbage = torch.ones_like(many[name][:, :2]) * (1 if part.is_floating_point() else 0)
            part = torch.cat([part, garbage], dim=1)
        both[name] = torch.cat([part, many[name]])
    valid = torch.tensor([[True, True, False, False], [True] * 4])
    short, long = ranked(grounder, both, [[CUP], [7, DOG, 8, 9]], valid)
    torch.testing.assert_close(short[[0, 1, 4]], alone[0][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(long, alone[1][0], rtol=1e-4, atol=1e-4)
    assert (short[2:4] < -1e3).all()
    other = ranked(grounder, few, [[DOG]])
    assert (other - alone[0]).abs().max() > 1e-3


# -- proposals ------------------------------------------------------------------------------------------------


class Scripted(nn.Module):
    """In place of the detector: detections at cells of stride 8, given as name and x0, y0, x1, y1 in pixels."""

    def __init__(self, *found: tuple[str, tuple[int, int, int, int]]) -> None:
        super().__init__()
        self.found = found

    def forward(self, image: Tensor) -> tuple[Level, ...]:
        levels = []
        for stride in (8, 16, 32, 64):
            rows, columns = (side // stride for side in image.shape[2:])
            feature = torch.randn(1, 96, rows, columns, generator=torch.Generator().manual_seed(stride))
            logits = torch.full((1, len(CLASSES), rows, columns), -9.0)
            distances = torch.zeros(1, 4 * BINS, rows, columns)
            for name, (x0, y0, x1, y1) in self.found if stride == 8 else ():
                column, row = (x0 + x1) // 16, (y0 + y1) // 16
                center = (column * 8 + 4, row * 8 + 4)
                logits[0, CLASSES.index(name), row, column] = 3.0
                for side, distance in enumerate((center[0] - x0, center[1] - y0, x1 - center[0], y1 - center[1])):
                    distances[0, side * BINS + distance // 8, row, column] = 60.0
            levels.append(
                Level(stride=stride, feature_BCHW=feature, class_logits_BKHW=logits, box_logits_BDHW=distances)
            )
        return tuple(levels)


PERSON, BICYCLE, FAR = (44, 12, 76, 76), (36, 60, 84, 108), (108, 20, 124, 84)


def propose(*found: tuple[str, tuple[int, int, int, int]]) -> Proposals:
    grounder = fresh()
    grounder.detector = Scripted(*found)
    return Proposer.in_torch(grounder).propose(np.zeros((128, 128, 3), dtype=np.uint8))


def test_people_have_heads_and_riders_are_pairs() -> None:
    found = propose(("person", PERSON), ("bicycle", BICYCLE), ("person", FAR))
    assert found.kind_N.tolist() == [BOX, BOX, BOX, HEAD, HEAD, PAIR]
    pixels = found.box_N4 * 128
    boxes = [tuple(row) for row in pixels[:3].round().astype(int).tolist()]
    rider, bicycle, far = (boxes.index(box) for box in (PERSON, BICYCLE, FAR))
    assert (found.owners_N2[:3] == -1).all()
    assert {tuple(row) for row in found.owners_N2[3:5].tolist()} == {(rider, rider), (far, far)}
    assert found.owners_N2[5].tolist() == [rider, bicycle]
    np.testing.assert_allclose(pixels[5], [36, 12, 84, 108], rtol=1e-5)
    assert set(found.logits_NK[5].argsort()[-2:].tolist()) == {0, 1}  # of both
    for row in (3, 4):
        owner = pixels[found.owners_N2[row, 0]]
        assert owner[0] < pixels[row, [0, 2]].mean() < owner[2]
        assert pixels[row, 3] < owner[[1, 3]].mean()
    assert len(found.feature_NF) == len(found.color_NG) == 6


def test_people_side_by_side_are_a_pair_and_boxes_of_one_object_are_one() -> None:
    beside, nearly = (76, 12, 108, 76), (44, 12, 76, 84)
    found = propose(("person", PERSON), ("person", beside), ("person", nearly))
    assert found.kind_N.tolist().count(BOX) == 2
    np.testing.assert_allclose(found.box_N4[found.kind_N == PAIR] * 128, [[44, 12, 108, 76]], rtol=1e-5)


def test_a_blank_image_still_gives_one_box() -> None:
    found = propose()
    assert found.box_N4.tolist() == [[0, 0, 1, 1]]
    assert found.kind_N.tolist() == [BOX]


def test_colors_are_lab() -> None:
    colors = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(lab_of(colors), [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]], atol=0.05)


# -- weights --------------------------------------------------------------------------------------------------


def test_weights_come_back(tmp_path: Path) -> None:
    path, grounder = tmp_path / "grounder-small.safetensors", fresh()
    grounder.temperature.fill_(1.7)
    store.save(path, grounder, tracker="grounder", size="tiny", card={})
    back, card = store.load_grounder(path)
    assert (back.config, back.training, card["size"]) == (SMALL, False, "tiny")
    for name, value in grounder.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, rtol=0, atol=0)

    with pytest.raises(ModelNotFound):
        store.load_grounder(tmp_path / "none.safetensors")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointCorrupt):
        store.load_grounder(path)


@pytest.mark.parametrize("change", [{"tracker": "litetrack"}, {"config": {"width": 64}}, {"config": {"breadth": 64}}])
def test_weights_of_something_else_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "grounder-small.safetensors"
    config = replace(SMALL, width=48)
    store.save(path, fresh(config), tracker="grounder", size="tiny", card=change)
    with pytest.raises(CheckpointMismatch):
        store.load_grounder(path)

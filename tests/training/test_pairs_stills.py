"""What the index says of people, clothes, crowds and transparent images reaches the pairs, and stays true in them."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from vltrack.datasets.cutouts import CutoutSet, build_cutouts
from vltrack.datasets.images import ImageSet
from vltrack.training.pairs.objects import Library
from vltrack.training.pairs.sampler import PairConfig, PairSampler
from vltrack.training.pairs.sentences import SceneObject, describe, holds_in_crops

RED, BLUE, GREEN = (30, 30, 220), (220, 60, 40), (60, 170, 40)


def outlined(name: str, x: int, y: int, w: int, h: int, **keys: object) -> dict[str, object]:
    return {"c": name, "b": [x, y, w, h], "p": [x, y, x + w, y, x + w, y + h, x, y + h]} | keys


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, CutoutSet]:
    """Two cups beside each other; a dressed person; dogs in a crowd; a transparent kite."""
    root, rng = tmp_path_factory.mktemp("stills"), np.random.default_rng(0)
    rows = []
    cups = [
        outlined("cup", 20, 60, 50, 60, q=["the crimson cup", "the cup on the left"]),
        outlined("cup", 140, 60, 50, 60),
    ]
    coat = outlined("coat", 90, 40, 40, 50, col="blue", q=["the blue coat"])
    person = outlined(
        "person", 80, 20, 60, 120, who="woman", att={"coat": "blue", "bag": ""}, q=["the woman in the blue coat"]
    )
    dogs = [outlined("dog", 20, 60, 50, 60), outlined("dog", 140, 60, 50, 60)]
    shown = {
        "cups": ({"inst": cups}, [(20, 60, 50, 60, RED), (140, 60, 50, 60, BLUE)]),
        "woman": ({"inst": [person, coat]}, [(80, 20, 60, 120, GREEN), (90, 40, 40, 50, BLUE)]),
        "dogs": (
            {"inst": dogs, "crowd": [{"c": "dog", "b": [0, 0, 60, 40]}]},
            [(20, 60, 50, 60, RED), (140, 60, 50, 60, BLUE)],
        ),
    }
    for name, (row, blocks) in shown.items():
        image = rng.integers(100, 156, (160, 220, 3)).astype(np.uint8)
        for x, y, w, h, color in blocks:
            image[y : y + h, x : x + w] = color
        cv2.imwrite(str(root / f"{name}.png"), image)
        rows.append({"f": f"{name}.png", "w": 220, "h": 160} | row)
    kite = np.zeros((80, 80, 4), np.uint8)
    kite[10:70, 20:60] = (*GREEN, 255)
    cv2.imwrite(str(root / "kite.png"), kite)
    rows.append({"f": "kite.png", "w": 80, "h": 80, "cut": "kite"})
    (root / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    images = ImageSet.load(root)
    return images, build_cutouts(images, root / "cut.npz")


def owned(stills: tuple[ImageSet, CutoutSet], file: str, number: int) -> tuple[object, list[object]]:
    index = next(k for k, entry in enumerate(stills[0]) if entry.file == file)
    return Library(*stills, "all").owned(index, number)


@pytest.mark.parametrize(
    ("sentence", "holds"),
    [("the woman in the grey coat", True), ("the person in the black top", True), ("the short dress", True),
     ("the cup on the left", False), ("the leftmost cup", False), ("the biggest cup", False), ("the taller man", False),
     ("the person next to the dog", False), ("The book at the top", False), ("the second car", False)],
)  # fmt: skip
def test_sentences_of_places_and_ranks_do_not_hold_in_crops(sentence: str, holds: bool) -> None:
    assert holds_in_crops(sentence) is holds


def test_annotated_sentences_are_used_and_never_of_a_place(stills: tuple[ImageSet, CutoutSet]) -> None:
    sampler = PairSampler(
        PairConfig(scene_share=0.5, text_share=0.5, cutout_share=0.0, own_share=1.0, split="all"), *stills
    )
    samples = [sampler.sample(0, 0, index) for index in range(240)]
    texts = {sample.text for sample in samples}
    assert owned(stills, "cups.png", 0)[0].sentences == ("the crimson cup",)
    assert {"the crimson cup", "the woman in the blue coat", "the blue coat"} <= texts
    for sample in samples:  # what the sentence of the red cup means is red
        if sample.text == "the crimson cup":
            for view, (x, y, w, h) in zip(sample.searches[sample.present], sample.boxes[sample.present], strict=True):
                cx, cy = (int(np.clip(v, 4, 219)) for v in (x + w / 2, y + h / 2))
                r, _, b = view[cy - 2 : cy + 3, cx - 2 : cx + 3].reshape(-1, 3).mean(axis=0)
                assert sample.mode == "nlbbox" or r > b + 40


def test_an_annotated_sentence_is_not_used_next_to_a_pasted_look_alike() -> None:
    boxes = np.array([[20.0, 20, 40, 40], [30, 30, 40, 40]])
    cup, other = (SceneObject(name="cup", color=c, clothing_color="", boxes=boxes, side=224, sentences=(t,))
                  for c, t in (("red", "the crimson cup"), ("blue", "the azure cup")))  # fmt: skip

    def texts(others: list[SceneObject], *, whole_scene: bool) -> set[str]:
        drawn = (
            describe(cup, others, np.random.default_rng(k), places=0.3, whole_scene=whole_scene) for k in range(40)
        )
        return {phrase.text for phrase in drawn if phrase is not None}

    assert "the crimson cup" not in texts([other], whole_scene=False)
    assert "the crimson cup" in texts([], whole_scene=False)
    assert {"the crimson cup"} < texts([other], whole_scene=True)


def test_a_person_is_named_by_annotated_clothes(stills: tuple[ImageSet, CutoutSet]) -> None:
    woman, others = owned(stills, "woman.png", 0)
    assert (woman.role_nouns, woman.clothing_color, woman.garment) == (("woman",), "blue", "coat")
    assert others == []  # what she wears is not next to her
    fact = woman.in_views(np.array([[10.0, 10, 60, 120], [12, 10, 60, 120]]), 224)
    fact = SceneObject(**{name: getattr(fact, name) for name in fact.__slots__} | {"sentences": ()})
    texts = {describe(fact, [], np.random.default_rng(k), places=0.0, whole_scene=True).text for k in range(80)}
    assert "the woman in the blue coat" in texts
    assert not any("shirt" in text or "clothes" in text for text in texts)
    coat, others = owned(stills, "woman.png", 1)
    assert (coat.color, others) == ("blue", [])


def test_no_second_color_and_no_article_where_they_do_not_fit() -> None:
    boxes = np.array([[20.0, 20, 40, 40], [30, 30, 40, 40]])

    def texts(name: str) -> list[str]:
        one = SceneObject(name=name, color="red", clothing_color="", boxes=boxes, side=224)
        return [describe(one, [], np.random.default_rng(k), places=0.0, whole_scene=True).text for k in range(80)]

    assert not any("red" in text for text in texts("green book"))
    assert "the red book" in texts("book")
    assert not any(text.startswith("a ") or "that is" in text for text in [*texts("french fries"), *texts("shoes")])
    assert any(text.startswith("a ") for text in texts("cactus"))


def test_no_text_scene_is_about_one_of_a_crowd(stills: tuple[ImageSet, CutoutSet]) -> None:
    library, rng = Library(*stills, "all"), np.random.default_rng(0)
    drawn = {stills[0][library.draw_crowded(rng)[0]].file for _ in range(80)}
    assert drawn == {"cups.png", "woman.png"}


def test_a_transparent_image_is_only_pasted(stills: tuple[ImageSet, CutoutSet]) -> None:
    library, rng = Library(*stills, "all"), np.random.default_rng(0)
    assert "kite.png" not in {stills[0][library.draw_background(rng)].file for _ in range(200)}
    assert "kite" not in {library.draw_owned(rng)[0].name for _ in range(200)}
    (kite,) = {one.key: one for one in (library.draw_object(rng) for _ in range(200)) if one.name == "kite"}.values()
    assert kite.color == "green"
    assert kite.patch.levels[0][0, 0, 3] == 0

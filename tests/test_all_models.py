"""What every tracker promises, checked over the registry: shapes, finite numbers, weights that come back, a
sentence that is heard when there is one and cannot be heard when there is none.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from model_cases import CONFIGS, Scene, all_sizes, apart, card_of, equal, outputs, published_config
from vltrack.checkpoints import store
from vltrack.core.errors import ModelNotFound
from vltrack.models import MODELS, split_name
from vltrack.models.base import TrackerModel

MODES = ("bbox", "nl", "nlbbox")


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda name: name.replace(" ", "-"))
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(CONFIGS[request.param]())


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, scene: Scene) -> str:
    if request.param not in scene.modes:
        pytest.skip("this size has no text side")
    name: str = request.param
    return name


def test_every_tracker_of_the_registry_is_covered() -> None:
    assert {name.split()[0] for name in CONFIGS} == set(MODELS)
    for tracker, size in all_sizes():
        assert any(name.split()[0] == tracker and name.endswith(size) for name in CONFIGS), (tracker, size)
        assert dataclasses.is_dataclass(published_config(tracker, size))


def test_implements_the_protocol(scene: Scene) -> None:
    assert isinstance(scene.model, TrackerModel)


def test_shapes_ranges_and_finite_numbers(scene: Scene, mode: str) -> None:
    seen = scene.see(mode)
    side = seen.boxes_BSS4.shape[1]
    assert side in (1, scene.model.search_size // 16)
    assert seen.centre_BSS.shape == seen.presence_BSS.shape == (2, side, side)
    assert seen.boxes_BSS4.shape == (2, side, side, 4)
    assert seen.logits == {}
    for tensor in outputs(seen):
        assert tensor.dtype == torch.float32
        assert bool(torch.isfinite(tensor).all())
    for probability in outputs(seen)[:2]:
        assert float(probability.min()) >= 0
        assert float(probability.max()) <= 1
    assert float(seen.boxes_BSS4[..., 2:].min()) > 0


def test_black_white_and_noise_stay_finite(scene: Scene, mode: str) -> None:
    plain = scene.search, scene.template
    try:
        for picture in (
            torch.full_like(plain[0], -2.1),
            torch.full_like(plain[0], 2.6),
            torch.randn_like(plain[0]),
        ):
            size = scene.model.template_size
            scene.search, scene.template = picture, picture[..., :size, :size]
            assert all(bool(torch.isfinite(tensor).all()) for tensor in outputs(scene.see(mode)))
    finally:
        scene.search, scene.template = plain


def test_same_input_same_bytes(scene: Scene, mode: str) -> None:
    first = scene.see(mode)
    torch.rand(7)  # a different state of the global random numbers
    assert equal(first, scene.see(mode))


def test_the_sentence_is_alive(scene: Scene) -> None:
    """Another sentence changes what is seen by words, and cannot change what is seen without."""
    if scene.modes != MODES:
        pytest.skip("this size has no text side")
    before = {mode: scene.see(mode) for mode in MODES}
    ids = scene.ids
    scene.ids = ids.clone()
    scene.ids[:, 2] = 2417
    try:
        assert apart(before["nlbbox"], scene.see("nlbbox")) > 1e-6
        assert apart(before["nl"], scene.see("nl")) > 1e-6
        assert equal(before["bbox"], scene.see("bbox"))
    finally:
        scene.ids = ids


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_saved_and_loaded_is_the_same_model(scene: Scene, half: bool, tmp_path) -> None:
    path = tmp_path / "weights.safetensors"
    size = "tiny" if scene.model.config.stem == "mobilenet" else "base"
    store.save(
        path, scene.model, tracker=card_of(scene.model.config).name, size=size, card={"steps": 3}, half=half
    )
    expected = {
        name: tensor.half().float() if half and tensor.is_floating_point() and tensor.ndim > 1 else tensor
        for name, tensor in scene.model.state_dict().items()
    }
    global_state = torch.random.get_rng_state()
    loaded, card = store.load(path)
    assert torch.equal(global_state, torch.random.get_rng_state())  # loading draws nothing from the caller
    assert not loaded.training
    assert card["steps"] == 3
    counted = {"int64"} if any(t.dtype == torch.int64 for t in expected.values()) else set()  # batch norm
    assert set(card["dtypes"]) == {"float32"} | counted | ({"float16"} if half else set())
    assert loaded.config == scene.model.config
    state = loaded.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    if not half:
        other = Scene(scene.model.config)
        other.model = loaded
        assert all(equal(scene.see(mode), other.see(mode)) for mode in scene.modes)


def test_names_of_models() -> None:
    for tracker, size in all_sizes():
        card, found = split_name(f"{tracker}-{size}")
        assert (card.name, found) == (tracker, size)
    with pytest.raises(ModelNotFound, match="litetrack-tini") as caught:
        split_name("litetrack-tini")
    assert "litetrack-tiny" in caught.value.hint
    with pytest.raises(ModelNotFound) as caught:
        split_name("zebra")
    assert "litetrack-base" in caught.value.hint


def test_cards_tell_what_is_ours() -> None:
    for card in MODELS.values():
        assert card.modes == ("nl", "bbox", "nlbbox") or set(card.modes) < {"nl", "bbox", "nlbbox"}
        assert all((card.title, card.paper, card.claims, card.ours))
        assert math.isfinite(card.year)

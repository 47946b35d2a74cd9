"""Faults C01 and C05 to C13 for our own checkpoints: refused with the reason before they are used."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hostile import Malicious
from model_cases import make, narrow_base, small
from vltrack.checkpoints import cards, store
from vltrack.core.errors import (
    CheckpointCorrupt,
    CheckpointMismatch,
    CheckpointNonFinite,
    CheckpointUnsafe,
    CheckpointVersion,
    ModelError,
    ModelNotFound,
    TokenizerMismatch,
)
from vltrack.core.files import sha256_of
from vltrack.models.litetrack import LiteTrackConfig
from vltrack.prep.tokenizers import WordPieceTokenizer


def little_config() -> LiteTrackConfig:
    return replace(
        small(narrow_base()), width=8, heads=2, table_width=8, split_layers=1, joint_layers=1, contrast_from=0
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "weights.safetensors"
    store.save(path, make(little_config()), tracker="litetrack", size="base", card={"vocabulary_sha256": "ab" * 32})
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """A checkpoint that may be spoiled."""
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"weights{suffix}").write_bytes(template.with_suffix(suffix).read_bytes())
    return tmp_path / "weights.safetensors"


def change_card(path: Path, **changes: Any) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    card["config"].update(changes.pop("config", {}))
    card.update(changes)
    path.with_suffix(".json").write_text(json.dumps(card))


def change_tensors(path: Path, change) -> None:
    """As somebody would who writes a checkpoint of their own: the card's sha256 fits."""
    tensors = load_file(path)
    save_file(change(tensors) or tensors, path)
    change_card(path, sha256=sha256_of(path))


def test_an_unchanged_checkpoint_loads(path: Path) -> None:
    store.load(path)
    change_tensors(path, lambda tensors: None)
    store.load(path)


@pytest.mark.fault("C05")
@pytest.mark.parametrize("beside", [True, False], ids=["card", "no card"])
def test_every_flipped_bit_is_noticed(path: Path, beside: bool) -> None:
    data = path.read_bytes()
    if not beside:  # then the copy inside counts
        path.with_suffix(".json").unlink()
        store.load(path)
    rng = np.random.default_rng(0)
    # 1,000 places: the length, the header with its copy of the card, the numbers, the last byte.
    header = 8 + int.from_bytes(data[:8], "little")
    places = [
        *range(8),
        header - 1,
        header,
        len(data) - 1,
        *rng.integers(8, header, 389),
        *rng.integers(header, len(data), 600),
    ]
    assert len(places) == 1000
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        said = r"sha256 .*[0-9a-f]{12}.*[0-9a-f]{12}" if beside else r"weights\.safetensors has no card"
        with pytest.raises(CheckpointCorrupt, match=said) as caught:
            store.load(path)
        assert caught.value.exit_code == 5


@pytest.mark.fault("C05")
@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, -1])
def test_every_cut_is_noticed(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointCorrupt, match="sha256" if keep else "empty"):
        store.load(path)
    beside = path.with_suffix(".json").rename(path.with_suffix(".kept"))
    with pytest.raises(CheckpointCorrupt, match="cut off" if keep else "empty"):
        store.load(path)
    beside.rename(path.with_suffix(".json"))
    change_card(path, sha256=sha256_of(path))  # and where the card was made for it
    with pytest.raises(CheckpointCorrupt, match=r"weights\.safetensors"):
        store.load(path)


CARDS = {
    "no JSON": b"{",
    "not UTF-8": b"\xff\xfe\x00",
    "a list": b"[]",
    "empty": b"",
    "deep": b"[" * 200_000,
    "huge": b" " * (2 << 20),
    "keys missing": b'{"format": 1}',
    "wrong types": b'{"format": "1", "tracker": 1, "size": [], "sha256": 3, "config": "x"}',
    "no dictionary": b'{"format": 1, "tracker": "litetrack", "size": "base", "sha256": "", "config": []}',
    "a number that is true": b'{"format": true, "tracker": "l", "size": "b", "sha256": "", "config": {}}',
}


@pytest.mark.fault("C05")
@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS.keys())
def test_a_damaged_card_is_refused(path: Path, card: bytes) -> None:
    path.with_suffix(".json").write_bytes(card)
    with pytest.raises(CheckpointCorrupt, match=r"weights\.json"):
        store.load(path)


@pytest.mark.fault("C05")
def test_a_missing_card_is_named(path: Path) -> None:
    save_file(load_file(path), path)  # without the copy in the file
    path.with_suffix(".json").unlink()
    with pytest.raises(CheckpointCorrupt, match=r"weights\.json"):
        store.load(path)


@pytest.mark.fault("C05")
@pytest.mark.parametrize("card", ["{", "[]", "[" * 200_000, None, 3], ids=["no JSON", "list", "deep", "null", "number"])
def test_a_damaged_copy_of_the_card_is_refused(path: Path, card: object) -> None:
    """Sealed, as only a hostile file is."""
    header = json.dumps({"__metadata__": {"seal": "0" * 64, "card": card}}, separators=(",", ":")).encode()
    data = len(header).to_bytes(8, "little") + header
    path.write_bytes(data.replace(b"0" * 64, cards.sealed([data]), 1))
    path.with_suffix(".json").unlink()
    with pytest.raises(CheckpointCorrupt, match=r"weights\.json"):
        store.load(path)


@pytest.mark.fault("C06")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_a_number_is_named(path: Path, value: float) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["blocks.1.attn.qkv.bias"][3] = value

    change_tensors(path, spoil)
    with pytest.raises(CheckpointNonFinite, match=r"blocks\.1\.attn\.qkv\.bias"):
        store.load(path)


@pytest.mark.fault("C07")
def test_another_tracker_or_size_is_named(path: Path) -> None:
    change_card(path, tracker="siamfc")
    with pytest.raises(CheckpointMismatch, match="siamfc"):
        store.load(path)
    change_card(path, tracker="litetrack", size="giant")
    with pytest.raises(CheckpointMismatch, match=r"giant.*tiny, base"):
        store.load(path)


@pytest.mark.fault("C07")
@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"width": 16}, r"embeddings\.LayerNorm\.bias \(8,\) for \(16,\)"),
        ({"split_layers": 2}, r"46 missing \(first: bert\.encoder\.layer\.1"),
        ({"search_size": 100}, "search_size.*16.*100"),
        ({"width": "8"}, "width .*'8'"),
        ({"width": 8.0}, r"width .*8\.0"),
        ({"gate": 1}, "gate .*1"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio .*nan"),
        ({"mlp_ratio": -1.0}, "configuration"),
        ({"head_channels": []}, "configuration"),
        ({"stem": "resnet"}, "stem .*'resnet'"),
        ({"box_code": ["cell"]}, "box_code .*cell"),
        ({"heads": -2}, "heads"),
        ({"depth": 3}, "depth"),
    ],
    ids=str,
)
def test_another_configuration_is_named(path: Path, config: dict[str, Any], named: str) -> None:
    change_card(path, config=config)
    with pytest.raises(CheckpointMismatch, match=named):
        store.load(path)


@pytest.mark.fault("C08")
def test_keys_that_do_not_fit_are_named(path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors["modal_embedding"] = tensors.pop("modal_embed")
        tensors["blocks.0.norm1.bias"] = tensors["blocks.0.norm1.bias"][:1].clone()  # copying would broadcast
        return tensors

    change_tensors(path, spoil)
    with pytest.raises(CheckpointMismatch) as caught:
        store.load(path)
    assert "1 missing (first: modal_embed)" in str(caught.value)
    assert "1 unexpected (first: modal_embedding)" in str(caught.value)
    assert "blocks.0.norm1.bias (1,) for (8,)" in str(caught.value)


@pytest.mark.fault("C08")
def test_ten_keys_are_listed_and_all_are_counted(path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}

    gone = sum(name.startswith("head.") for name in load_file(path))
    change_tensors(path, spoil)
    with pytest.raises(CheckpointMismatch, match=f"{gone} missing") as caught:
        store.load(path)
    assert str(caught.value).count("head.") == 10


@pytest.mark.fault("C08")
def test_nothing_is_copied_unless_all_fits(path: Path) -> None:
    model = make(little_config(), seed=5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = load_file(path)
    for wrong in ({**tensors, "more": torch.zeros(1)}, {**tensors, "cls_token": torch.full((1, 1, 8), torch.nan)}):
        with pytest.raises(ModelError):
            store.load_strictly(model, wrong, path)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.fault("C09")
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_number_types_are_cast_and_recorded(path: Path, kind: torch.dtype) -> None:
    original = load_file(path)
    change_tensors(path, lambda tensors: {k: v.to(kind) if v.is_floating_point() else v for k, v in tensors.items()})
    model, card = store.load(path)
    floats = [name for name, tensor in original.items() if tensor.is_floating_point()]
    assert card["dtypes"] == {str(kind).removeprefix("torch."): len(floats), "int64": len(original) - len(floats)}
    state = model.state_dict()
    assert all(torch.equal(state[name], original[name].to(kind).float()) for name in floats)


@pytest.mark.fault("C09")
def test_whole_numbers_are_no_weights(path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["cls_token"] = tensors["cls_token"].to(torch.int32)

    change_tensors(path, spoil)
    with pytest.raises(CheckpointMismatch, match=r"cls_token.*int32"):
        store.load(path)


@pytest.mark.fault("C10")
@pytest.mark.parametrize("number", [store.FORMAT + 1, 10**9, 0, -1])
def test_another_format_is_refused(path: Path, number: int) -> None:
    change_card(path, format=number)
    with pytest.raises(CheckpointVersion, match=f"format {number}.*{store.FORMAT}"):
        store.load(path)


@pytest.mark.fault("C11")
def test_a_file_that_changes_while_it_is_read(path: Path, monkeypatch) -> None:
    """What was checked is what is used: the file is read once."""
    real = cards.read_card

    def overwritten(card_path: Path, sha256: str) -> dict[str, Any]:
        path.write_bytes(b"something else")
        return real(card_path, sha256)

    with monkeypatch.context() as patch:
        patch.setattr(cards, "read_card", overwritten)
        model, _ = store.load(path)
    assert float(model.state_dict()["cls_token"].abs().sum()) > 0
    with pytest.raises(CheckpointCorrupt, match="sha256"):
        store.load(path)


@pytest.mark.fault("C11")
def test_a_file_that_vanishes_while_it_is_read(path: Path, monkeypatch) -> None:
    real = store.find_file

    def then_delete(name: Path) -> Path:
        found = real(name)
        path.unlink()
        return found

    monkeypatch.setattr(store, "find_file", then_delete)
    with pytest.raises(CheckpointCorrupt, match=r"weights\.safetensors"):
        store.load(path)


@pytest.mark.fault("C12")
def test_another_vocabulary_is_refused(path: Path) -> None:
    card, shapes = cards.identify(path), cards.shapes_of(path)
    cards.check_vocabulary(card, shapes, sha256="ab" * 32, pieces=30522)
    with pytest.raises(TokenizerMismatch, match=r"abababababab.*cdcdcdcdcdcd"):
        cards.check_vocabulary(card, shapes, sha256="cd" * 32, pieces=30522)
    with pytest.raises(TokenizerMismatch, match=r"30000 pieces.*30522 rows"):
        cards.check_vocabulary(card, shapes, sha256="ab" * 32, pieces=30000)
    del card["vocabulary_sha256"]
    cards.check_vocabulary(card, shapes, sha256="cd" * 32, pieces=30522)


@pytest.mark.fault("C12")
def test_the_packaged_vocabulary_fits_every_word_table() -> None:
    assert WordPieceTokenizer.load().size == 30522


@pytest.mark.fault("C13")
def test_missing_weights_are_named_with_their_path(tmp_path: Path, monkeypatch) -> None:
    gone = tmp_path / "gone.safetensors"
    with pytest.raises(ModelNotFound, match=str(gone)):
        store.load(gone)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ModelNotFound, match="folder"):
        store.load(tmp_path / "folder.safetensors")
    monkeypatch.setattr(cards, "PACKAGED", tmp_path)
    with pytest.raises(ModelNotFound, match=str(tmp_path / "litetrack-tiny.safetensors")) as caught:
        store.load("litetrack-tiny")
    assert "vltrack train" in caught.value.hint


@pytest.mark.fault("C01")
@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.bin", "weights.pkl", "weights"])
def test_other_formats_are_not_opened(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    (tmp_path / name).write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(CheckpointUnsafe, match=name):
        store.load(tmp_path / name)
    assert not mark.exists()


@pytest.mark.fault("C01")
@pytest.mark.parametrize("wrapped", ["pickle", "torch zip", "torch legacy"])
def test_a_pickle_under_our_name_is_refused(path: Path, wrapped: str) -> None:
    mark = path.parent / "mark"
    if wrapped == "pickle":
        path.write_bytes(pickle.dumps(Malicious(mark)))
    else:
        torch.save({"w": Malicious(mark)}, path, _use_new_zipfile_serialization=wrapped == "torch zip")
    with pytest.raises(CheckpointCorrupt, match="sha256"):
        store.load(path)
    change_card(path, sha256=sha256_of(path))
    with pytest.raises(CheckpointUnsafe, match=r"weights\.safetensors"):
        store.load(path)
    assert not mark.exists()


WATCHED = """
import sys
from pathlib import Path
from vltrack.checkpoints import store
from vltrack.core.errors import ModelError
import vltrack.models.litetrack
seen = []
watched = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "socket.connect")
sys.addaudithook(lambda event, arguments: seen.append(event) if event in watched else None)
for name in sys.argv[1:]:
    try:
        store.load(Path(name))
    except ModelError as error:
        print(error.code)
    else:
        print("loaded")
print("events", seen)
import pickle
pickle.loads(pickle.dumps(Path))  # the watch itself works
print("after", seen[:1])
"""


@pytest.mark.fault("C01")
def test_nothing_is_unpickled_run_or_fetched(path: Path, tmp_path: Path) -> None:
    """An audit hook sees every class looked up by a pickle and every process started; none while loading."""
    mark = tmp_path / "mark"
    evil = tmp_path / "evil.safetensors"
    evil.write_bytes(pickle.dumps(Malicious(mark)))
    evil.with_suffix(".json").write_bytes(path.with_suffix(".json").read_bytes())
    change_card(evil, sha256=sha256_of(evil))
    torch.save({"w": Malicious(mark)}, tmp_path / "evil.pth")
    files = [str(path), str(evil), str(tmp_path / "evil.pth")]
    command = [sys.executable, "-c", WATCHED, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=110)
    assert done.stdout.split("\n")[:-1] == [
        "loaded",
        "CheckpointUnsafe",
        "CheckpointUnsafe",
        "events []",
        "after ['pickle.find_class']",
    ]
    assert not mark.exists()

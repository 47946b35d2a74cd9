"""Faults C01 to C13 and C18 for weights of other people, imported from small files."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import pickle
import resource
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hostile import Malicious
from vltrack.checkpoints import cards, importing, store
from vltrack.checkpoints.cards import find_weights
from vltrack.checkpoints.importing import import_weights
from vltrack.checkpoints.sources import SOURCES
from vltrack.checkpoints.torch_files import Given
from vltrack.core.errors import (
    CheckpointCorrupt,
    CheckpointMismatch,
    CheckpointNonFinite,
    CheckpointUnsafe,
    ModelNotFound,
    ResourceError,
    TokenizerMismatch,
)
from vltrack.models import all_in_one, build, litetrack

NAME = "all-in-one-ostrack-base"
Change = Callable[[dict[str, Tensor]], None]


def config(card: Any, size: str) -> Any:
    """A few thousand numbers: width 8, one layer."""
    narrow = {"width": 8, "heads": 2, "template_size": 32, "search_size": 32, "head_channels": (8, 4)}
    if card.name == "all-in-one":
        return replace(all_in_one.ostrack_base(), **narrow, layers=1, eliminate=())
    return replace(
        litetrack.base(), **narrow, table_width=8, text_hidden=8, split_layers=1, joint_layers=1, contrast_from=0
    )


def numbers(path: Path) -> bytes:
    """The bytes of a safetensors file after its header, which holds the card."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "config_of", config)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """As OSTrack publishes them."""
    keymap, random = SOURCES["ostrack"].maps[NAME], torch.Generator().manual_seed(0)
    card, size = importing.split_name(NAME)
    own = build(card, config(card, size)).state_dict()
    return {
        f"net.{there}": torch.rand(tensor.shape, generator=random) + 0.1
        for name, tensor in own.items()
        if (there := keymap.published(name)) is not None
    }


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "ours.safetensors"


def nothing_written(out: Path) -> bool:
    return list(out.parent.iterdir()) == []


class Settings:
    """Stands in for the objects of training code."""

    def __setstate__(self, state: object) -> None:
        raise AssertionError("built a foreign class")


def official(tensors: dict[str, Tensor], **more: Any) -> dict[str, Any]:
    net = OrderedDict((name.removeprefix("net."), tensor) for name, tensor in tensors.items())
    return {"epoch": 300, "net": net, "settings": Settings(), "optimizer": {"s": torch.ones(3)}, **more}


@pytest.mark.fault("C01")
@pytest.mark.parametrize("form", ["archive", "row", "pickle", "safetensors", "npz"])
def test_a_command_in_a_file_is_never_run(tmp_path: Path, out: Path, tensors, form: str) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / {"safetensors": "evil.safetensors", "npz": "evil.npz"}.get(form, "evil.pth")
    if form in ("archive", "row"):
        torch.save(official(tensors, evil=Malicious(mark)), path, _use_new_zipfile_serialization=form == "archive")
    elif form == "npz":
        np.savez(path, w=np.array([Malicious(mark)], dtype=object))
    else:
        path.write_bytes(pickle.dumps({"net": Malicious(mark)}))
    if form in ("archive", "row"):
        assert import_weights([path], NAME, out).complete
    else:
        with pytest.raises((CheckpointUnsafe, CheckpointCorrupt)) as caught:
            import_weights([path], NAME, out)
        assert caught.value.exit_code == 5
        assert nothing_written(out)
    assert not mark.exists()


@pytest.mark.fault("C02")
@pytest.mark.parametrize("new", [True, False], ids=["archive", "row"])
def test_only_the_tensors_of_an_official_file_are_read(tmp_path: Path, out: Path, tensors, new: bool) -> None:
    path = tmp_path / "OSTrack_ep0300.pth.tar"
    torch.save(official(tensors), path, _use_new_zipfile_serialization=new)
    done = import_weights([path], NAME, out)
    plain = tmp_path / "plain.safetensors"
    save_file(tensors, plain)
    other = import_weights([plain], NAME, out.with_name("other.safetensors"))
    assert numbers(done.path) == numbers(other.path)


@pytest.mark.fault("C04")
@pytest.mark.parametrize("ending", ["pth", "safetensors", "npz"])
@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "a Git LFS pointer"),
        (gzip.compress(bytes(300), mtime=0), "gzip"),
        (lzma.compress(bytes(300)), "a compressed archive"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, out: Path, data: bytes, named: str, ending: str) -> None:
    path = tmp_path / f"OSTrack_ep0300.{ending}"
    path.write_bytes(data)
    with pytest.raises(CheckpointCorrupt, match=rf"OSTrack_ep0300\.{ending} is .*{named}") as caught:
        import_weights([path], NAME, out)
    assert caught.value.hint
    assert nothing_written(out)
    if ending == "safetensors":  # named to track with, too
        with pytest.raises(CheckpointCorrupt, match=rf"OSTrack_ep0300\.{ending} is .*{named}"):
            find_weights(path)


@pytest.mark.fault("C08")
def test_a_network_that_is_not_ours_is_refused_in_a_few_lines(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "other.safetensors"
    foreign = {f"features.{n}.a_long.name_of.some_module.conv.weight": torch.zeros(2) for n in range(300)}
    save_file(foreign, path)
    with pytest.raises(CheckpointMismatch) as caught:
        import_weights([path], NAME, out)
    assert "features.0." in caught.value.message
    assert len(f"{caught.value.message} {caught.value.hint}") < 5 * 100
    assert nothing_written(out)


@pytest.mark.fault("C03")
def test_a_tensor_that_would_grow_is_refused(tmp_path: Path, out: Path, tensors) -> None:
    wide = {**tensors, "net.wide": torch.ones(1).expand(1 << 30)}
    torch.save(wide, tmp_path / "m.pth")
    with pytest.raises(CheckpointUnsafe, match=r"net\.wide"):
        import_weights([tmp_path / "m.pth"], NAME, out)


@pytest.mark.fault("C04")
def test_odd_tensors_are_refused(tmp_path: Path, out: Path, tensors) -> None:
    name = "net.backbone.blocks.0.mlp.fc1.weight"
    for odd in (tensors[name].to_sparse(), tensors[name].to(torch.complex64)):
        torch.save({**tensors, name: odd}, tmp_path / "m.pth")
        # What cannot be read as a tensor is left out, and then it is missing.
        with pytest.raises((CheckpointUnsafe, CheckpointMismatch), match=r"mlp\.fc1\.weight"):
            import_weights([tmp_path / "m.pth"], NAME, out)
        assert nothing_written(out)


@pytest.mark.fault("C05")
def test_cuts_and_flips_never_give_other_weights(tmp_path: Path, out: Path, tensors) -> None:
    """Of an archive: every tensor has a checksum in it. Some flips touch what is not read."""
    path = tmp_path / "m.pth"
    torch.save(tensors, path)
    expected = numbers(import_weights([path], NAME, out).path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    spoiled = [data[: int(n)] for n in rng.integers(0, len(data), 10)]
    for place in rng.integers(0, len(data), 60):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        spoiled.append(bytes(flipped))
    for written in spoiled:
        path.write_bytes(written)
        try:
            import_weights([path], NAME, out)
        except (CheckpointCorrupt, CheckpointUnsafe):
            refused += 1
        assert numbers(out) == expected
        store.load(out)
    assert refused > len(spoiled) // 2


def change_and_save(path: Path, tensors: dict[str, Tensor], change: Change) -> Path:
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    change(changed)
    save_file(changed, path)
    return path


@pytest.mark.fault("C06")
def test_not_a_number_is_named_with_file_and_tensor(tmp_path: Path, out: Path, tensors) -> None:
    def spoil(given: dict[str, Tensor]) -> None:
        given["net.backbone.norm.weight"][3] = torch.nan

    path = change_and_save(tmp_path / "nan.safetensors", tensors, spoil)
    with pytest.raises(CheckpointNonFinite, match=r"nan\.safetensors: .*backbone\.norm\.weight"):
        import_weights([path], NAME, out)
    assert nothing_written(out)


@pytest.mark.fault("C07")
def test_another_tracker_size_or_picture_is_named(tmp_path: Path, out: Path, tensors) -> None:
    path = change_and_save(tmp_path / "ostrack.safetensors", tensors, lambda given: None)
    with pytest.raises(CheckpointMismatch, match="OSTrack weights, which do not fit litetrack-base") as caught:
        import_weights([path], "litetrack-base", out)
    assert NAME in caught.value.hint

    def larger(given: dict[str, Tensor]) -> None:
        given["net.backbone.pos_embed_x"] = torch.zeros(1, 9, 8)

    path = change_and_save(tmp_path / "larger.safetensors", tensors, larger)
    with pytest.raises(CheckpointMismatch, match=r"pos_embed_x \(1, 9, 8\) for \(1, 4, 8\)"):
        import_weights([path], NAME, out)

    def deeper(given: dict[str, Tensor]) -> None:
        given["net.backbone.blocks.1.norm1.weight"] = torch.zeros(8)

    path = change_and_save(tmp_path / "deeper.safetensors", tensors, deeper)
    with pytest.raises(CheckpointMismatch, match=r"1 unexpected .*blocks\.1\.norm1\.weight"):
        import_weights([path], NAME, out)
    assert nothing_written(out)


@pytest.mark.fault("C08")
def test_ten_names_are_listed_all_are_counted_and_prefixes_are_explicit(tmp_path: Path, out: Path, tensors) -> None:
    def cut(given: dict[str, Tensor]) -> None:
        for name in [name for name in given if "box_head" in name]:
            del given[name]

    gone = sum("box_head" in name for name in tensors)
    path = change_and_save(tmp_path / "cut.safetensors", tensors, cut)
    with pytest.raises(CheckpointMismatch, match=f"{gone} missing") as caught:
        import_weights([path], NAME, out)
    assert str(caught.value).count("(there box_head") == 10
    assert nothing_written(out)
    done = import_weights([path], NAME, out, partial=["head."])
    assert not done.complete
    assert len([name for name in done.kept_fresh if not name.endswith("num_batches_tracked")]) == gone


@pytest.mark.fault("C09")
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_number_types_are_cast_and_recorded(tmp_path: Path, out: Path, tensors, kind: torch.dtype) -> None:
    cast = {name: tensor.to(kind) for name, tensor in tensors.items()}
    save_file(cast, tmp_path / "cast.safetensors")
    import_weights([tmp_path / "cast.safetensors"], NAME, out)
    model, card = store.load(out)
    assert card["imported"][0]["number_types"] == {str(kind).removeprefix("torch."): len(cast)}
    assert card["dtypes"].keys() == {"float32", "int64"}
    assert torch.equal(model.norm.weight, cast["net.backbone.norm.weight"].float())


@pytest.mark.fault("C11")
@pytest.mark.parametrize("what", ["changes", "shrinks", "vanishes"])
def test_a_file_that_does_not_stay_the_same_while_it_is_read(
    tmp_path: Path, out: Path, tensors, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = change_and_save(tmp_path / "m.safetensors", tensors, lambda given: None)
    real = importing.open_tensors

    @contextmanager
    def read(file: Path, **how: Any) -> Iterator[dict[str, Given]]:
        with real(file, **how) as found:
            if what == "changes":
                file.write_bytes(file.read_bytes() + b" ")
            elif what == "shrinks":
                os.truncate(file, file.stat().st_size // 2)
            else:
                file.unlink()
            yield found

    monkeypatch.setattr(importing, "open_tensors", read)
    with pytest.raises(CheckpointCorrupt, match=r"m\.safetensors"):
        import_weights([path], NAME, out)
    assert nothing_written(out)


@pytest.mark.fault("C12")
def test_another_vocabulary_is_named(tmp_path: Path, out: Path) -> None:
    """bert-base-cased has 28996 rows."""
    card, size = importing.split_name("litetrack-base")
    own = build(card, config(card, size)).state_dict()
    tensors = {name: tensor for name, tensor in own.items() if name.startswith("bert.")}
    tensors["bert.embeddings.word_embeddings.weight"] = torch.ones(28996, 8)
    save_file(tensors, tmp_path / "cased.safetensors")
    with pytest.raises(TokenizerMismatch, match=r"28996 rows.*30522") as caught:
        import_weights([tmp_path / "cased.safetensors"], "litetrack-base", out)
    assert caught.value.exit_code == 5
    tensors["bert.embeddings.word_embeddings.weight"] = torch.ones(30522, 8)
    save_file(tensors, tmp_path / "uncased.safetensors")
    import_weights([tmp_path / "uncased.safetensors"], "litetrack-base", out, vocabulary_sha256="ab" * 32)
    written, shapes = cards.identify(out, start=True), cards.shapes_of(out)
    with pytest.raises(TokenizerMismatch):
        cards.check_vocabulary(written, shapes, sha256="cd" * 32, pieces=30522)


@pytest.mark.fault("C13")
def test_a_file_that_is_not_there(tmp_path: Path, out: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"gone\.pth") as caught:
        import_weights([tmp_path / "gone.pth"], NAME, out)
    assert "Nothing is downloaded" in caught.value.hint


@pytest.mark.fault("C18")
def test_a_disk_that_fills_up_keeps_the_weights_of_before(tmp_path: Path, out: Path, tensors) -> None:
    path = change_and_save(tmp_path / "m.safetensors", tensors, lambda given: None)
    import_weights([path], NAME, out)
    before = {file.name: file.read_bytes() for file in out.parent.iterdir()}
    changed = change_and_save(
        tmp_path / "n.safetensors", tensors, lambda given: given["net.backbone.norm.weight"].add_(1)
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (out.stat().st_size // 2, hard))
    try:
        with pytest.raises(ResourceError) as caught:
            import_weights([changed], NAME, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == 6
    assert {file.name: file.read_bytes() for file in out.parent.iterdir()} == before
    assert json.loads(before["ours.json"])["complete"]

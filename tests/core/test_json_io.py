"""Strict JSON: what is refused; the walk gives what a whole reading gives, wherever the text is cut."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from vltrack.core import json_io
from vltrack.core.errors import DataError
from vltrack.core.json_io import parse_json, read_json, walk_json

GOOD = {
    "info": {"année": "2017", "n": 12},
    "images": [{"id": 1, "name": "ü – 🐒"}, {"id": 22, "name": 'a "quoted" \\ name'}],
    "empty": [],
    "numbers": [1, 23, -4.5e-300, 1e22, 0.5, True, None, "x", [1, [2, {}]]],
    "last": 123456,
}
BAD = {
    "not a number": '{"a": [NaN]}',
    "infinity": '{"a": [1, -Infinity]}',
    "a key twice": '{"a": [{"b": 1, "b": 2}]}',
    "a key twice at the top": '{"a": [1], "a": [2]}',
    "depth": '{"a": [' + "[" * 100_000,
    "depth of objects": '{"a":' * 100_000,
    "a depth that closes": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "digits": '{"a": [' + "9" * 5000 + "]}",
    "nothing": "",
    "space": " \n\t ",
    "broken off": '{"a": [1, 2',
    "more": '{"a": [1]} {}',
    "a comma at the end": '{"a": [1, 2,]}',
    "a comma too many": '{"a": [1],}',
    "no comma": '{"a": [1 2]}',
    "no colon": '{"a" [1]}',
    "a key that is no text": "{1: [1]}",
    "single quotes": "{'a': [1]}",
    "a comment": '{"a": [1] /* why */}',
    "a line in a text": '{"a": ["x\ny"]}',
}


def walked(path: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in walk_json(path):
        if isinstance(GOOD[key], list):
            found.setdefault(key, []).append(value)
        else:
            found[key] = value
    return found


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_walk_gives_what_a_whole_reading_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_io, "_CHUNK", chunk)
    path = tmp_path / "x.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD, ensure_ascii=False, indent=indent).encode())
    assert read_json(path) == GOOD
    assert walked(path) == {key: value for key, value in GOOD.items() if value != []}
    path.write_text(json.dumps(GOOD["numbers"], indent=indent))
    assert list(walk_json(path)) == [("", value) for value in GOOD["numbers"]]


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
@pytest.mark.fault("D12")
def test_hostile_text_is_refused_with_the_file_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    for read in (lambda: read_json(path), lambda: list(walk_json(path)), lambda: parse_json(text, str(path))):
        with pytest.raises(DataError, match=r"x\.json.* not strict JSON") as caught:
            read()
        assert caught.value.exit_code == 4
        assert len(str(caught.value)) < 600


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    whole = json.dumps(GOOD).encode()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError):
            list(walk_json(path))


@pytest.mark.parametrize("chunk", [1, 4, 1 << 20])
@pytest.mark.parametrize(
    ("data", "byte"), [('["ü", "'.encode() + "狗".encode("gbk") + b'"]', 8), (b'["\xe7\x8bX"]', 2)]
)
def test_the_byte_that_is_not_utf8_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, byte: int, chunk: int
) -> None:
    monkeypatch.setattr(json_io, "_CHUNK", chunk)
    path = tmp_path / "x.json"
    path.write_bytes(data)
    for read in (read_json, lambda path: list(walk_json(path))):
        with pytest.raises(DataError, match=rf"UTF-8 text \(byte {byte}\)"):
            read(path)


@pytest.mark.fault("D12")
def test_a_file_of_4_gib_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(4 << 30)  # takes no room on the disk
    for read in (read_json, lambda path: list(walk_json(path))):
        with pytest.raises(DataError, match=r"has more than [\d,]+ bytes"):
            read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_json, lambda path: list(walk_json(path))):
        with pytest.raises(DataError, match=r"no\.json"):
            read(tmp_path / "no.json")


@pytest.mark.fault("D12")
def test_the_walk_needs_no_more_memory_for_a_longer_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_io, "_CHUNK", 1 << 16)
    path = tmp_path / "x.json"
    row = json.dumps({"id": 1, "segmentation": [list(range(1000, 1200))]})
    path.write_text('{"annotations": [' + ",\n".join([row] * 3_000) + "]}")
    assert path.stat().st_size > 3_500_000
    tracemalloc.start()
    try:
        assert sum(1 for _ in walk_json(path)) == 3_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.fault("D12")
def test_one_element_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_io, "_ELEMENT", 1 << 16)
    monkeypatch.setattr(json_io, "_CHUNK", 1 << 12)
    path = tmp_path / "x.json"
    path.write_text('{"a": [' + '"' + "x" * 1_000_000 + '"]}')
    with pytest.raises(DataError, match="one element has more than 65536"):
        list(walk_json(path))

"""Pickles are read as plain data and placeholders: nothing that a file names is imported, built or called."""

from __future__ import annotations

import argparse
import collections
import functools
import io
import json
import pickle
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hostile import Malicious
from vltrack.core import torch_archive, unpickle
from vltrack.core.archives import Refused
from vltrack.core.torch_archive import open_archive

EVENTS = ("import", "exec", "compile", "open", "pickle", "marshal", "os", "subprocess", "socket", "ctypes")
watched: list[str] | None = None


@pytest.fixture
def events() -> Iterator[list[str]]:
    """Audit events of imports, code, files, processes and sockets while the test runs."""
    global watched
    if not hasattr(sys, "_unpickle_hook"):

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if watched is not None and event.partition(".")[0] in EVENTS:
                watched.append(f"{event} {str(arguments[:1])[:80]}")

        sys.addaudithook(hook)
        sys._unpickle_hook = True  # type: ignore[attr-defined]  # a hook stays for the life of the process
    unpickle.read(pickle.dumps([argparse.Namespace(a={1})], protocol=0), 99)  # loads codecs
    watched = []
    yield watched
    watched = None


class Settings:
    """Stands in for the objects of training code: every way of setting itself up would be an error."""

    def __new__(cls, *_: object) -> Settings:
        if not cls.made:
            raise AssertionError("a class of a file was built")
        return super().__new__(cls)

    made = True

    def __setstate__(self, state: object) -> None:
        raise AssertionError("the state of an object of a file was set")


class Keyed(dict[str, object]):
    def __setitem__(self, key: str, value: object) -> None:
        raise AssertionError("an entry of an object of a file was set")


class Exploding:
    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (Path("x"), "touch"), None, None, None


def attacks(mark: Path) -> dict[str, bytes]:
    """Every instruction by which a pickle looks up, builds or calls."""
    command = f"touch {mark}".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    evil = Malicious(mark)
    found = {f"REDUCE, protocol {n}": pickle.dumps({"w": evil}, protocol=n) for n in range(6)}
    return found | {
        "BUILD": pickle.dumps([Settings()]),
        "BUILD of a name": b"\x80\x02cos\nsystem\n" + text + b"b.",
        "INST": b"(S'" + command + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + command + b"'\no.",
        "NEWOBJ": b"\x80\x02cos\nsystem\n" + text + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04cos\nsystem\n" + text + b"\x85}\x92.",
        "STACK_GLOBAL, dotted": b"\x80\x04\x8c\x02os\x8c\x0bpath.sys.os\x93" + text + b"\x85R.",
        "STACK_GLOBAL, getattr": b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93" + text + text + b"\x86R.",
        "copyreg": b"ccopyreg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR" + b"}b.",
        "copyreg.add_extension": b"\x80\x02ccopyreg\nadd_extension\n(S'os'\nS'system'\nK\x07tR0\x82\x07"
        + text
        + b"\x85R.",
        "call of what a call made": b"cfunctools\npartial\n(cos\nsystem\ntR(" + text + b"tR.",
        "a method": pickle.dumps(Exploding()),
        "partial": pickle.dumps(functools.partial(print, "x")),
        "entries": pickle.dumps(Keyed(a=1)),
        "append": b"cos\nsystem\n" + text + b"a.",
        "appends": b"cos\nsystem\n(" + text + b"e.",
        "add": b"\x80\x04cos\nsystem\n(" + text + b"\x90.",
        "numpy": pickle.dumps(np.array([evil], dtype=object)),
        "persistent text": b"Pos.system\n.",
        "as a key": pickle.dumps({evil: 1}),
        "deque": pickle.dumps(collections.deque([evil])),
    }


@pytest.mark.fault("C01", "C02", "D13")
@pytest.mark.parametrize("name", attacks(Path("mark")))
def test_nothing_is_looked_up_built_or_called(tmp_path: Path, events: list[str], name: str) -> None:
    data = attacks(tmp_path / "mark")[name]
    Settings.made = False
    try:
        del events[:]
        found = unpickle.read(data, 1000)
        seen = list(events)
    finally:
        Settings.made = True
    assert not seen
    assert not (tmp_path / "mark").exists()
    assert json.loads(json.dumps(found)) == found
    if "REDUCE" in name:
        assert found["names"] == ["posix.system"]


def test_the_watch_sees_what_runs(tmp_path: Path, events: list[str]) -> None:
    pickle.loads(pickle.dumps(Malicious(tmp_path / "mark")))  # noqa: S301
    assert {event.partition(" ")[0] for event in events} >= {"pickle.find_class", "os.system"}


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def opened(path: Path, data: bytes) -> Any:
    with open_archive(written(path, data), limit=1 << 30, pickle_bytes=1 << 26, table_bytes=1 << 20) as archive:
        return archive.content


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_comes_through_as_lists_and_dictionaries(tmp_path: Path, protocol: int) -> None:
    content = {
        "a": [1, 2.5, "xü\ud800", None, True, (1,), (1, 2), (), -(10**30), float("inf")],
        7: {"b": {}},
        None: "none",
    }
    found = opened(tmp_path / "m.pkl", pickle.dumps(content, protocol=protocol))
    assert found == {**content, "a": [list(v) if isinstance(v, tuple) else v for v in content["a"]]}  # type: ignore[attr-defined]


def test_what_is_not_plain_becomes_a_record_of_the_call(tmp_path: Path) -> None:
    content = [argparse.Namespace(x=1), collections.OrderedDict(a=2), {1}, b"bytes", 1 << 10_000, print]
    space, ordered, *others, name = opened(tmp_path / "m.pkl", pickle.dumps(content, protocol=2))
    assert (space.path, space.state) == ("argparse.Namespace", {"x": 1})
    assert (ordered.path, ordered.args, ordered.items) == ("collections.OrderedDict", [], {"a": 2})
    assert [other.path for other in others[::2]] == ["__builtin__.set", "int"]
    assert name.path == "__builtin__.print"


BROKEN = {
    "no end": b"N",
    "nothing": b".",
    "empty": b"",
    "no mark": b"t.",
    "unknown": b"\xff.",
    "memory": b"h\x07.",
    "registered": b"\x82\x01.",
    "buffer": b"\x97.",
    "set on a name": b"cos\nsystem\nNNs.",
    "odd": b"}(Nu.",
    "unhashed": b"}]Ns.",
    "cut": pickle.dumps({"a": list(range(50))})[:-9],
    "endless": b"N" * 2_000_000,
    "a long text that is not there": b"\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
    "long number": b"L" + b"9" * 10_000 + b"L\n.",
    "a name that is not text": b"\x80\x04))\x93.",
    "a reference that is not text": b"P\xff\n.",
    "two": b"N.N.",
}


@pytest.mark.fault("C05", "D13")
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_pickles_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Refused) as caught:
        opened(tmp_path / "m.pkl", data)
    assert len(str(caught.value)) < 400


# A tuple of itself twice, sixty times: to hash, compare or print it takes 2 ** 60 steps.
ENDLESS = b")q\x00" + b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60))
DEEP = b")" + b"\x85" * 300_000
BOMBS = {
    "a key that takes for ever to hash": b"}" + ENDLESS + b"Ns.",
    "a member of a set that takes for ever": b"\x80\x04\x8f(" + ENDLESS + b"\x90.",
    "a member of a frozen set": b"\x80\x04(" + ENDLESS + b"\x91.",
    "a key too deep to hash": b"}" + DEEP + b"Ns.",
    "values that unfold": ENDLESS + b".",
    "a text of 4 GiB": b"X" + struct.pack("<I", 0xFFFFFFF0) + b"x.",
    "bytes of 1 TiB": b"\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "a number of 2 GiB": b"\x8b" + struct.pack("<i", 0x7FFFFFF0) + b"x.",
    "a memo of 4 G entries": b"Nr\xff\xff\xff\xff.",
    "an array of 2 GiB bytes": b"\x80\x05\x96" + struct.pack("<Q", 1 << 43) + b"x.",
}


@pytest.mark.fault("C03", "D13")
@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
@pytest.mark.timeout(30)
def test_pickles_that_ask_for_all_time_or_memory_are_refused(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_archive, "SECONDS", 2)
    monkeypatch.setattr(torch_archive, "OBJECTS", 100_000)
    with pytest.raises(Refused):
        opened(tmp_path / "m.pkl", data)


def test_what_is_nested_too_deeply_is_left_out(tmp_path: Path) -> None:
    found = opened(tmp_path / "m.pkl", DEEP + b".")
    for _ in range(unpickle.DEPTH):
        (found,) = found
    assert found.path == "deeper"


def test_the_limits_hold_without_the_deadline_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process limits its own time and memory, so that it ends even if its caller is killed."""
    resource = pytest.importorskip("resource")
    limits: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    monkeypatch.setattr(sys, "argv", ["unpickle.py", "100", "7", str(1 << 30)])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pickle.dumps([1]))))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(unpickle.gc, "disable", lambda: None)
    unpickle.main()
    assert limits[resource.RLIMIT_AS] == (1 << 30, 1 << 30)
    assert limits[resource.RLIMIT_CPU] == (7, 7)
    assert limits[resource.RLIMIT_FSIZE] == (0, 0)
    assert json.loads(sys.stdout.getvalue())["pickles"] == [[1]]  # type: ignore[attr-defined]

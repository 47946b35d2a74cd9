"""The studio's memory: revisions, and what is removed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vltrack.serve import store as module
from vltrack.serve.store import NotThere, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


def video(store: Store, **values: object) -> str:
    row = {"name": "a", "path": "a", "own": 0, "state": "ready", "size": 1, "created": time.time(), "used": time.time()}
    return store.add("videos", **{**row, **values})


def test_old_revisions_go_and_the_latest_can_be_undone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REVISIONS", 3)
    target = store.add("targets", video=video(store), name="t", color=0, start={"frame": 0})
    parent = None
    for number in range(5):
        key = f"{number:032x}"
        store.track_path(key).write_text("x")
        store.revise(target, key, parent, {"number": number})
        parent = key
    assert sorted(path.stem for path in (store.media / "tracks").iterdir()) == [f"{n:032x}" for n in (2, 3, 4)]
    shown = []
    while store.step(store.target(target), forward=False):
        shown.append((store.revision(store.target(target)) or {})["facts"]["number"])
    assert shown == [3, 2]
    assert store.step(store.target(target), forward=True)
    store.remove_target(target)
    assert list((store.media / "tracks").iterdir()) == []
    with pytest.raises(NotThere):
        store.target(target)


def test_uploads_that_were_given_up_are_removed_at_the_next_start(tmp_path: Path) -> None:
    first = Store(tmp_path)
    old, new = (
        video(first, state="uploading", own=1, created=time.time() - age, path=str(tmp_path / "videos" / name))
        for name, age in (("old", 90_000), ("new", 1000))
    )
    first.close()
    again = Store(tmp_path)
    with pytest.raises(NotThere) as caught:
        again.video(old)
    assert caught.value.gone
    assert again.video(new)["state"] == "uploading"
    again.close()

"""Rows W01-W07 of the fault table: uploads that are too large, slow, broken off, or no video."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from studio_server import Api, Served


def stored(media: Path) -> list[str]:
    return sorted(path.name for path in (media / "videos").iterdir())


def raw(served: Served, head: str, *pieces: bytes, close: bool = False) -> bytes:
    """Send a request as bytes; return what comes back."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as line:
        line.sendall(f"{head}\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode())
        try:
            for piece in pieces:
                line.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        if close:
            return b""
        try:
            return line.recv(1 << 16)
        except ConnectionResetError:
            return b""


def expect(api: Api, size: int) -> str:
    return str(api("POST", "/api/videos", 201, json={"name": "a.mp4", "size": size})["id"])


@pytest.mark.fault("W01")
def test_an_upload_over_the_limit_is_refused_and_leaves_nothing(serve: Callable[..., Served]) -> None:
    served = serve(max_upload=10_000)
    api = served.api
    assert "10,000" in api("POST", "/api/videos", 413, json={"name": "a.mp4", "size": 10_001})["error"]["message"]
    for size in (0, -1):
        api("POST", "/api/videos", 422, json={"name": "a.mp4", "size": size})
    key = expect(api, 5000)
    api("PUT", f"/api/videos/{key}/content", 413, content=b"x" * 5001)
    key = expect(api, 5000)
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    said = raw(served, f"PUT /api/videos/{key}/content HTTP/1.1\r\nTransfer-Encoding: chunked", *[chunk] * 400)
    assert said.startswith(b"HTTP/1.1 413") or said == b""
    said = raw(served, f"PUT /api/videos/{key}/content HTTP/1.1\r\nContent-Length: -5")
    assert said.startswith(b"HTTP/1.1 400")
    deadline = time.monotonic() + 20
    while stored(served.media) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert stored(served.media) == []


@pytest.mark.fault("W02")
def test_an_upload_that_stalls_or_drips_is_ended(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    from vltrack.serve import uploads

    served = serve(idle_s=0.5)
    key = expect(served.api, 5000)
    head = f"PUT /api/videos/{key}/content HTTP/1.1\r\nContent-Length: 5000"
    assert raw(served, head, b"x" * 100).startswith(b"HTTP/1.1 408")
    assert stored(served.media) == []
    monkeypatch.setattr(uploads, "_SLOW_AFTER", 0.1)
    key = expect(served.api, 5000)
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as line:
        begin = (
            f"PUT /api/videos/{key}/content HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nContent-Length: 5000\r\n\r\n"
        )
        line.sendall(begin.encode())
        line.settimeout(0.1)
        said = b""
        while not said:
            line.sendall(b"x")
            try:
                said = line.recv(1 << 16)
            except TimeoutError:
                continue
    assert said.startswith(b"HTTP/1.1 408")
    assert stored(served.media) == []


@pytest.mark.fault("W03")
@pytest.mark.fault("W04")
def test_an_upload_that_broke_off_goes_on_where_it_was(
    serve: Callable[..., Served], clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served, data = serve(), clip.read_bytes()
    key = expect(served.api, len(data))
    with caplog.at_level(logging.ERROR):
        head = f"PUT /api/videos/{key}/content HTTP/1.1\r\nContent-Length: {len(data)}"
        raw(served, head, data[:300_000], close=True)
        view: dict[str, Any] = {}
        while view.get("received") != 300_000:
            view = served.api("GET", f"/api/videos/{key}")
            time.sleep(0.02)
    assert view["state"] == "uploading"
    assert "Traceback" not in caplog.text
    rest = data[300_000:]
    for offset in ("0", "299999", "300001"):
        served.api("PUT", f"/api/videos/{key}/content", 409, content=rest, headers={"upload-offset": offset})
    served.api("PUT", f"/api/videos/{key}/content", 400, content=rest, headers={"upload-offset": "-1"})
    done = served.api("PUT", f"/api/videos/{key}/content", content=rest, headers={"upload-offset": "300000"})
    assert done["state"] == "ready"
    assert done["facts"]["frames"] == 40
    assert (served.media / "videos" / key).read_bytes() == data
    served.api("PUT", f"/api/videos/{key}/content", 409, content=b"x", headers={"upload-offset": str(len(data))})


@pytest.mark.fault("W04")
def test_a_resumed_upload_with_other_bytes_is_refused_by_its_sha256(api: Api, clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    key = expect(api, len(data))
    path = f"/api/videos/{key}/content"
    api("PUT", f"{path}?sha256={digest.upper()}", 400, content=data)
    for middle, status in ((b"\0" * 1000, 422), (data[1000:2000], 200)):
        api("PUT", f"{path}?sha256={digest}", 202, content=data[:1000])  # not complete: nothing to compare yet
        api("PUT", path, 202, content=middle, headers={"upload-offset": "1000"})
        done = api("PUT", f"{path}?sha256={digest}", status, content=data[2000:], headers={"upload-offset": "2000"})
        assert (stored(tmp_path / "media") == []) == (status == 422)
    assert done["state"] == "ready"


@pytest.mark.fault("W05")
@pytest.mark.parametrize("size", [900, 3 << 20])  # written when the file is closed; written before all has come
def test_a_disk_that_fills_up_during_an_upload_is_said_and_it_can_be_sent_again(
    api: Api, clip: Path, tmp_path: Path, size: int
) -> None:
    known, key = api.upload(clip), expect(api, size)
    path = tmp_path / "media" / "videos" / key
    path.symlink_to("/dev/full")
    said = api("PUT", f"/api/videos/{key}/content", 507, content=b"x" * size)["error"]
    assert said["code"] == "ResourceError"
    assert "a.mp4: the disk is full" in said["message"]
    assert str(tmp_path) not in json.dumps(said)
    assert stored(tmp_path / "media") == [known]
    view = api("GET", f"/api/videos/{key}")
    assert (view["state"], view["received"]) == ("uploading", 0)
    assert api("PUT", f"/api/videos/{key}/content", 202, content=b"x" * (size - 1))["received"] == size - 1


@pytest.mark.fault("W05")
def test_a_database_that_cannot_grow_is_said(api: Api) -> None:
    base = api.client.app._app.state.studio.store._base  # type: ignore[attr-defined]
    base.execute("PRAGMA max_page_count = 1")
    said = ""
    for _ in range(200):
        done = api.client.post("/api/videos", json={"name": "a" * 200, "size": 10})
        if done.status_code != 201:
            said = done.json()["error"]["message"]
            break
    assert done.status_code == 507
    assert "database or disk is full" in said
    assert api("GET", "/api/health")["ok"]


@pytest.mark.fault("W05")
def test_a_full_disk_is_said_and_other_videos_stay(api: Api, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vltrack.serve.store import Store

    known = api.upload(clip)
    monkeypatch.setattr(Store, "room", lambda self: (1 << 30) + 1000)
    said = api("POST", "/api/videos", 507, json={"name": "a.mp4", "size": 1001})
    assert said["error"]["code"] == "ResourceError"
    key = expect(api, 900)
    monkeypatch.setattr("vltrack.serve.uploads._CHECKED", 0)
    monkeypatch.setattr(Store, "room", lambda self: 0)
    api("PUT", f"/api/videos/{key}/content", 507, content=b"x" * 900)
    assert api("GET", f"/api/videos/{known}")["state"] == "ready"


NAMES = ["../../etc/passwd", "a\0b.mp4", "a" * 1000, "\u202egpj.mp4", "<img src=x onerror=alert(1)>", "CON"]


@pytest.mark.fault("W06")
def test_file_names_are_display_text_only(api: Api, tmp_path: Path) -> None:
    media, before = tmp_path / "media", {path for path in tmp_path.rglob("*") if path.is_file()}
    for name in NAMES:
        body = json.dumps({"name": name, "size": 4})
        key = api("POST", "/api/videos", 201, content=body, headers={"content-type": "application/json"})["id"]
        api("PUT", f"/api/videos/{key}/content", 202, content=b"abc")
        shown = api("GET", f"/api/videos/{key}")["name"]
        assert shown.isprintable()
        assert "/" not in shown
        assert len(shown) <= 200
    for refused in ("a" * 10_000, "\ud800"):
        body = json.dumps({"name": refused, "size": 4})
        api("POST", "/api/videos", 422, content=body, headers={"content-type": "application/json"})
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(media) for path in written)
    assert len(stored(media)) == len(NAMES)
    assert all(len(name) == 32 for name in stored(media))


@pytest.mark.fault("W07")
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"no video at all" * 50, "VideoUnreadable"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\nfile:///etc/passwd\n", "VideoForbiddenFormat"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "VideoForbiddenFormat"),
    ],
)
def test_what_is_no_video_is_refused_with_its_code(api: Api, tmp_path: Path, data: bytes, code: str) -> None:
    key = expect(api, len(data))
    said = api("PUT", f"/api/videos/{key}/content", 422, content=data)["error"]
    assert said["code"] == code
    assert "a.mp4" in said["message"]
    assert str(tmp_path) not in json.dumps(said)
    assert stored(tmp_path / "media") == []
    view = api("GET", f"/api/videos/{key}")
    assert view["state"] == "refused"
    api("GET", f"/api/videos/{key}/frames/0", 409)

"""Rows W08-W15, W20, W21, W24-W27: hosts, sites, tokens, bodies, boxes, ranges, addresses, logs."""

from __future__ import annotations

import json
import logging
import logging.handlers
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from studio_server import ADDRESS, Api, Served
from test_uploads import raw

from vltrack.core.errors import UsageError
from vltrack.serve.app import secured
from vltrack.serve.bodies import answer
from vltrack.serve.run import write_log
from vltrack.serve.settings import Settings, allowed_host, choose_token

UNKNOWN = "0" * 32
EVERYWHERE = "0.0.0.0"  # noqa: S104 - refused, or only compared
JSON = {"content-type": "application/json"}


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Path]:
    """The server's log; what logs is as before afterwards."""
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.access", "uvicorn.error")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    path = tmp_path / "studio.log"
    write_log(path)
    yield path
    loggers[0].handlers[0].close()
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def studio(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "vltrack", "studio", *words]
    kept = {key: value for key, value in os.environ.items() if key != "VLTRACK_STUDIO_TOKEN"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**kept, **environment})


@pytest.mark.fault("W08")
def test_what_is_not_there_is_said_in_one_form(api: Api) -> None:
    known = api.clip()
    expected = api("GET", f"/api/videos/{UNKNOWN}", 404)
    for path in (
        "/api/videos/..%2f..%2fetc%2fpasswd", "/api/videos/%2e%2e", "/api/videos/%252e%252e%252f",
        f"/api/videos/{known[:-1]}", f"/api/videos/{known}/frames/x", f"/api/videos/{known.upper()}",
        "/api/targets/1/rows", f"/api/jobs/{UNKNOWN}",
        "/page/..%2fapp.py", "/page/%2fetc%2fpasswd", "//etc/passwd", "/api/jobs/%00", f"/api/jobs/{UNKNOWN}/file",
        f"/api/videos/{known}/files/x?targets={UNKNOWN}", "/docs", "/openapi.json",
    ):  # fmt: skip
        assert api("GET", path, 404) == expected, path
    assert len(known) == 32
    assert int(known, 16) >= 0


@pytest.mark.fault("W09")
def test_another_host_is_refused(serve: Callable[..., Served]) -> None:
    served = serve()
    for host in ("evil.example", f"evil.example:{served.port}", "127.0.0.1", f"127.0.0.1:{served.port + 1}", "[::1"):
        served.api("GET", "/api/state", 421, headers={"host": host})
    served.api("GET", "/api/state", headers={"host": f"localhost:{served.port}"})
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as line:
        line.sendall(b"GET /api/state HTTP/1.0\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 400")
    assert raw(served, "GET /api/state HTTP/1.1\r\nHost: a").startswith(b"HTTP/1.1 400")
    wide = Settings(media=Path("m"), host=EVERYWHERE, port=80, token="x" * 16)
    assert allowed_host("192.168.1.4", wide)
    assert not allowed_host("rebound.example", wide)


@pytest.mark.fault("W10")
def test_requests_of_other_sites_change_nothing(api: Api) -> None:
    key = api.clip()
    target = api.target(key)
    body = json.dumps({"start": {"frame": 0, "box": [1, 1, 9, 9]}})
    path = f"/api/videos/{key}/targets"
    for origin in (
        "http://evil.example",
        "null",
        "https://127.0.0.1:8008",
        "http://127.0.0.1:9",
        "http://127.0.0.1:8008.evil",
    ):
        for method, where in (("POST", path), ("DELETE", f"/api/videos/{key}"), ("PUT", f"/api/videos/{key}/content")):
            api(method, where, 403, content=body, headers={**JSON, "origin": origin})
    for site in ("cross-site", "same-site"):
        for method, where in (("POST", path), ("GET", "/api/state"), ("GET", f"/api/videos/{key}/frames/0")):
            api(method, where, 403, content=body, headers={**JSON, "sec-fetch-site": site})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        api("POST", path, 415, content=body, headers={"content-type": kind})
    assert [each["id"] for each in api("GET", f"/api/videos/{key}")["targets"]] == [target]
    api("POST", path, 201, content=body, headers={**JSON, "origin": ADDRESS, "sec-fetch-site": "same-origin"})
    api("GET", "/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"})  # a link to the page


@pytest.mark.fault("W10")
def test_websockets_are_refused(api: Api) -> None:
    from starlette.websockets import WebSocketDisconnect

    assert isinstance(api.client, TestClient)
    with pytest.raises(WebSocketDisconnect), api.client.websocket_connect("/api/state"):
        pass


@pytest.mark.fault("W11")
def test_other_interfaces_need_a_token(tmp_path: Path) -> None:
    for host in (EVERYWHERE, "192.168.1.4", "::", "example.org"):
        done = studio("--host", host, "--port", "0", "--media", str(tmp_path / "media"))
        assert done.returncode == 2, done.stderr
        assert "--token" in done.stderr
    assert studio("--token", "short").returncode == 2
    assert choose_token("127.0.0.1", None) is None
    assert len(choose_token(EVERYWHERE, "auto") or "") >= 22  # 128 bits
    with pytest.raises(UsageError):
        choose_token(EVERYWHERE, "x" * 15)


@pytest.mark.fault("W11")
@pytest.mark.fault("W26")
def test_the_token_is_asked_for_and_not_logged(serve: Callable[..., Served], logged: Path) -> None:
    token = "correct-horse-battery"  # noqa: S105
    served = serve(token=token)
    api = served.api
    api("GET", "/api/health")
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"cookie": f"vltrack_{served.port}=x"},
        {"cookie": "\x7f=;;="},
    ):
        api("GET", "/api/state", 401, headers=headers)
    api("GET", f"/api/state?token={token}&injected=%0d%0aline", 401)
    api("GET", "/api/state", headers={"authorization": f"Bearer {token}"})
    api("POST", "/api/login", 401, json={"token": "wrong"})
    cookie = api("POST", "/api/login", 204, json={"token": token}).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    api("GET", "/api/state")
    text = logged.read_text()
    assert "GET /api/state 401" in text
    assert token not in text


@pytest.mark.fault("W12")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"frame": 0, "text": "a", "more": 1}', 422),
        (b'{"frame": "0", "text": "a"}', 422),
        (b'{"frame": 0.5, "text": "a"}', 422),
        (b'{"frame": true, "text": "a"}', 422),
        (b'{"frame": -1, "text": "a"}', 422),
        (b'{"frame": 99999999999999999999999, "text": "a"}', 422),
        (b'{"frame": 0}', 422),
        (b'[{"frame": 0}]', 422),
        (b'{"frame": NaN, "text": "a"}', 400),
        (b'{"frame": 0, "frame": 0, "text": "a"}', 400),
        (b"[" * 60_000, 400),
        (b'{"frame": 0, "text": "\xff"}', 400),
        (b"", 400),
        (b'{"frame": 0, "text": "' + b"a" * 100_000 + b'"}', 413),
        (b'{"frame": 0, "text": "' + b"a" * 9000 + b'"}', 422),
    ],
)
def test_bodies_are_strict(api: Api, body: bytes, status: int) -> None:
    said = api("POST", f"/api/videos/{api.clip()}/find", status, content=body, headers=JSON)
    assert said["error"]["message"]


@pytest.mark.fault("W13")
@pytest.mark.parametrize(
    ("box", "status", "code"),
    [
        ([900, 0, 10, 10], 422, "BoxOutside"),
        ([0, 0, 0, 10], 422, "BoxInvalid"),
        ([10, 10, -5, 10], 422, "BoxInvalid"),
        ([1e300, 0, 10, 10], 422, "Refused"),
        ([0, 0, 10], 422, "Refused"),
        (["0", 0, 10, 10], 422, "Refused"),
    ],
)
def test_boxes_are_checked_against_the_frame(api: Api, box: list[Any], status: int, code: str) -> None:
    key = api.clip()
    path = f"/api/videos/{key}/targets"
    assert api("POST", path, status, json={"start": {"frame": 0, "box": box}})["error"]["code"] == code
    api("POST", path, 400, content=b'{"start": {"frame": 0, "box": [NaN, 0, 1, 1]}}', headers=JSON)
    said = api("POST", path, 422, json={"start": {"frame": 40, "box": [1, 1, 9, 9]}})
    assert said["error"]["code"] == "BoxFrameOutOfRange"
    assert api("GET", f"/api/videos/{key}")["targets"] == []


@pytest.mark.fault("W14")
@pytest.mark.fault("W15")
def test_ranges_and_slow_readers_of_a_large_file(serve: Callable[..., Served]) -> None:
    served = serve()
    api, size = served.api, 64 << 20
    key = api.clip()
    app_job = api("POST", f"/api/videos/{key}/export", 409, json={"targets": [api.target(key)], "format": "mp4"})
    assert app_job["error"]["code"] == "StateError"
    job = _drawn(served, key, size)
    path = f"/api/jobs/{job}/file"
    assert api("GET", path, 206, headers={"range": "bytes=0-99"}).headers["content-range"] == f"bytes 0-99/{size}"
    assert len(api("GET", path, 206, headers={"range": "bytes=-5"}).content) == 5
    assert len(api("GET", path, 206, headers={"range": f"bytes={size - 2}-999999999999"}).content) == 2
    for wrong, status in ((f"bytes={size}-", 416), ("bytes=9-1", 400), ("items=0-1", 400), ("bytes=", 400)):
        api("GET", path, status, headers={"range": wrong})
    api("GET", path, 206, headers={"range": "bytes=0-1,4-5"})
    many = "bytes=" + ",".join(f"{n}-{n}" for n in range(500))
    api("GET", path, 416, headers={"range": many})
    before = _resident()
    lines = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(60)]
    for line in lines:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode())
    for line in lines:
        assert line.recv(15) == b"HTTP/1.1 200 OK"
    api("GET", "/api/health")
    assert _resident() - before < 5 * size  # of 60 times as much that they did not read
    for line in lines:
        line.close()


def _drawn(served: Served, video: str, size: int) -> str:
    """A finished drawing with a file of so many bytes, as the worker would leave it."""
    import sqlite3

    job = os.urandom(16).hex()
    folder = served.media / "jobs" / job
    folder.mkdir()
    with (folder / "drawn.mp4").open("wb") as file:
        file.truncate(size)
    base = sqlite3.connect(served.media / "studio.sqlite")
    request = json.dumps({"targets": [], "format": "mp4"})
    base.execute(
        "INSERT INTO jobs (id, video, kind, state, request, created) VALUES (?, ?, 'draw', 'done', ?, 0)",
        (job, video, request),
    )
    base.commit()
    base.close()
    return job


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.fault("W20")
def test_answers_hold_no_number_that_json_lacks() -> None:
    body = bytes(answer({"a": math.nan, "b": [math.inf, 1.5, (-math.inf,)]}).body)
    assert json.loads(body, parse_constant=pytest.fail) == {"a": None, "b": [None, 1.5, [None]]}


@pytest.mark.fault("W21")
def test_broken_requests_leave_the_server_alive(serve: Callable[..., Served]) -> None:
    served = serve()
    for head in (
        "BREW /api/state HTTP/1.1", "GET /api/videos/%ff%fe HTTP/1.1", f"GET /?{'a' * 40_000} HTTP/1.1", "GET",
        "GET /api/state?%zz=\u00ff HTTP/1.1", f"GET / HTTP/1.1\r\nX: {'a' * 100_000}",
        "DELETE /api/videos HTTP/1.1", "/api/state GET HTTP/1.1", "PROPFIND / HTTP/1.1",
    ):  # fmt: skip
        said = raw(served, head)
        assert said == b"" or said.split()[1][:1] == b"4", (head[:60], said[:80])
    twice = f"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as line:
        line.sendall(twice * 2)
        said = b""
        while said.count(b"HTTP/1.1 200") < 2:
            said += line.recv(4096)
    assert served.api("GET", "/api/health")["ok"]


@pytest.mark.fault("W24")
def test_no_address_is_ever_fetched(api: Api, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        address = f"http://127.0.0.1:{trap.getsockname()[1]}/clip.mp4"
        trap.settimeout(0.3)
        key = api.clip()
        api("POST", "/api/clips", 422, json={"clip": address})
        api("POST", "/api/videos", 201, json={"name": address, "size": 5})
        api("POST", f"/api/videos/{key}/find", json={"frame": 0, "text": f"car {address}"})
        api("PATCH", f"/api/targets/{api.target(key)}", json={"name": address})
        playlist = f"#EXTM3U\n{address}\n".encode()
        upload = api("POST", "/api/videos", 201, json={"name": "a.m3u8", "size": len(playlist)})["id"]
        api("PUT", f"/api/videos/{upload}/content", 422, content=playlist)
        done = studio(address, "--port", "0", "--media", str(tmp_path / "other"))
        assert done.returncode == 3, done.stderr
        with pytest.raises(TimeoutError):
            trap.accept()


@pytest.mark.fault("W25")
def test_a_port_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = studio("--port", str(port), "--media", str(tmp_path / "media"))
    assert done.returncode == 6
    assert f"{port}: it is in use" in done.stderr
    assert studio("--host", "203.0.113.9", "--token", "auto", "--media", str(tmp_path / "media")).returncode == 6


@pytest.mark.fault("W26")
def test_the_log_has_one_line_a_record_and_is_rotated(logged: Path, tmp_path: Path) -> None:
    handler = logging.getLogger("uvicorn").handlers[0]
    assert isinstance(handler, logging.handlers.RotatingFileHandler)
    assert (handler.maxBytes, handler.backupCount) == (10 << 20, 9)
    handler.maxBytes = 2000
    logger = logging.getLogger("uvicorn.access")
    for number in range(800):
        hostile = f"/a\r\n2026-01-01 forged\x1b[31m{number}?token=secret"
        logger.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", hostile, "1.1", 404)
    files = sorted(tmp_path.glob("studio.log*"))
    assert len(files) == 10
    for file in files:
        assert file.stat().st_size <= 2100
        text = file.read_text()
        assert all(line.startswith("20") and " INFO GET /a" in line for line in text.splitlines())
        assert "\x1b" not in text
        assert "secret" not in text


@pytest.mark.fault("W27")
def test_a_video_that_is_removed_while_it_is_shown(make_api: Callable[..., Api], clip: Path, tmp_path: Path) -> None:
    api = make_api()
    key = api.upload(clip)
    target = api.target(key)
    api("GET", f"/api/videos/{key}/frames/3")
    api("DELETE", f"/api/videos/{key}", 204)
    for path in ("", "/frames/3", "/recipe"):
        assert "removed" in api("GET", f"/api/videos/{key}{path}", 410)["error"]["message"]
    api("DELETE", f"/api/videos/{key}", 410)
    api("GET", f"/api/targets/{target}/rows", 404)
    assert list((tmp_path / "media" / "videos").iterdir()) == []


@pytest.mark.fault("W27")
def test_videos_that_were_not_opened_for_long_are_removed(
    tmp_path: Path, clip: Path, make_api: Callable[..., Api]
) -> None:
    settings = Settings(media=tmp_path / "media")
    with TestClient(secured(settings), base_url=ADDRESS) as client:
        api = Api(client)
        old, new = api.upload(clip), api.upload(clip)
        client.app._app.state.studio.store.set("videos", old, used=time.time() - 3 * 86400)  # type: ignore[attr-defined]
    api = make_api(keep_days=2)
    api("GET", f"/api/videos/{old}", 410)
    assert api("GET", f"/api/videos/{new}")["state"] == "ready"

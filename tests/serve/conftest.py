"""Fixtures of the studio's tests: the application in this process, a server in a thread, videos."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient
from studio_server import ADDRESS, Api, Served, write_video

from vltrack.api.inputs import demo_clip
from vltrack.serve.app import secured
from vltrack.serve.run import listen
from vltrack.serve.settings import Settings


@pytest.fixture(scope="session")
def clip() -> Path:
    return demo_clip()[0]


@pytest.fixture(scope="session")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("long") / "long.mp4", 1500)


@pytest.fixture
def make_api(tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """``make_api(**settings)``: a studio in this process, without sockets."""
    opened: list[TestClient] = []

    def make(**settings: Any) -> Api:
        app = secured(Settings(media=tmp_path / "media", **settings))
        client = TestClient(app, base_url=ADDRESS, raise_server_exceptions=False)
        opened.append(client.__enter__())
        return Api(client)

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """``serve(**settings)``: a studio behind a real socket, in a thread."""
    ends: list[Callable[[], None]] = []

    def start(**settings: Any) -> Served:
        listening = listen("127.0.0.1", 0)
        port = listening.getsockname()[1]
        media = tmp_path / "media"
        config = uvicorn.Config(
            secured(Settings(media=media, port=port, **settings)), log_config=None, ws="none",
            timeout_graceful_shutdown=1, h11_max_incomplete_event_size=16 << 10, http="h11",
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

        def end() -> None:
            client.close()
            server.should_exit = True
            thread.join(20)
            listening.close()

        ends.append(end)
        return Served(f"http://127.0.0.1:{port}", port, media, Api(client))

    yield start
    for end in ends:
        end()

"""Videos of the studio's tests, and requests to a studio."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from vltrack.video.writer import VideoWriter

ADDRESS = "http://127.0.0.1:8008"


def write_video(path: Path, frames: int, size: tuple[int, int] = (160, 120)) -> Path:
    """A square that moves over a still ground."""
    ground = np.random.default_rng(0).integers(90, 130, (size[1], size[0], 3), dtype=np.uint8)
    with VideoWriter(path, width=size[0], height=size[1]) as video:
        for number in range(frames):
            image = ground.copy()
            x = 20 + number * 80 // frames
            image[40:70, x : x + 30] = (210, 40, 30)
            video.write(image)
    return path


class Api:
    """Requests to a studio, and what tests do with it all the time."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def __call__(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """Send a request, check the status, and return the JSON of the answer, or the answer."""
        done = self.client.request(method, path, **options)
        assert done.status_code == status, done.text
        return done.json() if done.headers.get("content-type") == "application/json" else done

    def upload(self, path: Path, name: str | None = None) -> str:
        data = path.read_bytes()
        key = self("POST", "/api/videos", 201, json={"name": name or path.name, "size": len(data)})["id"]
        self("PUT", f"/api/videos/{key}/content", content=data)
        return str(key)

    def clip(self) -> str:
        return str(self("POST", "/api/clips", json={"clip": "car-shadow"})["id"])

    def target(self, video: str, frame: int = 0, **start: Any) -> str:
        start = start or {"box": [313, 88, 342, 194]}
        made = self("POST", f"/api/videos/{video}/targets", 201, json={"start": {"frame": frame, **start}})
        return str(made["id"])

    def track(self, video: str, *targets: str) -> str:
        return str(self("POST", f"/api/videos/{video}/track", 202, json={"targets": targets})["jobs"][0])

    def finished(self, job: str, *states: str) -> dict[str, Any]:
        """Wait for the end of a job."""
        return self.until(job, lambda row: row["state"] not in ("queued", "running"), *states)

    def until(self, job: str, met: Callable[[dict[str, Any]], bool], *states: str) -> dict[str, Any]:
        while not met(row := self("GET", f"/api/jobs/{job}")):
            time.sleep(0.05)
        assert not states or row["state"] in states, row
        return dict(row)

    def events(self, job: str) -> Iterator[dict[str, Any]]:
        with self.client.stream("GET", f"/api/jobs/{job}/events") as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])


@dataclass(frozen=True)
class Served:
    address: str
    port: int
    media: Path
    api: Api

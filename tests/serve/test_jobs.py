"""Rows W16-W19 of the fault table, and what the studio does with sentences, tracks and corrections."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from studio_server import Api, Served

import vltrack
from vltrack.api.keyframes import read_keyframes
from vltrack.core.track import Mark, Track
from vltrack.serve.jobs import Jobs, QueueFull
from vltrack.serve.settings import Settings
from vltrack.serve.store import Store
from vltrack.serve.studio import boxes_by_interpolation
from vltrack.serve.workers import Worker
from vltrack.tracking.starts import DOUBTFUL_START

BOX = [313, 88, 342, 194]


def running(api: Api, job: str, rows: int = 1) -> None:
    """Wait until a job has reported so many rows."""
    for event in api.events(job):
        if event["sent"] >= rows:
            return
    pytest.fail(f"{job} ended early")


def test_a_sentence_is_tracked_corrected_undone_and_exported(api: Api, tmp_path: Path) -> None:
    video = api.clip()
    found = api("POST", f"/api/videos/{video}/find", json={"frame": 0, "text": "the small silver car"})
    assert found["fits"]
    assert not found["ambiguous"]
    best = found["boxes"][0]
    assert best["label"] == "car"
    assert best["score"] > DOUBTFUL_START
    kinds = {each["word"]: each["kind"] for each in found["words"]}
    assert kinds["car"] == "decides"
    assert kinds["the"] == "nothing"
    target = api.target(video, box=best["box"], text="the small silver car")
    job = api.track(video, target)
    rows: dict[int, list[Any]] = {}
    for event in api.events(job):
        rows |= {frame: each[target] for frame, each in event["rows"]}
    assert sorted(rows) == list(range(40))
    before = api("GET", f"/api/targets/{target}/rows")
    assert [row[1:5] for row in before["rows"]] == [rows[frame][:4] for frame in range(40)]
    assert all(0 <= frame < 40 for frame in before["review"])

    box = [before["rows"][20][1] + 8, *before["rows"][20][2:5]]
    job = api("POST", f"/api/targets/{target}/marks", 202, json={"frame": 20, "box": box})["job"]
    api.finished(job, "done")
    after = api("GET", f"/api/targets/{target}/rows")
    assert after["rows"][20][1:5] == pytest.approx(box, abs=0.01)
    assert after["rows"][0] == before["rows"][0]
    view = api("GET", f"/api/videos/{video}")["targets"][0]
    assert [mark["frame"] for mark in view["marks"]] == [0, 20]
    assert (view["undo"], view["redo"]) == (True, False)
    job = api("POST", f"/api/targets/{target}/marks", 202, json={"frame": 30, "absent": True})["job"]
    api.finished(job, "done")
    third = api("GET", f"/api/targets/{target}/rows")
    assert third["rows"][:20] == after["rows"][:20]  # the span between the first two marks is not tracked again
    assert [row[6] for row in third["rows"][30:]] == [0] * 10
    view = api("POST", f"/api/targets/{target}/undo")
    assert [mark["frame"] for mark in view["marks"]] == [0, 20]
    assert api("GET", f"/api/targets/{target}/rows") == after
    api("POST", f"/api/targets/{target}/undo")
    assert api("GET", f"/api/targets/{target}/rows") == before
    api("POST", f"/api/targets/{target}/undo", 409)
    assert api("POST", f"/api/targets/{target}/redo")["redo"]
    assert api("GET", f"/api/targets/{target}/rows") == after

    lines = api("GET", f"/api/videos/{video}/recipe")
    compile(lines["python"], "recipe", "exec")
    marks = tmp_path / "marks.csv"
    marks.write_text("\n".join(lines["command"].splitlines()[1:-2]))
    name = "the small silver car"
    found, sentences = read_keyframes(marks)
    assert ([mark.frame for mark in found[name]], sentences) == ([0, 20], {name: name})
    for form, said in [
        ("cvat", "-o boxes.xml"),
        ("mp4", "-o boxes.mp4"),
        ("coco", "-o boxes.csv\nvltrack convert boxes.csv -o boxes-coco.json --to coco --video car-shadow.mp4"),
        ("yolo", "-o boxes.csv\nvltrack convert boxes.csv -o boxes-yolo --to yolo --video car-shadow.mp4"),
    ]:
        lines = api("GET", f"/api/videos/{video}/recipe?format={form}")
        assert lines["command"].endswith(said)
        compile(lines["python"], "recipe", "exec")
    api("GET", f"/api/videos/{video}/recipe?format=docx", 404)

    text = api("GET", f"/api/videos/{video}/files/cvat?targets={target}").text
    boxes = ElementTree.fromstring(text).findall("track/box")  # noqa: S314 - ours
    marked = next(each for each in boxes if each.get("frame") == "20")
    assert [float(marked.get(side, "")) for side in ("xtl", "ytl")] == pytest.approx(box[:2], abs=0.01)
    table = api("GET", f"/api/videos/{video}/files/csv?targets={target}").text
    lines = list(csv.DictReader(line for line in io.StringIO(table) if not line.startswith("#")))
    assert len(lines) == 40


@pytest.mark.fault("W13")
def test_the_rows_are_those_of_the_command(api: Api, clip: Path) -> None:
    video = api.clip()
    target = api.target(video)
    api.finished(api.track(video, target), "done")
    rows = api("GET", f"/api/targets/{target}/rows")["rows"]
    track = vltrack.track(clip, box=tuple(BOX))
    assert [row[1:5] for row in rows] == [[pytest.approx(side, abs=0.01) for side in step.box] for step in track]


def test_a_target_named_later_is_tracked_both_ways(api: Api) -> None:
    video = api.clip()
    target = api.target(video, 20, box=[263.8, 139.2, 246, 132.1])
    api.finished(api.track(video, target), "done")
    rows = api("GET", f"/api/targets/{target}/rows")["rows"]
    assert [row[0] for row in rows] == list(range(40))
    assert sum(row[6] for row in rows[:20]) >= 15
    lines = api("GET", f"/api/videos/{video}/recipe")
    assert "--start 20 --backward" in lines["command"]
    compile(lines["python"], "recipe", "exec")


def test_a_late_start_is_sought(serve: Callable[..., Served], tmp_path: Path) -> None:
    from studio_server import write_video

    api = serve().api
    video = api.upload(write_video(tmp_path / "late.mp4", 2040, (64, 48)))
    target = api.target(video, 2030, box=[58, 16, 6, 12])
    job = api.track(video, target)
    running(api, job, 10)
    api("POST", f"/api/jobs/{job}/cancel", 204)  # the way back
    api.finished(job, "canceled", "done")
    rows = [row[0] for row in api("GET", f"/api/targets/{target}/rows")["rows"]]
    assert rows[-10:] == list(range(2030, 2040))


def test_frames_are_those_of_one_pass(api: Api, clip: Path) -> None:
    import cv2
    import numpy as np

    video = api.clip()
    with vltrack.open_source(clip) as source:
        images = {frame.index: frame.image for frame in source}
    for index in (39, 0, 17, 16, 15, 30):
        data = api("GET", f"/api/videos/{video}/frames/{index}").content
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        assert np.abs(image.astype(int) - images[index]).mean() < 3, index
    small = cv2.imdecode(np.frombuffer(api("GET", f"/api/videos/{video}/frames/3?width=160").content, np.uint8), 1)
    assert small.shape == (90, 160, 3)
    assert api("GET", f"/api/videos/{video}/frames/40", 422)["error"]["code"] == "BoxFrameOutOfRange"


def test_interpolation_is_counted_by_what_the_track_does() -> None:
    def track(boxes: list[list[float]]) -> Track:
        steps = [
            vltrack.Step(box=boxes[n], score=1.0, visible=True, index=n, seconds=n / 25)  # type: ignore[arg-type]
            for n in range(len(boxes))
        ]
        return Track.from_steps(steps)

    import numpy as np

    straight = [np.array([10.0 + 2 * n, 20, 40, 40]) for n in range(100)]
    assert boxes_by_interpolation(track(straight)) == 2  # type: ignore[arg-type]
    corner = [np.array([10.0 + 2 * min(n, 50), 20 + 2 * max(0, n - 50), 40, 40]) for n in range(100)]
    assert boxes_by_interpolation(track(corner)) == 3  # type: ignore[arg-type]
    assert boxes_by_interpolation(track(straight[:1])) == 1  # type: ignore[arg-type]


@pytest.mark.fault("W16")
def test_the_queue_is_bounded(api: Api, long_video: Path) -> None:
    video = api.upload(long_video)
    targets = [api.target(video, box=[20, 40, 30, 30]) for _ in range(9)]
    jobs = [api.track(video, target) for target in targets[:8]]
    done = api.client.post(f"/api/videos/{video}/track", json={"targets": targets[8:]})
    assert done.status_code == 429
    assert int(done.headers["retry-after"]) > 0
    api("POST", f"/api/videos/{video}/track", 409, json={"targets": targets[:1]})  # it is in the queue already
    for job in jobs:
        api("POST", f"/api/jobs/{job}/cancel", 204)
    for job in jobs:
        api.finished(job, "canceled")
    job = api.track(video, targets[8])
    running(api, job)
    api("POST", f"/api/jobs/{job}/cancel", 204)


@pytest.mark.fault("W16")
def test_videos_take_turns_in_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, started = threading.Semaphore(0), list[str]()

    def run(self: Worker, job: dict[str, Any], take: Any) -> dict[str, Any]:
        started.append(job["id"])
        gate.acquire()
        return {"kind": "done", "result": None}

    monkeypatch.setattr(Worker, "run", run)
    store = Store(tmp_path)
    facts = {"path": "", "own": 0, "state": "ready", "size": 0, "created": 0, "used": 0}
    a, b, c = (store.add("videos", name=name, **facts) for name in "abc")
    jobs = Jobs(store, Settings(media=tmp_path, queue=3), lambda row: {}, lambda *_: None)
    names: dict[str, str] = {}
    for video, name in [(a, "a1"), (a, "a2"), (a, "a3"), (b, "b1"), (b, "b2"), (c, "c1")]:
        names[jobs.add(video, "track", {})] = name
        while not started:
            time.sleep(0.01)
    with pytest.raises(QueueFull):
        jobs.add(a, "track", {})
    jobs.cancel(next(key for key, name in names.items() if name == "b2"))
    for _ in names:
        gate.release()
    while any(job["state"] in ("queued", "running") for job in store.all("jobs")):
        time.sleep(0.01)
    assert [names[key] for key in started] == ["a1", "b1", "c1", "a2", "a3"]
    jobs.close()
    store.close()


@pytest.mark.fault("W17")
def test_cancel_at_any_time_and_any_number_of_times(api: Api, long_video: Path, tmp_path: Path) -> None:
    video = api.upload(long_video)
    one, two = (api.target(video, box=[20, 40, 30, 30]) for _ in range(2))
    first, second = api.track(video, one), api.track(video, two)
    running(api, first, 5)
    for job in (second, first, first, second):
        api("POST", f"/api/jobs/{job}/cancel", 204)
    api.finished(first, "canceled")
    api.finished(second, "canceled")
    kept = api("GET", f"/api/targets/{one}/rows")["rows"]
    assert 5 <= len(kept) < 1500
    api("GET", f"/api/targets/{two}/rows", 409)
    api("POST", f"/api/jobs/{first}/cancel", 204)
    api("POST", f"/api/jobs/{first}/resume", 204)
    running(api, first, len(kept) + 1 - len(kept))
    api("DELETE", f"/api/videos/{video}", 204)
    api("GET", f"/api/jobs/{first}", 404)
    left = [path for folder in ("videos", "tracks", "jobs") for path in (tmp_path / "media" / folder).iterdir()]
    assert left == []
    other = api.clip()
    api.finished(api.track(other, api.target(other)), "done")


@pytest.mark.fault("W18")
def test_a_worker_that_dies_costs_its_job_alone(api: Api, long_video: Path) -> None:
    video = api.upload(long_video)
    job = api.track(video, api.target(video, box=[20, 40, 30, 30]))
    running(api, job)
    pid = api.client.app._app.state.studio.jobs.worker.pid  # type: ignore[attr-defined]
    os.kill(pid, signal.SIGKILL)
    row = api.finished(job, "failed")
    assert "SIGKILL" in row["error"]["message"]
    assert api("GET", "/api/health")["ok"]
    other = api.clip()
    api.finished(api.track(other, api.target(other)), "done")


@pytest.mark.fault("W18")
def test_a_worker_that_reports_nothing_is_stopped(make_api: Callable[..., Api], long_video: Path) -> None:
    api = make_api(silent_s=0.01)
    video = api.upload(long_video)
    row = api.finished(api.track(video, api.target(video, box=[20, 40, 30, 30])), "failed")
    assert "reported nothing" in row["error"]["message"]


def start_server(media: Path, *words: str) -> tuple[subprocess.Popen[str], Api]:
    command = [sys.executable, "-m", "vltrack", "studio", *words, "--port", "0", "--media", str(media)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    address = line.partition("open ")[2].split()[0]
    client = httpx.Client(base_url=address.partition("#")[0].rstrip("/"), timeout=60)
    for _ in range(200):
        try:
            client.get("/api/health")
            break
        except httpx.TransportError:
            time.sleep(0.1)
    return process, Api(client)


@pytest.mark.fault("W19")
@pytest.mark.fault("W03")
def test_a_server_that_is_killed_goes_on_after_a_restart(tmp_path: Path, long_video: Path) -> None:
    media = tmp_path / "media"
    process, api = start_server(media, str(long_video))
    video = api("GET", "/api/state")["videos"][0]["id"]
    target = api.target(video, box=[20, 40, 30, 30])
    job = api.track(video, target)
    running(api, job, 10)  # a reader that leaves does not end the job
    assert api("GET", f"/api/jobs/{job}")["state"] == "running"
    upload = api.upload(long_video)
    process.kill()
    process.wait()
    process.stderr.close()  # type: ignore[union-attr]
    api.client.close()
    (media / "videos" / "orphan").write_text("x")
    (media / "tracks" / "orphan.json").write_text("x")
    (media / "jobs" / "orphan").mkdir()

    process, api = start_server(media)
    try:
        assert not [path for path in media.rglob("orphan*")]
        assert (media / "videos" / upload).is_file()
        view = api("GET", f"/api/videos/{video}")
        assert [each["state"] for each in view["jobs"]] == ["interrupted"]
        assert view["targets"][0]["id"] == target
        api("POST", f"/api/jobs/{job}/resume", 204)
        running(api, job)
        api("POST", f"/api/jobs/{job}/cancel", 204)
        api.finished(job, "canceled")
        rows = api("GET", f"/api/targets/{target}/rows")["rows"]
        assert [row[0] for row in rows] == list(range(len(rows)))
        api("POST", f"/api/jobs/{job}/resume", 204)
        second = subprocess.run(
            [sys.executable, "-m", "vltrack", "studio", "--port", "0", "--media", str(media)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert second.returncode == 9, second.stderr
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130)
        process.stderr.close()  # type: ignore[union-attr]
        api.client.close()


def test_the_server_answers_while_it_tracks(serve: Callable[..., Served], long_video: Path) -> None:
    served = serve()
    api = served.api
    video = api.upload(long_video)
    target = api.target(video, box=[20, 40, 30, 30])
    job = api.track(video, target)
    running(api, job)
    for index in range(0, 1500, 100):
        assert api("GET", "/api/health")["ok"]
        assert api("GET", f"/api/videos/{video}/frames/{index}").content.startswith(b"\xff\xd8")
    assert api("GET", f"/api/jobs/{job}")["state"] == "running"
    api("POST", f"/api/jobs/{job}/cancel", 204)
    api.finished(job, "canceled")


@pytest.mark.fault("W23")
def test_rows_are_sent_again_to_whoever_comes_later(serve: Callable[..., Served], long_video: Path) -> None:
    served = serve()
    api = served.api
    video = api.upload(long_video)
    target = api.target(video, box=[20, 40, 30, 30])
    job = api.track(video, target)
    running(api, job, 40)
    api("POST", f"/api/jobs/{job}/cancel", 204)
    every = [row for event in api.events(job) for row in event["rows"]]
    assert [frame for frame, _ in every] == list(range(len(every)))
    again = httpx.get(f"{served.address}/api/jobs/{job}/events?rows=30").text
    assert again.count(target) == len(every) - 30
    view = api("GET", f"/api/videos/{video}")
    assert view["targets"][0]["rows"] == len(every)


def test_marks_that_cannot_be_are_refused(api: Api) -> None:
    video = api.clip()
    target = api.target(video)
    path = f"/api/targets/{target}/marks"
    api("POST", path, 409, json={"frame": 1, "absent": True})  # not tracked yet
    for start in ({"absent": True}, {}, {"text": "..."}, {"box": BOX, "absent": True}):
        api("POST", f"/api/videos/{video}/targets", 422, json={"start": {"frame": 0, **start}})
    api.finished(api.track(video, target), "done")
    for mark in ({"frame": 40, "absent": True}, {"frame": 3}, {"frame": 3, "box": BOX, "absent": True}):
        api("POST", path, 422, json=mark)
    job = api("POST", path, 202, json={"frame": 0, "remove": True})["job"]
    assert api.finished(job, "failed")["error"]["code"] == "UsageError"  # no mark would be left
    assert Mark(0, box=(1, 2, 3, 4)).record() == {"frame": 0, "box": [1, 2, 3, 4]}

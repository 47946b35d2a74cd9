"""The studio's web application: its routes, and errors as one sentence each."""

from __future__ import annotations

import asyncio
import json
import mimetypes
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import vltrack
from vltrack.api.convert import OWN
from vltrack.core.errors import VltrackError
from vltrack.serve.bodies import (
    Ask,
    Export,
    Login,
    MarkEdit,
    NewTarget,
    NewVideo,
    OpenClip,
    Refused,
    Rename,
    Run,
    answer,
    read_body,
)
from vltrack.serve.guard import Guard
from vltrack.serve.recipe import recipe
from vltrack.serve.settings import Settings
from vltrack.serve.store import LIVE, NotThere
from vltrack.serve.studio import DRAWN, TITLES, Studio, clip_cards, formats, job_record, models, status_of, video_record

PAGE = Path(__file__).parent / "page"
_ID = re.compile(r"[0-9a-f]{32}")
_SHARE = 500
"""Rows in one event at most: a page that is late catches up in several."""
_LOGIN_S = 0.5
_FOREVER = {"cache-control": "private, max-age=86400, immutable"}


def create_app(settings: Settings) -> FastAPI:
    """Return the application of one media folder; it opens and closes the folder with its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.studio = Studio(settings)
        yield
        await run_in_threadpool(app.state.studio.close)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan, redirect_slashes=False)
    app.add_exception_handler(VltrackError, _vltrack_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _bug)
    _page_routes(app, settings)
    _video_routes(app, settings)
    _work_routes(app, settings)
    _target_routes(app, settings)
    _job_routes(app, settings)
    return app


def secured(settings: Settings) -> Guard:
    """Return the application behind its guard."""
    app = create_app(settings)
    guard = Guard(app, settings)
    app.state.guard = guard
    return guard


def _error(status: int, code: str, message: str, hint: str) -> JSONResponse:
    headers = {"retry-after": "5"} if status == 429 else {}
    return JSONResponse({"error": {"code": code, "message": message, "hint": hint}}, status, headers)


async def _vltrack_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VltrackError)  # noqa: S101 - registered for it
    return _error(status_of(error), error.code, error.message, error.hint)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return await _vltrack_error(request, NotThere())
    return _error(status, "Refused", "The request is not one of the studio's.", "Reload the page.")


async def _invalid(request: Request, error: Exception) -> Response:
    """A part of the path that is not what it should be is as good as an unknown one."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    first = error.errors()[0]
    if first["loc"][0] == "path":
        return await _vltrack_error(request, NotThere())
    return _error(422, "Refused", f"{first['loc'][-1]}: {first['msg']}.", "Reload the page.")


async def _bug(request: Request, error: Exception) -> Response:
    return _error(500, "VltrackError", "An internal error; the log has it.", "Try again.")


def _studio(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


def _key(key: str) -> str:
    """Return an id. Raises ``NotThere`` for what cannot be one, as for one that is unknown."""
    if not _ID.fullmatch(key):
        raise NotThere
    return key


# -- the page -----------------------------------------------------------------------------------------


def _page_routes(app: FastAPI, settings: Settings) -> None:
    files = {path.name: path for path in PAGE.iterdir() if path.is_file()}

    @app.get("/")
    async def index() -> Response:
        return FileResponse(files["index.html"])

    @app.get("/page/{name}")
    async def static(name: str) -> Response:
        if name not in files:
            raise NotThere
        kind = {".js": "text/javascript"}.get(files[name].suffix) or mimetypes.guess_type(name)[0]
        return FileResponse(files[name], media_type=kind, headers={"cache-control": "no-cache"})

    @app.get("/api/health")
    async def health() -> Response:
        return answer({"ok": True, "version": vltrack.__version__})

    @app.post("/api/login")
    async def login(request: Request) -> Response:
        body = await read_body(request, Login, settings.max_body)
        cookie = request.app.state.guard.login(body.token)
        if cookie is None:
            await asyncio.sleep(_LOGIN_S)
            raise Refused(401, "The token is wrong.", "Copy it from the terminal.")
        return Response(status_code=204, headers={"set-cookie": cookie})

    @app.get("/api/state")
    async def state(request: Request) -> Response:
        studio = _studio(request)
        videos = [video_record(row) for row in studio.store.all("videos") if row["state"] in ("ready", "uploading")]
        return answer(
            {
                "version": vltrack.__version__,
                "videos": videos,
                "clips": clip_cards(),
                "models": models(),
                "formats": formats(),
                "max_upload": settings.max_upload,
            }
        )


# -- videos -------------------------------------------------------------------------------------------


def _video_routes(app: FastAPI, settings: Settings) -> None:
    @app.post("/api/videos")
    async def new(request: Request) -> Response:
        body = await read_body(request, NewVideo, settings.max_body)
        return answer({"id": _studio(request).new_upload(body.name, body.size)}, 201)

    @app.post("/api/clips")
    async def clip(request: Request) -> Response:
        body = await read_body(request, OpenClip, settings.max_body)
        return answer({"id": await run_in_threadpool(_studio(request).open_clip, body.clip)})

    @app.put("/api/videos/{key}/content")
    async def content(request: Request, key: str, sha256: str = "") -> Response:
        studio = _studio(request)
        video = studio.store.video(_key(key))
        if not await studio.uploads.receive(request, video, sha256):
            return answer({"received": studio.uploads.received(key)}, 202)
        await run_in_threadpool(studio.check_upload, key)
        return answer(studio.view(key))

    @app.get("/api/videos/{key}")
    async def view(request: Request, key: str) -> Response:
        return answer(_studio(request).view(_key(key)))

    @app.get("/api/videos/{key}/recipe")
    async def lines(request: Request, key: str, form: Annotated[str, Query(alias="format")] = "csv") -> Response:
        if form not in TITLES:
            raise NotThere
        return answer(recipe(_studio(request).view(_key(key)), form))

    @app.delete("/api/videos/{key}")
    async def remove(request: Request, key: str) -> Response:
        await run_in_threadpool(_studio(request).remove_video, _key(key))
        return Response(status_code=204)


def _work_routes(app: FastAPI, settings: Settings) -> None:
    @app.get("/api/videos/{key}/frames/{index}")
    async def frame(request: Request, key: str, index: int, width: int = 0) -> Response:
        studio = _studio(request)
        video = studio.ready(_key(key))
        if not (0 <= width <= 4096 and 0 <= index < 10**9):
            raise NotThere
        image = await run_in_threadpool(studio.frames.jpeg, video["path"], index, width)
        return Response(image, media_type="image/jpeg", headers=_FOREVER)

    @app.post("/api/videos/{key}/find")
    async def find(request: Request, key: str) -> Response:
        body = await read_body(request, Ask, settings.max_body)
        return answer(await run_in_threadpool(_studio(request).find, _key(key), body.frame, body.text))

    @app.post("/api/videos/{key}/warm")
    async def warm(request: Request, key: str) -> Response:
        await run_in_threadpool(_studio(request).warm, _key(key))
        return Response(status_code=204)

    @app.post("/api/videos/{key}/targets")
    async def target(request: Request, key: str) -> Response:
        body = await read_body(request, NewTarget, settings.max_body)
        studio = _studio(request)
        made = studio.add_target(_key(key), body.start, body.name)
        return answer(studio.target_view(studio.store.target(made)), 201)

    @app.post("/api/videos/{key}/track")
    async def track(request: Request, key: str) -> Response:
        body = await read_body(request, Run, settings.max_body)
        return answer({"jobs": _studio(request).track(_key(key), body.targets, body.model)}, 202)

    @app.post("/api/videos/{key}/export")
    async def export(request: Request, key: str) -> Response:
        body = await read_body(request, Export, settings.max_body)
        studio = _studio(request)
        if body.format not in DRAWN:
            raise Refused(422, "There is no such format.", f"Known: {', '.join(DRAWN)}.")
        return answer({"job": studio.draw(studio.ready(_key(key)), body.targets, body.format)}, 202)

    @app.get("/api/videos/{key}/files/{form}")
    async def table(request: Request, key: str, form: str, targets: str) -> Response:
        studio = _studio(request)
        video = studio.ready(_key(key))
        if form not in TITLES or form in DRAWN:
            raise NotThere
        keys = [_key(each) for each in targets.split(",")][:16]
        path = await run_in_threadpool(studio.export, video, keys, form)
        name = f"{Path(video['name']).stem}{'' if form in OWN else f'-{form}'}{path.suffix}"
        return FileResponse(path, filename=name, background=BackgroundTask(path.unlink))


# -- targets ------------------------------------------------------------------------------------------


def _target_routes(app: FastAPI, settings: Settings) -> None:
    @app.get("/api/targets/{key}/rows")
    async def rows(request: Request, key: str) -> Response:
        studio = _studio(request)
        return answer(await run_in_threadpool(studio.rows_of, studio.store.target(_key(key))))

    @app.patch("/api/targets/{key}")
    async def rename(request: Request, key: str) -> Response:
        body = await read_body(request, Rename, settings.max_body)
        studio = _studio(request)
        studio.rename(studio.store.target(_key(key)), body.name)
        return answer(studio.target_view(studio.store.target(key)))

    @app.delete("/api/targets/{key}")
    async def remove(request: Request, key: str) -> Response:
        studio = _studio(request)
        studio.store.target(_key(key))
        studio.store.remove_target(key)
        return Response(status_code=204)

    @app.post("/api/targets/{key}/marks")
    async def mark(request: Request, key: str) -> Response:
        body = await read_body(request, MarkEdit, settings.max_body)
        studio = _studio(request)
        return answer({"job": await run_in_threadpool(studio.correct, studio.store.target(_key(key)), body)}, 202)

    @app.post("/api/targets/{key}/{way}")
    async def step(request: Request, key: str, way: str) -> Response:
        studio = _studio(request)
        if way not in ("undo", "redo"):
            raise NotThere
        studio.step(studio.store.target(_key(key)), forward=way == "redo")
        return answer(studio.target_view(studio.store.target(key)))


# -- jobs ---------------------------------------------------------------------------------------------


def _job_routes(app: FastAPI, settings: Settings) -> None:
    @app.get("/api/jobs/{key}")
    async def job(request: Request, key: str) -> Response:
        return answer(job_record(_studio(request).store.get("jobs", _key(key))))

    @app.post("/api/jobs/{key}/cancel")
    async def cancel(request: Request, key: str) -> Response:
        studio = _studio(request)
        studio.store.get("jobs", _key(key))
        await run_in_threadpool(studio.jobs.cancel, key)
        return Response(status_code=204)

    @app.post("/api/jobs/{key}/resume")
    async def resume(request: Request, key: str) -> Response:
        studio = _studio(request)
        studio.resume(studio.store.get("jobs", _key(key)))
        return Response(status_code=204)

    @app.get("/api/jobs/{key}/events")
    async def events(request: Request, key: str, rows: int = 0) -> Response:
        studio = _studio(request)
        studio.store.get("jobs", _key(key))
        return StreamingResponse(_events(studio, key, max(0, rows)), media_type="text/event-stream")

    @app.get("/api/jobs/{key}/file")
    async def file(request: Request, key: str) -> Response:
        studio = _studio(request)
        row = studio.store.get("jobs", _key(key))
        path = studio.store.job_folder(key) / f"drawn.{row['request'].get('format')}"
        if row["kind"] != "draw" or row["state"] != "done" or not path.is_file():
            raise NotThere
        stem = Path(studio.store.video(row["video"])["name"]).stem
        return FileResponse(path, filename=f"{stem}{path.suffix}")


async def _events(studio: Studio, key: str, sent: int) -> AsyncIterator[str]:
    """Server-sent events of a job: its state, counts and rows, whenever they change, until it is finished."""
    last, beat = "", time.monotonic()
    while True:
        try:
            row = studio.store.get("jobs", key)
        except NotThere:
            yield "event: gone\ndata: {}\n\n"
            return
        feed = studio.jobs.feed(key)
        rows = feed.rows[sent : sent + _SHARE] if feed else []
        sent += len(rows)
        facts: dict[str, Any] = {
            "state": row["state"],
            "error": row["error"],
            "done": row["done"],
            "total": row["total"],
        }
        if feed and row["state"] in LIVE:
            facts |= {"done": feed.done, "total": feed.total, "pace": feed.pace, "warnings": feed.warnings}
        head = json.dumps(facts)
        over = row["state"] not in LIVE and not rows
        if rows or head != last or time.monotonic() - beat > 10:
            yield f'data: {{"job": {head}, "sent": {sent}, "rows": [{",".join(rows)}]}}\n\n'
            last, beat = head, time.monotonic()
        if over:
            return
        await asyncio.sleep(0.1 if len(rows) < _SHARE else 0)

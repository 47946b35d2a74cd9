"""What the studio can do with videos, targets and tracks, apart from HTTP."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

from vltrack.api import inputs
from vltrack.api.outputs import save_tracks, table_head, table_lines
from vltrack.checkpoints.cards import DEFAULT_MODEL, model_names
from vltrack.core.errors import BoxFrameOutOfRange, StateError, UsageError, VltrackError
from vltrack.core.files import printable, write_text
from vltrack.core.track import Track
from vltrack.core.types import Step
from vltrack.prep.prompts import check_box, clean_text
from vltrack.serve.bodies import Mark, Refused
from vltrack.serve.frames import Frames
from vltrack.serve.jobs import Jobs
from vltrack.serve.settings import Settings
from vltrack.serve.store import LIVE, Store, new_id
from vltrack.serve.uploads import Uploads
from vltrack.serve.work import error_record, step_record
from vltrack.serve.workers import Worker

DRAWN = {"mp4": ".mp4", "png": ".png"}
TABLES = {"csv": ".csv", "json": ".json"}
_NAME_LENGTH = 64
_TRACKS_KEPT = 8


class Studio:
    """One media folder, opened.

    Raises:
        ResourceError, StateError: see ``Store``.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.media)
        self.frames = Frames(settings.cache, settings.readers)
        self.uploads = Uploads(self.store, settings)
        self.finder = Worker("process that finds", settings.silent_s)
        self.jobs = Jobs(self.store, settings, self._prepare, self._finish)
        self._tracks: OrderedDict[str, Track] = OrderedDict()
        self._finds = 0
        if settings.keep_days is not None:
            self.store.remove_unused(settings.keep_days)

    def close(self) -> None:
        """Stop all processes and close the folder."""
        self.jobs.close()
        self.finder.close()
        self.frames.close()
        self.store.close()

    # -- videos -----------------------------------------------------------------------------------

    def open_path(self, path: Path, name: str | None = None) -> str:
        """Add a file or folder of this machine, or find it among the known ones; return the video's id.

        Raises:
            InputError, PartialResult: it is not a video that can be read.
        """
        place = str(path.resolve())
        for row in self.store.all("videos", path=place):
            if row["state"] == "ready":
                self.store.set("videos", row["id"], used=time.time())
                return str(row["id"])
        facts = self._facts(place)
        now = time.time()
        size = path.stat().st_size if path.is_file() else 0
        return self.store.add(
            "videos", name=printable(name or path.name), path=place, own=0, state="ready", size=size, facts=facts,
            created=now, used=now,
        )  # fmt: skip

    def open_clip(self, clip: str) -> str:
        """Add a clip that ships. Raises ``UsageError`` for an unknown one."""
        known = clips()
        if clip not in known:
            raise UsageError("There is no such clip.", hint=f"Known: {', '.join(known)}.")
        return self.open_path(known[clip], known[clip].name)

    def new_upload(self, name: str, size: int) -> str:
        """Expect the bytes of a video; return its id. Raises ``Refused`` or ``ResourceError`` for too many."""
        self.uploads.check_size(size)
        now, key = time.time(), new_id()
        shown = printable(name).replace("\\", "/").rsplit("/", 1)[-1][:200] or "video"
        path = str(self.store.upload_path(key))
        return self.store.add(
            "videos", id=key, name=shown, path=path, own=1, state="uploading", size=size, created=now, used=now
        )

    def check_upload(self, key: str) -> None:
        """Read the first frame of an upload that is complete. Raises what is wrong with it, and removes it then."""
        video = self.store.video(key)
        try:
            self.store.set("videos", key, facts=self._facts(video["path"]), state="ready")
        except VltrackError as error:
            self.frames.forget(video["path"])
            Path(video["path"]).unlink(missing_ok=True)
            error.message = error.message.replace(video["path"], video["name"])
            self.store.set("videos", key, state="refused", error=error_record(error))
            raise

    def _facts(self, path: str) -> dict[str, Any]:
        reader = self.frames.reader(path)
        info = reader.info
        return {
            "width": info.width,
            "height": info.height,
            "rate": info.rate or 25.0,
            "frames": reader.frames or 1,
            "seconds": info.seconds,
        }

    def ready(self, key: str) -> dict[str, Any]:
        """Return a video that can be used. Raises ``NotThere``, and ``StateError`` while it is uploaded or refused."""
        video = self.store.video(key)
        if video["state"] != "ready":
            raise StateError("The video is not complete, or was refused.", hint="Upload it again.")
        return video

    def view(self, key: str) -> dict[str, Any]:
        """Return what the page shows of a video: facts, targets, jobs."""
        video = self.store.video(key)
        self.store.set("videos", key, used=time.time())
        return {
            **video_record(video),
            "received": self.uploads.received(key) if video["state"] == "uploading" else video["size"],
            "targets": [self.target_view(each) for each in self.store.all("targets", video=key)],
            "jobs": [job_record(job) for job in self.store.all("jobs", video=key)],
        }

    def remove_video(self, key: str) -> None:
        """Cancel what is done with a video, and remove it."""
        video = self.store.video(key)
        self.jobs.cancel_video(key)
        self.frames.forget(video["path"])
        self.store.remove_video(key)

    # -- sentences and targets --------------------------------------------------------------------

    def find(self, key: str, frame: int, text: str) -> dict[str, Any]:
        """Return what a sentence names in a frame. Raises ``Refused`` (429) where too many are asked for."""
        video = self.ready(key)
        if self._finds >= self.settings.finds:
            raise Refused(429, "Too many sentences at once.", "Wait for the first.")
        self._finds += 1
        try:
            last = self.finder.run(
                {"id": new_id(), "kind": "find", "path": video["path"], "frame": frame, "text": clean_text(text)}
            )
        finally:
            self._finds -= 1
        if last["kind"] != "done":
            status = 422 if last.get("code") not in ("ResourceError", "VltrackError") else 500
            raise Refused(status, last.get("message", "The search was stopped."), last.get("hint", ""))
        return dict(last["result"])

    def checked_mark(self, video: dict[str, Any], mark: Mark, *, start: bool) -> dict[str, Any]:
        """Return a mark as it is kept. Raises ``InputError`` or ``UsageError`` for one that cannot be."""
        facts = video["facts"]
        if mark.frame >= facts["frames"]:
            raise BoxFrameOutOfRange(f"The video has no frame {mark.frame}.", hint=f"It has {facts['frames']} frames.")
        record: dict[str, Any] = {"frame": mark.frame}
        if mark.box is not None:
            box = check_box(mark.box, facts["width"], facts["height"]).box
            record["box"] = [round(float(side), 2) for side in box]
        if mark.text:
            record["text"] = clean_text(mark.text)
        if mark.absent:
            record["absent"] = True
        if start == mark.absent or (mark.absent and mark.box is not None) or len(record) == 1:
            raise UsageError("A mark is a box, a sentence or both, or that the target is not there.")
        return record

    def add_target(self, key: str, mark: Mark, name: str) -> str:
        """Add a target by its first mark; return its id."""
        video = self.ready(key)
        record = self.checked_mark(video, mark, start=True)
        others = self.store.all("targets", video=key)
        if len(others) >= 16:
            raise UsageError("A video has at most 16 targets.", hint="Remove one first.")
        colors = {each["color"] for each in others}
        color = next(number for number in range(17) if number not in colors)
        name = self._free_name(name or record.get("text") or f"target {color + 1}", others)
        return self.store.add("targets", video=key, name=name, color=color, start=record)

    def rename(self, target: dict[str, Any], name: str) -> None:
        """Give a target a name that no other one of its video has."""
        others = [each for each in self.store.all("targets", video=target["video"]) if each["id"] != target["id"]]
        self.store.set("targets", target["id"], name=self._free_name(name, others))

    @staticmethod
    def _free_name(name: str, others: list[dict[str, Any]]) -> str:
        short = " ".join(printable(name).replace(":", " ").split())[:_NAME_LENGTH] or "target"
        taken, free = {each["name"] for each in others}, short
        for number in range(2, 100):
            if free not in taken:
                break
            free = f"{short[: _NAME_LENGTH - 4]} {number}"
        return free

    def target_view(self, target: dict[str, Any]) -> dict[str, Any]:
        """Return what the page shows of a target, without its rows."""
        revision = self.store.revision(target)
        facts = revision["facts"] if revision else {}
        after = self.store.all("revisions", target=target["id"], parent=revision["id"]) if revision else []
        return {
            "id": target["id"],
            "name": target["name"],
            "color": target["color"],
            "start": target["start"],
            "revision": target["revision"],
            "marks": facts.get("marks", [target["start"]]),
            "rows": facts.get("rows", 0),
            "warnings": facts.get("warnings", []),
            "undo": bool(revision and revision["parent"]),
            "redo": bool(after),
        }

    def track_of(self, target: dict[str, Any]) -> Track:
        """Return the track of a target. Raises ``StateError`` before there is one."""
        if target["revision"] is None:
            raise StateError(f"{target['name']} was not tracked yet.", hint="Press Track.")
        key = target["revision"]
        if key not in self._tracks:
            self._tracks[key] = Track.load(self.store.track_path(key))
        self._tracks.move_to_end(key)
        while len(self._tracks) > _TRACKS_KEPT:
            self._tracks.popitem(last=False)
        return self._tracks[key]

    def rows_of(self, target: dict[str, Any]) -> dict[str, Any]:
        """Return the rows of a target as the page draws them."""
        track = self.track_of(target)
        return {"revision": target["revision"], "rows": [[step.index, *step_record(step)] for step in track]}

    # -- jobs -------------------------------------------------------------------------------------

    def track(self, key: str, targets: list[str], model: str) -> list[str]:
        """Queue the tracking of targets, those that start at one frame in one pass; return the ids of the jobs."""
        self.ready(key)
        model = model or DEFAULT_MODEL
        inputs.check_model(model)
        starts: dict[int, list[str]] = {}
        for each in dict.fromkeys(targets):
            row = self._target_of(key, each)
            starts.setdefault(row["start"]["frame"], []).append(each)
        busy = {name for job in self.store.all("jobs", video=key) if job["state"] in LIVE for name in job["request"]["targets"]}
        if busy & set(targets):
            raise StateError("A target is being tracked already.", hint="Wait, or cancel it.")
        return [self.jobs.add(key, "track", {"targets": names, "start": at, "model": model}) for at, names in starts.items()]

    def _target_of(self, video: str, key: str) -> dict[str, Any]:
        row = self.store.target(key)
        if row["video"] != video:
            raise UsageError("The target belongs to another video.")
        return row

    def resume(self, job: dict[str, Any]) -> None:
        """Queue a job again that was interrupted, canceled or failed; it goes on where it stopped."""
        if job["state"] not in ("interrupted", "canceled", "failed"):
            raise StateError("The job is not interrupted.", hint="Start another one.")
        self.jobs.add(job["video"], job["kind"], job["request"], job["id"])

    def _prepare(self, job: dict[str, Any]) -> dict[str, Any]:
        """What the worker gets for a job."""
        video, request = self.ready(job["video"]), job["request"]
        common = {"path": video["path"], "name": video["name"], "folder": str(self.store.job_folder(job["id"]))}
        targets = [self._target_of(job["video"], key) for key in request["targets"]]
        if job["kind"] == "draw":
            tracks = [{"name": each["name"], "path": str(self.store.track_path(each["revision"]))} for each in targets]
            return {**common, "tracks": tracks, "file": f"drawn.{request['format']}"}
        files = {each["id"]: str(self.store.track_path(new_id())) for each in targets}
        return {
            **common,
            "targets": {each["id"]: each["start"] for each in targets},
            "start": request["start"],
            "model": request["model"],
            "files": files,
        }

    def _finish(self, job: dict[str, Any], last: dict[str, Any], sent: dict[str, Any]) -> None:
        """Take up what the worker has left: the rows of a track, also of one that was canceled."""
        if job["kind"] != "track" or not last.get("result"):
            return
        feed = self.jobs.feed(job["id"])
        warnings = feed.warnings if feed else []
        for key, rows in last["result"].items():
            with suppress(VltrackError):  # removed meanwhile
                target = self.store.target(key)
                facts = {"marks": [target["start"]], "rows": rows, "warnings": warnings, "kind": "track"}
                self.store.revise(key, Path(sent["files"][key]).stem, None, facts)

    # -- files ------------------------------------------------------------------------------------

    def export(self, video: dict[str, Any], keys: list[str], form: str) -> Path:
        """Write the tracks of targets as a table into a new file; the caller removes it."""
        targets = [self._target_of(video["id"], key) for key in keys]
        tracks = {each["name"]: self.track_of(each) for each in targets}
        path = self.store.media / "jobs" / f"{new_id()}{TABLES[form]}"
        if form == "csv" and len(tracks) > 1:
            frames: dict[int, dict[str, Step]] = {}
            for name, track in tracks.items():
                for step in track:
                    frames.setdefault(step.index, {})[name] = step
            lines = [line for index in sorted(frames) for line in table_lines(frames[index], several=True)]
            write_text(path, table_head({name: each.meta for name, each in tracks.items()}) + "\n".join(lines) + "\n")
        else:
            save_tracks(tracks, path)
        return path

    def draw(self, video: dict[str, Any], keys: list[str], form: str) -> str:
        """Queue the drawing of an annotated video or a contact sheet; return the job's id."""
        for key in keys:
            self.track_of(self._target_of(video["id"], key))
        return self.jobs.add(video["id"], "draw", {"targets": keys, "format": form})


def clips() -> dict[str, Path]:
    """Return the clips that ship, by name."""
    folder = Path(inputs.__file__).resolve().parent.parent / "clips"
    return {path.stem: folder / json.loads(path.read_text("utf-8"))["file"] for path in sorted(folder.glob("*.json"))}


def clip_cards() -> list[dict[str, str]]:
    """Return name, sentence and attribution of the clips that ship."""
    cards = {name: json.loads(path.with_suffix(".json").read_text("utf-8")) for name, path in clips().items()}
    return [{"clip": name, "text": card["text"], "attribution": card["attribution"]} for name, card in cards.items()]


def models() -> list[str]:
    """Return the models whose weights ship, the default first."""
    found = [name for name, path in model_names().items() if path is not None]
    return sorted(found, key=lambda name: name != DEFAULT_MODEL)


def video_record(video: dict[str, Any]) -> dict[str, Any]:
    """Return what the page gets of a video's row: never its path."""
    return {key: video[key] for key in ("id", "name", "state", "size", "facts", "error", "own", "created")}


def job_record(job: dict[str, Any]) -> dict[str, Any]:
    """Return what the page gets of a job's row."""
    return {key: job[key] for key in ("id", "video", "kind", "state", "request", "done", "total", "error", "created")}


def status_of(error: VltrackError) -> int:
    """HTTP status of an error."""
    if isinstance(error, Refused):
        return error.status
    kinds: list[tuple[str, int]] = [("NotThere", 404), ("QueueFull", 429), ("StateError", 409), ("ResourceError", 507)]
    names = {kind.__name__ for kind in type(error).__mro__}
    if getattr(error, "gone", False):
        return 410
    return next((status for name, status in kinds if name in names), 422)



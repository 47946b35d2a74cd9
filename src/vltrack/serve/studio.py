"""What the studio can do with videos, targets and tracks, apart from HTTP."""

from __future__ import annotations

import json
import shutil
import time
from collections import OrderedDict
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vltrack.api import inputs
from vltrack.api.convert import OWN
from vltrack.api.outputs import save_tracks
from vltrack.api.review import review
from vltrack.checkpoints.cards import DEFAULT_MODEL, model_names
from vltrack.core.errors import BoxFrameOutOfRange, StateError, UsageError, VltrackError
from vltrack.core.files import printable
from vltrack.core.track import Track
from vltrack.core.types import iou_xywh
from vltrack.formats import FORMATS
from vltrack.formats.base import Clip
from vltrack.prep.prompts import check_box, clean_text
from vltrack.serve.bodies import Mark, MarkEdit, Refused
from vltrack.serve.frames import Frames
from vltrack.serve.jobs import Jobs
from vltrack.serve.settings import Settings
from vltrack.serve.store import LIVE, NotThere, Store, new_id, remove
from vltrack.serve.uploads import Uploads
from vltrack.serve.work import error_record, step_record
from vltrack.serve.workers import Worker

DRAWN = tuple(name for name in ("mp4", "gif", "png") if f".{name}" in inputs.VIDEOS + inputs.SHEETS)
TITLES = {
    "mp4": "MP4, annotated video", "gif": "GIF, annotated", "png": "PNG, contact sheet", "csv": "CSV", "json": "JSON",
    "cvat": "CVAT for video", "coco": "COCO", "mot": "MOTChallenge", "yolo": "YOLO", "voc": "Pascal VOC",
    "label-studio": "Label Studio",
    "lasot": "LaSOT", "got10k": "GOT-10k", "got10k-results": "GOT-10k results", "vot": "VOT", "parquet": "Parquet",
}  # fmt: skip
_NAME_LENGTH = 64
_TRACKS_KEPT, _LOOKS = 8, 8


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

    def warm(self, key: str) -> None:
        """Make ready for sentences about a video, unless some are being read."""
        video = self.ready(key)
        if not self._finds:
            self.finder.run({"id": new_id(), "kind": "warm", "path": video["path"]})

    def checked_mark(self, video: dict[str, Any], mark: Mark, *, start: bool) -> dict[str, Any]:
        """Return the record of a mark. Raises ``InputError`` or ``UsageError`` for one that cannot be."""
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
        if (mark.absent and (start or mark.box is not None)) or len(record) == 1:
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
        return {
            "revision": target["revision"],
            "rows": [[step.index, *step_record(step)] for step in track],
            "review": sorted(review(track, count=_LOOKS).frames) if len(track) else [],
            "interpolation": boxes_by_interpolation(track),
        }

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
        busy = {
            name
            for job in self.store.all("jobs", video=key)
            if job["state"] in LIVE
            for name in job["request"]["targets"]
        }
        if busy & set(targets):
            raise StateError("A target is being tracked already.", hint="Wait, or cancel it.")
        return [
            self.jobs.add(key, "track", {"targets": names, "start": at, "model": model}) for at, names in starts.items()
        ]

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

    def correct(self, target: dict[str, Any], edit: MarkEdit) -> str:
        """Queue a correction: a mark that is added, replaced or removed; return the job's id.

        Raises:
            StateError: the target was not tracked yet. BoxFrameOutOfRange: it has no row in this frame.
        """
        video, track = self.ready(target["video"]), self.track_of(target)
        if edit.frame not in set(track.indices.tolist()):
            raise BoxFrameOutOfRange(
                f"{target['name']} has no row in frame {edit.frame}.", hint="Track it to there first."
            )
        if edit.remove:
            record: dict[str, Any] = {"frame": edit.frame, "remove": True}
        else:
            record = self.checked_mark(video, Mark(frame=edit.frame, box=edit.box, absent=edit.absent), start=False)
        return self.jobs.add(target["video"], "correct", {"targets": [target["id"]], "mark": record})

    def _prepare(self, job: dict[str, Any]) -> dict[str, Any]:
        """What the worker gets for a job."""
        video, request = self.ready(job["video"]), job["request"]
        common = {"path": video["path"], "name": video["name"], "folder": str(self.store.job_folder(job["id"]))}
        targets = [self._target_of(job["video"], key) for key in request["targets"]]
        if job["kind"] == "draw":
            tracks = [{"name": each["name"], "path": str(self.store.track_path(each["revision"]))} for each in targets]
            return {**common, "tracks": tracks, "file": f"drawn.{request['format']}"}
        files = {each["id"]: str(self.store.track_path(new_id())) for each in targets}
        if job["kind"] == "correct":
            (target,) = targets
            mark, shown = request["mark"], self.store.get("revisions", target["revision"])
            marks = [each for each in shown["facts"]["marks"] if each["frame"] != mark["frame"]]
            marks += [] if mark.get("remove") else [mark]
            track = str(self.store.track_path(shown["id"]))
            base = {"target": target["id"], "track": track, "marks": marks}
            return {**common, **base, "files": files}
        starts = {each["id"]: each["start"] for each in targets}
        return {**common, "targets": starts, "start": request["start"], "model": request["model"], "files": files}

    def _finish(self, job: dict[str, Any], last: dict[str, Any], sent: dict[str, Any]) -> None:
        """Take up what the worker has left: the rows of a track, also of one that was canceled."""
        if job["kind"] not in ("track", "correct") or not last.get("result"):
            return
        for key, facts in last["result"].items():
            with suppress(NotThere):  # removed meanwhile
                shown = self.store.revision(self.store.target(key))
                # What a job has gone on with replaces what it had; else undo brings back what was shown.
                resumed = shown is not None and shown["facts"].get("job") == job["id"]
                parent = None if shown is None else shown["parent"] if resumed else shown["id"]
                self.store.revise(key, Path(sent["files"][key]).stem, parent, {**facts, "job": job["id"]})
        if last["kind"] == "done":
            remove(self.store.job_folder(job["id"]))

    def step(self, target: dict[str, Any], *, forward: bool) -> None:
        """Undo or redo a correction. Raises ``StateError`` where there is none."""
        if not self.store.step(target, forward=forward):
            raise StateError("There is nothing to redo." if forward else "There is nothing to undo.")

    # -- files ------------------------------------------------------------------------------------

    def export(self, video: dict[str, Any], keys: list[str], form: str) -> Path:
        """Write the tracks of targets in a format into a new file, a folder as ``.zip``; the caller removes it.

        Raises ``StateError`` for a target without a track, and what the format cannot hold.
        """
        targets = [self._target_of(video["id"], key) for key in keys]
        tracks = {each["name"]: self.track_of(each) for each in targets}
        stem = self.store.media / "jobs" / new_id()
        if form in OWN:
            path = stem.with_suffix(OWN[form])
            save_tracks(tracks, path)
            return path
        facts, suffix = video["facts"], next((each for each in FORMATS[form].suffixes if each), "")
        clip = Clip(
            name=video["name"], width=facts["width"], height=facts["height"], frames=facts["frames"], rate=facts["rate"]
        )
        path = stem.with_suffix(suffix) if suffix else stem
        try:
            FORMATS[form].write(tracks, path, clip)
            return path if path.is_file() else Path(shutil.make_archive(str(stem), "zip", path))
        finally:
            if path.is_dir():
                shutil.rmtree(path)

    def draw(self, video: dict[str, Any], keys: list[str], form: str) -> str:
        """Queue the drawing of an annotated video or a contact sheet; return the job's id."""
        for key in keys:
            self.track_of(self._target_of(video["id"], key))
        return self.jobs.add(video["id"], "draw", {"targets": keys, "format": form})


def boxes_by_interpolation(track: Track, overlap: float = 0.8) -> int:
    """Return how many boxes linear interpolation needs to give the track's own boxes with this overlap everywhere.

    Each span is made as long as it can be by doubling and halving, as a person who draws key frames would at best.
    """
    seen = np.flatnonzero(track.visible)
    if not len(seen):
        return 0
    frames, boxes = track.indices[seen].astype(float), track.boxes[seen]

    def holds(low: int, high: int) -> bool:
        share = ((frames[low : high + 1] - frames[low]) / (frames[high] - frames[low]))[:, None]
        between = boxes[low] * (1 - share) + boxes[high] * share
        return bool((iou_xywh(between, boxes[low : high + 1]) >= overlap).all())

    count, low, most = 1, 0, len(seen) - 1
    while low < most:
        reach = 1
        while low + 2 * reach <= most and holds(low, low + 2 * reach):
            reach *= 2
        step = reach
        while (step := step // 2) or reach == 0:
            if low + reach + step <= most and holds(low, low + reach + step):
                reach += step
        low, count = low + reach, count + 1
    return count


def formats() -> list[dict[str, str]]:
    """Return the formats of downloads, with their titles."""
    known = [name for name in FORMATS if name != "parquet" or (find_spec("pandas") and find_spec("pyarrow"))]
    return [{"name": name, "title": TITLES.get(name, name)} for name in (*DRAWN, *OWN, *known)]


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

"""The command line and the Python lines that do what was done on the page."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable
from typing import Any

from vltrack.api.convert import OWN
from vltrack.checkpoints.cards import DEFAULT_MODEL
from vltrack.formats import FORMATS

_WRITTEN = ("csv", "json", "mp4", "gif", "png")
"""Formats that ``track -o`` writes by their extension."""


def recipe(video: dict[str, Any], form: str = "csv") -> dict[str, str]:
    """Return ``command`` and ``python`` for the targets of a video (``Studio.view``) in a format of the downloads."""
    targets = video["targets"]
    if not targets:
        return {"command": "", "python": ""}
    models = [job["request"].get("model", DEFAULT_MODEL) for job in video["jobs"] if job["kind"] == "track"]
    model = models[-1] if models else DEFAULT_MODEL
    starts: dict[int, list[dict[str, Any]]] = {}
    for each in targets:
        starts.setdefault(each["start"]["frame"], []).append(each)
    several = len(starts) > 1
    suffix = {"cvat": ".xml"}.get(form, f".{form}" if form in _WRITTEN else ".csv")
    files = {frame: f"boxes-{frame}{suffix}" if several else f"boxes{suffix}" for frame in starts}
    commands = [_command(video["name"], frame, each, model, files[frame]) for frame, each in starts.items()]
    if any(len(each["marks"]) > 1 for each in targets):
        files = {0: f"boxes{suffix}"}
        commands = _with_marks(video["name"], targets, model, files[0])
    if form not in (*_WRITTEN, "cvat"):
        commands += [_convert(each, form, video["name"]) for each in files.values()]
    python = ["import vltrack", ""]
    for number, (frame, each) in enumerate(starts.items()):
        python += _python(video["name"], frame, each, model, first=number == 0)
    if form in ("mp4", "gif", "png"):
        python += ["for name, track in tracks.items():", f'    track.save(f"{{name}}.{form}")']
    else:
        python += [f'vltrack.write_tracks(tracks, "{_named("boxes", form)}", format="{form}")']
    return {"command": "\n".join(commands), "python": "\n".join(python)}


def _named(stem: str, form: str) -> str:
    """The name of a file or folder of a format."""
    suffixes = (OWN[form],) if form in OWN else FORMATS[form].suffixes
    return f"{stem}{next((each for each in suffixes if each), '')}"


def _convert(file: str, form: str, video: str) -> str:
    output = _named(f"{file.removesuffix('.csv')}-{form}", form)
    return shlex.join(["vltrack", "convert", file, "-o", output, "--to", form, "--video", video])


def _command(name: str, frame: int, targets: Iterable[dict[str, Any]], model: str, output: str) -> str:
    words = ["vltrack", "track", name]
    for each in targets:
        start = each["start"]
        for value in (
            [",".join(f"{side:g}" for side in start["box"])] if "box" in start else [],
            [start.get("text", "")],
        ):
            words += [word for one in value if one for word in ("--target", f"{each['name']}:{one}")]
    words += ["--start", str(frame), "--backward"] if frame else []
    words += ["--model", model] if model != DEFAULT_MODEL else []
    words += ["--wait"] if any("box" not in each["start"] for each in targets) else []
    words += ["-o", output]
    return shlex.join(words)


def _with_marks(name: str, targets: list[dict[str, Any]], model: str, output: str) -> list[str]:
    """The lines that write all marks into a file, and track by it."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    for each in targets:
        sentence = [each["start"]["text"]] if "box" in each["start"] and each["start"].get("text") else []
        for mark in each["marks"]:
            said = ["absent"] if mark.get("absent") else [f"{side:g}" for side in mark.get("box", ())] or [mark["text"]]
            if "box" in mark:
                said, sentence = said + sentence, []
            writer.writerow([each["name"], mark["frame"], *said])
    words = ["vltrack", "track", name, "--keyframes", "marks.csv", "--backward"]
    words += ["--model", model] if model != DEFAULT_MODEL else []
    return ["cat > marks.csv <<'END'", *table.getvalue().splitlines(), "END", shlex.join([*words, "-o", output])]


def _python(name: str, frame: int, targets: list[dict[str, Any]], model: str, *, first: bool) -> list[str]:
    options = f", start={frame}, backward=True" if frame else ""
    options += f", model={model!r}" if model != DEFAULT_MODEL else ""
    options += ", wait=True" if any("box" not in each["start"] for each in targets) else ""
    named = [f"    {each['name']!r}: {_target(each['start'])}," for each in targets]
    made = "tracks =" if first else "tracks |="
    lines = ["targets = {", *named, "}", f"{made} vltrack.track({name!r}, targets=targets{options})"]
    for each in targets:
        more = [mark for mark in each["marks"] if mark["frame"] != frame]
        if more:
            lines += [f"track = tracks[{each['name']!r}]", "marks = [", "    *track.marks,"]
            lines += [f"    {_mark(mark)}," for mark in more]
            lines += ["]", f"tracks[{each['name']!r}] = vltrack.correct(track, {name!r}, marks)"]
    return lines


def _target(start: dict[str, Any]) -> str:
    parts = [f"box={tuple(start['box'])!r}"] if "box" in start else []
    parts += [f"text={start['text']!r}"] if start.get("text") else []
    return f"vltrack.Target({', '.join(parts)})"


def _mark(mark: dict[str, Any]) -> str:
    said = (
        "absent=True"
        if mark.get("absent")
        else f"box={tuple(mark['box'])!r}"
        if "box" in mark
        else f"text={mark['text']!r}"
    )
    return f"vltrack.Mark({mark['frame']}, {said})"

"""Archives for the evaluation servers of GOT-10k and TrackingNet.

The same results give the same bytes: names sorted, time stamps fixed, nothing compressed (compressors differ
between machines). A manifest with the sha256 of every member is written next to the archive.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vltrack.core.errors import PartialResult, UsageError
from vltrack.core.files import sha256_bytes, write_bytes, write_text
from vltrack.core.types import Floats

SERVERS = ("got10k", "trackingnet")
"""Data sets with a server and an archive format of its own."""


def pack(
    server: str, frames: Mapping[str, int], boxes: Mapping[str, Floats], seconds: Mapping[str, Floats], path: Path
) -> Path:
    """Write the archive, and its manifest as ``<path>.manifest.json``.

    Args:
        server: one of ``SERVERS``.
        frames: number of frames of each sequence of the split; all of them must have results.
        boxes: (N, 4) xywh by sequence.
        seconds: (N,) seconds per frame by sequence (part of GOT-10k's archive).
        path: of the zip.

    Returns:
        The manifest's path.

    Raises:
        UsageError: no such server.
        PartialResult: a sequence is missing or has a wrong number of rows; nothing is written.
        ResourceError: the disk is full or the folder cannot be written.
    """
    if server not in SERVERS:
        raise UsageError(f"No archive format for {server!r}.", hint=f"Known: {', '.join(SERVERS)}.")
    _check(server, frames, boxes, seconds)
    members: dict[str, bytes] = {}
    for name in frames:
        if server == "got10k":  # as the got10k toolkit writes them
            members[f"{name}/{name}_001.txt"] = _text(boxes[name], "%.3f")
            members[f"{name}/{name}_time.txt"] = _text(seconds[name], "%.8f")
        else:
            members[f"{name}.txt"] = _text(boxes[name], "%.3f")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name)  # of 1980-01-01
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, members[name])
    data = buffer.getvalue()
    write_bytes(path, data)
    manifest = path.with_name(path.name + ".manifest.json")
    record = {
        "archive": path.name,
        "sha256": sha256_bytes(data),
        "server": server,
        "sequences": len(frames),
        "members": {name: sha256_bytes(members[name]) for name in sorted(members)},
    }
    write_text(manifest, json.dumps(record, indent=1) + "\n")
    return manifest


def _check(server: str, frames: Mapping[str, int], boxes: Mapping[str, Floats], seconds: Mapping[str, Floats]) -> None:
    timed = server == "got10k"
    wrong = [
        name
        for name, count in frames.items()
        if len(boxes.get(name, ())) != count or (timed and len(seconds.get(name, ())) != count)
    ]
    if wrong:
        what = "results or times" if timed else "results"
        raise PartialResult(
            f"{len(wrong)} of {len(frames)} sequences have no complete {what}: {', '.join(wrong[:5])}."
            " No archive was written.",
            hint="Run the evaluation again; finished sequences are not run twice.",
        )
    broken = [name for name in frames if not np.isfinite(boxes[name]).all()]
    if broken:
        raise PartialResult(f"The boxes of {broken[0]} are not all finite. No archive was written.")


def _text(rows: Floats, form: str) -> bytes:
    out = io.StringIO()
    np.savetxt(out, rows, fmt=form, delimiter=",")
    return out.getvalue().encode()

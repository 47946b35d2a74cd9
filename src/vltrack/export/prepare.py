"""Graphs of a model's weights, made once by a child process and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vltrack.core.errors import CheckpointCorrupt, ResourceError, VltrackError
from vltrack.core.files import as_resource_error, cache_folder, lock_file, printable, write_text
from vltrack.core.process import describe_exit, reported_error
from vltrack.core.threads import ONE_THREAD

log = logging.getLogger(__name__)

MANIFEST, MANIFEST_INT8 = "graphs.json", "graphs-int8.json"
KEPT_SECONDS = 60 * 86400
"""Graphs that were not used for so long are removed when others are made."""
_WAIT = 0.2
_SECONDS = 1800.0
_CODE = ("export/graphs.py", "export/prepare.py", "models/*.py", "nn/*.py", "prep/crops.py")


@cache
def _code() -> str:
    """Sha256 of the code on which graphs depend: a change of it makes new ones."""
    root, digest = Path(__file__).parent.parent, hashlib.sha256()
    files = {file for pattern in _CODE for file in root.glob(pattern)} - {root / "nn" / "runtime.py"}
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def folder_of(path: Path, sha256: str) -> Path:
    """Folder for the graphs of a weights file with this checksum. Raises ``ResourceError`` without a cache folder."""
    key = hashlib.sha256(f"{sha256} {_code()}".encode()).hexdigest()
    return cache_folder() / "graphs" / f"{path.stem[:60]}-{key[:16]}"


def find_graphs(path: Path, sha256: str, precision: str = "fp32") -> tuple[Path, dict[str, Any]] | None:
    """Folder and manifest of the graphs of a weights file; None where they are not made, or were damaged."""
    folder = folder_of(path, sha256)
    name = MANIFEST_INT8 if precision == "int8" else MANIFEST
    try:
        manifest = json.loads((folder / name).read_bytes())
        whole = all((folder / name).stat().st_size == size for name, size in manifest["files"].items())
    except (OSError, ValueError, LookupError):
        return None
    with suppress(OSError):  # a cache that can only be read
        os.utime(folder)
    return (folder, manifest) if whole else None


def graphs_of(path: Path, sha256: str, precision: str = "fp32") -> tuple[Path, dict[str, Any]]:
    """Folder and manifest of the graphs of a weights file, which are made at first: some ten seconds for tiny sizes.

    Processes that need the same graphs wait for the one that makes them. With the precision ``int8`` those that run
    in every frame are quantized, from the fp32 graphs; any other has the fp32 graphs.

    Raises:
        ResourceError: the cache cannot be written, making them failed, or what makes int8 graphs is not installed.
        CheckpointCorrupt, CheckpointNonFinite, ...: see ``checkpoints.store.load``.
    """
    if (found := find_graphs(path, sha256, precision)) is not None:
        return found
    if precision == "int8" and find_spec("onnxruntime") is None:
        raise ResourceError(
            "int8 graphs are made with onnxruntime, which is not installed.", hint="Run: pip install 'vltrack[fast]'"
        )
    folder = folder_of(path, sha256)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("ab") as lock:
            deadline = time.monotonic() + _SECONDS
            if not (locked := lock_file(lock.fileno())):
                log.info("Waiting for another process, which prepares %s.", printable(path.stem))
            while not locked and time.monotonic() < deadline:
                time.sleep(_WAIT)
                locked = lock_file(lock.fileno())
            if (found := find_graphs(path, sha256, precision)) is not None:
                return found
            what = f"{printable(path.stem)}{' in int8' if precision == 'int8' else ''}"
            log.info("Preparing %s for this machine: once, some ten seconds.", what)
            if find_graphs(path, sha256) is None:
                _remove_old(folder.parent)
                with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as made:
                    _make(path, "export.prepare", path.resolve(), sha256, Path(made) / folder.name)
                    shutil.rmtree(folder, ignore_errors=True)
                    (Path(made) / folder.name).rename(folder)
            if precision == "int8":
                _make(path, "tracking.quantize", folder)
    except OSError as error:
        said = as_resource_error(error, folder).message.removeprefix("Cannot write ")
        raise ResourceError(
            f"Cannot write the cache of graphs, {said}", hint="Set VLTRACK_CACHE to a folder, or use --backend torch."
        ) from error
    if (found := find_graphs(path, sha256, precision)) is None:
        raise ResourceError(f"The graphs of {path} were damaged as they were made.", hint="Run the command again.")
    return found


def graphs_if_possible(path: Path, sha256: str, precision: str = "fp32") -> tuple[Path, dict[str, Any]] | None:
    """As ``graphs_of``; None, with a warning in the log, where they cannot be made or kept: torch runs without."""
    try:
        return graphs_of(path, sha256, precision)
    except ResourceError as error:
        log.warning("%s Running in torch, which is slower. %s", error.message, error.hint)
        return None


def _make(path: Path, module: str, *arguments: object) -> None:
    """Make graphs in a child process, whose memory the system gets back. Raises the error that it reports."""
    command = [sys.executable, "-m", f"vltrack.{module}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **ONE_THREAD}, timeout=_SECONDS, check=False)  # noqa: S603
    if done.returncode == 0:
        return
    try:
        raise reported_error(**json.loads(done.stdout.splitlines()[-1]), otherwise=ResourceError)
    except (ValueError, TypeError, IndexError):
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [describe_exit(done.returncode)]
        raise ResourceError(
            f"Cannot make graphs of {path}: {last[0][:300].rstrip('.')}.", hint="Use --backend torch."
        ) from None


def _remove_old(folder: Path) -> None:
    for each in folder.iterdir():
        kept = _SECONDS if each.name.startswith(".making-") else KEPT_SECONDS
        if each.is_dir() and time.time() - each.stat().st_mtime > kept:
            shutil.rmtree(each, ignore_errors=True)


def main(path: Path, sha256: str, folder: Path) -> None:
    """Write the graphs of a file of weights, a tracker's or the grounder's, into a new folder, with a manifest."""
    from vltrack.checkpoints import store
    from vltrack.checkpoints.cards import read_card
    from vltrack.export.graphs import write_graphs, write_grounder_graphs

    of_grounder = read_card(path)["tracker"] == "grounder"
    model: Any
    model, card = store.load_grounder(path) if of_grounder else store.load(path)
    if card["sha256"] != sha256:
        raise CheckpointCorrupt(f"{path} was changed while its graphs were made.", hint="Run the command again.")
    folder.mkdir()
    manifest = (write_grounder_graphs if of_grounder else write_graphs)(model, folder)
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.name != MANIFEST}
    write_text(folder / MANIFEST, json.dumps({**manifest, "files": files}))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    except VltrackError as error:
        sys.stdout.write(json.dumps({"code": type(error).__name__, "message": str(error), "hint": error.hint}) + "\n")
        sys.exit(1)

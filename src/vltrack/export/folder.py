"""Graphs of a model in a folder of their own, to be run without its weights and without torch."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vltrack.core.errors import CheckpointCorrupt, CheckpointVersion, UsageError
from vltrack.core.files import as_resource_error, printable, read_limited, sha256_of
from vltrack.export.prepare import MANIFEST
from vltrack.nn.runtime import save_ir
from vltrack.prep.tokenizers import ARCHIVE, MERGES, VOCABULARY

FORMAT = 1
KINDS = ("onnx", "openvino")
_MANIFEST_BYTES = 1 << 24
_AGAIN = "Copy the folder again, or export again."
_KEYS = {"format": int, "kind": str, "card": dict, "files": dict, "sha256": dict}
_KEYS |= {"sizes": dict, "calls": dict, "graphs": dict}


def check_replaceable(folder: Path, *, overwrite: bool) -> None:
    """Check that a folder may be written, or replaced: it is empty, or holds an export and nothing else.

    Raises:
        UsageError: it is a file, is not empty without ``overwrite``, or holds what no export has written.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"Cannot write to {printable(folder)}: it is a file.", hint="Choose another folder.")
    names = {each.name for each in folder.iterdir()}
    if names and not overwrite:
        raise UsageError(f"{printable(folder)} is not empty.", hint="Pass overwrite (--overwrite) to replace it.")
    try:
        known = {MANIFEST, *_manifest(folder)["files"]} if names else set()
    except CheckpointCorrupt:
        known = set()
    if other := sorted(names - known):
        raise UsageError(
            f"{printable(folder)} holds {printable(other[0])}, which no export has written.",
            hint="Choose another folder.",
        )


def write_folder(
    graphs: Path, manifest: Mapping[str, Any], card: Mapping[str, Any], vocabulary: Path, folder: Path, kind: str
) -> dict[str, Any]:
    """Write graphs into a folder, which is replaced whole, with the card of their weights; return their manifest.

    The manifest of ``graphs`` gets the keys ``format``, ``kind``, ``card``, ``files`` (bytes by name) and ``sha256``.

    Args:
        graphs, manifest: folder and manifest of ONNX graphs, as ``prepare.graphs_of`` returns them.
        card: of the weights.
        vocabulary: folder with a vocabulary that does not ship; copied where it is there and needed.
        folder: its parent exists; see ``check_replaceable``.
        kind: ``onnx``, or ``openvino``: IR, in which each graph has its own weights.

    Raises:
        ResourceError: it cannot be written.
    """
    described = {name: dict(each) for name, each in manifest["graphs"].items()}
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name[:40]}.", dir=folder.parent) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            if kind == "onnx":
                for name in manifest["files"]:
                    shutil.copyfile(graphs / name, made / name)
            else:
                for name, each in described.items():
                    each["file"] = f"{name}.xml"
                    save_ir(graphs / manifest["graphs"][name]["file"], made / each["file"])
            if manifest["sizes"].get("vocabulary") == "clip":
                for name in (ARCHIVE, VOCABULARY, MERGES):
                    if (vocabulary / name).is_file():
                        shutil.copyfile(vocabulary / name, made / name)
            files = sorted(made.iterdir())
            written = {
                **manifest, "graphs": described, "format": FORMAT, "kind": kind, "card": dict(card),
                "files": {file.name: file.stat().st_size for file in files},
                "sha256": {file.name: sha256_of(file) for file in files},
            }  # fmt: skip
            (made / MANIFEST).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
            old = Path(temporary) / "old"
            if folder.exists():
                folder.rename(old)
            try:
                made.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
    except OSError as error:
        raise as_resource_error(error, folder) from error
    return written


def read_folder(folder: Path) -> dict[str, Any]:
    """Return the manifest of an exported folder after checking the sha256 of its files.

    Raises:
        CheckpointCorrupt: a file is missing or damaged. CheckpointVersion: a newer vltrack wrote it.
    """
    manifest = _manifest(folder)
    if manifest["format"] > FORMAT:
        raise CheckpointVersion(
            f"{folder} has format {manifest['format']}; this vltrack reads up to {FORMAT}.", hint="Update vltrack."
        )
    for name, expected in manifest["sha256"].items():
        try:
            actual = sha256_of(folder / name)
        except OSError as error:
            raise CheckpointCorrupt(f"Cannot read {folder / name}: {error.strerror}.", hint=_AGAIN) from None
        if actual != expected:
            raise CheckpointCorrupt(f"{folder / name} is damaged.", hint=_AGAIN)
    return manifest


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest, whose files lie in the folder itself. Raises ``CheckpointCorrupt``."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(read_limited(path, _MANIFEST_BYTES))
        fits = all(type(manifest.get(key)) is kind for key, kind in _KEYS.items())
        fits = fits and manifest["kind"] in KINDS and manifest["files"].keys() == manifest["sha256"].keys()
        fits = fits and all(Path(name).name == name for name in manifest["files"])
        fits = fits and all(each["file"] in manifest["files"] for each in manifest["graphs"].values())
    except OSError as error:
        raise CheckpointCorrupt(f"Cannot read {path}: {error.strerror}.", hint=_AGAIN) from None
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError):
        fits = False
    if not fits:
        raise CheckpointCorrupt(f"{path} is not the manifest of an export.", hint=_AGAIN)
    found: dict[str, Any] = manifest
    return found

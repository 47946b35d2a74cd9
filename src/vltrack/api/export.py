"""Networks as graphs in a folder of their own (public API)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vltrack.checkpoints import cards
from vltrack.core.errors import ResourceError, UsageError, did_you_mean
from vltrack.core.files import printable


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedModel:
    """Graphs that were written: their folder, and the manifest in it (docs/speed.md)."""

    out: Path
    manifest: Mapping[str, Any]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, the manifest first."""
        return (self.out / cards.EXPORTED, *(self.out / name for name in self.manifest["files"]))

    def lines(self) -> list[str]:
        """One line per call of the network: its graphs, what it reads and what it writes."""
        graphs, made = self.manifest["graphs"], []
        for call, names in self.manifest["calls"].items():
            reads, writes = (
                dict.fromkeys(port["name"] for name in names for port in graphs[name][side])
                for side in ("inputs", "outputs")
            )
            files = ", ".join(graphs[name]["file"] for name in names)
            tensors = " ".join([*(name for name in reads if name not in writes), "->", *writes])
            made.append(f"{call} ({files}): {tensors}")
        return made

    def to_dict(self) -> dict[str, Any]:
        """What ``vltrack export --json`` prints."""
        sizes: Mapping[str, int] = self.manifest["files"]
        return {"out": printable(self.out), "kind": self.manifest["kind"], "files": dict(sizes), "calls": self.lines()}


def export_model(
    model: str | Path, to: str = "onnx", out: str | Path = "", *, overwrite: bool = False
) -> ExportedModel:
    """Write a network as graphs that OpenVINO or ONNX Runtime runs, with a manifest (docs/speed.md).

    The folder needs neither torch nor the weights; ``vltrack.load`` takes it in place of a model.

    Args:
        model: name of a model, ``grounder``, or path of a .safetensors file of either.
        to: ``onnx``, which both run, or ``openvino``: IR, where each graph has weights of its own.
        out: the folder to write, complete or not at all. It does not exist, or is empty.
        overwrite: replace a folder that holds an earlier export.

    Raises:
        UsageError: an unknown ``to``, or the folder holds something.
        ModelNotFound, CheckpointCorrupt, ...: see ``Tracker.load``.
        ResourceError: the folder cannot be written, or OpenVINO is not installed.

    Examples:
        >>> import vltrack
        >>> done = vltrack.export_model("sa-tracker-tiny", "onnx", "graphs")
        >>> vltrack.load(done.out, backend="openvino").card["tracker"]
        'sa-tracker'
    """
    kinds = ("onnx", "openvino")
    if to not in kinds:
        raise UsageError(f"Cannot export to {printable(str(to))!r}.", hint=did_you_mean(str(to), kinds))
    if not os.fspath(out):
        raise UsageError("No folder to export to.", hint="Give out (-o).")
    if to == "openvino":
        from vltrack.nn.runtime import choose_runtime

        choose_runtime("openvino", "fp32", "cpu")
    path = cards.find_grounder() if str(model) == "grounder" else cards.find_file(model)
    if path.is_dir():
        raise UsageError(f"{printable(path)} is an export already.", hint="Give the weights that it was made from.")
    folder = Path(os.path.realpath(out))
    if not folder.parent.is_dir():
        raise ResourceError(
            f"Cannot write {printable(out)}: its folder does not exist.",
            hint=f"Create {printable(folder.parent)} first.",
        )
    from vltrack.export.folder import check_replaceable, write_folder
    from vltrack.export.prepare import graphs_of

    check_replaceable(folder, overwrite=overwrite)
    of = "grounder" if cards.read_card(path)["tracker"] == "grounder" else ""
    card = cards.identify(path, of=of)
    graphs, manifest = graphs_of(path, card["sha256"])
    return ExportedModel(out=Path(out), manifest=write_folder(graphs, manifest, card, path.parent, folder, to))

"""The verbs ``train`` and ``import-weights``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

import vltrack
from vltrack.api import inputs
from vltrack.cli.console import Console, emit, say, warn
from vltrack.cli.track import AsJson, Debug, Device, Quiet

if TYPE_CHECKING:
    from vltrack.checkpoints.importing import Imported

Name = Annotated[str, Argument(help="aitrack, all-in-one, bit-tracker, litetrack or sa-tracker.")]
Size = Annotated[str, Option(help="tiny, base, or another that `vltrack models` lists.")]
Data = Annotated[Path, Option("--data", help="Folder of training images (docs/train.md).")]
Out = Annotated[Path, Option("--out", help="Folder of this run: log, checkpoints, weights.")]
Start = Annotated[
    Path | None, Option("--start", help="Weights (.safetensors) to start from, or the folder of a run to follow up.")
]
TrainPart = Annotated[
    str | None, Option("--part", help="`twins`: the last part, distractor fine-tuning, in which only the text decides.")
]
Resume = Annotated[bool, Option("--resume", help="Resume the run in --out.")]
Set = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="A field of the recipe, such as steps=900; may be repeated."),
]
Steps = Annotated[int | None, Option(min=1, help="Optimizer steps in all.")]
Batch = Annotated[int | None, Option(min=1, help="Samples (or video clips) per step, over all processes.")]
Seed = Annotated[int | None, Option(help="Seed of everything random.")]
Processes = Annotated[int | None, Option(min=1, help="Processes that train or make pairs.")]


def train(
    name: Name,
    data: Data,
    out: Out,
    size: Size = "tiny",
    start: Start = None,
    part: TrainPart = None,
    resume: Resume = False,
    set_: Set = None,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = None,
    processes: Processes = None,
    device: Device = "auto",
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a tracker on still images. Ctrl-C keeps the last checkpoint; --resume continues from it.

    \b
    vltrack train litetrack --size tiny --data images --out runs/litetrack-tiny
    """
    vltrack.train(
        name, data=data, out=out, size=size, start=start, part=part, resume=resume,
        settings=inputs.read_settings(set_ or ()), steps=steps, batch=batch, seed=seed, processes=processes,
        device=device, quiet=quiet, reporter=Console(quiet=quiet),
    )  # fmt: skip


Files = Annotated[
    list[Path], Argument(metavar="FILE...", help=".pth, .pt, .bin, .safetensors or .npz; one or several.")
]
ImportName = Annotated[str, Option("--as", metavar="NAME", help="Which model: litetrack-base, ...")]
ImportOut = Annotated[
    Path | None, Option("--out", metavar="FILE", help="Weights to write; else NAME.safetensors here.")
]
Kind = Annotated[
    list[str] | None,
    Option(
        "--kind", metavar="KIND", help="Kind of a file, where its names do not show it (the list above); one per file."
    ),
]
Partial = Annotated[
    list[str] | None,
    Option(
        "--partial",
        metavar="PREFIX",
        help="Skip parameters whose name starts with PREFIX (ours or the checkpoint's). Repeatable.",
    ),
]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace weights that exist.")]


def import_weights(
    files: Files,
    name: ImportName,
    out: ImportOut = None,
    kind: Kind = None,
    partial: Partial = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Turn published weights into weights of ours: safetensors with a card. See docs/import-weights.md.

    No code in a file is run. Licenses of weights are their authors': the card names them.

    \b
    vltrack import-weights OSTrack_ep0300.pth.tar --as all-in-one-ostrack-base
    vltrack import-weights mae_pretrain_vit_base.pth bert.safetensors --as litetrack-base

    \b
    What fits which model (in brackets: as a start for training, no tracker yet):
      ostrack     all-in-one-ostrack-base [all-in-one-base]
      all-in-one  all-in-one-base
      uvltrack    litetrack-uvltrack-base litetrack-uvltrack-large
      litetrack   litetrack-base
      artrack     aitrack-artrack-base [aitrack-base]
      aitrack     aitrack-base
      stark       bit-tracker-stark-base bit-tracker-stark-r50
                  [bit-tracker-base bit-tracker-base-r50]
      mae         [litetrack-base litetrack-uvltrack-base litetrack-uvltrack-large
                  all-in-one-base all-in-one-ostrack-base sa-tracker-base
                  aitrack-base aitrack-artrack-base]
      bert        [litetrack-base litetrack-uvltrack-base litetrack-uvltrack-large
                  all-in-one-base sa-tracker-base]
      resnet      [bit-tracker-base bit-tracker-base-r50
                  bit-tracker-stark-base bit-tracker-stark-r50]
      alpha-clip  [aitrack-base]
      clip        [aitrack-base]
      clip-both   [aitrack-base]
    """
    done = vltrack.import_weights(
        list(files), name, out=out, kinds=kind or (), partial=partial or (), overwrite=overwrite
    )
    if json:
        from vltrack.api.train import import_record

        emit(import_record(done))
    if not quiet:
        _show(done, name)


def _show(done: Imported, name: str) -> None:
    from vltrack.cli.tables import import_lines

    lines, warnings = import_lines(done, name)
    for line in lines:
        say(line)
    for warning in warnings:
        warn(warning)

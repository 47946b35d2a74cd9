"""``vltrack train``: flags to a plain dict of options. Knows no model and no loss; ``training.launch`` does
it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vltrack.api import inputs as checks
from vltrack.api.console import emit, say, shown, warn
from vltrack.api.inputs import check_writable, meant, model_names, nearest
from vltrack.cli.track import AsJson, Debug, Device, Quiet
from vltrack.core.errors import DataError, ModelNotFound, ResourceError, UsageError

if TYPE_CHECKING:
    from vltrack.checkpoints.importing import Imported, ImportedFile


Name = Annotated[str, typer.Argument(help="aitrack, all-in-one, bit-tracker, litetrack or sa-tracker.")]
Size = Annotated[str, typer.Option(help="tiny, base, or another that `vltrack models` lists.")]
Data = Annotated[Path, typer.Option("--data", help="Folder of training pictures (docs/train.md).")]
Out = Annotated[Path, typer.Option("--out", help="Folder of this run: log, checkpoints, weights.")]
Start = Annotated[
    Path | None,
    typer.Option(
        "--start",
        help="Weights (.safetensors) to start from, or the folder of a run to follow up.",
    ),
]
TrainPart = Annotated[
    str | None,
    typer.Option("--part", help="twins: the last part, in which words learn to tell look-alikes apart."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A field of the recipe, such as steps=900; may be repeated."
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Optimiser steps in all.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Samples (or clips) a step, over all processes.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Processes = Annotated[int | None, typer.Option(min=1, help="Processes that train or make pairs.")]


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
    """Train a tracker on still pictures. Ctrl-C keeps the last checkpoint; --resume goes on from it.

    \b
    vltrack train litetrack --size tiny --data pictures --out runs/litetrack-tiny
    """
    from vltrack.models import MODELS

    name = meant(name, MODELS)
    if name not in MODELS:
        raise UsageError(f"no tracker is called {shown(name)!r}.", hint=nearest(name, MODELS))
    checks.check_choice("--size", size, tuple(MODELS[name].sizes))
    if part is not None:
        checks.check_choice("--part", part, ("twins",))
    settings = checks.read_settings(set_ or ())
    if not data.is_dir():
        raise DataError(f"{shown(data)} is no folder of training pictures.", hint="See docs/train.md.")
    if out.exists() and not out.is_dir():
        raise ResourceError(f"{shown(out)} is a file.", hint="Choose a folder with --out.")
    if out.is_dir() and any(out.iterdir()) and not resume:
        raise UsageError(
            f"{shown(out)} is not empty.", hint="Add --resume to go on, or choose another --out."
        )

    from vltrack.training.launch import main_train

    options: dict[str, object] = {
        "model": name,
        "size": size,
        "data": data,
        "out": out,
        "start": start,
        "part": part,
        "resume": resume,
        "settings": settings,
        "steps": steps,
        "batch": batch,
        "seed": seed,
        "processes": processes,
        "device": device,
        "json": json,
        "quiet": quiet,
    }
    try:
        code = main_train(options)
    except KeyboardInterrupt:
        kept = (out / "last.json").exists()
        say(
            f"the same command with --resume goes on from the last checkpoint in {shown(out)}."
            if kept
            else "stopped before the first checkpoint: with --resume it starts over."
        )
        raise
    raise typer.Exit(code)


# MERGED cli/train.py
# ``vltrack import-weights``: flags to one call. Knows no format, no network; ``checkpoints.importing`` does.
#
# What was brought, left out and left fresh is told in numbers, never passed over.


Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help=".pth, .pt, .bin, .safetensors or .npz; one or several."),
]
ImportName = Annotated[str, typer.Option("--as", metavar="NAME", help="Which model: litetrack-base, ...")]
ImportOut = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Weights to write; else NAME.safetensors here.")
]
Kind = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help="What a file is, where its names do not tell (the list above); one a file.",
    ),
]
Partial = Annotated[
    list[str] | None,
    typer.Option(
        "--partial",
        metavar="PREFIX",
        help="Leave out what begins so, by our names or theirs; repeat for several.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace weights that exist.")]
SHOWN = 10
COUNTS = ".num_batches_tracked"  # of training steps, in batch norms: nothing that a tracker reads


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

    Nothing in a file is run. Licences of weights are their authors': the card names them.

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
    known = model_names()
    if name not in known:
        raise ModelNotFound(
            f"no model is called {shown(name)!r}.",
            hint=f"{nearest(name, known)} What fits which: vltrack import-weights --help.",
        )
    target = out if out is not None else Path(f"{name}.safetensors")
    if target.suffix != ".safetensors":
        raise UsageError(f"--out {shown(target)} does not end in .safetensors.")
    for path in (target, target.with_suffix(".json")):
        check_writable(path, overwrite=overwrite)
    for file in files:
        if not file.exists():
            raise ModelNotFound(
                f"there is no file {shown(file)}.", hint="Nothing is downloaded: fetch it first."
            )
        if target.exists() and file.samefile(target):
            raise UsageError(f"--out {shown(target)} is one of the files to read.", hint="Choose another.")

    from vltrack.checkpoints.importing import import_weights as bring
    from vltrack.prep.tokenizers import load_tokenizer

    done = bring(
        files,
        name,
        target,
        kinds=kind or (),
        partial=partial or (),
        vocabulary_sha256=load_tokenizer("bert").sha256,
    )
    if json:
        emit(_record(done))
    if not quiet:
        _tell(done, name)


def _tell(done: Imported, name: str) -> None:
    for part in done.parts:
        say(
            f"{part.file} is {part.title}: {_count(len(part.loaded), 'tensor')} set"
            f"{_ignored(part)}. Its licence: {part.license}."
        )
        if part.prepared:
            say(f"  {part.prepared}")
    fresh = [name for name in done.kept_fresh if not name.endswith(COUNTS)]
    if fresh:
        warn(f"from no file, as it starts: {_grouped(fresh)}.")
    say(f"wrote {done.path} and its card {done.path.with_suffix('.json').name}")
    if not done.complete:
        warn(f"this is a start for training {name}, not a tracker yet: vltrack track refuses it.")
    elif set(done.modes) != {"nl", "bbox", "nlbbox"}:
        say(f"trained for targets named by {'box' if done.modes == ('bbox',) else ', '.join(done.modes)}.")


def _ignored(part: ImportedFile) -> str:
    names = [name for name in part.ignored if not name.endswith(COUNTS)]
    first = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f", {len(names)} without a place here ({first})" if names else ""


def _grouped(names: Sequence[str]) -> str:
    """``head. 45, cls_token`` for names by what they begin with."""
    counts = Counter(name.partition(".")[0] + ("." if "." in name else "") for name in names)
    return ", ".join(begin if not begin.endswith(".") else f"{begin}* ({n})" for begin, n in counts.items())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _record(done: Imported) -> dict[str, object]:
    return {
        "weights": shown(done.path),
        "complete": done.complete,
        "modes": list(done.modes),
        "files": [
            {
                "file": shown(part.file),
                "kind": part.kind,
                "sha256": part.sha256,
                "licence": part.license,
                "loaded": len(part.loaded),
                "ignored": list(part.ignored),
                "number_types": part.number_types,
            }
            for part in done.parts
        ],
        "kept_fresh": list(done.kept_fresh),
    }

"""The verbs on models: ``train``, ``ablate``, ``*-weights``, ``export``, ``models`` and ``doctor``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import vltrack
from vltrack.api import inputs
from vltrack.cli import options as opt
from vltrack.cli.console import Console, emit, emit_lines, say, warn
from vltrack.core.errors import ResourceError, UsageError
from vltrack.core.files import counted, printable
from vltrack.core.rank import global_rank


def train(
    name: Annotated[
        str, Argument(help="A tracker, such as litetrack; grounder; or a network of your own: FILE.py:CARD.")
    ],
    data: Annotated[
        list[str],
        Option(
            metavar="NAME=FOLDER",
            help="A data set (lasot=/data/lasot), a folder with several, or clips of your own. Repeatable.",
        ),
    ],
    out: Annotated[Path, Option(help="Folder of this run: log, checkpoints, weights.")],
    size: Annotated[str, Option(help="tiny, base, or another that `vltrack models` lists.")] = "tiny",
    start: Annotated[
        str | None,
        Option(
            metavar="WEIGHTS",
            help="Start from a model (litetrack-tiny), a .safetensors file or a run's folder; the grounder's detector.",
        ),
    ] = None,
    init: Annotated[
        list[str] | None,
        Option(
            metavar="KIND=FILE",
            help="Published file that a base size starts from: mae=FILE, bert=FILE, ... (import-weights --help); "
            "vocabulary=FILE for AITrack. Repeatable.",
        ),
    ] = None,
    part: Annotated[
        str | None,
        Option(help="`twins`: distractor fine-tuning, in which only the text decides; `joint`: the last part."),
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Resume the run in --out.")] = False,
    set_: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="A field of the recipe, such as steps=900; may be repeated."),
    ] = None,
    steps: Annotated[int | None, Option(min=1, help="Optimizer steps in all.")] = None,
    batch: Annotated[int | None, Option(min=1, help="Samples (or video clips) per step, over all processes.")] = None,
    accumulate: Annotated[
        int | None, Option(min=1, help="Parts of a batch that a process handles one after the other, to save memory.")
    ] = None,
    seed: Annotated[int | None, Option(help="Seed of everything random.")] = None,
    processes: Annotated[int | None, Option(min=1, help="Training processes (default: 1).")] = None,
    device: opt.Device = "auto",
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Train a tracker, fine-tune one on clips of your own, or train the grounder. --resume continues after Ctrl-C.

    \b
    vltrack train litetrack --size base --data data --init mae=mae.pth --init bert=bert.bin --out runs/base
    vltrack train litetrack --start litetrack-tiny --data clips --steps 300 --out runs/mine
    vltrack train grounder --data images --data more --start picodet_s.npz --out runs/grounder
    """
    done = vltrack.train(
        name, data=data, out=out, size=size, start=start, init=_read_init(init), part=part, resume=resume,
        settings=inputs.read_settings(set_), steps=steps, batch=batch, accumulate=accumulate, seed=seed,
        processes=processes, device=device, quiet=quiet, reporter=Console(quiet=quiet),
    )  # fmt: skip
    if json and global_rank() == 0:
        emit({"out": printable(done.out), "weights": printable(done.weights)})


def _read_init(items: list[str] | None) -> dict[str, str]:
    """Read ``mae=FILE``. Raises ``UsageError``."""
    files: dict[str, str] = {}
    for item in items or ():
        kind, _, file = item.partition("=")
        if not kind or not file or kind in files:
            twice = "was given twice" if kind in files else "is not KIND=FILE"
            raise UsageError(f"--init {printable(item)!r} {twice}.", hint="Such as --init mae=mae.pth.")
        files[kind] = file
    return files


def ablate(
    data: Annotated[list[str], Option(metavar="NAME=FOLDER", help="Training data, as for train. Repeatable.")],
    clips: Annotated[str, Option(metavar="PATH", help="Annotated clips with sentences, to validate on.")],
    out: Annotated[Path, Option(help="Folder of the runs; what is finished there is not run again.")],
    models: Annotated[list[str] | None, Argument(metavar="[TRACKER]...", help="Which trackers; default: all.")] = None,
    steps: Annotated[int, Option(min=1, help="Optimizer steps of each training.")] = 300,
    seeds: Annotated[int, Option(min=1, help="Trainings of each variant.")] = 3,
    skip: Annotated[str | None, Option(metavar="LIST", help="Targets of the clips to leave out, by name.")] = None,
    jobs: opt.Jobs = None,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """What does each idea of a tracker add? Train with all of them and with each one off, at one small budget.

    \b
    vltrack ablate --data images --clips open --out runs/ablation -j 2
    vltrack ablate litetrack --data images --clips open --out runs/ablation --steps 100 --seeds 2
    """
    found = vltrack.ablate(
        models, data=data, clips=clips, out=out, steps=steps, seeds=seeds, jobs=jobs,
        skip=inputs.read_list(skip) or (), reporter=Console(quiet=quiet),
    )  # fmt: skip
    if json:
        emit(
            {
                "format": "vltrack.ablate",
                "version": 1,
                "steps": steps,
                "targets": found.targets,
                "rows": list(found.rows()),
            }
        )
    elif not quiet:
        from vltrack.cli.tables import ablation_lines

        for line in ablation_lines(found):
            say(line)


def init_weights(
    name: Annotated[
        str, Argument(metavar="TRACKER", help="Such as litetrack, or a network of your own: FILE.py:CARD.")
    ],
    out: Annotated[Path, Option("-o", "--out", metavar="FILE", help="The .safetensors file to write.")],
    size: Annotated[str, Option(help="tiny, base, or another that `vltrack models` lists.")] = "tiny",
    seed: Annotated[int, Option(help="Of the random numbers.")] = 0,
    overwrite: opt.Overwrite = False,
    json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Write weights that are not trained: to see a network run, and its shapes.

    \b
    vltrack init-weights sa-tracker -o fresh.safetensors
    """
    card = vltrack.init_weights(name, out, size=size, seed=seed, overwrite=overwrite)
    if json:
        emit({"weights": printable(out), "tracker": card["tracker"], "parameters": card["parameters"]})
    else:
        say(f"{printable(out)}: {card['parameters']:,} parameters, not trained.")


def import_weights(
    files: Annotated[
        list[Path], Argument(metavar="FILE...", help=".pth, .pt, .bin, .safetensors or .npz; one or several.")
    ],
    name: Annotated[str, Option("--as", metavar="NAME", help="Which model: litetrack-base, ...")],
    out: Annotated[Path | None, Option(metavar="FILE", help="Weights to write; else NAME.safetensors here.")] = None,
    kind: Annotated[
        list[str] | None,
        Option(metavar="KIND", help="Kind of a file, where its names do not show it (the list above); one per file."),
    ] = None,
    partial: Annotated[
        list[str] | None,
        Option(
            metavar="PREFIX",
            help="Skip parameters whose name starts with PREFIX (ours or the checkpoint's). Repeatable.",
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
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
      all-in-one-sentence  all-in-one-base
      uvltrack    litetrack-uvltrack-base litetrack-uvltrack-large
      litetrack   litetrack-base
      artrack     aitrack-artrack-base [aitrack-base]
      aitrack     aitrack-base
      stark       bit-tracker-stark-base bit-tracker-stark-r50 bit-tracker-stark-s50
                  [bit-tracker-base bit-tracker-base-r50]
      mae         [litetrack-base litetrack-uvltrack-base litetrack-uvltrack-large
                  all-in-one-base all-in-one-ostrack-base sa-tracker-base
                  aitrack-base aitrack-artrack-base]
      bert        [litetrack-base litetrack-uvltrack-base litetrack-uvltrack-large
                  all-in-one-base sa-tracker-base]
      resnet      [bit-tracker-base bit-tracker-base-r50
                  bit-tracker-stark-base bit-tracker-stark-r50 bit-tracker-stark-s50]
      alpha-clip  [aitrack-base]
      clip        [aitrack-base]
      clip-both   [aitrack-base]
    """
    from vltrack.api.train import import_record
    from vltrack.cli.tables import import_lines

    done = vltrack.import_weights(
        list(files), name, out=out, kinds=kind or (), partial=partial or (), overwrite=overwrite
    )
    if json:
        emit(import_record(done))
    if not quiet:
        lines, warnings = import_lines(done, name)
        for line in lines:
            say(line)
        for warning in warnings:
            warn(warning)


def export(
    model: Annotated[str, Argument(help="Name of a model (vltrack models), `grounder`, or path of weights.")],
    out: Annotated[Path, Option("--out", "-o", metavar="FOLDER", help="Folder of the graphs.")],
    to: Annotated[str, Option(help="onnx (runs in OpenVINO and in ONNX Runtime) or openvino (IR).")] = "onnx",
    overwrite: opt.Overwrite = False,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Write a network as graphs that run without torch, in C++ or in a browser (docs/speed.md).

    \b
    vltrack export litetrack-tiny --to openvino -o litetrack-ir
    vltrack track clip.mp4 --model litetrack-ir --box 120,40,60,80
    """
    done = vltrack.export_model(model, to, out, overwrite=overwrite)
    if json:
        emit(done.to_dict())
    if not quiet:
        say(f"{printable(model)} as {to}: {printable(done.out)}, {counted(len(done.files), 'file')}")
        say(f"calls: {', '.join(done.manifest['calls'])}; graphs.json has what they read and write.")


def models(
    names: Annotated[
        list[str] | None, Argument(metavar="[NAME]...", help="Only these trackers or sizes of trackers.")
    ] = None,
    measure: Annotated[
        bool, Option("--measure", help="Measure those with weights on this machine: a frame, memory, loading.")
    ] = False,
    json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """List the trackers: paper, modes, weights at hand, how large, what each claims and what is ours."""
    from vltrack.api.doctor import list_models, measure_models
    from vltrack.checkpoints.outside import installed
    from vltrack.cli.tables import LEGEND, measured_lines, model_lines

    if measure:
        costs = measure_models(names or ())
        if json:
            for row in costs:
                emit(row)
        else:
            emit_lines(measured_lines(costs))
        return
    rows = list_models(names or ())
    if json:
        for row in rows:
            emit(row)
        return
    emit_lines(model_lines(rows))
    say(LEGEND)
    if others := installed():
        say(f"From installed packages: {', '.join(others)}.")


def doctor(
    seconds: Annotated[float, Option(min=0.1, help="How long the self test may track.")] = 3.0,
    json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Check versions, devices, codecs, OpenCV, weights and speed, with a remedy. Exit code 0 or 6."""
    from vltrack.api.doctor import diagnose

    bad = []
    for one in diagnose(seconds):
        if json:
            emit(asdict(one))
        else:
            line = f"{'ok ' if one.good else 'BAD'}  {one.name}: {one.found}"
            emit_lines([f"{line}  -> {one.remedy}" if one.remedy else line])
        if not one.good:
            bad.append(one.name)
    if bad:
        raise ResourceError(f"Not ready: {', '.join(bad)}.", hint="See the remedy printed for each of them.")

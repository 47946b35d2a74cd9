"""The verbs ``track``, ``demo`` and ``compare``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

import vltrack
from vltrack.api import inputs
from vltrack.checkpoints.cards import DEFAULT_MODEL
from vltrack.cli import options as opt
from vltrack.cli.console import Console, emit, finish, say, warn
from vltrack.core.errors import UsageError
from vltrack.core.files import printable

if TYPE_CHECKING:
    from vltrack.api.compare import Comparison
    from vltrack.api.track import RunOptions
    from vltrack.cli.window import Window
    from vltrack.core.track import Mark
    from vltrack.core.types import Target


def track(
    input: opt.Inputs = None,
    text: opt.Text = None,
    box: opt.Boxes = None,
    target: Annotated[
        list[str] | None, Option(metavar="NAME:WHAT", help="NAME:SENTENCE or NAME:BOX; repeat for several.")
    ] = None,
    from_: Annotated[
        Path | None,
        Option("--from", metavar="FILE", help="Annotations (CVAT, COCO, ...) whose first boxes name the targets."),
    ] = None,
    videos: Annotated[
        Path | None, Option(metavar="FILE", help="CSV of inputs and their targets: columns video, text, box, target.")
    ] = None,
    keyframes: Annotated[
        Path | None,
        Option(metavar="FILE", help="CSV of marks in several frames: target,frame,x,y,w,h, or absent, or a sentence."),
    ] = None,
    backward: Annotated[bool, Option("--backward", help="Track from --start back to the first frame, too.")] = False,
    box_format: opt.BoxFormat = "xywh",
    box_unit: opt.BoxUnit = "px",
    text_file: opt.TextFile = None,
    line: opt.Line = None,
    start: opt.Start = 0,
    end: opt.End = None,
    stride: opt.Stride = 1,
    model: opt.Model = DEFAULT_MODEL,
    output: Annotated[
        list[Path] | None,
        Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help=".csv, .json: boxes; .xml: boxes for CVAT; .mp4, .gif: video; .png: contact sheet. Repeat for several."
            " Of many videos: a folder for NAME.csv, or names with {name} in them.",
        ),
    ] = None,
    jobs: opt.Jobs = None,
    engine: opt.Engine = "local",
    overwrite: opt.Overwrite = False,
    resume: Annotated[bool, Option("--resume", help="Continue where the same command was killed or stopped.")] = False,
    json: opt.RowsAsJson = False,
    no_video: Annotated[bool, Option("--no-video", help="Do not write .mp4 and .gif outputs.")] = False,
    blur: Annotated[bool, Option("--blur", help="Videos: blur the targets, in place of boxes.")] = False,
    crop: Annotated[bool, Option("--crop", help="Videos: follow the targets with the view.")] = False,
    trail: Annotated[bool, Option("--trail", help="Videos: draw the way of the targets.")] = False,
    show: Annotated[bool, Option("--show", help="Show the frames in a window as they are tracked; q ends.")] = False,
    allow_network: opt.Network = False,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    backend: opt.Backend = "auto",
    precision: opt.Precision = "auto",
    anyway: Annotated[bool, Option("--anyway", help="Start even where nothing in the frame fits the text.")] = False,
    wait: Annotated[bool, Option("--wait", help="Start as soon as something in view fits the text.")] = False,
    fail_if_lost: Annotated[bool, Option("--fail-if-lost", help="Exit code 7 if the target was ever lost.")] = False,
    doubt: Annotated[bool, Option("--doubt", help="Write how much each frame deserves a look; see review.")] = False,
    allow_empty_text: opt.AllowEmpty = False,
    mode: Annotated[str | None, Option(help="nl, bbox or nlbbox: only checks that the flags fit.")] = None,
    set_: opt.Set = None,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Follow what a sentence, a box, or both name, through a video.

    Without -o the rows go to standard output: frame,seconds,x,y,w,h,score,visible,status.

    \b
    vltrack track clip.mp4 --text "the white car on the left" -o boxes.csv -o seen.mp4
    vltrack track clip.mp4 --text "the dog" --box 120,40,60,80
    vltrack track clip.mp4 --target "1:the dog" --target "2:120,40,60,80"
    vltrack track clip.mp4 --from annotations.xml -o boxes.xml
    vltrack track videos/*.mp4 --text "the red car" -o results -j 4
    """
    starts = {} if from_ is None else _annotated(
        from_, input, (text, box, target, text_file, videos, keyframes), start
    )  # fmt: skip
    apart = len({frame for frame, _ in starts.values()}) > 1
    start = min((frame for frame, _ in starts.values()), default=start)
    many = videos is not None or len(input or ()) > 1 or inputs.is_for_many(output or ()) or engine != "local"
    if show and (many or keyframes is not None or backward or apart):
        raise UsageError("--show is for one video, tracked forward.", hint="Leave --show out, or what prevents it.")
    outputs = [path for path in output or () if not (no_video and path.suffix.lower() in inputs.VIDEOS)]
    options: RunOptions = {
        "box_format": box_format, "box_unit": box_unit, "start": start, "end": end, "stride": stride, "model": model,
        "overwrite": overwrite, "device": device, "threads": threads, "backend": backend, "precision": precision,
        "policy": inputs.read_policy(set_),
        "effects": [name for name, wanted in (("blur", blur), ("crop", crop), ("trail", trail)) if wanted],
        "anyway": anyway, "wait": wait, "fail_if_lost": fail_if_lost, "partial_ok": False, "resume": resume,
        "doubt": doubt,
    }  # fmt: skip
    if doubt and not outputs:
        raise UsageError("--doubt is a column of a file.", hint="Name it: -o boxes.csv.")
    if keyframes is not None or apart:
        if box or target or videos is not None:
            raise UsageError("The file of --keyframes says where the targets are.", hint="Leave the others out.")
        marks, sentences = _marks(keyframes, starts)
        vltrack.track(
            _only_one(input), keyframes=marks, text=inputs.read_text(text, text_file, line) or sentences,
            backward=backward, outputs=outputs, allow_network=allow_network,
            reporter=Console(quiet=quiet, as_json=json, rows=not outputs, several=len(marks) > 1), **options,
        )  # fmt: skip
        return
    if videos is None:
        targets = {name: one for name, (_, one) in starts.items()} or inputs.read_targets(
            inputs.read_text(text, text_file, line), box, target or (),
            box_format=box_format, allow_empty_text=allow_empty_text, warn=warn,
        )  # fmt: skip
        named = dict.fromkeys(input or (), targets)
        if len(named) < len(input or ()):
            raise UsageError("An input is given twice.", hint="Give each once; see vltrack track --help.")
    elif input or text or box or target or text_file:
        raise UsageError("The file of --videos names all inputs and targets.", hint="Leave the others out.")
    else:
        from vltrack.api.many import read_videos

        named = read_videos(videos, box_format)
    if not named:
        raise UsageError("Missing argument 'INPUT...'.", hint="See vltrack track --help.")
    for targets in named.values():
        inputs.check_mode(mode, targets)
    if many:
        if backward:
            _only_one(list(named))
        vltrack.track_many(
            named, outputs=outputs, jobs=jobs, engine=engine, reporter=Console(quiet=quiet, as_json=json), **options
        )
        return
    with _window(named, options["effects"]) if show else nullcontext() as window:
        console = Console(quiet=quiet, as_json=json, rows=not outputs, several=len(targets) > 1, window=window)
        vltrack.track(
            *named, targets=targets, outputs=outputs, allow_network=allow_network, record=bool(outputs),
            backward=backward, reporter=console, **options,
        )  # fmt: skip


@contextmanager
def _window(named: Mapping[str, Mapping[str, Target]], effects: Sequence[str]) -> Iterator[Window]:
    """A window for the frames of the one video, closed at the end. Raises ``ResourceError`` where there is none."""
    from vltrack.cli.window import Window

    ((video, targets),) = named.items()
    labels = [one.text or "" if len(targets) == 1 else name for name, one in targets.items()]
    window = Window(f"vltrack: {printable(video)}", effects, labels)
    try:
        yield window
    finally:
        window.close()


def _marks(path: Path | None, starts: Mapping[str, tuple[int, Target]]) -> tuple[dict[str, list[Mark]], dict[str, str]]:
    """Return the marks and sentences by target: of a file, or of targets that start in different frames."""
    if path is not None:
        from vltrack.api.keyframes import read_keyframes

        return read_keyframes(path)
    marks = {name: [vltrack.Mark(frame, box=target.box)] for name, (frame, target) in starts.items()}
    return marks, {name: target.text for name, (_, target) in starts.items() if target.text is not None}


def _annotated(
    path: Path, sources: list[str] | None, others: tuple[object, ...], start: int
) -> dict[str, tuple[int, Target]]:
    """Return the first frame of each target of an annotation, and the target. Raises ``UsageError``, ``DataError``."""
    from vltrack.api.convert import starts_of

    if any(each is not None for each in others):
        raise UsageError("The annotations of --from name all targets.", hint="Leave the others out.")
    if len(sources or ()) != 1:
        raise UsageError("The annotations of --from belong to one video.", hint="Give one input.")
    starts = starts_of(vltrack.read_tracks(path, video=sources[0] if sources else None))
    first = min(frame for frame, _ in starts.values())
    if start not in (0, first):
        raise UsageError(f"The targets of --from begin in frame {first}, not {start}.", hint="Leave --start out.")
    return starts


def _only_one(videos: list[str] | None) -> str:
    """The one input of a run with marks. Raises ``UsageError``."""
    if len(videos or ()) != 1:
        raise UsageError("--keyframes and --backward are for one video.", hint="Run it for each.")
    return (videos or [""])[0]


def demo(
    out: Annotated[Path, Option(help="Folder for the results; files of an earlier demo are replaced.")] = Path(
        "demo-output"
    ),
    model: opt.Model = DEFAULT_MODEL,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    json: opt.SummaryAsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Track a car through a short real clip; write the video, the boxes and a contact sheet."""
    clip, target = inputs.demo_clip()
    inputs.make_folder(out)
    outputs = [out / f"{clip.stem}{suffix}" for suffix in (".csv", ".mp4", ".png")]
    say(f"{clip}: {target.text}")
    vltrack.track(
        clip, box=target.box, text=target.text, model=model, outputs=outputs, overwrite=True, device=device,
        threads=threads, partial_ok=False, reporter=Console(quiet=quiet, as_json=json),
    )  # fmt: skip
    say(f"Look at {outputs[1]} and {outputs[2]}.")


def compare(
    input: opt.Input,
    more: Annotated[list[str] | None, Argument(metavar="MODEL", help="The same as --models.")] = None,
    models: Annotated[
        list[str] | None,
        Option(
            "--models",
            "-m",
            metavar="NAME ...",
            help="Names of models (vltrack models) or paths of weights; default: all that have weights.",
        ),
    ] = None,
    text: opt.Text = None,
    box: opt.Boxes = None,
    box_format: opt.BoxFormat = "xywh",
    box_unit: opt.BoxUnit = "px",
    text_file: opt.TextFile = None,
    line: opt.Line = None,
    start: opt.Start = 0,
    end: opt.End = None,
    stride: opt.Stride = 1,
    out: Annotated[Path, Option(metavar="FOLDER", help="Folder for the results.")] = Path("compare-output"),
    truth: Annotated[
        Path | None, Option(metavar="FILE", help="Ground truth, x,y,w,h per frame of the input: adds success AUC.")
    ] = None,
    overwrite: opt.Overwrite = False,
    json: opt.SummaryAsJson = False,
    no_video: Annotated[bool, Option("--no-video", help="Do not write the video.")] = False,
    allow_network: opt.Network = False,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    backend: opt.Backend = "auto",
    precision: opt.Precision = "auto",
    allow_empty_text: opt.AllowEmpty = False,
    set_: opt.Set = None,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Run several trackers over one video, decoded once: one image, one video, all boxes, their agreement.

    \b
    vltrack compare clip.mp4 --box 120,40,60,80 --text "the white car"
    vltrack compare clip.mp4 --box 120,40,60,80 --models litetrack-tiny runs/mine/best.safetensors
    """
    target = inputs.read_targets(
        inputs.read_text(text, text_file, line), box,
        box_format=box_format, allow_empty_text=allow_empty_text, warn=warn,
    )["1"]  # fmt: skip

    def show(found: Comparison) -> None:
        from vltrack.cli.tables import comparison_lines

        if json:
            emit(found.to_dict())
        if not quiet:
            for each in comparison_lines(found):
                say(each)
            for path in found.files:
                say(f"wrote {path}")

    finish(lambda: vltrack.compare(
        input, box=target.box, text=target.text, models=inputs.read_models(models, more), box_format=box_format,
        box_unit=box_unit, start=start, end=end, stride=stride, out=out, video=not no_video, truth=truth,
        overwrite=overwrite, allow_network=allow_network, device=device, threads=threads, backend=backend,
        precision=precision,
        policy=inputs.read_policy(set_), reporter=Console(quiet=quiet),
    ), show)  # fmt: skip

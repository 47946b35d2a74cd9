"""The verb ``find``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

import vltrack
from vltrack.cli import options as opt
from vltrack.cli.console import emit, emit_lines, say, warn
from vltrack.core.errors import UsageError

if TYPE_CHECKING:
    from vltrack.api.find import Found


def find(
    input: opt.Input,
    text: Annotated[
        list[str] | None, Option("--text", "-t", metavar="SENTENCE", help="What to find; repeat for several.")
    ] = None,
    at: Annotated[
        str | None,
        Option(metavar="12.5s|FRAME", help="Which frame: a time in seconds, or a number. Default: the first."),
    ] = None,
    output: Annotated[
        list[Path] | None, Option("--output", "-o", metavar="FILE.png", help="Draw the boxes into the frame.")
    ] = None,
    overwrite: opt.Overwrite = False,
    json: opt.AsJson = False,
    allow_network: opt.Network = False,
    device: opt.Device = "auto",
    backend: opt.Backend = "auto",
    debug: opt.Debug = False,
) -> None:
    """Find what a sentence names in one frame: the best box, its rivals, and the words that set them apart.

    The exit code is 10 where nothing fits.

    \b
    vltrack find clip.mp4 --text "the white car on the left" -o seen.png
    vltrack find clip.mp4 --text "the dog" --text "the man in red" --at 12.5s
    """
    if output and len(output) > 1:
        raise UsageError(f"--output was given {len(output)} times; one image is written.", hint="Give one .png.")
    found = vltrack.find(
        input, text or (), at=at, output=output[0] if output else None, overwrite=overwrite,
        allow_network=allow_network, device=device, backend=backend,
    )  # fmt: skip
    for answer in found.answers:
        for warning in answer.warnings:
            warn(warning if len(found.answers) == 1 else f"{answer.text[:40]}: {warning}")
    if json:
        emit(found.to_dict())
    else:
        emit_lines(_lines(found))
    for path in found.files:
        say(f"wrote {path}")
    refusal = found.refusal()
    if refusal is not None:
        raise refusal


def _lines(found: Found) -> Iterator[str]:
    """The table for people: per sentence its boxes, best first."""
    yield f"frame {found.frame} ({found.seconds:g} s) of {found.source}, {found.width} x {found.height}"
    for answer in found.answers:
        yield ""
        unclear = ": several may be meant" if answer.ambiguous else ""
        yield answer.text + (unclear if answer.fits else ": nothing here fits; the nearest:")
        width = max((len(one.label) for one in answer.boxes), default=0)
        for one in answer.boxes:
            box = ",".join(f"{side:.0f}" for side in one.box)
            yield f"  {one.score:.2f}  {box:<17}  {one.label:<{width}}  {', '.join(one.words)}".rstrip()
        others = 1.0 - answer.nothing - sum(one.score for one in answer.boxes)
        if others >= 0.005:
            yield f"  {others:.2f}  other boxes"
        yield f"  {answer.nothing:.2f}  nothing"

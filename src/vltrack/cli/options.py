"""Arguments and options that several verbs share; those of one verb are declared in its signature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

# -- what to track ------------------------------------------------------------------------------------

Input = Annotated[
    str, Argument(metavar="INPUT", help="Video file, folder of images, camera number, or - for standard input.")
]
Inputs = Annotated[
    list[str] | None,
    Argument(
        metavar="INPUT...", help="Video file, folder of images, camera number, - for standard input; or many files."
    ),
]
Text = Annotated[list[str] | None, Option("--text", "-t", metavar="SENTENCE", help="A sentence that names the target.")]
Boxes = Annotated[
    list[str] | None, Option("--box", "-b", metavar="X,Y,W,H", help="Four numbers, in the first frame that is read.")
]
BoxFormat = Annotated[str, Option(help="xywh (corner and size), xyxy (two corners) or cxcywh (center and size).")]
BoxUnit = Annotated[str, Option(help="px, or rel for shares of the frame.")]
TextFile = Annotated[Path | None, Option(help="Read the sentence from this file.")]
Line = Annotated[int | None, Option(help="Which line of --text-file; the first is 1.")]
AllowEmpty = Annotated[bool, Option("--allow-empty-text", help="With --box: ignore a sentence without words.")]
Start = Annotated[int, Option("--start", "--start-frame", help="First frame, where the target is named.")]
End = Annotated[int | None, Option(help="Stop before this frame.")]
Stride = Annotated[int, Option(help="Take every n-th frame.")]
Network = Annotated[bool, Option("--allow-network", help="Allow rtsp:// addresses.")]

# -- with which network -------------------------------------------------------------------------------

Model = Annotated[
    str,
    Option("--model", "-m", help="Name of a model (vltrack models), path of weights, FILE.py:CLASS, or opencv:mil."),
]
Device = Annotated[str, Option(help="auto, cpu, cuda or mps.")]
Backend = Annotated[str, Option(help="What runs the network: auto, torch, openvino or onnx.")]
Precision = Annotated[str, Option(help="Its numbers: auto, fp32, bf16 or int8.")]
Threads = Annotated[int | None, Option(min=1, max=1024, help="Threads of the network.")]
Jobs = Annotated[
    int | None, Option("--jobs", "-j", min=0, help="Worker processes, one thread each; 0: all [1; with ray: all].")
]
Engine = Annotated[str, Option(help="local, or ray for a Ray cluster (extra: vltrack[ray]).")]
Set = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="policy.key=value; repeat for several.")]

# -- data sets and results ----------------------------------------------------------------------------

Dataset = Annotated[str | None, Option(metavar="NAME", help="Name of the data set, if it cannot be detected.")]
Split = Annotated[str | None, Option(metavar="NAME", help="Split of the data set: test, val, train, ...")]
Short = Annotated[str, Option(help="Results with too few rows: refuse, count as misses, or cut the ground truth.")]

# -- what is printed and written ----------------------------------------------------------------------

Overwrite = Annotated[bool, Option("--overwrite", help="Replace outputs that exist.")]
RowsAsJson = Annotated[bool, Option("--json", help="JSON lines on standard output; with -o one summary object.")]
SummaryAsJson = Annotated[bool, Option("--json", help="One summary object on standard output.")]
AsJson = Annotated[bool, Option("--json", help="Results as JSON on standard output.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress and no summary.")]
# Verbs do not read `debug`: `cli.main.main` looks for the flag among the arguments.
Debug = Annotated[bool, Option("--debug", help="Show the full traceback of an error.")]

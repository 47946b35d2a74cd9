"""A child process that scores with the got10k package: JSON lines in and out. Needs numpy and got10k.

A request is ``{"arrays", "repeats"}``: ``arrays`` is an .npz with ``names`` (S,), ``lens`` (S,) frames a
sequence, ``truth`` and ``boxes`` (F, 4) x, y, w, h of all sequences one after the other. The answer is
``{"seconds", "all", "frames", "sequences", "auc", "precision"}``: the median and every time of the compute of
``ExperimentUAV123.report``, and what it comes to, 0 to 1. Reading the arrays is not counted, nor the drawing
that ``report`` ends with.

Timed is what ``report`` does between reading a file and writing the table: the first row becomes the
annotation, the package's own ``_calc_metrics`` and ``_calc_curves`` for each sequence, the means.
``ExperimentUAV123`` is ``ExperimentOTB`` without the rows whose annotation is NaN; both have success and
precision, no normalised precision (got10k 0.1.3), so this does less than our scorer.

Start it with ``OMP_NUM_THREADS=1`` and ``MPLBACKEND=Agg``.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from got10k.experiments import ExperimentUAV123


def experiment() -> Any:
    """The package's experiment without a data set: its constructor would look for the videos."""
    made = object.__new__(ExperimentUAV123)
    made.nbins_iou, made.nbins_ce = 21, 51
    return made


def compute(toolkit: Any, truth: list[Any], boxes: list[Any]) -> tuple[float, float]:
    """Success (mean of 21) and precision (at 20 px) as ``report`` has them, 0 to 1."""
    success = np.zeros((len(truth), toolkit.nbins_iou))
    precision = np.zeros((len(truth), toolkit.nbins_ce))
    for number, (annotated, found) in enumerate(zip(truth, boxes, strict=True)):
        found[0] = annotated[0]
        overlaps, errors = toolkit._calc_metrics(found, annotated)
        success[number], precision[number] = toolkit._calc_curves(overlaps, errors)
    return float(success.mean(axis=0).mean()), float(precision.mean(axis=0)[20])


def run(request: dict[str, Any]) -> dict[str, Any]:
    """One set of arrays, ``repeats`` times."""
    with np.load(request["arrays"], allow_pickle=False) as arrays:
        lengths = np.asarray(arrays["lens"], dtype=np.int64)
        truth, boxes = (np.split(arrays[key].astype(float), np.cumsum(lengths)[:-1]) for key in ("truth", "boxes"))
    toolkit = experiment()
    times = []
    for _ in range(max(1, int(request.get("repeats", 5)))):
        begin = time.perf_counter()
        auc, precision = compute(toolkit, truth, boxes)
        times.append(time.perf_counter() - begin)
    return {
        "seconds": statistics.median(times),
        "all": times,
        "frames": int(lengths.sum()),
        "sequences": len(lengths),
        "auc": auc,
        "precision": precision,
    }


def main() -> None:
    """Answer requests until the input ends."""
    versions = {"got10k": version("got10k"), "numpy": np.__version__, "python": sys.version.split()[0]}
    print(json.dumps({"versions": versions}), flush=True)
    for line in sys.stdin:
        try:
            answer = run(json.loads(line))
        except (KeyError, ValueError, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

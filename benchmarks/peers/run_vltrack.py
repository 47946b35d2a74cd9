"""A child process that runs our tracker through its public API: the same JSON lines as ``run_opencv.py``.

A request is ``{"frames", "box", "text"}``; box or text may be null. The answer is ``{"boxes", "ms", "scores",
"visible"}``, or ``{"refused"}`` where the text gives no box.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import cv2
import numpy as np
import torch

import vltrack
from vltrack.api.inputs import read_policy
from vltrack.core.errors import GroundingFailed, VltrackError
from vltrack.tracking.tracker import Tracker


def run(tracker: Tracker, request: dict[str, Any]) -> dict[str, Any]:
    """One start and all updates over one sequence."""
    frames = np.load(request["frames"], mmap_mode="r")
    box = tuple(request["box"]) if request["box"] else None
    boxes, times, scores, visible = [], [], [], []
    for index in range(len(frames)):
        image = np.ascontiguousarray(frames[index])
        begin = time.perf_counter()
        step = tracker.init(image, box=box, text=request["text"]) if index == 0 else tracker.update(image)
        times.append((time.perf_counter() - begin) * 1e3)
        boxes.append([float(v) for v in step.box])
        scores.append(float(step.score))
        visible.append(bool(step.visible))
    return {"boxes": boxes, "ms": times, "scores": scores, "visible": visible}


def main() -> None:
    """Load the weights named on the command line and answer requests until the input ends."""
    weights, *options, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    cv2.setNumThreads(int(threads))
    tracker = Tracker.load(
        weights, anyway=True, precision="fp32", policy=read_policy([f"policy.{one}" for one in options])
    )
    versions = {"vltrack": getattr(vltrack, "__version__", "unknown"), "torch": torch.__version__}
    print(json.dumps({"versions": versions, "trackers": ["bbox", "nlbbox", "nl"]}), flush=True)
    for line in sys.stdin:
        try:
            answer = run(tracker, json.loads(line))
        except GroundingFailed as error:
            answer = {"refused": str(error)}
        except VltrackError as error:
            answer = {"error": f"{error.code}: {error}"[:300]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

"""A child process that runs OpenCV's trackers: JSON lines in, JSON lines out. Needs only numpy and cv2.

A request is ``{"tracker", "frames", "box", "models"}``: ``frames`` is an .npy file (N, H, W, 3) of RGB uint8,
``box`` x,y,w,h in the first frame, ``models`` the folder of NanoTrack's networks. The answer is ``{"boxes",
"ms"}``: N boxes (the first is the start box; where a tracker reports failure its last box is held, as a user
would) and the milliseconds of ``init`` and of each ``update``. Reading a frame and turning it to BGR is not
counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

FACTORIES = {"csrt": "TrackerCSRT", "kcf": "TrackerKCF", "mil": "TrackerMIL", "nanotrack": "TrackerNano"}


def make(name: str, models: str) -> Any:
    """A fresh tracker of OpenCV with its default parameters."""
    kind = getattr(cv2, FACTORIES[name])
    if name != "nanotrack":
        return kind.create()
    parameters = cv2.TrackerNano_Params()
    parameters.backbone = str(Path(models) / "nanotrack_backbone_sim.onnx")
    parameters.neckhead = str(Path(models) / "nanotrack_head_sim.onnx")
    return kind.create(parameters)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """One tracker over one sequence."""
    frames = np.load(request["frames"], mmap_mode="r")
    start = [float(v) for v in request["box"]]
    cv2.setRNGSeed(0)
    tracker = make(request["tracker"], request.get("models", ""))
    boxes, times = [start], []
    for index in range(len(frames)):
        image = np.ascontiguousarray(frames[index][:, :, ::-1])
        begin = time.perf_counter()
        if index == 0:
            tracker.init(image, tuple(round(v) for v in start))
        else:
            found, box = tracker.update(image)
        times.append((time.perf_counter() - begin) * 1e3)
        if index > 0:
            boxes.append([float(v) for v in box] if found else boxes[-1])
    return {"boxes": boxes, "ms": times}


def main() -> None:
    """Answer requests until the input ends."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    cv2.setNumThreads(threads)
    have = [name for name, kind in FACTORIES.items() if hasattr(cv2, kind)]
    print(json.dumps({"versions": {"opencv": cv2.__version__, "numpy": np.__version__}, "trackers": have}), flush=True)
    for line in sys.stdin:
        try:
            answer = run(json.loads(line))
        except (cv2.error, OSError, ValueError, KeyError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

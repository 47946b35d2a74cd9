"""Follow several targets in one pass over the video.

Run: python examples/several_targets.py
"""

from __future__ import annotations

from pathlib import Path

import vltrack

CLIP = Path(__file__).with_name("car-shadow.mp4")
TARGETS = {
    "car": vltrack.Target(box=(313, 88, 342, 194), text="the small silver car"),
    "rear light": vltrack.Target(box=(610, 106, 24, 68)),
}


def main() -> None:
    trackers = vltrack.MultiTracker(vltrack.load("litetrack-tiny"))
    with vltrack.open_source(CLIP) as frames:
        for number, frame in enumerate(frames):
            steps = trackers.update(frame) if number else trackers.init(frame, TARGETS)
            for name, step in steps.items():
                print(step.index, name, *step.box.round(1), f"{step.score:.2f}")


if __name__ == "__main__":
    main()

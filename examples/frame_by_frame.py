"""Follow a target in frames from any library, here from OpenCV (which gives BGR: the last axis is reversed).

Run: python examples/frame_by_frame.py [VIDEO or camera number]
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

import vltrack

CLIP = Path(__file__).with_name("car-shadow.mp4")


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else str(CLIP)
    video = cv2.VideoCapture(int(name) if name.isdecimal() else name)
    tracker = vltrack.load("litetrack-tiny")
    started = False
    while True:
        good, bgr = video.read()
        if not good:
            break
        rgb = bgr[:, :, ::-1]
        step = tracker.update(rgb) if started else tracker.init(rgb, box=(313, 88, 342, 194))
        started = True
        print(step.index, *step.box.round(1), f"{step.score:.2f}", "seen" if step.visible else "lost")


if __name__ == "__main__":
    main()

"""Follow a target through a clip by box and sentence, save the boxes, print how it went.

Run: python examples/track_a_clip.py [CLIP]
"""

from __future__ import annotations

import sys
from pathlib import Path

import vltrack

CLIP = Path(__file__).with_name("car-shadow.mp4")


def main() -> None:
    clip = sys.argv[1] if len(sys.argv) > 1 else CLIP
    track = vltrack.track(clip, box=(313, 88, 342, 194), text="the small silver car")
    track.save("car-shadow.csv", overwrite=True)
    print(f"{len(track)} frames, visible in {int(track.visible.sum())}, mean score {track.scores.mean():.2f}")
    print("last box (x, y, w, h):", track.boxes[-1].round(1).tolist())


if __name__ == "__main__":
    main()

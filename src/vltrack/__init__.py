"""vltrack: name a target in a video with a sentence, a box, or both, and get its box in every frame.

The public face. Knows where the public names live and loads them on first use; ``import vltrack`` loads no
torch, no OpenCV and no numpy.

    import vltrack
    track = vltrack.track("clip.mp4", text="the white car on the left")
    track.save("clip.csv")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vltrack.core.track import Track
    from vltrack.core.types import Target
    from vltrack.tracking.tracker import Tracker, track

    load = Tracker.load

__version__ = "0.1.0"


_HOMES = {
    "Target": "vltrack.core.types",
    "Track": "vltrack.core.track",
    "Tracker": "vltrack.tracking.tracker",
    "track": "vltrack.tracking.tracker",
}


def __getattr__(name: str) -> object:
    if name == "load":
        tracker: object = __getattr__("Tracker").load  # type: ignore[attr-defined]
        return tracker
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'vltrack' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = ["Target", "Track", "Tracker", "__version__", "load", "track"]

"""Name a target in a video with a sentence, a box, or both, and get its box in every frame.

    import vltrack
    track = vltrack.track("clip.mp4", text="the white car on the left")
    track.save("clip.csv")

The names in ``__all__`` are the stable interface; everything else may change. They are loaded on first use:
``import vltrack`` loads no torch, no OpenCV and no numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vltrack.api.ablate import ablate
    from vltrack.api.audit import audit
    from vltrack.api.compare import compare
    from vltrack.api.convert import convert, read_tracks, write_tracks
    from vltrack.api.correct import correct
    from vltrack.api.evaluate import evaluate
    from vltrack.api.export import export_model
    from vltrack.api.find import find
    from vltrack.api.many import track_many
    from vltrack.api.report import report
    from vltrack.api.review import review
    from vltrack.api.track import track
    from vltrack.api.train import import_weights, init_weights, train
    from vltrack.api.tune import tune
    from vltrack.core.errors import VltrackError
    from vltrack.core.track import Mark, Track
    from vltrack.core.types import Candidate, Frame, Step, Target
    from vltrack.tracking.postprocess import Policy
    from vltrack.tracking.tracker import MultiTracker, Tracker
    from vltrack.video.source import open_source

    load = Tracker.load

__version__ = "0.1.0"
__all__ = [
    "Candidate",  # one box of an image that a sentence may name
    "Frame",  # one image of a video with its number and time
    "Mark",  # what a person says about one frame of a track
    "MultiTracker",  # follows several targets frame by frame
    "Policy",  # options of the post-processing
    "Step",  # one target in one frame: box, score, visible
    "Target",  # what to follow: box, text, or both
    "Track",  # one target through one video
    "Tracker",  # follows one target frame by frame
    "VltrackError",  # base of all errors
    "ablate",  # what each idea of a tracker adds
    "audit",  # measure what the sentence does for a model
    "compare",  # several trackers over one video
    "convert",  # boxes from one format into another
    "correct",  # a track with a person's marks: only the frames next to them are tracked again
    "evaluate",  # run or score trackers on a data set
    "export_model",  # a network's graphs for OpenVINO or ONNX Runtime
    "find",  # what a sentence names in one frame
    "import_weights",  # convert published weights
    "init_weights",  # the weights that a training starts with
    "load",  # a tracker with the weights of a name or path
    "open_source",  # frames of a video, folder, camera or stream
    "read_tracks",  # targets from an annotation of another program
    "report",  # one page with curves, tables and worst sequences
    "review",  # the frames of a track that deserve a look
    "track",  # follow a target through a video
    "track_many",  # follow targets through many videos at once
    "train",  # train a tracker
    "tune",  # choose options of the tracking policy
    "write_tracks",  # targets in the format of another program
]

_MODULES = {
    "Candidate": "core.types", "Frame": "core.types", "Step": "core.types", "Target": "core.types",
    "Mark": "core.track", "Track": "core.track", "VltrackError": "core.errors", "open_source": "video.source",
    "MultiTracker": "tracking.tracker", "Tracker": "tracking.tracker", "Policy": "tracking.postprocess",
    "ablate": "api.ablate", "audit": "api.audit", "compare": "api.compare", "convert": "api.convert",
    "read_tracks": "api.convert", "write_tracks": "api.convert", "correct": "api.correct", "evaluate": "api.evaluate",
    "export_model": "api.export", "find": "api.find",
    "import_weights": "api.train", "init_weights": "api.train", "report": "api.report", "review": "api.review",
    "track": "api.track", "track_many": "api.many", "train": "api.train", "tune": "api.tune",
}  # fmt: skip


def __getattr__(name: str) -> object:
    value: object
    if name == "load":
        value = __getattr__("Tracker").load  # type: ignore[attr-defined]
    elif name in _MODULES:
        value = getattr(import_module(f"vltrack.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module 'vltrack' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

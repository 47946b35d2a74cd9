"""The scoring protocols of the field, each a row of switches, and which of them scores which data set.

Where the official toolkits, and the Python code that papers report with, differ is data here, so that two
protocols can be compared. All of them are one-pass evaluation: the tracker is never restarted. Sources: the
benchmarks' published toolkits, read for their rules; names in ``source``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One protocol. A frame is *absent* if so annotated, *invalid* if its annotation is not a box.

    Attributes:
        name, title, source: for display.
        first: the first frame's prediction is replaced by the ground truth, kept, or the frame is left out.
        absent: absent frames are misses in every measure while they stay in the count; or left out of the
            count; or treated as invalid; or nothing special is done.
        valid: an annotation is a box if all four numbers, or its width and height, are positive.
        center_valid: for center errors: as ``valid``, or if the center's coordinates are positive.
        invalid: an invalid frame is a miss in overlap, or left out of all counts.
        nan: frames annotated as NaN: invalid, or left out of all counts.
        invalid_center, invalid_norm: how an invalid frame counts in precision, normalized precision.
        bad_prediction: a prediction that is not a box is replaced by the one before it, or used unchanged.
        missing: no result for a sequence: an error, or all zeros.
        short, long: fewer or more rows than the annotation: an error; filled with zeros or misses; cut.
        reach: an overlap counts at a threshold if it is above it, or at least it.
        success_steps, success_score: thresholds k/steps, k = 0..steps; their mean, or the area under them.
        precision_step, precision_score: thresholds 0..50 pixels; the value at 20, or the area (0..1).
        norm_step, norm_score: thresholds 0..0.5; the value at 0.20, the mean, or the area.
        norm_by: both centers are divided by the annotated size and then subtracted; or their difference is
            divided by it, at least 1.
        rounded: both boxes are rounded to whole pixels first.
        clipped: both boxes are cut to the frame first (where its size is known).
        uncovered: frames in which nothing of the target is visible (cover 0) count, or are left out.
        pooled: the score is the mean over sequences, or over all frames of all sequences.
        drops_empty: sequences whose curve is zero everywhere are left out of the mean of that curve.
    """

    name: str
    title: str
    source: str
    first: Literal["truth", "keep", "drop"] = "truth"
    absent: Literal["miss", "drop", "invalid", "ignore"] = "ignore"
    valid: Literal["xywh", "wh"] = "xywh"
    center_valid: Literal["box", "center"] = "box"
    invalid: Literal["miss", "drop"] = "miss"
    nan: Literal["invalid", "drop"] = "invalid"
    invalid_center: Literal["hit", "miss", "scored"] = "hit"
    invalid_norm: Literal["hit", "miss", "scored"] = "hit"
    bad_prediction: Literal["carry", "keep"] = "carry"
    missing: Literal["refuse", "zeros"] = "refuse"
    short: Literal["refuse", "zeros", "misses", "cut"] = "refuse"
    long: Literal["refuse", "cut"] = "cut"
    reach: Literal["above", "at least"] = "above"
    success_steps: int = 20
    success_score: Literal["mean", "area"] = "mean"
    precision_step: float = 1.0
    precision_score: Literal["at 20 px", "area"] = "at 20 px"
    norm_step: float = 0.01
    norm_score: Literal["at 0.20", "mean", "area"] = "at 0.20"
    norm_by: Literal["each center", "difference"] = "each center"
    rounded: bool = False
    clipped: bool = False
    uncovered: Literal["count", "drop"] = "count"
    pooled: Literal["sequences", "frames"] = "sequences"
    drops_empty: bool = False

    @property
    def success_thresholds(self) -> NDArray[np.float64]:
        """Overlaps, 0 to 1."""
        return np.arange(self.success_steps + 1) / self.success_steps

    @property
    def precision_thresholds(self) -> NDArray[np.float64]:
        """Pixels, 0 to 50."""
        return np.arange(round(50 / self.precision_step) + 1, dtype=np.float64) * self.precision_step

    @property
    def norm_thresholds(self) -> NDArray[np.float64]:
        """In sizes of the target, 0 to 0.5."""
        count = round(0.5 / self.norm_step)
        return np.arange(count + 1) * 0.5 / count


OTB = Rule(
    name="otb", title="OTB and UAV123 toolkits", source="MATLAB toolkits of OTB-100 and UAV123", drops_empty=True
)
LASOT = replace(OTB, name="lasot", title="LaSOT toolkit", source="LaSOT_Evaluation_Toolkit", absent="miss")
VLT_PYTHON = Rule(
    name="vlt-python",
    title="Python code of the vision-language trackers",
    source="extract_results.py as UVLTrack, JointNLT, All-in-One and LiteTrack have it",
    valid="wh",
    invalid_center="miss",
    invalid_norm="hit",
    short="zeros",
)
_ROWS = (
    OTB,
    LASOT,
    replace(LASOT, name="tnl2k", title="TNL2K toolkit", source="TNL2K_evaluation_toolkit"),
    replace(LASOT, name="vasttrack", title="VastTrack toolkit", source="VastTrack's toolkit"),
    VLT_PYTHON,
    replace(VLT_PYTHON, name="vlt-python-visible", title=f"{VLT_PYTHON.title}, given presence", absent="invalid"),
    replace(VLT_PYTHON, name="vlt-python-lasot", title=f"{VLT_PYTHON.title}, for LaSOT", absent="miss", short="refuse"),
    replace(VLT_PYTHON, name="vlt-python-uav", title=f"{VLT_PYTHON.title}, for UAV123", invalid_center="hit"),
    replace(VLT_PYTHON, name="pytracking", title="pytracking", source="extract_results.py of pytracking", valid="xywh"),
    Rule(
        name="pysot",
        title="pysot toolkit",
        source="pysot-toolkit",
        first="keep",
        absent="miss",
        center_valid="center",
        bad_prediction="keep",
    ),
    Rule(
        name="got10k",
        title="GOT-10k, validation",
        source="got10k toolkit, ExperimentGOT10k",
        first="drop",
        uncovered="drop",
        clipped=True,
        valid="wh",
        invalid_center="scored",
        invalid_norm="scored",
        bad_prediction="keep",
        success_steps=100,
        norm_score="mean",
        norm_by="difference",
        pooled="frames",
    ),
    Rule(
        name="got10k-otb",
        title="got10k toolkit on OTB, UAV123 and LaSOT",
        source="got10k toolkit, ExperimentOTB and those that derive from it",
        nan="drop",
        valid="wh",
        invalid_center="scored",
        invalid_norm="scored",
        bad_prediction="keep",
        short="cut",
        norm_score="mean",
        norm_by="difference",
    ),
    Rule(
        name="trackingnet",
        title="TrackingNet server",
        source="TrackingNet-devkit, metrics.py",
        valid="wh",
        invalid_center="scored",
        invalid_norm="scored",
        bad_prediction="keep",
        missing="zeros",
        short="misses",
        reach="at least",
        success_score="area",
        precision_step=2.5,
        precision_score="area",
        norm_step=0.025,
        norm_score="area",
        rounded=True,
    ),
    Rule(
        name="webuav",
        title="WebUAV-3M toolkit",
        source="the MMOT toolkit of WebUAV-3M",
        valid="wh",
        invalid_center="miss",
        invalid_norm="miss",
        bad_prediction="keep",
        long="refuse",
        norm_score="mean",
    ),
    Rule(
        name="visible-only",
        title="frames in which the target is seen",
        source="unpublished; our own, for clips of your own: nothing counts where nothing can be found",
        first="keep",
        absent="drop",
        valid="wh",
        invalid="drop",
        nan="drop",
        bad_prediction="keep",
    ),
)
RULES = {row.name: row for row in _ROWS}
"""Every protocol by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """The protocols that score one data set.

    Attributes:
        official: protocol of its own toolkit; ours if it has none that scores boxes alone.
        papers: protocol of the Python code that papers of vision-language tracking report with.
        note: for the reader of the scores.
    """

    official: str
    papers: str = "vlt-python"
    note: str = ""

    @property
    def rules(self) -> dict[str, Rule]:
        """The two protocols by column: ``official`` and ``vlt-python``."""
        return {"official": RULES[self.official], "vlt-python": RULES[self.papers]}


BENCHMARKS: Mapping[str, Benchmark] = {
    "lasot": Benchmark(official="lasot", papers="vlt-python-lasot"),
    "lasot_ext": Benchmark(official="lasot", papers="vlt-python-visible"),
    "tnl2k": Benchmark(official="tnl2k"),
    "vasttrack": Benchmark(official="vasttrack", papers="vlt-python-lasot"),
    "otb99": Benchmark(official="otb"),
    "otb100": Benchmark(official="otb"),
    "dtb70": Benchmark(official="otb"),
    "nfs": Benchmark(official="otb"),
    "uav123": Benchmark(official="otb", papers="vlt-python-uav"),
    "uav123_10fps": Benchmark(official="otb", papers="vlt-python-uav"),
    "webuav3m": Benchmark(official="webuav"),
    "got10k": Benchmark(official="got10k", papers="got10k"),
    "trackingnet": Benchmark(official="trackingnet", papers="trackingnet"),
    "mgit": Benchmark(
        official="otb", note="MGIT's own server scores other errors and restarts; this is plain one-pass evaluation."
    ),
    "folder": Benchmark(
        official="visible-only", note="Clips of your own have no official rule: frames without the target do not count."
    ),
}
"""By the data set's name in ``vltrack.datasets``."""


def benchmark_of(name: str) -> Benchmark:
    """Protocols of a data set; an unknown one is scored like clips of your own."""
    return BENCHMARKS.get(name, BENCHMARKS["folder"])

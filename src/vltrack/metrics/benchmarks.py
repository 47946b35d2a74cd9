"""Which rule scores which data set, officially and in papers. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from vltrack.metrics.rules import RULES, Rule


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """How one data set is scored.

    Attributes:
        official: rule of its own toolkit; of ours where it has none that scores boxes alone.
        papers: rule of the Python code that papers of vision-language tracking report with.
        note: what a reader of the table must know.
    """

    official: str
    papers: str = "vlt-python"
    note: str = ""

    @property
    def rules(self) -> dict[str, Rule]:
        """The two rules as the columns are called: ``official`` and ``vlt-python``."""
        return {"official": RULES[self.official], "vlt-python": RULES[self.papers]}


BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "lasot": Benchmark(official="lasot", papers="vlt-python-lasot"),
        "lasot_ext": Benchmark(official="lasot", papers="vlt-python-visible"),
        "tnl2k": Benchmark(
            official="tnl2k",
        ),
        "vasttrack": Benchmark(
            official="vasttrack",
            papers="vlt-python-lasot",
        ),
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
            official="otb",
            note="MGIT's own server scores other errors and restarts; this is plain one-pass evaluation.",
        ),
        "folder": Benchmark(
            official="visible-only",
            note="Clips of your own have no official rule: frames without the target do not count.",
        ),
    }
)
"""By the data set's name in ``vltrack.datasets``."""


def benchmark_of(name: str) -> Benchmark:
    """How the data set is scored; one that is not known is scored as clips of one's own."""
    return BENCHMARKS.get(name, BENCHMARKS["folder"])

"""Which images belong to which sequence, where the tree itself does not tell: OTB and UAV123. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vltrack.datasets.layout import Span

# The authors annotated only a part of these videos. Tiger1 begins at image 6: its boxes come with 349 rows,
# or with 354, of which the first five do not count.
OTB_SPANS: Mapping[str, Span] = MappingProxyType(
    {
        "BlurCar1": Span(first=247, last=988),
        "BlurCar3": Span(first=3, last=359),
        "BlurCar4": Span(first=18, last=397),
        "David": Span(first=300, last=770),
        "Diving": Span(first=1, last=215),
        "Football1": Span(first=1, last=74),
        "Freeman3": Span(first=1, last=460),
        "Freeman4": Span(first=1, last=283),
        "Tiger1": Span(first=6, last=354),
    }
)

# Two targets of one video, and how folders call them.
OTB_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Human4-2": ("Human4",),
        "Jogging-1": ("Jogging1", "Jogging"),
        "Jogging-2": ("Jogging2",),
        "Skating2-1": ("Skating2",),
        "Skating2-2": ("Skating3",),
    }
)

# First and last image of each part of a video that several sequences share: bird1_1, bird1_2, ...
_UAV123_PARTS: Mapping[str, str] = {
    "bird1": "1-253 775-1477 1573-2437",
    "car1": "1-751 751-1627 1627-2629",
    "car6": "1-487 487-1807 1807-2953 2953-3925 3925-4861",
    "car8": "1-1357 1357-2575",
    "car16": "1-415 415-1993",
    "group1": "1-1333 1333-2515 2515-3925 3925-4873",
    "group2": "1-907 907-1771 1771-2683",
    "group3": "1-1567 1567-2827 2827-4369 4369-5527",
    "person2": "1-1189 1189-2623",
    "person4": "1-1501 1501-2743",
    "person5": "1-877 877-2101",
    "person7": "1-1249 1249-2065",
    "person8": "1-1075 1075-1525",
    "person12": "1-601 601-1621",
    "person14": "1-847 847-1813 1813-2923",
    "person17": "1-1501 1501-2347",
    "person19": "1-1243 1243-2791 2791-4357",
    "truck4": "1-577 577-1261",
    "uav1": "1-1555 1555-2377 2473-3469",
}


def _uav_spans(step: int) -> Mapping[str, Span]:
    """The parts of UAV123 with every ``step``-th image kept (3 for the version at 10 frames a second)."""
    spans = {}
    for folder, parts in _UAV123_PARTS.items():
        for number, part in enumerate(parts.split(), 1):
            first, last = ((int(end) - 1) // step + 1 for end in part.split("-"))
            spans[f"{folder}_{number}"] = Span(first=first, last=last, folder=folder)
    return MappingProxyType(spans)


UAV123_SPANS = _uav_spans(1)
UAV123_10FPS_SPANS = _uav_spans(3)

"""The annotation of test sets without pictures, as the official toolkits and pysot carry it. Data only.

Enough to score results with; a tracker cannot be run over it.
"""

from __future__ import annotations

from vltrack.datasets.layout import Flags, Layout, Patterns, Split
from vltrack.datasets.layouts_language import LASOT, LASOT_EXT, LASOT_EXT_CLASSES
from vltrack.datasets.layouts_words import LASOT_14, OTB_11, TNL2K_17, UAV123_12, VASTTRACK_10

_TEST = Split(name="test")
_TOOLKIT = "the toolkit's annotation, no pictures"
_PYSOT = "pysot's annotation, no pictures"


def _pysot(name: str, title: str, file: str, attributes: Patterns = ()) -> Layout:
    """The one JSON file that pysot has of a test set."""
    return Layout(
        name=name,
        title=title,
        form=_PYSOT,
        splits=(_TEST,),
        marks=((file,),),
        empty="flat",
        attributes=attributes,
        json=file,
    )


ANNOTATIONS: tuple[Layout, ...] = (
    Layout(
        name="lasot_ext",
        title="LaSOT_ext",
        form=_TOOLKIT,
        splits=(_TEST,),
        truth=("annos/{seq}.txt",),
        marks=tuple((f"annos/{one}-*.txt", "absent/*.txt") for one in LASOT_EXT_CLASSES),
        names=LASOT_EXT.names,
        flags=(Flags(files=("absent/{seq}.txt",)),),
        attributes=LASOT_14,
        attribute_files=("att/{seq}.txt",),
        cuts=LASOT_EXT.cuts,
    ),
    Layout(
        name="lasot",
        title="LaSOT",
        form=_TOOLKIT,
        splits=(Split(name="test", listed=("testing_set.txt",)),),
        truth=("annos/{seq}.txt",),
        marks=(("annos/[a-z]*-*.txt", "absent/*.txt"),),
        names=r".+-\d+",
        flags=(Flags(files=("absent/{seq}.txt",)),),
        attributes=LASOT_14,
        attribute_files=("att/{seq}.txt",),
        cuts=LASOT.cuts,
    ),
    Layout(
        name="vasttrack",
        title="VastTrack",
        form=_TOOLKIT,
        splits=(_TEST,),
        truth=("annos/{seq}.txt",),
        marks=(("annos/[A-Z]*-*.txt", "absent/*.txt"),),
        names=r".+-\d+",
        flags=(Flags(files=("absent/{seq}.txt",)),),
        attributes=VASTTRACK_10,
        attribute_files=("att/{seq}.txt",),
    ),
    Layout(
        name="tnl2k",
        title="TNL2K",
        form=_TOOLKIT,
        splits=(Split(name="test", listed=("TNL2K_testing_set.txt", "testing_set.txt")),),
        truth=("gt_rect/{seq}.txt",),
        marks=(("gt_rect/*.txt", "absent/*.txt"),),
        flags=(Flags(files=("absent/{seq}.txt",)),),
        attributes=TNL2K_17,
        attribute_files=("att/{seq}_attribute.txt",),
        cuts={"advSamp_monitor_bikeyellow": None},
    ),
    Layout(
        name="uav123",
        title="UAV123",
        form=_TOOLKIT,
        splits=(_TEST,),
        truth=("annos/{seq}.txt", "anno/UAV123/{seq}.txt"),
        marks=(("annos/bike1.txt",), ("annos/*.txt", "uav123_frames.json"), ("anno/UAV123/*.txt",)),
        attributes=UAV123_12,
        attribute_files=("att/{seq}.txt", "anno/UAV123/att/{seq}.txt"),
    ),
    Layout(
        name="uav123_10fps",
        title="UAV123@10fps",
        form=_TOOLKIT,
        splits=(_TEST,),
        truth=("anno/UAV123_10fps/{seq}.txt", "UAV123_10fps/{seq}.txt"),
        marks=(("anno/UAV123_10fps/*.txt",), ("UAV123_10fps/*.txt",)),
        attributes=UAV123_12,
        attribute_files=("anno/UAV123_10fps/att/{seq}.txt", "att/{seq}.txt"),
    ),
    Layout(
        name="trackingnet",
        title="TrackingNet",
        form="boxes of a devkit, no pictures",
        splits=(_TEST,),
        truth=("{seq}.txt",),
        marks=(("???????????_[0-9]*.txt",),),
        names=r"[\w-]{11}_\d+",
        empty="flat",
        archive=True,
    ),
    _pysot("lasot", "LaSOT", "LaSOT.json", LASOT_14),
    _pysot("otb100", "OTB100", "OTB100.json", OTB_11),
    _pysot("uav123", "UAV123", "UAV123.json", UAV123_12),
    _pysot("dtb70", "DTB70", "DTB70.json"),
    _pysot("nfs", "NFS", "NFS30.json"),
)

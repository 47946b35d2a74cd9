"""All layouts of data sets of videos, in the order in which they are tried. Knows no data set's files.

A new data set is one more row (docs/add-a-dataset.md). Where two fit one folder, the first is taken: the
narrow before the wide, clips of one's own last. Boxes are read as annotated: nobody in this field shifts
those that were counted from 1.
"""

from __future__ import annotations

from vltrack.datasets import layouts_boxes as boxes
from vltrack.datasets import layouts_language as language
from vltrack.datasets.layout import Flags, Layout, Source, Split
from vltrack.datasets.layouts_annotations import ANNOTATIONS

FOLDER = Layout(
    name="folder",
    title="clips of your own",
    splits=(Split(name="all"),),
    truth=("{seq}/groundtruth.txt",),
    frames=("{seq}/img", "{seq}/video.*"),
    marks=(("*/groundtruth.txt",),),
    first=None,
    flags=(Flags(files=("{seq}/absent.txt",), needed=False),),
    empty="flat",
    own=True,
    sentence=("{seq}/nlp.txt",),
    words="text",
    source=Source(
        page="your own disk; `vltrack data synthesize` draws some",
        parts=(
            "one folder a target: ROOT/<clip>/img/00000001.jpg ... or ROOT/<clip>/video.mp4",
            "ROOT/<clip>/groundtruth.txt: x,y,w,h a frame; 0,0,0,0 where the target is absent",
            "ROOT/<clip>/nlp.txt: a sentence that names the target; ROOT/<clip>/absent.txt: 0 or 1 a frame",
        ),
    ),
)

LAYOUTS: tuple[Layout, ...] = (
    language.LASOT_EXT,
    language.LASOT,
    language.TNL2K,
    language.OTB99,
    boxes.OTB100,
    language.WEBUAV,
    boxes.GOT10K,
    boxes.TRACKINGNET,
    boxes.UAV123,
    boxes.UAV123_10FPS,
    boxes.NFS,
    boxes.NFS_ORIGINAL,
    language.VASTTRACK,
    language.MGIT,
    *ANNOTATIONS,
    FOLDER,
)

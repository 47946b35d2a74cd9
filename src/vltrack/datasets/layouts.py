"""The data sets of videos as their authors ship them, one ``Layout`` a row. Knows where files lie; opens
none.

A new data set is one more row here (docs/add-a-dataset.md). Where two fit one folder, the first is taken.
Boxes are read as annotated: nobody in this field shifts those that were counted from 1.
"""

from __future__ import annotations

from vltrack.datasets.layout import Flags, Layout, Patterns, Rows, Source, Split, short_names
from vltrack.datasets.layouts_annotations import ANNOTATIONS
from vltrack.datasets.layouts_parts import OTB_ALIASES, OTB_SPANS, UAV123_10FPS_SPANS, UAV123_SPANS
from vltrack.datasets.layouts_words import LASOT_14, OTB_11, TNL2K_17, UAV123_12, VASTTRACK_10

LASOT_EXT_CLASSES = short_names(
    "atv badminton cosplay dancingshoe footbag frisbee jianzi lantern misc opossum paddle raccoon rhino "
    "skatingshoe wingsuit"
)


def _in(homes: Patterns, *names: str) -> Patterns:
    """Each of ``names`` in each of the folders ``homes``."""
    return tuple(f"{home}/{name}" for home in homes for name in names)


def _got10k_part(name: str, file: str) -> Split:
    """A part of GOT-10k's training set that trackers are trained on, by its list of places."""
    lists = (f"{file}.txt", f"data_specs/{file}.txt")
    return Split(name=name, folders=("train",), listed=lists, indices=True)


_BY_CLASS: Patterns = ("{stem}/{seq}", "{seq}")
_BY_SPLIT_AND_CLASS: Patterns = ("{split}/{stem}/{seq}", "{split}/{seq}")

_LASOT = Layout(
    name="lasot",
    title="LaSOT",
    splits=(
        Split(name="test", listed=("testing_set.txt", "lasot_test_split.txt")),
        Split(name="train", listed=("training_set.txt", "lasot_train_split.txt")),
    ),
    truth=_in(_BY_CLASS, "groundtruth.txt"),
    frames=_in(_BY_CLASS, "img"),
    marks=(("*/*/full_occlusion.txt",), ("*/full_occlusion.txt",)),
    names=r".+-\d+",
    flags=(
        Flags(files=_in(_BY_CLASS, "full_occlusion.txt")),
        Flags(files=_in(_BY_CLASS, "out_of_view.txt")),
    ),
    sentence=_in(_BY_CLASS, "nlp.txt"),
    attributes=LASOT_14,
    attribute_files=("att/{seq}.txt",),
    cuts={"monkey-17": 2260},
    source=Source(
        page="the LaSOT project page; lists and attributes: github.com/HengLan/LaSOT_Evaluation_Toolkit",
        parts=(
            "the archives of all 70 classes, unpacked to ROOT/<class>/",
            "testing_set.txt and training_set.txt, to ROOT/",
            "the toolkit's folder att/, to ROOT/att/ (only for scores by attribute)",
        ),
        size="1,400 videos; test: 280 with 685,360 frames",
    ),
)

_LASOT_EXT = Layout(
    name="lasot_ext",
    title="LaSOT_ext",
    splits=(Split(name="test"),),
    truth=_LASOT.truth,
    frames=_LASOT.frames,
    marks=tuple((f"{name}/{name}-*/full_occlusion.txt",) for name in LASOT_EXT_CLASSES),
    names=rf"({'|'.join(LASOT_EXT_CLASSES)})-\d+",
    flags=_LASOT.flags,
    sentence=_LASOT.sentence,
    attributes=LASOT_14,
    attribute_files=_LASOT.attribute_files,
    cuts={"paddle-1": None},
    source=Source(
        page="the LaSOT project page (LaSOT Extension Subset)",
        parts=("the archives of all 15 classes, unpacked to ROOT/<class>/",),
        size="150 videos",
    ),
)

_TNL2K = Layout(
    name="tnl2k",
    title="TNL2K",
    splits=(
        Split(name="test", folders=("test", "Test", "TNL2K_test_subset")),
        Split(name="train", folders=("train", "Train", "TNL2K_train_subset")),
    ),
    truth=("{split}/{seq}/groundtruth.txt",),
    frames=("{split}/{seq}/imgs",),
    marks=(("*/*/language.txt", "*/*/imgs"), ("*/language.txt", "*/imgs")),
    first=None,
    empty="zero",
    sentence=("{split}/{seq}/language.txt",),
    attributes=TNL2K_17,
    attribute_files=("{split}/{seq}/attributes.txt", "att/{seq}_attribute.txt"),
    cuts={"advSamp_monitor_bikeyellow": None},
    source=Source(
        page="the TNL2K project page; toolkit: github.com/wangxiao5791509/TNL2K_evaluation_toolkit",
        parts=(
            "the test videos, unpacked to ROOT/test/<sequence>/",
            "the training videos, unpacked to ROOT/train/<sequence>/",
            "the toolkit's revised boxes of 12 and sentences of 4 training videos over the old ones",
        ),
        size="700 test and 1,300 training videos; test: 516,038 frames",
    ),
)

_OTB100 = Layout(
    name="otb100",
    title="OTB100",
    splits=(Split(name="test"),),
    truth=("{seq}/groundtruth_rect.txt", "{stem}/groundtruth_rect.{k}.txt"),
    frames=("{seq}/img", "{stem}/img", "{seq}/jpg"),
    marks=(("*/groundtruth_rect.txt", "*/img"), ("*/groundtruth_rect.[0-9].txt", "*/img")),
    names=r"(?!Human4-1$).+",  # that video has two annotated targets, and only the second is in the benchmark
    empty="flat",
    attributes=OTB_11,
    attribute_files=("att/{seq}.txt",),
    spans=OTB_SPANS,
    aliases=OTB_ALIASES,
    source=Source(
        page="the Visual Tracker Benchmark page (TB-100)",
        parts=("the archives of all 100 sequences, unpacked to ROOT/<sequence>/",),
        size="98 videos with 100 targets",
    ),
)

_OTB99 = Layout(
    name="otb99",
    title="OTB99-Lang",
    splits=(
        Split(name="test", listed=("OTB_query_test/{seq}.txt",)),
        Split(name="train", listed=("OTB_query_train/{seq}.txt",)),
    ),
    truth=tuple(f"OTB_videos/{pattern}" for pattern in _OTB100.truth),
    frames=tuple(f"OTB_videos/{pattern}" for pattern in _OTB100.frames),
    marks=(("OTB_videos", "OTB_query_test/*.txt"), ("OTB_videos", "OTB_query_train/*.txt")),
    names=_OTB100.names,
    empty="flat",
    sentence=("OTB_query_test/{seq}.txt", "OTB_query_train/{seq}.txt"),
    attributes=OTB_11,
    attribute_files=_OTB100.attribute_files,
    spans=OTB_SPANS,
    aliases=OTB_ALIASES,
    source=Source(
        page="the page of the paper Tracking by Natural Language Specification (OTB99)",
        parts=(
            "the sentences, unpacked to ROOT/OTB_query_train/ and ROOT/OTB_query_test/",
            "the videos, unpacked to ROOT/OTB_videos/<sequence>/ (damaged ones: those of OTB100)",
        ),
        size="51 training and 48 test sequences",
    ),
)

_WEBUAV = Layout(
    name="webuav3m",
    title="WebUAV-3M",
    splits=tuple(
        Split(name=name, folders=(part, f"{name}/{part}", name))
        for name, part in (("test", "Test"), ("val", "Val"), ("train", "Train"))
    ),
    truth=("{split}/{seq}/groundtruth_rect.txt",),
    frames=("{split}/{seq}/img",),
    marks=tuple((f"{up}groundtruth_rect.txt", f"{up}absent.txt") for up in ("*/*/", "*/*/*/", "*/")),
    flags=(Flags(files=("{split}/{seq}/absent.txt",)),),
    empty="zero",
    sentence=("{split}/{seq}/language.txt", "language/Language/{part}/{seq}/language.txt"),
    source=Source(
        page="github.com/983632847/WebUAV-3M",
        parts=("the parts Train, Val and Test, unpacked to ROOT/Train/, ROOT/Val/, ROOT/Test/",),
        size="3,520 training, 200 validation and 780 test videos",
    ),
)

_GOT10K = Layout(
    name="got10k",
    title="GOT-10k",
    splits=(
        Split(name="test", folders=("test",), listed=("{split}/list.txt",), held_back=True),
        Split(name="val", folders=("val",), listed=("{split}/list.txt",)),
        Split(name="train", folders=("train",), listed=("{split}/list.txt",)),
        _got10k_part("train_full", "got10k_train_full_split"),
        _got10k_part("train_train", "got10k_train_split"),
        _got10k_part("train_val", "got10k_val_split"),
        _got10k_part("vot_train", "got10k_vot_train_split"),
        _got10k_part("vot_val", "got10k_vot_val_split"),
        _got10k_part("vot_exclude", "got10k_vot_exclude"),
    ),
    truth=("{split}/{seq}/groundtruth.txt",),
    frames=("{split}/{seq}",),
    marks=(("*/list.txt", "*/GOT-10k_*"),),
    names=r"GOT-10k_(Train|Val|Test)_\d{6}",
    flags=(Flags(files=("{split}/{seq}/absence.label",)),),
    cover=("{split}/{seq}/cover.label",),
    sentence=("{split}/{seq}/meta_info.ini",),
    words="meta",
    meta=("{split}/{seq}/meta_info.ini",),
    beside=r".*\.(txt|label|ini)",
    source=Source(
        page="the GOT-10k project page; toolkit: github.com/got-10k/toolkit",
        parts=("the parts train, val and test, unpacked to ROOT/train/, ROOT/val/, ROOT/test/",),
        size="9,335 training, 180 validation and 180 test videos",
    ),
)

_TRACKINGNET = Layout(
    name="trackingnet",
    title="TrackingNet",
    splits=(
        Split(name="test", folders=("TEST",), held_back=True),
        Split(name="train", folders=("TRAIN_*",)),
    ),
    truth=("{split}/anno/{seq}.txt",),
    frames=("{split}/frames/{seq}",),
    marks=(("TEST/anno", "TEST/frames"), ("TRAIN_*/anno", "TRAIN_*/frames")),
    first=0,
    empty="flat",
    source=Source(
        page="github.com/SilvioGiancola/TrackingNet-devkit",
        parts=(
            "the chunks TRAIN_0 .. TRAIN_11 and TEST, with the devkit's own download script",
            "the archives of frames, unpacked to ROOT/<chunk>/frames/<video>/",
        ),
        size="30,132 training and 511 test videos",
    ),
)

_UAV123 = Layout(
    name="uav123",
    title="UAV123",
    splits=(Split(name="test"),),
    truth=("anno/UAV123/{seq}.txt",),
    frames=("data_seq/UAV123/{folder}",),
    marks=(("anno/UAV123/*.txt", "data_seq/UAV123"),),
    attributes=UAV123_12,
    attribute_files=("anno/UAV123/att/{seq}.txt", "att/{seq}.txt"),
    spans=UAV123_SPANS,
    spans_file="uav123_frames.json",
    source=Source(
        page="the UAV123 project page (Image and Video Understanding Lab, KAUST)",
        parts=("the archive UAV123, unpacked so that ROOT has anno/ and data_seq/",),
        size="123 sequences, 112,578 frames",
    ),
)

_UAV123_10FPS = Layout(
    name="uav123_10fps",
    title="UAV123@10fps",
    splits=(Split(name="test"),),
    truth=("anno/UAV123_10fps/{seq}.txt",),
    frames=("data_seq/UAV123_10fps/{folder}",),
    marks=(("anno/UAV123_10fps/*.txt", "data_seq/UAV123_10fps"),),
    attributes=UAV123_12,
    attribute_files=("anno/UAV123_10fps/att/{seq}.txt", "att/{seq}.txt"),
    spans=UAV123_10FPS_SPANS,
    spans_file="uav123_frames.json",
    source=Source(
        page="the UAV123 project page (Image and Video Understanding Lab, KAUST)",
        parts=("the archive UAV123_10fps, unpacked so that ROOT has anno/ and data_seq/",),
        size="123 sequences",
    ),
)

_NFS_ORIGINAL = Layout(
    name="nfs",
    title="NFS",
    form="as its authors ship it",
    splits=(Split(name="test"),),
    truth=("{seq}/30/{seq}.txt",),
    frames=("{seq}/30/{seq}",),
    marks=(("*/30/*.txt",),),
    # id xmin ymin xmax ymax frame lost occluded generated "label", often drawn at 240 frames a second
    rows=Rows(width=10, box=(1, 2, 3, 4), corners=True, lost=6, rate=8, slack=1),
    source=Source(
        page="the Need for Speed (NFS) project page",
        parts=("the archives of all 100 sequences, unpacked to ROOT/<sequence>/30/",),
        size="100 sequences; 30 frames a second are what everyone reports",
    ),
)

_NFS = Layout(
    name="nfs",
    title="NFS",
    form="as pytracking repacks it",
    splits=(Split(name="test"),),
    truth=("anno/nfs_{seq}.txt",),
    frames=("sequences/{seq}",),
    marks=(("anno/nfs_*.txt", "sequences"),),
    empty="flat",
    source=Source(
        page="github.com/visionml/pytracking (its notes on NFS)",
        parts=("images to ROOT/sequences/<sequence>/, boxes to ROOT/anno/nfs_<sequence>.txt",),
        size="100 sequences, 30 frames a second",
    ),
)

_VASTTRACK = Layout(
    name="vasttrack",
    title="VastTrack",
    splits=(
        Split(name="test", folders=("test", "Test")),
        Split(name="train", folders=("train", "Train")),
    ),
    truth=_in(_BY_SPLIT_AND_CLASS, "Groundtruth.txt", "groundtruth.txt"),
    frames=_in(_BY_SPLIT_AND_CLASS, "imgs", "img"),
    marks=(
        *((f"{up}Groundtruth.txt",) for up in ("*/*/*/", "*/*/", "*/")),
        *((f"{up}nlp.txt", f"{up}imgs") for up in ("*/*/*/", "*/*/", "*/")),
    ),
    names=r".+-\d+",
    empty="zero",
    sentence=_in(_BY_SPLIT_AND_CLASS, "nlp.txt"),
    attributes=VASTTRACK_10,
    attribute_files=("att/{seq}.txt",),
    source=Source(
        page="github.com/HengLan/VastTrack",
        parts=("the test part (and the training part), unpacked to ROOT/test/ (ROOT/train/)",),
        size="3,500 test videos, 372,133 frames",
    ),
)

_MGIT = Layout(
    name="mgit",
    title="MGIT",
    splits=tuple(
        Split(name=name, folders=(f"data/{name}",), listed=("{split}/{seq}",), held_back=name == "test")
        for name in ("test", "val", "train")
    ),
    truth=("attribute/groundtruth/{seq}.txt",),
    frames=("{split}/{seq}/frame_{seq}",),
    marks=(("attribute/groundtruth/*.txt", "data/*/*/frame_*"),),
    first=0,
    flags=(Flags(files=("attribute/absent/{seq}.txt",), needed=False),),
    sentence=("mgit_nlp/{seq}.xlsx", "mgit/datasets/mgit_nlp/{seq}.xlsx"),
    words="sheet",
    source=Source(
        page="github.com/huuuuusy/videocube-toolkit",
        parts=(
            "VideoCube-Tiny: images to ROOT/data/<split>/<id>/frame_<id>/, annotation to ROOT/attribute/",
            "the toolkit's folder mgit/datasets/mgit_nlp/, to ROOT/mgit_nlp/",
            "what reads its tables: pip install 'vltrack[mgit]'",
        ),
        size="150 long videos",
    ),
)

_FOLDER = Layout(
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
    _LASOT_EXT,
    _LASOT,
    _TNL2K,
    _OTB99,
    _OTB100,
    _WEBUAV,
    _GOT10K,
    _TRACKINGNET,
    _UAV123,
    _UAV123_10FPS,
    _NFS,
    _NFS_ORIGINAL,
    _VASTTRACK,
    _MGIT,
    *ANNOTATIONS,
    _FOLDER,
)

"""Layouts of the video data sets on disk, as plain data, in the order in which they are tried.

A new data set is one more row (docs/add-a-dataset.md). Where two layouts fit one folder, the first one
counts: the specific before the general, the user's own clips last.

Paths are patterns relative to the root, alternatives in order of preference, with these fields:

    {split}   a folder of the split that is read, such as "train" or "TRAIN_3"
    {part}    the last name of that folder
    {seq}     the sequence's name (or an alias of it)
    {stem}    its name without the last "-number": the class in LaSOT's airplane-1
    {k}       that number
    {folder}  the folder of its images where several sequences share one (``Span.folder``)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from vltrack.datasets.published import (
    DTB70_NAMES,
    LASOT_CLASSES,
    LASOT_EXT_CLASSES,
    OTB100_NAMES,
    OTB_ALIASES,
    OTB_PARTS,
    UAV123_PARTS,
)
from vltrack.datasets.published import names_of as _names

Patterns = tuple[str, ...]
ALL = "all"
"""Name of the split that has every sequence that is there."""
META_KEYS = ("root_class", "major_class", "object_class", "motion_class", "motion_adverb")
"""Keys of GOT-10k's meta_info.ini that make its sentence, in the order used by vision-language trackers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One part of a data set.

    Attributes:
        name: "test", "train", ...
        folders: values of {split}: globs, of which the first that match anything count.
        listed: file with the names, one per line; or a pattern with {seq} whose files name them. Without it,
            every sequence that is found belongs to the split.
        indices: the list holds 0-based positions in ``list.txt`` of the split's folder instead of names.
        withheld: only the first box of a sequence is published.
    """

    name: str
    folders: Patterns = ("",)
    listed: Patterns = ()
    indices: bool = False
    withheld: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Format of a row of boxes.

    Attributes:
        box: columns of the box; where other columns come before it, others may follow.
        corners: the box is xmin, ymin, xmax, ymax instead of x, y, w, h.
        lost: column that is 1 where the target is absent.
        rate: rows per image, where boxes may have been annotated at a higher frame rate (8 for NFS).
        slack: allowed difference between the number of rows and of images; both are cut to the shorter.
    """

    box: tuple[int, int, int, int] = (0, 1, 2, 3)
    corners: bool = False
    lost: int | None = None
    rate: int = 1
    slack: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Images of a sequence: numbers ``first`` to ``last`` of ``folder`` (by default its own)."""

    first: int
    last: int
    folder: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """Source of a data set.

    Attributes:
        page: an address; where it may move, what to search for instead.
        parts: what to download and where to unpack it, one item per line.
        size: approximate size, or "".
    """

    page: str
    parts: tuple[str, ...]
    size: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One data set in one form on disk.

    Attributes:
        name: identifier ("lasot").
        title: name in papers.
        form: "" for the data set as its authors publish it, else a description of this form.
        splits: its parts; the first that is there is opened by default.
        boxes: file with the boxes of a sequence.
        frames: its folder of images, or a video file; () where only annotations are published.
        other_frames: the same, looked for only where there are boxes; "" is the folder of the boxes.
        marks: groups of globs that identify this layout: every glob of one group has to match something.
        names: regular expression of its sequence names.
        rows: format of a row of boxes.
        first: number of the first image (None: any).
        flags: files with 0 or 1 per frame, 1 where the target is absent; a frame is absent by any of them.
        flags_needed: a sequence without one of them is an error.
        absent_box: boxes that mark absence: only "nan", also "zero" (0,0,0,0) or "flat" (no width or height).
        own: clips of the user: names of files in any case, boxes in any usual form (``parsing.parse_boxes``), and a
            box with negative size is an error.
        cover: file with 0 to 8 per frame: visible eighths of the target.
        sentence: file with the sentence.
        sentence_form: "line" (first line), "text" (whole file), "meta" (composed from meta_info.ini, which has
            the frame size too), "sheet" (a column in the last row of a table).
        attributes: short names of the attributes, in the file's order.
        attribute_files: file with the attribute flags of a sequence.
        spans, aliases, cuts: exceptions by sequence name: its images; its other names on disk; number of rows
            that count (None: the shortest of rows, flags and images).
        other_files: regular expression of files that may lie in the folder of images.
        spans_file: file that overrides ``spans`` where it exists.
        json: name of a pysot annotation file.
        archive: a .zip of ``boxes`` files is read without unpacking it.
        download: where to get it.
    """

    name: str
    title: str
    form: str = ""
    splits: tuple[Split, ...]
    boxes: Patterns = ()
    frames: Patterns = ()
    other_frames: Patterns = ()
    marks: tuple[Patterns, ...] = ()
    names: str = ".+"
    rows: Rows = Rows()
    first: int | None = 1
    flags: tuple[Patterns, ...] = ()
    flags_needed: bool = True
    absent_box: Literal["nan", "zero", "flat"] = "nan"
    own: bool = False
    cover: Patterns = ()
    sentence: Patterns = ()
    sentence_form: Literal["line", "text", "meta", "sheet"] = "line"
    attributes: tuple[str, ...] = ()
    attribute_files: Patterns = ()
    spans: Mapping[str, Span] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cuts: Mapping[str, int | None] = field(default_factory=dict)
    other_files: str = ""
    spans_file: str = ""
    json: str = ""
    archive: bool = False
    download: Download | None = None


# -- parts of the rows ---------------------------------------------------------------------------------------


def _inside(folders: Patterns, *names: str) -> Patterns:
    """Return each of ``names`` in each of ``folders``."""
    return tuple(f"{folder}/{name}" for folder in folders for name in names)


def _marks(folders: Patterns, *files: str, root: Patterns = ()) -> tuple[Patterns, ...]:
    """Return marks of sequences with ``files`` in one of ``folders``; in the root itself ``root`` too, if any."""
    marks = tuple(tuple(f"{one}/*/{file}" for file in files) for one in folders)
    return (*marks, tuple(f"*/{file}" for file in (*files, *root))) if root else marks


def _span(ends: str, step: int = 1, folder: str = "") -> Span:
    """Return the images from first to last ("247-988") with every ``step``-th one kept."""
    first, last = ((int(end) - 1) // step + 1 for end in ends.split("-"))
    return Span(first=first, last=last, folder=folder)


_TEST = (Split(name="test"),)


# -- data sets with boxes only, as their authors publish them ------------------------------------------------

OTB100 = Layout(
    name="otb100",
    title="OTB100",
    splits=_TEST,
    boxes=("{seq}/groundtruth_rect.txt", "{stem}/groundtruth_rect.{k}.txt"),
    frames=("{seq}/img", "{stem}/img", "{seq}/jpg"),
    marks=(("*/groundtruth_rect.txt", "*/img"), ("*/groundtruth_rect.[0-9].txt", "*/img")),
    names="|".join(OTB100_NAMES),  # of Human4's two annotated targets only the second is in the benchmark
    absent_box="flat",
    attributes=_names("IV OPR SV OCC DEF MB FM IPR OV BC LR"),
    attribute_files=("att/{seq}.txt",),
    spans={name: _span(part) for name, part in OTB_PARTS.items()},
    aliases=OTB_ALIASES,
    download=Download(
        page="cvlab.hanyang.ac.kr/tracker_benchmark; else search for Visual Tracker Benchmark TB-100",
        parts=("the archives of all 100 sequences, unpacked to ROOT/<sequence>/",),
        size="98 videos with 100 targets",
    ),
)

DTB70 = Layout(
    name="dtb70",
    title="DTB70",
    splits=_TEST,
    boxes=("{seq}/groundtruth_rect.txt",),
    frames=("{seq}/img",),
    marks=(("*/groundtruth_rect.txt", "*/img"),),
    names="|".join(DTB70_NAMES),
    absent_box="flat",
    download=Download(
        page="github.com/flyers/drone-tracking; else search for DTB70 drone tracking benchmark",
        parts=("the archive DTB70, unpacked to ROOT/<sequence>/",),
        size="70 videos of drones",
    ),
)

GOT10K = Layout(
    name="got10k",
    title="GOT-10k",
    splits=(
        Split(name="test", folders=("test",), listed=("{split}/list.txt",), withheld=True),
        Split(name="val", folders=("val",), listed=("{split}/list.txt",)),
        Split(name="train", folders=("train",), listed=("{split}/list.txt",)),
        *(  # parts of the training set on which trackers are trained, by their lists of positions
            Split(name=name, folders=("train",), listed=(f"{file}.txt", f"data_specs/{file}.txt"), indices=True)
            for name, file in (
                ("train_full", "got10k_train_full_split"),
                ("train_train", "got10k_train_split"),
                ("train_val", "got10k_val_split"),
                ("vot_train", "got10k_vot_train_split"),
                ("vot_val", "got10k_vot_val_split"),
                ("vot_exclude", "got10k_vot_exclude"),
            )
        ),
    ),
    boxes=("{split}/{seq}/groundtruth.txt",),
    frames=("{split}/{seq}",),
    marks=(("*/list.txt", "*/GOT-10k_*"),),
    names=r"GOT-10k_(Train|Val|Test)_\d{6}",
    flags=(("{split}/{seq}/absence.label",),),
    cover=("{split}/{seq}/cover.label",),
    sentence=("{split}/{seq}/meta_info.ini",),
    sentence_form="meta",
    other_files=r".*\.(txt|label|ini)",
    download=Download(
        page="got-10k.aitestunion.com; toolkit: github.com/got-10k/toolkit",
        parts=("the parts train, val and test, unpacked to ROOT/train/, ROOT/val/, ROOT/test/",),
        size="9,335 training, 180 validation and 180 test videos",
    ),
)

TRACKINGNET = Layout(
    name="trackingnet",
    title="TrackingNet",
    splits=(Split(name="test", folders=("TEST",), withheld=True), Split(name="train", folders=("TRAIN_*",))),
    boxes=("{split}/anno/{seq}.txt",),
    frames=("{split}/frames/{seq}",),
    marks=(("TEST/anno", "TEST/frames"), ("TRAIN_*/anno", "TRAIN_*/frames")),
    first=0,
    absent_box="flat",
    download=Download(
        page="github.com/SilvioGiancola/TrackingNet-devkit",
        parts=(
            "the chunks TRAIN_0 .. TRAIN_11 and TEST, with the devkit's own download script",
            "the archives of frames, unpacked to ROOT/<chunk>/frames/<video>/",
        ),
        size="30,132 training and 511 test videos",
    ),
)


def _uav123(title: str, step: int, size: str) -> Layout:
    """Return UAV123 with every ``step``-th image kept (3 for 10 frames per second)."""
    folder = title.replace("@", "_")
    return Layout(
        name=folder.lower(),
        title=title,
        splits=_TEST,
        boxes=(f"anno/{folder}/{{seq}}.txt",),
        frames=(f"data_seq/{folder}/{{folder}}",),
        marks=((f"anno/{folder}/*.txt", f"data_seq/{folder}"),),
        attributes=_names("SV ARC LR FM FOC POC OV BC IV VC CM SOB"),
        attribute_files=(f"anno/{folder}/att/{{seq}}.txt", "att/{seq}.txt"),
        spans={
            f"{video}_{number}": _span(part, step, video)
            for video, parts in UAV123_PARTS.items()
            for number, part in enumerate(parts.split(), 1)
        },
        spans_file="uav123_frames.json",
        download=Download(
            page="cemse.kaust.edu.sa/ivul/uav123; else search for UAV123 KAUST",
            parts=(f"the archive {folder}, unpacked so that ROOT has anno/ and data_seq/",),
            size=size,
        ),
    )


UAV123 = _uav123("UAV123", 1, "123 sequences, 112,578 frames")
UAV123_10FPS = _uav123("UAV123@10fps", 3, "123 sequences")

NFS = Layout(
    name="nfs",
    title="NFS",
    form="as pytracking repacks it",
    splits=_TEST,
    boxes=("anno/nfs_{seq}.txt",),
    frames=("sequences/{seq}",),
    marks=(("anno/nfs_*.txt", "sequences"),),
    absent_box="flat",
    download=Download(
        page="github.com/visionml/pytracking (its notes on NFS)",
        parts=("images to ROOT/sequences/<sequence>/, boxes to ROOT/anno/nfs_<sequence>.txt",),
        size="100 sequences, 30 frames per second",
    ),
)

NFS_ORIGINAL = Layout(
    name="nfs",
    title="NFS",
    form="as its authors ship it",
    splits=_TEST,
    boxes=("{seq}/30/{seq}.txt",),
    frames=("{seq}/30/{seq}",),
    marks=(("*/30/*.txt",),),
    # id xmin ymin xmax ymax frame lost occluded generated "label", often drawn at 240 frames per second
    rows=Rows(box=(1, 2, 3, 4), corners=True, lost=6, rate=8, slack=1),
    download=Download(
        page="ci2cv.net/nfs; else search for Need for Speed tracking data set",
        parts=("the archives of all 100 sequences, unpacked to ROOT/<sequence>/30/",),
        size="100 sequences; 30 frames per second are what everyone reports",
    ),
)


# -- data sets with sentences, as their authors publish them -------------------------------------------------

_BY_CLASS: Patterns = ("{stem}/{seq}", "{seq}")
_BY_SPLIT_AND_CLASS: Patterns = ("{split}/{stem}/{seq}", "{split}/{seq}")

LASOT = Layout(
    name="lasot",
    title="LaSOT",
    splits=(
        Split(name="test", listed=("testing_set.txt", "lasot_test_split.txt")),
        Split(name="train", listed=("training_set.txt", "lasot_train_split.txt")),
    ),
    boxes=_inside(_BY_CLASS, "groundtruth.txt"),
    frames=_inside(_BY_CLASS, "img"),
    marks=(("*/*/full_occlusion.txt",), ("*/full_occlusion.txt",)),
    names=rf"(?i:{'|'.join(LASOT_CLASSES)})-\d+",
    flags=(_inside(_BY_CLASS, "full_occlusion.txt"), _inside(_BY_CLASS, "out_of_view.txt")),
    sentence=_inside(_BY_CLASS, "nlp.txt"),
    attributes=_names("IV POC DEF MB CM ROT BC VC SV FOC FM OV LR ARC"),
    attribute_files=("att/{seq}.txt",),
    cuts={"monkey-17": 2260},
    download=Download(
        page="the links in github.com/HengLan/LaSOT_Evaluation_Toolkit (lists and attributes too)",
        parts=(
            "the archives of all 70 classes, unpacked to ROOT/<class>/",
            "testing_set.txt and training_set.txt, to ROOT/",
            "the toolkit's folder att/, to ROOT/att/ (only for scores by attribute)",
        ),
        size="1,400 videos; test: 280 with 685,360 frames",
    ),
)

LASOT_EXT = replace(
    LASOT,
    name="lasot_ext",
    title="LaSOT_ext",
    splits=_TEST,
    marks=tuple((f"{name}/{name}-*/full_occlusion.txt",) for name in LASOT_EXT_CLASSES),
    names=rf"({'|'.join(LASOT_EXT_CLASSES)})-\d+",
    cuts={"paddle-1": None},
    download=Download(
        page="the project page (LaSOT Extension Subset) in github.com/HengLan/LaSOT_Evaluation_Toolkit",
        parts=("the archives of all 15 classes, unpacked to ROOT/<class>/",),
        size="150 videos",
    ),
)

_TNL2K_FOLDERS = ("test", "Test", "TNL2K_test_subset", "train", "Train", "TNL2K_train_subset")
TNL2K = Layout(
    name="tnl2k",
    title="TNL2K",
    splits=(
        Split(name="test", folders=("test", "Test", "TNL2K_test_subset")),
        Split(name="train", folders=("train", "Train", "TNL2K_train_subset")),
    ),
    boxes=("{split}/{seq}/groundtruth.txt",),
    frames=("{split}/{seq}/imgs",),
    marks=_marks(_TNL2K_FOLDERS, "language.txt", "imgs", root=("attributes.txt",)),
    first=None,
    absent_box="zero",
    sentence=("{split}/{seq}/language.txt",),
    attributes=_names("CM ROT DEF FOC IV OV POC VC SV BC MB ARC LR FM AS TC MS"),
    attribute_files=("{split}/{seq}/attributes.txt", "att/{seq}_attribute.txt"),
    cuts={"advSamp_monitor_bikeyellow": None},
    download=Download(
        page="the links in github.com/wangxiao5791509/TNL2K_evaluation_toolkit",
        parts=(
            "the test videos, unpacked to ROOT/test/<sequence>/",
            "the training videos, unpacked to ROOT/train/<sequence>/",
            "the toolkit's revised boxes of 12 and sentences of 4 training videos over the old ones",
        ),
        size="700 test and 1,300 training videos; test: 516,038 frames",
    ),
)

OTB99 = replace(
    OTB100,
    name="otb99",
    title="OTB99-Lang",
    splits=(
        Split(name="test", listed=("OTB_query_test/{seq}.txt",)),
        Split(name="train", listed=("OTB_query_train/{seq}.txt",)),
    ),
    boxes=_inside(("OTB_videos",), *OTB100.boxes),
    frames=_inside(("OTB_videos",), *OTB100.frames),
    marks=(("OTB_videos", "OTB_query_test/*.txt"), ("OTB_videos", "OTB_query_train/*.txt")),
    sentence=("OTB_query_test/{seq}.txt", "OTB_query_train/{seq}.txt"),
    download=Download(
        page="github.com/QUVA-Lab/lang-tracker",
        parts=(
            "the sentences, unpacked to ROOT/OTB_query_train/ and ROOT/OTB_query_test/",
            "the videos, unpacked to ROOT/OTB_videos/<sequence>/ (damaged ones: those of OTB100)",
        ),
        size="51 training and 48 test sequences",
    ),
)

WEBUAV = Layout(
    name="webuav3m",
    title="WebUAV-3M",
    splits=tuple(
        Split(name=name, folders=(part, f"{name}/{part}", name))
        for name, part in (("test", "Test"), ("val", "Val"), ("train", "Train"))
    ),
    boxes=("{split}/{seq}/groundtruth_rect.txt",),
    frames=("{split}/{seq}/img",),
    marks=_marks(
        ("Test", "Val", "Train", "test", "val", "train", "test/Test", "val/Val", "train/Train"),
        "groundtruth_rect.txt",
        "absent.txt",
        root=("attributes.txt",),
    ),
    names=r".+_\d+",
    flags=(("{split}/{seq}/absent.txt",),),
    absent_box="zero",
    sentence=("{split}/{seq}/language.txt", "language/Language/{part}/{seq}/language.txt"),
    download=Download(
        page="github.com/983632847/WebUAV-3M",
        parts=("the parts Train, Val and Test, unpacked to ROOT/Train/, ROOT/Val/, ROOT/Test/",),
        size="3,520 training, 200 validation and 780 test videos",
    ),
)

_VASTTRACK_FOLDERS = ("test/*", "Test/*", "train/*", "Train/*", "*", "test", "Test")
VASTTRACK = Layout(
    name="vasttrack",
    title="VastTrack",
    splits=(Split(name="test", folders=("test", "Test")), Split(name="train", folders=("train", "Train"))),
    boxes=_inside(_BY_SPLIT_AND_CLASS, "Groundtruth.txt", "groundtruth.txt"),
    frames=_inside(_BY_SPLIT_AND_CLASS, "imgs", "img"),
    marks=_marks(_VASTTRACK_FOLDERS, "Groundtruth.txt") + _marks(_VASTTRACK_FOLDERS, "nlp.txt", "imgs"),
    names=r".+-\d+",
    absent_box="zero",
    sentence=_inside(_BY_SPLIT_AND_CLASS, "nlp.txt"),
    attributes=_names("LR SV FM ARC IV INV DEF ROT BC MB"),
    attribute_files=("att/{seq}.txt",),
    download=Download(
        page="github.com/HengLan/VastTrack",
        parts=("the test part (and the training part), unpacked to ROOT/test/ (ROOT/train/)",),
        size="3,500 test videos, 372,133 frames",
    ),
)

MGIT = Layout(
    name="mgit",
    title="MGIT",
    splits=tuple(
        Split(name=name, folders=(f"data/{name}",), listed=("{split}/{seq}",), withheld=name == "test")
        for name in ("test", "val", "train")
    ),
    boxes=("attribute/groundtruth/{seq}.txt",),
    frames=("{split}/{seq}/frame_{seq}",),
    marks=(("attribute/groundtruth/*.txt", "data/*/*/frame_*"),),
    first=0,
    flags=(("attribute/absent/{seq}.txt",),),
    flags_needed=False,
    sentence=("mgit_nlp/{seq}.xlsx", "mgit/datasets/mgit_nlp/{seq}.xlsx"),
    sentence_form="sheet",
    download=Download(
        page="github.com/huuuuusy/videocube-toolkit",
        parts=(
            "VideoCube-Tiny: images to ROOT/data/<split>/<id>/frame_<id>/, annotation to ROOT/attribute/",
            "the toolkit's folder mgit/datasets/mgit_nlp/, to ROOT/mgit_nlp/",
            "what reads its tables: pip install 'vltrack[mgit]'",
        ),
        size="150 long videos",
    ),
)


# -- annotations of test sets without images: enough to score results, a tracker cannot be run on them -------


def _toolkit(
    of: Layout,
    *,
    boxes: Patterns = ("annos/{seq}.txt",),
    marks: tuple[Patterns, ...],
    flags: Patterns = ("absent/{seq}.txt",),
    attribute_files: Patterns = ("att/{seq}.txt",),
    listed: Patterns = (),
) -> Layout:
    """Return the form of a test set in its official toolkit."""
    return Layout(
        name=of.name,
        title=of.title,
        form="the toolkit's annotation, no images",
        splits=(Split(name="test", listed=listed),),
        boxes=boxes,
        marks=marks,
        names=of.names,
        flags=(flags,) if flags else (),
        attributes=of.attributes,
        attribute_files=attribute_files,
        cuts=of.cuts,
    )


def _pysot(of: Layout, file: str) -> Layout:
    """Return the form of a test set in pysot, which is one JSON file."""
    return Layout(
        name=of.name,
        title=of.title,
        form="pysot's annotation, no images",
        splits=_TEST,
        marks=((file,),),
        names=of.names if of in (OTB100, DTB70) else ".+",
        absent_box="flat",
        attributes=of.attributes,
        json=file,
    )


ANNOTATIONS = (
    _toolkit(LASOT_EXT, marks=tuple((f"annos/{one}-*.txt", "absent/*.txt") for one in LASOT_EXT_CLASSES)),
    _toolkit(LASOT, marks=(("annos/[a-z]*-*.txt", "absent/*.txt"),), listed=("testing_set.txt",)),
    _toolkit(VASTTRACK, marks=(("annos/[A-Z]*-*.txt", "absent/*.txt"),)),
    _toolkit(
        TNL2K,
        boxes=("gt_rect/{seq}.txt",),
        marks=(("gt_rect/*.txt", "absent/*.txt"),),
        attribute_files=("att/{seq}_attribute.txt",),
        listed=("TNL2K_testing_set.txt", "testing_set.txt"),
    ),
    _toolkit(
        UAV123,
        boxes=("annos/{seq}.txt", "anno/UAV123/{seq}.txt"),
        marks=(("annos/bike1.txt",), ("annos/*.txt", "uav123_frames.json"), ("anno/UAV123/*.txt",)),
        flags=(),
        attribute_files=("att/{seq}.txt", "anno/UAV123/att/{seq}.txt"),
    ),
    _toolkit(
        UAV123_10FPS,
        boxes=("anno/UAV123_10fps/{seq}.txt", "UAV123_10fps/{seq}.txt"),
        marks=(("anno/UAV123_10fps/*.txt",), ("UAV123_10fps/*.txt",)),
        flags=(),
        attribute_files=("anno/UAV123_10fps/att/{seq}.txt", "att/{seq}.txt"),
    ),
    Layout(
        name="trackingnet",
        title="TrackingNet",
        form="boxes of a devkit, no images",
        splits=_TEST,
        boxes=("{seq}.txt",),
        marks=(("???????????_[0-9]*.txt",),),
        names=r"[\w-]{11}_\d+",
        absent_box="flat",
        archive=True,
    ),
    _pysot(LASOT, "LaSOT.json"),
    _pysot(OTB100, "OTB100.json"),
    _pysot(UAV123, "UAV123.json"),
    _pysot(DTB70, "DTB70.json"),
    _pysot(NFS, "NFS30.json"),
)


_OWN_BOXES = ("groundtruth.txt", "groundtruth_rect.txt", "gt.txt", "groundtruth.csv")
_OWN_FOLDERS = ("imgs", "images", "frames", "color", "jpg", "rgb")
_OWN_VIDEOS = ("mp4", "mov", "avi", "mkv", "webm", "m4v", "mpg", "mpeg", "ts", "wmv")
FOLDER = Layout(
    name="folder",
    title="clips of your own",
    splits=(Split(name="all"),),
    boxes=_inside(("{seq}",), *_OWN_BOXES),
    frames=("{seq}/img", "{seq}/video.*"),
    other_frames=_inside(("{seq}",), *_OWN_FOLDERS, *(f"*.{kind}" for kind in _OWN_VIDEOS), ""),
    marks=tuple((f"*/{file}",) for file in _OWN_BOXES),
    first=None,
    flags=(("{seq}/absent.txt",),),
    flags_needed=False,
    absent_box="flat",
    own=True,
    sentence=("{seq}/nlp.txt", "{seq}/language.txt"),
    sentence_form="text",
    other_files=r".*\.(txt|csv)",
    download=Download(
        page="your own disk; `vltrack datasets synthesize` draws some",
        parts=(
            "one folder a target: ROOT/<clip>/img/00000001.jpg ... or ROOT/<clip>/video.mp4",
            "ROOT/<clip>/groundtruth.txt: x,y,w,h a frame; 0,0,0,0 where the target is absent",
            "ROOT/<clip>/nlp.txt: a sentence that names the target; ROOT/<clip>/absent.txt: 0 or 1 a frame",
        ),
    ),
)

LAYOUTS: tuple[Layout, ...] = (
    LASOT_EXT, LASOT, TNL2K, OTB99, OTB100, DTB70, WEBUAV, GOT10K, TRACKINGNET, UAV123, UAV123_10FPS,
    NFS, NFS_ORIGINAL, VASTTRACK, MGIT, *ANNOTATIONS, FOLDER,
)  # fmt: skip

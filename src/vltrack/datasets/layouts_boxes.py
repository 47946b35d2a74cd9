"""The data sets that come with boxes only, as their authors ship them: one ``Layout`` a row. Data only."""

from __future__ import annotations

from vltrack.datasets.layout import Flags, Layout, Rows, Source, Split
from vltrack.datasets.layouts_parts import OTB_ALIASES, OTB_SPANS, UAV123_10FPS_SPANS, UAV123_SPANS
from vltrack.datasets.layouts_words import OTB_11, UAV123_12


def _got10k_part(name: str, file: str) -> Split:
    """A part of GOT-10k's training set that trackers are trained on, by its list of places."""
    lists = (f"{file}.txt", f"data_specs/{file}.txt")
    return Split(name=name, folders=("train",), listed=lists, indices=True)


OTB100 = Layout(
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
        page="cvlab.hanyang.ac.kr/tracker_benchmark; else search for Visual Tracker Benchmark TB-100",
        parts=("the archives of all 100 sequences, unpacked to ROOT/<sequence>/",),
        size="98 videos with 100 targets",
    ),
)

GOT10K = Layout(
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
        page="got-10k.aitestunion.com; toolkit: github.com/got-10k/toolkit",
        parts=("the parts train, val and test, unpacked to ROOT/train/, ROOT/val/, ROOT/test/",),
        size="9,335 training, 180 validation and 180 test videos",
    ),
)

TRACKINGNET = Layout(
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

UAV123 = Layout(
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
        page="cemse.kaust.edu.sa/ivul/uav123; else search for UAV123 KAUST",
        parts=("the archive UAV123, unpacked so that ROOT has anno/ and data_seq/",),
        size="123 sequences, 112,578 frames",
    ),
)

UAV123_10FPS = Layout(
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
        page="cemse.kaust.edu.sa/ivul/uav123; else search for UAV123 KAUST",
        parts=("the archive UAV123_10fps, unpacked so that ROOT has anno/ and data_seq/",),
        size="123 sequences",
    ),
)

NFS = Layout(
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

NFS_ORIGINAL = Layout(
    name="nfs",
    title="NFS",
    form="as its authors ship it",
    splits=(Split(name="test"),),
    truth=("{seq}/30/{seq}.txt",),
    frames=("{seq}/30/{seq}",),
    marks=(("*/30/*.txt",),),
    # id xmin ymin xmax ymax frame lost occluded generated "label", often drawn at 240 frames a second
    rows=Rows(box=(1, 2, 3, 4), corners=True, lost=6, rate=8, slack=1),
    source=Source(
        page="ci2cv.net/nfs; else search for Need for Speed tracking data set",
        parts=("the archives of all 100 sequences, unpacked to ROOT/<sequence>/30/",),
        size="100 sequences; 30 frames a second are what everyone reports",
    ),
)

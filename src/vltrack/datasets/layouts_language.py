"""The data sets that come with sentences, as their authors ship them: one ``Layout`` a row. Data only."""

from __future__ import annotations

from vltrack.datasets.layout import Flags, Layout, Patterns, Source, Split, inside, short_names
from vltrack.datasets.layouts_boxes import OTB100
from vltrack.datasets.layouts_parts import OTB_ALIASES, OTB_SPANS
from vltrack.datasets.layouts_words import LASOT_14, OTB_11, TNL2K_17, VASTTRACK_10

LASOT_EXT_CLASSES = short_names(
    "atv badminton cosplay dancingshoe footbag frisbee jianzi lantern misc opossum paddle raccoon rhino "
    "skatingshoe wingsuit"
)


def _marks(folders: Patterns, *files: str) -> tuple[Patterns, ...]:
    """Marks of sequences with ``files`` in one of ``folders``, or in the root itself."""
    return tuple(tuple(f"{up}*/{file}" for file in files) for up in (*(f"{one}/" for one in folders), ""))


_BY_CLASS: Patterns = ("{stem}/{seq}", "{seq}")
_BY_SPLIT_AND_CLASS: Patterns = ("{split}/{stem}/{seq}", "{split}/{seq}")

LASOT = Layout(
    name="lasot",
    title="LaSOT",
    splits=(
        Split(name="test", listed=("testing_set.txt", "lasot_test_split.txt")),
        Split(name="train", listed=("training_set.txt", "lasot_train_split.txt")),
    ),
    truth=inside(_BY_CLASS, "groundtruth.txt"),
    frames=inside(_BY_CLASS, "img"),
    marks=(("*/*/full_occlusion.txt",), ("*/full_occlusion.txt",)),
    names=r".+-\d+",
    flags=(
        Flags(files=inside(_BY_CLASS, "full_occlusion.txt")),
        Flags(files=inside(_BY_CLASS, "out_of_view.txt")),
    ),
    sentence=inside(_BY_CLASS, "nlp.txt"),
    attributes=LASOT_14,
    attribute_files=("att/{seq}.txt",),
    cuts={"monkey-17": 2260},
    source=Source(
        page="the links in github.com/HengLan/LaSOT_Evaluation_Toolkit (lists and attributes too)",
        parts=(
            "the archives of all 70 classes, unpacked to ROOT/<class>/",
            "testing_set.txt and training_set.txt, to ROOT/",
            "the toolkit's folder att/, to ROOT/att/ (only for scores by attribute)",
        ),
        size="1,400 videos; test: 280 with 685,360 frames",
    ),
)

LASOT_EXT = Layout(
    name="lasot_ext",
    title="LaSOT_ext",
    splits=(Split(name="test"),),
    truth=LASOT.truth,
    frames=LASOT.frames,
    marks=tuple((f"{name}/{name}-*/full_occlusion.txt",) for name in LASOT_EXT_CLASSES),
    names=rf"({'|'.join(LASOT_EXT_CLASSES)})-\d+",
    flags=LASOT.flags,
    sentence=LASOT.sentence,
    attributes=LASOT_14,
    attribute_files=LASOT.attribute_files,
    cuts={"paddle-1": None},
    source=Source(
        page="the project page (LaSOT Extension Subset) in github.com/HengLan/LaSOT_Evaluation_Toolkit",
        parts=("the archives of all 15 classes, unpacked to ROOT/<class>/",),
        size="150 videos",
    ),
)

TNL2K = Layout(
    name="tnl2k",
    title="TNL2K",
    splits=(
        Split(name="test", folders=("test", "Test", "TNL2K_test_subset")),
        Split(name="train", folders=("train", "Train", "TNL2K_train_subset")),
    ),
    truth=("{split}/{seq}/groundtruth.txt",),
    frames=("{split}/{seq}/imgs",),
    marks=_marks(
        ("test", "Test", "TNL2K_test_subset", "train", "Train", "TNL2K_train_subset"), "language.txt", "imgs"
    ),
    first=None,
    empty="zero",
    sentence=("{split}/{seq}/language.txt",),
    attributes=TNL2K_17,
    attribute_files=("{split}/{seq}/attributes.txt", "att/{seq}_attribute.txt"),
    cuts={"advSamp_monitor_bikeyellow": None},
    source=Source(
        page="the links in github.com/wangxiao5791509/TNL2K_evaluation_toolkit",
        parts=(
            "the test videos, unpacked to ROOT/test/<sequence>/",
            "the training videos, unpacked to ROOT/train/<sequence>/",
            "the toolkit's revised boxes of 12 and sentences of 4 training videos over the old ones",
        ),
        size="700 test and 1,300 training videos; test: 516,038 frames",
    ),
)

OTB99 = Layout(
    name="otb99",
    title="OTB99-Lang",
    splits=(
        Split(name="test", listed=("OTB_query_test/{seq}.txt",)),
        Split(name="train", listed=("OTB_query_train/{seq}.txt",)),
    ),
    truth=tuple(f"OTB_videos/{pattern}" for pattern in OTB100.truth),
    frames=tuple(f"OTB_videos/{pattern}" for pattern in OTB100.frames),
    marks=(("OTB_videos", "OTB_query_test/*.txt"), ("OTB_videos", "OTB_query_train/*.txt")),
    names=OTB100.names,
    empty="flat",
    sentence=("OTB_query_test/{seq}.txt", "OTB_query_train/{seq}.txt"),
    attributes=OTB_11,
    attribute_files=OTB100.attribute_files,
    spans=OTB_SPANS,
    aliases=OTB_ALIASES,
    source=Source(
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
    truth=("{split}/{seq}/groundtruth_rect.txt",),
    frames=("{split}/{seq}/img",),
    marks=_marks(
        ("Test", "Val", "Train", "test", "val", "train", "test/Test", "val/Val", "train/Train"),
        "groundtruth_rect.txt",
        "absent.txt",
    ),
    flags=(Flags(files=("{split}/{seq}/absent.txt",)),),
    empty="zero",
    sentence=("{split}/{seq}/language.txt", "language/Language/{part}/{seq}/language.txt"),
    source=Source(
        page="github.com/983632847/WebUAV-3M",
        parts=("the parts Train, Val and Test, unpacked to ROOT/Train/, ROOT/Val/, ROOT/Test/",),
        size="3,520 training, 200 validation and 780 test videos",
    ),
)

VASTTRACK = Layout(
    name="vasttrack",
    title="VastTrack",
    splits=(
        Split(name="test", folders=("test", "Test")),
        Split(name="train", folders=("train", "Train")),
    ),
    truth=inside(_BY_SPLIT_AND_CLASS, "Groundtruth.txt", "groundtruth.txt"),
    frames=inside(_BY_SPLIT_AND_CLASS, "imgs", "img"),
    marks=(
        *_marks(("test/*", "Test/*", "train/*", "Train/*", "*", "test", "Test"), "Groundtruth.txt"),
        *_marks(("test/*", "Test/*", "train/*", "Train/*", "*", "test", "Test"), "nlp.txt", "imgs"),
    ),
    names=r".+-\d+",
    empty="zero",
    sentence=inside(_BY_SPLIT_AND_CLASS, "nlp.txt"),
    attributes=VASTTRACK_10,
    attribute_files=("att/{seq}.txt",),
    source=Source(
        page="github.com/HengLan/VastTrack",
        parts=("the test part (and the training part), unpacked to ROOT/test/ (ROOT/train/)",),
        size="3,500 test videos, 372,133 frames",
    ),
)

MGIT = Layout(
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

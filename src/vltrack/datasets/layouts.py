"""The data sets of videos, one ``Layout`` a row. Knows where files lie; opens none.

A new data set is one more row here (docs/add-a-dataset.md). The order matters where two would fit one folder:
the first is taken.
"""

from __future__ import annotations

from vltrack.datasets.layout import Flags, Layout, Split, short_names


_CLASSES = ("{stem}/{seq}", "{seq}")

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="lasot",
        title="LaSOT",
        splits=(
            Split(name="test", listed=("testing_set.txt", "lasot_test_split.txt")),
            Split(name="train", listed=("training_set.txt", "lasot_train_split.txt")),
        ),
        truth=tuple(f"{home}/groundtruth.txt" for home in _CLASSES),
        frames=tuple(f"{home}/img" for home in _CLASSES),
        marks=(("*/*/full_occlusion.txt",), ("*/full_occlusion.txt",)),
        flags=(
            Flags(files=tuple(f"{home}/full_occlusion.txt" for home in _CLASSES)),
            Flags(files=tuple(f"{home}/out_of_view.txt" for home in _CLASSES)),
        ),
        sentence=tuple(f"{home}/nlp.txt" for home in _CLASSES),
        attributes=short_names("IV POC DEF MB CM ROT BC VC SV FOC FM OV LR ARC"),
        attribute_files=("att/{seq}.txt",),
        cuts={"monkey-17": 2260},
    ),
    Layout(
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
    ),
)

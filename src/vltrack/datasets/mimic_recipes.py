"""What the miniature of each data set has: sequences with the quirks of the real ones. Data only.

Names are the real ones where a quirk is tied to a name, else made up in the same style.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One sequence to draw.

    Attributes:
        split: the split that it belongs to.
        name: official name.
        frames: how many frames count.
        hidden: frames in which the target is absent.
        boxed: the absent frames carry a box all the same (LaSOT: only the flags tell).
        edge: a frame in which the target touches the left edge: x = 0.
        flat: a frame in which it is there but its box has no area.
        start: number of the first image that counts.
        more_images, more_rows: how many images, or rows, there are beyond those that count.
        folder: name of the folder of images, or of the sequence's own, where it is not ``name``.
        place: which of the layout's places (0: the first) the boxes lie in.
        suffix: type of the images.
        grey: the images have one channel.
        mute: the sentence is empty.
        pair: 1 or 2: the first or the second of two targets in one video, drawn one after the other.
    """

    split: str
    name: str
    frames: int = 12
    hidden: tuple[int, ...] = ()
    boxed: bool = False
    edge: int | None = None
    flat: int | None = None
    start: int | None = None
    more_images: int = 0
    more_rows: int = 0
    folder: str = ""
    place: int = 0
    suffix: str = ".jpg"
    grey: bool = False
    mute: bool = False
    pair: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A miniature.

    Attributes:
        clips: its sequences.
        digits: to how many digits image names are padded (0: not).
        separator, decimals: how boxes are written.
        absent_as: what an absent frame's row holds: "0", "nan", or the last box ("last").
        flag_line: flags stand in one line with commas instead of one a line.
        attribute_lines: attributes stand one a line instead of in one line with commas.
        list_end: what ends a list of names.
        extras: files that nobody reads here but that lie there: (pattern, one line, one line a frame).
        form: the layout's form, where the data set has several.
    """

    clips: tuple[Clip, ...]
    digits: int = 8
    separator: str = ","
    decimals: int = 0
    absent_as: str = "0"
    flag_line: bool = False
    attribute_lines: bool = False
    list_end: str = "\n"
    extras: tuple[tuple[str, str, bool], ...] = ()
    form: str = ""


_TEN_FRAMES = (
    Clip(split="test", name="bike1", hidden=(6, 7), edge=3),
    Clip(split="test", name="bird1_1", folder="bird1", start=1),
    Clip(split="test", name="bird1_2", folder="bird1", start=16, hidden=(4,)),
)

RECIPES: Mapping[str, Recipe] = {
    "lasot": Recipe(
        clips=(
            Clip(split="test", name="airplane-1", hidden=(5, 6), boxed=True, edge=9),
            Clip(split="test", name="rubicCube-1", frames=14, hidden=(7, 8, 9)),
            Clip(split="test", name="zebra-10", flat=4),
            Clip(split="train", name="airplane-2"),
        ),
        flag_line=True,
        list_end="",
    ),
    "lasot_ext": Recipe(
        clips=(
            Clip(split="test", name="atv-1", hidden=(5,), boxed=True),
            Clip(split="test", name="paddle-1", more_rows=3),
            Clip(split="test", name="wingsuit-10", frames=15, hidden=(8, 9)),
        ),
        flag_line=True,
    ),
    "tnl2k": Recipe(
        clips=(
            Clip(split="test", name="Cat_BBC_video_01-Done", hidden=(6, 7), edge=3),
            Clip(split="test", name="advSamp_monitor_bikeyellow", more_images=1),
            Clip(split="test", name="test_015_Sord_video_Q01_done", suffix=".png", start=3, edge=5),
            Clip(split="train", name="INF_run1", mute=True),
            Clip(split="train", name="Fight_video_6-Done", hidden=(4,)),
        ),
        digits=5,
        attribute_lines=True,
    ),
    "otb100": Recipe(
        clips=(
            Clip(split="test", name="Football1", frames=74, start=1, more_images=4),
            Clip(split="test", name="Human4-2", folder="Human4", place=1),
            Clip(split="test", name="Jogging-1", folder="Jogging", place=1, pair=1),
            Clip(split="test", name="Jogging-2", folder="Jogging", place=1, pair=2),
            Clip(split="test", name="Walking", edge=5, flat=8),
        ),
        digits=4,
        separator="\t",
    ),
    "otb99": Recipe(
        clips=(
            Clip(split="train", name="Basketball"),
            Clip(split="train", name="Human4-2", folder="Human4"),
            Clip(split="test", name="Biker", frames=14, edge=5),
            Clip(split="test", name="Skating2-1", folder="Skating2"),
            Clip(split="test", name="Skating2-2", folder="Skating3"),
        ),
        digits=4,
        separator=",",
    ),
    "webuav3m": Recipe(
        clips=(
            Clip(split="test", name="boat_on_river_1", hidden=(5, 6), edge=2),
            Clip(split="test", name="white_car_2", grey=True),
            Clip(split="val", name="bike_3"),
            Clip(split="train", name="person_4", hidden=(7,)),
        ),
        digits=6,
        extras=(
            ("{split}/{seq}/attributes.txt", "0,1,0,0,0,0,0,0,1,0,0,0,0,0,1,0,2", False),
            ("{split}/{seq}/scenario.txt", "0,0,1,0,0,0,0", True),
        ),
    ),
    "got10k": Recipe(
        clips=(
            Clip(split="test", name="GOT-10k_Test_000001"),
            Clip(split="test", name="GOT-10k_Test_000002", frames=14),
            Clip(split="val", name="GOT-10k_Val_000001", hidden=(6, 7), boxed=True),
            Clip(split="val", name="GOT-10k_Val_000002"),
            Clip(split="train", name="GOT-10k_Train_000001", hidden=(4,), boxed=True),
        ),
        decimals=4,
        extras=(("{split}/{seq}/cut_by_image.label", "0", True),),
    ),
    "trackingnet": Recipe(
        clips=(
            Clip(split="test", name="aB3-dE_fGh1_0", frames=14),
            Clip(split="test", name="-3cD4eF5gH6_2"),
            Clip(split="train", name="q1W2e3R4t5Y_0", hidden=(6,)),
            Clip(split="train", name="z9X8c7V6b5N_1", frames=13),
        ),
        digits=0,
        decimals=2,
    ),
    "uav123": Recipe(clips=_TEN_FRAMES, digits=6, absent_as="nan"),
    "uav123_10fps": Recipe(clips=_TEN_FRAMES, digits=6, absent_as="nan"),
    "nfs": Recipe(
        clips=(
            Clip(split="test", name="airboard_1", edge=4),
            Clip(split="test", name="bee", frames=14, hidden=(6,)),
            Clip(split="test", name="yoyo"),
        ),
        digits=5,
        separator="\t",
    ),
    "nfs-original": Recipe(
        clips=(
            Clip(split="test", name="airboard_1", hidden=(6, 7)),
            Clip(split="test", name="bee", frames=14, more_images=1),
        ),
        digits=5,
        separator=" ",
        form="as its authors ship it",
    ),
    "vasttrack": Recipe(
        clips=(
            Clip(split="test", name="Air Hockey-1", hidden=(5, 6)),
            Clip(split="test", name="Aardwolf-4", place=1, edge=7),
            Clip(split="test", name="Air Hockey-10", frames=14),
        ),
    ),
    "mgit": Recipe(
        clips=(
            Clip(split="val", name="003", hidden=(6, 7)),
            Clip(split="val", name="017", frames=14),
            Clip(split="train", name="001", edge=5),
            Clip(split="test", name="002"),
        ),
        digits=6,
        decimals=2,
    ),
    "folder": Recipe(
        clips=(
            Clip(split="all", name="my-dog"),
            Clip(split="all", name="red-car", hidden=(5, 6), edge=3),
            Clip(split="all", name="the-neighbour", frames=15, mute=True),
        ),
        decimals=2,
    ),
}

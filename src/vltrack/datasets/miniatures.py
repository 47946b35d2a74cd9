"""Miniatures of the data sets of videos: drawn clips in the exact layout of the real ones, quirks included.

``draw`` says what is in a miniature, ``write_video_miniature`` writes it by the data set's ``Layout``. Reading is
not known here, so that a reader can be held against it. The same seed gives the same bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.sax.saxutils import escape
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import ResourceError
from vltrack.core.files import as_resource_error
from vltrack.core.types import Image
from vltrack.datasets.layout import Layout, Patterns
from vltrack.datasets.layouts import LAYOUTS
from vltrack.datasets.synthetic import SyntheticClip, synthesize_clip

# MERGED datasets/miniatures.py
# A table as .xlsx, as little as readers accept; same rows, same bytes. Knows no data set.


_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_LINKS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_TYPES = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_THEN = (1980, 1, 1, 0, 0, 0)


def sheet_bytes(rows: Sequence[Sequence[str]]) -> bytes:
    """The file with these rows of text, in one sheet."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _parts(rows):
            archive.writestr(zipfile.ZipInfo(name, _THEN), _HEAD + text)
    return buffer.getvalue()


def _parts(rows: Sequence[Sequence[str]]) -> Iterator[tuple[str, str]]:
    yield (
        "[Content_Types].xml",
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPES}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPES}.worksheet+xml"/></Types>',
    )
    yield "_rels/.rels", _links("officeDocument", "xl/workbook.xml")
    yield "xl/_rels/workbook.xml.rels", _links("worksheet", "worksheets/sheet1.xml")
    yield (
        "xl/workbook.xml",
        f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>'
        '<sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    )
    lines = "".join(
        f'<row r="{r}">{"".join(_cell(r, k, value) for k, value in enumerate(row))}</row>'
        for r, row in enumerate(rows, 1)
    )
    yield (
        "xl/worksheets/sheet1.xml",
        f'<worksheet xmlns="{_MAIN}"><sheetData>{lines}</sheetData></worksheet>',
    )


def _links(kind: str, target: str) -> str:
    link = f'<Relationship Id="rId1" Type="{_OFFICE}/{kind}" Target="{target}"/>'
    return f'<Relationships xmlns="{_LINKS}">{link}</Relationships>'


def _cell(row: int, column: int, value: str) -> str:
    return f'<c r="{chr(ord("A") + column)}{row}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'


# MERGED datasets/miniatures.py
# What the miniature of each data set has: sequences with the quirks of the real ones. Data only.
#
# Names are the real ones where a quirk is tied to a name, else made up in the same style.


@dataclass(frozen=True, kw_only=True, slots=True)
class MiniatureClip:
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
class Miniature:
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

    clips: tuple[MiniatureClip, ...]
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
    MiniatureClip(split="test", name="bike1", hidden=(6, 7), edge=3),
    MiniatureClip(split="test", name="bird1_1", folder="bird1", start=1),
    MiniatureClip(split="test", name="bird1_2", folder="bird1", start=16, hidden=(4,)),
)

MINIATURES: Mapping[str, Miniature] = {
    "lasot": Miniature(
        clips=(
            MiniatureClip(split="test", name="airplane-1", hidden=(5, 6), boxed=True, edge=9),
            MiniatureClip(split="test", name="rubicCube-1", frames=14, hidden=(7, 8, 9)),
            MiniatureClip(split="test", name="zebra-10", flat=4),
            MiniatureClip(split="train", name="airplane-2"),
        ),
        flag_line=True,
        list_end="",
    ),
    "lasot_ext": Miniature(
        clips=(
            MiniatureClip(split="test", name="atv-1", hidden=(5,), boxed=True),
            MiniatureClip(split="test", name="paddle-1", more_rows=3),
            MiniatureClip(split="test", name="wingsuit-10", frames=15, hidden=(8, 9)),
        ),
        flag_line=True,
    ),
    "tnl2k": Miniature(
        clips=(
            MiniatureClip(split="test", name="Cat_BBC_video_01-Done", hidden=(6, 7), edge=3),
            MiniatureClip(split="test", name="advSamp_monitor_bikeyellow", more_images=1),
            MiniatureClip(split="test", name="test_015_Sord_video_Q01_done", suffix=".png", start=3, edge=5),
            MiniatureClip(split="train", name="INF_run1", mute=True),
            MiniatureClip(split="train", name="Fight_video_6-Done", hidden=(4,)),
        ),
        digits=5,
        attribute_lines=True,
    ),
    "otb100": Miniature(
        clips=(
            MiniatureClip(split="test", name="Football1", frames=74, start=1, more_images=4),
            MiniatureClip(split="test", name="Human4-2", folder="Human4", place=1),
            MiniatureClip(split="test", name="Jogging-1", folder="Jogging", place=1, pair=1),
            MiniatureClip(split="test", name="Jogging-2", folder="Jogging", place=1, pair=2),
            MiniatureClip(split="test", name="Walking", edge=5, flat=8),
        ),
        digits=4,
        separator="\t",
    ),
    "otb99": Miniature(
        clips=(
            MiniatureClip(split="train", name="Basketball"),
            MiniatureClip(split="train", name="Human4-2", folder="Human4"),
            MiniatureClip(split="test", name="Biker", frames=14, edge=5),
            MiniatureClip(split="test", name="Skating2-1", folder="Skating2"),
            MiniatureClip(split="test", name="Skating2-2", folder="Skating3"),
        ),
        digits=4,
        separator=",",
    ),
    "webuav3m": Miniature(
        clips=(
            MiniatureClip(split="test", name="boat_on_river_1", hidden=(5, 6), edge=2),
            MiniatureClip(split="test", name="white_car_2", grey=True),
            MiniatureClip(split="val", name="bike_3"),
            MiniatureClip(split="train", name="person_4", hidden=(7,)),
        ),
        digits=6,
        extras=(
            ("{split}/{seq}/attributes.txt", "0,1,0,0,0,0,0,0,1,0,0,0,0,0,1,0,2", False),
            ("{split}/{seq}/scenario.txt", "0,0,1,0,0,0,0", True),
        ),
    ),
    "got10k": Miniature(
        clips=(
            MiniatureClip(split="test", name="GOT-10k_Test_000001"),
            MiniatureClip(split="test", name="GOT-10k_Test_000002", frames=14),
            MiniatureClip(split="val", name="GOT-10k_Val_000001", hidden=(6, 7), boxed=True),
            MiniatureClip(split="val", name="GOT-10k_Val_000002"),
            MiniatureClip(split="train", name="GOT-10k_Train_000001", hidden=(4,), boxed=True),
        ),
        decimals=4,
        extras=(("{split}/{seq}/cut_by_image.label", "0", True),),
    ),
    "trackingnet": Miniature(
        clips=(
            MiniatureClip(split="test", name="aB3-dE_fGh1_0", frames=14),
            MiniatureClip(split="test", name="-3cD4eF5gH6_2"),
            MiniatureClip(split="train", name="q1W2e3R4t5Y_0", hidden=(6,)),
            MiniatureClip(split="train", name="z9X8c7V6b5N_1", frames=13),
        ),
        digits=0,
        decimals=2,
    ),
    "uav123": Miniature(clips=_TEN_FRAMES, digits=6, absent_as="nan"),
    "uav123_10fps": Miniature(clips=_TEN_FRAMES, digits=6, absent_as="nan"),
    "nfs": Miniature(
        clips=(
            MiniatureClip(split="test", name="airboard_1", edge=4),
            MiniatureClip(split="test", name="bee", frames=14, hidden=(6,)),
            MiniatureClip(split="test", name="yoyo"),
        ),
        digits=5,
        separator="\t",
    ),
    "nfs-original": Miniature(
        clips=(
            MiniatureClip(split="test", name="airboard_1", hidden=(6, 7)),
            MiniatureClip(split="test", name="bee", frames=14, more_images=1),
        ),
        digits=5,
        separator=" ",
        form="as its authors ship it",
    ),
    "vasttrack": Miniature(
        clips=(
            MiniatureClip(split="test", name="Air Hockey-1", hidden=(5, 6)),
            MiniatureClip(split="test", name="Aardwolf-4", place=1, edge=7),
            MiniatureClip(split="test", name="Air Hockey-10", frames=14),
        ),
    ),
    "mgit": Miniature(
        clips=(
            MiniatureClip(split="val", name="003", hidden=(6, 7)),
            MiniatureClip(split="val", name="017", frames=14),
            MiniatureClip(split="train", name="001", edge=5),
            MiniatureClip(split="test", name="002"),
        ),
        digits=6,
        decimals=2,
    ),
    "folder": Miniature(
        clips=(
            MiniatureClip(split="all", name="my-dog"),
            MiniatureClip(split="all", name="red-car", hidden=(5, 6), edge=3),
            MiniatureClip(split="all", name="the-neighbour", frames=15, mute=True),
        ),
        decimals=2,
    ),
}


SIZE = (160, 120)
_META = ("root_class", "major_class", "object_class", "motion_class", "motion_adverb")


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnSequence:
    """One sequence of a miniature, as a reader has to give it back.

    Attributes:
        clip: its recipe.
        frames: RGB uint8, those that count.
        boxes: (R, 4) x, y, w, h as the file holds them; R = 1 where the truth is held back.
        absent: (R,) bool.
        sentence, attributes: as ``Sequence``.
        cover: (R,) 0..8, or None.
    """

    clip: MiniatureClip
    frames: list[Image]
    boxes: NDArray[np.float64]
    absent: NDArray[np.bool_]
    sentence: str
    attributes: tuple[str, ...]
    cover: NDArray[np.float64] | None


def draw(name: str, seed: int = 0) -> list[DrawnSequence]:
    """What the miniature of the data set ``name`` holds, in the recipe's order."""
    layout, recipe = _layout(name), MINIATURES[name]
    own = crc32(name.encode())  # other pictures for every data set
    seeds = [own + seed * 1000 + k - (clip.pair == 2) for k, clip in enumerate(recipe.clips)]
    return [_draw(layout, recipe, *both) for both in zip(recipe.clips, seeds, strict=True)]


def write_video_miniature(name: str, out: Path, seed: int = 0) -> Path:
    """Write the miniature of the data set ``name`` into ``out``, which it returns.

    Raises:
        ResourceError: ``out`` is not empty, or cannot be written.
    """
    layout, recipe = _layout(name), MINIATURES[name]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ResourceError(f"{out} exists and is not empty.", hint="Choose another folder or remove it.")
    drawn = draw(name, seed)
    try:
        for one in drawn:
            _Writer(out, layout, recipe, one).write()
        _write_lists(out, layout, recipe)
        if layout.spans_file:
            _write_spans(out / layout.spans_file, layout, recipe)
    except OSError as error:
        raise as_resource_error(error, out) from error
    return out


def _layout(name: str) -> Layout:
    """The layout that a recipe is written in: "nfs-original" is a form of "nfs"."""
    form = MINIATURES[name].form
    named = (layout for layout in LAYOUTS if layout.name == name.removesuffix("-original"))
    return next(layout for layout in named if layout.download and form in ("", layout.form))


def _draw(layout: Layout, recipe: Miniature, clip: MiniatureClip, seed: int) -> DrawnSequence:
    made = _synthesize(seed, clip)
    frames = [frame.copy() for frame in made.frames]
    boxes = made.boxes if clip.pair < 2 or made.distractor_boxes is None else made.distractor_boxes
    boxes = boxes.copy()
    for t in clip.hidden:
        _cover_up(frames[t], boxes[t])
    if clip.edge is not None:
        boxes[clip.edge, 0] = _to_left_edge(frames[clip.edge], boxes[clip.edge, 0])
    boxes = np.round(boxes, recipe.decimals)
    absent = np.zeros(clip.frames, dtype=bool)
    absent[list(clip.hidden)] = True
    if not clip.boxed:
        boxes[absent] = np.nan if recipe.absent_as == "nan" else 0.0
    if clip.flat is not None:
        boxes[clip.flat, 2] = 0.0
        absent[clip.flat] |= layout.empty == "flat"
    flags = np.random.default_rng([seed, 7]).random(len(layout.attributes)) < 0.3
    seen = np.random.default_rng([seed, 8]).integers(3, 9, clip.frames)
    cover = np.where(absent, 0.0, seen) if layout.cover else None
    drawn = DrawnSequence(
        clip=clip,
        frames=[_grey(frame) for frame in frames] if clip.grey else frames,
        boxes=boxes,
        absent=absent,
        sentence="" if clip.mute else _sentence(layout, made.sentence),
        attributes=tuple(name for name, flag in zip(layout.attributes, flags, strict=True) if flag),
        cover=cover,
    )
    held_back = next(split for split in layout.splits if split.name == clip.split).held_back
    return replace(drawn, boxes=boxes[:1], absent=absent[:1], cover=None) if held_back else drawn


def _synthesize(seed: int, clip: MiniatureClip) -> SyntheticClip:
    """The first clip from ``seed`` on whose target never leaves, with twins where two are annotated."""
    for number in range(100):
        made = synthesize_clip(seed + 100_003 * number, clip.frames, SIZE)
        if not made.absent.any() and (not clip.pair or made.distractor_boxes is not None):
            return made
    raise ValueError("no clip without an absence in a hundred")  # one in two is


def _cover_up(frame: Image, box: NDArray[np.float64]) -> None:
    """Paint over the target: it is hidden behind something grey."""
    x, y, w, h = box
    frame[max(0, int(y) - 1) : int(y + h) + 2, max(0, int(x) - 1) : int(x + w) + 2] = 128


def _to_left_edge(frame: Image, x: float) -> float:
    """Move the picture so far to the left that the target touches the edge; returns the new x."""
    columns = np.minimum(np.arange(frame.shape[1]) + int(x), frame.shape[1] - 1)
    frame[:] = frame[:, columns]
    return 0.0


def _grey(frame: Image) -> Image:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))


def _sentence(layout: Layout, sentence: str) -> str:
    """The sentence as the layout's files can hold it."""
    if not layout.sentence:
        return ""
    words = sentence.split()
    if layout.words == "meta":
        return f"thing figure {words[-1]} gliding slowly"
    return f"{sentence}, moving over a textured ground"


class _Writer:
    """Writes one sequence by its layout."""

    def __init__(self, out: Path, layout: Layout, recipe: Miniature, drawn: DrawnSequence) -> None:
        self.out, self.layout, self.recipe, self.drawn = out, layout, recipe, drawn
        clip = drawn.clip
        folder = next(split.folders[0] for split in layout.splits if split.name == clip.split)
        stem, _, number = clip.name.rpartition("-")
        self._fields = {
            "seq": clip.folder if clip.name in layout.aliases and not clip.place else clip.name,
            "stem": stem or clip.name,
            "k": number,
            "split": folder.replace("*", clip.name[-1]),
            "part": folder,
            "folder": clip.folder or clip.name,
        }

    def write(self) -> None:
        """All files of the sequence."""
        self._write_images()
        self._write_boxes()
        held_back = len(self.drawn.boxes) < len(self.drawn.frames)
        for number, flags in enumerate(self.layout.flags):
            if not held_back:
                self._write_flags(flags.files, flags.absent, last=number == len(self.layout.flags) - 1)
        if self.drawn.cover is not None:
            self._write(self.layout.cover, "".join(f"{int(value)}\n" for value in self.drawn.cover))
        if self.layout.attribute_files:
            words = [str(int(name in self.drawn.attributes)) for name in self.layout.attributes]
            text = ("\n" if self.recipe.attribute_lines else ",").join(words) + "\n"
            self._write(self.layout.attribute_files, text, official=True)
        for pattern, line, each in self.recipe.extras:
            self._write((pattern,), f"{line}\n" * (len(self.drawn.frames) if each else 1))
        self._write_sentence()

    def _path(self, patterns: Patterns, place: int = 0, *, official: bool = False) -> Path:
        """Where a file goes; ``official``: under the sequence's own name, whatever its folder is called."""
        pattern = next((one for one in patterns if f"_{self.drawn.clip.split}/" in one), patterns[place])
        fields = self._fields | ({"seq": self.drawn.clip.name} if official else {})
        return self.out / pattern.format_map(fields)

    def _write(self, patterns: Patterns, text: str, place: int = 0, *, official: bool = False) -> None:
        path = self._path(patterns, place, official=official)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _write_images(self) -> None:
        clip, layout = self.drawn.clip, self.layout
        folder = self._path(layout.frames, clip.place if clip.folder else 0)
        folder.mkdir(parents=True, exist_ok=True)
        first = clip.start if clip.start is not None else 1 if layout.first is None else layout.first
        frames = self.drawn.frames + self.drawn.frames[-1:] * clip.more_images
        for number, frame in enumerate(frames, first):
            done, data = cv2.imencode(clip.suffix, frame[..., ::-1] if frame.ndim == 3 else frame)
            if not done:
                raise OSError("a frame could not be encoded")
            (folder / f"{number:0{self.recipe.digits}d}{clip.suffix}").write_bytes(data.tobytes())

    def _write_boxes(self) -> None:
        clip, rows, boxes = self.drawn.clip, self.layout.rows, self.drawn.boxes
        boxes = np.concatenate([boxes, boxes[-1:].repeat(clip.more_rows, axis=0)]).repeat(rows.rate, axis=0)
        if rows.corners:
            boxes[:, 2:] += boxes[:, :2]
        lines = [self.recipe.separator.join(self._number(value) for value in box) for box in boxes]
        if rows.lost is not None:  # id box frame lost occluded generated "label"
            lost = self.drawn.absent.repeat(rows.rate).astype(int)
            lines = [f'0 {line} {t} {lost[t]} 0 0 "thing"' for t, line in enumerate(lines)]
        self._write(self.layout.truth, "\n".join(lines) + "\n", clip.place)

    def _number(self, value: float) -> str:
        return "NaN" if np.isnan(value) else f"{value:.{self.recipe.decimals}f}"

    def _write_flags(self, files: Patterns, absent: int, *, last: bool) -> None:
        """Hidden frames with a box go to the first file of flags, those without to the last."""
        clip = self.drawn.clip
        mine = len(self.layout.flags) == 1 or last != clip.boxed
        flags = self.drawn.absent & np.isin(np.arange(len(self.drawn.absent)), clip.hidden) & mine
        flags = np.concatenate([flags, flags[-1:].repeat(clip.more_rows)])
        words = [str(absent if flag else 1 - absent) for flag in flags]
        self._write(files, ",".join(words) if self.recipe.flag_line else "\n".join(words) + "\n")

    def _write_sentence(self) -> None:
        layout, sentence = self.layout, self.drawn.sentence
        if not layout.sentence:
            return
        if layout.words == "meta":
            meta = dict(zip(_META, sentence.split(), strict=True))
            lines = [f"{key}: {value}" for key, value in reversed(meta.items())]
            lines += [f"resolution: ({SIZE[0]}, {SIZE[1]})", "anno_fps: 10Hz"]
            self._write(layout.sentence, "[METAINFO]\n" + "\n".join(lines) + "\n")
        elif layout.words == "sheet":
            path = self._path(layout.sentence)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sheet_bytes([[f"column {k}" for k in range(15)], ["-"] * 14 + [sentence]]))
        else:
            self._write(layout.sentence, f"{sentence}\n" if sentence else "", official=True)


def _write_lists(out: Path, layout: Layout, recipe: Miniature) -> None:
    """The lists of names that splits have."""
    for split in layout.splits:
        names = [clip.name for clip in recipe.clips if clip.split == split.name]
        if not split.listed or split.indices or "{seq}" in split.listed[0] or not names:
            continue
        path = out / split.listed[0].replace("{split}", split.folders[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(names) + recipe.list_end, encoding="utf-8")


def _write_spans(path: Path, layout: Layout, recipe: Miniature) -> None:
    """Which images belong to which sequence, as got10k's toolkit lists them."""
    parts = {
        clip.name: {
            "start_frame": clip.start or 1,
            "end_frame": (clip.start or 1) + clip.frames - 1,
            "folder_name": clip.folder or clip.name,
        }
        for clip in recipe.clips
    }
    path.write_text(json.dumps({layout.title: parts}, indent=4) + "\n", encoding="utf-8")

"""Miniatures of the video data sets: synthetic clips in the exact layout of the real ones, quirks included.

``draw_miniature`` renders the sequences of a miniature, ``write_video_miniature`` writes them by the layout
of the data set. The same seed gives the same bytes. The reader is tested with them, so it is not used here.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape
from zlib import crc32

import cv2
import numpy as np

from vltrack.core.types import Image
from vltrack.datasets import sequences
from vltrack.datasets.catalogue import videos
from vltrack.datasets.layouts import META_KEYS, NFS_ORIGINAL, Layout, Patterns
from vltrack.datasets.synthetic import SyntheticClip, new_folder, synthesize_clip, write_image

SIZE = (160, 120)


@dataclass(frozen=True, kw_only=True, slots=True)
class MiniatureClip:
    """One sequence of a miniature.

    Attributes:
        split: its split.
        name: official name.
        frames: number of annotated frames.
        hidden: frames in which the target is absent.
        boxed: absent frames have a box all the same (LaSOT: only the flags mark absence).
        edge: a frame in which the target touches the left edge: x = 0.
        flat: a frame in which the target is visible but its box has no area.
        start: number of the first annotated image.
        more_images, more_rows: number of images, or rows, in addition to the annotated ones.
        folder: name of the folder of images, or of the sequence, where it is not ``name``.
        alternative: which of the layout's alternative patterns (0: the first) the boxes use.
        suffix: image type.
        gray: images have one channel.
        empty_sentence: the sentence is empty.
        target: 1 or 2: first or second of two targets in one video, in consecutive clips; else 0.
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
    alternative: int = 0
    suffix: str = ".jpg"
    gray: bool = False
    empty_sentence: bool = False
    target: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Miniature:
    """Content and file formats of a miniature.

    Attributes:
        clips: its sequences.
        digits: width to which image numbers are padded (0: not).
        separator, decimals: format of boxes.
        absent_as: value in the box of an absent frame: "0" or "nan".
        flag_line: flags are in one line with commas instead of one per line.
        attribute_lines: attributes are one per line instead of in one line with commas.
        list_end: end of a list of names.
        extras: files that are not read: (pattern, line, whether it is repeated per frame).
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


# Names are the real ones where a quirk is tied to a name, else made up in the same style.
_UAV_CLIPS = (
    MiniatureClip(split="test", name="bike1", hidden=(6, 7), edge=3),
    MiniatureClip(split="test", name="bird1_1", folder="bird1", start=1),
    MiniatureClip(split="test", name="bird1_2", folder="bird1", start=16, hidden=(4,)),
)


def _miniature(*clips: MiniatureClip, **formats: Any) -> Miniature:
    return Miniature(clips=clips, **formats)


MINIATURES: Mapping[str, Miniature] = {
    "lasot": _miniature(
        MiniatureClip(split="test", name="airplane-1", hidden=(5, 6), boxed=True, edge=9),
        MiniatureClip(split="test", name="rubicCube-1", frames=14, hidden=(7, 8, 9)),
        MiniatureClip(split="test", name="zebra-10", flat=4),
        MiniatureClip(split="train", name="airplane-2"),
        flag_line=True,
        list_end="",
    ),
    "lasot_ext": _miniature(
        MiniatureClip(split="test", name="atv-1", hidden=(5,), boxed=True),
        MiniatureClip(split="test", name="paddle-1", more_rows=3),
        MiniatureClip(split="test", name="wingsuit-10", frames=15, hidden=(8, 9)),
        flag_line=True,
    ),
    "tnl2k": _miniature(
        MiniatureClip(split="test", name="Cat_BBC_video_01-Done", hidden=(6, 7), edge=3),
        MiniatureClip(split="test", name="advSamp_monitor_bikeyellow", more_images=1),
        MiniatureClip(split="test", name="test_015_Sord_video_Q01_done", suffix=".png", start=3, edge=5),
        MiniatureClip(split="train", name="INF_run1", empty_sentence=True),
        MiniatureClip(split="train", name="Fight_video_6-Done", hidden=(4,)),
        digits=5,
        attribute_lines=True,
    ),
    "otb100": _miniature(
        MiniatureClip(split="test", name="Football1", frames=74, start=1, more_images=4),
        MiniatureClip(split="test", name="Human4-2", folder="Human4", alternative=1),
        MiniatureClip(split="test", name="Jogging-1", folder="Jogging", alternative=1, target=1),
        MiniatureClip(split="test", name="Jogging-2", folder="Jogging", alternative=1, target=2),
        MiniatureClip(split="test", name="Walking", edge=5, flat=8),
        digits=4,
        separator="\t",
    ),
    "otb99": _miniature(
        MiniatureClip(split="train", name="Basketball"),
        MiniatureClip(split="train", name="Human4-2", folder="Human4"),
        MiniatureClip(split="test", name="Biker", frames=14, edge=5),
        MiniatureClip(split="test", name="Skating2-1", folder="Skating2"),
        MiniatureClip(split="test", name="Skating2-2", folder="Skating3"),
        digits=4,
    ),
    "dtb70": _miniature(
        MiniatureClip(split="test", name="Animal1"), MiniatureClip(split="test", name="SUP2", edge=5), digits=5
    ),
    "webuav3m": _miniature(
        MiniatureClip(split="test", name="boat_on_river_1", hidden=(5, 6), edge=2),
        MiniatureClip(split="test", name="white_car_2", gray=True),
        MiniatureClip(split="val", name="bike_3"),
        MiniatureClip(split="train", name="person_4", hidden=(7,)),
        digits=6,
        extras=(
            ("{split}/{seq}/attributes.txt", "0,1,0,0,0,0,0,0,1,0,0,0,0,0,1,0,2", False),
            ("{split}/{seq}/scenario.txt", "0,0,1,0,0,0,0", True),
        ),
    ),
    "got10k": _miniature(
        MiniatureClip(split="test", name="GOT-10k_Test_000001"),
        MiniatureClip(split="test", name="GOT-10k_Test_000002", frames=14),
        MiniatureClip(split="val", name="GOT-10k_Val_000001", hidden=(6, 7), boxed=True),
        MiniatureClip(split="val", name="GOT-10k_Val_000002"),
        MiniatureClip(split="train", name="GOT-10k_Train_000001", hidden=(4,), boxed=True),
        decimals=4,
        extras=(("{split}/{seq}/cut_by_image.label", "0", True),),
    ),
    "trackingnet": _miniature(
        MiniatureClip(split="test", name="aB3-dE_fGh1_0", frames=14),
        MiniatureClip(split="test", name="-3cD4eF5gH6_2"),
        MiniatureClip(split="train", name="q1W2e3R4t5Y_0", hidden=(6,)),
        MiniatureClip(split="train", name="z9X8c7V6b5N_1", frames=13),
        digits=0,
        decimals=2,
    ),
    "uav123": _miniature(*_UAV_CLIPS, digits=6, absent_as="nan"),
    "uav123_10fps": _miniature(*_UAV_CLIPS, digits=6, absent_as="nan"),
    "nfs": _miniature(
        MiniatureClip(split="test", name="airboard_1", edge=4),
        MiniatureClip(split="test", name="bee", frames=14, hidden=(6,)),
        MiniatureClip(split="test", name="yoyo"),
        digits=5,
        separator="\t",
    ),
    "nfs-original": _miniature(
        MiniatureClip(split="test", name="airboard_1", hidden=(6, 7)),
        MiniatureClip(split="test", name="bee", frames=14, more_images=1),
        digits=5,
        separator=" ",
    ),
    "vasttrack": _miniature(
        MiniatureClip(split="test", name="Air Hockey-1", hidden=(5, 6)),
        MiniatureClip(split="test", name="Aardwolf-4", alternative=1, edge=7),
        MiniatureClip(split="test", name="Air Hockey-10", frames=14),
        MiniatureClip(split="train", name="Abacus-2", hidden=(3,)),
    ),
    "mgit": _miniature(
        MiniatureClip(split="val", name="003", hidden=(6, 7)),
        MiniatureClip(split="val", name="017", frames=14),
        MiniatureClip(split="train", name="001", edge=5),
        MiniatureClip(split="test", name="002"),
        digits=6,
        decimals=2,
    ),
    "folder": _miniature(
        MiniatureClip(split="all", name="my-dog"),
        MiniatureClip(split="all", name="red-car", hidden=(5, 6), edge=3),
        MiniatureClip(split="all", name="the-neighbour", frames=15, empty_sentence=True),
        decimals=2,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnSequence:
    """One sequence of a miniature.

    Attributes:
        clip: its description.
        frames: RGB uint8, the annotated ones.
        annotation: what a reader has to return, apart from paths; one row where the split withholds the others.
    """

    clip: MiniatureClip
    frames: list[Image]
    annotation: sequences.Sequence


def draw_miniature(name: str, seed: int = 0) -> list[DrawnSequence]:
    """Render the sequences in the miniature of the data set ``name``."""
    layout, miniature = _layout(name), MINIATURES[name]
    own = crc32(name.encode())  # other images for every data set
    return [
        _draw(layout, miniature, clip, own + seed * 1000 + k - (clip.target == 2))
        for k, clip in enumerate(miniature.clips)
    ]


def write_video_miniature(name: str, out: Path, seed: int = 0) -> Path:
    """Write the miniature of the data set ``name`` into ``out`` and return ``out``.

    Raises:
        ResourceError: ``out`` is not empty, or cannot be written.
    """
    layout, miniature = _layout(name), MINIATURES[name]
    with new_folder(out):
        for drawn in draw_miniature(name, seed):
            _Writer(out, layout, miniature, drawn).write()
        for split in layout.splits:
            names = [clip.name for clip in miniature.clips if clip.split == split.name]
            if split.listed and not split.indices and "{seq}" not in split.listed[0] and names:
                path = out / split.listed[0].replace("{split}", split.folders[0])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join(names) + miniature.list_end, encoding="utf-8")
        if layout.spans_file:
            spans = {layout.title: {clip.name: _span(clip) for clip in miniature.clips}}
            (out / layout.spans_file).write_text(json.dumps(spans, indent=4) + "\n", encoding="utf-8")
    return out


def _layout(name: str) -> Layout:
    return NFS_ORIGINAL if name == "nfs-original" else videos()[name]


def _span(clip: MiniatureClip) -> dict[str, int | str]:
    """Return the images of a sequence as got10k's toolkit lists them."""
    first = clip.start or 1
    return {"start_frame": first, "end_frame": first + clip.frames - 1, "folder_name": clip.folder or clip.name}


def _draw(layout: Layout, miniature: Miniature, clip: MiniatureClip, seed: int) -> DrawnSequence:
    made = _synthesize(seed, clip)
    frames = [frame.copy() for frame in made.frames]
    boxes = made.boxes if clip.target < 2 or made.distractor_boxes is None else made.distractor_boxes
    boxes = boxes.copy()
    for t in clip.hidden:  # a gray area covers the target
        x, y, w, h = boxes[t]
        frames[t][max(0, int(y) - 1) : int(y + h) + 2, max(0, int(x) - 1) : int(x + w) + 2] = 128
    if clip.edge is not None:  # the image moves to the left until the target touches the edge
        columns = np.arange(SIZE[0]) + int(boxes[clip.edge, 0])
        frames[clip.edge][:] = frames[clip.edge][:, np.minimum(columns, SIZE[0] - 1)]
        boxes[clip.edge, 0] = 0.0
    boxes = np.round(boxes, miniature.decimals)
    absent = np.zeros(clip.frames, dtype=bool)
    absent[list(clip.hidden)] = True
    if not clip.boxed:
        boxes[absent] = np.nan if miniature.absent_as == "nan" else 0.0
    if clip.flat is not None:
        boxes[clip.flat, 2] = 0.0
        absent[clip.flat] |= layout.absent_box == "flat"
    flags = np.random.default_rng([seed, 7]).random(len(layout.attributes)) < 0.3
    visible = np.random.default_rng([seed, 8]).integers(3, 9, clip.frames)
    withheld = next(split for split in layout.splits if split.name == clip.split).withheld
    rows = 1 if withheld else clip.frames
    annotation = sequences.Sequence(
        name=clip.name,
        source=Path(),
        files=(),
        boxes=boxes[:rows],
        absent=absent[:rows],
        sentence="" if clip.empty_sentence else _sentence(layout, made.sentence),
        attributes=tuple(name for name, flag in zip(layout.attributes, flags, strict=True) if flag),
        cover=np.where(absent, 0.0, visible) if layout.cover and not withheld else None,
    )
    if clip.gray:
        frames = [np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for frame in frames]
    return DrawnSequence(clip=clip, frames=frames, annotation=annotation)


def _synthesize(seed: int, clip: MiniatureClip) -> SyntheticClip:
    """Return the first clip from ``seed`` on without absence, and with a distractor if that is a target."""
    for number in range(100):
        made = synthesize_clip(seed + 100_003 * number, clip.frames, SIZE)
        if not made.absent.any() and (not clip.target or made.distractor_boxes is not None):
            return made
    raise ValueError(f"No clip without absence in a hundred from seed {seed}.")  # one in two is


def _sentence(layout: Layout, sentence: str) -> str:
    """Return the sentence in a form that the layout's files can hold."""
    if not layout.sentence:
        return ""
    if layout.sentence_form == "meta":
        return f"thing figure {sentence.split()[-1]} gliding slowly"
    return f"{sentence}, moving over a textured ground"


class _Writer:
    """Writer of one sequence by its layout."""

    def __init__(self, out: Path, layout: Layout, miniature: Miniature, drawn: DrawnSequence) -> None:
        self.out, self.layout, self.miniature, self.drawn = out, layout, miniature, drawn
        clip = drawn.clip
        folder = next(split.folders[0] for split in layout.splits if split.name == clip.split)
        stem, _, number = clip.name.rpartition("-")
        self._fields = {
            "seq": clip.folder if clip.name in layout.aliases and not clip.alternative else clip.name,
            "stem": stem or clip.name,
            "k": number,
            "split": folder.replace("*", clip.name[-1]),
            "part": folder,
            "folder": clip.folder or clip.name,
        }

    def write(self) -> None:
        """Write all files of the sequence."""
        layout, drawn = self.layout, self.drawn
        self._write_images()
        self._write_boxes()
        if len(drawn.annotation.boxes) == len(drawn.frames):
            for number, flags in enumerate(layout.flags):
                self._write_flags(flags, last=number == len(layout.flags) - 1)
        if drawn.annotation.cover is not None:
            self._write(layout.cover, "".join(f"{int(value)}\n" for value in drawn.annotation.cover))
        if layout.attribute_files:
            values = [str(int(name in drawn.annotation.attributes)) for name in layout.attributes]
            text = ("\n" if self.miniature.attribute_lines else ",").join(values) + "\n"
            self._write(layout.attribute_files, text, official=True)
        for pattern, line, each in self.miniature.extras:
            self._write((pattern,), f"{line}\n" * (len(drawn.frames) if each else 1))
        if layout.sentence:
            self._write_sentence()

    def _path(self, patterns: Patterns, alternative: int = 0, *, official: bool = False) -> Path:
        """Return where a file goes; ``official``: under the sequence's name, not that of its folder."""
        pattern = next((p for p in patterns if f"_{self.drawn.clip.split}/" in p), patterns[alternative])
        path = self.out / pattern.format_map(self._fields | ({"seq": self.drawn.clip.name} if official else {}))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write(self, patterns: Patterns, text: str, alternative: int = 0, *, official: bool = False) -> None:
        self._path(patterns, alternative, official=official).write_text(text, encoding="utf-8")

    def _write_images(self) -> None:
        clip, layout = self.drawn.clip, self.layout
        folder = self._path(layout.frames, clip.alternative if clip.folder else 0)
        folder.mkdir(exist_ok=True)
        first = clip.start if clip.start is not None else 1 if layout.first is None else layout.first
        frames = self.drawn.frames + self.drawn.frames[-1:] * clip.more_images
        for number, frame in enumerate(frames, first):
            write_image(folder / f"{number:0{self.miniature.digits}d}{clip.suffix}", frame)

    def _write_boxes(self) -> None:
        clip, rows, boxes = self.drawn.clip, self.layout.rows, self.drawn.annotation.boxes
        boxes = np.concatenate([boxes, boxes[-1:].repeat(clip.more_rows, axis=0)]).repeat(rows.rate, axis=0)
        if rows.corners:
            boxes[:, 2:] += boxes[:, :2]
        separator, decimals = self.miniature.separator, self.miniature.decimals
        lines = [separator.join(f"{value:.{decimals}f}" for value in box).replace("nan", "NaN") for box in boxes]
        if rows.lost is not None:  # id box frame lost occluded generated "label"
            lost = self.drawn.annotation.absent.repeat(rows.rate).astype(int)
            lines = [f'0 {line} {t} {lost[t]} 0 0 "thing"' for t, line in enumerate(lines)]
        self._write(self.layout.boxes, "\n".join(lines) + "\n", clip.alternative)

    def _write_flags(self, files: Patterns, *, last: bool) -> None:
        """Write flags: hidden frames with a box go to the first file of flags, those without to the last."""
        clip = self.drawn.clip
        mine = len(self.layout.flags) == 1 or last != clip.boxed
        absent = self.drawn.annotation.absent
        flags = absent & np.isin(np.arange(len(absent)), clip.hidden) & mine
        flags = np.concatenate([flags, flags[-1:].repeat(clip.more_rows)])
        values = [str(int(flag)) for flag in flags]
        self._write(files, ",".join(values) if self.miniature.flag_line else "\n".join(values) + "\n")

    def _write_sentence(self) -> None:
        files, sentence = self.layout.sentence, self.drawn.annotation.sentence
        if self.layout.sentence_form == "meta":
            meta = dict(zip(META_KEYS, sentence.split(), strict=True))
            lines = [f"{key}: {value}" for key, value in reversed(meta.items())]
            lines += [f"resolution: ({SIZE[0]}, {SIZE[1]})", "anno_fps: 10Hz"]
            self._write(files, "[METAINFO]\n" + "\n".join(lines) + "\n")
        elif self.layout.sentence_form == "sheet":
            rows = [[f"column {k}" for k in range(15)], ["-"] * 14 + [sentence]]
            self._path(files).write_bytes(sheet_bytes(rows))
        else:
            self._write(files, f"{sentence}\n" if sentence else "", official=True)


# -- a table as .xlsx ----------------------------------------------------------------------------------------

_SCHEMAS = "http://schemas.openxmlformats.org"
_OFFICE = f"{_SCHEMAS}/officeDocument/2006/relationships"
_SHEET = f'xmlns="{_SCHEMAS}/spreadsheetml/2006/main"'
_PARTS = "application/vnd.openxmlformats-officedocument.spreadsheetml"


def _links(kind: str, target: str) -> str:
    link = f'<Relationship Id="rId1" Type="{_OFFICE}/{kind}" Target="{target}"/>'
    return f'<Relationships xmlns="{_SCHEMAS}/package/2006/relationships">{link}</Relationships>'


_WORKBOOK = {
    "[Content_Types].xml": f'<Types xmlns="{_SCHEMAS}/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_PARTS}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_PARTS}.worksheet+xml"/></Types>',
    "_rels/.rels": _links("officeDocument", "xl/workbook.xml"),
    "xl/_rels/workbook.xml.rels": _links("worksheet", "worksheets/sheet1.xml"),
    "xl/workbook.xml": f'<workbook {_SHEET} xmlns:r="{_OFFICE}"><sheets>'
    '<sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
}


def sheet_bytes(rows: Sequence[Sequence[str]]) -> bytes:
    """Return an .xlsx file with these rows of text in one sheet; the same rows give the same bytes."""
    lines = ""
    for number, row in enumerate(rows, 1):
        cells = (
            f'<c r="{chr(ord("A") + k)}{number}" t="inlineStr"><is><t>{escape(v)}</t></is></c>'
            for k, v in enumerate(row)
        )
        lines += f'<row r="{number}">{"".join(cells)}</row>'
    sheet = f"<worksheet {_SHEET}><sheetData>{lines}</sheetData></worksheet>"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (_WORKBOOK | {"xl/worksheets/sheet1.xml": sheet}).items():
            entry = zipfile.ZipInfo(name)  # without a time
            archive.writestr(entry, f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>{text}')
    return buffer.getvalue()

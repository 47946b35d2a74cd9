"""Damaged, hostile and foreign annotations: one sentence that names the place, the right class, bounded work."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vltrack
from vltrack.core.errors import DataError, UsageError, VltrackError
from vltrack.formats import FORMATS, detect
from vltrack.formats.base import MAX_ROWS, Clip

BOX = '<box frame="{0}" outside="{1}" occluded="0" keyframe="{2}" xtl="{3}" ytl="20" xbr="{4}" ybr="60" z_order="0"/>'


def cvat(*boxes: str, head: str = "", label: str = "car") -> str:
    track = f'<track id="3" label="{label}" source="manual">{"".join(boxes)}</track>'
    return f'<?xml version="1.0"?>{head}<annotations><version>1.1</version>{track}</annotations>'


def box(frame: object, left: float = 10, *, outside: int = 0, keyframe: int = 1) -> str:
    return BOX.format(frame, outside, keyframe, left, left + 30)


def coco(**changes: Any) -> dict[str, Any]:
    images = [{"id": n, "video_id": 1, "frame_index": n, "file_name": f"{n}.jpg"} for n in range(4)]
    annotation = {"id": 1, "image_id": 2, "track_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4]}
    return {
        "videos": [{"id": 1, "name": "v"}],
        "images": images,
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "dog"}],
    } | changes


def studio(*sequence: dict[str, Any], **value: Any) -> list[dict[str, Any]]:
    region = {"original_width": 200, "original_height": 100, "value": {"sequence": list(sequence), **value}}
    return [{"data": {"video": "v.mp4"}, "annotations": [{"result": [region]}]}]


def key(frame: object, x: float = 10, **more: Any) -> dict[str, Any]:
    return {"frame": frame, "x": x, "y": 10, "width": 20, "height": 30, "enabled": True, "rotation": 0, **more}


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def voc(*objects: str) -> str:
    named = (
        f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
        for name, box in zip(objects[::2], objects[1::2], strict=True)
    )
    return f"<annotation><size><width>640</width><height>360</height></size>{''.join(named)}</annotation>"


CORNERS = "<xmin>1</xmin><ymin>2</ymin><xmax>31.5</xmax><ymax>42</ymax>"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a1.xml": voc("car", CORNERS, "car", CORNERS)}, "two objects 'car'"),
        ({"a1.xml": voc("car", "<xmin>1</xmin>")}, "not four numbers"),
        ({"a1.xml": voc("car", CORNERS.replace("42", "nan"))}, "not finite"),
        ({"a1.xml": voc("car", CORNERS), "b1.xml": voc()}, "2 videos: a, b"),
        ({"a1.xml": voc("car", CORNERS), "a01.xml": voc()}, "two files of frame 0"),
        ({"a0.xml": voc("car", CORNERS)}, "not a number from 0"),
        ({"a1.xml": voc()}, "no box"),
        ({"a1.xml": "<annotations></annotations>"}, "begins with <annotations>"),
        ({"a1.xml": "<annotation>"}, "line 1 is not XML"),
        ({"a1.xml": "<!DOCTYPE a [<!ENTITY b 'c'>]>" + voc("car", CORNERS)}, "document type"),
        ({"a1.xml": "<annotation>" + "<a>" * 70}, "nested too deeply"),
        ({"a1.xml": voc("car", CORNERS) + " " * (4 << 20)}, "a1.xml"),
    ],
)
def test_damage_of_pascal_voc_is_named(files: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        vltrack.read_tracks(tmp_path, format="voc")


def test_pascal_voc_of_other_programs_is_read(tmp_path: Path) -> None:
    """Parts have a box of their own; a frame without an object says that it is absent."""
    part = "<part><name>wheel</name><bndbox><xmin>9</xmin></bndbox></part>"
    (tmp_path / "img_0001.xml").write_text(voc("car", CORNERS, "dog", CORNERS).replace("</object>", f"{part}</object>"))
    (tmp_path / "img_0002.xml").write_text(voc("dog", CORNERS))
    tracks = vltrack.read_tracks(tmp_path)
    assert tracks["car"].boxes.tolist() == [[1, 2, 30.5, 40]] * 2
    assert tracks["car"].visible.tolist() == [True, False]
    assert tracks["dog"].visible.all()
    assert (tracks["car"].meta["width"], tracks["car"].meta["height"], tracks["car"].meta["format"]) == (
        640,
        360,
        "voc",
    )


def test_cvat_shows_boxes_as_cvat_does(tmp_path: Path) -> None:
    """Keyframes 0, 4; outside from 6 on; back in 9; the file lists some boxes between that are not keyframes."""
    text = cvat(
        box(0, 10), box(2, 999, keyframe=0), box(4, 30), box(6, 30, outside=1), box(9, 50), box(11, 50, outside=1)
    )
    track = vltrack.read_tracks(write(tmp_path, "a.xml", text))["car"]
    assert track.indices.tolist() == list(range(12))
    assert np.flatnonzero(~track.visible).tolist() == [6, 7, 8, 11]
    assert track.boxes[track.visible][:, 0].tolist() == [10, 15, 20, 25, 30, 30, 50, 50]
    assert track.boxes[6].tolist() == track.boxes[5].tolist()  # held while absent
    assert track.meta["marks"] == [
        {"frame": 0, "box": [10, 20, 30, 40]},
        {"frame": 4, "box": [30, 20, 30, 40]},
        {"frame": 6, "absent": True},
        {"frame": 9, "box": [50, 20, 30, 40]},
        {"frame": 11, "absent": True},
    ]


def test_label_studio_shows_boxes_as_label_studio_does(tmp_path: Path) -> None:
    """The frame of a keyframe that is not enabled is the last one with the target."""
    data = studio(key(1, 10), key(5, 50, enabled=False), key(8, 20), framesCount=10, duration=0.5, labels=["dog"])
    track = vltrack.read_tracks(write(tmp_path, "a.json", data))["dog"]
    assert track.indices.tolist() == list(range(10))
    assert np.flatnonzero(~track.visible).tolist() == [5, 6]
    assert track.boxes[:5, 0].tolist() == [20, 40, 60, 80, 100]
    assert track.boxes[8].tolist() == [40, 10, 40, 30]
    assert track.seconds[4] == pytest.approx(4 / 20)


def test_youtube_vis_and_sparse_images_of_coco(tmp_path: Path) -> None:
    part = {"id": 7, "video_id": 1, "category_id": 1, "bboxes": [None, [1, 2, 3, 4], None, [2, 2, 3, 4]]}
    videos = [{"id": 1, "file_names": ["a/0.jpg", "a/1.jpg", "a/2.jpg", "a/3.jpg"], "width": 50, "height": 40}]
    found = vltrack.read_tracks(write(tmp_path, "ytvis.json", coco(images=[], videos=videos, annotations=[part])))
    assert found["dog"].visible.tolist() == [True, False, True]
    assert found["dog"].indices.tolist() == [1, 2, 3]
    assert "marks" not in found["dog"].meta
    images = [{"id": n, "video_id": 1, "frame_index": 30 * n + n // 3} for n in range(4)]
    track = vltrack.read_tracks(write(tmp_path, "tao.json", coco(images=images)))["dog"]
    assert track.indices.tolist() == [60, 91]
    assert track.meta["marks"] == [{"frame": 60, "box": [1, 2, 3, 4]}]


def test_two_targets_of_one_class_get_their_numbers(tmp_path: Path) -> None:
    text = cvat(box(0)).replace("</annotations>", f'<track id="8" label="car">{box(1)}</track></annotations>')
    assert list(vltrack.read_tracks(write(tmp_path, "a.xml", text))) == ["car-3", "car-8"]


BOMB = '<!DOCTYPE a [<!ENTITY x "yyyyyyyyyy"><!ENTITY z "&x;&x;">]>'
DAMAGED: list[tuple[str, str, object, str]] = [
    ("cvat", "a.xml", cvat(box(0), head=BOMB), "document type"),
    ("cvat", "a.xml", cvat(box(0), head='<!DOCTYPE a SYSTEM "file:///etc/hostname">'), "document type"),
    ("cvat", "a.xml", cvat(box(0))[:150], "not XML"),
    ("cvat", "a.xml", "<annotation><object/></annotation>", "<annotation>"),
    ("cvat", "a.xml", '<annotations><image id="0" name="a.jpg"><box/></image></annotations>', "CVAT for images"),
    ("cvat", "a.xml", cvat(box(0), '<polygon frame="1" points="1,2;3,4"/>'), "polygon"),
    ("cvat", "a.xml", cvat(box("x")), "frame 'x'"),
    ("cvat", "a.xml", cvat(box(-1)), "frame '-1'"),
    ("cvat", "a.xml", cvat(box(10**12)), "frame '1000000000000'"),
    ("cvat", "a.xml", cvat(box(0), box(0)), "two keyframes"),
    ("cvat", "a.xml", cvat(box(0).replace('xbr="40"', 'xbr="nan"')), "not finite"),
    ("cvat", "a.xml", cvat(box(0).replace('xbr="40"', 'xbr="1"')), "no size"),
    ("cvat", "a.xml", cvat(box(0).replace('xbr="40"', "")), "four numbers"),
    ("cvat", "a.xml", cvat(box(0).replace("/>", ' rotation="30"/>')), "rotated"),
    ("cvat", "a.xml", cvat(box(0).replace("/>", ' rotation="x"/>')), "rotated"),
    ("cvat", "a.xml", cvat(), "no box"),
    ("cvat", "a.xml", "<annotations>" + "<a>" * 100 + "</a>" * 100 + "</annotations>", "nested"),
    ("coco", "a.json", coco(annotations=[{"id": 1, "image_id": 2, "bbox": [1, 2, 3, 4]}]), "instance_id"),
    ("coco", "a.json", coco(annotations=3), "not COCO"),
    ("coco", "a.json", coco(annotations=[]), "no box"),
    ("coco", "a.json", coco(videos=[]), "0 videos"),
    ("coco", "a.json", coco(videos=[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]), "2 videos: a, b"),
    ("coco", "a.json", coco(images=[{"id": 2, "video_id": 1, "frame_index": 1.5}]), "frame '1.5'"),
    ("coco", "a.json", json.dumps(coco()).replace("[1, 2, 3, 4]", "[1, 2, NaN, 4]"), "JSON"),
    ("coco", "a.json", coco(annotations=[{"image_id": 2, "track_id": 1, "bbox": [1, 2, 3]}]), "four numbers"),
    ("label-studio", "a.json", studio(key(0)), "frame '0'"),
    ("label-studio", "a.json", studio(key(1, rotation=20)), "rotated"),
    ("label-studio", "a.json", studio({"frame": 1}), "lacks 'x'"),
    ("label-studio", "a.json", [{"data": {"video": "v"}, "annotations": [{"result": []}]}], "no region"),
    ("label-studio", "a.json", studio(key(1)) * 2, "2 tasks"),
    ("mot", "a.txt", "1,1,5,5,10\n", "frame,id"),
    ("mot", "a.txt", "0,1,5,5,10,10,1\n", "frame '0.0'"),
    ("mot", "a.txt", "1,1,5,5,10,10\n1,1,5,5,10,10\n", "two boxes"),
    ("mot", "a.txt", "1,1,5,5,ten,10\n", "a.txt:1"),
    ("mot", "a.txt", "", "no box"),
    ("vot", "a.txt", "1,2,3,4\nm3,4,5\n", "mask"),
    ("vot", "a.txt", "1,2,3,4\n1,2,3\n", "a.txt:2"),
    ("lasot", "a/groundtruth.txt", "1,2,inf,4\n", "not finite"),
    ("lasot", "b/nlp.txt", "the dog\n", "groundtruth.txt"),
    ("yolo", "a/labels/frame_000000.txt", "0 0.5 0.5 20 0.1\n", "shares"),
    ("yolo", "a/labels/frame_000000.txt", "0 0.5 0.5 0.2 0.1\n0 0.1 0.5 0.2 0.1\n", "identity"),
    ("yolo", "a/labels/frame_000000.txt", "0 0.5 0.5 0.2\n", "class cx cy w h"),
]


@pytest.mark.parametrize(("name", "file", "content", "said"), DAMAGED)
def test_damage_is_named(name: str, file: str, content: object, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, file, content)
    folder = path.parent if name == "lasot" else path.parents[1] if name == "yolo" else path
    with pytest.raises(DataError) as caught:
        FORMATS[name].read(folder, Clip(width=640, height=480))
    assert said in caught.value.message
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_rows_are_bounded(tmp_path: Path) -> None:
    tracks = [f'<track id="{n}" label="a">{box(0)}{box(MAX_ROWS - 1)}</track>' for n in range(3)]
    path = write(tmp_path, "a.xml", f"<annotations>{''.join(tracks)}</annotations>")
    with pytest.raises(DataError, match=r"6,000,000 rows"):
        vltrack.read_tracks(path)


def test_flags_of_another_length(tmp_path: Path) -> None:
    write(tmp_path, "s/groundtruth.txt", "1,2,3,4\n1,2,3,4\n")
    write(tmp_path, "s/full_occlusion.txt", "0,1,1\n")
    with pytest.raises(DataError, match="3 values for 2 frames"):
        vltrack.read_tracks(tmp_path / "s")


def test_several_videos_are_not_several_targets(tmp_path: Path) -> None:
    for name in ("dog-1", "dog-2"):
        write(tmp_path, f"{name}/groundtruth.txt", "1,2,3,4\n")
        write(tmp_path, f"{name}/nlp.txt", "the dog\n")
        (tmp_path / name / "img").mkdir()
    with pytest.raises(DataError, match="2 sequences"):
        vltrack.read_tracks(tmp_path)


def test_what_is_ambiguous_names_the_choices(tmp_path: Path) -> None:
    write(tmp_path, "s/groundtruth.txt", "1,2,3,4\n")
    with pytest.raises(UsageError, match="may be lasot, got10k or vot") as caught:
        detect(tmp_path / "s")
    assert "--from" in caught.value.hint
    assert len(vltrack.read_tracks(tmp_path / "s", format="vot")["s"]) == 1


@pytest.mark.parametrize(
    "content", ["hello\n", "", "a,b\n1,2\n", "[1, 2]", '{"a": 1}', "0 0.5 0.5 0.1 0.1\n", "\x00\x01"]
)
def test_what_is_in_no_format_says_which_there_are(content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the formats") as caught:
        detect(write(tmp_path, "a.bin", content))
    assert "cvat" in caught.value.message


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "no", tmp_path):
        with pytest.raises(VltrackError):
            vltrack.read_tracks(path)
    with pytest.raises(DataError, match="single images"):
        detect(write(tmp_path, "a.json", {"images": [{}], "annotations": [{}]}))


def test_sizes_that_are_missing_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "y/labels/clip_1.txt", "0 0.5 0.5 0.2 0.1\n")
    with pytest.raises(UsageError, match="size of the frame"):
        vltrack.read_tracks(tmp_path / "y")
    track = FORMATS["yolo"].read(tmp_path / "y", Clip(width=100, height=200))["0"]
    assert track.indices.tolist() == [0]  # Ultralytics counts from 1
    np.testing.assert_allclose(track.boxes, [[40, 90, 20, 20]])


GOOD = {
    "cvat": ("a.xml", cvat(box(0), box(3), box(5, outside=1))),
    "coco": ("a.json", json.dumps(coco())),
    "label-studio": ("a.json", json.dumps(studio(key(1), key(4, enabled=False), framesCount=9, duration=1.5))),
    "mot": ("a.txt", "1,1,5,5,10,10,1,1,1\n2,1,5,5,10,10,0.5,1,1\n"),
    "vot": ("a.txt", "1,2,3,4\n0\n1,2,3,4,5,6,7,8\n"),
}
PARTS = ["", "0", "-1", "1e999", "nan", '"', "<", "&x;", ",", "null", "[]", "{}", "\n", "\x00", "9" * 30, "true", "id"]


@pytest.mark.parametrize("name", GOOD)
@settings(max_examples=150, deadline=None)
@given(at=st.floats(0, 1), length=st.integers(0, 12), part=st.sampled_from(PARTS))
def test_no_change_of_a_file_is_a_crash(name: str, at: float, length: int, part: str) -> None:
    file, text = GOOD[name]
    place = int(at * len(text))
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), file, text[:place] + part + text[place + length :])
        try:
            found = FORMATS[name].read(path, Clip(width=640, height=480))
        except DataError:
            return
        assert all(track.visible.any() for track in found.values())

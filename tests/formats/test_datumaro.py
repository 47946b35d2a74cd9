"""What we write for CVAT, COCO and MOTChallenge is what an independent reader, Datumaro, finds in it; what it writes is
what we read. And parquet, with pandas of the same environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_round_trips import CLIP, make, seen

import vltrack
from vltrack.formats import FORMATS

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(1500)]

PACKAGES = ("datumaro==1.13.12", "pandas", "pyarrow")
LIST = """
import datumaro, json, logging, sys
logging.disable(logging.WARNING)
found = datumaro.Dataset.import_from(sys.argv[1], sys.argv[2])
if len(sys.argv) > 3:
    found.export(sys.argv[3], sys.argv[4])
names = [one.name for one in found.categories()[datumaro.AnnotationType.label].items]
rows = [
    [item.id, names[one.label], [one.x, one.y, one.w, one.h], one.attributes]
    for item in found for one in item.annotations
]
print(json.dumps({"items": len(list(found)), "rows": rows}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with Datumaro, of which ``VLTRACK_DATUMARO_VENV`` names a folder that is kept."""
    home = Path(os.environ.get("VLTRACK_DATUMARO_VENV", tmp_path_factory.mktemp("datumaro") / "venv"))
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True, capture_output=True)
    if subprocess.run([python, "-c", "import datumaro, pyarrow"], capture_output=True, check=False).returncode:
        command = [python, "-m", "pip", "install", "-q", "--retries", "1", *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"Datumaro cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture
def two() -> dict[str, vltrack.Track]:
    boxes = np.random.default_rng(5).uniform(5, 200, (20, 4)).round(2)
    visible = np.arange(20) % 7 != 3
    return {"car": make(boxes, visible), "dog": make(boxes[::-1], visible[::-1].copy(), np.arange(3, 23))}


def read(python: Path, *words: object) -> Any:
    command = [python, "-c", LIST, *map(str, words)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def check(rows: list[list[Any]], tracks: dict[str, vltrack.Track], first: int = 0) -> None:
    """The visible boxes are those of ``tracks``; the number in an item's name is its frame from ``first``."""
    for name, track in tracks.items():
        boxes = {int("".join(filter(str.isdigit, item))) - first: box for item, label, box, _ in rows if label == name}
        assert boxes.keys() == seen(track).keys()
        for frame, box in boxes.items():
            np.testing.assert_allclose(box, seen(track)[frame], atol=0.011)
    assert len(rows) == sum(int(track.visible.sum()) for track in tracks.values())


def test_cvat(python: Path, two: dict[str, vltrack.Track], tmp_path: Path) -> None:
    FORMATS["cvat"].write(two, tmp_path / "annotations.xml", CLIP)
    rows = read(python, tmp_path, "cvat")["rows"]
    check([row for row in rows if not row[3]["outside"]], two)
    outside = {(row[1], row[0]) for row in rows if row[3]["outside"]}
    assert outside == {("car", f"frame_{n:06d}") for n in (3, 10, 17, 20)} | {
        ("dog", f"frame_{n:06d}") for n in (5, 12, 19, 23)
    }
    assert {row[1]: row[3]["track_id"] for row in rows} == {"car": 0, "dog": 1}


def test_coco(python: Path, two: dict[str, vltrack.Track], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    FORMATS["coco"].write(two, tmp_path / "annotations" / "instances_default.json", CLIP)
    found = read(python, tmp_path, "coco_instances")
    assert found["items"] == CLIP.frames
    check([row for row in found["rows"] if "score" in row[3]], two)


def test_mot_both_ways(python: Path, two: dict[str, vltrack.Track], tmp_path: Path) -> None:
    FORMATS["mot"].write(two, tmp_path / "clip", CLIP)
    found = read(python, tmp_path / "clip", "mot_seq", tmp_path / "back", "mot_seq_gt")
    assert found["items"] == CLIP.frames
    check(found["rows"], two, first=1)
    assert {row[1]: row[3]["track_id"] for row in found["rows"]} == {"car": 1, "dog": 2}
    back = vltrack.read_tracks(tmp_path / "back")
    assert back.keys() == two.keys()
    for name, track in back.items():
        np.testing.assert_allclose(list(seen(track).values()), list(seen(two[name]).values()), atol=0.011)


def test_parquet(python: Path, two: dict[str, vltrack.Track], tmp_path: Path) -> None:
    vltrack.write_tracks(two, tmp_path / "a.csv")
    folders = [Path(np.__file__).parents[1], Path(vltrack.__file__).parents[1]]
    code = (
        f"import sys; sys.path += {list(map(str, folders))}\n"
        "import pandas, vltrack\n"
        "vltrack.convert('a.csv', 'a.parquet'); vltrack.convert('a.parquet', 'b.csv')\n"
        "print(list(pandas.read_parquet('a.parquet').columns))\n"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("['target', 'frame', 'seconds', 'x'")
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()

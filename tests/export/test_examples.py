"""The loop in C++ (examples/track.cpp) on exported graphs: the boxes of vltrack, nearly."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import vltrack
from vltrack.core.types import iou_xywh
from vltrack.video.source import open_source

ROOT = Path(__file__).resolve().parent.parent.parent
CLIP = Path(vltrack.__file__).parent / "clips" / "car-shadow.mp4"
BOX = (313, 88, 342, 194)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", ["litetrack-tiny", "sa-tracker-tiny"])
def test_the_loop_in_cpp_follows_the_target(model: str, tmp_path: Path) -> None:
    package = Path(str(find_spec("openvino").origin)).parent
    libraries = [str(path) for path in (package / "libs").glob("libopenvino.so.*")]
    if shutil.which("g++") is None or not (package / "include" / "openvino").is_dir() or not libraries:
        pytest.skip("no g++, or an openvino package without headers")
    program, source = str(tmp_path / "track"), str(ROOT / "examples" / "track.cpp")
    linked = [*libraries, f"-Wl,-rpath,{package / 'libs'}"]
    include = ["-isystem", str(package / "include")]
    subprocess.run(
        ["g++", "-std=c++17", "-O1", "-Wall", "-Werror", source, *include, *linked, "-o", program], check=True
    )
    graphs = vltrack.export_model(model, "onnx", tmp_path / "graphs").out
    with open_source(CLIP, end=15) as frames:
        images = [np.ascontiguousarray(frame.image) for frame in frames]
    height, width = images[0].shape[:2]
    words = [program, str(graphs), str(width), str(height), *map(str, BOX)]
    done = subprocess.run(words, input=b"".join(image.tobytes() for image in images), capture_output=True, check=True)
    found = np.array([line.split(",") for line in done.stdout.decode().splitlines()], dtype=float)
    wanted = vltrack.track(CLIP, model=graphs, box=BOX, end=15).boxes
    assert found.shape == wanted.shape
    assert iou_xywh(found, wanted).mean() > 0.75  # no penalty on changes of size, no smoothing

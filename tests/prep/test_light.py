"""What cheap checks need is imported without torch, tokenizers, PyAV or pyplot."""

from __future__ import annotations

import subprocess
import sys

import pytest

CORE = tuple(f"core.{name}" for name in ("errors", "files", "json_io", "torch_archive", "track", "types", "unpickle"))
PLOTS = ("plots.draw", "plots.contact_sheet", "plots.report")
CHECK = """
import sys
from importlib import import_module
for name in sys.argv[2:]:
    import_module("vltrack." + name)
sys.exit(", ".join(sorted(set(sys.argv[1].split()) & set(sys.modules))) or 0)
"""


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ((*CORE, *PLOTS, "metrics.success", "prep.prompts"), "torch tokenizers av matplotlib.pyplot safetensors"),
        (CORE, "cv2 matplotlib"),
        (("prep.prompts", "prep.crops"), "matplotlib"),
        (("checkpoints.cards", "cli.main", "api.track"), "torch tokenizers av cv2 matplotlib rich onnx openvino"),
        (("tracking.tracker", "nn.runtime"), "torch av matplotlib safetensors onnx onnxruntime openvino"),
    ],
)
def test_imports_are_light(modules, heavy) -> None:
    done = subprocess.run([sys.executable, "-c", CHECK, heavy, *modules], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

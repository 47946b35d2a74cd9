"""What cheap checks need is imported without torch, tokenizers, PyAV or pyplot."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = (
    "core.boxes",
    "core.errors",
    "core.files",
    "core.text",
    "core.track",
    "core.types",
    "metrics.success",
    "prep.crops",
    "prep.prompts",
    "plots.pen",
    "plots.overlay",
    "plots.sheet",
    "plots.curves",
    "plots.report_page",
)
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
        (LIGHT, "torch tokenizers av matplotlib.pyplot safetensors"),
        (LIGHT[:6], "cv2 matplotlib"),
        (("prep.prompts", "prep.crops"), "matplotlib"),
        (("plots.overlay", "plots.sheet"), "matplotlib"),
    ],
)
def test_imports_are_light(modules, heavy) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK, heavy, *modules], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr

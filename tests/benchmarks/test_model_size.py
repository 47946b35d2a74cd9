"""The script prints and writes the counted sizes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from vltrack.models import MODELS
from vltrack.models.profile import count_parameters, without_memory

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "model_size.py"


def test_the_table_is_printed_and_written(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "litetrack-tiny", "--out", tmp_path], capture_output=True, text=True, check=True
    )
    size = count_parameters(without_memory(MODELS["litetrack"], "tiny"))
    written = (tmp_path / "model_size.md").read_text()
    assert written.strip() == done.stdout.strip()
    rows = [line for line in written.splitlines() if line.startswith("| litetrack")]
    assert len(rows) == 1
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert cells[:3] == ["litetrack-tiny", f"{size.total / 1e6:.3f} M", f"{size.trainable / 1e6:.3f} M"]
    assert all(cell.endswith(" G") for cell in cells[4:])

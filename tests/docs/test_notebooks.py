"""The notebooks of ``examples``: valid, without outputs, and (slow) every cell runs."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import typer

from vltrack.cli import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_whole(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert cells[0]["cell_type"] == "markdown"
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        assert (cell["outputs"], cell["execution_count"]) == ([], None), "clear the outputs before you save"
        source = "".join(cell["source"])
        ast.parse(re.sub(r"^!.*$", "", source, flags=re.MULTILINE))
        for line in re.findall(r"^!vltrack (.*)$", source, re.MULTILINE):
            verb, *words = shlex.split(line)
            command = typer.main.get_command(main.build(verb)).commands[verb]
            while isinstance(command, typer.core.TyperGroup):
                command = command.commands[words.pop(0)]
            command.make_context(line, words)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason='pip install "vltrack[notebooks]"')
    nbformat = pytest.importorskip("nbformat")
    for package in ("ipykernel", "pandas"):
        pytest.importorskip(package, reason='pip install "vltrack[notebooks]"')
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    lines = [one for cell in notebook.cells for one in cell.get("outputs", ()) if one.get("name") == "stdout"]
    assert not any("error[" in str(one["text"]) for one in lines)

"""The notebooks: valid, without outputs, every cell compiles, every command is understood; and they run (slow)."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from test_commands import verb_of

from vltrack.checkpoints.cards import model_names

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
COMMAND = re.compile(r"^\s*!(.*)$", re.MULTILINE)
VARIABLE = re.compile(r"\{[^{}]*\}")


def cells(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def code(notebook: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code"]


def test_there_are_five() -> None:
    assert [notebook.name[:2] for notebook in NOTEBOOKS] == ["1_", "2_", "3_", "4_", "5_"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_saved_as_4_5_without_outputs(notebook: Path) -> None:
    document = json.loads(notebook.read_text(encoding="utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    assert set(document["metadata"]) == {"kernelspec", "language_info"}
    names = [cell["id"] for cell in document["cells"]]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[\w-]{1,64}", name) for name in names)
    for cell in document["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert set(cell) == {"cell_type", "id", "metadata", "source", "execution_count", "outputs"}
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
        else:
            assert set(cell) == {"cell_type", "id", "metadata", "source"} and cell["cell_type"] == "markdown"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_top_says_what_it_needs_and_where_it_writes(notebook: Path) -> None:
    first, folder = "".join(cells(notebook)[0]["source"]), "notebook-output/"
    assert "**Needs**" in first and "pip install" in first and "**Takes**" in first and folder in first
    for text in code(notebook):
        for path in re.findall(r"(?:Path\(|%%writefile )\"?([\w/.-]+)", text):
            assert path.startswith(folder), path


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_compile_and_commands_are_understood(notebook: Path) -> None:
    lines = []
    for text in code(notebook):
        magic, _, rest = text.partition("\n")
        lines += [line for line in text.splitlines() if line.startswith("%")]
        lines += [line for line in COMMAND.findall(text)]
        plain = rest if magic.startswith("%%writefile ") else text
        compile(COMMAND.sub(lambda found: re.match(r"\s*", found[0])[0] + "pass", plain), notebook.name, "exec")
    assert any(line.startswith("vltrack ") for line in lines)
    for line in lines:
        if line.startswith("%"):
            assert re.fullmatch(r"%%writefile \S+\.py", line), line
            continue
        assert line.startswith("vltrack "), line
        line = line.replace('{",".join(map(str, boxes[0]))}', "1,2,3,4").replace('{" ".join(names)}', "a b")
        command, words = verb_of(VARIABLE.sub("value", line))
        command.make_context(line, words)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(model_names()["litetrack-tiny"] is None, reason="no weights in this checkout")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("nbclient", "nbformat", "ipykernel", "pandas"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'vltrack[notebooks]'")
    import nbclient
    import nbformat

    book = nbformat.read(notebook, as_version=4)
    nbformat.validate(book)
    for cell in book.cells:
        if "!vltrack" in cell.source:  # a command that fails does not fail its cell
            cell.source = COMMAND.sub(
                lambda found: f"{found[0]}\n{found[0].partition('!')[0]}assert _exit_code == 0", cell.source
            )
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "vltrack").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vltrack "$@"\n')
    (tools / "vltrack").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    work = tmp_path / "work"
    work.mkdir()
    place = {"metadata": {"path": str(work)}}
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=place).execute()
    assert [path.name for path in work.iterdir()] == ["notebook-output"]

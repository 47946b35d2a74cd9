"""The house itself: documents say what is there, nothing names a machine, imports go down only."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import vltrack
from vltrack.cli import main

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Folders that only exist on somebody's own machine; put together here so that this file does not name them.
MACHINE = re.compile(r"(?<![\w.~$}])/(?:" + "|".join(("work", "root", "home", "tmp", "Users", "mnt")) + r")/\w")


def tracked() -> list[Path]:
    """Files that git knows; all files of the working tree where there is no git."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout: the files that belong to the repository are not known")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data[:4096]:
            yield path, data.decode("utf-8", "replace")


def commands(document: Path) -> Iterator[list[str]]:
    """Every line of a code block that calls ``vltrack`` or ``make``, as words without the comment."""
    for block in re.findall(r"^```(?:\w*)\n(.*?)^```", document.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0].rpartition("/")[2] in ("vltrack", "make"):
                yield [words[0].rpartition("/")[2], *words[1:]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_exist(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for program, *words in commands(document):
        if program == "make":
            named = {word for word in words if re.fullmatch(r"[a-z-]+", word)}
            assert named <= targets, f"make {' '.join(words)}"
            continue
        verb = [word for word in words[:2] if re.fullmatch(r"[a-z][a-z-]*", word)]
        verb = verb if verb[:1] in (["data"], ["datasets"]) else verb[:1]
        assert main.main([*verb, "--help"]) == 0, words
        known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", capsys.readouterr().out))
        used = {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)}
        assert used <= known, f"vltrack {' '.join(words)}: {used - known}"


def test_readme_starts_with_the_two_commands() -> None:
    found = list(commands(ROOT / "README.md"))
    assert found[0] == ["make", "demo"]
    assert found[1][:2] == ["vltrack", "track"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_in_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (document.parent / target).exists(), target


def test_every_exit_code_is_in_the_documents() -> None:
    from vltrack.core import errors

    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| ([0-9, ]+) \|(.*)$", text, re.M))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    groups = {errors.InputError, errors.DataError, errors.ModelError}
    for kind in set(kinds) - groups:
        assert f"`{kind.__name__}`" in table[str(kind.exit_code)], kind.__name__


def test_no_file_names_a_machine() -> None:
    found = {str(path.relative_to(ROOT)): hit.group() for path, text in texts() if (hit := MACHINE.search(text))}
    assert found == {}


def test_no_file_is_large() -> None:
    large = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked() if path.stat().st_size > 13_000_000}
    assert large == {}


def test_sources_are_short_and_say_what_they_are() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith('"""'), path
        assert text.count("\n") <= 650, path


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == vltrack.__version__
    assert f"## {vltrack.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_clip_ships_with_its_card_and_attribution() -> None:
    clips = ROOT / "src" / "vltrack" / "clips"
    for card in clips.glob("*.json"):
        data = json.loads(card.read_text())
        assert (clips / data["file"]).stat().st_size < 1_500_000
        assert data["file"] in (clips / "README.md").read_text()
        assert data["file"] in (ROOT / "NOTICE").read_text()
        assert (ROOT / "examples" / data["file"]).samefile(clips / data["file"])


def test_weights_have_a_card_with_the_right_sum() -> None:
    from vltrack.core.files import sha256_of

    for file in (ROOT / "src" / "vltrack" / "weights").glob("*.safetensors"):
        card = json.loads(file.with_suffix(".json").read_text())
        assert card["sha256"] == sha256_of(file)


def test_import_contracts_hold() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_ci_runs_checks_and_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make check test" in script.read_text()


def test_the_ways_through_the_code_exist_and_are_short() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert 1 <= len(re.findall(r"^\d+\. ", text.partition("## One training step")[0], re.M)) <= 15
    places = re.findall(r"`([a-z_0-9/]+)\.py:([\w.]+)`", text)
    assert len(places) > 40
    for module, name in places:
        found: object = importlib.import_module("vltrack." + module.replace("/", "."))
        for part in name.split("."):
            found = getattr(found, part)


@pytest.mark.parametrize("tracker", ["litetrack", "all_in_one", "aitrack", "bit_tracker", "sa_tracker"])
def test_a_tracker_is_read_in_at_most_ten_files(tracker: str) -> None:
    waiting, read = [f"models/{tracker}"], set[str]()
    while waiting:
        read.add(module := waiting.pop())
        text = (ROOT / "src" / "vltrack" / f"{module}.py").read_text(encoding="utf-8")
        names = re.findall(r"^from vltrack\.((?:models|nn)\.\w+) import", text, re.M)
        waiting += [name.replace(".", "/") for name in names if name.replace(".", "/") not in read]
    assert len(read) <= 10

"""Every command and Python block of README and docs: parsed, and run in a folder of small files with those names."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer

import vltrack
from vltrack.api import inputs
from vltrack.checkpoints.cards import model_names
from vltrack.cli import main
from vltrack.datasets import catalogue
from vltrack.datasets.reader import open_dataset
from vltrack.datasets.synthetic import write_image
from vltrack.video.source import open_source
from vltrack.video.writer import VideoWriter

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "SECURITY.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
BLOCKS = [
    (str(page.relative_to(REPOSITORY)), language, body)
    for page in PAGES
    for language, body in re.findall(
        r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
]
COMMANDS = [
    (page, re.split(r"\s{2,}", line.removeprefix("$ ").removeprefix(".venv/bin/"))[0])
    for page, language, body in BLOCKS
    if not language
    for line in body.splitlines()
    if re.match(r"(\$ |\.venv/bin/)?vltrack (?!.*\.\.\. )", line)
]
INLINE = sorted(
    {
        (str(page.relative_to(REPOSITORY)), " ".join(words.split()))
        for page in PAGES
        for words in re.findall(r"`(vltrack [a-z][^`]*)`", page.read_text(encoding="utf-8"))
    }
)
LIMITS = {
    r"vltrack train": "--steps 1 --batch 2",
    r"vltrack audit .*--(data lasot|data my)": "--end 3 --limit 2",
    r"vltrack track": "--anyway",
    r"vltrack (compare|convert|correct|report|review|datasets convert)": "--overwrite",
}
"""Flags that make a command short; of a flag that is given twice the last counts."""
NO_SCRIPTS = {"docs/add-a-dataset.md", "docs/harnesses.md", "docs/phrases.md"}
"""Pages whose Python is a part of a file, or needs the got10k package or RefCOCO's images."""
OTHERWISE = {"find": (10,), "track": (10,), "audit": (7,)}
"""Exit codes of commands to which a video other than the page's, and so few frames, may lead."""
NOT_RUN = {
    r"/data|picodet_s|--size base": "needs data sets or weights of many gigabytes",
    r"vltrack studio": "serves until Ctrl-C; tests/serve runs it",
    r"import-weights|all-in-one-ostrack-base": "needs a published checkpoint; tests/checkpoints has such files",
    r"twins 40|ablate|train .*(--part twins|runs/[a-d]\b|pictures|--data images)": "minutes; tests/training runs it",
}


def verb_of(line: str) -> tuple[Any, list[str]]:
    """The verb of a command line, as typer knows it, and what follows it."""
    command, words = typer.main.get_command(main.build()), shlex.split(line)[1:]
    while words and isinstance(command, typer.core.TyperGroup):
        _, command, words = command.resolve_command(typer.Context(command), words)
    return command, list(words)


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value)
def test_commands_are_understood(page: str, line: str) -> None:
    command, words = verb_of(line)
    command.make_context(line, words)


@pytest.mark.parametrize(("page", "line"), INLINE, ids=lambda value: value)
def test_verbs_and_flags_in_the_text_exist(page: str, line: str) -> None:
    command, words = verb_of(line)
    if len(words) >= 3:  # shorter ones are fragments
        command.make_context(line, words)
    known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {"--help", "--"}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def test_names_of_the_package_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"`(vltrack(?:\.\w+)+(?::\w+)?)`", page.read_text(encoding="utf-8")):
            assert resolve_name(name) is not None


def test_files_of_the_repository_exist() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"python ((?:benchmarks|docs|examples)/\S+?\.py)", text):
            assert (REPOSITORY / name).is_file(), (page, name)
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), (page, link)


# -- run --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages name: clip.mp4, LaSOT, results/ATOM, ..."""
    folder = tmp_path_factory.mktemp("docs")
    with open_source(inputs.demo_clip()[0], end=4) as source:
        images = [frame.image for frame in source if frame.image is not None]
    with VideoWriter(folder / "clip.mp4", width=854, height=480, rate=0.2) as writer:
        for index, image in enumerate(images):
            writer.write(image, 5.0 * index)
    for place in (folder / "frames", folder / "clips" / "car" / "img"):
        place.mkdir(parents=True)
        for number, image in enumerate(images, 1):
            write_image(place / f"{number:05d}.jpg", image)
    for place in (folder, folder / "clips" / "car"):
        (place / "groundtruth.txt").write_text("313,88,342,194\n" * len(images))
    write_image(folder / "photo.jpg", images[0])
    (folder / "videos").mkdir()
    for name in ("first", "second"):
        shutil.copy(folder / "clip.mp4", folder / "videos" / f"{name}.mp4")
    (folder / "list.csv").write_text('video,text,box\nclip.mp4,the silver car,"313,88,342,194"\n')
    (folder / "marks.csv").write_text("car,0,313,88,342,194\ncar,3,absent\n")
    shutil.copytree(folder / "clips", folder / "my-clips")
    (folder / "my-clips" / "car" / "nlp.txt").write_text("the silver car\n")
    car = vltrack.read_tracks(folder / "my-clips" / "car", video=folder / "clip.mp4")
    vltrack.write_tracks(car, folder / "annotations.xml")
    vltrack.write_tracks(car, folder / "tracked.csv")
    for name in ("LaSOT", "lasot", "lasot_annotations", "tnl2k", "data/tnl2k", "data/lasot"):
        catalogue.write_miniature(Path(name).name.partition("_")[0].lower(), folder / name, 0)
    boxes = {sequence.name: sequence.boxes for sequence in open_dataset(folder / "LaSOT", split="test").sequences}
    (folder / "results" / "ATOM").mkdir(parents=True)
    for name, boxes_N4 in boxes.items():
        np.savetxt(folder / "results" / "ATOM" / f"{name}.txt", boxes_N4, "%g", ",")
    lens, names = [len(one) for one in boxes.values()], list(boxes)
    np.savez(folder / "results" / "SiamRPN++.npz", names=names, lens=lens, boxes=np.concatenate(list(boxes.values())))
    catalogue.write_miniature("refcoco", folder / "references", 0)
    shutil.copytree(folder / "references", folder, dirs_exist_ok=True)
    words = ["evaluate", folder / "results" / "ATOM", "--data", folder / "LaSOT", "--out", folder / "scored"]
    assert main.main([str(word) for word in words]) == 0
    for run in ("a", "b"):
        (folder / "runs" / run).mkdir(parents=True)
        shutil.copy(folder / "scored" / "ATOM" / "lasot" / "scores.json", folder / "runs" / run)
    (folder / "runs" / "mine").mkdir(parents=True)
    for kind in ("safetensors", "json"):
        shutil.copy(model_names()["litetrack-tiny"].with_suffix(f".{kind}"), folder / "runs" / "mine" / f"best.{kind}")
    return folder


def runs(page: str) -> Iterator[tuple[str, str]]:
    """The commands of a page as they are run, each with why it is not run, or nothing."""
    for one, line in COMMANDS:
        if one == page:
            limits = " ".join(flags for pattern, flags in LIMITS.items() if re.match(pattern, line))
            reason = next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, line)), "")
            yield f"{line} {limits}".strip(), reason


@pytest.mark.timeout(600)
@pytest.mark.skipif(model_names()["litetrack-tiny"] is None, reason="no weights in this checkout")
@pytest.mark.parametrize("page", sorted({page for page, _ in COMMANDS if any(not why for _, why in runs(page))}))
def test_commands_run(page: str, small_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(small_files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for one, language, body in BLOCKS:
        if (one, language) == (page, "python") and (name := re.match(r"# (\w+\.py)\n", body)):
            (tmp_path / name[1]).write_text(body)
    for line, reason in runs(page):
        if not reason:
            if "train" in line:
                shutil.rmtree("runs/mine")
            assert main.main(shlex.split(line)[1:]) in (0, *OTHERWISE.get(line.split()[1], ())), line


@pytest.mark.timeout(600)
@pytest.mark.skipif(model_names()["litetrack-tiny"] is None, reason="no weights in this checkout")
@pytest.mark.parametrize("page", sorted({page for page, language, _ in BLOCKS if language == "python"} - NO_SCRIPTS))
def test_python_blocks_run(page: str, small_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(small_files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    with open_source("clip.mp4") as source:
        first, following, *_ = [frame.image for frame in source]
    names = {"first_frame": first, "next_frame": following, "frame": first, "image": first, "vltrack": vltrack}
    # Packages that are not dependencies, with what the pages use of them.
    names["pandas"] = SimpleNamespace(DataFrame=lambda rows, **_: list(rows))
    monkeypatch.setitem(sys.modules, "pandas", names["pandas"])
    detections = type("Detections", (SimpleNamespace,), {"empty": staticmethod(list)})
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=detections))
    for one, language, body in BLOCKS:
        if (one, language) == (page, "python"):
            exec(compile(body, page, "exec"), names)  # noqa: S102

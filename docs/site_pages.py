"""What the site makes from code: the pages of commands and changes, links out of ``docs``, names in docstrings.

The functions are hooks of mkdocs, the class is an extension of griffe, which reads the docstrings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe
import typer
from mkdocs.structure.files import File

from vltrack.cli import main

ROOT = Path(__file__).resolve().parent.parent


def commands() -> str:
    """The help of every verb, as the command prints it."""
    group: Any = typer.main.get_command(main.build())
    root = typer.Context(group, info_name="vltrack", terminal_width=100, max_content_width=100)
    lines = ["# Commands", "", "What `vltrack VERB --help` prints.", ""]
    for name in group.list_commands(root):
        command = group.get_command(root, name)
        parts = {f"vltrack {name}": command}
        if isinstance(command, typer.core.TyperGroup):
            if name == "data":
                continue  # another name of datasets
            parts = {f"vltrack {name} {one}": command.get_command(root, one) for one in command.list_commands(root)}
        for title, one in parts.items():
            context = typer.Context(one, info_name=title, terminal_width=100, max_content_width=100)
            lines += [f"## {title}", "", "```text", one.get_help(context).replace("\b", "").strip(), "```", ""]
    return "\n".join(lines)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not files of ``docs``."""
    files.append(File.generated(config, "commands.md", content=commands()))
    files.append(File.generated(config, "changelog.md", content=(ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are in the repository: to the README is to the start page, to other files outside is their name."""
    source = page.file.src_uri
    if source == "changelog.md":
        return re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", _outside(markdown))
    return _outside(markdown.replace("](../README.md#layout)", "](architecture.md)"))


def _outside(markdown: str) -> str:
    """Links to ``benchmarks`` and ``examples`` as text: the site has no copy of them."""
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)*((?:benchmarks|examples|src)[^)]*)\)", r"\1 (`\2`)", markdown)


class JointNames(griffe.Extension):
    """Gives each of several names that a docstring explains together, ``start, end: ...``, a line of its own."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        if func.docstring is not None:
            func.docstring.value = re.sub(
                r"^( +)(\w+(?:, \w+)+): (?=\S)", _apart, func.docstring.value, flags=re.MULTILINE
            )


def _apart(found: re.Match[str]) -> str:
    """The last name has the text, the others point to it. Names of errors stay as they are."""
    space, names = found[1], found[2].split(", ")
    if names[0][0].isupper():
        return found[0]
    return "".join(f"{space}{name}: see `{names[-1]}`.\n" for name in names[:-1]) + f"{space}{names[-1]}: "

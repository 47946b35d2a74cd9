"""What the site makes from code: the options of every command, pages that are not in ``docs``, names in docstrings.

The functions are hooks of mkdocs, the class is an extension of griffe, which reads the docstrings.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

import griffe
import typer
from mkdocs.structure.files import File, InclusionLevel

from vltrack.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = {name: name.lower() for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}
for _file in (*sorted(ROOT.glob("benchmarks/**/*.md")), ROOT / "examples" / "README.md"):
    PAGES[_file.relative_to(ROOT).as_posix()] = _file.relative_to(ROOT).as_posix()
"""Files outside of ``docs`` that are pages of the site, by their place in the repository."""
PLACES = {page: name for name, page in PAGES.items()}
UNSEARCHED = "---\nsearch: {exclude: true}\n---\n"


def commands() -> str:
    """A section for every verb: its help, and a table of its arguments and options."""
    group: Any = typer.main.get_command(main.build())
    root = typer.Context(group, info_name="vltrack")
    lines: list[str] = []
    for name in group.list_commands(root):
        command = group.get_command(root, name)
        parts = {f"vltrack {name}": command}
        if isinstance(command, typer.core.TyperGroup):
            if name == "data":
                continue  # another name of datasets
            parts = {f"vltrack {name} {one}": command.get_command(root, one) for one in command.list_commands(root)}
        for title, one in parts.items():
            context = typer.Context(one, info_name=title)
            text, _, examples = (one.help or "").partition("\b\n")
            usage = one.get_usage(context).removeprefix("Usage: ")
            lines += ["", f"## {title}", "", _escaped(text), "```text", usage, *examples.splitlines(), "```", ""]
            rows = [row for each in one.params if (row := each.get_help_record(context))]
            lines += [
                "| argument or option | |",
                "|---|---|",
                *(f"| `{flag}` | {_escaped(text)} |" for flag, text in rows),
            ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Text of a help as Markdown that shows it unchanged."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text.replace("<", "&lt;"))


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not files of ``docs``; benchmarks and examples are linked to, not in the menu."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        if page == name:
            text = UNSEARCHED + text
        level = InclusionLevel.NOT_IN_NAV if page == name else InclusionLevel.UNDEFINED
        files.append(File.generated(config, page, content=text, inclusion=level))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Add the commands to their page, and turn links of the repository into links of the site."""
    uri = page.file.src_uri
    if uri == "commands.md":
        markdown += commands()
    titles: dict[str, str] = {}
    for entry in config.nav:
        for name, below in entry.items():
            titles |= (
                {below: name} if isinstance(below, str) else {page: name for one in below for name, page in one.items()}
            )
    here = PLACES.get(uri, f"docs/{uri}")
    return re.sub(r"\[([^\]]+)\]\(([^)#:]+)(#[^)]*)?\)", lambda found: _linked(found, here, uri, titles), markdown)


def _linked(found: re.Match[str], here: str, uri: str, titles: dict[str, str]) -> str:
    """A link to a page, by its title where the text is its file; or the name of a file that the site has no copy of."""
    text, target, anchor = found[1], normpath(join(dirname(here), found[2])), found[3] or ""
    if target.startswith("docs/"):
        page = target.removeprefix("docs/")
    elif target == "README.md":
        page, anchor = "index.md", ""
    elif target in PAGES:
        page = PAGES[target]
    else:
        return f"`{target}`" if text.strip("`") in target else f"{text} (`{target}`)"
    text = titles.get(page, text) if text.endswith(".md") else text
    return f"[{text}]({relpath(page, dirname(uri) or '.')}{anchor})"


def on_page_content(html: str, **_: Any) -> str:
    """Figures open in full when clicked, and short names in the text are not broken at their hyphens."""
    html = re.sub(r'<img [^>]*src="([^"]+)"[^>]*>', r'<a class="figure" href="\1">\g<0></a>', html)
    html = re.sub(r"(<tr>\s*<td)(>(?:<strong>)?[^<]{1,24}<)", r'\1 class="short"\2', html)
    return re.sub(r"<code>([^<]{1,32})</code>", r'<code class="short">\1</code>', html)


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

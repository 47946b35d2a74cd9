"""The site builds without a warning, has every public name and page, and quotes messages that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import vltrack
from vltrack.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def test_every_page_is_in_the_menu(site: Path) -> None:
    menu = (site / "index.html").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    for page in (*pages, "changelog.html", "contributing.html", "security.html"):
        assert (site / page).is_file()
        assert f'href="{page}"' in menu, page


def test_nothing_is_fetched(site: Path) -> None:
    """No font, script or image of a page is at another address."""
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|img|link|video|source|iframe)\b[^>]*>", page.read_text(encoding="utf-8")):
            assert not re.search(r"(src|href)=\"?(https?:)?//", tag), (page.name, tag)


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "reference.html").read_text(encoding="utf-8")
    for name in vltrack.__all__:
        assert re.search(rf'id="vltrack\.[\w.]*\.{name}"', page), name


def test_every_option_of_every_verb_is_in_its_section(site: Path) -> None:
    sections = re.split(r"<h2 id=", (site / "commands.html").read_text(encoding="utf-8"))
    group = typer.main.get_command(main.build())
    assert isinstance(group, typer.core.TyperGroup)
    for verb, command in group.commands.items():
        if not isinstance(command, typer.core.TyperGroup):
            (section,) = [one for one in sections if one.startswith(f'"vltrack-{verb}"')]
            for option in command.params:
                for flag in option.opts if option.param_type_name == "option" else ():
                    assert re.search(rf"{flag}[ ,</]", section), (verb, flag)


def test_links_from_outside_of_the_pages_have_their_anchors(site: Path) -> None:
    """mkdocs checks those between pages."""
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        for page, anchor in re.findall(r"\]\(docs/([\w/-]+)\.md#([^)]+)\)", (ROOT / name).read_text(encoding="utf-8")):
            assert f'id="{anchor}"' in (site / f"{page}.html").read_text(encoding="utf-8"), (name, page, anchor)


def test_links_to_results_are_links_of_the_site(site: Path) -> None:
    found = re.findall(r'href="(benchmarks/[^"#]+\.html)', (site / "results.html").read_text(encoding="utf-8"))
    assert len(found) > 4
    assert all((site / page).is_file() for page in found)


def test_the_questions_quote_messages_that_exist() -> None:
    """What stands between ``**"`` and ``"**``: "..." are values."""
    source = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    source = re.sub(r'"\s*f?"', "", source)  # strings that go on in the next line
    quotes = re.findall(r'\*\*"(.+?)"', (ROOT / "docs" / "faq.md").read_text(encoding="utf-8"))
    assert len(quotes) > 8
    for quote in quotes:
        for part in quote.split("..."):
            assert part.strip(" .") in source, quote

"""The site builds without a warning, has every public name and page, and quotes messages that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vltrack

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
    for page in (*pages, "commands.html", "changelog.html"):
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


def test_the_questions_quote_messages_that_exist() -> None:
    """What stands between ``**"`` and ``"**``: "..." are values."""
    source = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    source = re.sub(r'"\s*f?"', "", source)  # strings that go on in the next line
    quotes = re.findall(r'\*\*"(.+?)"', (ROOT / "docs" / "faq.md").read_text(encoding="utf-8"))
    assert len(quotes) > 8
    for quote in quotes:
        for part in quote.split("..."):
            assert part.strip(" .") in source, quote

"""Check the prose of the project for words that the style guide bans: ``python tests/check_prose.py``.

Looks at docstrings, comments and messages of ``src``, and at the documents. Code in backticks, fenced blocks
and flags are not prose. Exits with 1 and one line per finding.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/trackers/*.md", "examples/*.md")

BANNED = {
    r"told|tells?|telling": "report, print, return",
    r"hears?|heard|ears|listen(s|ed|ing)?|audible": "depends on the text, attends to",
    r"speaks?|spoken": "print, log",
    r"knows? (no|nothing|of|what|how|which)": "leave it out; import contracts say it",
    r"buried|stillborn|bury|crew": "reaped, failed to start, worker pool",
    r"nobody|somebody": "name who",
    r"doors?|walls?": "reader, entry point; limit",
    r"rehears(e|al|es|ed)": "training forward pass",
    r"twins?": "distractor pairs",
    r"remarks?": "warning",
    r"trunks?": "backbone",
    r"ceilings?": "upper bound",
    r"pictures?": "image, figure",
    r"centre[sd]?|colours?|coloured|grey|neighbours?|behaviour|initialis\w+|normalis\w+|optimis\w+|recognis\w+": (
        "American spelling"
    ),
    r"(is|are|was|as) no (?!longer|more|less|such)\w+": "is not a ...",
    r"what is whole|a line a tracker|as it is": "say it plainly; unchanged",
    r"by words( alone)?|in words": "from text",
    r"stands? (in|for itself|beside|there)": "is",
    r"comes? free": "is unfrozen",
    r"the truth|true box(es)?": "ground truth",
    r"litany|merged \w+/\w+\.py": "leave it out",
}
"""Pattern -> what to write instead. Matched on word boundaries, case ignored."""
PATTERNS = [(re.compile(rf"\b(?:{words})\b", re.IGNORECASE), better) for words, better in BANNED.items()]
FIXED = re.compile(
    "too few (targets|scenes) to tell|not to the twin that is named|silver red, golden blue"
    "|^(the (wall|door)|in the centre)$|^gray, grey,"
)
"""Values that result files hold, the word list of the audit, and what people may write in a sentence."""
NOT_PROSE = re.compile(r"``.*?``|`[^`]*`|--[a-z][\w-]*|\{[^}]*\}|\]\([^)]*\)|https?://\S+|\"[^\"]*\"", re.DOTALL)


def source_prose(path: Path) -> Iterator[tuple[int, str]]:
    """Comments and strings of a Python file that are sentences, with their line numbers."""
    text = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            if FIXED.search(node.value):
                continue
            for offset, line in enumerate(NOT_PROSE.sub(_blank, node.value).splitlines()):
                yield node.lineno + offset, line


def document_prose(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a document outside of fenced blocks, with their line numbers."""
    text = re.sub(r"^```.*?^```", _blank, path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from enumerate(NOT_PROSE.sub(_blank, text).splitlines(), 1)


def _blank(match: re.Match[str]) -> str:
    return "\n" * match.group().count("\n")


def findings() -> Iterator[str]:
    """One line for each banned word: file, line, the word, and what to write instead."""
    sources = [(path, source_prose) for path in sorted((ROOT / "src").rglob("*.py"))]
    documents = [(path, document_prose) for glob in DOCUMENTS for path in sorted(ROOT.glob(glob))]
    for path, prose in (*sources, *documents):
        for number, line in prose(path):
            for pattern, better in PATTERNS:
                for hit in pattern.finditer(NOT_PROSE.sub("", line)):
                    yield f"{path.relative_to(ROOT)}:{number}: {hit.group()!r}: {better}"


if __name__ == "__main__":
    found = list(findings())
    sys.stdout.write("\n".join([*found, f"{len(found)} banned words"]) + "\n")
    sys.exit(bool(found))

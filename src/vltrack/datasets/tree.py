"""Finds the files of a data set by the patterns of its layout. Knows paths; reads no annotation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from vltrack.datasets.findings import Findings, wrong
from vltrack.datasets.layout import ALL, Layout, Patterns, Span, Split
from vltrack.datasets.spans import read_spans
from vltrack.datasets.text import is_safe, read_names

_FIELDS = {"seq": r"(?P<seq>[^/]+)", "stem": r"(?P<stem>[^/]+)", "k": r"(?P<k>\d+)"}


def is_telling(pattern: str) -> bool:
    """Whether a path that fits the pattern tells the name of its sequence."""
    return "{seq}" in pattern or ("{stem}" in pattern and "{k}" in pattern)


def globbed(pattern: str) -> str:
    """The pattern with "*" for every field that is still open."""
    return re.sub(r"\*+", "*", re.sub(r"\{\w+\}", "*", pattern))


class Tree:
    """One split of a data set under ``root``.

    Attributes:
        root, layout, split: what was asked for.
        names: the sequences, in order.
        spans: which images belong to which sequence.
    """

    def __init__(self, root: Path, layout: Layout, split: Split, findings: Findings) -> None:
        self.root = root
        self.layout = layout
        self.split = split
        self._folders = self._split_folders()
        self._official = {other: name for name, others in layout.aliases.items() for other in others}
        self._home: dict[str, str] = {}
        self.spans = self._read_spans(findings)
        there = self._there(findings)
        self.names = self._listed(there, findings) if split.listed else there
        if not self.names and not findings.errors:
            findings.error("empty", root, f"no sequence of {layout.title} is here.")

    def find(self, patterns: Patterns, name: str) -> Path | None:
        """The first file or folder of a sequence that exists."""
        for path in self._candidates(patterns, name):
            if path.exists():
                return path
        return None

    def expected(self, patterns: Patterns, name: str) -> Path:
        """Where a file of a sequence should be."""
        paths = list(self._candidates(patterns, name))
        return next((path for path in paths if path.parent.is_dir()), paths[0])

    def _candidates(self, patterns: Patterns, name: str) -> Iterator[Path]:
        span = self.spans.get(name)
        stem, _, number = name.rpartition("-")
        split = self._home.get(name, self._folders[0])
        fields = {"stem": stem or name, "k": number, "split": split, "part": split.rpartition("/")[2]}
        for pattern in patterns:
            for spelled in (name, *self.layout.aliases.get(name, ())):
                own = {"seq": spelled, "folder": (span.folder if span else "") or spelled}
                path = self.root / pattern.format_map(fields | own).lstrip("/")
                yield from sorted(path.parent.glob(path.name)) if "*" in path.name else (path,)

    def _read_spans(self, findings: Findings) -> Mapping[str, Span]:
        path = self.root / self.layout.spans_file
        found = findings.attempt(read_spans, path, self.layout.title) if path.is_file() else None
        return found or self.layout.spans

    def _split_folders(self) -> list[str]:
        """The folders of the split below the root, "" for the root itself; of "all", those of every split."""
        found: list[str] = []
        for pattern in self.split.folders:
            if pattern and (self.split.name == ALL or not found):
                paths = (path for path in sorted(self.root.glob(pattern)) if path.is_dir())
                found += [path.relative_to(self.root).as_posix() for path in paths]
        return found or ["" if "" in self.split.folders else self.split.folders[0]]

    def _there(self, findings: Findings) -> list[str]:
        """Names of all sequences of which the truth or the images are there."""
        seen: dict[str, Path] = {}
        for folder in self._folders:
            for pattern in (*self.layout.truth, *self.layout.frames):
                if not is_telling(pattern):
                    continue
                mine: dict[str, Path] = {}
                for name, path in matches(self.root, within(pattern, folder)):
                    name = self._official.get(name, name)
                    if not is_safe(name) or not re.fullmatch(self.layout.names, name):
                        continue
                    if name in mine and mine[name] != path:
                        both = f"{name} is here and in {mine[name].parent}."
                        findings.error("duplicate", path, both, "Keep one of them.")
                    mine[name] = path
                    if "{split}" in pattern:
                        self._home.setdefault(name, folder)
                seen = mine | seen
        truths = {name for name in seen if self.find(self.layout.truth, name)}
        parents = {name.rpartition("-")[0] for name in truths}  # a video with several targets is none itself
        return sorted(truths | (seen.keys() - parents))

    def _listed(self, there: list[str], findings: Findings) -> list[str]:
        """The names of the split's list, each of which has to be there."""
        names = self._list(findings)
        if names is None:
            return []
        known, folded = set(there), {name.casefold(): name for name in there}
        missing = [name for name in names if name not in known]
        for name in missing:
            near = folded.get(name.casefold())
            said = f"there is {near}, in other letters." if near else "it is not here."
            findings.error("missing", self.root, f"{name} is listed for {self.split.name}, but {said}")
        return [name for name in names if name in known]

    def _list(self, findings: Findings) -> list[str] | None:
        for pattern in self.split.listed:
            if "{seq}" in pattern:
                places = [within(pattern, folder) for folder in self._folders]
                found = [name for place in places for name, _ in matches(self.root, place)]
                if found:
                    return sorted(self._official.get(name, name) for name in found)
                continue
            for path in sorted({self.root / within(pattern, folder) for folder in self._folders}):
                if path.is_file():
                    names = findings.attempt(read_names, path)
                    return None if names is None else self._sound(names, path, findings)
        wanted = " or ".join(self.split.listed)
        findings.error("list", self.root, f"the list of split {self.split.name} is missing ({wanted}).")
        return None

    def _sound(self, names: list[str], path: Path, findings: Findings) -> list[str]:
        """The names of a list that can be used; the others are findings."""
        sound: dict[str, int] = {}
        folded: dict[str, str] = {}
        if self.split.indices:
            names = findings.attempt(self._by_index, names, path) or []
        for number, name in enumerate(names, 1):
            name = self._official.get(name, name)
            if not is_safe(name):
                findings.error("name", f"{path}:{number}", f"{name[:80]!r} is no name of a sequence.")
            elif name in sound:
                findings.error("duplicate", f"{path}:{number}", f"{name} stands in line {sound[name]} too.")
            else:
                twin = folded.setdefault(name.casefold(), name)
                if twin != name:
                    findings.error("duplicate", f"{path}:{number}", f"{name} and {twin} differ in case only.")
                sound[name] = number
        return list(sound)

    def _by_index(self, lines: list[str], path: Path) -> list[str]:
        names = read_names(self.root / self._folders[0] / "list.txt")
        for number, line in enumerate(lines, 1):
            if not (line.isascii() and line.isdecimal() and int(line) < len(names)):
                raise wrong("text", f"{path}:{number}", f"{line[:40]!r} is not a place in list.txt.")
        return [names[int(line)] for line in lines]


def within(pattern: str, folder: str) -> str:
    """The pattern with the folder of a split filled in, "" for the root itself."""
    return pattern.replace("{split}", folder).replace("{part}", folder.rpartition("/")[2]).lstrip("/")


def matches(root: Path, pattern: str) -> Iterator[tuple[str, Path]]:
    """(name, path) of everything below ``root`` that fits a telling pattern."""
    parts = re.split(r"\{(\w+)\}", pattern)
    text = ""
    for number, part in enumerate(parts):
        if number % 2 == 0:
            text += re.escape(part).replace(r"\*", "[^/]*")
        else:
            text += f"(?P={part})" if f"?P<{part}>" in text else _FIELDS.get(part, "[^/]+")
    shape = re.compile(text)
    for path in sorted(root.glob(globbed(pattern))):
        match = shape.fullmatch(path.relative_to(root).as_posix())
        if match is None:
            continue
        fields = match.groupdict()
        name = fields.get("seq") or f"{fields['stem']}-{fields['k']}"
        if fields.get("stem", name.rpartition("-")[0]) == name.rpartition("-")[0]:
            yield name, path

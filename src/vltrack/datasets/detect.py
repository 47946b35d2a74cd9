"""Detect which data set a folder holds, and find the files of its sequences by the patterns of its layout."""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as AbcSequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import escape
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from vltrack.core.archives import ZIP_DAMAGE, open_zip, read_member
from vltrack.core.errors import DataError, did_you_mean
from vltrack.core.files import open_limited
from vltrack.core.json_io import read_json
from vltrack.datasets.layouts import ALL, LAYOUTS, Layout, Patterns, Span, Split
from vltrack.datasets.parsing import MAX_BYTES, Issues, data_error, is_safe, parse_table, read_names
from vltrack.datasets.sequences import Sequence

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".mdb", ".lmdb", ".zst")
_LIST = "`vltrack datasets list` has the known ones, `vltrack datasets fetch-help NAME` their folders."


@dataclass(frozen=True, kw_only=True, slots=True)
class Detected:
    """A data set that was found: ``layout`` at ``root``, its ``split``; ``only``: the one sequence named."""

    layout: Layout
    root: Path
    split: Split
    only: str | None = None


def detect(path: Path, name: str | None = None, split: str | None = None) -> Detected:
    """Detect the data set at ``path`` (resolved): a folder, an annotation file or an archive of boxes.

    Raises:
        DataError: nothing that is known, another data set than ``name``, or at another level: the message
            says which and where.
    """
    layouts = [layout for layout in LAYOUTS if name in (None, layout.name)]
    if not layouts:
        known = sorted({layout.name for layout in LAYOUTS})
        raise DataError(f"Unknown data set: {name!r}.", hint=did_you_mean(str(name), known))
    if path.exists() and not path.is_dir():
        return _detect_file(path, layouts, split)
    published = [layout for layout in layouts if not layout.own]
    around = list(_around(path, published))
    if found := _detect_split_folder(path, around, split):
        return found
    for layout in published:
        if _fits(layout, path):
            return Detected(layout=layout, root=path, split=choose_split(layout, path, split))
    for layout, parent, _ in around:
        raise _is_part(path, layout, parent)
    for layout in layouts:
        if layout.own and any(_has(path, _any_case(mark.partition("/")[2])) for (mark,) in layout.marks):
            return Detected(layout=layout, root=path.parent, split=layout.splits[0], only=path.name)
        if layout.own and _fits(layout, path):
            return Detected(layout=layout, root=path, split=choose_split(layout, path, split))
    if name is not None and (found := _detect_by_name(path, layouts, split)):
        return found
    raise _unknown(path, layouts, name)


def _detect_file(path: Path, layouts: Iterable[Layout], split: str | None) -> Detected:
    for layout in layouts:
        if (layout.json and layout.json.casefold() == path.name.casefold()) or (
            layout.archive and path.suffix == ".zip"
        ):
            return Detected(layout=layout, root=path, split=choose_split(layout, path, split))
    if path.suffix.lower() in _ARCHIVES:
        raise DataError(f"{path} is an archive.", hint="Unpack it first and give the folder.")
    raise DataError(f"{path} is a file, not the folder of a data set.", hint=_LIST)


def _detect_split_folder(path: Path, around: list[tuple[Layout, Path, str]], split: str | None) -> Detected | None:
    """Detect ``path`` as the folder of one split. Raises ``DataError`` where ``split`` is another one."""
    for layout, parent, folder in around:
        for one in layout.splits:
            if any(pattern and fnmatchcase(folder, pattern) for pattern in one.folders):
                if split in (None, one.name):
                    return Detected(layout=layout, root=parent, split=one)
                raise _is_part(path, layout, parent)
    return None


def _detect_by_name(path: Path, layouts: list[Layout], split: str | None) -> Detected | None:
    """Detect the named data set where its marks are missing, so that all other issues can be reported.

    Raises ``DataError`` where ``path`` holds another data set.
    """
    if other := next((one for one in LAYOUTS if not one.own and _fits(one, path)), None):
        said = f"{path} looks like {other.title}, not {layouts[0].title}."
        raise DataError(said, hint=f"Leave the name out, or give {other.name}.")
    for layout in layouts:
        if any(_has(path, pattern) for pattern in layout.boxes):
            return Detected(layout=layout, root=path, split=choose_split(layout, path, split))
    return None


def choose_split(layout: Layout, root: Path, wanted: str | None) -> Split:
    """Return the split called ``wanted``; by default the first that is there, else "all".

    Raises ``DataError`` where the data set, or the form of it that is here, has no such split.
    """
    everything = Split(
        name=ALL,
        folders=tuple({folder: "" for split in layout.splits for folder in (*split.folders, "")}),
        withheld=any(split.withheld for split in layout.splits),
    )
    if wanted is None:
        return next((split for split in layout.splits if _is_there(split, root)), everything)
    known = {split.name: split for split in layout.splits} | {ALL: everything}
    if wanted in known:
        return known[wanted]
    has = f"It has {', '.join(known)}."
    for one in LAYOUTS:
        if one.name == layout.name and wanted in (split.name for split in one.splits):
            said = f"Split {wanted!r} of {layout.title} is not in {root} ({layout.form})."
            hint = f"{has} To get the whole data set: vltrack datasets fetch-help {layout.name}"
            raise DataError(said, hint=hint)
    raise DataError(f"Unknown split of {layout.title}: {wanted!r}. {has}", hint=did_you_mean(wanted, known))


def splits_there(detected: Detected) -> list[Detected]:
    """Return ``detected`` once per split that is there, without lists of positions in another split."""
    there = (split for split in detected.layout.splits if _is_there(split, detected.root))
    return [replace(detected, split=split) for split in there if not split.indices] or [detected]


def _is_there(split: Split, root: Path) -> bool:
    """Return whether the split's list exists, or its folder where it has no list."""
    if not split.listed:
        return any(not folder or _has(root, folder) for folder in split.folders)
    lists = (pattern.replace("{split}", folder) for pattern in split.listed for folder in split.folders)
    return any(_has(root, pattern) for pattern in lists)


def _has(root: Path, pattern: str) -> bool:
    return next(iter(root.glob(_as_glob(pattern))), None) is not None


def _fits(layout: Layout, root: Path) -> bool:
    """Return whether ``root`` has the layout's marks and sequence names."""
    spelled = _any_case if layout.own else str
    if not any(all(_has(root, spelled(mark)) for mark in group) for group in layout.marks):
        return False
    return _names_fit(layout, root)


def has_clips(root: Path) -> bool:
    """Return whether a folder has clips of one's own."""
    return any(layout.own and _fits(layout, root) for layout in LAYOUTS)


def _names_fit(layout: Layout, root: Path) -> bool:
    """Return whether most of the sequence names under ``root`` are those of the layout."""
    folders = dict.fromkeys(folder for split in layout.splits for folder in (*split.folders, ""))
    specific = [pattern for pattern in (*layout.boxes, *layout.frames) if is_specific(pattern)]
    patterns = dict.fromkeys(within(pattern, folder) for pattern in specific for folder in folders)
    other = {other: name for name, others in layout.aliases.items() for other in others}
    names = (other.get(name, name) for pattern in patterns for name, _ in matches(root, pattern, layout.own))
    found = list(islice(names, 10))
    fitting = sum(re.fullmatch(layout.names, name) is not None for name in found)
    return not patterns or 2 * fitting > len(found)


def _around(path: Path, layouts: Iterable[Layout]) -> Iterator[tuple[Layout, Path, str]]:
    """Yield data sets of which ``path`` is a folder: layout, root, and ``path`` relative to the root."""
    for depth in (1, 2):
        if len(path.parts) > depth + 1:
            parent, rest = Path(*path.parts[:-depth]), path.parts[-depth:]
            for layout in layouts:
                if _fits_through(layout, parent, rest) and _names_fit(layout, parent):
                    yield layout, parent, "/".join(rest)


def _fits_through(layout: Layout, parent: Path, rest: AbcSequence[str]) -> bool:
    """Return whether ``parent`` has the layout's marks, some of them below ``parent``/``rest``."""
    depth, inside = len(rest), [escape(folder) for folder in rest]
    for group in layout.marks:
        marks = [mark.split("/") for mark in group]
        through = [len(mark) >= depth and all(map(fnmatchcase, rest, mark)) for mark in marks]
        marks = [[*inside, *mark[depth:]] if below else mark for mark, below in zip(marks, through, strict=True)]
        if any(through) and all(_has(parent, "/".join(mark)) for mark in marks):
            return True
    return False


def _is_part(path: Path, layout: Layout, root: Path) -> DataError:
    return DataError(
        f"{path} is a part of {layout.title}, which begins at {root}.",
        hint=f"Open {root}, or give the name folder for a clip of your own.",
    )


def _unknown(path: Path, layouts: list[Layout], name: str | None) -> DataError:
    """Return the error for a folder without a known data set; it says what is in the folder."""
    below = [child for child in chain(path.glob("*"), path.glob("*/*")) if child.is_dir()]
    there = [(child, layout) for child in islice(below, 200) for layout in layouts if _fits(layout, child)]
    if there:
        known = dict(reversed(there))  # the first layout that fits a folder
        known = {child: layout for child, layout in known.items() if child.parent not in known}
        listed = ", ".join(f"{known[child].title} in {child}" for child in sorted(known)[:8])
        return DataError(f"{path} itself is not a data set, but has {listed}.", hint="Open one of these folders.")
    archives = sorted(child for child in path.iterdir() if child.suffix.lower() in _ARCHIVES)
    if archives:
        boxes = [layout for layout in layouts if layout.archive]
        readable = [one for one in archives if one.suffix == ".zip" and any(_can_read_zip(one, it) for it in boxes)]
        hint = "Unpack them first."
        if readable:
            listed = ", ".join(archive.name for archive in readable[:8])
            hint = f"Boxes are read from these without unpacking: {listed}. Give the one with the ground truth, "
            hint += f"such as {readable[0]}"
        return DataError(f"{path} holds archives, such as {archives[0].name!r}.", hint=hint)
    if not any(path.iterdir()):
        return DataError(f"Empty folder: {path}.", hint=_LIST)
    if name is not None:
        wanted = " or ".join(re.sub(r"\{(\w+)\}", r"<\1>", pattern) for pattern in layouts[0].boxes)
        return DataError(f"No sequence of {layouts[0].title} in {path}: {wanted} is missing.", hint=_LIST)
    return DataError(f"No known data set in {path}.", hint=_LIST)


# -- files of the sequences ----------------------------------------------------------------------------------

_FIELDS = {"seq": r"(?P<seq>[^/]+)", "stem": r"(?P<stem>[^/]+)", "k": r"(?P<k>\d+)"}


def is_specific(pattern: str) -> bool:
    """Return whether a path that matches ``pattern`` contains the name of its sequence."""
    return "{seq}" in pattern or ("{stem}" in pattern and "{k}" in pattern)


def within(pattern: str, folder: str) -> str:
    """Fill the folder of a split into ``pattern``; "" is the root itself."""
    return pattern.replace("{split}", folder).replace("{part}", folder.rpartition("/")[2]).lstrip("/")


def _as_glob(pattern: str) -> str:
    """Return ``pattern`` with "*" for every field that is still open."""
    return re.sub(r"\*+", "*", re.sub(r"\{\w+\}", "*", pattern))


def _any_case(pattern: str) -> str:
    """Return a glob for ``pattern``, which has no fields, in upper and lower case."""
    return re.sub(r"[A-Za-z]", lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", pattern)


def matches(root: Path, pattern: str, any_case: bool = False) -> Iterator[tuple[str, Path]]:
    """Yield (sequence name, path) of everything below ``root`` that matches a specific pattern."""
    parts = re.split(r"\{(\w+)\}", pattern)
    text = ""
    for number, part in enumerate(parts):
        if number % 2 == 0:
            text += re.escape(part).replace(r"\*", "[^/]*")
        else:
            text += f"(?P={part})" if f"?P<{part}>" in text else _FIELDS.get(part, "[^/]+")
    shape = re.compile(text, re.IGNORECASE if any_case else 0)
    glob = _as_glob(pattern)
    for path in sorted(root.glob(_any_case(glob) if any_case else glob)):
        match = shape.fullmatch(path.relative_to(root).as_posix())
        if match is None:
            continue
        fields = match.groupdict()
        name = fields.get("seq") or f"{fields['stem']}-{fields['k']}"
        if fields.get("stem", name.rpartition("-")[0]) == name.rpartition("-")[0]:
            yield name, path


class FileIndex:
    """Files of one split of a data set under ``root``.

    Attributes:
        root, layout, split: the arguments.
        names: the sequences, in order.
        spans: images of each sequence that shares its folder or uses a part of it.
    """

    def __init__(self, root: Path, layout: Layout, split: Split, issues: Issues) -> None:
        self.root = root
        self.layout = layout
        self.split = split
        self._folders = self._split_folders()
        self._official = {other: name for name, others in layout.aliases.items() for other in others}
        self._home: dict[str, str] = {}
        spans = root / layout.spans_file
        found = issues.attempt(_read_spans, spans, layout.title) if spans.is_file() else None
        self.spans = found or layout.spans
        there = self._discover(issues)
        self.names = self._select_listed(there, issues) if split.listed else there
        if not self.names and not issues.errors:
            issues.error("empty", root, f"No sequence of {layout.title} found.")

    def find(self, patterns: Patterns, name: str) -> Path | None:
        """Return the first file or folder of a sequence that exists."""
        for path in self._candidates(patterns, name):
            if path.exists() and not path.name.startswith("._"):  # macOS' side files
                return path
        return None

    def expected(self, patterns: Patterns, name: str) -> Path:
        """Return the path where a missing file of a sequence should be."""
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
                glob = "*" in path.name
                if not glob:
                    yield path
                if glob or (self.layout.own and pattern.endswith(path.name)):
                    yield from sorted(path.parent.glob(_any_case(path.name) if self.layout.own else path.name))

    def _split_folders(self) -> list[str]:
        """Return the split's folders relative to the root ("" is the root itself)."""
        found: list[str] = []
        for pattern in self.split.folders:
            if pattern and (self.split.name == ALL or not found):
                paths = (path for path in sorted(self.root.glob(pattern)) if path.is_dir())
                found += [path.relative_to(self.root).as_posix() for path in paths]
        return found or ["" if "" in self.split.folders else self.split.folders[0]]

    def _discover(self, issues: Issues) -> list[str]:
        """Return the names of all sequences whose boxes or images exist."""
        seen: dict[str, Path] = {}
        specific = [pattern for pattern in (*self.layout.boxes, *self.layout.frames) if is_specific(pattern)]
        for folder in self._folders:
            for pattern in specific:
                mine: dict[str, Path] = {}
                for name, path in matches(self.root, within(pattern, folder), self.layout.own):
                    name = self._official.get(name, name)
                    if not is_safe(name) or not re.fullmatch(self.layout.names, name):
                        continue
                    if name in mine and mine[name] != path:
                        both = f"{name} is here and in {mine[name].parent}."
                        issues.error("duplicate", path, both, "Keep one of them.")
                    mine[name] = path
                    if "{split}" in pattern:
                        self._home.setdefault(name, folder)
                seen = mine | seen
        boxed = {name for name in seen if self.find(self.layout.boxes, name)}
        parents = {name.rpartition("-")[0] for name in boxed}  # a video of several targets is not one itself
        return sorted(boxed | (seen.keys() - parents))

    def _select_listed(self, there: list[str], issues: Issues) -> list[str]:
        """Return the names of the split's list that are there; the others are issues."""
        names = self._read_list(issues)
        if names is None:
            return []
        known, folded = set(there), {name.casefold(): name for name in there}
        for name in names:
            if name not in known:
                near = folded.get(name.casefold())
                said = f"only {near} is there, in other case." if near else "is missing."
                said = f"{name}, listed for split {self.split.name}: {said}"
                issues.error("missing", self.root, said, "Unpack it, or score what is there: --subset present.")
        return [name for name in names if name in known]

    def _read_list(self, issues: Issues) -> list[str] | None:
        for pattern in self.split.listed:
            if "{seq}" in pattern:
                places = [within(pattern, folder) for folder in self._folders]
                found = [name for place in places for name, _ in matches(self.root, place)]
                if found:
                    return sorted(self._official.get(name, name) for name in found)
                continue
            for path in sorted({self.root / within(pattern, folder) for folder in self._folders}):
                if path.is_file():
                    names = issues.attempt(read_names, path)
                    return None if names is None else self._valid_names(names, path, issues)
        wanted = " or ".join(self.split.listed)
        issues.error("list", self.root, f"The list of split {self.split.name} is missing ({wanted}).")
        return None

    def _valid_names(self, names: list[str], path: Path, issues: Issues) -> list[str]:
        """Return the usable names of a list; the others are issues."""
        valid: dict[str, int] = {}
        folded: dict[str, str] = {}
        if self.split.indices:
            names = issues.attempt(self._by_index, names, path) or []
        for number, name in enumerate(names, 1):
            name = self._official.get(name, name)
            spot = f"{path}:{number}"
            if not is_safe(name):
                issues.error("name", spot, f"Invalid sequence name: {name[:80]!r}.")
            elif name in valid:
                issues.error("duplicate", spot, f"{name!r} is also in line {valid[name]}.")
            else:
                other = folded.setdefault(name.casefold(), name)
                if other != name:
                    issues.error("duplicate", spot, f"{name!r} and {other!r} differ in case only.")
                valid[name] = number
        return list(valid)

    def _by_index(self, lines: list[str], path: Path) -> list[str]:
        names = read_names(self.root / self._folders[0] / "list.txt")
        for number, line in enumerate(lines, 1):
            if not (line.isascii() and line.isdecimal() and int(line) < len(names)):
                raise data_error("text", f"{path}:{number}", f"{line[:40]!r} is not a position in list.txt.")
        return [names[int(line)] for line in lines]


def _read_spans(path: Path, title: str) -> Mapping[str, Span]:
    """Read the spans of the data set ``title`` from the JSON file of got10k's toolkit."""
    sets = read_json(path)
    parts = sets.get(title) if isinstance(sets, dict) else None
    spans = {}
    for name, part in parts.items() if isinstance(parts, dict) else ():
        fields: dict[str, Any] = part if isinstance(part, dict) else {}
        first, last, folder = (fields.get(key) for key in ("start_frame", "end_frame", "folder_name"))
        if not (type(first) is type(last) is int and isinstance(folder, str) and is_safe(folder)):
            raise data_error("json", path, f"{name} needs start_frame, end_frame and folder_name.")
        spans[name] = Span(first=first, last=last, folder=folder)
    return spans


# -- boxes in a .zip of text files, as TrackingNet's devkit has them; nothing is unpacked onto the disk ------

_UNPACK = "Unpack it and give the folder."


def read_zip(path: Path, layout: Layout, issues: Issues) -> list[Sequence]:
    """Read the sequences of an archive, sorted by name; errors go to ``issues``."""
    try:
        with open_limited(path, MAX_BYTES) as file, open_zip(file) as archive:
            members = issues.attempt(_members, path, archive, layout) or []
            found = [issues.attempt(_read_member, path, archive, member) for member in members]
    except ZIP_DAMAGE as error:
        issues.error("archive", path, f"The .zip file cannot be read ({error}).", "Copy it again.")
        return []
    return sorted((one for one in found if one is not None), key=lambda one: one.name)


def _can_read_zip(path: Path, layout: Layout) -> bool:
    try:
        with open_limited(path, MAX_BYTES) as file, open_zip(file) as archive:
            _members(path, archive, layout)
    except (*ZIP_DAMAGE, DataError):
        return False
    return True


def _members(path: Path, archive: zipfile.ZipFile, layout: Layout) -> list[zipfile.ZipInfo]:
    """Return the archive's files. Raises ``DataError`` unless all are text files of boxes at the top."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    total, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if total > MAX_BYTES or total > 100 * max(packed, 1):
        raise data_error("archive", path, f"{packed:,} bytes would unpack to {total:,}.", "Check where it is from.")
    for member in members:
        name, dot, suffix = member.filename.rpartition(".")
        if (dot, suffix) != (".", "txt") or not re.fullmatch(layout.names, name):
            said = f"{member.filename[:80]!r} is not a file of boxes of {layout.title}."
            raise data_error("archive", path, said, _UNPACK)
        if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & 1:
            raise data_error("archive", path, f"{member.filename!r} is a link or encrypted.", _UNPACK)
    if not members:
        raise data_error("archive", path, "The archive is empty.", _UNPACK)
    return members


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Sequence:
    try:
        data = read_member(archive, member)
    except ZIP_DAMAGE as error:
        raise data_error("archive", path, f"{member.filename!r} is damaged.", "Copy the archive again.") from error
    boxes = parse_table(data, f"{path}/{member.filename}")
    absent = np.asarray(~(boxes[:, 2:] > 0).all(axis=1))
    name = member.filename.removesuffix(".txt")
    return Sequence(name=name, source=path, files=(), boxes=boxes, absent=absent)

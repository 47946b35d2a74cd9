"""Which data set a folder holds, and at which level. Knows layouts and paths; reads no annotation."""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as AbcSequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import chain, islice
from pathlib import Path

import numpy as np

from vltrack.core.errors import DataError, did_you_mean
from vltrack.core.files import ZIP_DAMAGE
from vltrack.datasets.layout import ALL, Layout, Patterns, Span, Split
from vltrack.datasets.layouts import LAYOUTS
from vltrack.datasets.parsing import (
    MAX_BYTES,
    Issues,
    data_error,
    is_safe,
    parse_table,
    read_names,
    read_spans,
)
from vltrack.datasets.sequences import Sequence

# MERGED datasets/detect.py
# Finds the files of a data set by the patterns of its layout. Knows paths; reads no annotation.


_FIELDS = {"seq": r"(?P<seq>[^/]+)", "stem": r"(?P<stem>[^/]+)", "k": r"(?P<k>\d+)"}


def is_specific(pattern: str) -> bool:
    """Whether a path that fits the pattern tells the name of its sequence."""
    return "{seq}" in pattern or ("{stem}" in pattern and "{k}" in pattern)


def globbed(pattern: str) -> str:
    """The pattern with "*" for every field that is still open."""
    return re.sub(r"\*+", "*", re.sub(r"\{\w+\}", "*", pattern))


class FileIndex:
    """One split of a data set under ``root``.

    Attributes:
        root, layout, split: what was asked for.
        names: the sequences, in order.
        spans: which images belong to which sequence.
    """

    def __init__(self, root: Path, layout: Layout, split: Split, issues: Issues) -> None:
        self.root = root
        self.layout = layout
        self.split = split
        self._folders = self._split_folders()
        self._official = {other: name for name, others in layout.aliases.items() for other in others}
        self._home: dict[str, str] = {}
        self.spans = self._read_spans(issues)
        there = self._there(issues)
        self.names = self._listed(there, issues) if split.listed else there
        if not self.names and not issues.errors:
            issues.error("empty", root, f"no sequence of {layout.title} is here.")

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

    def _read_spans(self, issues: Issues) -> Mapping[str, Span]:
        path = self.root / self.layout.spans_file
        found = issues.attempt(read_spans, path, self.layout.title) if path.is_file() else None
        return found or self.layout.spans

    def _split_folders(self) -> list[str]:
        """The folders of the split below the root, "" for the root itself; of "all", those of every split."""
        found: list[str] = []
        for pattern in self.split.folders:
            if pattern and (self.split.name == ALL or not found):
                paths = (path for path in sorted(self.root.glob(pattern)) if path.is_dir())
                found += [path.relative_to(self.root).as_posix() for path in paths]
        return found or ["" if "" in self.split.folders else self.split.folders[0]]

    def _there(self, issues: Issues) -> list[str]:
        """Names of all sequences of which the truth or the images are there."""
        seen: dict[str, Path] = {}
        for folder in self._folders:
            for pattern in (*self.layout.truth, *self.layout.frames):
                if not is_specific(pattern):
                    continue
                mine: dict[str, Path] = {}
                for name, path in matches(self.root, within(pattern, folder)):
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
        truths = {name for name in seen if self.find(self.layout.truth, name)}
        parents = {name.rpartition("-")[0] for name in truths}  # a video with several targets is none itself
        return sorted(truths | (seen.keys() - parents))

    def _listed(self, there: list[str], issues: Issues) -> list[str]:
        """The names of the split's list, each of which has to be there."""
        names = self._list(issues)
        if names is None:
            return []
        known, folded = set(there), {name.casefold(): name for name in there}
        missing = [name for name in names if name not in known]
        for name in missing:
            near = folded.get(name.casefold())
            said = f"there is {near}, in other letters." if near else "it is not here."
            issues.error("missing", self.root, f"{name} is listed for {self.split.name}, but {said}")
        return [name for name in names if name in known]

    def _list(self, issues: Issues) -> list[str] | None:
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
                    return None if names is None else self._sound(names, path, issues)
        wanted = " or ".join(self.split.listed)
        issues.error("list", self.root, f"the list of split {self.split.name} is missing ({wanted}).")
        return None

    def _sound(self, names: list[str], path: Path, issues: Issues) -> list[str]:
        """The names of a list that can be used; the others are issues."""
        sound: dict[str, int] = {}
        folded: dict[str, str] = {}
        if self.split.indices:
            names = issues.attempt(self._by_index, names, path) or []
        for number, name in enumerate(names, 1):
            name = self._official.get(name, name)
            if not is_safe(name):
                issues.error("name", f"{path}:{number}", f"{name[:80]!r} is no name of a sequence.")
            elif name in sound:
                issues.error("duplicate", f"{path}:{number}", f"{name} stands in line {sound[name]} too.")
            else:
                twin = folded.setdefault(name.casefold(), name)
                if twin != name:
                    issues.error("duplicate", f"{path}:{number}", f"{name} and {twin} differ in case only.")
                sound[name] = number
        return list(sound)

    def _by_index(self, lines: list[str], path: Path) -> list[str]:
        names = read_names(self.root / self._folders[0] / "list.txt")
        for number, line in enumerate(lines, 1):
            if not (line.isascii() and line.isdecimal() and int(line) < len(names)):
                raise data_error("text", f"{path}:{number}", f"{line[:40]!r} is not a place in list.txt.")
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


# MERGED datasets/detect.py
# Boxes in a .zip of text files, as TrackingNet's devkit ships them. Unpacks nothing onto the disk.


_MAX_RATIO = 100
_UNPACK = "Unpack it and name the folder."


def read_zip(path: Path, layout: Layout, issues: Issues) -> list[Sequence]:
    """The sequences of an archive, by name; what is wrong goes to ``issues``."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = issues.attempt(_members, path, archive, layout) or []
            found = [issues.attempt(_sequence, path, archive, member) for member in members]
    except ZIP_DAMAGE as error:
        issues.error("archive", path, f"is no .zip that can be read ({error}).", "Copy it again.")
        return []
    return sorted((one for one in found if one is not None), key=lambda one: one.name)


def opens(path: Path, layout: Layout) -> bool:
    """Whether the archive holds boxes of the layout's sequences and nothing else; reads its index only."""
    try:
        with zipfile.ZipFile(path) as archive:
            _members(path, archive, layout)
    except (*ZIP_DAMAGE, DataError):
        return False
    return True


def _members(path: Path, archive: zipfile.ZipFile, layout: Layout) -> list[zipfile.ZipInfo]:
    """The members to read: plain text files at the top. Raises ``DataError`` for any other."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    total, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if total > MAX_BYTES or total > _MAX_RATIO * max(packed, 1):
        raise data_error(
            "archive", path, f"{total:,} bytes when unpacked, from {packed:,}.", "Check where it is from."
        )
    for member in members:
        name, dot, suffix = member.filename.rpartition(".")
        if (dot, suffix) != (".", "txt") or not re.fullmatch(layout.names, name):
            raise data_error(
                "archive", path, f"holds {member.filename[:80]!r}, no boxes of {layout.title}.", _UNPACK
            )
        if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & 1:
            raise data_error("archive", path, f"{member.filename} is a link or encrypted.", _UNPACK)
    if not members:
        raise data_error("archive", path, "is empty.", _UNPACK)
    return members


def _sequence(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Sequence:
    try:
        data = archive.read(member)
    except ZIP_DAMAGE as error:
        raise data_error(
            "archive", path, f"{member.filename} is damaged.", "Copy the archive again."
        ) from error
    boxes = parse_table(data, f"{path}/{member.filename}")
    return Sequence(
        name=member.filename.removesuffix(".txt"),
        source=path,
        files=(),
        boxes=boxes,
        absent=np.asarray(~(boxes[:, 2:] > 0).all(axis=1)),
    )


_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".mdb", ".lmdb", ".zst")
_LIST = "`vltrack datasets list` names the known ones, `vltrack datasets fetch-help NAME` their folders."


@dataclass(frozen=True, kw_only=True, slots=True)
class Detected:
    """What was detected: ``layout`` at ``root``, its ``split``; ``only`` one sequence where that was
    named."""

    layout: Layout
    root: Path
    split: Split
    only: str | None = None


def detect(path: Path, name: str | None = None, split: str | None = None) -> Detected:
    """What lies at ``path`` (resolved).

    Raises:
        DataError: nothing that is known, another data set than ``name``, or at another level: the message
            says which and where.
    """
    layouts = _called(name)
    if path.is_file():
        return _recognise_file(path, layouts, split)
    published = [layout for layout in layouts if not layout.own]
    if found := _as_split(path, published, split):
        return found
    for layout in published:
        if _fits(layout, path):
            return Detected(layout=layout, root=path, split=choose_split(layout, path, split))
    for layout, parent, _ in _around(path, published):
        raise _part(path, layout, parent)
    for layout in layouts:
        if layout.own and (path / "groundtruth.txt").is_file():
            return Detected(layout=layout, root=path.parent, split=layout.splits[0], only=path.name)
        if layout.own and _fits(layout, path):
            return Detected(layout=layout, root=path, split=choose_split(layout, path, split))
    if name is not None and (found := _by_name(path, layouts, split)):
        return found
    raise _unknown(path, layouts, name)


def _by_name(path: Path, layouts: list[Layout], split: str | None) -> Detected | None:
    """``path`` as the data set that was named though its marks are missing, so that what else is can be told.

    Raises ``DataError`` where another data set lies there.
    """
    if other := next((one for one in LAYOUTS if not one.own and _fits(one, path)), None):
        said = f"{path} looks like {other.title}, not {layouts[0].title}."
        raise DataError(said, hint=f"Leave --name out, or give --name {other.name}.")
    for layout in layouts:
        if any(_has(path, pattern) for pattern in layout.truth):
            return Detected(layout=layout, root=path, split=choose_split(layout, path, split))
    return None


def choose_split(layout: Layout, root: Path, wanted: str | None) -> Split:
    """The split called ``wanted``; without it the first that is there, else all sequences that are."""
    everything = Split(
        name=ALL,
        folders=tuple({folder: "" for split in layout.splits for folder in (*split.folders, "")}),
        held_back=any(split.held_back for split in layout.splits),
    )
    known = {split.name: split for split in layout.splits} | {ALL: everything}
    if wanted is None:
        return next((split for split in layout.splits if _is_there(split, root)), everything)
    if wanted not in known:
        raise _no_split(layout, root, wanted, list(known))
    return known[wanted]


def _no_split(layout: Layout, root: Path, wanted: str, known: list[str]) -> DataError:
    """The error for a split that is not to be had: of the data set, or only of the form that is here."""
    for whole in LAYOUTS:
        if whole.name == layout.name and wanted in (split.name for split in whole.splits):
            return DataError(
                f"{root} holds no split {wanted!r} of {layout.title} ({layout.form}).",
                hint=f"It has {', '.join(known)}. Where the whole data set is from: "
                f"vltrack datasets fetch-help {layout.name}",
            )
    return DataError(f"{layout.title} has no split {wanted!r}.", hint=f"Its splits are {', '.join(known)}.")


def splits_there(place: Detected) -> list[Detected]:
    """The place once for every split that is there; lists of places in another split are passed over."""
    splits = [split for split in place.layout.splits if not split.indices and _is_there(split, place.root)]
    return [replace(place, split=split) for split in splits] or [place]


def _called(name: str | None) -> list[Layout]:
    if name is None:
        return list(LAYOUTS)
    layouts = [layout for layout in LAYOUTS if layout.name == name]
    if not layouts:
        names = sorted({layout.name for layout in LAYOUTS})
        hint = did_you_mean(name, names)
        raise DataError(f"no data set is called {name!r}.", hint=hint)
    return layouts


def _recognise_file(path: Path, layouts: Iterable[Layout], split: str | None) -> Detected:
    for layout in layouts:
        if layout.json and layout.json.casefold() == path.name.casefold():
            return Detected(layout=layout, root=path, split=choose_split(layout, path, split))
        if layout.archive and path.suffix == ".zip":
            return Detected(layout=layout, root=path, split=choose_split(layout, path, split))
    if path.suffix.lower() in _ARCHIVES:
        raise DataError(f"{path} is an archive.", hint="Unpack it first and name the folder.")
    raise DataError(f"{path} is a file, not the folder of a data set.", hint=_LIST)


def _is_there(split: Split, root: Path) -> bool:
    """Whether the split's list is there, or its folder."""
    if not split.listed:
        return any(not folder or _has(root, folder) for folder in split.folders)
    lists = (pattern.replace("{split}", folder) for pattern in split.listed for folder in split.folders)
    return any(_has(root, pattern) for pattern in lists)


def _has(root: Path, pattern: str) -> bool:
    return next(iter(root.glob(globbed(pattern))), None) is not None


def _fits(layout: Layout, root: Path) -> bool:
    if not any(all(_has(root, mark) for mark in group) for group in layout.marks):
        return False
    folders = dict.fromkeys(folder for split in layout.splits for folder in (*split.folders, ""))
    telling = [pattern for pattern in (*layout.truth, *layout.frames) if is_specific(pattern)]
    patterns = dict.fromkeys(within(pattern, folder) for pattern in telling for folder in folders)
    found = list(islice((name for pattern in patterns for name, _ in matches(root, pattern)), 10))
    fitting = sum(re.fullmatch(layout.names, name) is not None for name in found)
    return not patterns or 2 * fitting > len(found)


def _fits_through(layout: Layout, parent: Path, rest: AbcSequence[str]) -> bool:
    """Whether ``parent`` holds the data set and what is asked for (parent/rest...) is part of it."""
    inside = parent.joinpath(*rest)
    for group in layout.marks:
        beyond = [_beyond(mark, rest) for mark in group]
        if any(mark is not None for mark in beyond) and all(
            _has(parent, mark) if further is None else not further or _has(inside, further)
            for mark, further in zip(group, beyond, strict=True)
        ):
            return True
    return False


def _beyond(mark: str, rest: AbcSequence[str]) -> str | None:
    """What of a mark lies behind the folders ``rest``; None where it does not lead through them."""
    parts = mark.split("/")
    through = parts[: len(rest)]
    if len(through) < len(rest) or not all(map(fnmatchcase, rest, through)):
        return None
    return "/".join(parts[len(rest) :])


def _around(path: Path, layouts: Iterable[Layout]) -> Iterator[tuple[Layout, Path, str]]:
    """Data sets that ``path`` is a folder of: layout, where it begins, and ``path`` from there."""
    for depth in (1, 2):
        if len(path.parts) > depth + 1:
            parent, rest = Path(*path.parts[:-depth]), path.parts[-depth:]
            for layout in layouts:
                if _fits_through(layout, parent, rest):
                    yield layout, parent, "/".join(rest)


def _as_split(path: Path, layouts: Iterable[Layout], split: str | None) -> Detected | None:
    """``path`` as the folder of one split of a data set; raises ``DataError`` where another is asked for."""
    for layout, parent, folder in _around(path, layouts):
        for one in layout.splits:
            if any(pattern and fnmatchcase(folder, pattern) for pattern in one.folders):
                if split in (None, one.name):
                    return Detected(layout=layout, root=parent, split=one)
                raise _part(path, layout, parent)
    return None


def _part(path: Path, layout: Layout, root: Path) -> DataError:
    return DataError(
        f"{path} is a part of {layout.title}, which begins at {root}.",
        hint=f"Open {root}, or give --name folder for a clip of your own.",
    )


def _with_archives(archives: list[Path], layouts: Iterable[Layout]) -> str:
    """What to do with archives: some hold boxes and open as they are."""
    plain = [layout for layout in layouts if layout.archive]
    ready = [path for path in archives if path.suffix == ".zip" and any(opens(path, one) for one in plain)]
    if not ready:
        return "Unpack them first."
    if len(ready) == 1:
        return f"{ready[0].name} opens as it is: give {ready[0]}"
    names = ", ".join(path.name for path in ready[:8])
    return f"These open as they are: {names}. Give the one with the truth, such as {ready[0]}"


def _readable(pattern: str) -> str:
    return pattern.replace("{", "<").replace("}", ">")


def _unknown(path: Path, layouts: list[Layout], name: str | None) -> DataError:
    """The error for a folder in which nothing is known: says what is in it instead."""
    below = [child for child in chain(path.glob("*"), path.glob("*/*")) if child.is_dir()]
    there = [(child, layout) for child in islice(below, 200) for layout in layouts if _fits(layout, child)]
    if there:
        known = dict(reversed(there))  # the first layout that fits a folder
        known = {child: layout for child, layout in known.items() if child.parent not in known}
        listed = ", ".join(f"{known[child].title} in {child}" for child in sorted(known)[:8])
        return DataError(f"no data set in {path} itself, but {listed}.", hint="Name one of these folders.")
    archives = sorted(child for child in path.iterdir() if child.suffix.lower() in _ARCHIVES)
    if archives:
        said = f"{path} holds archives ({archives[0].name})."
        return DataError(said, hint=_with_archives(archives, layouts))
    if not any(path.iterdir()):
        return DataError(f"{path} is empty: no sequence is in it.", hint=_LIST)
    if name is not None:
        wanted = " or ".join(_readable(pattern) for pattern in layouts[0].truth)
        return DataError(f"no sequence of {layouts[0].title} in {path}: no {wanted}.", hint=_LIST)
    return DataError(f"no sequence in {path}: its folders are none that are known.", hint=_LIST)

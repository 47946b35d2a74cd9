"""Which data set a folder holds, and at which level. Knows layouts and paths; reads no annotation."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import chain, islice
from pathlib import Path

from vltrack.core.errors import DataError
from vltrack.datasets.archives import opens
from vltrack.datasets.layout import ALL, Layout, Split
from vltrack.datasets.layouts import LAYOUTS
from vltrack.datasets.tree import globbed, is_telling, matches, within

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".mdb", ".lmdb", ".zst")
_LIST = "`vltrack datasets list` names the known ones, `vltrack datasets fetch-help NAME` their folders."


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What was recognised: ``layout`` at ``root``, its ``split``; ``only`` one sequence where that was
    named."""

    layout: Layout
    root: Path
    split: Split
    only: str | None = None


def recognise(path: Path, name: str | None = None, split: str | None = None) -> Place:
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
            return Place(layout=layout, root=path, split=choose_split(layout, path, split))
    for layout, parent, _ in _around(path, published):
        raise _part(path, layout, parent)
    for layout in layouts:
        if layout.own and (path / "groundtruth.txt").is_file():
            return Place(layout=layout, root=path.parent, split=layout.splits[0], only=path.name)
        if layout.own and _fits(layout, path):
            return Place(layout=layout, root=path, split=choose_split(layout, path, split))
    if name is not None and (found := _by_name(path, layouts, split)):
        return found
    raise _unknown(path, layouts, name)


def _by_name(path: Path, layouts: list[Layout], split: str | None) -> Place | None:
    """``path`` as the data set that was named though its marks are missing, so that what else is can be told.

    Raises ``DataError`` where another data set lies there.
    """
    if other := next((one for one in LAYOUTS if not one.own and _fits(one, path)), None):
        said = f"{path} looks like {other.title}, not {layouts[0].title}."
        raise DataError(said, hint=f"Leave --name out, or give --name {other.name}.")
    for layout in layouts:
        if any(_has(path, pattern) for pattern in layout.truth):
            return Place(layout=layout, root=path, split=choose_split(layout, path, split))
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
    near = difflib.get_close_matches(wanted, known, 1)
    meant = f"Did you mean {near[0]}? " if near else ""
    return DataError(f"{layout.title} has no split {wanted!r}.", hint=f"{meant}It has {', '.join(known)}.")


def splits_there(place: Place) -> list[Place]:
    """The place once for every split that is there; lists of places in another split are passed over."""
    splits = [split for split in place.layout.splits if not split.indices and _is_there(split, place.root)]
    return [replace(place, split=split) for split in splits] or [place]


def _called(name: str | None) -> list[Layout]:
    if name is None:
        return list(LAYOUTS)
    layouts = [layout for layout in LAYOUTS if layout.name == name]
    if not layouts:
        names = sorted({layout.name for layout in LAYOUTS})
        near = difflib.get_close_matches(name, names, 1)
        hint = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(names)}."
        raise DataError(f"no data set is called {name!r}.", hint=hint)
    return layouts


def _recognise_file(path: Path, layouts: Iterable[Layout], split: str | None) -> Place:
    for layout in layouts:
        if layout.json and layout.json.casefold() == path.name.casefold():
            return Place(layout=layout, root=path, split=choose_split(layout, path, split))
        if layout.archive and path.suffix == ".zip":
            return Place(layout=layout, root=path, split=choose_split(layout, path, split))
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
    telling = [pattern for pattern in (*layout.truth, *layout.frames) if is_telling(pattern)]
    patterns = dict.fromkeys(within(pattern, folder) for pattern in telling for folder in folders)
    found = list(islice((name for pattern in patterns for name, _ in matches(root, pattern)), 10))
    fitting = sum(re.fullmatch(layout.names, name) is not None for name in found)
    return not patterns or 2 * fitting > len(found)


def _fits_through(layout: Layout, parent: Path, rest: Sequence[str]) -> bool:
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


def _beyond(mark: str, rest: Sequence[str]) -> str | None:
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


def _as_split(path: Path, layouts: Iterable[Layout], split: str | None) -> Place | None:
    """``path`` as the folder of one split of a data set; raises ``DataError`` where another is asked for."""
    for layout, parent, folder in _around(path, layouts):
        for one in layout.splits:
            if any(pattern and fnmatchcase(folder, pattern) for pattern in one.folders):
                if split in (None, one.name):
                    return Place(layout=layout, root=parent, split=one)
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

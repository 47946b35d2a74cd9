"""Which result belongs to which sequence, where toolkits spell names differently. Knows names only."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vltrack.core.errors import DataError

_PREFIXES = ("uav", "nfs", "lasot", "tnl2k", "otb")
"""pytracking puts these before a name, as in ``uav_bike1``."""
_SAME = {"human4": "human42", "skating2": "skating21", "skating3": "skating22", "jogging": "jogging1"}
"""OTB's targets that share a video, as the packed release of OTB99-Lang calls them, and as OTB does."""


def matched(names: Iterable[str], results: Iterable[str]) -> dict[str, str]:
    """For each of ``names`` that has one, its name among ``results``.

    The same name first; else the same letters and digits, whatever their case and the signs between them;
    with or without a data set's prefix; else OTB's other names. Where none fits, what all results end in from
    a "_" on, such as their tracker's name, is left away.

    Raises:
        DataError: two results fit one name equally well.
    """
    wanted, there = list(names), list(results)
    found = _matched(wanted, there)
    ending = _shared_ending(there)
    if found or not ending:
        return found
    whole = {result.removesuffix(ending): result for result in there}
    return {name: whole[short] for name, short in _matched(wanted, list(whole)).items()}


def _shared_ending(results: list[str]) -> str:
    """What all names end in, from a "_" on; "" where there is nothing or one name only."""
    if len(results) < 2:
        return ""
    endings = ("_" + "_".join(results[0].split("_")[k:]) for k in range(1, results[0].count("_") + 1))
    return next((ending for ending in endings if all(name.endswith(ending) for name in results)), "")


def _matched(wanted: list[str], there: list[str]) -> dict[str, str]:
    exact = set(there)
    plain: dict[str, list[str]] = {}
    for result in there:
        for key in _keys(result):
            plain.setdefault(key, []).append(result)
    found: dict[str, str] = {}
    taken = exact & set(wanted)
    for name in wanted:
        if name in exact:
            found[name] = name
            continue
        fits = sorted({fit for key in _keys(name) for fit in plain.get(key, ())} - taken)
        if len(fits) > 1:
            raise DataError(
                f"the results {fits[0]} and {fits[1]} both fit the sequence {name}.",
                hint=f"Call the right one {name}.",
            )
        if fits:
            found[name] = fits[0]
    return found


def _keys(name: str) -> set[str]:
    bare = re.sub(r"[\W_]+", "", name).casefold()
    keys = {bare, _SAME.get(bare, bare)}
    for prefix in _PREFIXES:
        if re.match(rf"{prefix}[_-]", name.casefold()):
            keys.add(bare.removeprefix(prefix))
    return keys

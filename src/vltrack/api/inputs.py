"""From flags to one checked request: targets, outputs, settings. Knows paths and texts; opens no video,
loads no torch.

Every check here costs microseconds, so that a wrong flag is told before anything heavy is loaded.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vltrack.api.console import shown
from vltrack.core.errors import ModelNotFound, PromptEmpty, ResourceError, UsageError

# MERGED api/inputs.py
# Names that a user may mistype: models and settings. Knows the list of models; loads no torch, no
# weights.


WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known name, or the list of all."""
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(names)}."


def model_names() -> dict[str, Path | None]:
    """Every ``name-size`` that can be asked for, and its weights where they ship."""
    from vltrack.models import MODELS

    names = [f"{card.name}-{size}" for card in MODELS.values() for size in card.sizes]
    files = {name: WEIGHTS / f"{name}.safetensors" for name in names}
    return {name: file if file.is_file() else None for name, file in files.items()}


def meant(name: str, known: Iterable[str]) -> str:
    """The known name that ``name`` is but for case and hyphens (``SATracker``); else ``name`` as it is."""
    plain = name.lower().replace("-", "")
    return next((other for other in known if other.replace("-", "") == plain), name)


def check_model(name: str) -> str:
    """The whole name of a model with weights at hand (a tracker alone means its tiny size), or the path.

    Raises:
        ModelNotFound: ``name`` is neither a file nor such a model.
    """
    path = Path(name)
    if path.is_file():
        return name
    if path.suffix == ".safetensors" or path.name != name:
        raise ModelNotFound(
            f"there are no weights at {shown(name)}.", hint="Check the path, or: vltrack models."
        )
    known = model_names()
    whole = meant(name, known)
    if whole not in known:
        whole = meant(f"{name}-tiny", known)  # as models.split_name
    if whole not in known:
        raise ModelNotFound(f"no model is called {shown(name)!r}.", hint=nearest(name, known))
    if known[whole] is None:
        at_hand = [other for other, file in known.items() if file is not None]
        hint = f"At hand: {', '.join(at_hand)}. Others come in by vltrack train or vltrack import-weights."
        raise ModelNotFound(f"no weights for {whole} ship with vltrack.", hint=hint)
    return whole


TABLES = (".csv", ".json")
VIDEOS = (".mp4",)
SHEETS = (".png",)
OUTPUTS = TABLES + VIDEOS + SHEETS
_BOX_LIKE = re.compile(r"[-+0-9.eE\s]+(,[-+0-9.eE\s]+){3}")


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedTarget:
    """One target as typed: four numbers still in the user's format and unit, a cleaned sentence, or both."""

    name: str
    box: tuple[float, float, float, float] | None = None
    text: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Everything that ``vltrack track`` was asked for, checked as far as that goes without opening the input.

    Attributes:
        source: path, ``-``, a camera's number or an ``rtsp://`` address.
        targets: at least one, names unique.
        box_format, box_unit: how the numbers of the boxes are meant.
        start, end, stride: frames of the input; ``end`` is exclusive, None to the last.
        outputs: files to write, by extension; empty means rows on standard output.
    """

    source: str
    targets: tuple[NamedTarget, ...]
    box_format: str = "xywh"
    box_unit: str = "px"
    start: int = 0
    end: int | None = None
    stride: int = 1
    model: str = "litetrack-tiny"
    outputs: tuple[Path, ...] = ()
    overwrite: bool = False
    as_json: bool = False
    quiet: bool = False
    allow_network: bool = False
    device: str = "auto"
    threads: int | None = None
    fail_if_lost: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


def read_targets(
    *,
    text: str | None,
    boxes: Sequence[str],
    named: Sequence[str],
    box_format: str,
    allow_empty_text: bool = False,
) -> tuple[tuple[NamedTarget, ...], tuple[str, ...]]:
    """Targets from ``--text``, ``--box`` and ``--target``; and warnings.

    Raises:
        UsageError: none given, several ``--box``, ``--target`` mixed with the others, a name used twice.
        PromptEmpty, PromptInvalid, PromptTooLong, BoxInvalid: what was given cannot be used.
    """
    from vltrack.prep.prompts import clean_text, parse_box

    if len(boxes) > 1:
        raise UsageError(
            f"--box was given {len(boxes)} times; it names one target.",
            hint='Several targets are written --target "1:120,40,60,80" --target "2:the dog".',
        )
    if named:
        if text is not None or boxes:
            raise UsageError(
                "--target cannot be mixed with --text or --box.", hint="Write every target as --target."
            )
        return _read_named(named, box_format), ()
    if text is None and not boxes:
        raise UsageError(
            "nothing says what to follow: --text and --box are both missing.",
            hint='Give --text "the white car", --box x,y,w,h, or both.',
        )
    warnings: tuple[str, ...] = ()
    sentence: str | None = None
    if text is not None:
        try:
            sentence = clean_text(text)
        except PromptEmpty:
            if not (allow_empty_text and boxes):
                raise
            warnings = ("the sentence has no word in it; only the box is used.",)
    box = parse_box(boxes[0], box_format) if boxes else None
    return (NamedTarget(name="1", box=box, text=sentence),), warnings


def _read_named(named: Sequence[str], box_format: str) -> tuple[NamedTarget, ...]:
    """``NAME:value`` where the value is four numbers or a sentence; the same name twice joins one of each."""
    from vltrack.prep.prompts import clean_text, parse_box

    found: dict[str, NamedTarget] = {}
    for item in named:
        name, colon, value = item.partition(":")
        name = name.strip()
        if not colon or not name:
            raise UsageError(
                f"--target {shown(item[:80])!r} has no name.",
                hint='Write --target "1:the dog" or "2:120,40,60,80".',
            )
        if not name.isprintable() or len(name) > 64:
            raise UsageError(f"the target's name {shown(name[:80])!r} is not up to 64 printable characters.")
        known = found.get(name, NamedTarget(name=name))
        is_box = _BOX_LIKE.fullmatch(value.strip()) is not None
        if (known.box if is_box else known.text) is not None:
            raise UsageError(
                f"the target {shown(name)!r} was given two {'boxes' if is_box else 'sentences'}.",
                hint="Give every target its own name; the same name may join one box and one sentence.",
            )
        found[name] = NamedTarget(
            name=name,
            box=parse_box(value, box_format) if is_box else known.box,
            text=known.text if is_box else clean_text(value),
        )
    return tuple(found.values())


def check_mode(mode: str | None, targets: Sequence[NamedTarget]) -> None:
    """``--mode`` only checks that what it promises was given. Raises ``UsageError`` naming the flag."""
    if mode is None:
        return
    wants = {"nl": (False, True), "bbox": (True, False), "nlbbox": (True, True)}
    if mode not in wants:
        raise UsageError(
            f"unknown mode {shown(mode)!r}.", hint="Use nl, bbox or nlbbox; or leave --mode out."
        )
    for target in targets:
        flags = [("--box", wants[mode][0], target.box), ("--text", wants[mode][1], target.text)]
        for flag, wanted, given in flags:
            if wanted and given is None:
                raise UsageError(f"--mode {mode} needs {flag}, which is missing.")
        for flag, wanted, given in flags:
            if not wanted and given is not None:
                raise UsageError(
                    f"--mode {mode} does not take {flag}, which was given.", hint="Leave one of them out."
                )


def check_outputs(outputs: Sequence[Path], source: str, *, overwrite: bool) -> None:
    """Every output can be written, is no input, and destroys nothing that was not released (row V23).

    Raises:
        UsageError: an unknown extension, a path given twice, an output that is the input or exists already.
        ResourceError: the folder is missing or cannot be written.
    """
    seen: set[Path] = set()
    for path in outputs:
        if path.suffix.lower() not in OUTPUTS:
            raise UsageError(
                f"-o {shown(path)} has the extension {shown(path.suffix)!r}.",
                hint=f"Use one of {', '.join(OUTPUTS)}.",
            )
        place = path.parent.resolve() / path.name
        if place in seen:
            raise UsageError(f"-o {shown(path)} was given twice.")
        seen.add(place)
        _check_not_input(path, source)
        check_writable(path, overwrite=overwrite)


def _check_not_input(path: Path, source: str) -> None:
    origin = Path(source)
    if source == "-" or not origin.exists():
        return
    if path.exists() and path.samefile(origin):
        raise UsageError(f"-o {shown(path)} is the input itself.", hint="Choose another name.")
    if origin.is_dir() and path.parent.exists() and path.parent.samefile(origin):
        raise UsageError(
            f"-o {shown(path)} lies among the input's own pictures.",
            hint="Choose a folder that is not the input.",
        )


def check_writable(path: Path, *, overwrite: bool) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise ResourceError(
            f"cannot write {shown(path)}: its folder does not exist.", hint=f"Create {shown(folder)} first."
        )
    if path.is_dir():
        raise ResourceError(f"cannot write {shown(path)}: it is a folder.", hint="Choose another name.")
    if path.exists() and not overwrite:
        raise UsageError(f"{shown(path)} exists already.", hint="Add --overwrite to replace it.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(
            f"cannot write {shown(path)}: permission denied.", hint="Choose a folder that you may write to."
        )


def check_choice(flag: str, value: str, known: Sequence[str]) -> None:
    """Raises ``UsageError`` where ``value`` is not one of the words that ``flag`` takes."""
    if value not in known:
        raise UsageError(f"{flag} {shown(value)!r} is unknown.", hint=nearest(value, known))


def check_range(start: int, end: int | None, stride: int) -> None:
    """Raises ``UsageError`` where the range of frames is empty or runs backwards."""
    if start < 0:
        raise UsageError(f"--start {start} is negative; frames count from 0.")
    if stride < 1:
        raise UsageError(f"--stride {stride} is below 1.")
    if end is not None and end <= start:
        raise UsageError(f"--end {end} is not after --start {start}; the end is exclusive.")


def read_settings(items: Sequence[str], prefix: str = "") -> dict[str, str]:
    """``--set policy.window=0.4`` -> ``{"window": "0.4"}`` with the prefix ``policy.``.

    Raises:
        UsageError: no ``=``, another prefix, or a key given twice.
    """
    settings: dict[str, str] = {}
    for item in items:
        path, equals, text = item.partition("=")
        key = path.strip().removeprefix(prefix)
        if not equals or not key or not path.strip().startswith(prefix):
            raise UsageError(f"--set {shown(item)!r} is not {prefix}key=value.")
        if key in settings:
            raise UsageError(f"--set {prefix}{shown(key)} was given twice.")
        settings[key] = text.strip()
    return settings


def read_value(raw: str) -> object:
    """One value of a setting: true, false, none, an integer, a number, else the text itself."""
    words: dict[str, object] = {"true": True, "false": False, "none": None}
    if raw.lower() in words:
        return words[raw.lower()]
    for kind in (int, float):
        try:
            return kind(raw)
        except ValueError:
            continue
    return raw

"""Checks of the arguments that several verbs share: models, targets, outputs, settings.

Every check costs microseconds, so that a wrong argument is reported before torch or a video is loaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltrack.checkpoints.cards import find_file, known_name, model_names
from vltrack.checkpoints.outside import Outside, find_outside
from vltrack.core.errors import ConfigError, PromptEmpty, ResourceError, UsageError, did_you_mean
from vltrack.core.files import printable, remove_leftovers
from vltrack.models import ModelCard

if TYPE_CHECKING:
    from vltrack.core.track import Track
    from vltrack.core.types import BoxLike, Target
    from vltrack.tracking.postprocess import Policy
    from vltrack.video.base import SourceInfo

DEVICES = ("auto", "cpu", "cuda", "mps")
QUOTES = 'A sentence with blanks is written in quotes: --text "the white car".'
SHORT = ("refuse", "misses", "cut")
TABLES, VIDEOS, SHEETS, EXPORTS = (".csv", ".json"), (".mp4", ".gif"), (".png",), (".xml",)
PLACE = re.compile(r"\{(name|parent|file)\}")
"""What the name of an output takes from its video."""
_BOX_LIKE = re.compile(r"[\[(]?[-+.eE\d]+([\s,;]+[-+.eE\d]+)+[])]?")


# -- models -------------------------------------------------------------------------------------------


def check_model(name: str | os.PathLike[str]) -> str:
    """Return the full name of a model with weights (a tracker's name alone means its tiny size), or the path.

    Of a tracker from outside the package: what names it from any folder. Raises ``TypeError``, ``ModelNotFound``,
    ``CheckpointUnsafe`` or ``UsageError``: see ``checkpoints.cards.find_file``.
    """
    if isinstance(name, str) and (outside := find_outside(name)):
        if isinstance(outside.made, ModelCard):
            find_file(outside.weights())
        return outside.spec
    file = find_file(Path(name) if isinstance(name, str) else name)
    path = Path(name)
    return os.fspath(name) if path.is_file() or file == path or len(path.parts) > 1 else file.stem


def runs_itself(model: str) -> Outside | None:
    """Return the tracker from outside the package that a checked ``model`` is, with an init and update of its own."""
    outside = find_outside(model)
    return None if outside is None or isinstance(outside.made, ModelCard) else outside


def read_models(models: Sequence[str] | None, more: Sequence[str] | None) -> list[str]:
    """Return the words after ``--models``; ``more`` are those without a flag. Raises ``UsageError``."""
    known = model_names()
    for word in more or () if not models else ():
        is_name = any(known_name(one, known) in known for one in (word, f"{word}-tiny"))
        if not is_name and not word.endswith(".safetensors") and find_outside(word) is None:
            raise UsageError(f"{printable(word)!r} is not a model, and no flag takes it.", hint=QUOTES)
    if more and Path(more[-1]).exists() and not more[-1].endswith(".safetensors"):
        raise UsageError(
            f"{printable(more[-1])!r} is not a model.", hint="The input comes first: vltrack compare INPUT --models ..."
        )
    return [*(models or ()), *(more or ())]


def as_paths(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Return one path or several as a list."""
    return [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def named_path(word: str) -> tuple[str, Path]:
    """Return name and path of ``NAME=PATH``; the name is "" where the whole word is an existing path."""
    name, _, path = word.partition("=")
    whole = not name or not path or ":" in name or Path(word).exists()
    return ("", Path(word)) if whole else (name, Path(path))


# -- targets ------------------------------------------------------------------------------------------


def one_target(box: BoxLike | None, text: str | None) -> dict[str, Target]:
    """Return the target that ``box`` and ``text`` name, as ``1``. Raises ``UsageError`` without either."""
    from vltrack.core.types import Target

    if box is None and text is None:
        raise UsageError(
            "Nothing says what to follow: neither a text nor a box is given.",
            hint='Give --text "the white car", --box x,y,w,h, or both (text=, box= in Python).',
        )
    return {"1": Target(box=box, text=text)}


def check_targets(targets: Mapping[str, Target]) -> dict[str, Target]:
    """Return the targets. Raises ``TypeError`` for one that is no ``Target``."""
    from vltrack.core.types import Target

    if not isinstance(targets, Mapping) or not all(isinstance(name, str) for name in targets):
        raise TypeError(f"targets must be a dict of Target by name (str), not {targets!r:.80}.")
    if not targets:
        raise UsageError("targets names no target.")
    for name, target in targets.items():
        if not isinstance(target, Target):
            raise TypeError(f"targets[{name!r}] must be a Target (box=, text=), not {type(target).__name__}.")
    return dict(targets)


def pixel_targets(targets: Mapping[str, Target], box_format: str, box_unit: str, info: SourceInfo) -> dict[str, Target]:
    """Return the targets with boxes as x, y, w, h in pixels of the frame, and cleaned text.

    Raises:
        BoxInvalid, BoxOutside, PromptEmpty, PromptInvalid, PromptTooLong: see ``prep.prompts``.
    """
    from vltrack.core.types import Target
    from vltrack.prep.prompts import check_box, clean_text, convert_box

    found: dict[str, Target] = {}
    for name, target in targets.items():
        box = target.box
        if box is not None:
            box = convert_box(box, box_format, box_unit, info.width, info.height)
            check_box(box, info.width, info.height)
        found[name] = Target(box=box, text=None if target.text is None else clean_text(target.text))
    return found


def read_targets(
    text: str | None,
    boxes: Sequence[str] | None,
    named: Sequence[str] = (),
    *,
    box_format: str = "xywh",
    allow_empty_text: bool = False,
    warn: Callable[[str], None],
) -> dict[str, Target]:
    """Return the targets that ``--text``, ``--box`` and ``--target`` name; ``warn`` takes a warning.

    Raises:
        UsageError: none given, several ``--box``, ``--target`` mixed with the others, a name used twice.
        PromptEmpty, PromptInvalid, PromptTooLong, BoxInvalid: a text or a box cannot be used.
    """
    from vltrack.prep.prompts import clean_text, parse_box

    boxes = boxes or ()
    if len(boxes) > 1:
        raise UsageError(
            f"--box was given {len(boxes)} times; it names one target.",
            hint='Several targets are written --target "1:120,40,60,80" --target "2:the dog".',
        )
    if named:
        if text is not None or boxes:
            raise UsageError("--target cannot be mixed with --text or --box.", hint="Write every target as --target.")
        return _read_named(named, box_format)
    if text is not None:
        try:
            text = clean_text(text)
        except PromptEmpty:
            if not (allow_empty_text and boxes):
                raise
            text = None
            warn("the text has no word in it; only the box is used.")
    return one_target(parse_box(boxes[0], box_format) if boxes else None, text)


def _read_named(named: Sequence[str], box_format: str) -> dict[str, Target]:
    """Read ``NAME:value``, the value four numbers or a text; the same name twice joins one of each."""
    from vltrack.core.types import Target
    from vltrack.prep.prompts import clean_text, parse_box

    found: dict[str, Target] = {}
    for item in named:
        name, colon, value = item.partition(":")
        name = name.strip()
        if not colon or not name:
            raise UsageError(
                f"--target {printable(item[:80])!r} has no name.",
                hint='Write --target "1:the dog" or "2:120,40,60,80".',
            )
        if not name.isprintable() or len(name) > 64:
            raise UsageError(f"The target name {printable(name[:80])!r} is not 1 to 64 printable characters.")
        known = found.get(name, Target())
        # Several numbers, whatever parts them; one alone may be what is written on the target.
        is_box = _BOX_LIKE.fullmatch(value.strip()) is not None and any(map(str.isdigit, value))
        if (known.box if is_box else known.text) is not None:
            raise UsageError(
                f"The target {printable(name)!r} was given two {'boxes' if is_box else 'texts'}.",
                hint="Give every target its own name; the same name may join one box and one text.",
            )
        found[name] = Target(
            box=parse_box(value, box_format) if is_box else known.box, text=known.text if is_box else clean_text(value)
        )
    return found


def check_mode(mode: str | None, targets: Mapping[str, Target]) -> None:
    """Check that every target is named as ``--mode`` says. Raises ``UsageError`` with the flag at fault."""
    from vltrack.core.types import Mode

    if mode is None:
        return
    check_choice("--mode", mode, tuple(Mode))
    for target in targets.values():
        flags = (("--box", mode != Mode.NL, target.box), ("--text", mode != Mode.BBOX, target.text))
        for flag, wanted, given in flags:
            if wanted and given is None:
                raise UsageError(f"--mode {mode} needs {flag}, which is missing.")
        for flag, wanted, given in flags:
            if not wanted and given is not None:
                raise UsageError(f"--mode {mode} does not take {flag}, which was given.", hint="Leave one of them out.")


def read_text(texts: Sequence[str] | None, text_file: Path | None, line: int | None) -> str | None:
    """Return ``--text``, or line ``--line`` of ``--text-file``. Raises ``UsageError`` for both, or several."""
    if texts and len(texts) > 1:
        raise UsageError(
            f"--text was given {len(texts)} times; it names one target.",
            hint='Several targets are written --target "1:the dog" --target "2:the white car".',
        )
    text = texts[0] if texts else None
    if text_file is None:
        if line is not None:
            raise UsageError("--line belongs to --text-file, which is missing.")
        return text
    if text is not None:
        raise UsageError("--text and --text-file both give a text.", hint="Leave one of them out.")
    from vltrack.prep.prompts import read_prompt_file

    return read_prompt_file(text_file, 1 if line is None else line)


def demo_clip() -> tuple[Path, Target]:
    """Return the clip that ships, with the target that its card names by a box and a text."""
    from vltrack.core.types import Target

    folder = Path(__file__).resolve().parent.parent / "clips"
    card = json.loads((folder / "car-shadow.json").read_text(encoding="utf-8"))
    x, y, w, h = (float(number) for number in card["box"])
    return folder / card["file"], Target(box=(x, y, w, h), text=card["text"])


# -- choices and settings -----------------------------------------------------------------------------


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Raise ``UsageError`` where ``value`` of the argument ``name`` is not a known one."""
    if value not in known:
        raise UsageError(f"{name} {printable(value)!r} is unknown.", hint=did_you_mean(value, known))


def check_modes(modes: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the modes as plain text. Raises ``UsageError`` for an unknown or repeated one, or for none."""
    for mode in modes:
        check_choice("modes", mode, known)
    if not modes or len(set(modes)) < len(modes):
        raise UsageError(f"Repeated or no modes: {','.join(modes)!r}. Name each of {','.join(known)} at most once.")
    return tuple(map(str, modes))


def read_list(text: str | None) -> tuple[str, ...] | None:
    """Read ``nl,nlbbox`` as a tuple; None stays None."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def read_time(text: str | None) -> float | int | None:
    """Read ``12.5s`` and ``1:02.5`` (minutes, or hours, before it) as seconds, ``300`` as the number of a frame.

    Raises ``UsageError``.
    """
    if text is None:
        return None
    try:
        if clock := re.fullmatch(r"(?:(\d+):)?(\d+):([0-5]?\d(?:\.\d*)?)s?", text, re.ASCII):
            return 3600.0 * int(clock[1] or 0) + 60.0 * int(clock[2]) + float(clock[3])
        return float(text[:-1]) if text.endswith("s") else int(text)
    except ValueError:
        hint = "Write seconds as 12.5s or 0:12.5, or the number of a frame as 300."
        raise UsageError(f"--at {printable(text)!r} is not a time or a frame.", hint=hint) from None


def video_of(track: Track, source: Any = None) -> Any:
    """Return the source, by default the video that the track names. Raises ``UsageError`` where it names none."""
    source = track.meta.get("source", "") if source is None else source
    if source == "":
        raise UsageError("The track does not name its video.", hint="Give the video after the track, or as source.")
    return source


def check_video_of(track: Track, info: SourceInfo, frames: int | None = None) -> None:
    """Raise ``UsageError`` where a track is not of a video: by its size, or by how many ``frames`` it has."""
    size = {"width": info.width, "height": info.height}
    was = {key: track.meta.get(key, value) for key, value in size.items()}
    last = int(track.indices[-1]) if len(track) else 0
    found = f"{size['width']}x{size['height']} pixels, the video of the track had {was['width']}x{was['height']}"
    if was == size and frames is not None and last >= frames:
        found = f"{frames} frames, and the track goes on to frame {last}"
    elif was == size:
        return
    raise UsageError(f"{printable(info.name)} has {found}.", hint="Give what was tracked.")


def check_range(start: int, end: int | None, stride: int) -> tuple[int, int | None, int]:
    """Return the range of frames as plain integers.

    Raises:
        TypeError: a number is not whole; integers of numpy are.
        UsageError: the range is empty or runs backwards.
    """
    from vltrack.core.types import whole

    start, stride = whole("start", start), whole("stride", stride)
    end = None if end is None else whole("end", end)
    if start < 0:
        raise UsageError(f"The start {start} is negative; frames count from 0.")
    if stride < 1:
        raise UsageError(f"The stride {stride} is below 1.")
    if end is not None and end <= start:
        raise UsageError(f"The end {end} is not after the start {start}; the end is exclusive.")
    return start, end, stride


def check_options(
    box_format: str, box_unit: str, device: str, threads: int | None = None, progress: object = None
) -> None:
    """Raise ``UsageError`` for an unknown format or unit of boxes, an unknown device, or a wrong number of threads.

    ``TypeError``: a number of threads that is not whole, or ``progress`` that is not a function.
    """
    from vltrack.core.threads import check_threads

    check_threads(threads)
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be a function of two numbers, not {type(progress).__name__}.")
    check_choice("box format", box_format, ("xywh", "xyxy", "cxcywh"))
    check_choice("box unit", box_unit, ("px", "rel"))
    check_choice("device", device, DEVICES)


def check_effects(names: Sequence[str], outputs: Sequence[Path]) -> None:
    """Raise ``UsageError`` for an unknown effect of videos, or for one without a video among the outputs."""
    from vltrack.plots.effects import EFFECTS

    for name in (names,) if isinstance(names, str) else names:
        check_choice("effect", name, EFFECTS)
        if not any(path.suffix.lower() in VIDEOS for path in outputs):
            raise UsageError(f"{name} (--{name}) changes a video, and none is written.", hint="Name it: -o seen.mp4.")


def check_policy(policy: Policy | Mapping[str, Any] | None) -> None:
    """Raise ``UsageError`` for an unknown option (with the nearest one) or a value out of range."""
    from vltrack.tracking.postprocess import Policy

    try:
        if not isinstance(policy, Policy):
            Policy().changed(policy or {})
    except ConfigError as error:
        raise UsageError(error.message, hint=error.hint) from error


def read_settings(items: Sequence[str] | None, prefix: str = "") -> dict[str, str]:
    """Read ``--set policy.window=0.4`` as ``{"window": "0.4"}`` with the prefix ``policy.``. Raises ``UsageError``."""
    settings: dict[str, str] = {}
    for item in items or ():
        path, equals, text = item.partition("=")
        key = path.strip().removeprefix(prefix)
        if not equals or not key or not path.strip().startswith(prefix):
            raise UsageError(f"--set {printable(item)!r} is not {prefix}key=value.")
        if key in settings:
            raise UsageError(f"--set {prefix}{printable(key)} was given twice.")
        settings[key] = text.strip()
    return settings


def read_policy(items: Sequence[str] | None) -> dict[str, object]:
    """Read ``--set policy.key=value``; values become true, false, none, an integer, a number, else text."""
    return {key: _value(text) for key, text in read_settings(items, "policy.").items()}


def read_tries(items: Sequence[str] | None) -> list[list[dict[str, object]]] | None:
    """Read ``window=0.2,0.4;penalty=0,0.1`` as alternatives of which each changes both. Raises ``UsageError``."""
    groups = []
    for item in items or ():
        pairs = [part.partition("=") for part in item.split(";")]
        values = [[_value(text) for text in right.split(",")] for _, _, right in pairs]
        if not all(equals for _, equals, _ in pairs) or len({len(one) for one in values}) != 1:
            raise UsageError(
                f"--try {printable(item)!r} is not KEY=VALUE,VALUE.", hint="Write window=0.2,0.35, or a=1,2;b=3,4."
            )
        keys = [key.strip().removeprefix("policy.") for key, _, _ in pairs]
        groups.append([dict(zip(keys, chosen, strict=True)) for chosen in zip(*values, strict=True)])
    return groups or None


def _value(raw: str) -> object:
    words: dict[str, object] = {"true": True, "false": False, "none": None}
    if raw.lower() in words:
        return words[raw.lower()]
    for kind in (int, float):
        try:
            return kind(raw)
        except ValueError:
            continue
    return raw


# -- outputs ------------------------------------------------------------------------------------------


def is_folder(output: Path) -> bool:
    """Whether an output names a folder of results: it is one, or does not exist, without the extension of a file."""
    if output.suffix.lower() in TABLES + VIDEOS + SHEETS + EXPORTS:
        return False
    return output.is_dir() or not (output.suffix or output.exists())


def is_for_many(outputs: Sequence[Path]) -> bool:
    """Whether the outputs have one file per video: a folder, or a name with ``{name}``."""
    return any(is_folder(path) or PLACE.search(os.fspath(path)) for path in outputs)


def check_outputs(outputs: Sequence[Path], source: object, *, overwrite: bool) -> None:
    """Check that every output can be written, is not the input and replaces nothing (docs/faults.md, V23).

    Raises:
        UsageError: an unknown extension, a path given twice, an output that is the input or exists already.
        ResourceError: the folder is missing or cannot be written.
    """
    known = TABLES + VIDEOS + SHEETS + EXPORTS
    seen: set[Path] = set()
    for path in outputs:
        if path.suffix.lower() not in known:
            raise UsageError(
                f"The output {printable(path)} has the unknown extension {printable(path.suffix)!r}.",
                hint=f"Use one of {', '.join(known)}.",
            )
        place = Path(os.path.realpath(path))
        if place in seen:
            raise UsageError(f"The output {printable(path)} was given twice.")
        seen.add(place)
        if isinstance(source, str | os.PathLike):
            _check_not_input(path, os.fspath(source))
        check_writable(path, overwrite=overwrite)


def _check_not_input(path: Path, source: str) -> None:
    origin = Path(source)
    if source == "-" or not origin.exists():
        return
    if path.exists() and path.samefile(origin):
        raise UsageError(f"The output {printable(path)} is the input itself.", hint="Choose another name.")
    if origin.is_dir() and path.parent.exists() and path.parent.samefile(origin):
        raise UsageError(
            f"The output {printable(path)} is in the folder of the input's images.",
            hint="Choose a folder that is not the input.",
        )


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Raise ``ResourceError`` or ``UsageError`` where the file cannot be written or would be replaced.

    What a killed run has left of it is removed.
    """
    folder = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
    if not folder.is_dir():
        raise ResourceError(
            f"Cannot write {printable(path)}: its folder does not exist.", hint=f"Create {printable(folder)} first."
        )
    if path.is_dir():
        raise ResourceError(f"Cannot write {printable(path)}: it is a folder.", hint="Choose another name.")
    if path.exists() and not path.is_file():
        raise ResourceError(f"Cannot write {printable(path)}: it is not a file.", hint="Choose another name.")
    if path.exists() and not overwrite:
        raise UsageError(f"{printable(path)} exists already.", hint="Pass overwrite (--overwrite) to replace it.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(
            f"Cannot write {printable(path)}: permission denied.", hint="Choose a folder that you may write to."
        )
    remove_leftovers(path)


def check_folder(folder: Path, names: Iterable[str] = (), *, overwrite: bool = False) -> None:
    """Check that ``names`` can be written into a folder, which need not exist yet."""
    if folder.is_dir():
        for name in names:
            check_writable(folder / name, overwrite=overwrite)
    elif folder.exists():
        raise ResourceError(f"Cannot write to {printable(folder)}: it is a file.", hint="Choose another (--out).")


def check_empty(folder: Path, hint: str) -> None:
    """Raise ``UsageError`` with ``hint`` where the folder exists and holds something."""
    check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{printable(folder)} is not empty.", hint=hint)


def make_folder(folder: Path) -> Path:
    """Create the folder where it does not exist. Raises ``ResourceError``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"Cannot create the folder {printable(folder)}: {error.strerror}.", hint="Choose another (--out)."
        ) from error
    return folder


@contextmanager
def new_folder(folder: Path | None) -> Iterator[None]:
    """Create the folder for the block; one that was created and stayed empty is removed again."""
    if folder is None:
        yield
        return
    existed = folder.is_dir()
    make_folder(folder)
    try:
        yield
    finally:
        if not existed and not any(folder.iterdir()):
            folder.rmdir()

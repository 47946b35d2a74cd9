"""Other people's weights become ours: read, recognised, mapped onto the network of a name, written.

Nothing is skipped in silence: a tensor of a file is loaded, or known to have no place with us, or left out by
the user; a parameter of ours comes from a file or stands in the card as fresh. Which names mean what is known
to ``sources``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vltrack.checkpoints import store
from vltrack.checkpoints.key_maps import KeyMap, initialise
from vltrack.checkpoints.sources import MODES, SOURCES, Fit, Source, bare, fit, partial_map
from vltrack.checkpoints.torch_files import extract_tensors, read_foreign
from vltrack.core.errors import (
    CheckpointCorrupt,
    CheckpointMismatch,
    CheckpointNonFinite,
    ModelNotFound,
    TokenizerMismatch,
    UsageError,
)
from vltrack.core.files import sha256_of
from vltrack.models import build, config_of, split_name

SEED = 0
"""Of what no file brings: the same files give the same bytes."""
# What training loops keep beside the network; never part of one.
_TRAINING = re.compile(r"(optimizer|lr_scheduler|scaler|stats|settings)(\..+)?")
# Of batch norm, in training alone.
_COUNTS = ".num_batches_tracked"
_WORDS = ("embeddings.word_embeddings.weight", "token_embedding.weight")


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one file brought.

    Attributes:
        file, sha256, bytes: its name without the folder, and what was in it.
        kind: key of ``SOURCES``; ``title`` is the key map's.
        loaded: names of ours that it set.
        ignored: names of its tensors that have no place with us, or were left out by ``partial``.
        number_types: of its tensors, before they were cast to the network's; name -> how many.
        prepared: what was done to its tensors before, in words; often nothing.
    """

    file: str
    sha256: str
    bytes: int
    kind: str
    title: str
    licence: str
    loaded: tuple[str, ...]
    ignored: tuple[str, ...]
    number_types: dict[str, int]
    prepared: str


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What came of it: the weights, the parts, what is fresh, and whether it is a tracker or only a start."""

    path: Path
    parts: tuple[Part, ...]
    kept_fresh: tuple[str, ...]
    modes: tuple[str, ...]
    complete: bool


@dataclass(kw_only=True)
class _Work:
    """The network under way."""

    name: str
    model: Any
    partial: tuple[str, ...]
    extract: bool
    set_by: dict[str, str] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)

    @property
    def wrappers(self) -> tuple[str, ...]:
        """Those of ``partial`` that leave out a whole network of a file with several, such as ``model.``."""
        return tuple(prefix for prefix in self.partial if not bare(prefix))


def import_weights(
    files: Sequence[Path],
    name: str,
    out: Path,
    *,
    kinds: Sequence[str] = (),
    partial: Sequence[str] = (),
    extract: bool = False,
    vocabulary_sha256: str | None = None,
) -> Imported:
    """Write weights of ours from foreign files.

    Args:
        files: ``.pth``, ``.pt``, ``.safetensors`` or ``.npz``; several fill one network together.
        name: which of our networks, such as ``litetrack-base``.
        out: the ``.safetensors`` file to write; its card goes beside it.
        kinds: keys of ``SOURCES``, one a file; none where the names in the files tell.
        partial: beginnings of names, ours or theirs, that are left as they are or left out.
        extract: read nothing but tensors from files that hold other things, too.
        vocabulary_sha256: of the vocabulary for sentences, for the card.

    Raises:
        UsageError: an unknown kind, too few kinds, one ``partial`` that no name begins with.
        ModelNotFound: no network or no file of that name.
        CheckpointUnsafe, CheckpointCorrupt: see ``foreign`` and ``extract``; or a file changed meanwhile.
        CheckpointMismatch: a file that does not fit, or fits in two ways; two files with the same parameters.
        TokenizerMismatch: a word table with another number of rows.
        CheckpointNonFinite: NaN or infinity.
        ResourceError: the weights cannot be written; what was there is still there.
    """
    card, size = split_name(name)
    _check_request(files, name, kinds, partial)
    # What no file brings is drawn here; the caller's random numbers must not notice.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = build(card, config_of(card, size)).eval()
    work = _Work(name=name, model=model, partial=tuple(partial), extract=extract)
    parts = tuple(_bring(work, file, kinds[number] if kinds else None) for number, file in enumerate(files))
    for prefix in work.partial:
        if prefix not in work.met:
            raise UsageError(f"no name begins with {prefix!r} (--partial).")
    fresh = tuple(key for key in model.state_dict() if key not in work.set_by)
    modes = _modes(work, parts, fresh)
    done = Imported(path=out, parts=parts, kept_fresh=fresh, modes=modes, complete=bool(modes))
    store.save(out, model, tracker=card.name, size=size, card=_card(done, work, vocabulary_sha256))
    return done


def _check_request(files: Sequence[Path], name: str, kinds: Sequence[str], partial: Sequence[str]) -> None:
    """The cheap mistakes, before any file is opened."""
    fitting = [kind for kind, source in SOURCES.items() if name in source.maps]
    if not fitting:
        known = sorted({own for source in SOURCES.values() for own in source.maps})
        raise UsageError(f"no published weights fit {name}.", hint=f"They fit {', '.join(known)}.")
    if kinds and len(kinds) != len(files):
        raise UsageError(f"there are {len(files)} files and {len(kinds)} kinds; give one for each file.")
    for kind in kinds:
        if kind not in fitting:
            raise UsageError(
                f"{kind!r} is no kind of weights for {name}.", hint=f"Known: {', '.join(fitting)}."
            )
    if "" in partial:
        raise UsageError("an empty --partial would leave out everything.")
    for file in files:
        if not file.exists():
            raise ModelNotFound(f"there is no file {file}.", hint="Nothing is downloaded: fetch it first.")


def _bring(work: _Work, file: Path, kind: str | None) -> Part:
    """One file into the network; its tensors are forgotten before the next is read."""
    tensors, sha256, size = _read(file, extract=work.extract)
    left_out = {n: t for n, t in tensors.items() if _TRAINING.fullmatch(n) or n.startswith(work.wrappers)}
    given = _unwrapped({name: tensor for name, tensor in tensors.items() if name not in left_out}, file)
    kind, keymap, prepared = _choose(work, file, given, kind)
    source = SOURCES[kind]
    own = work.model.state_dict()
    _check_words(keymap, own, prepared, file)
    twice = [name for name in own if name in work.set_by and keymap.published(name) is not None]
    if twice:
        raise CheckpointMismatch(
            f"{file} and {work.set_by[twice[0]]} both hold {len(twice)} parameters "
            f"(first: {', '.join(twice[:10])}).",
            hint="Give one of them, or leave these out of both with --partial and give them alone.",
        )
    try:
        report = initialise(work.model, prepared, keymap)
    except (CheckpointMismatch, CheckpointNonFinite) as error:
        raise type(error)(f"{file}: {error.message}", hint=error.hint or _wanted(work)) from None
    work.set_by.update(dict.fromkeys(report.loaded, str(file)))
    names = (*own, *given, *map(keymap.current, given))
    for prefix in work.partial:
        known, begin = (tensors, prefix) if prefix in work.wrappers else (names, bare(prefix))
        if any(name.startswith(begin) for name in known):
            work.met.add(prefix)
    return Part(
        file=file.name,
        sha256=sha256,
        bytes=size,
        kind=kind,
        title=keymap.title,
        licence=source.licence,
        loaded=report.loaded,
        ignored=(*report.ignored, *left_out),
        number_types=dict(Counter(str(t.dtype).removeprefix("torch.") for t in given.values())),
        prepared=source.prepared,
    )


def _unwrapped(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """By the network's own names. CheckpointMismatch: two of one name, as in a file with two networks."""
    first: dict[str, str] = {}
    for name in tensors:
        own = bare(name)
        if own in first:
            begins = (given.removesuffix(own) for given in (first[own], name))
            raise CheckpointMismatch(
                f"{file} holds two networks: {first[own]} and {name}.",
                hint=f"Leave one out by how it begins: --partial {max(begins, key=len)}",
            )
        first[own] = name
    return {own: tensors[name] for own, name in first.items()}


def _wanted(work: _Work) -> str:
    """What fits, in a sentence."""
    config = work.model.config
    return (
        f"{work.name} has a width of {config.width}, templates of {config.template_size} pixels and search "
        f"regions of {config.search_size}."
    )


def _read(file: Path, *, extract: bool) -> tuple[dict[str, Tensor], str, int]:
    """The tensors, sha256 and size of a file that stays the same meanwhile."""
    try:
        before = file.stat()
        sha256 = sha256_of(file) if file.is_file() else ""
        if extract and file.suffix.lower() not in (".safetensors", ".npz"):
            tensors = extract_tensors(file, wanted=lambda name: not _TRAINING.fullmatch(name))
        else:
            tensors = read_foreign(file)
        after = file.stat()
    except OSError as error:
        raise CheckpointCorrupt(f"{file} cannot be read ({error.strerror}).") from None
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_ino,
    ):
        raise CheckpointCorrupt(f"{file} changed while it was read.", hint="Wait until it is complete.")
    return tensors, sha256, before.st_size


def _choose(
    work: _Work, file: Path, given: Mapping[str, Tensor], kind: str | None
) -> tuple[str, KeyMap, Mapping[str, Tensor]]:
    """Kind, key map and prepared tensors: the kind that was asked for, or the only one whose names fit."""
    own = tuple(work.model.state_dict())
    candidates = {}
    for key, source in SOURCES.items():
        if work.name in source.maps and (kind == key or (kind is None and not source.asked)):
            keymap = partial_map(source.maps[work.name], own, work.partial)
            prepared = _prepare(source, given)
            candidates[key] = (
                Fit(0, 1) if prepared is None else fit(keymap, own, prepared),
                keymap,
                prepared,
            )
    fitting = [key for key, (how, _, _) in candidates.items() if how.odd == 0]
    if len(fitting) > 1:
        raise CheckpointMismatch(f"{file} could be {' or '.join(fitting)}.", hint="Say which with --kind.")
    if not fitting and kind is None:
        _refuse_other_kinds(work.name, file, given)
    # Where none fits, the nearest says what is missing and what is not expected.
    nearest = max(candidates, key=lambda key: (candidates[key][0].odd == 0, candidates[key][0].found))
    _, keymap, prepared = candidates[nearest]
    return nearest, keymap, SOURCES[nearest].ready(given) if prepared is None else prepared


def _prepare(source: Source, given: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
    """None where a tensor is missing without which nothing can be prepared."""
    try:
        return source.ready(given)
    except CheckpointMismatch:
        return None


def _refuse_other_kinds(name: str, file: Path, given: Mapping[str, Tensor]) -> None:
    """Raise ``CheckpointMismatch`` where the names are those of weights for other networks of ours only."""
    for source in SOURCES.values():
        if any(re.search(source.mark, known) for known in given):
            if name not in source.maps:
                raise CheckpointMismatch(
                    f"{file} holds {source.title} weights, which do not fit {name}.",
                    hint=f"They fit {', '.join(source.maps)}.",
                )
            return


def _check_words(keymap: KeyMap, own: Mapping[str, Tensor], given: Mapping[str, Tensor], file: Path) -> None:
    """A word table of another length belongs to another vocabulary."""
    current = {keymap.current(name): tensor for name, tensor in given.items()}
    for name, table in own.items():
        there = current.get(keymap.published(name) or "") if name.endswith(_WORDS) else None
        if there is not None and there.ndim == 2 and len(there) != len(table):
            raise TokenizerMismatch(
                f"{file} has a word table of {len(there)} rows; our vocabulary has {len(table)} pieces.",
                hint="BERT must be an uncased one." if "bert" in name else "CLIP must be OpenAI's ViT-L/14.",
            )


def _modes(work: _Work, parts: Sequence[Part], fresh: Sequence[str]) -> tuple[str, ...]:
    """How a target may be named with these weights; none where they are only a start for training."""
    sources = [SOURCES[part.kind] for part in parts]
    trained = [source for source in sources if source.trained and work.name not in source.starts]
    harmless = (*work.model.training_only, *(prefix for source in trained for prefix in source.fresh))
    if any(not name.startswith(harmless) and not name.endswith(_COUNTS) for name in fresh):
        return ()
    return tuple(mode for mode in MODES if trained and all(mode in source.trained for source in trained))


def _card(done: Imported, work: _Work, vocabulary_sha256: str | None) -> dict[str, Any]:
    """What the card tells of where the weights come from."""
    card: dict[str, Any] = {
        "complete": done.complete,
        "modes": list(done.modes),
        "imported": [
            {
                "file": part.file,
                "sha256": part.sha256,
                "bytes": part.bytes,
                "kind": part.kind,
                "key_map": part.title,
                "licence": part.licence,
                "loaded": len(part.loaded),
                "ignored": list(part.ignored),
                "number_types": part.number_types,
                **({"prepared": part.prepared} if part.prepared else {}),
            }
            for part in done.parts
        ],
        "kept_fresh": list(done.kept_fresh),
        "partial": list(work.partial),
        "seed": SEED,
    }
    if vocabulary_sha256 is not None and any(name.endswith(_WORDS[0]) for name in work.model.state_dict()):
        card["vocabulary_sha256"] = vocabulary_sha256
    return card

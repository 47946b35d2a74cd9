"""Import of published weights: read files, detect their kind, map their names onto a network of ours, write it.

Every tensor of a file is loaded, or known to have no place in our network, or left out by the user; every
parameter of ours comes from a file, or the card lists it as fresh. Tensors are read one by one: in memory are our
network and one of them, besides those of .npz files and storages that several tensors view.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vltrack.checkpoints import store
from vltrack.checkpoints.cards import refuse_other_files
from vltrack.checkpoints.key_maps import KeyMap, apply_key_map, match_names
from vltrack.checkpoints.sources import SOURCES, bare, partial_map
from vltrack.checkpoints.torch_files import Given, like, open_tensors
from vltrack.core.errors import (
    CheckpointCorrupt,
    CheckpointMismatch,
    CheckpointNonFinite,
    ModelNotFound,
    TokenizerMismatch,
    UsageError,
)
from vltrack.core.files import printable, sha256_of
from vltrack.core.types import Mode
from vltrack.models import build, config_of, split_name

SEED = 0
"""Of the parameters that no file holds: the same files give the same bytes."""
# What training loops save next to the network.
_TRAINING = re.compile(r"(optimizer|lr_scheduler|scaler|stats|settings)(\..+)?")
# Counters of batch norm, used in training only.
_COUNTS = ".num_batches_tracked"
_WORD_TABLES = ("embeddings.word_embeddings.weight", "token_embedding.weight")


@dataclass(frozen=True, kw_only=True)
class ImportedFile:
    """One imported file.

    Attributes:
        file, sha256, bytes: name without the folder, checksum, size.
        kind: key of ``SOURCES``; ``title`` is the key map's.
        license: of these weights, as their authors state it.
        loaded: names of our parameters that it set.
        ignored: names of its tensors without a place in our network, or left out by ``partial``.
        number_types: of its tensors, before they were cast to the network's: name -> how many.
        prepared: what was done to its tensors before mapping; often "".
    """

    file: str
    sha256: str
    bytes: int
    kind: str
    title: str
    license: str
    loaded: tuple[str, ...]
    ignored: tuple[str, ...]
    number_types: dict[str, int]
    prepared: str

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the card."""
        entry = {
            "file": self.file,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "kind": self.kind,
            "key_map": self.title,
            "licence": self.license,
            "loaded": len(self.loaded),
            "ignored": list(self.ignored),
            "number_types": self.number_types,
        }
        return entry | ({"prepared": self.prepared} if self.prepared else {})


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Imported weights.

    Attributes:
        path: the ``.safetensors`` file that was written.
        parts: one per imported file.
        kept_fresh: names of our parameters that no file set.
        modes: in which the tracker works: of ``nl``, ``bbox``, ``nlbbox``.
        complete: False where the weights are only a start for training.
    """

    path: Path
    parts: tuple[ImportedFile, ...]
    kept_fresh: tuple[str, ...]
    modes: tuple[str, ...]
    complete: bool


@dataclass(kw_only=True)
class _Import:
    """The network while files are loaded into it.

    ``set_by`` is parameter -> file that set it, ``met`` those of ``partial`` that begin a name.
    """

    name: str
    model: Any
    partial: tuple[str, ...]
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
    vocabulary_sha256: str | None = None,
) -> Imported:
    """Convert published weights to a ``.safetensors`` file with a card. No code in the files is run.

    Args:
        files: ``.pth``, ``.pt``, ``.safetensors`` or ``.npz``; several fill one network together.
        name: which of our networks, such as ``litetrack-base``.
        out: the ``.safetensors`` file to write; its card goes next to it.
        kinds: keys of ``SOURCES``, one per file; empty to detect them by the names in the files.
        partial: prefixes of parameter names (ours or the file's) to skip.
        vocabulary_sha256: of the vocabulary of the text encoder, for the card.

    Raises:
        UsageError: an unknown kind, too few kinds, a prefix in ``partial`` that no name has.
        ModelNotFound: no network or no file of that name.
        CheckpointUnsafe, CheckpointCorrupt: see ``open_tensors``; or a file changed while it was read.
        CheckpointMismatch: a file that does not fit, or fits in two ways; two files with the same parameters.
        TokenizerMismatch: a word table with another number of rows.
        CheckpointNonFinite: NaN or infinity.
        ResourceError: the weights cannot be written; what was there is still there.
    """
    card, size = split_name(name)
    _check_request(files, name, kinds, partial)
    # Parameters that no file holds are drawn here, without touching the caller's random state.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = build(card, config_of(card, size)).eval()
    work = _Import(name=name, model=model, partial=tuple(partial))
    parts = tuple(_load_file(work, file, kinds[number] if kinds else None) for number, file in enumerate(files))
    for prefix in work.partial:
        if prefix not in work.met:
            raise UsageError(f"No parameter name starts with {prefix!r} (--partial).")
    fresh = tuple(key for key in model.state_dict() if key not in work.set_by)
    modes = _modes(work, parts, fresh)
    record: dict[str, Any] = {
        "complete": bool(modes),
        "modes": list(modes),
        "imported": [part.to_dict() for part in parts],
        "kept_fresh": list(fresh),
        "partial": list(work.partial),
        "seed": SEED,
    }
    if vocabulary_sha256 is not None and any(key.endswith(_WORD_TABLES[0]) for key in model.state_dict()):
        record["vocabulary_sha256"] = vocabulary_sha256
    store.save(out, model, tracker=card.name, size=size, card=record)
    return Imported(path=out, parts=parts, kept_fresh=fresh, modes=modes, complete=bool(modes))


def _check_request(files: Sequence[Path], name: str, kinds: Sequence[str], partial: Sequence[str]) -> None:
    """Check the arguments before any file is opened."""
    fitting = [kind for kind, source in SOURCES.items() if name in source.maps]
    if not fitting:
        known = sorted({own for source in SOURCES.values() for own in source.maps})
        raise UsageError(f"No published weights fit {name!r}.", hint=f"Choose one of {', '.join(known)}.")
    if kinds and len(kinds) != len(files):
        raise UsageError(f"Got {len(kinds)} kinds for {len(files)} files. Give one kind per file.")
    for kind in kinds:
        if kind not in fitting:
            raise UsageError(
                f"Unknown kind of weights for {name}: {kind!r}.", hint=f"Choose one of {', '.join(fitting)}."
            )
    if "" in partial:
        raise UsageError("An empty prefix (--partial) would skip every parameter. Give its beginning.")
    for file in files:
        if not file.exists():
            raise ModelNotFound(f"No such file: {file}.", hint="Nothing is downloaded: fetch it first.")


def _load_file(work: _Import, file: Path, kind: str | None) -> ImportedFile:
    """Load one file, which must not change while it is read, into the network."""
    try:
        before = file.stat()
        sha256 = sha256_of(file) if file.is_file() else ""
        try:
            with open_tensors(file, wanted=lambda name: not _TRAINING.fullmatch(name)) as tensors:
                part = _load_tensors(work, file, kind, tensors)
        except CheckpointCorrupt:
            refuse_other_files(file)
            raise
        after = file.stat()
    except OSError as error:
        raise CheckpointCorrupt(f"Cannot read {file}: {error.strerror}.") from None
    if any(getattr(before, of) != getattr(after, of) for of in ("st_size", "st_mtime_ns", "st_ino")):
        raise CheckpointCorrupt(f"{file} changed while it was read.", hint="Wait until it is complete.")
    return replace(part, sha256=sha256, bytes=before.st_size)


def _load_tensors(work: _Import, file: Path, kind: str | None, tensors: Mapping[str, Given]) -> ImportedFile:
    """Load the tensors of a file into the network."""
    left_out = {n: t for n, t in tensors.items() if _TRAINING.fullmatch(n) or n.startswith(work.wrappers)}
    given = _unwrapped({name: tensor for name, tensor in tensors.items() if name not in left_out}, file)
    kind, keymap, prepared = _choose(work, file, given, kind)
    source = SOURCES[kind]
    own = work.model.state_dict()
    _check_word_table(keymap, own, prepared, file)
    twice = [name for name in own if name in work.set_by and keymap.published(name) is not None]
    if twice:
        raise CheckpointMismatch(
            f"{file} and {work.set_by[twice[0]]} both hold {len(twice)} parameters (first: {', '.join(twice[:10])}).",
            hint="Give one of the files, or skip these parameters of both with partial (--partial).",
        )
    try:
        report = apply_key_map(work.model, prepared, keymap)
    except (CheckpointMismatch, CheckpointNonFinite) as error:
        config = work.model.config
        sizes = (
            f"{work.name} has a width of {config.width}, templates of {config.template_size} pixels and search "
            f"regions of {config.search_size}."
        )
        raise type(error)(f"{file}: {error.message}", hint=error.hint or sizes) from None
    work.set_by.update(dict.fromkeys(report.loaded, str(file)))
    names = (*own, *given, *map(keymap.current, given))
    for prefix in work.partial:
        known, begin = (tensors, prefix) if prefix in work.wrappers else (names, bare(prefix))
        if any(name.startswith(begin) for name in known):
            work.met.add(prefix)
    return ImportedFile(
        file=file.name,
        sha256="",
        bytes=0,
        kind=kind,
        title=keymap.title,
        license=source.license,
        loaded=report.loaded,
        ignored=(*report.ignored, *left_out),
        number_types=dict(Counter(str(like(t).dtype).removeprefix("torch.") for t in given.values())),
        prepared=source.prepared,
    )


def _unwrapped(tensors: Mapping[str, Given], file: Path) -> dict[str, Given]:
    """Strip wrapper prefixes from names. CheckpointMismatch: two of one name, as of two networks."""
    first: dict[str, str] = {}
    for name in tensors:
        own = bare(name)
        if own in first:
            begins = (given.removesuffix(own) for given in (first[own], name))
            raise CheckpointMismatch(
                f"{file} holds two networks: {first[own]} and {name}.",
                hint=f"Skip one by its prefix: --partial {max(begins, key=len)}",
            )
        first[own] = name
    return {own: tensors[name] for own, name in first.items()}


def _choose(
    work: _Import, file: Path, given: Mapping[str, Given], kind: str | None
) -> tuple[str, KeyMap, Mapping[str, Given]]:
    """Return kind, key map and prepared tensors: of the requested kind, or the only one that fits."""
    own = tuple(work.model.state_dict())
    candidates: dict[str, tuple[bool, int, KeyMap, Mapping[str, Given] | None]] = {}
    for key, source in SOURCES.items():
        if work.name in source.maps and (kind == key or (kind is None and not source.ambiguous)):
            keymap = partial_map(source.maps[work.name], own, work.partial)
            try:
                ready = source.ready(given)
                match = match_names(keymap, own, ready)
                candidates[key] = (match.fits, match.found, keymap, ready)
            except CheckpointMismatch:  # a tensor that the preparation needs is missing
                candidates[key] = (False, 0, keymap, None)
    fitting = [key for key, (fits, *_) in candidates.items() if fits]
    if len(fitting) > 1:
        raise CheckpointMismatch(f"{file} could be {' or '.join(fitting)}.", hint="Choose the kind (--kind).")
    if not fitting and kind is None:
        _refuse_other_networks(work.name, file, given)
    # If none fits, the nearest is used to report what is missing and what is unexpected.
    nearest = max(candidates, key=lambda key: candidates[key][:2])
    *_, keymap, prepared = candidates[nearest]
    return nearest, keymap, SOURCES[nearest].ready(given) if prepared is None else prepared


def _refuse_other_networks(name: str, file: Path, given: Mapping[str, Given]) -> None:
    """Raise ``CheckpointMismatch`` if the names are those of weights that fit other networks of ours, or none."""
    for source in SOURCES.values():
        if any(re.search(source.mark, known) for known in given):
            if name not in source.maps:
                raise CheckpointMismatch(
                    f"{file} holds {source.title} weights, which do not fit {name}.",
                    hint=f"They fit {', '.join(source.maps)}.",
                )
            return
    taken = dict.fromkeys(source.title for source in SOURCES.values() if name in source.maps)
    raise CheckpointMismatch(
        f"{file} holds a network that is not known here: {len(given)} tensors, such as {printable(min(given))[:80]}.",
        hint=f"{name} takes weights of {', '.join(taken)}.",
    )


def _check_word_table(keymap: KeyMap, own: Mapping[str, Tensor], given: Mapping[str, Given], file: Path) -> None:
    """Raise ``TokenizerMismatch`` for a word table of another length: it belongs to another vocabulary."""
    current = {keymap.current(name): like(tensor) for name, tensor in given.items()}
    for name, table in own.items():
        there = current.get(keymap.published(name) or "") if name.endswith(_WORD_TABLES) else None
        if there is not None and there.ndim == 2 and len(there) != len(table):
            raise TokenizerMismatch(
                f"{file} has a word table of {len(there)} rows; our vocabulary has {len(table)} word pieces.",
                hint="Use an uncased BERT." if "bert" in name else "Use OpenAI's CLIP ViT-L/14.",
            )


def _modes(work: _Import, parts: Sequence[ImportedFile], fresh: Sequence[str]) -> tuple[str, ...]:
    """Return the modes in which these weights work; none if they are only a start for training."""
    sources = [SOURCES[part.kind] for part in parts]
    trained = [source for source in sources if source.trained and work.name not in source.starts]
    harmless = (*work.model.training_only, *(prefix for source in trained for prefix in source.fresh))
    if any(not name.startswith(harmless) and not name.endswith(_COUNTS) for name in fresh):
        return ()
    return tuple(str(mode) for mode in Mode if trained and all(mode in source.trained for source in trained))

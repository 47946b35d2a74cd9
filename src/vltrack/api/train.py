"""Weights: trained from data (``train``), from published files (``import_weights``), or fresh (``init_weights``)."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltrack.api.inputs import DEVICES, check_choice, check_empty, check_folder, check_writable, named_path
from vltrack.api.reporter import QUIET, Interrupted, Reporter, time_left
from vltrack.checkpoints.cards import INIT, known_name, model_names
from vltrack.core.errors import DataError, ModelNotFound, UsageError
from vltrack.core.files import printable
from vltrack.core.rank import global_rank

if TYPE_CHECKING:
    from vltrack.checkpoints.importing import Imported
    from vltrack.training.recipes import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    """A finished training run: its folder (log, checkpoints) and the weights, with a card next to them."""

    out: Path
    weights: Path

    def rows(self) -> Iterator[dict[str, str]]:
        """Yield the rows of the training log (one per 25 steps), for pandas: step, rate, losses, speed."""
        log = self.out / "log.csv"
        if log.exists():
            with log.open(newline="", encoding="utf-8") as file:
                yield from csv.DictReader(file)


def train(
    name: str,
    *,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    size: str = "tiny",
    start: str | Path | None = None,
    init: Mapping[str, str | Path] | None = None,
    part: str | None = None,
    resume: bool = False,
    settings: Mapping[str, str] | None = None,
    steps: int | None = None,
    batch: int | None = None,
    accumulate: int | None = None,
    seed: int | None = None,
    processes: int | None = None,
    device: str = "auto",
    quiet: bool = True,
    reporter: Reporter = QUIET,
) -> TrainedModel:
    """Train a tracker, fine-tune one on clips of one's own, or train the grounder (docs/train.md).

    Args:
        name, size: tracker and size, such as ``litetrack`` and ``tiny``; or ``grounder``; or a network of one's own:
            ``FILE.py:CARD`` (docs/add-a-tracker.md).
        data: data sets: ``NAME=FOLDER`` (``lasot=/data/lasot``), or a folder that is one or holds several; clips
            of one's own are ``folder``. The grounder takes folders of training images.
        out: folder of the run: log, checkpoints, weights; new or empty unless ``resume``.
        start: weights to start from: a model that ships (``litetrack-tiny``), a .safetensors file, or the folder
            of a run. On clips of one's own they are fine-tuned; a run's folder is otherwise continued with its
            next part. For the grounder the detector's weights (.npz).
        init: published files that a ``base`` size starts from, by kind: ``{"mae": FILE, "bert": FILE}``
            (``vltrack import-weights --help`` lists the kinds), and ``vocabulary`` where one does not ship.
        part: ``twins`` for distractor fine-tuning, ``joint`` for the last part, in which all but the stem learns.
        resume: continue the run in ``out`` from its last checkpoint.
        settings: fields of the recipe as text, such as ``{"learning_rate": "1e-4"}``.
        steps, batch, accumulate, seed: the usual fields of the recipe: optimizer steps in all, samples per step,
            parts of these that a process handles one after the other.
        processes: processes that train; None is one.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        quiet: do not log progress lines (of several processes) to standard error.
        reporter: receives the progress.

    Returns:
        The run's folder and weights; ``pandas.DataFrame(trained.rows())`` is its log.

    Raises:
        UsageError: an unknown tracker, size or kind of ``init``, or ``out`` is not empty. ConfigError: an unknown
            setting.
        ModelNotFound, CheckpointMismatch, CheckpointUnsafe: ``start`` or ``init`` cannot be used.
        DataError: the training data cannot be used.
        StateError: ``out`` holds another run. Diverged: the loss was repeatedly not finite.
        KeyboardInterrupt: Ctrl-C; the last checkpoint is kept.

    Examples:
        >>> import vltrack
        >>> trained = vltrack.train("litetrack", data="images", out="run", steps=1, batch=2)
        >>> trained.weights.name
        'litetrack-tiny.safetensors'
    """
    from vltrack.checkpoints.outside import find_outside
    from vltrack.models import MODELS, hint_for

    outside = find_outside(name)
    known = (*MODELS, "grounder")
    name, out = outside.card.name if outside else known_name(name, known), Path(out)
    given = [data] if isinstance(data, str | Path) else list(data)
    if name not in known:
        raise UsageError(f"No tracker is called {printable(name)!r}.", hint=hint_for(name, known))
    check_choice("size", size, ("tiny",) if name == "grounder" else tuple(MODELS[name].sizes))
    check_choice("device", device, DEVICES)
    if part is not None:
        check_choice("part", part, ("twins", "joint"))
    for one in given:
        if not (folder := named_path(str(one))[1]).is_dir():
            said = "is not a folder" if folder.exists() else "does not exist"
            raise DataError(f"{printable(folder)} {said}.", hint="Give a folder of training data: docs/train.md.")
    check_folder(out)
    if global_rank():  # of a job of torchrun: that of rank 0 checks, writes and prints
        reporter = QUIET
    elif not resume and not _only_init(out):
        if (out / ".lock").exists():
            from vltrack.training.processes import check_idle

            check_idle(out)
        check_empty(out, hint="Pass resume (--resume) to continue, or choose another folder (--out).")
    if name == "grounder":
        if part is not None:
            raise UsageError(f"The grounder is trained in one go, without part {part!r}.", hint="Leave out --part.")
        changes = {"steps": steps, "batch": batch, "seed": seed}
        return _train_grounder(
            [Path(folder) for folder in given], out, start, settings or {}, changes, processes or 1, reporter
        )

    from vltrack.training.launch import configured, main_train
    from vltrack.training.sources import OWN, find_sources

    sources = find_sources(given) if start or init else ()
    options: dict[str, Any] = {
        "model": outside.spec if outside else name, "size": size, "data": [str(one) for one in given], "out": out,
        "start": start, "part": part, "resume": resume, "own_clips": OWN in {one.name for one in sources},
        "settings": dict(settings or {}), "steps": steps, "batch": batch, "accumulate": accumulate, "seed": seed,
        "processes": processes, "device": device, "quiet": quiet,
    }  # fmt: skip
    config, weights = configured(options), out / f"{name}-{size}.safetensors"
    if not resume and global_rank() == 0:
        _initialize(config, {kind: Path(file) for kind, file in (init or {}).items()}, out, reporter)
    with _interruptible(out), _progress(reporter) as progress:
        main_train(options, progress)
    if global_rank() == 0:
        _compare(config, out, weights, device, reporter)
        reporter.note(f"weights: {printable(weights)}")
        named = f"{printable(outside.spec)}={printable(weights)}" if outside else printable(weights)
        reporter.note(f"try them: vltrack track VIDEO --box X,Y,W,H --model {named}")
    return TrainedModel(out=out, weights=weights)


def _only_init(out: Path) -> bool:
    """Return whether a run was killed after it had converted ``init``, and before it began."""
    return (out / INIT).exists() and not (out / "config.json").exists()


def _initialize(config: TrainConfig, init: Mapping[str, Path], out: Path, reporter: Reporter) -> None:
    """Convert the published files that a run starts from; warn where a size that has such files gets none."""
    from vltrack.training.init import init_parts, published_parts

    (out / INIT).unlink(missing_ok=True)
    init_parts(config, init, out)
    name = f"{config.model}-{config.size}"
    kinds = published_parts(name)
    if kinds and not (init or config.start or config.init_from):
        flags = " ".join(f"--init {kind}=FILE" for kind in kinds)
        reporter.warn(f"{name} starts from random numbers; published weights for it: {flags}.")


def _compare(config: TrainConfig, out: Path, weights: Path, device: str, reporter: Reporter) -> None:
    """Report the success before and after on the clips of one's own that were held out, if the run has any."""
    from vltrack.training.data import read_data_record
    from vltrack.training.own_clips import compare
    from vltrack.training.sources import OWN

    roots = [Path(entry["root"]) for entry in read_data_record(out) if entry["name"] == OWN]
    if not roots:
        return
    reporter.note("measuring success on what was held out")
    found = compare(config, out, roots, weights, device)
    if not found["held_out"]:
        reporter.warn("nothing was held out: the clips have too few frames with the target. Success is unknown.")
        return
    reporter.note(f"held out: {printable('; '.join(found['held_out']))}")
    before = found.get("before", {})
    for mode, after in found["after"].items():
        was = f"{before[mode]:.3f} before, " if mode in before else ""
        reporter.note(f"success AUC, {mode}: {was}{after:.3f} after")
    if worse := [mode for mode, value in before.items() if found["after"][mode] < value]:
        reporter.warn(f"the weights are worse than before on what was held out ({', '.join(worse)}).")


def _train_grounder(
    folders: Sequence[Path],
    out: Path,
    detector: str | Path | None,
    settings: Mapping[str, str],
    changes: Mapping[str, Any],
    processes: int,
    reporter: Reporter,
) -> TrainedModel:
    if detector is None or not Path(detector).is_file():
        raise DataError(
            f"The grounder starts from the detector's weights, got {detector}.",
            hint="Give start (--start) the .npz of PicoDet-S; docs/train.md says where it comes from.",
        )
    from vltrack.training.grounder.loop import GrounderRecipe, train_grounder
    from vltrack.training.launch import with_setting

    recipe = replace(GrounderRecipe(), **{key: value for key, value in changes.items() if value is not None})
    for key, text in settings.items():
        recipe = with_setting(recipe, key, text)
    with _interruptible(out), _progress(reporter) as progress:
        weights = train_grounder(folders, Path(detector), out, recipe, workers=processes, progress=progress)
    return TrainedModel(out=out, weights=weights)


@contextmanager
def _progress(reporter: Reporter) -> Iterator[Callable[[int, int, str], None]]:
    """A function that shows the steps done, of all, and a line of text."""
    first: tuple[int, float] | None = None
    with reporter.bar("training", None) as bar:

        def progress(done: int, total: int, text: str) -> None:
            nonlocal first
            first = first or (done, time.monotonic())
            rate = (done - first[0]) / max(time.monotonic() - first[1], 1e-9)
            left = f"{time_left((total - done) / rate)}  " if rate > 0 else ""
            bar.show(done, f"step {done} of {total}  {left}{text}", total=total, force=True)

        yield progress


@contextmanager
def _interruptible(out: Path) -> Iterator[None]:
    """Turn Ctrl-C into a message that says what is kept."""
    try:
        yield
    except KeyboardInterrupt as stop:
        kept = any(out.glob("step-*.json"))
        raise Interrupted(
            f"interrupted; with resume (--resume) the run continues from the last checkpoint in {printable(out)}."
            if kept
            else "interrupted before the first checkpoint; with resume (--resume) the run starts over."
        ) from stop


def import_weights(
    files: str | Path | Sequence[str | Path],
    name: str,
    *,
    out: str | Path | None = None,
    kinds: Sequence[str] = (),
    partial: Sequence[str] = (),
    overwrite: bool = False,
) -> Imported:
    """Convert published weights to safetensors with a card (docs/import-weights.md).

    No code in the files is run, and nothing is downloaded.

    Args:
        files: ``.pth``, ``.pt``, ``.bin``, ``.safetensors`` or ``.npz``; several fill one network together.
        name: which model, such as ``litetrack-base``.
        out: the ``.safetensors`` file to write; None is ``NAME.safetensors`` in the working folder.
        kinds: kind of each file, where it cannot be detected by the names in it.
        partial: skip parameters whose names start so, ours or the file's.
        overwrite: replace weights that exist.

    Returns:
        The weights' path, what each file set and what it has beyond that, and which parameters no file set.

    Raises:
        ModelNotFound: no such model or file. UsageError: ``out`` exists, or a kind or prefix does not fit.
        CheckpointMismatch, CheckpointUnsafe, CheckpointCorrupt, CheckpointNonFinite, TokenizerMismatch: the
            file cannot become this model.
        ResourceError: the weights cannot be written.

    Examples:
        >>> import vltrack
        >>> try:
        ...     vltrack.import_weights("ostrack.pth", "all-in-one-ostrack-base")
        ... except vltrack.VltrackError as error:
        ...     print(error.message, error.exit_code)
        No such file: ostrack.pth. 5
    """
    from vltrack.models import hint_for

    known = model_names()
    if name not in known:
        raise ModelNotFound(
            f"No model is called {printable(name)!r}.",
            hint=f"{hint_for(name, known)} What fits which: vltrack import-weights --help.",
        )
    paths = [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
    target = Path(f"{name}.safetensors") if out is None else Path(out)
    if target.suffix != ".safetensors":
        raise UsageError(f"The output {printable(target)} does not end in .safetensors.")
    for path in (target, target.with_suffix(".json")):
        check_writable(path, overwrite=overwrite)
    for file in paths:
        if not file.exists():
            raise ModelNotFound(f"No such file: {printable(file)}.", hint="Nothing is downloaded: fetch it first.")
        if target.exists() and file.samefile(target):
            raise UsageError(f"The output {printable(target)} is one of the files to read.", hint="Choose another.")

    from vltrack.checkpoints.importing import import_weights as convert
    from vltrack.prep.tokenizers import load_tokenizer

    return convert(paths, name, target, kinds=kinds, partial=partial, vocabulary_sha256=load_tokenizer("bert").sha256)


def init_weights(
    name: str, out: str | Path, *, size: str = "tiny", seed: int = 0, overwrite: bool = False
) -> dict[str, Any]:
    """Write the weights that a training starts with: random, but for the ImageNet stem of a ``tiny`` size.

    They show that a network runs and has the right shapes, and track nothing.

    Args:
        name, size: as of ``train``.
        out: the ``.safetensors`` file to write; its card stands next to it.
        seed: of the random numbers.
        overwrite: replace weights that exist.

    Returns:
        The card.

    Raises:
        UsageError: an unknown tracker or size; ``out`` exists, or does not end in .safetensors.
        ResourceError: the weights cannot be written. And what ``train`` raises for a network of one's own.

    Examples:
        >>> import vltrack
        >>> card = vltrack.init_weights("sa-tracker", "fresh.safetensors")
        >>> vltrack.load("fresh.safetensors", backend="torch").card["tracker"]
        'sa-tracker'
    """
    from vltrack.checkpoints.outside import find_outside
    from vltrack.models import MODELS, hint_for

    outside = find_outside(name)
    name = outside.card.name if outside else known_name(name, MODELS)
    if name not in MODELS:
        raise UsageError(f"No tracker is called {printable(name)!r}.", hint=hint_for(name, MODELS))
    check_choice("size", size, tuple(MODELS[name].sizes))
    for path in (Path(out), Path(out).with_suffix(".json")):
        check_writable(path, overwrite=overwrite)

    import torch

    from vltrack.checkpoints import cards, store
    from vltrack.prep.tokenizers import load_tokenizer
    from vltrack.training.init import starting_model
    from vltrack.training.recipes import TrainConfig

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = starting_model(TrainConfig(model=name, size=size, word_init="random"))
    more = {"notes": "fresh weights: not trained", "seed": seed}
    if model.vocabulary == "bert":
        more["vocabulary_sha256"] = load_tokenizer(model.vocabulary).sha256
    store.save(Path(out), model, tracker=name, size=size, card=more, half=True)
    return cards.read_card(Path(out))


def import_record(done: Imported) -> dict[str, Any]:
    """Return what ``vltrack import-weights --json`` prints."""
    keys = ("file", "kind", "sha256", "licence", "loaded", "ignored", "number_types")
    return {
        "weights": printable(done.path),
        "complete": done.complete,
        "modes": list(done.modes),
        "files": [{key: part.to_dict()[key] for key in keys} | {"file": printable(part.file)} for part in done.parts],
        "kept_fresh": list(done.kept_fresh),
    }

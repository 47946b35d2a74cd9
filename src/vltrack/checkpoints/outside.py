"""Trackers from outside the package: ``FILE.py:NAME``, ``opencv:NAME``, or the name of an installed entry point.

Each names a class, a function that returns a tracker, or a ``ModelCard``, whose network is then registered. Naming a
file runs it. Does not load torch.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

from vltrack.core.errors import ModelNotFound, UsageError, did_you_mean
from vltrack.core.files import printable, sha256_bytes, sha256_of
from vltrack.models import MODELS, ModelCard

GROUP = "vltrack.trackers"
"""Entry points of installed packages, each the name of a tracker."""
_NAMED = re.compile(r"(?P<where>.+\.py|opencv):(?P<name>\w+)(?:=(?P<path>.+))?", re.DOTALL)
_TEXTS = ("text", "language", "sentence", "nlp", "info")
_OPENCV: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "csrt": ("TrackerCSRT", ()),
    "kcf": ("TrackerKCF", ()),
    "mil": ("TrackerMIL", ()),
    "nano": ("TrackerNano", (("backbone", "*backbone*.onnx"), ("neckhead", "*head*.onnx"))),
    "vit": ("TrackerVit", (("net", "*vit*.onnx"),)),
}
"""Name, class in cv2, and for each file of its network the parameter and the pattern of its name."""


@dataclass(frozen=True, kw_only=True)
class Outside:
    """A tracker from outside the package.

    Attributes:
        spec: names it from any folder, in another process too.
        name: of its results.
        made: the entry of a network, or what makes a tracker: called without arguments, once for each target.
        sha256: of the files that it is known to consist of, or of its package's version.
        path: what stands behind ``=``: weights of a network, or a folder.
    """

    spec: str
    name: str
    made: ModelCard | Callable[[], Any]
    sha256: str
    path: Path | None = None

    @property
    def modes(self) -> tuple[str, ...]:
        """How a target can be given: a class without a parameter for the sentence starts from the grounder's box."""
        own = self.made if isinstance(self.made, type) else None
        init = getattr(own, "init", getattr(own, "initialize", None))
        takes_text = init is None or text_parameter(init) is not None
        return ("nl", "bbox", "nlbbox") if takes_text and not self.spec.startswith("opencv:") else ("nl", "bbox")

    @property
    def card(self) -> ModelCard:
        """The entry of its network. Raises ``UsageError`` if it is not one."""
        if isinstance(self.made, ModelCard):
            return self.made
        said = f"{printable(self.spec)} is a tracker with init and update, not a network of vltrack."
        raise UsageError(said, hint="Name the ModelCard of a network: docs/add-a-tracker.md.")

    def weights(self) -> Path:
        """Return the weights that its ``spec`` names. Raises ``UsageError``, ``ModelNotFound``."""
        if self.card and self.path is not None:
            return self.path.with_suffix(".safetensors")
        raise ModelNotFound(
            f"{printable(self.spec)} is a network without weights.",
            hint=f"Name them behind it: {printable(self.spec)}=FILE.safetensors; vltrack init-weights and "
            "vltrack train write them.",
        )


def find_outside(name: str | os.PathLike[str]) -> Outside | None:
    """Return the tracker that a name means, or None for a name of another form; its network is registered.

    Raises:
        ModelNotFound: no such file, or it has no such name; files of an OpenCV network are missing.
        UsageError: the file cannot be imported, or what it names is not a tracker.
    """
    text = os.fspath(name)
    if match := _NAMED.fullmatch(text):
        where, path = match["where"], None if match["path"] is None else Path(match["path"]).absolute()
        found = _opencv(match["name"], path) if where == "opencv" else _of_file(Path(where), match["name"], path)
    elif re.fullmatch(r"[\w.-]+", text) and (point := _entry_points().get(text)):
        version = f"{point.dist.name} {point.dist.version}" if point.dist else ""
        made, digest = _loaded(text, point.load), sha256_bytes(f"{version} {point.value}".encode())
        found = _named(text, text, made, point.module, digest)
    else:
        return None
    if isinstance(found.made, ModelCard):
        MODELS[found.made.name] = found.made
    return found


def text_parameter(init: Callable[..., Any]) -> str | None:
    """Return the parameter of an ``init`` that takes the sentence; ``info`` is a dict that holds it, and the box."""
    parameters = inspect.signature(init).parameters
    return next((name for name in _TEXTS if name in parameters), None)


def installed() -> list[str]:
    """Names of the trackers that installed packages bring."""
    return sorted(_entry_points())


@cache
def _entry_points() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


def _of_file(file: Path, name: str, path: Path | None) -> Outside:
    if not file.is_file():
        raise ModelNotFound(f"No file {printable(file)}.", hint="A tracker of your own is named FILE.py:CLASS.")
    module = _loaded(file, partial(_module, file.resolve()))
    if not hasattr(module, name):
        own = [
            key
            for key, value in vars(module).items()
            if isinstance(value, ModelCard) or getattr(value, "__module__", None) == module.__name__
        ]
        raise ModelNotFound(f"{printable(file)} has no {name}.", hint=did_you_mean(name, own))
    return _named(f"{file.resolve()}:{name}", name, getattr(module, name), module.__name__, sha256_of(file), path)


def _named(spec: str, name: str, made: Any, module: str, sha256: str, path: Path | None = None) -> Outside:
    """What ``made``, of a module that is imported, is: named ``spec``, and ``name`` in results."""
    if isinstance(made, ModelCard):
        if made.name in MODELS and MODELS[made.name].packaged:
            raise UsageError(f"{printable(spec)} has the name of a tracker of vltrack: {made.name}.", hint="Rename it.")
        made = replace(made, module=made.module or module, packaged=False)
        own = importlib.import_module(made.module)
        wanted = (made.network, *(size.replace("-", "_") for size in made.sizes))
        if absent := [one for one in wanted if not hasattr(own, one)]:
            said = f"The network or a size of {printable(spec)} is not in {made.module}: {', '.join(absent)}."
            raise UsageError(said, hint=did_you_mean(absent[0], vars(own)))
        name = path.stem if path else made.name
    elif not callable(made):
        said = f"{printable(spec)} is {type(made).__name__}, neither a class, a function nor a ModelCard."
        raise UsageError(said, hint="docs/add-a-tracker.md shows them.")
    return Outside(spec=spec if path is None else f"{spec}={path}", name=name, made=made, sha256=sha256, path=path)


def _loaded(what: object, load: Callable[[], Any]) -> Any:
    """What ``load`` imports; whatever that raises becomes one ``UsageError``."""
    try:
        return load()
    except Exception as error:
        said = f"{printable(str(what))} cannot be imported: {type(error).__name__}: {error}."
        raise UsageError(said, hint="Run it with Python to see where.") from error


def _module(file: Path) -> Any:
    """The module of a file, imported once; files beside it can be imported by it."""
    name = f"vltrack_outside_{file.stem}_{sha256_bytes(os.fsencode(file))[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None  # noqa: S101 - the file ends in .py
        if str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _opencv(name: str, folder: Path | None) -> Outside:
    import cv2

    if name not in _OPENCV:
        raise ModelNotFound(f"No OpenCV tracker is called {name!r}.", hint=f"Known: {', '.join(_OPENCV)}.")
    kind, patterns = _OPENCV[name]
    if not hasattr(cv2, kind):
        said = f"This OpenCV has no {kind}."
        hint = "Install opencv-contrib-python-headless in place of opencv-python-headless."
        raise ModelNotFound(said, hint=hint)
    files = {}
    for parameter, pattern in patterns:
        fitting = sorted(folder.glob(pattern)) if folder is not None else []
        if len(fitting) != 1:
            where = f"{len(fitting)} files like that in {printable(folder)}" if folder else "no folder is named"
            raise ModelNotFound(f"{kind} needs one {pattern}: {where}.", hint=f"Name its folder: opencv:{name}=FOLDER.")
        files[parameter] = fitting[0]
    digest = sha256_bytes("".join([cv2.__version__, *map(sha256_of, files.values())]).encode())
    spec = f"opencv:{name}" + (f"={folder}" if folder is not None else "")
    return Outside(spec=spec, name=f"opencv-{name}", made=partial(_create, kind, files), sha256=digest, path=folder)


def _create(kind: str, files: dict[str, Path]) -> Any:
    import cv2

    if not files:
        return getattr(cv2, f"{kind}_create")()
    parameters = getattr(cv2, f"{kind}_Params")()
    for parameter, file in files.items():
        setattr(parameters, parameter, str(file))
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it warns of backends that it lacks
    try:
        return getattr(cv2, f"{kind}_create")(parameters)
    finally:
        cv2.utils.logging.setLogLevel(before)

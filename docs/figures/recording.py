"""Record what flows through a tracker: shapes in and out of its modules, parameters, multiplications.

A size is built on the meta device and counted by ``vltrack.models.profile``; hooks record the shapes. A chart
refers to them by text: ``{locate/embed.stem/tokens_BNC}`` is the shape of the stem's tokens for a frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vltrack.core.types import Mode
from vltrack.models import MODELS
from vltrack.models.base import MODE_IDS, BoxedCrop, Views
from vltrack.models.profile import count_parameters, count_work, multiplications, without_memory
from vltrack.tracking.postprocess import Policy

METHODS = ("read_text", "init_template", "locate", "ground")
KEPT, TRAINING = "kept", "forward"
PHASES = (*METHODS, KEPT, TRAINING)
"""``kept`` is ``locate`` once more, with the share of search tokens that training aims at."""
_HOLE = re.compile(r"\{([^{}]+)\}")
_SHAPE = re.compile(r"(?P<phase>\w+)/(?P<module>[\w.]+(?:\(\))?)(?:@(?P<call>\d+))?(?P<way>(?:/\w+)*)(?:#(?P<dim>\d))?")


class TableError(LookupError):
    """A table refers to something that the running code does not have."""


@dataclass
class Call:
    """One run of a module: trees of shapes of what went in and what came out."""

    module: str
    entered: Any
    left: Any = None


class Recording:
    """One size of a tracker after a sentence, a start and a frame.

    Args:
        name: of the tracker, a key of ``MODELS``.
        size: one of its sizes.
        training: whether to run the training pass, too.
    """

    def __init__(self, name: str, size: str = "base", *, training: bool = False) -> None:
        self.card = MODELS[name]
        self.model: Any = without_memory(self.card, size)
        self.config = self.model.config
        options: Any = self.card.policies.get(size, {})
        self.policy = Policy(**options)
        self._calls: dict[str, list[Call]] = {phase: [] for phase in PHASES}
        self._phase = ""
        self.names: dict[str, nn.Module] = dict(self.model.named_modules())
        for module_name, module in self.names.items():
            module.register_forward_pre_hook(partial(self._enter, module_name))
            module.register_forward_hook(partial(self._leave, module_name))
        for method in (*METHODS, TRAINING):
            setattr(self.model, method, partial(self._during, method, getattr(self.model, method)))
        self.work = count_work(self.model)
        if training:
            multiplications(lambda: self.model.train().forward(_views(self.model)))
        self.running = count_parameters(self.model).running

    def _during(self, method: str, run: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Runs a method of the protocol under its name; what it calls of the others counts as its own."""
        if self._phase:
            return run(*args, **named)
        self._phase = KEPT if method == "locate" and self._calls["locate"] else method
        try:
            result = run(*args, **named)
            self._calls[self._phase].append(Call(f"{method}()", _shapes(args), _shapes(result)))
            return result
        finally:
            self._phase = ""

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._calls[self._phase].append(Call(name, _shapes(args)))

    def _leave(self, name: str, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        call = next(c for c in reversed(self._calls[self._phase]) if c.module == name and c.left is None)
        call.left = _shapes(result)

    # -- what a table may refer to ------------------------------------------------------------------------

    def module(self, name: str) -> nn.Module:
        """By its name in the code.

        Raises:
            TableError: there is none of this name.
        """
        if name not in self.names:
            raise TableError(f"{self.card.name} has no module {name!r}")
        return self.names[name]

    def calls(self, phase: str, name: str) -> list[Call]:
        """The runs of a module in a phase; for one that only holds others (a list of blocks), its parts'.

        ``METHOD()`` is the run of the protocol's method itself.

        Raises:
            TableError: there is no such module, or it does not run in this phase.
        """
        if not name.endswith("()"):
            self.module(name)
        own = [call for call in self._calls[phase] if call.module == name]
        found = own or [call for call in self._calls[phase] if call.module.startswith(f"{name}.")]
        if not found:
            raise TableError(f"{name!r} of {self.card.name} never runs in {phase}")
        return found

    def shape(self, text: str) -> tuple[int, ...]:
        """``phase/module[@call][/in][/field or index ...]``, without the batch: what came out, or went in.

        Raises:
            TableError: the code has no such thing.
        """
        asked = _SHAPE.fullmatch(text)
        if asked is None or asked["phase"] not in PHASES:
            raise TableError(f"{text!r} is not phase/module/... with a phase of {', '.join(PHASES)}")
        calls = self.calls(asked["phase"], asked["module"])
        way = asked["way"].split("/")[1:]
        if way[:1] == ["in"]:
            tree, way = calls[int(asked["call"] or 0)].entered, way[1:] or ["0"]
        else:
            tree = calls[int(asked["call"] or 0) if calls[0].module == asked["module"] else -1].left
        try:
            for step in way:
                tree = tree[int(step) if step.isdigit() else step]
        except (KeyError, IndexError, TypeError) as error:
            raise TableError(f"{text!r}: no {error} there") from error
        if not isinstance(tree, torch.Size):
            raise TableError(f"{text!r} is no tensor but {tree}")
        whole = tuple(tree[1:])
        return whole if asked["dim"] is None else whole[int(asked["dim"]) :][:1]

    def number(self, text: str) -> int:
        """A text that says one whole number, such as ``{locate/norm#0}``."""
        return int(self.say(text))

    def say(self, text: str) -> str:
        """The text with every ``{...}`` filled in from the code.

        Beside shapes: ``config/FIELD``, ``policy/FIELD``, ``model/ATTRIBUTE``, ``params/MODULE`` (millions),
        ``work/FIELD`` (10^9 multiplications).
        """
        return _HOLE.sub(lambda hole: self._fill(hole[1]), text)

    def _fill(self, asked: str) -> str:
        kind, _, rest = asked.partition("/")
        if kind == "params":
            return millions(self.parameters(rest))
        sources = {"config": self.config, "policy": self.policy, "model": self.model, "work": self.work}
        if kind not in sources:
            return " × ".join(map(str, self.shape(asked)))
        if not hasattr(sources[kind], rest):
            raise TableError(f"{self.card.name} has no {asked!r}")
        value = getattr(sources[kind], rest)
        if kind == "work":
            return f"{value / 1e9:.1f} G" if value >= 1e9 else f"{value / 1e9:.2g} G"
        return str(value)

    def parameters(self, *names: str) -> int:
        """How many parameters the modules of these names hold together."""
        return sum({p: p.numel() for name in names for p in self.module(name).parameters()}.values())

    def frozen(self, *names: str) -> bool:
        """Whether none of their parameters is ever trained."""
        return not any(p.requires_grad for name in names for p in self.module(name).parameters())


def millions(count: int) -> str:
    """12345678 -> ``12.3 M``."""
    return f"{count / 1e6:.1f} M" if count >= 5e4 else f"{count / 1e3:.1f} k"


def _shapes(value: Any) -> Any:
    """The same tree with every tensor's shape in its place."""
    if isinstance(value, Tensor):
        return value.shape
    if isinstance(value, tuple | list):
        return [_shapes(item) for item in value]
    if isinstance(value, dict):
        return {name: _shapes(item) for name, item in value.items()}
    if is_dataclass(value):
        return {field.name: _shapes(getattr(value, field.name)) for field in fields(value)}
    return None


def _views(model: Any) -> Views:
    """One target named by box and sentence, one view of it; shapes without numbers."""
    zeros = partial(torch.zeros, device="meta")
    template, search = (
        BoxedCrop(image_B3SS=zeros(1, 1, 3, size, size), box_B4=zeros(1, 1, 4))
        for size in (model.template_size, model.search_size)
    )
    ids = zeros(1, model.max_words, dtype=torch.long)
    return Views(
        template=BoxedCrop(image_B3SS=template.image_B3SS[:, 0], box_B4=template.box_B4[:, 0]),
        recent=template,
        search=search,
        present_BV=zeros(1, 1, dtype=torch.bool),
        ids_BL=ids,
        valid_BL=ids.bool(),
        flag_B=torch.full((1,), MODE_IDS[Mode.NLBBOX], device="meta"),
    )

"""How large a tracker is: parameters in all, trained and used when it runs, and multiplications a frame.

Everything is counted without memory: the network is built on torch's meta device and asked through the
protocol, and ``FlopCounterMode`` counts matrix products, convolutions and attention. Nothing is timed here.
Knows the protocol, no tracker.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vltrack.core.errors import ConfigError
from vltrack.models import ModelCard, build, config_of
from vltrack.models.base import STRIDE, BoxedCrop
from vltrack.nn.device import freezable

KEPT_SHARE = 0.7
"""Share of search tokens that training aims at in trackers that drop some by what they see."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Size:
    """Numbers of parameters.

    ``trainable`` are those that train from the start under the freeze plan, ``running`` those that a tracker
    reads.
    """

    total: int
    trainable: int
    running: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """Multiplications with their additions, of one target.

    Attributes:
        frame: a tracked frame by box and sentence, with all search tokens that the picture may leave.
        frame_kept: the same with ``KEPT_SHARE`` of them; None in trackers where the picture has no say in it.
        ground: a frame searched by words alone; None in sizes that no words alone can start.
        text, start: once a target: its sentence; its template and whatever else is remembered.
    """

    frame: int
    frame_kept: int | None
    ground: int | None
    text: int
    start: int


def without_memory(card: ModelCard, size: str) -> nn.Module:
    """The network of a size in eval mode on the meta device: shapes without numbers."""
    with torch.device("meta"):
        model: nn.Module = build(card, config_of(card, size)).eval()
    return model


def count_parameters(model: Any) -> Size:
    """Of any network that keeps the protocol, on any device."""
    named = list(model.named_parameters())
    held = {id(parameter) for parameter in freezable(model.freeze_plan()[0])}
    return Size(
        total=sum(p.numel() for _, p in named),
        trainable=sum(p.numel() for _, p in named if p.requires_grad and id(p) not in held),
        running=sum(p.numel() for name, p in named if not name.startswith(model.training_only)),
    )


def count_work(model: Any) -> Work:
    """Of a network on the meta device (``without_memory``), with a sentence of the longest length."""
    cells = (model.search_size // STRIDE) ** 2
    box = torch.zeros(1, 4, device="meta")
    template, context = (
        BoxedCrop(image_B3SS=torch.zeros(1, 3, size, size, device="meta"), box_B4=box)
        for size in (model.template_size, model.search_size)
    )
    search = context.image_B3SS
    past = torch.zeros(1, model.history, 4, device="meta") if model.history else None
    ids = torch.ones(1, model.max_words, dtype=torch.long, device="meta")
    words = torch.ones_like(ids, dtype=torch.bool)
    text, read = multiplications(lambda: model.read_text(ids, words))
    memory, start = multiplications(lambda: model.init_template(template, context, text), tokens=cells)
    _, frame = multiplications(lambda: model.locate(search, memory, past), tokens=cells)
    bucket = getattr(model.config, "select_bucket", 1)
    some = -(-int(KEPT_SHARE * cells) // bucket) * bucket
    _, kept = multiplications(lambda: model.locate(search, memory, past), tokens=some)
    ground: int | None = None
    with suppress(ConfigError):  # published parents without a text side refuse
        _, ground = multiplications(lambda: model.ground(search, text), by_words=True, tokens=cells)
    return Work(frame=frame, frame_kept=kept if kept < frame else None, ground=ground, text=read, start=start)


def multiplications(run: Callable[[], T], *, by_words: bool = False, tokens: int = 0) -> tuple[T, int]:
    """What ``run`` gives, and how many multiplications with additions it took."""
    with (
        torch.inference_mode(),
        _Answers(by_words=by_words, tokens=tokens),
        FlopCounterMode(display=False) as counter,
    ):
        result = run()
    return result, counter.get_total_flops() // 2


class _Answers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers what a network asks of tensors without numbers.

    There are two such questions in ours (tests/models/test_sizes.py compares with real tensors): whether a
    target is named by words alone, a truth value, and how many search tokens stay, a whole number.
    """

    def __init__(self, *, by_words: bool, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_words, self.tokens = by_words, tokens

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        asked = args[0] if args else None
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(asked, Tensor) and asked.is_meta:
            return self.by_words if asked.dtype == torch.bool else self.tokens
        return func(*args, **(kwargs or {}))

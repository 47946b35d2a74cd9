"""Size of a tracker: parameters in total, trained and used at inference, and multiplications per frame.

Everything is counted on torch's meta device: matrix products, convolutions and attention of the protocol's
calls, with the formulas of ``torch.utils.flop_counter``. Nothing is timed here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vltrack.core.errors import ConfigError
from vltrack.models import ModelCard, build, config_of
from vltrack.models.base import STRIDE, BoxedCrop
from vltrack.nn.device import freezable

KEPT_SHARE = 0.7
"""Share of search tokens that training aims at in trackers that drop some depending on the image."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Size:
    """Numbers of parameters: in total, trained from the start under the freeze plan, used at inference."""

    total: int
    trainable: int
    running: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """Multiplications with their additions, of one target.

    Attributes:
        frame: a tracked frame with box and sentence, with all search tokens.
        frame_kept: the same with ``KEPT_SHARE`` of them; None in trackers without token selection.
        ground: a frame searched from text alone; None in sizes without that mode.
        text, start: once per target: its sentence; its template and the rest of its memory.
    """

    frame: int
    frame_kept: int | None
    ground: int | None
    text: int
    start: int


def without_memory(card: ModelCard, size: str) -> nn.Module:
    """Build the network of a size in eval mode on the meta device: shapes without numbers."""
    with torch.device("meta"):
        model: nn.Module = build(card, config_of(card, size)).eval()
    return model


def count_parameters(model: Any) -> Size:
    """Count the parameters of a tracker, on any device."""
    named = list(model.named_parameters())
    frozen = {id(parameter) for parameter in freezable(model.freeze_plan()[0])}
    return Size(
        total=sum(p.numel() for _, p in named),
        trainable=sum(p.numel() for _, p in named if p.requires_grad and id(p) not in frozen),
        running=sum(p.numel() for name, p in named if not name.startswith(model.training_only)),
    )


def count_work(model: Any) -> Work:
    """Count the work of a tracker on the meta device, with a sentence of the longest length."""
    cells = (model.search_size // STRIDE) ** 2
    box = torch.zeros(1, 4, device="meta")
    template, context = (
        BoxedCrop(image_B3SS=torch.zeros(1, 3, size, size, device="meta"), box_B4=box)
        for size in (model.template_size, model.search_size)
    )
    search = context.image_B3SS
    past = torch.zeros(1, model.history, 4, device="meta") if model.history else None
    ids = torch.ones(1, model.max_words, dtype=torch.long, device="meta")
    valid = torch.ones_like(ids, dtype=torch.bool)
    text, text_work = multiplications(lambda: model.read_text(ids, valid))
    memory, start = multiplications(lambda: model.init_template(template, context, text), tokens=cells)
    _, frame = multiplications(lambda: model.locate(search, memory, past), tokens=cells)
    kept: int | None = None
    ground: int | None = None
    if getattr(model, "selector", None) is not None:
        bucket = model.selector.bucket
        some = -(-int(KEPT_SHARE * cells) // bucket) * bucket
        _, kept = multiplications(lambda: model.locate(search, memory, past), tokens=some)
    with suppress(ConfigError):  # published parents without a text side refuse
        _, ground = multiplications(lambda: model.ground(search, text), text_only=True, tokens=cells)
    return Work(frame=frame, frame_kept=kept, ground=ground, text=text_work, start=start)


def multiplications(run: Callable[[], T], *, text_only: bool = False, tokens: int = 0) -> tuple[T, int]:
    """Return the result of ``run``, and its number of multiplications with additions.

    On the meta device tensors have no values. Our networks read two (tests/models/test_profile.py compares
    with real tensors): whether a target is given by text alone, and how many search tokens are kept.
    """
    # no_grad, not inference_mode, where composite operations would arrive whole and uncounted.
    with torch.no_grad(), _Counter(text_only=text_only, tokens=tokens) as counter:
        result = run()
    return result, counter.flops // 2


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count as torch's ``FlopCounterMode``, without its decomposition of every operation in Python."""

    def __init__(self, *, text_only: bool, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.text_only, self.tokens, self.flops = text_only, tokens, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensor, kwargs = args[0] if args else None, kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(tensor, Tensor) and tensor.is_meta:
            return self.text_only if tensor.dtype == torch.bool else self.tokens
        result = func(*args, **kwargs)
        if (flops := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += flops(*args, **kwargs, out_val=result)
        return result

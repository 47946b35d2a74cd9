"""The models that tests build: every tracker at sizes that take milliseconds, with inputs that fit them."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vltrack.core.types import Mode
from vltrack.models import MODELS, ModelCard, aitrack, all_in_one, bit_tracker, build, config_of, sa_tracker
from vltrack.models.base import MODE_IDS, BoxedCrop, Memory, Prediction, Text, Views
from vltrack.models.litetrack import LiteTrackConfig, base, tiny, uvltrack_base, uvltrack_large
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights

# The shapes of base and uvltrack-base (layers, sides, patch stem) with every width cut down.
_NARROW = {"width": 64, "heads": 4, "text_hidden": 128, "table_width": 64, "head_channels": (32, 16)}
_NARROW_BIT = {
    "stem": "resnet50",
    "template_size": 32,
    "search_size": 64,
    "width": 32,
    "heads": 4,
    "mlp_ratio": 2.0,
    "corner_channels": (16, 8),
    "text_width": 32,
    "text_heads": 4,
    "text_layers": 2,
    "text_hidden": 64,
    "table_width": 32,
}
_NARROW_AITRACK = {
    "width": 64,
    "heads": 4,
    "layers": 4,
    "table_width": 64,
    "text_layers": 2,
    "roi_size": 56,
    "roi_width": 64,
    "roi_layers": 2,
}


def narrow_base(**changes: Any) -> LiteTrackConfig:
    """``base`` with width 64."""
    return replace(base(), **{**_NARROW, "star_width": 8, **changes})


CONFIGS: dict[str, Callable[[], Any]] = {
    "litetrack tiny": tiny,
    "litetrack narrow base": narrow_base,
    "litetrack narrow uvltrack-base": lambda: replace(uvltrack_base(), **_NARROW),
    "litetrack narrow uvltrack-large": lambda: replace(
        uvltrack_large(), **_NARROW, split_layers=3, joint_layers=3, contrast_from=2
    ),
    "aitrack tiny": aitrack.tiny,
    "aitrack narrow base": lambda: replace(aitrack.base(), **_NARROW_AITRACK),
    "aitrack narrow artrack-base": lambda: replace(aitrack.artrack_base(), **_NARROW_AITRACK),
    "bit-tracker tiny": bit_tracker.tiny,
    "bit-tracker narrow base": lambda: replace(bit_tracker.base(), **_NARROW_BIT, text="bert"),
    "bit-tracker narrow base-r50": lambda: replace(bit_tracker.base_r50(), **_NARROW_BIT),
    "bit-tracker narrow stark-base": lambda: replace(bit_tracker.stark_base(), **_NARROW_BIT),
    "bit-tracker narrow stark-r50": lambda: replace(bit_tracker.stark_r50(), **_NARROW_BIT, layers=2, taps=(1, 2)),
    "bit-tracker narrow stark-s50": lambda: replace(bit_tracker.stark_s50(), **_NARROW_BIT, layers=2, taps=(1, 2)),
    "sa-tracker tiny": sa_tracker.tiny,
    "sa-tracker narrow base": lambda: replace(sa_tracker.base(), **_NARROW, match_width=16),
    "all-in-one tiny": all_in_one.tiny,
    "all-in-one narrow base": lambda: replace(all_in_one.base(), **_NARROW),
    "all-in-one narrow ostrack-base": lambda: replace(all_in_one.ostrack_base(), **_NARROW),
}
"""By "TRACKER SIZE" or "TRACKER narrow SIZE": a function that makes the configuration."""
LITETRACK = {name: config for name, config in CONFIGS.items() if name.startswith("litetrack ")}


def small(config: Any) -> Any:
    """The same network on small crops, where only time matters."""
    sizes = {"template_size": min(64, config.template_size), "search_size": min(128, config.search_size)}
    return replace(config, **sizes)


def card_of(config: Any) -> ModelCard:
    """The tracker that a configuration is of."""
    module = type(config).__module__.rpartition(".")[2]
    return next(card for card in MODELS.values() if card.name.replace("-", "_") == module)


def make(config: Any, seed: int = 0) -> Any:
    """The network with random weights in eval mode; parts that start without effect are woken up."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build(card_of(config), config).eval()
        for parameter in model.parameters():
            if parameter.ndim > 1 and not bool(parameter.any()):
                parameter.normal_(std=0.05)
            elif parameter.ndim == 0 and not bool(parameter):
                parameter.fill_(0.3)  # gates that start closed
    return model


def randomized(module: nn.Module, seed: int = 0, std: float = 0.3) -> Any:
    """The module in eval mode with random weights, large enough that a wrong activation or norm shows."""
    with torch.no_grad():
        random = generator(seed)
        for parameter in module.parameters():
            parameter.normal_(std=std, generator=random)
    return module.eval()


def norm_by_hand(module: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer norm as an equation."""
    centered = x - x.mean(dim=-1, keepdim=True)
    spread = (centered.square().mean(dim=-1, keepdim=True) + module.eps).sqrt()
    return centered / spread * module.weight + module.bias


def attention_by_hand(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """(N, C) attends to (M, C), head by head."""
    size, parts = q.shape[1] // heads, []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        parts.append((q[:, part] @ k[:, part].T / size**0.5).softmax(dim=1) @ v[:, part])
    return torch.cat(parts, dim=1)


def generator(seed: int) -> torch.Generator:
    """Random numbers of their own."""
    return torch.Generator().manual_seed(seed)


def pictures(size: int, batch: int, seed: int = 1) -> Tensor:
    """(B, 3, size, size) smooth random pictures, about normalised."""
    coarse = torch.randn(batch, 3, size // 16, size // 16, generator=generator(seed))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")


def boxes(batch: int, seed: int = 2) -> Tensor:
    """(B, 4) cx, cy, w, h within the crop."""
    shares = torch.rand(batch, 4, generator=generator(seed))
    return torch.cat([0.4 + 0.2 * shares[:, :2], 0.2 + 0.3 * shares[:, 2:]], dim=1)


def boxed(image: Tensor, box: Tensor) -> BoxedCrop:
    """Crops with a box in each."""
    return BoxedCrop(image_B3SS=image, box_B4=box)


def sentences(batch: int, length: int = 9, words: int = 6, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Word-piece ids (B, L) with [CLS] first and [SEP] last, and which are no padding."""
    ids = torch.randint(1996, 30000, (batch, length), generator=generator(seed))
    ids[:, 0] = 101
    ids[:, words - 1] = 102
    valid = (torch.arange(length) < words).expand(batch, -1).clone()
    return ids.masked_fill(~valid, 0), valid


def modes_of(config: Any) -> tuple[str, ...]:
    """Modes of a size: published parents without a text side have boxes only."""
    return ("bbox",) if getattr(config, "text", "") == "none" else ("bbox", "nl", "nlbbox")


class Scene:
    """A model with a template, a search region, their boxes and a sentence for each target."""

    def __init__(self, config: Any, batch: int = 2, seed: int = 0) -> None:
        self.model = make(config, seed)
        self.template = pictures(config.template_size, batch, 10 + seed)
        self.search = pictures(config.search_size, batch, 20 + seed)
        self.box = boxes(batch, 30 + seed)
        self.ids, self.valid = sentences(batch, seed=40 + seed)

    def alone(self, index: int) -> Scene:
        """The same model with one of the targets."""
        one = copy(self)
        for name in ("template", "search", "box", "ids", "valid"):
            setattr(one, name, getattr(self, name)[index : index + 1])
        return one

    @property
    def modes(self) -> tuple[str, ...]:
        """See ``modes_of``."""
        return modes_of(self.model.config)

    def text(self) -> Text:
        return self.model.read_text(self.ids, self.valid)

    def memory(self, mode: str) -> Memory:
        """Of mode bbox or nlbbox."""
        text = self.text() if mode == "nlbbox" else None
        return self.model.init_template(boxed(self.template, self.box), boxed(self.search, self.box), text)

    @torch.no_grad()
    def predict(self, mode: str) -> Prediction:
        """The prediction in the mode bbox, nl or nlbbox."""
        if mode == "nl":
            return self.model.ground(self.search, self.text())
        return self.locate(self.search, self.memory(mode))

    def past(self) -> Tensor | None:
        """Where the target was, as far as the model wants to know: about where its box is."""
        if not self.model.history:
            return None
        drift = torch.linspace(-0.05, 0.0, self.model.history)[None, :, None]
        return self.box[:, None] + drift

    def locate(self, search: Tensor, memory: Memory) -> Prediction:
        """``model.locate`` with a past, where the model asks for one."""
        past = self.past()
        seen: Prediction = self.model.locate(search, memory, None if past is None else past[: len(search)])
        return seen


def views_of(model: Any, seed: int = 0) -> Views:
    """Views of ``random_batch``: one target of each mode (bbox, nl, nlbbox), two views each."""
    return PairObjective(model, LossWeights()).views(random_batch(model.config, seed))


def random_batch(config: Any, seed: int = 0) -> dict[str, Tensor]:
    """A training batch: one sample of each mode, two views each; the target is absent in one view."""
    random, samples = generator(seed), 3
    t, s = config.template_size, config.search_size

    def image(*shape: int) -> Tensor:
        return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=random)

    ids, words = sentences(samples, config.max_words, words=7, seed=seed)
    by_box = torch.tensor([True, False, False])[:, None]
    return {
        "template": image(samples, t, t),
        "template_box": boxes(samples, seed + 1),
        "search": image(samples, 2, s, s),
        "box": boxes(samples * 2, seed + 2).view(samples, 2, 4),
        "recent": image(samples, 2, t, t),
        "recent_box": boxes(samples * 2, seed + 3).view(samples, 2, 4),
        "present": torch.tensor([[True, True], [True, True], [True, False]]),
        "ids": ids.masked_fill(by_box, 0),
        "words": words & ~by_box,
        "flag": torch.tensor([MODE_IDS[mode] for mode in (Mode.BBOX, Mode.NL, Mode.NLBBOX)]),
    }


def outputs(seen: Prediction) -> list[Tensor]:
    """What a tracker uses of a prediction."""
    return [seen.center_BSS, seen.presence_BSS, seen.boxes_BSS4]


def equal(a: Prediction, b: Prediction) -> bool:
    """Bit by bit."""
    return all(torch.equal(x, y) for x, y in zip(outputs(a), outputs(b), strict=True))


def apart(a: Prediction, b: Prediction) -> float:
    """Largest difference between two predictions."""
    return max(float((x - y).abs().max()) for x, y in zip(outputs(a), outputs(b), strict=True))


def all_sizes() -> list[tuple[str, str]]:
    """Every (tracker, size) of the registry."""
    return [(card.name, size) for card in MODELS.values() for size in card.sizes]


def published_config(tracker: str, size: str) -> Any:
    """The configuration of a size as it is published."""
    return config_of(MODELS[tracker], size)

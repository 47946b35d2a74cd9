"""Registry of the trackers, ``MODELS``. Importing it does not load torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from vltrack.core.errors import ConfigError, ModelNotFound, did_you_mean


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Entry of a tracker, as ``vltrack models`` prints it.

    Attributes:
        network: class in the file under ``models/`` that is named after the tracker.
        sizes: each is a function there that returns its configuration: ``base-r50`` is ``base_r50``.
        claims: the paper's ideas, each a switch of the configuration.
        ours: parts that are not published and were designed here.
        policies: by size, the post-processing options that differ from the defaults.
        boxes_only: sizes without a text side, as some were published.
        ideas: what `vltrack ablate` switches off: a name, and options of the configuration as ``config_of`` takes them.
        recipes: the tracker whose recipes train it, by default its own.
        module: where ``network`` and ``sizes`` are, by default ``vltrack.models`` and the tracker's name.
        packaged: False for a network from outside the package (``checkpoints.outside``).
    """

    name: str
    title: str
    paper: str
    year: int
    network: str
    sizes: tuple[str, ...]
    claims: str
    ours: str
    policies: Mapping[str, Mapping[str, float | bool]] = field(default_factory=dict)
    boxes_only: tuple[str, ...] = ()
    ideas: Mapping[str, str] = field(default_factory=dict)
    recipes: str = ""
    module: str = ""
    packaged: bool = True

    def modes_of(self, size: str) -> tuple[str, ...]:
        """Return the modes (``core.types.Mode``, which needs numpy) in which a target can be given to this size."""
        return ("bbox",) if size in self.boxes_only else ("nl", "bbox", "nlbbox")


# Post-processing of the published code: the peak under a Hann window, crops of whole pixels.
PUBLISHED: Mapping[str, float | bool] = {
    "window": 1.0,
    "window_product": True,
    "penalty": 0.0,
    "damp": False,
    "refresh_every": 0,
    "lost_below": 0.0,
    "hold_below": 0.0,
    "search_again_every": 0,
    "follow_rivals": False,
    "steady": False,
    "own_grounding": True,
    "published_crops": True,
}
_UVLTRACK = {
    **PUBLISHED,
    "window_rims": True,
    "refresh_every": 20,
    "refresh_by_number": True,
    "refresh_best": True,
    "refresh_template": False,
}
_STARK = {**PUBLISHED, "window": 0.0, "window_product": False, "refresh_every": 200, "refresh_by_number": True}
_ARTRACK = {**PUBLISHED, "window": 0.0, "window_product": False}
# Without a score head: the confidence of the tokens predicts whether the box is right, not when to search anew.
_ARTRACK_TINY = {
    **_ARTRACK,
    "damp": True,
    "own_grounding": False,
    "published_crops": False,
    "visible_above": 0.49,
    "visible_smooth": 0.1,
    "steady": True,
}


def _visible(above: float) -> dict[str, float | bool]:
    """Visibility from the mean score of about ten frames.

    95 % of the frames with the target under the box reach ``above`` on the open targets (benchmarks/weights.md).
    """
    return {"visible_above": above, "visible_smooth": 0.1}


MODELS: dict[str, ModelCard] = {
    "litetrack": ModelCard(
        name="litetrack",
        title="LiteTrack",
        paper="Yang L., unpublished; released code: yll1214/LiteTrack, on UVLTrack (AAAI 2024)",
        year=2025,
        network="LiteTrack",
        sizes=("tiny", "base", "uvltrack-base", "uvltrack-large"),
        claims="layer freezing, cosine token selection, channel gate, star adapter",
        ours="learned threshold, restoring dropped tokens, the gate's mask, the tiny size",
        ideas={
            "token selection": "select=false",
            "channel gate": "gate=false",
            "star adapter": "star=false",
            "layer freezing": "freeze=false",
        },
        policies={"base": _UVLTRACK, "uvltrack-base": _UVLTRACK, "uvltrack-large": _UVLTRACK, "tiny": _visible(0.53)},
    ),
    "aitrack": ModelCard(
        name="aitrack",
        title="AITrack",
        paper="IEEE Access 2025, doi 10.1109/ACCESS.2025.3555816; on ARTrack (CVPR 2023)",
        year=2025,
        network="AITrack",
        sizes=("tiny", "base", "artrack-base"),
        claims="ROI-based text-guided encoder (Alpha-CLIP), additive alignment, a box as four tokens",
        ours="sentences in CLIP's space, a learned scale, the key-value cache, the score, the tiny size",
        ideas={"region embedding": "roi=none", "past boxes": "history=0"},
        policies={"tiny": _ARTRACK_TINY, "base": _ARTRACK, "artrack-base": _ARTRACK},
        boxes_only=("artrack-base",),
    ),
    "all-in-one": ModelCard(
        name="all-in-one",
        title="All-in-One",
        paper="Zhang et al., ACM MM 2023, arXiv 2307.03373; on OSTrack (ECCV 2022)",
        year=2023,
        network="AllInOne",
        sizes=("tiny", "base", "ostrack-base"),
        claims="language-injected vision tokens, multi-modal alignment in training, candidate elimination",
        ours="a sentence vector that differs between sentences, BBOX exact, text-only start, the tiny size",
        ideas={"language injection": "mixup=false", "alignment": "align=none", "candidate elimination": "keep=1"},
        policies={"base": PUBLISHED, "ostrack-base": PUBLISHED, "tiny": _visible(0.54)},
        boxes_only=("ostrack-base",),
    ),
    "bit-tracker": ModelCard(
        name="bit-tracker",
        title="BIT-Tracker",
        paper="IEEE TCSVT 34(8):7259, 2024; no code; on STARK (ICCV 2021)",
        year=2024,
        network="BITTracker",
        sizes=("tiny", "base", "base-r50", "stark-base", "stark-r50", "stark-s50"),
        claims="multi-level aggregation (DSA, DCA), CNN-transformer interaction, gated dynamic template",
        ours="the inside of MDAI and CTIF, text (in tiny alone), the tiny size",
        ideas={"DSA": "dsa=false", "DCA": "dca=false", "CTIF": "ctif=false", "score head": "score=false"},
        policies={size: _STARK for size in ("base", "base-r50", "stark-base", "stark-r50")}
        | {"stark-s50": {**_STARK, "refresh_every": 0}, "tiny": {"window": 0.0, "penalty": 0.0} | _visible(0.978)},
        boxes_only=("base", "base-r50", "stark-base", "stark-r50", "stark-s50"),
    ),
    "sa-tracker": ModelCard(
        name="sa-tracker",
        title="SATracker",
        paper="Ge et al., ACM TOMM 2025, arXiv 2311.17085; only the abstract is public",
        year=2023,
        network="SATracker",
        sizes=("tiny", "base"),
        claims="synchronous learning backbone, target enhance module, semantic aware module, dense matching",
        ours="all but the names of its parts and what they are for",
        ideas={"target enhance": "tem=false", "semantic aware": "sam=false", "dense matching": "dense=false"},
        policies={"base": PUBLISHED, "tiny": _visible(0.51)},
    ),
}


_PRESETS: tuple[tuple[str, str, str], ...] = (
    (r"ostrack", "OSTrack", "all-in-one-ostrack-base"),
    (r"uvl(track)?.*(l|large)\d*$", "UVLTrack-L", "litetrack-uvltrack-large"),
    (r"uvl(track)?", "UVLTrack-B", "litetrack-uvltrack-base"),
    (r"stark.*101", "STARK-ST101", "bit-tracker-stark-base"),
    (r"starks(?!t)", "STARK-S50", "bit-tracker-stark-s50"),
    (r"stark", "STARK-ST50", "bit-tracker-stark-r50"),
    (r"artrack", "ARTrack-Seq", "aitrack-artrack-base"),
)
"""Pattern at the beginning of a name, in small letters and digits alone; the published method; its preset here."""


def hint_for(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown model: the preset of a published method, or the nearest name."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for pattern, title, preset in _PRESETS:
        if re.match(pattern, plain):
            other = " (its 256 px version only)" if "384" in plain else ""
            command = f"vltrack import-weights FILE --as {preset}"
            return f"Weights of {title}{other} run as {preset}, once imported: {command}."
    return did_you_mean(name, known)


def split_name(name: str) -> tuple[ModelCard, str]:
    """Split ``litetrack-tiny`` into its card and ``tiny``; a tracker's name alone means its ``tiny`` size.

    Raises:
        ModelNotFound: no such name; the hint has the nearest one.
    """
    if name in MODELS:
        return MODELS[name], "tiny"
    for card in MODELS.values():
        for size in card.sizes:
            if name == f"{card.name}-{size}":
                return card, size
    known = [f"{card.name}-{size}" for card in MODELS.values() for size in card.sizes]
    raise ModelNotFound(f"No model is called {name!r}.", hint=hint_for(name, known))


def _of_module(card: ModelCard, name: str) -> Any:
    module = import_module(card.module or f"vltrack.models.{card.name.replace('-', '_')}")
    return getattr(module, name.replace("-", "_"))


def config_of(card: ModelCard, size: str, changes: Iterable[str] = ()) -> Any:
    """Return the configuration dataclass of a size, with changes such as ``select=false``. Loads torch.

    Raises:
        ConfigError: no such option, or a value that it cannot have.
    """
    config = _of_module(card, size)()
    known: dict[str, Any] = {}
    for text in changes:
        key, _, value = text.partition("=")
        kind: Any = type(getattr(config, key, None))
        try:
            known[key] = {"true": True, "false": False}[value] if kind is bool else kind(value)
        except (KeyError, TypeError, ValueError):
            raise ConfigError(
                f"{card.name}-{size} cannot have {text!r}.", hint="Give KEY=VALUE of its sizes."
            ) from None
    try:
        return replace(config, **known) if known else config
    except ValueError as error:
        raise ConfigError(f"{card.name}-{size} cannot have {', '.join(changes)}: {error}.") from None


def build(card: ModelCard, config: Any) -> Any:
    """Build the network with fresh weights. Loads torch."""
    return _of_module(card, card.network)(config)

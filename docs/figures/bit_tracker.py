"""Places of the parts of BIT-Tracker in its figure."""

from __future__ import annotations

from figures.chart import Arrow, Figure, Frame, Note, Part, Stack, Thing

_WIDE = (126.0, 98.0)


def _dsa(level: int, x: float) -> Part:
    """The self-attention of one level, under its layer's bar."""
    return Part(
        at=(x, 362), size=(50, 54), title="DSA", modules=(f"mdai.dsa.{level}",), called=f"dsa.{level}", shows=""
    )


FIGURE = Figure(
    tracker="bit-tracker",
    says="Encoder layers are gathered; CNN and transformer features attend to each other.",
    height=660,
    items={
        "first": Thing(
            at=(22, 108), size=_WIDE, kind="template", title="first template", shows="{model/template_size} px"
        ),
        "recent": Thing(
            at=(22, 226), size=_WIDE, kind="template", title="dynamic template", shows="{model/template_size} px"
        ),
        "crop": Thing(at=(22, 396), size=_WIDE, kind="search", title="search region", shows="{model/search_size} px"),
        "z": Part(
            at=(170, 168),
            size=(144, 62),
            title="ResNet, stride 16",
            modules=("embed.stem",),
            lane="init_template",
            shows="{init_template/embed.stem/tokens_BNC} each",
        ),
        "x": Part(
            at=(170, 397),
            size=(144, 62),
            title="ResNet, stride 16",
            modules=("embed.stem",),
            shows="{locate/embed.stem/tokens_BNC}",
        ),
        "encoder": Stack(
            at=(338, 108),
            size=(346, 210),
            title="Encoder over both templates and search",
            modules="encoder",
            span=("0", "{config/layers}"),
            tokens=(("template", ""), ("search", "{locate/embed.stem/tokens_BNC#0}")),
            idea=("taps",),
            marked="taps",
            count_from=1,
            pitch=54,
            bar=26,
            scale=3.7,
        ),
        "dsa0": _dsa(0, 513),
        "dsa1": _dsa(1, 567),
        "dsa2": _dsa(2, 621),
        "dca": Part(
            at=(513, 434), size=(158, 62), title="DCA: last to all", modules=("mdai.dca",), shows="{locate/mdai}"
        ),
        "ask_cnn": Part(
            at=(722, 362), size=(156, 62), title="a: transformer → CNN", modules=("ctif.ask_cnn",), called="ask_cnn"
        ),
        "ask_transformer": Part(
            at=(722, 454),
            size=(156, 62),
            title="b: CNN → transformer",
            modules=("ctif.ask_transformer",),
            called="ask_transformer",
        ),
        "merge": Part(
            at=(906, 408),
            size=(128, 62),
            title="f from [a; b]",
            modules=("ctif.merge", "ctif.norm"),
            called="merge",
            shows="{locate/ctif}",
        ),
        "score": Part(
            at=(890, 214),
            size=(160, 76),
            title="Target in view?",
            modules=("score_head",),
            shows="Z′ and f, pooled",
            idea=("score",),
        ),
        "head": Part(
            at=(1064, 401),
            size=(116, 76),
            title="Two corners",
            modules=("head",),
            shows="{locate/head.tl#1} × {locate/head.tl#2} places",
        ),
        "box": Thing(at=(1064, 514), kind="box", title="box", shows="one, no window"),
    },
    frames=(
        Frame(at=(372, 336), size=(311, 176), title="MDAI", module="mdai", idea=("dsa", "dca")),
        Frame(at=(708, 336), size=(340, 196), title="CTIF", module="ctif", idea=("ctif",)),
    ),
    arrows=(
        Arrow(start="first:r", end="z:l-20", kind="template"),
        Arrow(start="recent:r", end="z:l+20", kind="template"),
        Arrow(start="crop:r", end="x:l", kind="search"),
        Arrow(start="z:r", end="encoder:l-14", kind="template"),
        Arrow(start="x:r", end="encoder:l+80", kind="search"),
        Arrow(start="encoder.4:b", end="dsa0:t", kind="search"),
        Arrow(start="encoder.5:b", end="dsa1:t", kind="search"),
        Arrow(start="encoder.6:b", end="dsa2:t", kind="search"),
        Arrow(start="dsa0:b", end="dca:t-54", kind="search"),
        Arrow(start="dsa1:b", end="dca:t", kind="search"),
        Arrow(start="dsa2:b", end="dca:t+54", kind="search"),
        Arrow(start="dca:r", end="ask_cnn:l", kind="search", bend=696),
        Arrow(
            start="dca:r",
            end="score:l",
            kind="template",
            bend=696,
            label="Z′: mean of the templates' tokens",
            label_at=(794, 245),
        ),
        Arrow(
            start="x:b",
            end="ask_transformer:b-40",
            kind="search",
            via=((242, 560), (760, 560)),
            label="the CNN's own feature of the search region",
            label_at=(400, 553),
        ),
        Arrow(start="ask_cnn:b+24", end="ask_transformer:t+24", kind="search"),
        Arrow(start="ask_transformer:t-24", end="ask_cnn:b-24", kind="search"),
        Arrow(start="ask_cnn:r", end="merge:l-12", kind="search"),
        Arrow(start="ask_transformer:r", end="merge:l+12", kind="search"),
        Arrow(start="merge:t", end="score:b", kind="search"),
        Arrow(start="merge:r", end="head:l", kind="search"),
        Arrow(start="head:b", end="box:t", kind="search"),
        Arrow(
            start="score:t+54",
            end="recent:l",
            kind="template",
            via=((1024, 86), (14, 86), (14, 258)),
            dashed=True,
            label="every {policy/refresh_every} frames, if it scores above {policy/refresh_above}: cut anew",
            label_at=(820, 80),
        ),
    ),
    notes=(
        Note(at=(170, 286), words="The first template again,\nuntil one is cut anew.", idea=("recent_template",)),
        Note(
            at=(386, 384), words="Each of the\nmarked layers'\noutputs attends\nto itself, then\nthe last one\nto all."
        ),
    ),
)

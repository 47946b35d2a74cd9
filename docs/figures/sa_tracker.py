"""Places of the parts of SATracker in its figure."""

from __future__ import annotations

from figures.chart import Arrow, Figure, Note, Part, Stack, Thing

_LEFT, _PITCH, _COLUMNS = 344, 50, 12
_MODULES = ((3, "tem"), (5, "tem"), (7, "sam"), (9, "sam"), (11, "sam"))


def _middle(layer: int) -> float:
    """Where the column of a layer is, from the middle of the panel of vision."""
    return _PITCH * (layer + 0.5 - _COLUMNS / 2)


def _module(layer: int, kind: str) -> Part:
    """A target enhance or semantic aware module, in its layer's column."""
    x = _LEFT + _PITCH * (layer + 0.5) - 33
    return Part(
        at=(x, 208), size=(66, 54), title=kind.upper(), modules=(f"{kind}.{layer}",), shows="", idea=(kind,), tag=""
    )


def _exchange(layer: int, kind: str) -> tuple[Arrow, ...]:
    """Arrows of a module: both kinds read both streams and update vision, a semantic one text too."""
    name, words = f"{kind}{layer}", f"{'alone' if layer == 3 else 'words'}.{layer}"
    away = 8 if kind == "sam" and layer < _COLUMNS - 1 else 0
    arrows = [
        Arrow(start=f"{words}:b{-away:+}", end=f"{name}:t{-away:+}", kind="text"),
        Arrow(start=f"vision:t{_middle(layer) - 10:+g}", end=f"{name}:b-10", kind="search"),
        Arrow(start=f"{name}:b+10", end=f"vision:t{_middle(layer) + 10:+g}", kind="search"),
        Arrow(start=f"vision:b{_middle(layer):+g}", end=f"dense:t{_middle(layer):+g}", dashed=True),
    ]
    if away:
        arrows.append(Arrow(start=f"{name}:t{away:+}", end=f"{words}:b{away:+}", kind="text"))
    return tuple(arrows)


FIGURE = Figure(
    tracker="sa-tracker",
    says="A vision and a language network advance in lockstep and speak to each other at several levels.",
    height=656,
    items={
        "sentence": Thing(
            at=(24, 92), kind="sentence", title="sentence", shows="≤ {read_text/bert.embeddings/in#0} word pieces"
        ),
        "template": Thing(at=(24, 304), kind="template", title="template", shows="{model/template_size} px"),
        "crop": Thing(at=(24, 418), kind="search", title="search region", shows="{model/search_size} px"),
        "embed": Part(at=(176, 87), size=(140, 74), title="Word table", modules=("bert.embeddings",), lane="read_text"),
        "z": Part(
            at=(176, 305),
            size=(140, 62),
            title="Patches z",
            modules=("embed.stem",),
            lane="init_template",
            shows="{init_template/embed.stem/tokens_BNC}",
        ),
        "x": Part(
            at=(176, 419),
            size=(140, 62),
            title="Patches x",
            modules=("embed.stem",),
            shows="{locate/embed.stem/tokens_BNC}",
        ),
        "alone": Stack(
            at=(347, 84),
            size=(194, 80),
            title="BERT, no image yet",
            modules="bert.encoder.layer",
            called="layer",
            span=("0", "{model/text_alone}"),
            tokens=(("text", ""),),
            lane="read_text",
            pitch=_PITCH,
            bar=24,
            scale=2.3,
        ),
        "words": Stack(
            at=(547, 84),
            size=(394, 80),
            title="BERT in lockstep",
            modules="bert.encoder.layer",
            span=("{model/text_alone}", "{model/text_layers}"),
            tokens=(("text", ""),),
            pitch=_PITCH,
            bar=24,
            scale=2.3,
        ),
        **{f"{kind}{layer}": _module(layer, kind) for layer, kind in _MODULES},
        "vision": Stack(
            at=(347, 306),
            size=(594, 204),
            title="One ViT over [z; x], in lockstep",
            modules="blocks",
            span=("0", "{config/layers}"),
            tokens=(
                ("template", "{init_template/embed.stem/tokens_BNC#0}"),
                ("search", "{locate/embed.stem/tokens_BNC#0}"),
            ),
            pitch=_PITCH,
            bar=24,
            scale=2.3,
            title_below=True,
        ),
        "head": Part(
            at=(972, 370),
            size=(200, 76),
            title="Norm; head: center,\noffset, size",
            modules=("norm", "head"),
            shows="{locate/head/center_BSS} cells",
        ),
        "box": Thing(at=(1014, 480), kind="box", title="box", shows="of the best cell"),
        "dense": Part(
            at=(347, 540),
            size=(594, 58),
            title="Dense matching: is this cell the target's? Asked at every level",
            modules=(),
            lane="forward",
            shows="similarity of {forward/forward()/matches/9} cells to the target and the sentence",
            idea=("dense",),
            tag="below",
        ),
    },
    arrows=(
        Arrow(start="sentence:r", end="embed:l", kind="text"),
        Arrow(start="template:r", end="z:l", kind="template"),
        Arrow(start="crop:r", end="x:l", kind="search"),
        Arrow(start="embed:r", end="alone:l", kind="text"),
        Arrow(start="z:r", end="vision:l-72", kind="template"),
        Arrow(start="x:r", end="vision:l+42", kind="search"),
        Arrow(start="vision:r", end="head:l", kind="search"),
        Arrow(start="head:b", end="box:t", kind="search"),
        *(arrow for layer, kind in _MODULES for arrow in _exchange(layer, kind)),
    ),
    notes=(
        Note(
            at=(176, 226),
            words="Target enhance: two queries, the template's\ntarget and [CLS], gather from both streams;\n"
            "added where search cells resemble them.",
            idea=("tem", "tem_after"),
        ),
        Note(
            at=(966, 226),
            words="Semantic aware: vision and text\nattend to each other; gates\n"
            "start at 0. After the last one\ntext is not used.",
            idea=("sam", "sam_after"),
        ),
    ),
)

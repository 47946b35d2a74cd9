"""Places of the parts of LiteTrack in its figure."""

from __future__ import annotations

from figures.chart import Arrow, Figure, Note, Part, Stack, Thing

_LAYERS = 12
_VISION = (
    ("class", ""),
    ("template", "{init_template/embed.stem/tokens_BNC#0}"),
    ("search", "{kept/selector/order_BR#0}"),
)

FIGURE = Figure(
    tracker="litetrack",
    says="Vision and language run apart, then joined; search tokens that resemble earlier ones are left out.",
    height=640,
    items={
        "template": Thing(at=(24, 108), kind="template", title="template", shows="{model/template_size} px"),
        "crop": Thing(at=(24, 232), kind="search", title="search region", shows="{model/search_size} px"),
        "sentence": Thing(
            at=(24, 434), kind="sentence", title="sentence", shows="≤ {read_text/bert.embeddings/in#0} word pieces"
        ),
        "z": Part(
            at=(164, 109),
            size=(138, 62),
            title="Patches z",
            modules=("embed.stem",),
            lane="init_template",
            shows="{init_template/embed.stem/tokens_BNC}",
        ),
        "x": Part(
            at=(164, 233),
            size=(138, 62),
            title="Patches x",
            modules=("embed.stem",),
            lane="kept",
            shows="{kept/embed.stem/tokens_BNC}",
        ),
        "select": Part(
            at=(324, 226),
            size=(128, 76),
            title="Token selection",
            modules=("selector",),
            lane="kept",
            shows="{kept/selector/keep_BN} → {kept/selector/order_BR}",
            idea=("select",),
        ),
        "embed": Part(
            at=(164, 429), size=(138, 74), title="Word table", modules=("bert.embeddings",), lane="read_text"
        ),
        "star_v": Part(
            at=(478, 358),
            size=(182, 50),
            title="Star before each block",
            modules=("star_vision",),
            lane="kept",
            shows="",
            idea=("star",),
        ),
        "star_t": Part(
            at=(478, 536),
            size=(182, 50),
            title="Star before each layer",
            modules=("star_text",),
            lane="read_text",
            shows="",
            idea=("star",),
        ),
        "gate": Part(
            at=(702, 358),
            size=(182, 50),
            title="Channel gate in all blocks",
            modules=tuple(f"blocks.{i}.attn.gate" for i in range(_LAYERS)),
            called="attn.gate",
            lane="kept",
            shows="",
            idea=("gate",),
        ),
        "split": Stack(
            at=(478, 108),
            size=(182, 226),
            title="ViT alone",
            modules="blocks",
            span=("0", "{config/split_layers}"),
            tokens=_VISION,
            lane="kept",
            idea=("freeze", "frozen_blocks"),
            marked="frozen_blocks",
            pitch=28,
            scale=1.8,
        ),
        "joint": Stack(
            at=(702, 108),
            size=(182, 226),
            title="Joined in one ViT",
            modules="blocks",
            span=("{config/split_layers}", str(_LAYERS)),
            tokens=(*_VISION, ("text", "{read_text/star_text#0}")),
            lane="kept",
            pitch=28,
            scale=1.8,
        ),
        "bert": Stack(
            at=(478, 423),
            size=(182, 86),
            title="BERT alone",
            modules="bert.encoder.layer",
            called="layer",
            span=("0", "{config/split_layers}"),
            tokens=(("text", ""),),
            lane="read_text",
            pitch=28,
            scale=1.8,
        ),
        "prompter": Part(
            at=(940, 108),
            size=(140, 76),
            title="Three prompts",
            modules=("head.prompter",),
            lane="init_template",
            shows="{kept/head/in/1}",
        ),
        "restore": Part(
            at=(940, 236),
            size=(140, 66),
            title="Cells restored",
            modules=(),
            lane="kept",
            shows="{kept/selector/order_BR} → {kept/head/in/0/search_BNC#0} tokens",
            idea=("select",),
        ),
        "head": Part(
            at=(940, 352),
            size=(164, 76),
            title="Similarity to prompts;\ncentre, offset, size",
            modules=("head",),
            lane="kept",
            shows="{kept/head/0} cells",
        ),
        "box": Thing(at=(964, 466), kind="box", title="box", shows="of the best cell"),
    },
    arrows=(
        Arrow(start="template:r", end="z:l", kind="template"),
        Arrow(start="crop:r", end="x:l", kind="search"),
        Arrow(start="sentence:r", end="embed:l", kind="text"),
        Arrow(start="z:r", end="split:l-81", kind="template"),
        Arrow(start="x:r", end="select:l", kind="search"),
        Arrow(start="select:r", end="split:l+43", kind="search"),
        Arrow(start="embed:r", end="bert:l", kind="text"),
        Arrow(start="star_v:t-64", end="split:b-64"),
        Arrow(start="star_t:t-64", end="bert:b-64"),
        Arrow(start="gate:t-64", end="joint:b-64"),
        Arrow(start="split:r", end="joint:l", kind="search"),
        Arrow(start="bert:r", end="joint:l+92", kind="text", bend=681),
        Arrow(start="joint:r+48", end="restore:l", kind="search"),
        Arrow(start="restore:b", end="head:t-12", kind="search"),
        Arrow(
            start="restore:t+56",
            end="prompter:b+56",
            kind="template",
            dashed=True,
            label="at the start, then\nevery {policy/refresh_every} frames",
            label_at=(1002, 202),
        ),
        Arrow(start="prompter:r", end="head:t+70", kind="template"),
        Arrow(start="head:b", end="box:t", kind="search"),
    ),
    notes=(
        Note(
            at=(24, 362),
            words="Selection: a token that resembles an earlier one too much leaves. The\n"
            "image decides how many stay (drawn: the share that training aims at,\n"
            "in steps of {config/select_bucket}); those that left get the change of their nearest kin.",
        ),
        Note(
            at=(24, 566),
            words="Freezing: marked blocks, patches, word table and BERT layer 0 do not\n"
            "train at first; blocks come free from above when the loss stands still.",
        ),
    ),
)

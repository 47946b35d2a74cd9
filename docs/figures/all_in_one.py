"""Places of the parts of All-in-One in its figure."""

from __future__ import annotations

from figures.chart import Arrow, Figure, Note, Part, Sign, Stack, Thing

FIGURE = Figure(
    tracker="all-in-one",
    says="A sentence becomes one vector, which scales the channels of all patches before the transformer.",
    height=574,
    items={
        "template": Thing(at=(24, 84), kind="template", title="template", shows="{model/template_size} px"),
        "sentence": Thing(at=(24, 216), kind="sentence", title="sentence", shows="≤ {read_text/bert/in#0} word pieces"),
        "crop": Thing(at=(24, 348), kind="search", title="search region", shows="{model/search_size} px"),
        "z": Part(
            at=(172, 85),
            size=(168, 62),
            title="Patches z",
            modules=("embed.stem",),
            lane="init_template",
            shows="{init_template/embed.stem/tokens_BNC}",
        ),
        "bert": Part(at=(204, 217), size=(136, 62), title="Word table", modules=("bert",), lane="read_text"),
        "x": Part(
            at=(204, 349),
            size=(136, 62),
            title="Patches x",
            modules=("embed.stem",),
            shows="{locate/embed.stem/tokens_BNC}",
        ),
        "gain": Part(
            at=(374, 217),
            size=(140, 62),
            title="Mean, map: L",
            modules=("language",),
            lane="init_template",
            shows="{init_template/language}, length 1",
        ),
        "mix_z": Sign(at=(444, 116), sign="×", idea=("mixup",)),
        "mix_x": Sign(at=(444, 380), sign="×", idea=("mixup",), tag_below=True),
        "blocks": Stack(
            at=(580, 84),
            size=(304, 336),
            title="One ViT over [z; x]; some candidates leave",
            modules="blocks",
            span=("0", "{config/layers}"),
            tokens=(("template", "{init_template/embed.stem/tokens_BNC#0}"), ("search", "")),
            idea=("eliminate", "keep"),
            marked="eliminate",
            scale=1.25,
        ),
        "norm": Part(
            at=(910, 328),
            size=(142, 78),
            title="Norm; tokens go\nback to their places",
            modules=("norm",),
            shows="{locate/norm#0} → {locate/head/in#0} tokens",
        ),
        "head": Part(
            at=(910, 206),
            size=(142, 78),
            title="Head: center,\noffset, size",
            modules=("head",),
            shows="{locate/head/center_BSS} cells",
        ),
        "box": Thing(at=(1066, 213), kind="box", title="box", shows="of the best cell"),
        "aligner": Part(
            at=(172, 460),
            size=(342, 62),
            title="Alignment pulls z, x and L together",
            modules=("aligner",),
            lane="forward",
            shows="3 vectors of {forward/aligner/0}",
            idea=("align",),
        ),
    },
    arrows=(
        Arrow(start="template:r", end="z:l", kind="template"),
        Arrow(start="sentence:r", end="bert:l", kind="text"),
        Arrow(start="crop:r", end="x:l", kind="search"),
        Arrow(start="z:r", end="mix_z:l", kind="template"),
        Arrow(start="x:r", end="mix_x:l", kind="search"),
        Arrow(start="bert:r", end="gain:l", kind="text"),
        Arrow(start="gain:t", end="mix_z:b", kind="text", label="z + L · z", label_at=(480, 190)),
        Arrow(start="gain:b", end="mix_x:t", kind="text", label="x + L · x", label_at=(480, 330)),
        Arrow(start="mix_z:r", end="blocks:l-136", kind="template", label="+ positions", label_at=(540, 108)),
        Arrow(start="mix_x:r", end="blocks:l+128", kind="search", label="+ positions", label_at=(540, 372)),
        Arrow(start="blocks:r+115", end="norm:l", kind="search"),
        Arrow(start="norm:t", end="head:b", kind="search"),
        Arrow(start="head:r", end="box:l", kind="search"),
        Arrow(start="z:b-68", end="aligner:t-155", dashed=True),
        Arrow(start="x:b", end="aligner:t-71", dashed=True),
        Arrow(start="gain:b+60", end="aligner:t+161", dashed=True),
    ),
    notes=(
        Note(
            at=(580, 442),
            words="Marked blocks: after their attention, the search tokens that the template's middle cell\n"
            "attends to least leave; {config/keep} of them stay.",
        ),
    ),
)

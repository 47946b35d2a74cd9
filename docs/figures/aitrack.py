"""Places of the parts of AITrack in its figure."""

from __future__ import annotations

from figures.chart import Arrow, Figure, Note, Part, Sign, Stack, Thing

FIGURE = Figure(
    tracker="aitrack",
    says="CLIP's embedding of the target region is added to all tokens; a decoder writes the box as tokens.",
    height=628,
    items={
        "template": Thing(at=(24, 90), kind="template", title="template", shows="{model/template_size} px"),
        "crop": Thing(at=(24, 216), kind="search", title="search region", shows="{model/search_size} px"),
        "sentence": Thing(
            at=(24, 408), kind="sentence", title="sentence", shows="≤ {read_text/clip_text/in#0} pieces"
        ),
        "z": Part(
            at=(184, 91),
            size=(144, 62),
            title="Patches z",
            modules=("embed.stem",),
            lane="init_template",
            shows="{init_template/embed.stem/tokens_BNC}",
        ),
        "x": Part(
            at=(184, 217),
            size=(144, 62),
            title="Patches x",
            modules=("embed.stem",),
            shows="{locate/embed.stem/tokens_BNC}",
        ),
        "roi_z": Part(
            at=(184, 318),
            size=(144, 76),
            title="CLIP, first box",
            modules=("roi",),
            lane="init_template",
            shows="{config/roi_size} px, mask → {init_template/roi}",
            idea=("roi",),
        ),
        "text": Part(
            at=(184, 402),
            size=(144, 76),
            title="CLIP text (ours)",
            modules=("clip_text",),
            lane="read_text",
            shows="{read_text/clip_text/in#0} → {read_text/clip_text}",
        ),
        "roi_x": Part(
            at=(184, 494),
            size=(144, 76),
            title="CLIP, last box",
            modules=("roi",),
            shows="{config/roi_size} px, mask → {locate/roi}",
            idea=("roi",),
        ),
        "mean_z": Sign(at=(420, 356), sign="+"),
        "mean_x": Sign(at=(420, 532), sign="+"),
        "blocks": Stack(
            at=(362, 90),
            size=(296, 220),
            title="One ViT over [z; x]",
            modules="blocks",
            span=("0", "{config/layers}"),
            tokens=(
                ("template", "{init_template/embed.stem/tokens_BNC#0}"),
                ("search", "{locate/embed.stem/tokens_BNC#0}"),
            ),
            scale=2.1,
            pitch=23,
        ),
        "align": Part(
            at=(672, 318),
            size=(150, 76),
            title="Vector added\nto every token",
            modules=("norm", "align"),
            shows="{locate/align} | {locate/align@1}",
            idea=("roi",),
        ),
        "encoder": Part(
            at=(862, 325),
            size=(150, 62),
            title="Fusion: z ⇄ x",
            modules=("encoder",),
            shows="{locate/encoder/0#0} + {locate/encoder/1#0} tokens",
        ),
        "decoder": Part(
            at=(862, 150),
            size=(150, 100),
            title="Decoder: 4 tokens,\none after another",
            modules=("decoder",),
            shows="{locate/decoder.word_embeddings/in#0} tokens → 4",
            idea=("history",),
        ),
        "box": Thing(at=(1062, 122), kind="box", title="box", shows="x1 y1 x2 y2"),
        "past": Thing(at=(1062, 270), kind="past", title="last {model/history} boxes", shows="4 tokens each"),
    },
    arrows=(
        Arrow(start="template:r", end="z:l", kind="template"),
        Arrow(start="crop:r", end="x:l", kind="search"),
        Arrow(start="sentence:r", end="text:l", kind="text"),
        Arrow(start="template:r+16", end="roi_z:l", kind="template", bend=166),
        Arrow(start="crop:r+16", end="roi_x:l", kind="search", bend=152),
        Arrow(start="z:r", end="blocks:l-78", kind="template"),
        Arrow(start="x:r", end="blocks:l+48", kind="search"),
        Arrow(start="roi_z:r", end="mean_z:l", kind="template"),
        Arrow(start="roi_x:r", end="mean_x:l", kind="search"),
        Arrow(start="text:r", end="mean_z:b", kind="text"),
        Arrow(start="text:r", end="mean_x:t", kind="text"),
        Arrow(start="mean_z:r", end="align:l", kind="template"),
        Arrow(start="mean_x:r", end="align:b", kind="search"),
        Arrow(start="blocks:r", end="align:t-50", kind="search"),
        Arrow(start="align:r", end="encoder:l", kind="search"),
        Arrow(start="encoder:t", end="decoder:b", kind="search"),
        Arrow(start="decoder:r-46", end="box:l", kind="search"),
        Arrow(start="past:l", end="decoder:r+34", kind="search", bend=1036),
        Arrow(start="box:r", end="past:r", via=((1182, 154), (1182, 302)), dashed=True),
    ),
    notes=(
        Note(at=(440, 420), words="mean of region and sentence, of length 1"),
        Note(
            at=(862, 440),
            words="Prompt: {model/history} boxes of 4 tokens and a start token.\n"
            "{config/bins} tokens span a side of the crop,\n{config/reach} sides are covered.",
        ),
        Note(
            at=(862, 506),
            words="No sentence, or no region: its vector is left out.\nNo window, no score head.",
        ),
    ),
)

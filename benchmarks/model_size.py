"""How large the trackers are: parameters in all, trained and used when they run, and multiplications a frame.

Parameters are counted without memory (meta device). Work is counted by torch's ``FlopCounterMode`` in one
real pass with random weights: matrix products, convolutions and attention; G is 10^9 multiplications with
their additions (FLOPs / 2). Nothing is timed here.

    python benchmarks/model_size.py
    python benchmarks/model_size.py --out benchmarks/results
"""

from __future__ import annotations

import argparse
import datetime
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vltrack.core.files import write_text
from vltrack.models import MODELS, build, config_of
from vltrack.models.litetrack import LiteTrack, LiteTrackConfig
from vltrack.nn.select import Selection
from vltrack.training.freeze import freeze

# What no method of the running tracker reads (tests/models/test_sizes.py changes them and sees the same).
TRAINING_ONLY = ("log_contrast", "head.prompter.q.", "head.prompter.kv.", "head.prompter.proj.")
# Share of search tokens that the loss on the threshold aims at (training/recipes.py), as in the table.
KEPT_SHARE = 0.7


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
    """Multiplications with additions of one target.

    ``frame`` and ``frame_kept``: a tracked frame by box and sentence with all search tokens and with the
    share that training aims at; ``ground``: a frame searched by words; ``text`` and ``start``: once a target.
    """

    frame: int
    frame_kept: int
    ground: int
    text: int
    start: int


def count_parameters(config: LiteTrackConfig) -> Size:
    """Without allocating anything."""
    with torch.device("meta"):
        model = LiteTrack(config)
    running = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(TRAINING_ONLY))
    total = sum(p.numel() for p in model.parameters())
    freeze(model.freeze_plan()[0])
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Size(total=total, trainable=trainable, running=running)


def count_work(model: LiteTrack) -> Work:
    """One pass each on a grey picture, with a sentence of the longest length."""
    search = torch.zeros(1, 3, model.search_size, model.search_size)
    template = torch.zeros(1, 3, model.template_size, model.template_size)
    box = torch.tensor([[0.5, 0.5, 0.3, 0.3]])
    ids = torch.ones(1, model.max_words, dtype=torch.long)
    words = torch.ones_like(ids, dtype=torch.bool)
    cells = model.search_side**2
    with torch.inference_mode():
        text = model.read_text(ids, words)
        memory = model.remember(template, box, search, box, text)
        keep_exactly(model, cells)
        whole = {
            "text": _macs(lambda: model.read_text(ids, words)),
            "start": _macs(lambda: model.remember(template, box, search, box, text)),
            "ground": _macs(lambda: model.ground(search, text)),
            "frame": _macs(lambda: model.locate(search, memory)),
        }
        bucket = model.config.select_bucket
        keep_exactly(model, -(-int(KEPT_SHARE * cells) // bucket) * bucket)
        return Work(**whole, frame_kept=_macs(lambda: model.locate(search, memory)))


def keep_exactly(model: LiteTrack, count: int) -> None:
    """From now on the selector keeps the first ``count`` tokens, whatever the picture."""
    if model.selector is None:
        return

    def first_ones(module: object, inputs: tuple[Tensor], chosen: Selection) -> Selection:
        places = torch.arange(chosen.keep_BN.shape[1])[None]
        return replace(
            chosen,
            keep_BN=places < count,
            order_BK=places[:, :count],
            filler_BK=torch.zeros(1, count, dtype=torch.bool),
            source_BN=places.clamp_max(count - 1),
        )

    model.selector.register_forward_hook(first_ones)


def _macs(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


PUBLISHED = """
Published: UVLTrack-B 167.7 M parameters; LiteTrack 108.4 M, which counts what trains (by the released code
the whole network has about 169.5 M). The LiteTrack authors' table gives 47.2 G tracking and 39.8 G
grounding for LiteTrack, 43.7 G and 36.7 G for UVLTrack. How they counted is not told; ours leaves out what
is computed once a target. Their star layers of full width are drawn anew at every call and are no
parameters; ours are, with a bottleneck of 85. Our base leaves out the three layers of UVLTrack's prompter
that have no effect.

- *in all*: every parameter; *training*: those that train from the start under the freeze plan; *running*:
  those that a tracker reads. Freezing does not make the network smaller when it runs.
- *frame*: one tracked frame by box and sentence, template and sentence remembered, all search tokens; *kept
  70 %*: with the share of search tokens that training aims at, rounded up to a bucket; *by words*: one
  frame searched by the sentence; *sentence*, *start*: once a target.
"""


def table(sizes: list[tuple[str, Size, Work]]) -> str:
    """Markdown."""
    lines = [
        "| | in all | training | running | frame | kept 70 % | by words | sentence | start |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, size, work in sizes:
        counts = [f"{n / 1e6:.3f} M" for n in (size.total, size.trainable, size.running)]
        work_done = [work.frame, work.frame_kept, work.ground, work.text, work.start]
        lines.append(
            f"| {name} | {' | '.join(counts)} | {' | '.join(f'{n / 1e9:.2f} G' for n in work_done)} |"
        )
    return "\n".join(lines)


def cpu_name() -> str:
    """As the system tells it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def main() -> None:
    """Count every size of every tracker, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write model_size.md there")
    out = parser.parse_args().out
    sizes = []
    for card in MODELS.values():
        for size in card.sizes:
            config = config_of(card, size)
            counted = count_parameters(config)
            sizes.append((f"{card.name}-{size}", counted, count_work(build(card, config).eval())))
    command = "python benchmarks/model_size.py" + (" --out benchmarks/results" if out else "")
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    facts = f"{date}, {cpu_name()}, torch {torch.__version__}: `{command}`"
    text = f"# Sizes of the trackers\n\n{facts}\n\n{table(sizes)}\n{PUBLISHED}"
    print(text)
    if out is not None:
        write_text(out / "model_size.md", text)


if __name__ == "__main__":
    main()

"""LiteTrack's own claims, measured: what freezing and token selection save in a training step, and in a frame.

    python benchmarks/litetrack_claims.py --out benchmarks/results
    python benchmarks/litetrack_claims.py --size tiny --rounds 3

Random weights and noise: neither changes how much is computed. A training step is the loop's: loss, gradients,
their norm, AdamW. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from child import Worker
from scoring import processor  # sets one thread, before torch is loaded

import torch  # isort: skip
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vltrack.core.files import write_text
from vltrack.core.types import Mode
from vltrack.models import MODELS, build, config_of
from vltrack.models.base import MODE_IDS, BoxedCrop
from vltrack.training.checkpoint import freeze
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights

KEPT_SHARE = 0.7
"""Share of search tokens that training aims at."""
PUBLISHED = """
Published (README of yll1214/LiteTrack, next to its parent UVLTrack): 108.4 M parameters beside 167.7 M, GPU memory
70 % beside 90 % (ratio 0.78; of which GPU, with which batch and in which step is not published), 51.7 frames/s
beside 44.1 (ratio of the times 0.85) although 47.2 G beside 43.7 G. `docs/trackers/litetrack.md` has the tracker.

- *learn*: parameters with a gradient. *G per step*: 10^9 multiplications of linear layers and convolutions, forward
  and backward; attention's own products are left out. *ratio*: median over rounds of the time of a step over that of
  the first row in the same round; a busy machine moves it by some hundredths, *G per step* is exact. *peak*: largest
  resident set of a process that does nothing else, without that of its libraries; *state*: weights, gradients and
  AdamW's two moments; *rest*: mostly activations.
- Token selection in training drops nothing, in ours as in the released code: a redundant token stops being a key and
  passes no gradient to its embedding. It saves neither time nor memory in training; at inference the tokens are gone.
- `no_grad` for frozen blocks is not possible with what is published: the layer norms of frozen blocks learn, and so do
  the class token, the star adapters and the selector below them, whose gradients pass through every block. autograd
  leaves out what nothing below needs: the weight gradients of frozen layers, and the input's for the patch embedding.
  The last row freezes all of that too, without token selection: the most that `no_grad` could save.
"""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train: with the freeze plan, with token selection, with nothing learning below the free blocks."""

    size: str
    freeze: bool = False
    select: bool = False
    nothing_below: bool = False

    def __str__(self) -> str:
        parts = {"freezing": self.freeze, "selection": self.select, "nothing below learns": self.nothing_below}
        return f"litetrack-{self.size}: " + (", ".join(part for part, on in parts.items() if on) or "all learns")


WHOLE, PARENT = Variant(size="base", freeze=True, select=True), Variant(size="uvltrack-base")


def variants(size: str) -> list[Variant]:
    """The rows of the table; the first is what the ratios refer to."""
    four = [Variant(size=size, freeze=freeze, select=select) for freeze in (False, True) for select in (False, True)]
    parent = [PARENT] if size == "base" else []
    return [*four, *parent, Variant(size=size, freeze=True, nothing_below=True)]


class Training:
    """A network of one variant and its training step on a batch of noise."""

    def __init__(self, variant: Variant, batch: int, narrow: bool) -> None:
        torch.manual_seed(0)
        config = replace(config_of(MODELS["litetrack"], variant.size), **NARROW if narrow else {})
        config = replace(config, select=variant.select and config.select)
        self.model: Any = build(MODELS["litetrack"], config).train()
        frozen = self.model.freeze_plan()[0] if variant.freeze else []
        freeze(frozen)
        if variant.nothing_below:
            self._freeze_below(frozen)
        self.objective = PairObjective(self.model, LossWeights())
        self.batch = noise(self.model, batch)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6)

    def _freeze_below(self, frozen: list[nn.Module]) -> None:
        """Freeze the norms too, and all that comes before the last frozen block."""
        lowest = sum(block in frozen for block in self.model.blocks)
        star = getattr(self.model, "star_vision", [])
        early = [*frozen, self.model.embed, *self.model.blocks[:lowest], *star[:lowest]]
        for part in (*early, *getattr(self.model, "star_text", [])[:1]):
            part.requires_grad_(False)
        self.model.cls_token.requires_grad_(False)

    def step(self) -> None:
        """One step of the loop."""
        self.objective(self.batch, True)["total"].backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def sizes(self) -> dict[str, float]:
        """Parameters, bytes of the training state, and 10^9 multiplications of a step."""
        with FlopCounterMode(display=False) as counter:
            self.step()
        counts = [p.numel() for p in self.model.parameters()]
        learn = [p.numel() for p in self.model.parameters() if p.requires_grad]
        state = 4 * sum(counts) + 12 * sum(learn)
        return {"all": sum(counts), "learn": sum(learn), "state": state, "work": counter.get_total_flops() / 2e9}


NARROW = {"width": 64, "heads": 4, "text_hidden": 128, "table_width": 64, "head_channels": (32, 16), "star_width": 8}
"""Of a network for tests."""


def noise(model: Any, batch: int) -> dict[str, Tensor]:
    """Samples with box and sentence."""
    generator, t, s, n = torch.Generator().manual_seed(1), model.template_size, model.search_size, model.max_words

    def pixels(*shape: int) -> Tensor:
        return torch.randint(0, 256, (batch, *shape, 3), dtype=torch.uint8, generator=generator)

    box = torch.tensor([0.5, 0.5, 0.3, 0.2])
    return {
        "template": pixels(t, t), "search": pixels(2, s, s), "recent": pixels(2, t, t),
        "template_box": box.expand(batch, 4), "box": box.expand(batch, 2, 4), "recent_box": box.expand(batch, 2, 4),
        "present": torch.ones(batch, 2, dtype=torch.bool), "words": torch.ones(batch, n, dtype=torch.bool),
        "ids": torch.randint(1996, 30000, (batch, n), generator=generator),
        "flag": torch.full((batch,), MODE_IDS[Mode.NLBBOX]),
    }  # fmt: skip


def serve() -> None:
    """A child process: for one variant the sizes, then the peak of two steps, or the seconds of a step per request."""
    print(json.dumps({"versions": {"torch": torch.__version__}}), flush=True)
    training, before = None, resident("VmRSS")
    for line in sys.stdin:
        request = json.loads(line)
        if training is None:
            training = Training(Variant(**request["variant"]), request["batch"], request["narrow"])
            training.step()
            training.step()
            answer = {"peak": resident("VmHWM") - before, **training.sizes()}
        else:
            begin = time.perf_counter()
            training.step()
            answer = {"seconds": time.perf_counter() - begin}
        ctypes.CDLL(None).malloc_trim(0)  # leave room for the other processes
        print(json.dumps(answer), flush=True)


def resident(field: str) -> int:
    """Bytes of this process in memory, now (``VmRSS``) or at most (``VmHWM``)."""
    return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0]) * 1024


def inference(size: str, narrow: bool, rounds: int) -> dict[str, float]:
    """Milliseconds of ``locate`` for one target with all search tokens and with ``KEPT_SHARE`` of them, in turn."""
    with torch.inference_mode():
        model = Training(Variant(size=size, select=True), 1, narrow).model.eval()
        views = PairObjective(model, LossWeights()).views(noise(model, 1))
        search = views.search.image_B3SS[0, :1]
        text = model.read_text(views.ids_BL, views.valid_BL)
        context = BoxedCrop(image_B3SS=search, box_B4=views.search.box_B4[0, :1])
        memory, selector = model.init_template(views.template, context, text), model.selector
        both = model.joint_template(memory.first, memory.recent)
        tokens = model.embed.search(search, both, text, torch.zeros(1).bool(), model.pos_embed_x).tokens_BNC
        cells, bucket = tokens.shape[1], selector.bucket
        wanted, low, high = -(-int(KEPT_SHARE * cells) // bucket) * bucket, -4.0, 4.0
        for _ in range(40):  # random weights need a threshold of their own
            selector.theta.fill_((low + high) / 2)
            few = selector(tokens).order_BR.shape[1] < wanted
            low, high = ((low + high) / 2, high) if few else (low, (low + high) / 2)
        selector.theta.fill_(high)
        kept, times = selector(tokens).order_BR.shape[1], ([], [])
        for _ in range(rounds + 1):
            for own, used in zip(times, (None, selector), strict=True):
                model.selector = used
                begin = time.perf_counter()
                model.locate(search, memory)
                own.append(1000 * (time.perf_counter() - begin))
    every, some = (own[1:] for own in times)
    ratio = statistics.median(b / a for a, b in zip(every, some, strict=True))
    return {"cells": cells, "kept": kept, "all_ms": statistics.median(every), "kept_ms": statistics.median(some),
            "ratio": ratio}  # fmt: skip


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per variant, each in a process of its own; the steps of all are timed in turn."""
    command = [sys.executable, str(Path(__file__).resolve()), "--serve"]
    rows, workers = [], []
    for variant in variants(options.size):
        worker = Worker(command, threads=1)
        request = {"variant": vars(variant), "batch": options.batch, "narrow": options.narrow}
        rows.append({"name": str(variant), **worker.ask(request), "seconds": []})
        workers.append(worker)
    for _ in range(options.rounds):
        for row, worker in zip(rows, workers, strict=True):
            row["seconds"].append(worker.ask({})["seconds"])
    for worker in workers:
        worker.__exit__()
    first = rows[0]["seconds"]
    for row in rows:
        row["ratio"] = statistics.median(a / b for a, b in zip(row["seconds"], first, strict=True))
        row["seconds"] = statistics.median(row["seconds"])
    return rows


def report(rows: list[dict[str, Any]], frame: dict[str, float], options: argparse.Namespace) -> str:
    """Markdown."""
    stamp = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, {processor()}, load {os.getloadavg()[0]:.1f}"
    lines = [
        "# LiteTrack's claims: freezing and token selection",
        "",
        f"{stamp}, one thread; torch {torch.__version__}, float32, batch {options.batch} (twice as many search views).",
        f"Medians of {options.rounds} rounds, each of which times all in turn; random weights, noise.",
        "`python " + " ".join(["benchmarks/litetrack_claims.py", *sys.argv[1:]]) + "`",
        "",
        "| training | parameters | learn | G per step | s per step | ratio | peak GiB | ratio | state GiB | rest GiB |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        peak, state = row["peak"] / 2**30, row["state"] / 2**30
        cells = [row["name"], f"{row['all'] / 1e6:.1f} M", f"{row['learn'] / 1e6:.1f} M", f"{row['work']:.0f}"]
        cells += [f"{row['seconds']:.2f}", f"{row['ratio']:.2f}", f"{peak:.2f}", f"{row['peak'] / rows[0]['peak']:.2f}"]
        lines.append(f"| {' | '.join([*cells, f'{state:.2f}', f'{peak - state:.2f}'])} |")
    if options.size == "base":
        lines += ["", beside_parent(*(next(row for row in rows if row["name"] == str(v)) for v in (WHOLE, PARENT)))]
    lines += [
        "",
        f"A tracked frame, box and sentence: {frame['all_ms']:.0f} ms with all {frame['cells']} search tokens, "
        f"{frame['kept_ms']:.0f} ms with {frame['kept']} of them (the share that training aims at, in whole buckets): "
        f"ratio {frame['ratio']:.2f}.",
    ]
    return "\n".join(lines) + "\n" + PUBLISHED


def beside_parent(ours: dict[str, Any], parent: dict[str, Any]) -> str:
    """The claim of the paper: LiteTrack's training beside UVLTrack's."""
    learn, peak, work = (ours[key] / parent[key] for key in ("learn", "peak", "work"))
    return (
        f"With freezing and selection, as published, beside the parent UVLTrack: parameters that learn {learn:.2f} "
        f"(published 0.65), peak memory {peak:.2f} (published 0.78), multiplications of a step {work:.2f}."
    )


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--size", choices=("base", "tiny"), default="base")
    parser.add_argument("--narrow", action="store_true", help="a narrow network of the same depth, for tests")
    parser.add_argument("--batch", type=int, default=2, help="samples per step")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write a dated Markdown file and its JSON there")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    rows = measure(options)
    frame = inference(options.size, options.narrow, 3 * options.rounds)
    text = report(rows, frame, options)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        name = f"litetrack_claims-{datetime.date.today()}"
        write_text(options.out / f"{name}.md", text)
        write_text(options.out / f"{name}.json", json.dumps({"training": rows, "frame": frame}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Publish the weights of a run: the averaged model with matrices as fp16, and a card of how it was made.

``python -m vltrack.training.publish RUN OUT.safetensors [--figures REAL_VIDEO.json] [--note TEXT]``, and
``python -m vltrack.training.publish LITETRACK.safetensors GROUNDER.safetensors --shared`` for what tiny weights share.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from statistics import fmean
from typing import Any

from vltrack.checkpoints import store
from vltrack.checkpoints.cards import INIT, PACKAGED, find_file, read_card
from vltrack.core.errors import ConfigError
from vltrack.models import build, config_of, split_name
from vltrack.prep.tokenizers import load_tokenizer
from vltrack.training.checkpoint import has_checkpoint, read_checkpoint
from vltrack.training.data import read_data_record
from vltrack.training.init import are_weights

# Training data of docs/train.md -> license, for the card.
MATERIAL = {
    "256 images of COCO 2017 (lightly-ai/coco128_yolo)": "annotations CC BY 4.0, images as on Flickr",
    "3,417 images of Caltech-101": "CC BY 4.0",
    "158 images of google/dreambooth": "CC BY 4.0",
    "200 images of datitran/raccoon_dataset": "MIT",
    "in the part joint, 422 images of COCO 2017 (Obmutescence/COCO-MINI, lizhogn/tiny_coco_dataset, "
    "Deci-AI/super-gradients, lightly-ai/dataset_examples_purple)": "annotations CC BY 4.0, images as on Flickr",
    "in the part joint, 1,003 images of bearpaw/clothing-co-parsing": "Apache-2.0",
    "in the part joint, 605 frames of 17 clips of DAVIS 2016 (MathLee/EOR-VOS)": "BSD",
    "in the part joint, 346 frames of 6 clips (intel-iot-devkit/sample-videos, max810/XMem2, facebookresearch/sam2)": (
        "CC BY 4.0, one Apache-2.0"
    ),
    "in the part joint, 234 images of marcusklasson/GroceryStoreDataset": "MIT",
    "in the part joint, 39 images of traffic signs (lightly-ai/dataset_examples_purple)": "CC BY 4.0",
    "in the part joint, 240 images of alexeygrigorev/clothing-dataset-small": "CC0 1.0",
    "in the part joint, 903 cut-outs of @lobehub/fluent-emoji-3d (Microsoft Fluent Emoji)": "MIT",
    "MobileNetV2 of ImageNet (google-coral/test_data), the stem to start from": "Apache-2.0",
    "word vectors of all-MiniLM-L6-v2, 64 principal components, frozen": "Apache-2.0",
    "vocabulary of bert-base-uncased": "Apache-2.0",
}


def publish(run: Path, out: Path, card: dict[str, Any] | None = None, *, share: bool = False) -> None:
    """Write ``out`` (.safetensors) and its card from the run's last checkpoint.

    ``card`` adds fields: data, licenses, figures. ``share``: see ``store.save``.

    Raises:
        StateError: a folder without a run. CheckpointCorrupt: a damaged one.
        ConfigError: the run that it started from is missing, or runs start from each other.
    """
    record, tensors = read_checkpoint(run)
    recipe = record["config"]
    recipe = {**recipe, **_earlier(recipe, (run,))}
    model_card, size = split_name(f"{recipe['model']}-{recipe['size']}")
    model = build(model_card, config_of(model_card, size, recipe.get("variant", ())))
    store.load_strictly(model, tensors, run)
    about = {
        "recipe": recipe,
        "steps": record["step"],
        "unfrozen_at": record["unfreezer"]["history"],
        "data": [{key: value for key, value in entry.items() if key != "root"} for entry in read_data_record(run)],
        "vocabulary_sha256": load_tokenizer(model.vocabulary, out.parent).sha256,
        **_imported(run),
        **(card or {}),
    }
    store.save(out, model, tracker=model_card.name, size=size, card=about, half=True, share=share)


def _earlier(recipe: dict[str, Any], chain: tuple[Path, ...]) -> dict[str, Any]:
    """The start of a recipe by its own recipe instead of a path; ``chain`` are the runs on the way to it."""
    start = Path(recipe.get("start") or "")
    if not recipe.get("start"):
        return {}
    path = " <- ".join(str(run) for run in (*chain, start))
    if start in chain:
        raise ConfigError(f"Runs start from each other: {path}.", hint="Restore the folder of the first one.")
    if are_weights(str(start)):
        card = read_card(find_file(start))
        kept = ("sha256", "recipe", "steps", "imported", "commit", "notes")
        return {"start": {"weights": start.stem, **{key: card[key] for key in kept if key in card}}}
    if not has_checkpoint(start):
        raise ConfigError(f"The start of a run is missing: {path}.", hint=f"Restore {start}.")
    first, _ = read_checkpoint(start)
    config = first["config"]
    recipe = {**config, **_earlier(config, (*chain, start))}
    return {"start": {"recipe": recipe, "steps": first["step"], **_imported(start)}}


def _imported(run: Path) -> dict[str, Any]:
    """The published files that a run started from, with their licenses; see ``init.init_parts``."""
    return {"imported": read_card(run / INIT)["imported"]} if (run / INIT).exists() else {}


def figures(report: Path, name: str) -> dict[str, Any]:
    """Means over the targets of a report of ``benchmarks/real_video.py``, by mode, for the weights ``name``.

    Raises:
        ValueError: the report has no figures of them.
    """
    content = json.loads(report.read_text())
    found: dict[str, Any] = {}
    for mode in ("bbox", "nlbbox", "nl"):
        rows = [row for row in content["results"] if row["tracker"] in (mode, f"{name} {mode}")]
        if rows:
            found[mode] = {
                "success_auc": round(fmean(row["auc"] for row in rows), 4),
                "sr50": round(fmean(row["sr50"] for row in rows), 4),
                "first_frame_at_iou_0.5": sum(row["first"] >= 0.5 for row in rows),
                "targets": len(rows),
            }
    if not found:
        raise ValueError(f"{report} has no figures of {name}")
    about = content["about"]
    what = "open real targets (validation: the tracking policy was chosen on them)"
    return {"what": what, "command": about["command"], "date": about["date"], "results": report.name, **found}


def main(arguments: list[str] | None = None) -> None:
    """Publish with data, license, commit and, if given, figures: the command in this file's docstring."""
    parser = argparse.ArgumentParser(prog="python -m vltrack.training.publish")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--figures", type=Path, help="JSON of benchmarks/real_video.py with these weights")
    parser.add_argument("--note", action="append", default=[], help="a note for the card; may be repeated")
    parser.add_argument("--shared", action="store_true", help="write the shared file: stem of RUN, words of OUT")
    given = parser.parse_args(arguments)
    card: dict[str, Any] = {"licence": "Apache-2.0", "material": MATERIAL, "commit": _commit(), "notes": given.note}
    if given.shared:
        about = "word vectors of all tiny weights; the stem's features, from LiteTrack's training"
        store.save_shared(store.load(given.run)[0], store.load_grounder(given.out)[0], {"what": about, **card})
        return
    if given.figures is not None:
        card["figures"] = figures(given.figures, given.out.stem)
    publish(given.run, given.out, card, share=given.out.resolve().parent == PACKAGED.resolve())


def _commit() -> str | None:
    """The commit of the source tree, if it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.strip() or None


if __name__ == "__main__":
    main()

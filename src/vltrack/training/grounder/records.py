"""Scenes as the grounder's joint transformer is trained on them: proposals and what is annotated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from vltrack.core.errors import DataError
from vltrack.core.files import atomic_path
from vltrack.models.grounder import pairwise_iou
from vltrack.tracking.proposals import Proposals, Proposer
from vltrack.training.grounder.phrases import Phrase, Thing
from vltrack.training.grounder.scenes import Scene

LEAST_OVERLAP = 0.5
"""IoU that a proposal needs with the target, else no proposal is right."""


@dataclass(kw_only=True, slots=True)
class Record:
    """Proposals of one scene and its things.

    Attributes:
        proposals: what the detector finds in it.
        things: what is annotated, boxes in pixels.
        size: width and height in pixels.
        complete: see ``scenes.Source``.
    """

    proposals: Proposals
    things: list[Thing]
    size: tuple[float, float]
    complete: bool

    def target(self, phrase: Phrase) -> Tensor | None:
        """(N + 1,) probabilities of the right boxes and of "nothing fits"; None where no proposal is right."""
        box_N4 = torch.from_numpy(self.proposals.box_N4)
        out = torch.zeros(len(box_N4) + 1)
        if phrase.target < 0:
            out[-1] = 1
            return out
        box = torch.tensor(self.box_of(phrase)) / torch.tensor([*self.size, *self.size])
        iou = pairwise_iou(box_N4, box[None].float())[:, 0]
        if iou.max() < LEAST_OVERLAP:
            return None
        out[:-1] = (iou - (LEAST_OVERLAP - 0.05)).clamp_min(0)
        return out / out.sum()

    def box_of(self, phrase: Phrase) -> tuple[float, float, float, float]:
        """The box that a phrase names, in pixels of the scene."""
        thing = self.things[phrase.target]
        if phrase.part == "head" and thing.head is not None:
            return thing.head
        if phrase.part == "pair":
            other = self.things[phrase.partner].box
            low = [min(a, b) for a, b in zip(thing.box[:2], other[:2], strict=True)]
            high = [max(a, b) for a, b in zip(thing.box[2:], other[2:], strict=True)]
            return (low[0], low[1], high[0], high[1])
        return thing.box


def make_record(proposer: Proposer, scene: Scene) -> Record:
    """Run the detector on a scene."""
    height, width = scene.image.shape[:2]
    return Record(
        proposals=proposer.propose(scene.image), things=scene.things, size=(width, height), complete=scene.complete
    )


_ARRAYS = {
    "box_N4": np.float32, "logits_NK": np.float16, "feature_NF": np.float16, "color_NG": np.float16,
    "kind_N": np.int8, "owners_N2": np.int8,
}  # fmt: skip


def write_records(path: Path, records: list[Record]) -> None:
    """Write records as one .npz file."""
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(r.proposals, name).astype(kind) for r in records])
        for name, kind in _ARRAYS.items()
    }
    heads = [
        {"n": len(r.proposals.box_N4), "aspect": r.proposals.aspect, "size": r.size, "complete": r.complete,
         "things": [asdict(t) for t in r.things]}
        for r in records
    ]  # fmt: skip
    text = np.frombuffer(json.dumps(heads).encode(), dtype=np.uint8)
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, heads=text, **arrays)


def read_records(path: Path) -> Iterator[Record]:
    """Read the records of one file. Raises ``DataError`` where it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            heads = json.loads(data["heads"].tobytes())
            arrays = {name: data[name] for name in _ARRAYS}
        counts = [sum(head["n"] for head in heads), *(len(array) for array in arrays.values())]
        if len(set(counts)) > 1:
            raise ValueError(f"arrays of {counts} rows")
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        hint = "Delete the file; it is made again."
        raise DataError(f"Cannot read the scenes of {path}: {error}.", hint=hint) from error
    at = 0
    for head in heads:
        rows = slice(at, at := at + head["n"])
        parts = {name: array[rows] for name, array in arrays.items()}
        proposals = Proposals(
            box_N4=parts["box_N4"], aspect=head["aspect"], logits_NK=parts["logits_NK"],
            feature_NF=parts["feature_NF"], color_NG=parts["color_NG"], kind_N=parts["kind_N"].astype(np.int64),
            owners_N2=parts["owners_N2"].astype(np.int64),
        )  # fmt: skip
        things = [
            Thing(**{**thing, "box": tuple(thing["box"]), "head": thing["head"] and tuple(thing["head"])})
            for thing in head["things"]
        ]
        yield Record(proposals=proposals, things=things, size=tuple(head["size"]), complete=head["complete"])

"""The annotations of a whole data set as a few long arrays.

S sequences, F frames of all of them one after the other. Boxes are ``x, y, w, h`` in pixels as annotated:
rows of NaN and of zeros stay unchanged; each benchmark treats them in its own way (``metrics.protocols``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Floats

Flags = NDArray[np.bool_]


def is_box(boxes: Floats) -> Flags:
    """(N,) whether rows of (N, 4) xywh are finite and have a width and a height."""
    return np.array(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1))


def listed(names: Sequence[str], most: int = 8) -> str:
    """Join up to ``most`` names for a message, and count the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """One sequence's annotation of N frames.

    Attributes:
        name: of the sequence, as its result file is called.
        boxes: (N, 4) xywh.
        absent: (N,) true where the data set marks the target as absent.
        cover: (N,) how much of the target is visible, 0 to 8 (GOT-10k), or None.
        size: (width, height) of the frames, or None.
        attributes: short names of the flags that are set.
    """

    name: str
    boxes: Floats
    absent: Flags
    cover: Floats | None = None
    size: tuple[int, int] | None = None
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """Annotations of S sequences one after the other; read-only.

    Attributes:
        names: S names.
        starts: (S + 1,) int64: the frames of sequence s are ``starts[s]:starts[s + 1]``.
        boxes: (F, 4) xywh.
        absent: (F,) bool.
        cover: (F,) 0 to 8, all 8 where it is not annotated.
        sizes: (S, 2) width and height, infinite where it is not annotated.
        attributes: (S,) bool by short name.
    """

    names: tuple[str, ...]
    starts: NDArray[np.int64]
    boxes: Floats
    absent: Flags
    cover: Floats
    sizes: Floats
    attributes: Mapping[str, Flags] = field(default_factory=dict)

    def __post_init__(self) -> None:
        arrays = (self.starts, self.boxes, self.absent, self.cover, self.sizes, *self.attributes.values())
        for array in arrays:
            array.setflags(write=False)

    @classmethod
    def join(cls, annotations: Iterable[Annotation]) -> Annotations:
        """Join the annotations of several sequences, in their order.

        Raises:
            DataError: none at all, one without a frame, two of one name, or lengths that differ inside one.
        """
        parts = list(annotations)
        if not parts:
            raise DataError("No annotated sequence to score.", hint="Check the data folder.")
        names = tuple(part.name for part in parts)
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise DataError(f"Duplicate sequence name: {twice[0]!r}.", hint="Names must differ.")
        for part in parts:
            _check(part)
        lengths = [len(part.boxes) for part in parts]
        known = sorted({name for part in parts for name in part.attributes})
        return cls(
            names=names,
            starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            boxes=np.asfortranarray(np.concatenate([part.boxes for part in parts]), dtype=np.float64),
            absent=np.concatenate([np.asarray(part.absent, dtype=bool) for part in parts]),
            cover=np.concatenate(
                [np.full(n, 8.0) if p.cover is None else p.cover for p, n in zip(parts, lengths, strict=True)]
            ).astype(np.float64),
            sizes=np.array([part.size or (np.inf, np.inf) for part in parts], dtype=np.float64),
            attributes={name: np.array([name in part.attributes for part in parts]) for name in known},
        )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def frames(self) -> int:
        """F."""
        return int(self.starts[-1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(S,) frames of each sequence."""
        lengths: NDArray[np.int64] = np.diff(self.starts)
        return lengths

    def rows(self, sequence: int) -> slice:
        """Slice of one sequence's frames in the long arrays."""
        return slice(int(self.starts[sequence]), int(self.starts[sequence + 1]))

    def frames_of(self, kept: Flags) -> Annotations:
        """Keep only the frames ``kept`` (F,)."""
        ends = np.concatenate([[0], np.cumsum(kept)])[self.starts]
        return self._select(np.ones(len(self), dtype=bool), kept, np.diff(ends))

    def only(self, names: Iterable[str]) -> Annotations:
        """Keep only the sequences of these names, in the order that they have here.

        Raises:
            DataError: an unknown name, or none.
        """
        wanted = set(names)
        unknown = sorted(wanted - set(self.names))
        if unknown or not wanted:
            raise DataError(f"No annotation for {', '.join(unknown[:5]) or 'an empty list of sequences'}.")
        keep = np.array([name in wanted for name in self.names])
        return self._select(keep, np.repeat(keep, self.lengths), self.lengths[keep])

    def _select(self, keep: Flags, frames: Flags, lengths: NDArray[np.int64]) -> Annotations:
        return Annotations(
            names=tuple(name for name, kept in zip(self.names, keep, strict=True) if kept),
            starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            boxes=self.boxes[frames],
            absent=self.absent[frames],
            cover=self.cover[frames],
            sizes=self.sizes[keep],
            attributes={name: flags[keep] for name, flags in self.attributes.items()},
        )


def _check(part: Annotation) -> None:
    count = len(part.boxes)
    if part.boxes.shape != (count, 4) or not count:
        raise DataError(f"The annotation of {part.name} has shape {part.boxes.shape}, not (frames, 4).")
    for what, values in (("absent", part.absent), ("cover", part.cover)):
        if values is not None and values.shape != (count,):
            raise DataError(f"{part.name} has {count} boxes, but {what} has shape {values.shape}.")

"""How much a foreign file may ask for: bytes, entries, growth in memory. Knows a zip's table, no contents."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from vltrack.core.errors import CheckpointUnsafe

MAX_BYTES = 8 << 30
PICKLE_BYTES = 32 << 20
ENTRIES = 100_000
_CONTENTS_BYTES = 4 << 20
_GROWTH = 1.05
REMEDY = "Convert the file to .safetensors where you trust it, and give that."


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose table of contents has a few megabytes at most; a weights file needs a tenth of one.

    Python reads the whole table at once and makes an object of each entry: a hundred times its bytes.

    Raises:
        CheckpointUnsafe: a larger table.
        zipfile.BadZipFile, OSError: no archive; it cannot be read.
    """
    with path.open("rb") as file:
        guard: Any = _Guard(file, path)
        with zipfile.ZipFile(guard) as archive:
            guard.most = None
            yield archive


class _Guard:
    """A file that gives no more than ``most`` bytes at once, and asks who wants more to leave."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self.most: int | None = _CONTENTS_BYTES
        self._file, self._path = file, path

    def read(self, count: int = -1) -> bytes:
        if self.most is not None and count > self.most:
            raise CheckpointUnsafe(f"{self._path} has too many entries.", hint=REMEDY)
        return self._file.read(count)


def check_growth(found: dict[str, Tensor], size: int, path: Path) -> None:
    """Tensors that share their bytes (tied weights) count once; views of different shape count each.

    Raises:
        CheckpointUnsafe: together they are larger than the file.
    """
    views = {
        (t.data_ptr(), t.dtype, t.shape, t.stride()): t.numel() * t.element_size() for t in found.values()
    }
    if sum(views.values()) > _GROWTH * size:
        raise CheckpointUnsafe(f"{path}: its tensors are larger than the file.", hint=REMEDY)

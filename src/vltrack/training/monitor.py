"""What a run shows while it trains: tables, TensorBoard, images of samples, and the progress line.

One process of a run has a ``Monitor``, that of rank 0. Nothing here changes the result of the training.
"""

from __future__ import annotations

import csv
import errno
import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from vltrack.core.errors import ResourceError
from vltrack.core.files import as_resource_error, read_limited, write_bytes, write_text
from vltrack.core.types import Mode
from vltrack.training.data import Batch
from vltrack.training.losses import TERMS
from vltrack.training.preview import preview_of
from vltrack.training.recipes import TrainConfig

log = logging.getLogger(__name__)
PREVIEW_EVERY, PREVIEWS_KEPT = 300, 20
_TABLE_BYTES = 256 << 20
LOG, VALIDATION = "log.csv", "validation.csv"
COLUMNS = {
    LOG: ("step", "epoch", "rate", "total", *TERMS, "iou", "pairs_per_s", "waiting"),
    VALIDATION: ("step", *map(str, Mode)),
}
_PARTS = 3
"""Loss parts in the progress line."""


class Monitor:
    """Writes log.csv, validation.csv, ``tensorboard/`` and ``samples/`` into a run's folder, and a progress line.

    Where a file cannot be written, one warning is logged and the training continues.

    Args:
        out: folder of the run; it exists.
        config: the recipe.
        progress: called with finished steps, all steps and a line of losses; None writes it to the log.
        tensorboard: also write events for TensorBoard, where its package is installed.
    """

    def __init__(
        self,
        out: Path,
        config: TrainConfig,
        *,
        progress: Callable[[int, int, str], None] | None = None,
        tensorboard: bool = True,
    ) -> None:
        self.out, self.config = out, config
        self._progress = progress or partial(log.info, "step %d of %d  %s")
        self._warned = False
        self._tensorboard = tensorboard
        self._writer: Any = None
        self._purge_step: int | None = None

    def log(self, step: int, terms: Mapping[str, float], *, rate: float, pairs_per_s: float, waiting: float) -> None:
        """Add a row to log.csv and show the progress.

        Args:
            step: finished steps.
            terms: ``total``, ``iou`` and the loss parts before their weights.
            rate: learning rate (of the parameters that learn at the full one).
            pairs_per_s: search views, or clips, per second over all processes.
            waiting: share of the time, in [0, 1], in which the training waited for data.
        """
        config = self.config
        row = {"step": step, "rate": rate, **terms, "pairs_per_s": pairs_per_s, "waiting": waiting}
        if config.samples_per_epoch:
            row["epoch"] = step * config.batch / config.samples_per_epoch
        self._append(LOG, row)
        scalars = {"overlap" if name == "iou" else f"loss/{name}": value for name, value in terms.items()}
        self._scalars(step, scalars | {"rate": rate, "pairs_per_s": pairs_per_s, "waiting": waiting})
        weighted = {name: getattr(config.losses, name, 0.0) * value for name, value in terms.items()}
        largest = sorted(weighted, key=weighted.__getitem__, reverse=True)[:_PARTS]
        parts = ", ".join(f"{name} {weighted[name]:.2f}" for name in largest if weighted[name] > 0)
        # Narrow terminals cut the end.
        line = (
            f"loss {terms['total']:.3f}  overlap {terms['iou']:.3f}  "
            f"{pairs_per_s:.3g} {'clips' if config.clips.frames else 'pairs'}/s  {waiting:.0%} waiting for data  "
            f"rate {rate:.1e}{f'  ({parts})' if parts else ''}"
        )
        self.show(step, line)

    def show(self, step: int, line: str) -> None:
        """Show a line of progress."""
        self._progress(step, self.config.steps, line)

    def validation(self, step: int, row: Mapping[str, float]) -> None:
        """Add a row to validation.csv, mean overlap by mode, and show it."""
        self._append(VALIDATION, {"step": step, **row})
        self.show(step, f"overlap on synthetic clips: {', '.join(f'{k} {v:.3f}' for k, v in row.items())}")
        self._scalars(step, {f"validation/{name}": value for name, value in row.items()})

    def preview(self, step: int, batch: Batch, model: Any) -> None:
        """Draw what the model makes of a batch into ``samples/``, where that is due.

        Call it after every ``log``. It is due every ``PREVIEW_EVERY`` steps, at the last one, and where there is
        no image yet. ``model`` is in eval mode (the averaged weights); no random state is changed.
        """
        folder = self.out / "samples"
        if step % PREVIEW_EVERY and step != self.config.steps and any(folder.glob("step-*.jpg")):
            return
        image = preview_of(model, batch, f"step {step}")
        with self._tolerant(folder):
            folder.mkdir(exist_ok=True)
            write_bytes(folder / f"step-{step:06d}.jpg", cv2.imencode(".jpg", image[..., ::-1])[1].tobytes())
            for old in _previews(folder)[:-PREVIEWS_KEPT]:
                old.unlink()
        if (writer := self._events()) is not None:
            with self._tolerant(self.out / "tensorboard"):
                writer.add_image("samples", image, step, dataformats="HWC")

    def flush(self) -> None:
        """Write everything through to the disk: call it before a checkpoint."""
        for name in COLUMNS:
            path = self.out / name
            with self._tolerant(path):
                if path.exists():
                    with path.open("ab") as file:
                        os.fsync(file.fileno())
        if self._writer is not None:
            with self._tolerant(self.out / "tensorboard"):
                self._writer.flush()

    def rewind(self, step: int) -> None:
        """Return to a checkpoint: remove what is later than ``step``, and lines that a kill left unfinished.

        Raises:
            ResourceError: a table cannot be written.
        """
        for name, columns in COLUMNS.items():
            cut_table(self.out / name, columns, step)
        for image in _previews(self.out / "samples"):
            if _step_of(image) > step:
                image.unlink()
        self._purge_step = step + 1

    def validated(self, step: int) -> bool:
        """Return whether validation.csv has the row of this step."""
        return any(int(row["step"]) == step for row in _rows(self.out / VALIDATION, step))

    def close(self) -> None:
        """Finish the files."""
        if self._writer is not None:
            with self._tolerant(self.out / "tensorboard"):
                self._writer.close()
            self._writer = None

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        path, columns = self.out / name, COLUMNS[name]
        with self._tolerant(path), path.open("ab", buffering=0) as file:
            end = file.tell()
            line = _csv(columns, row, header=end == 0).encode()
            if file.write(line) < len(line):
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if (writer := self._events()) is not None:
            with self._tolerant(self.out / "tensorboard"):
                for name, value in values.items():
                    writer.add_scalar(name, value, step)

    def _events(self) -> Any:
        """The writer of TensorBoard's events; None without the package."""
        if self._tensorboard and self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._tensorboard = False
                return None
            with self._tolerant(self.out / "tensorboard"):
                # Hides what the killed run wrote after its checkpoint.
                self._writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=self._purge_step)
        return self._writer

    @contextmanager
    def _tolerant(self, path: Path) -> Iterator[None]:
        """Log the first file that cannot be written as a warning, and go on."""
        try:
            yield
        except (OSError, ResourceError) as error:
            if not self._warned:
                log.warning("%s", error if isinstance(error, ResourceError) else as_resource_error(error, path))
            self._warned = True


def cut_table(path: Path, columns: tuple[str, ...], step: int) -> None:
    """Remove rows after ``step`` and unfinished lines of a CSV table, if it exists. Raises ``ResourceError``."""
    if path.exists():
        write_text(path, _csv(columns, *_rows(path, step)))


def _csv(columns: tuple[str, ...], *rows: Mapping[str, Any], header: bool = True) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
    if header:
        writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def _rows(path: Path, last: int) -> list[dict[str, str]]:
    """The finished rows of a table up to step ``last``; none without a file."""
    try:
        text = read_limited(path, _TABLE_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    table = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    complete = [row for row in table if None not in row.values() and (row.get("step") or "").isdecimal()]
    return [row for row in complete if int(row["step"]) <= last]


def _previews(folder: Path) -> list[Path]:
    """The images of a run, oldest first."""
    return sorted(folder.glob("step-*.jpg"), key=_step_of)


def _step_of(image: Path) -> int:
    return int(image.stem.removeprefix("step-"))

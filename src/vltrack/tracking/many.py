"""Several targets in one video: one pass of decoding, the crops of all targets in one batch."""

from __future__ import annotations

from collections.abc import Mapping

from vltrack.core.errors import UsageError
from vltrack.core.types import Frame, Image, Step, Target
from vltrack.tracking.session import Session
from vltrack.tracking.tracker import Tracker


class MultiTracker(Session):
    """Follows named targets. Each one's boxes are those that a ``Tracker`` of its own would give.

    Takes weights and policy from a loaded ``Tracker``, and nothing else: that one goes on by itself.
    """

    def __init__(self, tracker: Tracker) -> None:
        super().__init__(tracker.engine, tracker.card)

    @property
    def remarks(self) -> dict[str, tuple[str, ...]]:
        """What the user should know of the start of each target, by its name."""
        return dict(self._now.remarks) if self._now is not None else {}

    def init(self, frame: Frame | Image, targets: Mapping[str, Target]) -> dict[str, Step]:
        """Start all targets on one frame; forgets what was before. If one fails, none is started.

        Raises:
            UsageError: no targets. And what ``Tracker.init`` raises.
        """
        if not targets:
            raise UsageError("no target is named.", hint="Give a box, a sentence or both.")
        return self._begin(frame, targets)

    def update(self, frame: Frame | Image) -> dict[str, Step]:
        """All targets in the next frame. Raises what ``Tracker.update`` raises."""
        return self._advance(frame)

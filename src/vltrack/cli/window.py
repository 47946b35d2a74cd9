"""A window that shows the frames of ``vltrack track --show`` with their boxes, by tkinter of the standard library."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from vltrack.core.errors import ResourceError
from vltrack.core.types import Frame, Step

_EVERY = 1 / 30
"""Seconds between two frames that are shown: tracking is not kept waiting for more."""
_SHARE = 0.9
"""Of the screen's sides that the window takes at most."""


class Window:
    """One window; used in the main thread, from the first frame to ``close``.

    Args:
        title: of the window.
        effects, labels: as of ``plots.effects.Effects``.

    Raises:
        ResourceError: tkinter or a display is missing.
    """

    def __init__(self, title: str, effects: Sequence[str], labels: Sequence[str]) -> None:
        hint = "Leave --show out, or write a video: -o seen.mp4."
        try:
            import tkinter
        except ImportError as error:
            raise ResourceError("A window needs tkinter, which this Python does not have.", hint=hint) from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise ResourceError(f"No window can be opened: {error}.", hint=hint) from error
        from vltrack.plots.effects import Effects

        self._effects, self._photo, self._ended, self._last = Effects(effects, labels), tkinter.PhotoImage(), False, 0.0
        self._root.title(title)
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        for key in ("q", "<Escape>"):
            self._root.bind(key, self._end)
        self._root.protocol("WM_DELETE_WINDOW", self._end)

    def _end(self, event: Any = None) -> None:
        self._ended = True

    def show(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Show a frame. Raises ``KeyboardInterrupt`` after q, Esc or the closing of the window."""
        now = time.monotonic()
        if frame.image is not None:
            image = self._effects.draw(frame.image, list(steps.values()))
            if now - self._last >= _EVERY:
                self._last = now
                self._paint(image)
        self._root.update()
        if self._ended:
            raise KeyboardInterrupt

    def _paint(self, image: Any) -> None:
        import cv2

        height, width = image.shape[:2]
        room = (self._root.winfo_screenwidth() * _SHARE / width, self._root.winfo_screenheight() * _SHARE / height)
        if (scale := min(room)) < 1:
            width, height = max(1, int(width * scale)), max(1, int(height * scale))
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        # A PPM is what Tk reads without another package.
        self._photo.configure(data=b"P6 %d %d 255 " % (width, height) + image.tobytes(), format="PPM")
        self._label.configure(image=self._photo)

    def close(self) -> None:
        """Close the window."""
        self._root.destroy()

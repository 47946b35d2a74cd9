"""Descriptors as the file objects that PyAV reads: files and standard input. Knows no containers."""

from __future__ import annotations

import os
import select

from vltrack.video.outlet import Outlet


class Media:
    """A descriptor as the file object that PyAV reads; read errors are remembered and look like the end."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.size = os.fstat(handle).st_size
        self.failure = ""

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes, none at the end."""
        try:
            return os.read(self.handle, count)
        except OSError as error:
            self.failure = error.strerror or str(error)
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """As for files."""
        return os.lseek(self.handle, offset, whence)

    def tell(self) -> int:
        """As for files."""
        return os.lseek(self.handle, 0, os.SEEK_CUR)

    def shrunk(self) -> bool:
        """Whether somebody has shortened the file while it was read."""
        return os.fstat(self.handle).st_size < self.size


class Stream:
    """Standard input as a file object without seeking; says that it waits, so the watchdog stays calm."""

    failure = ""

    def __init__(self, handle: int, outlet: Outlet) -> None:
        self._handle = handle
        self._outlet = outlet

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes, none at the end."""
        while not select.select([self._handle], [], [], 1.0)[0]:
            self._outlet.say("wait")
        try:
            return os.read(self._handle, count)
        except OSError as error:
            self.failure = error.strerror or str(error)
            return b""

    def shrunk(self) -> bool:
        """A stream has no size."""
        return False

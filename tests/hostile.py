"""A pickle with a payload, for tests of everything that reads files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)

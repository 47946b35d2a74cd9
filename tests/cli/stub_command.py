"""The ``vltrack`` command with the stub in place of the network; ``STUB_DELAY`` seconds a frame. A test runs
it.
"""

from __future__ import annotations

import os
import time

from cli_stub import StubFollower

from vltrack.api import inputs
from vltrack.api import track as job
from vltrack.cli import main


class SlowFollower(StubFollower):
    def update(self, frame):
        time.sleep(float(os.environ.get("STUB_DELAY", "0")))
        if "STUB_BUG" in os.environ:
            raise ZeroDivisionError("a bug of ours")
        return super().update(frame)


inputs.check_model = lambda name: name
job._load = lambda *_, **__: SlowFollower()

if __name__ == "__main__":
    main.run()

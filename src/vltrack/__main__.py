"""Run the ``vltrack`` command with ``python -m vltrack``."""

from __future__ import annotations

from vltrack.cli.main import run

if __name__ == "__main__":
    run()

"""``python -m vltrack`` is the ``vltrack`` command."""

from __future__ import annotations

from vltrack.cli.main import run

if __name__ == "__main__":
    run()

"""Fixtures for all tests: where the shared material lies, one thread for torch."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from vltrack.models import MODELS

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # started in the background of a shell, or by nohup; tests send them
        signal.signal(number, handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache, and neither do the processes that it starts.

    They run networks in torch: each new file of weights would cost the seconds in which its graphs are made. Tests of
    graphs ask for ``graphs``.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLTRACK_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("VLTRACK_BACKEND", "torch")
        yield


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """A network from outside the package that a test names is not there for the next one."""
    before = dict(MODELS)
    yield
    for name in MODELS.keys() - before.keys():
        del MODELS[name]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs networks as a user does: as graphs, on OpenVINO."""
    monkeypatch.delenv("VLTRACK_BACKEND")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real videos, training pictures and peers; skips the test where it is not."""
    path = Path(os.environ.get("VLTRACK_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no shared material at {path} (set VLTRACK_SHARED)")
    return path

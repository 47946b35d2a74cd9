"""The processes of a run: how they join, stop and fail together, and keep others out of its folder."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout

from vltrack.core import errors
from vltrack.core.errors import ResourceError, StateError, VltrackError
from vltrack.core.files import as_resource_error
from vltrack.core.rank import global_rank, launched
from vltrack.core.threads import wait_passively
from vltrack.nn.device import choose_device

LOCK, OWNER = ".lock", ".lock.json"
"""Process, host and start of the run that is at work in a folder."""
STOPS = (signal.SIGINT, signal.SIGTERM)
_PREPARE = timedelta(days=1)
"""How long the processes wait for the one that prepares the data."""
_SILENT = ("torch.distributed.elastic", "torch.distributed.launcher")


@dataclass(frozen=True, kw_only=True)
class DistributedContext:
    """Rank of this process, number of processes, and device."""

    rank: int
    world: int
    device: torch.device

    def wait(self) -> None:
        """Wait until all processes are here, a day if need be; only rank 0 works meanwhile."""
        if self.world > 1:
            dist.barrier(dist.new_group(backend="gloo", timeout=_PREPARE))


def join_job(device: str) -> DistributedContext:
    """Join the job that torchrun started, if any; nccl on GPUs, else gloo.

    Raises:
        ResourceError: the device is missing, or there are more processes than GPUs on this machine.
    """
    world = int(os.environ["WORLD_SIZE"]) if launched() else 1
    chosen = process_device(device, world, int(os.environ.get("LOCAL_RANK", "0")))
    if world == 1:
        return DistributedContext(rank=0, world=1, device=chosen)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    warnings.filterwarnings("ignore", "Grad strides do not match")  # a matter of speed, of 1 x 1 convolutions
    if global_rank():
        logging.getLogger("vltrack").setLevel(logging.ERROR)
    return DistributedContext(rank=global_rank(), world=world, device=chosen)


def process_device(name: str, world: int, local_rank: int) -> torch.device:
    """The device of a process: with several processes each has a GPU of its own.

    Raises:
        ResourceError: this machine does not have it.
    """
    chosen = choose_device(name)
    if world > 1 and chosen.type == "mps":
        raise ResourceError("Several processes cannot share the device mps.", hint="Use --device cpu.")
    if world == 1 or chosen.type != "cuda":
        return chosen
    if local_rank >= torch.cuda.device_count():
        raise ResourceError(
            f"{local_rank + 1} processes on a machine with {torch.cuda.device_count()} GPUs.",
            hint="Start as many processes as GPUs, and raise --set accumulate to keep the batch.",
        )
    return torch.device("cuda", local_rank)


# -- ends -------------------------------------------------------------------------------------------------------


def die_with_parent() -> None:
    """Let the kernel end this process when its parent ends, even by SIGKILL (on Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it ended just before
            os._exit(1)


def start_worker(number: int) -> None:
    """Prepare a process that renders samples: it ends with its parent, and not before.

    Ctrl-C reaches all processes of a terminal, and a cluster's SIGTERM all of a job: samples must still come for
    the step at whose end the run stops.
    """
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))  # whose default action ends the process


class StopRequest:
    """The first Ctrl-C or SIGTERM within the block is kept for ``leave``; a second one acts at once, as before it.

    In a thread other than the main one signals are left alone, and those that the program ignores stay ignored.

    Attributes:
        number: the signal, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._keep) for number in heeded}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def leave(self) -> None:
        """Act on the signal as the program does outside the block, by default raise or end."""
        self.__exit__()
        if self.number is not None:
            signal.raise_signal(self.number)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.__exit__()


@contextmanager
def locked(out: Path) -> Iterator[bool]:
    """Hold the folder of a run, and make it; it is removed again where it stays empty.

    The operating system releases the lock of a process that is killed. Unfinished files of such a process are
    removed.

    Yields:
        Whether a process was killed here.

    Raises:
        StateError: another process trains there. ResourceError: the folder cannot be made or written.
    """
    lock, owner = FileLock(out / LOCK, fallback_to_soft=False), out / OWNER
    try:
        out.mkdir(parents=True, exist_ok=True)
        killed = Path(lock.lock_file).exists()
        lock.acquire(blocking=False)
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        owner.write_text(json.dumps(about))
        for unfinished in out.glob(".*.part*"):
            unfinished.unlink()
    except Timeout as error:
        raise _occupied(out) from error
    except OSError as error:
        lock.release()
        raise as_resource_error(error, out) from error
    try:
        yield killed
    finally:
        with suppress(OSError):  # what cannot be removed does not matter
            owner.unlink()
            Path(lock.lock_file).unlink()
        lock.release()
        with suppress(OSError):  # it is not empty
            out.rmdir()


def check_idle(out: Path) -> None:
    """Raise ``StateError`` if another process trains in the folder, which holds a lock file."""
    try:
        with FileLock(out / LOCK, fallback_to_soft=False, blocking=False):
            pass
    except Timeout as error:
        raise _occupied(out) from error
    except OSError as error:
        raise as_resource_error(error, out) from error


def check_lock(out: Path) -> None:
    """Raise ``StateError`` if the lock of ``locked`` or the folder was removed: another run may have begun."""
    if not (out / LOCK).exists():
        raise StateError(
            f"{out / LOCK} was removed while this run was at work.", hint="Continue it with --resume, if it is alone."
        )


def _occupied(out: Path) -> StateError:
    try:
        about = json.loads((out / OWNER).read_text())
        who = f": process {about['pid']} on {about['host']}, since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = ""
    return StateError(f"Another process trains in {out}{who}.", hint="Wait for it, or use another --out.")


# -- several processes on this machine --------------------------------------------------------------------------


def run_processes(module: str, options: Mapping[str, Any], count: int) -> None:
    """Run ``python -m module OPTIONS`` as ``count`` processes of one job on this machine, and wait for them.

    The module's first line is ``start_rank()``. Where one process fails, all are stopped and its error is raised.

    Raises:
        ResourceError: a process was killed. Any other ``VltrackError``: the one that a process ended with.
        KeyboardInterrupt: Ctrl-C, after the processes have saved and left.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # For the children, which inherit the environment
    wait_passively()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # large pages: a step is some percent faster
    for name in _SILENT:
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
    stopped = None
    with tempfile.TemporaryDirectory() as logs, _handlers_kept():
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=count, max_restarts=0, rdzv_backend="c10d",
            rdzv_endpoint="localhost:0", run_id="vltrack", local_addr="localhost",
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )  # fmt: skip
        try:
            # -P: a file of the working folder must not replace a module of Python.
            elastic_launch(config, sys.executable)("-P", "-m", module, json.dumps(dict(options), default=str))
        except SignalException as signaled:
            stopped = signaled.sigval
        except ChildFailedError as failed:
            raise _first_error(failed.failures) from None
    if stopped is not None:
        signal.raise_signal(stopped)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Restore the signal handlers that torch's launcher replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
    before = {number: signal.getsignal(number) for name in names if (number := getattr(signal, name, None))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _first_error(failures: Mapping[int, Any]) -> Exception:
    """The error of the process that failed first: others lose their connection to it."""

    def order(item: tuple[int, Any]) -> tuple[bool, int]:
        return bool(_recorded(item[1]).get("follows")), item[1].timestamp

    rank, failure = min(failures.items(), key=order)
    about = _recorded(failure)
    if own := about.get("vltrack"):
        kind: type[VltrackError] = getattr(errors, own["code"], VltrackError)
        return kind(own["message"], hint=own["hint"])
    ended_by = -failure.exitcode if failure.exitcode < 0 else failure.exitcode - 128  # as a shell counts
    if ended_by > 0:
        return ResourceError(
            f"Training process {rank} was killed by {signal.Signals(ended_by).name}.",
            hint="Is there enough memory? --resume continues from the last checkpoint.",
        )
    bug = RuntimeError(f"training process {rank}: {about.get('message', f'exit status {failure.exitcode}')}")
    bug.add_note(about.get("extraInfo", {}).get("py_callstack", ""))
    return bug


def _recorded(failure: Any) -> dict[str, Any]:
    message = failure.error_file_data["message"]
    return message if isinstance(message, dict) else {}


def start_rank() -> None:
    """Prepare a process of ``run_processes``: it ends with its parent, and its error becomes its parent's."""
    die_with_parent()
    sys.excepthook = _record
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _record(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write an error where torch's launcher looks for it."""
    about: dict[str, Any] = {
        "message": f"{kind.__name__}: {error}",
        "extraInfo": {"py_callstack": "".join(traceback.format_exception(error)), "timestamp": str(int(time.time()))},
    }
    if isinstance(error, VltrackError):
        about["follows"] = error.context.get("follows")
        about["vltrack"] = {"code": error.code, "message": error.message, "hint": error.hint}
    Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps({"message": about}))

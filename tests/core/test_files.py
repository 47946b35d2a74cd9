"""A file is whole or not there: failures at every stage leave the old one, and the message says what
happened.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from vltrack.core.errors import ResourceError
from vltrack.core.files import atomic_path, sha256_of, write_bytes, write_text


def test_written_whole_with_usual_permissions(tmp_path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "héllo\n")
    assert path.read_bytes() == "héllo\n".encode()
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert sha256_of(path) == hashlib.sha256("héllo\n".encode()).hexdigest()


def test_a_failure_inside_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        assert temporary.suffix == ".bin"
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_missing_folder_and_a_folder_in_the_way(tmp_path) -> None:
    with pytest.raises(ResourceError, match="folder does not exist") as caught:
        write_text(tmp_path / "none" / "a.txt", "x")
    assert caught.value.exit_code == 6
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(ResourceError, match=r"a\.txt"):
        write_text(tmp_path / "a.txt", "x")
    assert os.listdir(tmp_path) == ["a.txt"]


SCRIPT = """
import resource, signal, sys
from pathlib import Path
from vltrack.core.errors import ResourceError
from vltrack.core.files import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes(Path(sys.argv[1]), b"n" * 5000)
except ResourceError as error:
    sys.stdout.write(error.message)
    sys.exit(error.exit_code)
"""


def test_a_full_disk_is_an_error_and_keeps_the_old_file(tmp_path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 6, done.stderr
    assert "size limit" in done.stdout
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_no_space_left_is_said_in_words() -> None:
    from pathlib import Path

    from vltrack.core.files import as_resource_error

    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    assert "disk is full" in as_resource_error(caught.value, Path("out.csv")).message

"""A file is complete or not there: failures at every stage leave the old one, and the error says why."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vltrack.core.errors import ResourceError
from vltrack.core.files import as_resource_error, atomic_path, counted, printable, sha256_of, write_bytes, write_text


def test_files_are_written_with_usual_permissions(tmp_path) -> None:
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
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 6, done.stderr
    assert "size limit" in done.stdout
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_named() -> None:
    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    assert "disk is full" in as_resource_error(caught.value, Path("out.csv")).message


@pytest.mark.fault("P07")
def test_shown_text_obeys_nothing() -> None:
    assert printable("the \x1b[31mred\x07 car\u202e") == "the \\x1b[31mred\\x07 car\\u202e"
    assert printable("\udcff\n") == "\\udcff\\x0a"
    assert printable("café 白 🚗 <b>") == "café 白 🚗 <b>"


@pytest.mark.parametrize(
    ("number", "noun", "plural", "text"),
    [
        (0, "error", "", "0 errors"),
        (1, "sequence", "", "1 sequence"),
        (2, "sequence", "", "2 sequences"),
        (685360, "frame", "", "685,360 frames"),
        (1, "entry", "entries", "1 entry"),
        (3, "entry", "entries", "3 entries"),
    ],
)
def test_one_is_one_and_all_else_is_many(number: int, noun: str, plural: str, text: str) -> None:
    assert counted(number, noun, plural) == text

"""Rows D20, C19, and D17 and V20 in part: memory and time do not follow what a file claims.

Each reader gets what is no regular file, a file that is larger than it may be, and one that grows when it is unpacked.
"""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import shutil
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vltrack.checkpoints import cards, store
from vltrack.checkpoints.torch_files import read_tensors
from vltrack.core import files
from vltrack.core.archives import Refused, read_npz
from vltrack.core.errors import BoxInvalid, CheckpointCorrupt, CheckpointMismatch, DataError, StateError, VltrackError
from vltrack.core.files import open_limited, read_checksummed, read_limited
from vltrack.core.json_io import read_json, walk_json
from vltrack.core.track import Track
from vltrack.datasets.images import read_rgb
from vltrack.datasets.parsing import parse_table, read_digits, read_names, read_table
from vltrack.datasets.reader import open_dataset
from vltrack.datasets.referring_convert import open_plain
from vltrack.evaluation.harnesses.vot import _mask_box
from vltrack.evaluation.third_party import read_boxes, read_third_party
from vltrack.prep.prompts import parse_box, read_prompt_file
from vltrack.prep.tokenizers import BytePairTokenizer, WordPieceTokenizer
from vltrack.training.checkpoint import read_config
from vltrack.video.images import image_size, shared_reader
from vltrack.video.source import open_source


def _convert(path: Path) -> None:
    with open_plain(path):
        pass


def _results(path: Path) -> None:
    read_third_party(path.parent)


READERS: dict[str, tuple[str, Callable[[Path], object], int]] = {
    "table": ("groundtruth.txt", read_table, 4),
    "flags": ("absent.txt", read_digits, 4),
    "list": ("list.txt", read_names, 4),
    "JSON": ("a.json", read_json, 4),
    "large JSON": ("a.json", lambda path: list(walk_json(path)), 4),
    "pickle": ("refs.p", _convert, 4),
    "pysot": ("OTB100.json", open_dataset, 4),
    "results": ("results/a.txt", _results, 4),
    "npz of results": ("results.npz", read_third_party, 4),
    "zip of results": ("results.zip", read_third_party, 4),
    "track": ("a.csv", Track.load, 4),
    "image": ("a.png", lambda path: shared_reader().read(path), 4),
    "frame": ("a.jpg", open_source, 3),
    "video": ("a.mp4", open_source, 3),
    "sentence": ("nlp.txt", read_prompt_file, 3),
    "weights": ("w.safetensors", store.load, 5),
    "grounder": ("w.safetensors", store.load_grounder, 5),
    "foreign safetensors": ("w.safetensors", read_tensors, 5),
    "foreign npz": ("w.npz", read_tensors, 5),
    "foreign pth": ("w.pth", read_tensors, 5),
    "vocabulary": ("vocab.txt", WordPieceTokenizer.load, 5),
    "byte pairs": ("bpe_simple_vocab_16e6.txt.gz", BytePairTokenizer.load, 5),
    "settings": ("config.json", read_config, 5),
}


def _zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def _terabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk


KINDS: dict[str, Callable[[Path], None]] = {
    "device": _zero, "pipe": os.mkfifo, "socket": _socket, "terabyte": _terabyte,
}  # fmt: skip


@pytest.mark.fault("D20")
@pytest.mark.fault("C19")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_within_bounds_are_read(tmp_path: Path, reader: str, kind: str) -> None:
    name, read, code = READERS[reader]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    KINDS[kind](path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(VltrackError) as caught:
        read(path)
    assert (caught.value.exit_code, "\n" in caught.value.message) == (code, False)
    assert any(word in caught.value.message for word in (path.stem, path.parent.name, "/dev/zero"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_every_reader_reads_a_good_file(tmp_path: Path) -> None:
    """Else a refusal above would prove nothing: the bound is counted from the begin of the file."""
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(path)
    assert read_limited(tmp_path / "link", 10) == b"0123456789"
    with open_limited(path, 10) as file:
        assert (file.read(4), file.seek(2), file.read(3), file.seek(0, 2)) == (b"0123", 2, b"234", 10)
    with pytest.raises(OSError, match="more than 9 bytes") as caught:
        read_limited(path, 9)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.fault("D20")
def test_a_file_that_grows_or_hides_its_size_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0" * 100)
    with open_limited(path, 1000) as file:
        path.write_bytes(b"0" * 5000)
        with pytest.raises(OSError, match="more than 1,000 bytes"):
            file.read()
    hidden = Path("/proc/self/smaps")  # a regular file of 0 bytes
    if hidden.exists():
        assert hidden.stat().st_size == 0
        assert len(read_limited(hidden, 64 << 20)) > 1000
        with pytest.raises(OSError, match="more than 1,000 bytes"):
            read_limited(hidden, 1000)


@pytest.mark.fault("D20")
def test_a_slow_read_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0" * 1000)
    times = iter(range(0, 10_000, 40))
    monkeypatch.setattr(files.time, "monotonic", lambda: next(times))
    with pytest.raises(OSError, match="too long") as caught:
        read_limited(path, 2000)
    assert caught.value.errno == errno.ETIMEDOUT


@pytest.mark.fault("D20")
def test_a_sealed_file_that_is_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").symlink_to("/dev/zero")
    with pytest.raises(StateError, match=r"run\.json"):
        read_checksummed(tmp_path / "run.json", "x")


# -- what would grow when it is unpacked ----------------------------------------------------------------------


def lying(path: Path, method: int, size: int = 64 << 20) -> bytes:
    """A zip with an entry of ``size`` zeros, whose table of contents says 1000."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("aaaaaaaaaaa_0.txt", bytes(size))
    return path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 1000))


def grown() -> int:
    """Peak memory of this process so far, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.fault("D17")
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_hides_its_size_is_not_unpacked(tmp_path: Path, method: int) -> None:
    data, before = lying(tmp_path / "a.zip", method), grown()
    for name, read, code in (
        *(("a.zip", read_third_party, 4), ("a.zip", open_dataset, 4)),
        *(("a.npz", read_third_party, 4), ("a.npz", read_tensors, 5)),
    ):
        (tmp_path / name).write_bytes(data.replace(b".txt", b".npy") if name == "a.npz" else data)
        with pytest.raises(VltrackError) as caught:
            read(tmp_path / name)
        assert caught.value.exit_code == code
        assert name in caught.value.message
    assert grown() - before < 20 << 10


@pytest.mark.fault("D17")
def test_an_npz_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, boxes=np.zeros((1 << 25, 1)))  # 256 MiB in 260 KB
    before = grown()
    with pytest.raises(Refused, match=r"unpacks to 268,435,\d+ bytes"):
        read_npz(path, 256 << 20)
    head = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(
        118
    )
    for data, said in ((head + bytes(80), "not as long"), (b"\x93NUMPY\x01\x00v\x00" + b"(" * 118, "without a valid")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w.npy", data)
        with pytest.raises(Refused, match=said):
            read_npz(path, 256 << 20)
    assert grown() - before < 50 << 10


@pytest.mark.fault("D17")
def test_results_may_be_compressed(tmp_path: Path) -> None:
    boxes = np.arange(8.0).reshape(2, 4)
    np.savez_compressed(tmp_path / "T.npz", names=np.array(["a", "b"]), lens=np.array([1, 1]), boxes=boxes)
    found = read_third_party(tmp_path / "T.npz").boxes
    assert {name: rows.tolist() for name, rows in found.items()} == {"a": [[0, 1, 2, 3]], "b": [[4, 5, 6, 7]]}


PACKED: dict[str, Callable[[zipfile.ZipFile], object]] = {
    "above": lambda archive: archive.writestr("../aaaaaaaaaaa_0.txt", "1,2,3,4"),
    "absolute": lambda archive: archive.writestr("/aaaaaaaaaaa_0.txt", "1,2,3,4"),
    "drive": lambda archive: archive.writestr("C:/aaaaaaaaaaa_0.txt", "1,2,3,4"),
    "inside": lambda archive: archive.writestr("a/../../aaaaaaaaaaa_0.txt", "1,2,3,4"),
    "many": lambda archive: [archive.writestr(f"{k:011d}_0.txt", "") for k in range(70_000)],
    "ratio": lambda archive: archive.writestr("aaaaaaaaaaa_0.txt", b"1,2,3,4\n" * (15 << 20), zipfile.ZIP_DEFLATED),
}


@pytest.mark.fault("D17")
@pytest.mark.parametrize("read", [open_dataset, read_third_party])
@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.timeout(30)
def test_a_hostile_zip_is_refused_and_nothing_is_written(tmp_path: Path, kind: str, read) -> None:
    path, before = tmp_path / "a.zip", grown()
    with zipfile.ZipFile(path, "w") as archive:
        PACKED[kind](archive)
    peak = grown()
    with pytest.raises(DataError, match=r"a\.zip") as caught:
        read(path)
    assert (caught.value.exit_code, list(tmp_path.iterdir())) == (4, [path])
    assert grown() - max(before, peak) < 20 << 10


@pytest.mark.fault("D17")
@pytest.mark.parametrize("read", [open_dataset, read_third_party])
def test_an_encrypted_zip_is_refused(tmp_path: Path, read) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("aaaaaaaaaaa_0.txt", "1,2,3,4")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip"):
        read(path)


MEBI = 1 << 20
JSONS = {
    "depth of lists": b"[" * MEBI, "depth of objects": b'{"a":' * MEBI, "text without end": b'["' + b"x" * (8 * MEBI),
    "digits": b"[" + b"1" * (8 * MEBI) + b"]", "fraction without end": b"[0." + b"1" * (8 * MEBI), "NaN": b"[NaN]",
    "list without end": b"[1" + b",1" * (MEBI // 8), "spaces": b" " * (8 * MEBI), "keys": b'{"a":1' + b',"a":1' * MEBI,
    "escapes": b'["' + b"\\u0041" * MEBI, "not UTF-8": b"[" + b"\xff" * MEBI, "zeros": bytes(8 * MEBI),
    "small lists": b"[[]" + b",[]" * (MEBI // 8), "colons": b'{"a"' + b":" * MEBI, "exponent": b"[1e" + b"9" * MEBI,
}  # fmt: skip


@pytest.mark.fault("D12")
@pytest.mark.parametrize("kind", JSONS)
@pytest.mark.timeout(30)
def test_hostile_json_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "OTB100.json"
    path.write_bytes(JSONS[kind])
    for read in (read_json, lambda path: list(walk_json(path)), open_dataset):
        before = grown()
        with pytest.raises(DataError, match=r"OTB100\.json") as caught:
            read(path)
        assert (caught.value.exit_code, len(str(caught.value)) < 600) == (4, True)
        assert grown() - before < 200 << 10


# -- time --------------------------------------------------------------------------------------------------------

LONG = 300_000
ROWS = [
    "1" * LONG + "x,1,2,3", "." + "1" * LONG + "x,1,2,3", "1." + "1" * LONG + "x,1,2,3", "1e" + "1" * LONG + "x,1,2,3",
    " " * LONG + "x 1 2 3", "1,2,3" + " " * LONG + ",x", "1,2,3" + "," * LONG, "nan" * LONG + ",1,2,3",
    "0" + " " * LONG + "x",
]  # fmt: skip


@pytest.mark.fault("D20")
@pytest.mark.fault("B01")
@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
@pytest.mark.timeout(30)  # it was 40 minutes where each number was tried again from its every digit
def test_numbers_are_read_in_linear_time(row: str) -> None:
    for read in (
        *(lambda: parse_table(row.encode(), "f"), lambda: read_boxes(f"1,2,3,4\n{row}\n".encode(), "f")),
        *(lambda: parse_box(row), lambda: parse_box(row.replace(" ", ",").strip(","))),
    ):
        with pytest.raises((DataError, BoxInvalid)) as caught:
            read()
        assert len(str(caught.value)) < 400


@pytest.mark.fault("D20")
@pytest.mark.parametrize("data", [b"1," * (1 << 20), b"\n" * 3_000_001 + b"1"], ids=["one line", "lines"])
def test_a_table_without_bounds_is_refused_before_it_is_split(data: bytes) -> None:
    with pytest.raises(DataError, match=r"2,097,153 bytes|3,000,001 lines"):
        parse_table(data, "groundtruth.txt")


@pytest.mark.fault("D20")
def test_a_mask_takes_no_memory_of_its_claimed_size() -> None:
    before = grown()
    assert _mask_box([3.0, 4.0, 16384.0, 16384.0, 5.0, 7.0, 16384.0**2 - 12], "") == (8.0, 4.0, 7.0, 1.0)
    assert _mask_box([0.0, 0.0, 16384.0, 16384.0, 5.0, 16384.0 * 9], "") == (0.0, 0.0, 16384.0, 10.0)
    assert _mask_box([0.0, 0.0, 4.0, 2.0, 3.0, 0.0, 5.0], "") is None
    assert grown() - before < 5 << 10


# -- images --------------------------------------------------------------------------------------------------------

HEADERS = {
    "zeros": bytes(200 << 20), "stuffing": b"\xff\x00" * (20 << 20), "fill": b"\xff" * (40 << 20),
    "segments": b"\xff\xe1\x00\x02" * (10 << 20),
}  # fmt: skip


@pytest.mark.fault("V20")
@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.timeout(30)
def test_the_header_of_a_jpeg_is_searched_within_bounds(kind: str) -> None:
    assert image_size(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(9) + HEADERS[kind]) is None


def png(width: int, height: int) -> bytes:
    """A valid PNG of one bit per pixel, all zeros."""
    packer, rows = zlib.compressobj(9), io.BytesIO()
    for _ in range(height):
        rows.write(packer.compress(bytes(1 + -(-width // 8))))
    rows.write(packer.flush())
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
        (b"IDAT", rows.getvalue()),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@pytest.mark.fault("V20")
@pytest.mark.fault("D07")
@pytest.mark.timeout(30)
def test_an_image_that_grows_is_refused_by_its_header(tmp_path: Path) -> None:
    """As a training image; this process only reads the file."""
    path = tmp_path / "a.png"
    path.write_bytes(png(20_000, 20_000))
    assert path.stat().st_size < 60_000
    before = grown()
    with pytest.raises(DataError, match=r"a\.png.*20000x20000"):
        read_rgb(path)
    assert grown() - before < 10 << 10
    path.write_bytes(png(9_000, 9_000))
    assert read_rgb(path).shape == (9_000, 9_000, 3)  # 243 MB, decoded in the child


# -- weights -------------------------------------------------------------------------------------------------------

CLAIMS = {
    "litetrack-tiny": [
        *({"width": 40_000}, {"split_layers": 10**9}, {"search_size": 16 * 10**6}, {"mlp_ratio": 1e12}),
        *({"head_channels": [10**6, 10**6]}, {"max_words": 10**12}, {"table_width": 10**18}, {"width": 4 * 10**30}),
    ],
    "aitrack-tiny": [{"bins": 10**9}, {"history": 10**9}, {"width": 40_000}],
    "sa-tracker-tiny": [{"width": 40_000}],
    "grounder-tiny": [{"width": 40_000}, {"vocabulary": 10**10}, {"joint_layers": 10**9}, {"scales": [10**6]}],
}


@pytest.mark.fault("C19")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", CLAIMS)
def test_a_record_cannot_claim_more_than_its_file_holds(tmp_path: Path, name: str) -> None:
    load = store.load_grounder if name == "grounder-tiny" else store.load
    path, shipped = tmp_path / "w.safetensors", cards.PACKAGED / name
    shutil.copy(shipped.with_suffix(".safetensors"), path)
    card = json.loads(shipped.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card))
    load(path)
    before = grown()
    for claim in CLAIMS[name]:
        path.with_suffix(".json").write_text(json.dumps(card | {"config": card["config"] | claim}))
        with pytest.raises(CheckpointMismatch, match=r"larger than the file|must"):
            load(path)
    assert grown() - before < 100 << 10


@pytest.mark.fault("C19")
def test_networks_that_others_make_meanwhile_do_not_count(tmp_path: Path) -> None:
    stop = threading.Event()

    def make() -> None:
        while not stop.is_set():
            torch.nn.Linear(3000, 3000)

    other = threading.Thread(target=make)
    other.start()
    try:
        for _ in range(3):
            store.load("litetrack-tiny")
    finally:
        stop.set()
        other.join()


@pytest.mark.fault("C19")
@pytest.mark.parametrize("read", [store.load, read_tensors])
def test_weights_of_holes_take_no_memory(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path, before = tmp_path / "w.safetensors", grown()
    for head in (
        b"",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 1 << 40) + b"{",
        struct.pack("<Q", 8) + b'{"a": 1}',
    ):
        path.write_bytes(head)
        os.truncate(path, 2 << 30)  # takes no room on the disk
        shutil.copy(cards.PACKAGED / "litetrack-tiny.json", path.with_suffix(".json"))
        with pytest.raises(CheckpointCorrupt, match=r"w\.safetensors"):
            read(path)
    assert grown() - before < 50 << 10

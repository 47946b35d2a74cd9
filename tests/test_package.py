"""The wheel works outside the checkout: the demo, a track, a report, an evaluation, the studio's page."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "demo --out demo",
    "track demo-clip.mp4 --text {text} --end 3 -o boxes.csv -o seen.mp4",
    "datasets mimic otb99 --out mini/otb99",
    "evaluate all-in-one-tiny --data mini/otb99 --modes bbox",
)
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
MEGABYTES = 32
"""README and docs state the size of the wheel; what ships must not make it larger unseen."""


def call(python: str | Path, *words: str | Path, cwd: Path, **more: str) -> str:
    done = subprocess.run([python, *words], cwd=cwd, env=CLEAN | more, capture_output=True, text=True)
    if "No matching distribution" in done.stderr:
        pytest.skip(f"the packages cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and sdist, from the files that git would commit."""
    folder = tmp_path_factory.mktemp("dist")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: its files are not known")
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    words = [sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "source"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode and "No matching distribution found for setuptools" in done.stdout + done.stderr:
        pytest.skip("the build backend cannot be fetched")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "dist"


def use(python: str | Path, folder: Path, **more: str) -> None:
    """Run the commands with the ``vltrack`` of an environment, which must not be the checkout's."""
    where = call(python, "-c", "import vltrack; print(vltrack.__file__)", cwd=folder, **more)
    assert ROOT not in Path(where.strip()).parents
    clip = Path(where.strip()).parent / "clips" / "car-shadow.mp4"
    (folder / "demo-clip.mp4").symlink_to(clip)
    for line in COMMANDS:
        words = [word.replace("{text}", "the silver car") for word in line.split()]
        call(python, "-m", "vltrack", *words, cwd=folder, OMP_NUM_THREADS="1", **more)
    assert len((folder / "boxes.csv").read_text().splitlines()) >= 4
    assert (folder / "seen.mp4").stat().st_size > 1000
    assert (folder / "evaluation" / "all-in-one-tiny" / "otb99_bbox").is_dir()


@pytest.mark.timeout(300)
def test_the_wheel_is_complete(built: Path, tmp_path: Path) -> None:
    wheel, sdist = next(built.glob("*.whl")), next(built.glob("*.tar.gz"))
    assert max(wheel.stat().st_size, sdist.stat().st_size) < MEGABYTES << 20
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert not [name for name in names if name.startswith("tests/") or "shared/" in name]
    assert {"vltrack/serve/page/index.html", "vltrack/py.typed"} <= set(names)
    use(sys.executable, tmp_path, PYTHONPATH=str(tmp_path / "site"))


@pytest.mark.slow
@pytest.mark.interop
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_it_installs_into_a_new_environment(built: Path, tmp_path: Path, kind: str) -> None:
    call(sys.executable, "-m", "venv", tmp_path / "new", cwd=tmp_path)
    python = tmp_path / "new" / "bin" / "python"
    call(python, "-m", "pip", "install", "-q", next(built.glob(kind)), cwd=tmp_path)
    use(python, tmp_path)

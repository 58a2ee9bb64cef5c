"""A full disk: one clear message, what was written is intact, and the search goes on when there is room."""

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Compare
from tests.faults.driver import Place, wait_until

MEBIBYTE = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 30 MiB; mounting one needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, left_bytes: int) -> Path:
    """Fill a disk up to some bytes."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while (room := shutil.disk_usage(folder).free - left_bytes) > 0:
            try:
                file.write(bytes(min(room, MEBIBYTE)))
            except OSError as error:  # the search has taken the last bytes
                assert error.errno == errno.ENOSPC, error
                break
    return ballast


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("executor", "left_bytes"), [("inline", 0), ("inline", 40_000), ("ray", 30_000)])
def test_a_disk_that_fills_amid_a_search(
    small_disk: Path, assert_equal: Compare, executor: str, left_bytes: int
) -> None:
    place = Place(small_disk / "store")
    process = place.start("search", "--executor", executor)
    assert wait_until(lambda: place.count() > 4, process)
    ballast = fill(small_disk, left_bytes)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 3 and "free some space" in errors and "Traceback" not in errors, errors
    assert place.run("show")[0] == 0
    ballast.unlink()
    code, _, errors = place.run("resume", "--executor", executor)
    assert code == 0, errors
    place.run("sync")
    assert_equal(place)


@pytest.mark.faults
@pytest.mark.parametrize("left_bytes", [0, 300_000, MEBIBYTE, 4 * MEBIBYTE])
def test_a_disk_that_is_full_from_the_start(small_disk: Path, assert_equal: Compare, left_bytes: int) -> None:
    place, ballast = Place(small_disk / "store"), fill(small_disk, left_bytes)
    code, _, errors = place.run("search", "--executor", "inline")
    assert code == 3 and "free some space" in errors, errors
    ballast.unlink()
    assert place.run("search", "--executor", "inline")[0] == 0
    assert_equal(place)

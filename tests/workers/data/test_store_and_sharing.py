"""The Arrow store: whole or rebuilt, and one copy for all processes."""

import logging
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metaloom.workers.data import CacheError
from metaloom.workers.data.store import Arrays, DamagedStoreError, cached, open_arrays, write_arrays

COLUMNS = {"x": np.arange(24, dtype=np.uint8).reshape(4, 3, 2), "y": np.arange(4, dtype=np.int64)}


class Builder:
    """Counts how often it is asked to build."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Arrays:
        self.calls += 1
        return Arrays(COLUMNS, {"names": ["a"]})


@given(
    x=hnp.arrays(
        st.sampled_from([np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.int64)]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=5),
        elements=st.integers(0, 200),
    )
)
@settings(max_examples=30, deadline=None)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, x: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("store") / "a.arrow"
    write_arrays(path, Arrays({"x": x}, {"n": len(x)}))
    read = open_arrays(path)
    np.testing.assert_array_equal(read["x"], x)
    assert read["x"].dtype == x.dtype and read.about == {"n": len(x)}


def test_opened_arrays_are_read_only_views_of_the_file(tmp_path: Path) -> None:
    read = cached(tmp_path, "s", {}, Builder())
    assert not read["x"].flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        read["x"][0] = 1


def test_it_is_built_once_for_equal_keys_and_anew_for_another(tmp_path: Path) -> None:
    build = Builder()
    for size in (1, 1, 2):
        cached(tmp_path, "s", {"size": size}, build)
    assert build.calls == 2
    assert len(list(tmp_path.glob("*.arrow"))) == 2


@pytest.mark.parametrize("where", ["middle", "end", "empty", "short"])
def test_a_damaged_file_is_said_and_built_again(tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture) -> None:
    build = Builder()
    cached(tmp_path, "s", {}, build)
    (path,) = tmp_path.glob("*.arrow")
    content = bytearray(path.read_bytes())
    # the first value of column x, found as the bytes 0, 1, 2 ...
    place = {"middle": content.index(bytes(range(1, 24))), "end": len(content) - 8}.get(where, 0)
    content[place] ^= 0xFF
    path.write_bytes({"empty": b"", "short": bytes(content[: len(content) // 2])}.get(where, bytes(content)))
    with caplog.at_level(logging.WARNING, "metaloom.data"):
        read = cached(tmp_path, "s", {}, build)
    assert build.calls == 2
    assert str(path) in caplog.text and "damaged" in caplog.text
    np.testing.assert_array_equal(read["x"], COLUMNS["x"])


def test_a_flipped_byte_of_the_values_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    write_arrays(path, Arrays(COLUMNS, {}))
    content = bytearray(path.read_bytes())
    content[content.index(bytes(range(1, 24)))] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedStoreError, match="checksum of column 'x'"):
        open_arrays(path)


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Arrays:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        cached(tmp_path, "s", {}, fail)
    assert not list(tmp_path.glob("*.arrow*"))


def test_a_cache_that_cannot_be_made_is_an_environment_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="file"):
        cached(tmp_path / "file", "s", {}, Builder())
    assert CacheError.exit_code == 3


def _build_slowly(folder: Path, log: Path) -> None:
    def build() -> Arrays:
        with log.open("a") as file:
            file.write("built\n")
        return Arrays(COLUMNS, {})

    cached(folder, "s", {}, build)


def test_processes_that_start_together_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_build_slowly, args=(tmp_path / "c", tmp_path / "log")) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert (tmp_path / "log").read_text() == "built\n"


def _mapping_of(array: np.ndarray) -> str:
    """Return the line of /proc/self/maps that the array's memory lies in."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= address < last:
            return line
    raise AssertionError("the array lies in no mapping")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_the_pages_are_the_files_own(tmp_path: Path) -> None:
    read = cached(tmp_path, "s", {}, Builder())
    (path,) = tmp_path.glob("*.arrow")
    line = _mapping_of(read["x"])
    assert str(path) in line and line.split()[1].startswith("r-"), line

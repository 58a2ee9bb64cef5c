"""Files are whole or absent: here the disk is really full, through /dev/full and RLIMIT_FSIZE."""

import subprocess
import sys
from pathlib import Path

import pytest

from metaloom.workers.durable import ASIDE, remove_asides, write_bytes, write_files, write_text, written_aside
from metaloom.workers.errors import StorageError
from tests.support.limits import no_file_above


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    write_text(path, "one")
    write_text(path, "zwölf")
    assert path.read_text() == "zwölf"
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(KeyError), written_aside(path) as aside:
        aside.write_text("half of the n")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_belong_together_are_written_together(tmp_path):
    write_files(tmp_path, {"a": b"1", "b": b"2"})
    with no_file_above(10), pytest.raises(StorageError):
        write_files(tmp_path, {"a": b"3", "b": b"4" * 100})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "b": b"2"}


def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with (
        no_file_above(1000),
        pytest.raises(StorageError, match=r"no room to write.*free some space"),
    ):
        write_bytes(path, b"n" * 5000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_enospc_is_said(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(StorageError, match="No space left on device"), written_aside(path) as aside:
        aside.symlink_to("/dev/full")
        aside.write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(StorageError, match=r"store.*cannot be written"):
        write_text(tmp_path / "store" / "file", "x")


def test_what_a_killed_process_left_is_removed(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from metaloom.workers.durable import written_aside\n"
        "with written_aside(Path(sys.argv[1])) as aside:\n"
        "    aside.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(ASIDE)
    remove_asides(tmp_path)
    assert list(tmp_path.iterdir()) == []
    remove_asides(tmp_path / "absent")

"""The journal: nothing acknowledged is lost, one writer, clear words when the disk is full."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from metaloom.learners.errors import BadEnvironment
from metaloom.orchestrator.errors import SearchError, StoreError
from metaloom.orchestrator.journal import Journal, Mark, writer_lock
from metaloom.workers.records.journal import Event
from metaloom.workers.records.journal_sources import is_empty, read_journal
from metaloom.workers.records.names import JOURNAL_FILE

WRITER = """
import sys
from pathlib import Path
from metaloom.orchestrator.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(100000):
    print(journal.append("trial_reported", {"number": number}, trial=0).id, flush=True)
"""
FILLER = """
import resource, sys
from pathlib import Path
from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.journal import Journal
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
journal, stored = Journal(Path(sys.argv[1])), 0
try:
    while True:
        journal.append("trial_reported", {"text": "x" * 1000})
        stored += 1
except StoreError as error:
    print(stored, error.exit_code, error)
"""


def test_events_come_back_as_they_were_appended(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    first = journal.append("search_created", {"seed": 0.1, "nested": {"a": [1, None, float("inf")]}})
    both = journal.append_all([Event(0, 5.0, 1, "a", {"x": (1, 2)}), Event(0, 6.0, 2, "b", {})])
    assert [one.id for one in (first, *both)] == [1, 2, 3]
    assert journal.events() == [first, *both]
    assert journal.events(after=1, limit=1) == [Event(2, 5.0, 1, "a", {"x": [1, 2]})]


def test_one_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(TypeError):
        journal.append_all([Event(0, 0.0, 0, "a", {}), Event(0, 0.0, 0, "b", {"bad": object()})])
    assert journal.events() == []


def test_marks_move_and_are_read_by_another_thread(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.mark("mlflow") == Mark()
    thread = threading.Thread(target=journal.set_mark, args=("mlflow", Mark(3, "{}")))
    thread.start()
    thread.join()
    journal.set_mark("optuna", Mark(1))
    assert journal.mark("mlflow") == Mark(3, "{}")


def test_no_acknowledged_event_is_lost_to_kill_9(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        acknowledged += [int(writer.stdout.readline()) for _ in range(30)]
        writer.kill()
        writer.communicate()
    stored = {event.id for event in Journal(tmp_path).events()}
    assert set(acknowledged) <= stored and len(stored) <= len(acknowledged) + 3 * 1000


def test_a_full_disk_is_one_clear_message_and_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FILLER, str(tmp_path)], capture_output=True, text=True, check=True)
    stored, exit_code, message = done.stdout.split(" ", 2)
    assert int(exit_code) == 3 and "full" in message and "free some space" in message
    assert len(Journal(tmp_path, read_only=True).events()) == int(stored) > 20
    Journal(tmp_path).append("trial_reported")  # there is space again


def test_what_cannot_be_written_is_the_environments_fault(tmp_path: Path) -> None:
    with pytest.raises(BadEnvironment, match="choose another folder with --store"):
        Journal(tmp_path / "absent", read_only=True)


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    second = pytest.raises(SearchError, match=f"process {os.getpid()} on ")
    with writer_lock(tmp_path), second, writer_lock(tmp_path):
        pass
    with writer_lock(tmp_path):  # the first has let go of it
        assert Journal(tmp_path).events() == []


def test_a_reader_reads_while_a_writer_writes(tmp_path: Path) -> None:
    writer, reader = Journal(tmp_path), Journal(tmp_path, read_only=True)
    writer.append("search_created")
    assert len(reader.events()) == 1
    with pytest.raises(StoreError):
        reader.append("search_created")


LIMITED = """
import resource, sys
from pathlib import Path
from metaloom.learners.errors import BadEnvironment
from metaloom.orchestrator.journal import Journal
for size in range(0, 60_000, 1500):
    folder = Path(sys.argv[1]) / str(size)
    folder.mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        Journal(folder).append("search_created", {"text": "x" * 30_000})
    except BadEnvironment as error:
        assert "free some space" in str(error), error
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from metaloom.orchestrator.journal import Journal
for call in range(200):
    folder = Path(sys.argv[1]) / str(call)
    folder.mkdir()
    child = os.fork()
    if child == 0:
        left = call
        def count(event, arguments):
            global left
            if event.split(".")[0] in ("open", "os", "sqlite3"):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        Journal(folder)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(call)
"""


def test_a_disk_that_is_full_while_a_journal_is_made_leaves_an_empty_search_or_a_whole_event(tmp_path: Path) -> None:
    """At every size of a file at which its making may be cut off."""
    subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], check=True)
    outcomes = {is_empty(folder) for folder in tmp_path.iterdir()}
    assert outcomes == {True, False}
    for folder in tmp_path.iterdir():
        if is_empty(folder):
            Journal(folder).append("search_created")
        assert [row[0] for row in read_journal(folder).rows] == [1]


def test_a_kill_at_any_call_of_its_making_leaves_no_half_made_journal(tmp_path: Path) -> None:
    """The process kills itself before each call of the system that opens, renames, removes or connects."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 5
    for folder in tmp_path.iterdir():
        if (folder / JOURNAL_FILE).exists():
            assert Journal(folder, read_only=True).events() == []
        assert is_empty(folder)
        Journal(folder).append("search_created")
        assert len(read_journal(folder).rows) == 1
        assert not list(folder.glob(".aside-*"))

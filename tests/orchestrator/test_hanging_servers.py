"""A tracking server that hangs costs a search seconds at its end; one that is slow is waited for."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaloom.orchestrator.tracking.outbox import SERVER_SILENCE_S, SILENT
from metaloom.orchestrator.tracking.outboxes import start_projections
from metaloom.workers.records import names as records
from tests.dashboards.conftest import story
from tests.support.processes import Process
from tests.support.tracked import ENDED, STARTED, Search
from tests.support.tracking_servers import Serve, delayed, tracking_server, wait_until

CALL_S = 15.0  # MLflow's own timeout: a search that waited for it would need twice that, as it tries twice


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Serve]]:
    with tracking_server(tmp_path) as address_and_start:
        yield address_and_start


def test_a_server_that_accepts_and_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        search = Search(tmp_path / "store", "deaf", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        search.tell(STARTED, *story({0: 0.7}), ENDED)
        outboxes = start_projections(search.folder, **search.arguments())
        time.sleep(1.0)
        began = time.monotonic()
        (backlog,) = outboxes.close()
        assert time.monotonic() - began < CALL_S
    assert (backlog.name, backlog.events, backlog.reason) == ("mlflow", 8, SILENT)
    send = f"'metaloom sync deaf --store {tmp_path / 'store'}'"
    assert backlog.told(search.folder) == f"mlflow does not answer; 8 events wait; send them with {send}"


CLOSE = (
    "import sys, time; from pathlib import Path; "
    "from metaloom.orchestrator.tracking.outboxes import start_projections; "
    "folder, uri = Path(sys.argv[1]), sys.argv[2]; "
    "boxes = start_projections(folder, store=folder.parents[1], tracking={'uri': uri}, warn=print); "
    "print('begun', flush=True); sys.stdin.readline(); began = time.monotonic(); left = boxes.close(); "
    "print(round(time.monotonic() - began, 1), [one.told(folder) for one in left], flush=True)"
)


def test_a_stopped_server_holds_no_process_up_and_gets_everything_later(
    tmp_path: Path, server: tuple[str, Serve]
) -> None:
    uri, serve = server
    process = serve()
    search = Search(tmp_path / "store", "stopped", uri)
    search.tell(STARTED, *story({0: 0.7}))
    driver = Process("-c", CLOSE, str(search.folder), uri)
    assert driver.stdout.readline() == "begun\n"
    wait_until(lambda: search.journal.mark(records.MLFLOW_MARK).event == 7)
    for one in children_of(process.pid):
        one.send_signal(signal.SIGSTOP)
    search.tell(*story({1: 0.8}), ENDED)
    out, errors = driver.communicate("\n", timeout=CALL_S + 15.0)  # the end of the process too
    assert driver.wait() == 0, errors
    assert "mlflow does not answer; 6 events wait" in out
    for one in children_of(process.pid):
        one.send_signal(signal.SIGCONT)
    assert search.drain() == []
    assert {run.info.status for run in search.runs()[1].values()} == {"FINISHED"}


def children_of(pid: int):
    """Return a server's processes: it has workers."""
    import psutil

    server = psutil.Process(pid)
    return [server, *server.children(recursive=True)]


def test_a_slow_server_is_waited_for_as_long_as_it_answers(tmp_path: Path, server: tuple[str, Serve]) -> None:
    uri, serve = server
    serve()
    with delayed(uri, 0.25) as slow:
        search = Search(tmp_path / "store", "slow", slow)
        search.tell(STARTED, *story(dict.fromkeys(range(8), 0.7)), ENDED)
        outboxes, began = start_projections(search.folder, **search.arguments()), time.monotonic()
        assert outboxes.close() == []
        assert time.monotonic() - began > SERVER_SILENCE_S
        parent, trials = search.runs()
    assert {run.info.status for run in (parent, *trials.values())} == {"FINISHED"} and len(trials) == 8

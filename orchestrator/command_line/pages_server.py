"""Serves the pages in a thread of this process, with the services that they are lent."""

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import uvicorn

from metaloom.dashboards.pages.app import application
from metaloom.dashboards.pages.services import Services
from metaloom.dashboards.pages.settings import PageSettings
from metaloom.dashboards.store_reader import OpenStore
from metaloom.learners.errors import BadEnvironment, MetaloomError
from metaloom.orchestrator.analysis import SearchAnalysis
from metaloom.orchestrator.command_line.apart_process import LocalApartProcess
from metaloom.orchestrator.command_line.companions import LocalCompanions
from metaloom.orchestrator.command_line.replays import LocalReplays
from metaloom.orchestrator.comparison import RecordedComparisons
from metaloom.orchestrator.control_room import LocalControl
from metaloom.orchestrator.page_reports import LocalReports

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
UNSPECIFIED = frozenset({"0.0.0.0", "::"})
START_S, STOP_S = 60.0, 5


@contextmanager
def serving(store: Path, bound: socket.socket, *, host: str, read_only: bool | None) -> Iterator[PageSettings]:
    """Serve the pages of a store at a bound socket within this context; end the companions with them.

    Args:
        store: The folder of all records.
        bound: Where to listen.
        host: The name or address that it was bound for.
        read_only: Change nothing; None: if others can reach the socket.

    Raises:
        BadEnvironment: The server did not start.
    """
    place, port = bound.getsockname()[:2]
    restricted = not is_loopback(place) if read_only is None else read_only
    hosts = allowed_hosts(place) | {host.lower()}
    settings = PageSettings(store=store, read_only=restricted, hosts=hosts, port=port)
    companions, opened = LocalCompanions(store), OpenStore(store)
    replays, reports, apart = LocalReplays(), LocalReports(store), LocalApartProcess(store, read_only=restricted)
    lent = Services(
        control=None if restricted else LocalControl(store, opened.record),
        analysis=SearchAnalysis(),
        companions=companions,
        comparisons=RecordedComparisons(store, opened.record),
        replays=replays,
        reports=reports,
        apart=apart,
    )
    app = application(settings, lent, opened)
    config = uvicorn.Config(
        app, access_log=False, log_level="warning", server_header=False, timeout_graceful_shutdown=STOP_S, ws="none",
        proxy_headers=False, lifespan="off",
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="pages")
    thread.start()
    threading.Thread(target=_warm, args=(opened,), name="first reading", daemon=True).start()
    try:
        _wait(server, thread)
        yield settings
    finally:
        server.should_exit = True
        companions.close()
        replays.close()
        reports.close()
        apart.close()
        thread.join()


def _warm(store: OpenStore) -> None:
    """Read the searches while the browser starts; a page says why one cannot be read."""
    with suppress(MetaloomError):
        store.warm()


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise BadEnvironment("the pages could not be served; the lines above say why")
        time.sleep(0.01)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    return ipaddress.ip_address(host).is_loopback


def allowed_hosts(host: str) -> frozenset[str]:
    """Return the names by which a request may call a server at an address: of this machine, and those of the address.

    Where it listens at all addresses, they are all that this machine has, with its names.
    """
    if host not in UNSPECIFIED:
        return LOOPBACK | {host}
    own = {one.address.partition("%")[0] for found in psutil.net_if_addrs().values() for one in found}
    return LOOPBACK | own | {socket.gethostname().lower(), socket.getfqdn().lower()}


def address(host: str, port: int) -> str:
    """Return the address to be opened for a bound host."""
    if host in UNSPECIFIED:
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

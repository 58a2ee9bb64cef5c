"""The Ray of a search, which is started on this machine for the search, or is a cluster that the search joins.

Call ``environment.prepare`` before importing this module. A Ray of our own has two servers, gcs_server and raylet.
Measured on Ray 2.60: if raylet dies, Tune waits forever; if gcs_server dies, this process blocks inside Ray, which
kills it silently a minute later. Therefore Tune's loop watches both, and so does a thread in case the loop blocks.
"""

import atexit
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence

import psutil
import ray

from metaloom.orchestrator.errors import ClusterError
from metaloom.orchestrator.executors.ray_cluster import environment
from metaloom.orchestrator.executors.ray_cluster.guard import guarded
from metaloom.orchestrator.executors.ray_cluster.starting import LOOPBACK, Wanted, host_and_port
from metaloom.orchestrator.interruption import SPARED, Interruption
from metaloom.orchestrator.private_api import disconnect_ray, ray_is_held, read_ray_environment
from metaloom.workers.activity import doing

SERVERS = ("gcs_server", "raylet")
LOOK_S = 1.0  # between two checks of the servers
NOTICE_S = 10.0  # for the loop to notice a dead server; it takes a second unless it blocks inside Ray
SIGNALLED_S = 3.0  # the same, after a signal
UNANSWERED = 30  # failed checks of a cluster before the search ends; Ray itself ends this process after 60 s
DEATH = "a server of Ray on this machine has died (it was killed, or the machine ran out of memory)"
SILENCE = "the Ray cluster at {address} no longer answers"


class Connection:
    """A Ray that this process is connected to.

    Args:
        others: PIDs of this process's children that do not belong to Ray.
        own: Whether Ray was started for this process only, as its children.
        address: Of the cluster that was joined.

    Attributes:
        own: As given.
    """

    def __init__(self, interruption: Interruption, others: set[int], *, own: bool, address: str | None = None) -> None:
        self._interruption, self.own = interruption, own
        self._head, self._unanswered = host_and_port(address or ""), 0
        self._reason = SILENCE.format(address=address) if address else DEATH
        self._roots = _children(others) if own else []
        self._started = self._family()
        self._servers = list(filter(_is_server, self._started))
        self._left = threading.Event()
        if own or self._head:
            threading.Thread(target=self._watch, name="metaloom-ray-watch", daemon=True).start()

    def check(self) -> None:
        """Raise ClusterError if a server of our own has died, or the cluster no longer answers."""
        if not self.is_whole:
            raise ClusterError(self._reason)

    def _watch(self) -> None:
        while not self._left.wait(LOOK_S):
            if self._head is not None:
                self._unanswered += 1
                with contextlib.suppress(OSError):
                    socket.create_connection(self._head, timeout=LOOK_S).close()
                    self._unanswered = 0
            if self.is_whole:
                self._started = self._family()  # the workers are raylet's children only while it lives
            elif not self._left.wait(SIGNALLED_S if self._interruption.signal_number else NOTICE_S):
                text = f"metaloom: {self._reason}\n{self._interruption.advice}"
                print(text.rstrip(), file=sys.stderr, flush=True)
                _kill(self._started)
                number = self._interruption.signal_number
                os._exit(128 + number if number else ClusterError.exit_code)

    @property
    def is_whole(self) -> bool:
        """Whether all servers live."""
        return self._unanswered < UNANSWERED and all(map(_lives, self._servers))

    @property
    def may_be_asked(self) -> bool:
        """Whether its servers answer. Our own servers do not after a SIGTERM, which they have received too."""
        return self.is_whole and not (self.own and self._interruption.signal_number == signal.SIGTERM)

    def security(self) -> str:
        """Return in a line where our own Ray listens, and who may read its token."""
        ports, beyond = 0, set[str]()
        for process in self._family():
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                for one in process.net_connections(kind="tcp"):
                    if one.status == psutil.CONN_LISTEN:
                        ports += 1
                        beyond |= set() if one.laddr.ip.startswith(LOOPBACK) else {one.laddr.ip}
        heard = f"also on {', '.join(sorted(beyond))}, beyond this machine" if beyond else "on 127.0.0.1 only"
        return f"{ports} ports {heard}; {environment.token_state()}"

    def close(self) -> None:
        """Leave Ray; end our own Ray, but no other child of this process.

        systemd and Slurm send SIGTERM to all processes at once. While Ray's servers end, ``ray.shutdown`` would wait
        for them, possibly until Ray aborts this process.
        """
        self._left.set()
        broken = not self.is_whole
        if self.own and self._interruption.signal_number == signal.SIGTERM:
            _abandon(signal.SIGTERM)
            broken = True
        else:
            # An actor's handle that is collected meanwhile would call a dead worker, and Ray exit this process with 1.
            enabled = gc.isenabled()
            gc.collect()
            gc.disable()
            try:
                ray.shutdown()
            finally:
                if enabled:
                    gc.enable()
        if broken:
            _kill([*self._started, *self._family()])

    def _family(self) -> list[psutil.Process]:
        family = list(self._roots)
        for root in self._roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                family += root.children(recursive=True)
        return family


@contextlib.contextmanager
def connected(
    interruption: Interruption,
    *,
    address: str | None = None,
    cpus: int | None = None,
    workers: int = 1,
    threads: int = 1,
    variables: Sequence[str] = (),
) -> Iterator[Connection]:
    """Start Ray for this process only, or join a cluster; use a Ray that runs already.

    Args:
        interruption: Of the search.
        address: Of a cluster to be joined; None starts Ray.
        cpus: Of a Ray that is started; None: all of this machine.
        workers: The processes that such a Ray starts at once.
        threads: The OMP_NUM_THREADS of each, which Ray itself sets after torch is imported.
        variables: Names of this process's variables that the workers get beside ``environment.PASSED``.

    Raises:
        ClusterError: Ray does not start, there is no cluster at the address, or SIGTERM has come to this process.
        Stopped: A signal came while it started, which takes from 3 s to a minute.
    """
    if ray.is_initialized():
        yield Connection(interruption, set(), own=False)
        return
    if ray_is_held():
        raise ClusterError(
            "this process was told to end (SIGTERM), and cannot start Ray again: "
            "search in a new one, or with the executor 'inline'"
        )
    gc.collect()  # actor handles of an earlier Ray, which would call the new one
    own, wanted = address is None, Wanted(address, cpus, workers, threads, variables)
    with _guarded() if own else contextlib.nullcontext():
        others = {child.pid for child in psutil.Process().children(recursive=True)}  # the guard and the caller's own
        _start_or_stop(interruption, wanted, others)
        connection = Connection(interruption, others, own=own, address=address)
        try:
            yield connection
        finally:
            connection.close()
            interruption.install()
    if not ray_is_held():
        read_ray_environment()  # for a Ray that the caller starts next


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Restrict a Ray that is started within to this user, and have nothing left of it if this process is killed."""
    folder, mine = environment.private_folder(), environment.worker_environment(os.environ)
    with environment.private(), guarded(f"{environment.MARK}={folder}", folder, mine, SPARED):
        yield


def _start_or_stop(interruption: Interruption, wanted: Wanted, others: set[int]) -> None:
    """Start Ray; if a signal or an error interrupts the start, end the processes that it has made."""
    what = "starting Ray" if wanted.address is None else f"joining the Ray cluster at {wanted.address}"
    try:
        with interruption.raising(), doing(what):
            wanted.start()
    except BaseException as error:
        if isinstance(error, SystemExit):  # from Ray's own handler, which replaces ours while Ray starts
            interruption.signal_number = interruption.signal_number or signal.SIGTERM
        if wanted.address is None:
            atexit.unregister(ray.shutdown)
            _kill(_children(others))
        interruption.check()
        raise
    finally:
        interruption.install()  # ray.init's handler aborts the process on SIGTERM
        if interruption.signal_number == signal.SIGTERM:
            signal.alarm(0)  # the alarm with which Ray's handler aborts the process after three seconds


def _children(others: set[int]) -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.pid not in others]


def _is_server(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name() in SERVERS
    return False


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _abandon(number: int) -> None:
    """Disconnect from dead servers, so that neither Ray nor Tune waits for them.

    At exit Ray's threads and static destructors would wait and then crash this process. So it ends before they run,
    with the signal's exit code.
    """
    atexit.unregister(ray.shutdown)
    disconnect_ray()
    atexit.register(_end, 128 + number)


def _end(exit_code: int) -> None:
    atexit.unregister(_end)
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # the reader of our output may be gone
        os._exit(exit_code)

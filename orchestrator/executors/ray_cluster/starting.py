"""Starts Ray on this machine for one search, or joins a cluster."""

import contextlib
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil
import ray

from metaloom.orchestrator.errors import ClusterError
from metaloom.orchestrator.executors.ray_cluster import environment
from metaloom.orchestrator.executors.ray_cluster.worker_start import with_spares
from metaloom.orchestrator.private_api import ray_folder, ray_servers, read_ray_environment, without_ray_messages

ANSWER_S = 10.0  # for the head node to accept a connection
LOOPBACK = ("127.", "::1", "::ffff:127.")
_LOGGING = {"log_to_driver": False, "logging_level": logging.ERROR}
logger = logging.getLogger("metaloom.cluster")


@dataclass(frozen=True)
class Wanted:
    """The Ray that a search wants; ``connected`` says what these are."""

    address: str | None
    cpus: int | None
    workers: int
    threads: int
    variables: Sequence[str]

    def start(self) -> None:
        """Start or join it; raises ClusterError."""
        umask = os.umask(0o077)  # for the files of Ray's processes, which inherit it
        read_ray_environment()
        try:
            with environment.quiet(), without_ray_messages():
                self._start_own() if self.address is None else self._join(self.address)
        except Exception as error:
            where = f"reach a Ray cluster at {self.address}" if self.address else "start Ray on this machine"
            lines = str(error).strip().splitlines()
            inline = "try --executor inline, which needs no Ray"
            hint = "check the address and RAY_AUTH_TOKEN" if self.address else inline
            raise ClusterError(f"cannot {where}: {lines[0] if lines else type(error).__name__}; {hint}") from error
        finally:
            os.umask(umask)

    def _start_own(self) -> None:
        folder, workers = environment.private_folder(), with_spares(self.workers)

        def change(given: Mapping[str, str]) -> dict[str, str]:
            passed = environment.worker_environment(given, self.variables)
            usual = {"OMP_NUM_THREADS": str(self.threads), "RAY_num_workers_soft_limit": str(workers)}
            return {**usual, **passed, **environment.VISIBLE, environment.MARK: str(folder)}

        with ray_servers(change, workers):
            temporary = ray_folder(str(folder / "ray"))  # Ray makes it 0777; its parent is 0700
            ray.init("local", num_cpus=self.cpus, include_dashboard=False, **temporary, **_LOGGING)
        _warn_of_open_ports()

    def _join(self, address: str) -> None:
        if head := host_and_port(address):
            socket.create_connection(head, timeout=ANSWER_S).close()  # Ray itself would try for five minutes
        given = {name: os.environ[name] for name in self.variables if name in os.environ}
        ray.init(address, runtime_env={"env_vars": given} if given else None, **_LOGGING)


def host_and_port(address: str) -> tuple[str, int] | None:
    """Return the two parts of an address, None if it is none of that form."""
    host, _, port = address.rpartition(":")
    return (host, int(port)) if host and port.isdigit() else None


def _warn_of_open_ports() -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and not connection.laddr.ip.startswith(LOOPBACK):
                    logger.warning("Ray's %s listens on %s, beyond this machine", process.name(), connection.laddr.ip)
                    return

"""An MLflow server behind a door that asks for a name and a password, as a reverse proxy does."""

import base64
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from metaloom.orchestrator.tracking import client as tracking_client
from tests.support.databases import copy_mlflow_database
from tests.support.processes import Process

NOT_PASSED_ON = {"host", "authorization", "connection", "transfer-encoding", "content-length"}


@dataclass
class Door:
    """What is asked of a visitor, and who came.

    Attributes:
        refusing: The number of further requests that are refused whatever they show.
        refused: The number of requests that were.
        admitted: The number of requests that showed the password.
    """

    port: int
    authority: str
    refusing: int = 0
    refused: int = 0
    admitted: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def admits(self, shown: str | None) -> bool:
        """Say whether a visitor may enter, and count."""
        expected = "Basic " + base64.b64encode(self.authority.encode()).decode()
        with self.lock:
            right = shown == expected and self.refusing <= 0
            self.refusing -= 1
            self.admitted += right
            self.refused += not right
        return right


@contextmanager
def guarded_server(folder: Path, authority: str) -> Iterator[Door]:
    """Serve MLflow from ``folder`` behind a door for ``authority``, a user's name and password."""
    inside = _free_port()
    with _mlflow(folder, inside):
        door = Door(0, authority)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(door, inside))
        door.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield door
        finally:
            server.shutdown()
            server.server_close()


@contextmanager
def _mlflow(folder: Path, port: int) -> Iterator[None]:
    folder.mkdir()
    copy_mlflow_database(folder / "server.db")
    environment = {**os.environ, **tracking_client.QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = ["-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/served"]
    process = Process(*command, environment=environment, folder=folder, new_session=True)
    try:
        deadline = time.monotonic() + 90.0
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert process.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _handler(door: Door, inside: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Passes an admitted request on."""

        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not door.admits(self.headers.get("Authorization")):
                return self.answer(401, b"You are not authenticated.", "text/plain")
            headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON}
            connection = http.client.HTTPConnection("127.0.0.1", inside, timeout=60)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return self.answer(answer.status, content, answer.getheader("Content-Type") or "text/plain")

        def answer(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815  (http.server looks for these names)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    return Handler

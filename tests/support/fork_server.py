"""A Python that has imported the libraries, and forks a process for each request: ``processes.py`` sends them.

A process takes its arguments, environment, folder and files as a new interpreter does, imports Metaloom itself, and
ends as an interpreter ends. Only the imports of the libraries are done already: they take longer than the tests.

Usage: fork_server.py DESCRIPTOR, that of a listening socket. It ends when nobody is connected. A request is JSON
with the descriptors of stdin, stdout, stderr and of a pipe, which gets the process's id, and its exit code when it has
ended.
"""

import contextlib
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

LIBRARIES = (
    "filelock",
    "matplotlib.pyplot",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking",
    "numba",
    "optuna.storages",
    "pandas",
    "psutil",
    "pyarrow.parquet",
    "pydantic",
    "ray.tune",
    "rich.console",
    "rich.table",
    "safetensors.torch",
    "scipy.stats",
    "torch",
    "torch._decomp.decompositions_for_jvp",
    "torch._dynamo",
    "torch.fx.experimental.proxy_tensor",
    "typer",
    "yaml",
)
OWN_TABLES = "METALOOM_OWN_TABLES"


def share_tables(made: Path) -> None:
    """Let MLflow make its tables at ``made``, 3 s of migrations, and begin each process's new database with a copy.

    A process with ``OWN_TABLES`` in its environment makes its own.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    begin = SqlAlchemyStore.__init__

    def begin_with_tables(store: SqlAlchemyStore, uri: str, *arguments: Any, **options: Any) -> None:
        path = Path(uri.removeprefix("sqlite:///"))
        if uri.startswith("sqlite:///") and made.exists() and not path.exists() and OWN_TABLES not in os.environ:
            shutil.copyfile(made, path)
        begin(store, uri, *arguments, **options)

    SqlAlchemyStore(f"sqlite:///{made}", str(made.parent)).engine.dispose()
    SqlAlchemyStore.__init__ = begin_with_tables


def main(descriptor: int) -> dict[str, Any] | None:
    """Serve until nobody is connected; return the request in the process that was forked for it."""
    listening = socket.socket(fileno=descriptor)
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    clients, running = [listening.accept()[0]], dict[int, int]()
    while clients:
        for one in select.select([listening, woken, *clients], [], [])[0]:
            if one == woken:
                os.read(woken, 4096)
                report_ended(running)
            elif one == listening:
                clients.append(listening.accept()[0])
            else:
                text, files, _, _ = socket.recv_fds(one, 2**20, 4)
                if not text:
                    clients.remove(one)
                    one.close()
                elif not start(files, running):
                    for socket_of_ours in (listening, *clients):
                        socket_of_ours.close()
                    os.close(woken)
                    os.close(waking)
                    return become(json.loads(text), files[:3])
    return None


def start(files: list[int], running: dict[int, int]) -> int:
    """Fork a process; return its id here, and 0 in it."""
    *standard, report = files
    pid = os.fork()
    if pid == 0:
        for one in (report, *running.values()):
            os.close(one)
        return 0
    running[pid] = report
    os.write(report, f"{pid}\n".encode())
    for one in standard:
        os.close(one)
    return pid


def report_ended(running: dict[int, int]) -> None:
    """Write the exit codes of the processes that have ended to their pipes."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            report = running.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(report, f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os.close(report)


def become(request: dict[str, Any], standard: list[int]) -> dict[str, Any]:
    """Turn this process into the one that was asked for, up to its program."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, one in enumerate(standard):
        os.dup2(one, number)
        os.close(one)
    if request["new_session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    return request


def run(arguments: list[str]) -> None:
    """Run a program as ``python ARGUMENTS`` does: ``-c CODE``, ``-m MODULE`` or a script, with its own arguments."""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    kind, *rest = arguments
    first = str(Path(kind).resolve().parent) if kind not in ("-c", "-m") else "" if kind == "-c" else str(Path.cwd())
    sys.path[:] = [first, *paths, *(path for path in sys.path if path not in paths)]
    sys.path_importer_cache.clear()
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        names = {"__name__": "__main__", "__builtins__": __builtins__}
        exec(compile(rest[0], "<string>", "exec"), names)
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder
    for library in LIBRARIES:
        import_module(library)
    with socket.socket(fileno=os.dup(int(sys.argv[1]))) as listening_too:
        share_tables(Path(listening_too.getsockname()).with_name("mlflow.db"))
    gc.collect()
    gc.freeze()  # so that a collection copies none of it into the processes
    asked = main(int(sys.argv[1]))
    if asked is not None:
        run(asked["arguments"])

"""``metaloom doctor``: tests what this machine has and lacks, and shows it in one table."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from metaloom.learners.errors import BadEnvironment
from metaloom.orchestrator.command_line.answers import JsonOption, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator import security
    from metaloom.orchestrator.command_line import tables
    from metaloom.workers.records import stages

PACKAGES = ("metaloom", "torch", "ray", "optuna", "mlflow", "numpy", "numba", "pyarrow", "pydantic", "safetensors")
LITTLE_BYTES = 2**30  # below this a search of a few hundred trials may fill the disk
RAY_TIMEOUT_S = 120.0
RAY_TRIAL = """
from metaloom.orchestrator.executors.ray_cluster import environment as ray_environment
ray_environment.prepare()
from metaloom.orchestrator.executors.ray_cluster import connection as ray_connection
from metaloom.orchestrator.interruption import Interruption
import ray
with ray_connection.connected(Interruption(), cpus=1) as connection:
    assert ray.get(ray.remote(lambda: 42).remote()) == 42
    print(connection.security())
"""


def doctor(
    ray: Annotated[bool, typer.Option("--ray/--no-ray", help="Try whether Ray starts (some seconds).")] = True,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> int:
    """Show what this machine has and lacks: versions, devices, Ray, write access and free disk."""
    with answering(as_json) as answer:
        findings = examine(store, try_ray=ray)
        shown = tables.table("", "check", "found")
        for one in findings:
            shown.add_row("[green]ok[/]" if one.good else "[red]no[/]", *tables.row(one.check, one.found))
        table = tables.table("security", "state", "advice")
        closed = security.examine_security(store, next((one.security for one in findings if one.security), None))
        for state in closed:
            table.add_row(*tables.row(state.what, state.state, state.advice))
        document = {"findings": [_row(one) for one in findings], "security": list(map(asdict, closed))}
        answer.give(document, lambda screen: screen.print(shown, table))
        return 0 if all(one.good for one in findings) else BadEnvironment.exit_code


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    Attributes:
        found: The result, or the problem and what helps.
        good: False if a search would fail because of it.
        security: What a Ray that was started said of its sockets and its token; else empty.
    """

    check: str
    found: str
    good: bool = True
    security: str = ""


def _row(finding: Finding) -> dict[str, Any]:
    return {"check": finding.check, "found": finding.found, "good": finding.good}


def examine(store: Path, *, try_ray: bool = True) -> list[Finding]:
    """Check everything that a search needs; leave nothing in ``store``, which need not exist."""
    found = [_python(), *map(_package, PACKAGES), _processors(), _devices(), _writing(store), _disk(store)]
    found += _stages(store)
    return [*found, _ray()] if try_ray else found


def _python() -> Finding:
    enough = sys.version_info >= (3, 11)
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", text if enough else f"{text}; 3.11 or newer is needed", enough)


def _package(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed; run: pip install metaloom", False)


def _processors() -> Finding:
    import psutil  # the help does not need it

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory()
    text = f"{usable} usable of {os.cpu_count()}; {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    return Finding("processors and memory", text)


def _devices() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("devices", f"torch cannot be imported: {error}", False)
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return Finding("devices", ", ".join(["cpu", *(f"cuda:{number} {name}" for number, name in enumerate(names))]))


def _existing(path: Path) -> Path:
    """Return ``path``, or its nearest parent that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _writing(store: Path) -> Finding:
    place = _existing(store)
    try:
        with tempfile.NamedTemporaryFile(dir=place) as probe:
            probe.write(b"metaloom")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return Finding("store", f"{place} cannot be written: {error.strerror}; choose another --store", False)
    return Finding("store", f"{store.absolute()} can be {'written' if place == store.absolute() else 'made'}")


def _disk(store: Path) -> Finding:
    free = shutil.disk_usage(_existing(store)).free
    text = f"{free / 2**30:.1f} GiB free"
    return Finding("disk", text if free >= LITTLE_BYTES else f"only {text}; free some space", free >= LITTLE_BYTES)


def _stages(store: Path) -> list[Finding]:
    """Count the stages of a store, if it has any; one that is not finished goes on when a trial needs it."""
    folders = [folder for _, folder in stages.stage_directories(store)]
    finished = sum(stages.read_stage(folder) is not None for folder in folders)
    text = f"{finished} of {len(folders)} finished; a trial that needs one of the others trains it on"
    return [Finding("stages", text if finished < len(folders) else f"{finished} finished")] if folders else []


def _ray() -> Finding:
    """Start Ray as a search does, in another process, where its output and an abort do no harm."""
    begun = time.monotonic()
    try:
        ended = subprocess.run(
            [sys.executable, "-c", RAY_TRIAL], capture_output=True, text=True, timeout=RAY_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("ray starts", f"not within {RAY_TIMEOUT_S:.0f} s; --executor inline needs no Ray", False)
    if ended.returncode == 0:
        security = (ended.stdout.strip().splitlines() or [""])[-1]
        return Finding("ray starts", f"and runs a task, in {time.monotonic() - begun:.1f} s", security=security)
    last = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
    return Finding("ray starts", f"no: {last}; --executor inline needs no Ray", False)


COMMAND = Command(doctor, examples=("metaloom doctor",))

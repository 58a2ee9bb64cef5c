"""Whether the workers of a Ray that is started on this machine find the modules that an experiment names."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from metaloom.learners.networks.reference import OF, split_reference
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors.base import ExecutorRequest
from metaloom.orchestrator.executors.ray_cluster.environment import worker_environment
from metaloom.orchestrator.executors.ray_cluster.worker_start import driver_folders

TIMEOUT_S = 60
# as a worker's import path: the installed packages and PYTHONPATH, then the folders of the driver
PROGRAM = """
import importlib.util, json, sys
folders, modules = json.load(sys.stdin)
sys.path[:] = [*(one for one in sys.path if one), *folders]
absent = {}
for module in modules:
    try:
        if importlib.util.find_spec(module) is None:
            absent[module] = "there is no such module"
    except Exception as error:
        absent[module] = f"{type(error).__name__}: {error}"
print("\\n" + json.dumps(absent))
"""


def check_imports(references: Sequence[str], request: ExecutorRequest) -> None:
    """Refuse import paths whose modules a worker would not find.

    A worker's import path is not this process's: what a script has added to ``sys.path`` is missing there. The modules
    themselves are not imported, only their parent packages. At an ``address`` nothing is known of the nodes.

    Raises:
        SearchError: It names the module, where this process has it from, and what makes it found.
    """
    if not references or request.address is not None:
        return
    modules = {split_reference(reference)[0]: reference for reference in references}
    absent = _absent(list(modules), request)
    for module, reason in absent.items():
        file = getattr(sys.modules.get(module), "__file__", None)
        here = f" (here it is {file})" if file else ""
        raise SearchError(
            f"{OF}: a worker of Ray cannot import {modules[module]}{here}: {reason}. Workers look in the current "
            "folder, the script's folder, PYTHONPATH and the installed packages: start from the folder that holds it, "
            "install its package, or use the inline executor (--executor inline)"
        )


def _absent(modules: list[str], request: ExecutorRequest) -> dict[str, str]:
    """Return the modules that a process with a worker's environment and import path does not find, and why."""
    asked = request.resources.get("env") or ()
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([driver_folders(), modules]),
        env=worker_environment(os.environ, asked),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if found.returncode != 0:  # a parent package that ends the process, for one
        last = (found.stderr.strip() or "it ended the process").splitlines()[-1]
        return {modules[0]: last}
    return dict(json.loads(found.stdout.splitlines()[-1]))

"""Says whether the process that runs a search is alive."""

import socket
from collections.abc import Mapping
from typing import Any

import psutil


def is_alive(process: Mapping[str, Any]) -> bool:
    """Return whether the driver of ``search_started`` still runs; a driver on another host counts as alive."""
    if process.get("host") not in (None, socket.gethostname()):
        return True
    pid = process.get("pid")
    try:
        driver = psutil.Process(int(pid or 0))
        # A process that began after the event has reused the number; a zombie has ended.
        reused = driver.create_time() > float(process["time"]) + 1.0
        return pid is not None and not reused and driver.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False

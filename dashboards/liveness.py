"""Whether the driver that a journal names still runs."""

import socket
from collections.abc import Mapping
from typing import Any

import psutil


def is_alive(process: Mapping[str, Any]) -> bool:
    """Say whether the driver that ``search_started`` named still runs; one on another host is believed."""
    if process.get("host") not in (None, socket.gethostname()):
        return True
    pid = process.get("pid")
    try:
        found = psutil.Process(int(pid or 0))
        # A process begun after the event has only inherited the number; a zombie has ended.
        inherited = found.create_time() > float(process["time"]) + 1.0
        return pid is not None and not inherited and found.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False

"""The process apart from the server of the pages (apart_process.py), which imports torch and the like.

    python -m metaloom.orchestrator.command_line.apart_main STORE [read-only] [torch]

It ends when its input is closed, so that none is left when the server is gone.
"""

import asyncio
import os
import queue
import signal
import sys
import threading
from pathlib import Path

from metaloom.dashboards.pages.apart_answers import answer_lines
from metaloom.dashboards.pages.app import pages
from metaloom.dashboards.pages.services import Services
from metaloom.dashboards.pages.settings import PageSettings
from metaloom.dashboards.store_reader import OpenStore
from metaloom.orchestrator.analysis import SearchAnalysis

READ_ONLY, TORCH = "read-only", "torch"


def main(store: Path, *, read_only: bool, imports_torch: bool) -> None:
    """Answer the requests on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the server's terminal reaches this process too
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed goes to the server's terminal
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    settings, lent = PageSettings(store=store, read_only=read_only), Services(analysis=SearchAnalysis())
    app = pages(settings, lent, OpenStore(store))
    if imports_torch:
        import torch

        torch.set_num_threads(1)
    asyncio.run(answer_lines(app, requests.get, answers))


def _read(requests: "queue.Queue[str]") -> None:
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), read_only=READ_ONLY in sys.argv[2:], imports_torch=TORCH in sys.argv[2:])

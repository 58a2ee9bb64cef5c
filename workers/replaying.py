"""The process that plays episodes again for a page: a request on its first line of input, answers as lines of output.

It ends when its input is closed, so that none is left when the page's server is gone.
"""

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from metaloom.learners.errors import MetaloomError
from metaloom.workers.replay import confused, replayed

EPISODE, CONFUSIONS = "episode", "confusions"
PATIENT = 10  # the niceness: a search that runs beside it goes first


def answers(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the answers to a request: how far it is, and at the end its result, or what is wrong with it."""
    try:
        if request["kind"] == CONFUSIONS:
            yield from confused(request)
        else:
            yield {"result": replayed(request)}
    except MetaloomError as problem:
        yield {"problem": str(problem)}


def main() -> None:
    """Answer the request on standard input."""
    os.nice(PATIENT)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    for answer in answers(request):
        print(json.dumps(answer), flush=True)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()

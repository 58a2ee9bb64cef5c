"""The signals that end a command (Ctrl-C, SIGTERM), and how they end a command that runs no search."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Ended(BaseException):
    """Signal ``number`` has come while no search runs; not a KeyboardInterrupt, which typer handles itself."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def raised() -> Iterator[None]:
    """Within this context a signal that is not ignored raises ``Ended``, in the main thread only."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(signal.Signals(number))

    before = {number: signal.getsignal(number) for number in SIGNALS} if in_main_thread() else {}
    handled = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in handled:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)


def in_main_thread() -> bool:
    """Return whether Python handles signals in this thread."""
    return threading.current_thread() is threading.main_thread()

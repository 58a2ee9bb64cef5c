"""Ctrl-C and SIGTERM: which signals end a command, and how they end one that runs no search."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Ended(BaseException):
    """A signal has come where no search runs; not a KeyboardInterrupt, which typer would take for its own.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def raised() -> Iterator[None]:
    """Inside, a signal that is not ignored raises ``Ended``; in the main thread only."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(signal.Signals(number))

    before = {number: signal.getsignal(number) for number in SIGNALS} if in_main_thread() else {}
    heeded = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in heeded:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)


def in_main_thread() -> bool:
    """Say whether this is the thread that Python handles signals in."""
    return threading.current_thread() is threading.main_thread()

"""The signals that end a command (Ctrl-C, SIGTERM), and how they end a command that runs no search."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Ended(BaseException):
    """Signal ``number`` has come while no search runs; not a KeyboardInterrupt, which typer handles itself."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None], *, ignored: bool = True) -> Iterator[None]:
    """Handle the signals within this context, in the main thread only; with ``ignored`` those that are ignored too."""
    before = {number: signal.getsignal(number) for number in SIGNALS} if in_main_thread() else {}
    changed = {number: former for number, former in before.items() if ignored or former not in (signal.SIG_IGN, None)}
    try:
        for number in changed:
            signal.signal(number, handler)
        yield
    finally:
        for number, former in changed.items():
            signal.signal(number, former)


def raised() -> AbstractContextManager[None]:
    """Within this context a signal that is not ignored raises ``Ended``, in the main thread only."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(signal.Signals(number))

    return handled(end, ignored=False)


def in_main_thread() -> bool:
    """Return whether Python handles signals in this thread."""
    return threading.current_thread() is threading.main_thread()

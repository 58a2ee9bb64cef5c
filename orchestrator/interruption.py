"""Ctrl-C and SIGTERM: in a search the first ends it with complete records, the second ends the process at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDERR, CURSOR = 2, "\x1b[?25h"


class Stopped(BaseException):
    """Leaves a trial or Tune's loop when a signal has come.

    It is not an Exception, so no ``except Exception`` mistakes it for a failed trial.
    """


class Interruption:
    """The signals that have come during a search.

    Args:
        advice: How to go on; printed if the process ends at once.

    Attributes:
        signal_number: The first signal that came, or None.
    """

    def __init__(self, advice: str = "") -> None:
        self.advice = advice
        self.signal_number: int | None = None
        self._raising = False

    @contextmanager
    def installed(self) -> Iterator["Interruption"]:
        """Handle the signals, in the main thread only; restore the former handlers at the end."""
        with handled(self._caught):
            yield self

    def install(self) -> None:
        """Install the handlers; needed again after ``ray.init``, whose SIGTERM handler aborts the process."""
        if in_main_thread():
            for number in SIGNALS:
                signal.signal(number, self._caught)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Within this context a signal raises ``Stopped`` immediately. Use it only around work that may be killed."""
        self.check()
        self._raising = True
        try:
            yield
        finally:
            self._raising = False

    def check(self) -> None:
        """Raise ``Stopped`` if a signal has come."""
        if self.signal_number is not None:
            raise Stopped

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            end_at_once(self.signal_number, self.advice)
        self.signal_number = number
        if self._raising:
            raise Stopped


def end_at_once(number: int, advice: str = "") -> None:
    """Kill this process and its children. The journal is valid at any moment, so no record is lost."""
    cursor = CURSOR if os.isatty(STDERR) else ""  # a live display has hidden the cursor
    with contextlib.suppress(OSError):  # stderr is closed
        os.write(STDERR, f"{cursor}\nmetaloom: ended at once{f'; {advice}' if advice else ''}\n".encode())
    import psutil  # the command line's help does not need it

    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue  # it has ended already
    os._exit(128 + number)


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

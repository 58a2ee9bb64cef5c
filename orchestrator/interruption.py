"""Ctrl-C, SIGTERM and SIGHUP: in a search the first ends it with complete records, another ends the process at once.

A closed terminal sends SIGHUP, often twice and followed by SIGTERM. So a SIGHUP ends nothing at once and does not count
as the first of two. Where it is ignored, as under nohup, it stays ignored.
"""

import contextlib
import errno
import os
import signal
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SPARED: set[int] = set()  # PIDs of children that end by themselves after this process
STDERR, CURSOR = 2, "\x1b[?25h"
CLEAR = "\r\x1b[K"  # the line of a live display, and the ^C that the terminal shows in it
Handler = Callable[[int, FrameType | None], None]


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
        self._raising, self._told = False, False

    @contextmanager
    def installed(self) -> Iterator["Interruption"]:
        """Handle the signals, in the main thread only; restore the former handlers at the end."""
        with handled(self._caught):
            yield self

    def install(self) -> None:
        """Install the handlers; needed again after ``ray.init``, whose SIGTERM handler aborts the process."""
        if in_main_thread():
            for number in _taken(ignored=True):
                signal.signal(number, _with_terminal(self._caught))

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
        if self._told and number != signal.SIGHUP:
            end_at_once(self.signal_number or number, self.advice)
        self._told = self._told or number != signal.SIGHUP
        if self.signal_number is None:
            self.signal_number = number
            if number != signal.SIGHUP:  # its terminal is gone
                tell_finishing(signal.Signals(number))
            if self._raising:
                raise Stopped


def tell_finishing(number: signal.Signals) -> None:
    """Say at once, from a handler, that the records are being completed, which takes some seconds."""
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    text = f"metaloom: {name}: completing the records, which takes some seconds; a second {name} ends at once"
    with contextlib.suppress(OSError):  # stderr is closed
        os.write(STDERR, f"{CLEAR if os.isatty(STDERR) else ''}{text}\n".encode())


def end_at_once(number: int, advice: str = "") -> None:
    """Kill this process and its children. The journal is valid at any moment, so no record is lost."""
    cursor = CURSOR if os.isatty(STDERR) else ""  # a live display has hidden the cursor
    with contextlib.suppress(OSError):  # stderr is closed
        os.write(STDERR, f"{cursor}\nmetaloom: ended at once{f'; {advice}' if advice else ''}\n".encode())
    import psutil  # the command line's help does not need it

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already
            if child.pid not in SPARED:
                child.kill()
    os._exit(128 + number)


class Ended(BaseException):
    """Signal ``number`` has come while no search runs; not a KeyboardInterrupt, which typer handles itself."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def handled(handler: Handler, *, ignored: bool = True) -> Iterator[None]:
    """Handle the signals within this context, in the main thread only.

    Args:
        handler: For all of them.
        ignored: Handle SIGINT and SIGTERM even where they are ignored, as a shell makes its background jobs.
    """
    changed = {number: signal.getsignal(number) for number in _taken(ignored)} if in_main_thread() else {}
    try:
        for number in changed:
            signal.signal(number, _with_terminal(handler))
        yield
    finally:
        for number, former in changed.items():
            signal.signal(number, former)


def _taken(ignored: bool) -> list[signal.Signals]:
    """Return the signals to be handled; None is a handler that Python did not install."""
    passed = (signal.SIG_IGN, None)
    return [
        number for number in SIGNALS if (ignored and number != signal.SIGHUP) or signal.getsignal(number) not in passed
    ]


def _with_terminal(handler: Handler) -> Handler:
    """Return a handler that leaves a closed terminal first."""

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_closed_terminal()
        handler(number, frame)

    return handle


def leave_closed_terminal() -> bool:
    """Send what this process writes to a terminal that is gone to nowhere: writing would raise. Return if any is."""
    gone = [file for file in (int(one.name) for one in Path("/dev/fd").iterdir()) if _is_gone(file)]
    for file in gone:
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, file, inheritable=file <= STDERR)
        os.close(nowhere)
    return bool(gone)


def _is_gone(file: int) -> bool:
    try:
        termios.tcgetattr(file)
    except termios.error as error:
        return bool(error.args[0] == errno.EIO)  # ENOTTY: it is no terminal
    return False


def raised() -> AbstractContextManager[None]:
    """Within this context a signal that is not ignored raises ``Ended``, in the main thread only."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(signal.Signals(number))

    return handled(end, ignored=False)


@contextmanager
def every_second(look: Callable[[], None] | None) -> Iterator[None]:
    """Within this context call ``look``, which may raise, once a second, in the main thread only; None: do nothing.

    The alarm signal does it, since only a signal leaves a wait of the system; a caller's own alarm is put off.
    """
    if look is None or not in_main_thread():
        yield
        return
    begun, former = time.monotonic(), signal.signal(signal.SIGALRM, lambda number, frame: look())
    left, interval = signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, former)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begun), 0.001), interval)


def in_main_thread() -> bool:
    """Return whether Python handles signals in this thread."""
    return threading.current_thread() is threading.main_thread()

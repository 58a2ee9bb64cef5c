"""Ctrl-C and SIGTERM in a search: once ends it with complete records, twice ends the process at once."""

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

from metaloom.orchestrator.signals import SIGNALS, in_main_thread

STDERR, CURSOR = 2, "\x1b[?25h"


class Stopped(BaseException):
    """Raised out of a trial or out of Tune's loop when a signal has come.

    Not an Exception: no ``except Exception`` on the way may take it for a failed trial.
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
        """Catch the signals, in the main thread; elsewhere they are left alone. Restores what was there before."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self.install()
        try:
            yield self
        finally:
            if in_main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    def install(self) -> None:
        """Install the handlers (again: ``ray.init`` replaces SIGTERM's by one that aborts the process)."""
        if in_main_thread():
            for number in SIGNALS:
                signal.signal(number, self._caught)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Inside, a signal raises ``Stopped`` at once: for work that a kill would not harm either."""
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
    """End this process and all it has started, now. The journal is valid at any moment, so nothing is lost."""
    shown = CURSOR if os.isatty(STDERR) else ""  # a live display has hidden it
    with contextlib.suppress(OSError):  # nobody reads
        os.write(STDERR, f"{shown}\nmetaloom: ended at once{f'; {advice}' if advice else ''}\n".encode())
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue  # ended by itself, or with its parent
    os._exit(128 + number)

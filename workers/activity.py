"""What this process is at, such as building a data cache, and how far it is.

A display asks for it from another thread, because only this process knows it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Activity:
    """Work that takes a while.

    Attributes:
        what: As in ``building the data cache of folder``.
        total: Of the things to be done; None if they are not counted.
        noun: What they are called.
        done: How many are done; or a function that returns it.
        begun: In seconds of ``time.monotonic``; earlier by the time that earlier parts of the same work took.
    """

    what: str
    total: int | None = None
    noun: str = ""
    done: int | Callable[[], int] = 0
    begun: float = field(default_factory=time.monotonic)

    @property
    def count(self) -> int:
        """How many things are done."""
        return self.done() if callable(self.done) else self.done

    @property
    def text(self) -> str:
        """Say it in one line."""
        counted = "" if self.total is None else f": {self.count:,} of {self.total:,} {self.noun}"
        return f"{self.what}{counted}"


_PRESENT: list[Activity] = []  # the innermost last
_ELSEWHERE: dict[int, Activity] = {}  # what other processes are at, by trial


@contextmanager
def doing(
    what: str, *, total: int | None = None, noun: str = "", done: int | Callable[[], int] = 0, spent: float = 0.0
) -> Iterator[Activity]:
    """Be at ``what`` within this context; count in ``done`` of the activity that is given, or by a function.

    ``spent`` are the seconds that the part took which was done before, such as that of a trial that goes on.
    """
    activity = Activity(what, total, noun, done, time.monotonic() - spent)
    _PRESENT.append(activity)
    try:
        yield activity
    finally:
        _PRESENT.remove(activity)


def note_elsewhere(trial: int, what: str | None, spent: float = 0.0) -> None:
    """Note what another process is at for a trial, and since when; None: nothing but the trial itself."""
    if what is None:
        _ELSEWHERE.pop(trial, None)
        return
    activity = _ELSEWHERE.setdefault(trial, Activity(what))
    activity.what, activity.begun = what, min(activity.begun, time.monotonic() - spent)


def present() -> Activity | None:
    """Return what this process is at, or else another one for a trial of its search; None if none has said."""
    return next(reversed(_PRESENT), None) or next(iter(list(_ELSEWHERE.values())), None)

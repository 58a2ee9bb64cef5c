"""What a trial's failure means, and which knobs to change."""

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from metaloom.learners.base import MetaStep
from metaloom.learners.component import Component
from metaloom.learners.errors import LearnerError
from metaloom.learners.outer import under_new_names
from metaloom.workers.errors import TrialFailed
from metaloom.workers.live_bytes import spoken_bytes
from metaloom.workers.outer import first_non_finite
from metaloom.workers.records.trial import TrialConfig

# torch's words on a CPU; the last two for sizes that it cannot even count
_NO_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "Storage size calculation overflowed",
    "Overflow when unpacking long",
)
_ASKED = re.compile(r"tried to allocate (\d+) bytes")


def check_finite(meta: MetaStep, norm: float, config: TrialConfig, step: int) -> None:
    """Refuse a hypergradient that would destroy phi; raises TrialFailed.

    A norm may overflow where every entry is finite: that is refused too.
    """
    if not _finite(meta.loss):
        raise _not_finite("the outer loss", meta.loss, config, step)
    if not _finite(norm):
        leaf = first_non_finite(meta.gradient)
        named = f"the hypergradient of '{leaf}'" if leaf else "the hypergradient's norm"
        raise _not_finite(named, norm, config, step)


def check_validation(value: float, config: TrialConfig, step: int) -> None:
    """Refuse a validation metric that is not a number; raises TrialFailed."""
    if not _finite(value):
        raise _not_finite("the loss of a validation episode", value, config, step)


@contextlib.contextmanager
def memory_advice(config: TrialConfig) -> Iterator[None]:
    """Turn running out of memory into a TrialFailed that says what to make smaller."""
    with _out_of_memory(lambda _, reason: _no_memory(config, reason)):
        yield


@contextlib.contextmanager
def memory_refused() -> Iterator[None]:
    """Turn running out of memory into a LearnerError that names the part of the learner that is too large."""
    with _out_of_memory(_too_large):
        yield


@contextlib.contextmanager
def _out_of_memory(explain: Callable[[Exception, str], Exception]) -> Iterator[None]:
    try:
        yield
    except Exception as problem:
        reason = memory_reason(problem)
        if reason is None:
            raise
        raise explain(problem, reason) from problem


def _too_large(problem: Exception, reason: str) -> LearnerError:
    slot = _slot_at_fault(problem)
    field = f"learner.{slot}" if slot else "learner"
    also = "" if slot in ("", "architecture") else f", or make the {slot} itself smaller"
    return LearnerError(
        f"{field}: this machine has not the memory for it ({reason}). "
        f"Take a narrower network, with fewer channels or hidden units{also}"
    )


def memory_reason(problem: BaseException) -> str | None:
    """Say in a line how much memory was asked for in vain; None if the problem is another."""
    message = str(problem).strip() or type(problem).__name__
    is_typed = isinstance(problem, MemoryError | torch.OutOfMemoryError)
    if not is_typed and not any(words in message for words in _NO_MEMORY):
        return None
    if asked := _ASKED.search(message):
        return f"{spoken_bytes(int(asked[1]))} were asked for at once"
    if "Overflow when" in message:
        return "a tensor was asked for with a side of more than 2**63 numbers"
    return message.splitlines()[0]


def _finite(value: float) -> bool:
    return abs(value) < float("inf")  # False for a NaN


def _not_finite(what: str, value: float, config: TrialConfig, step: int) -> TrialFailed:
    update, outer = _section(config.learner, "update"), config.outer
    tries = [
        f"a smaller learner.update.rate (now {_setting(update.get('rate'))})",
        f"a smaller outer.rate (now {_setting(outer.get('rate'))})",
        f"outer.clip (now {_setting(outer.get('clip'))})",
        f"fewer learner.update.steps (now {_setting(update.get('steps'))})",
    ]
    advice = f"Try {', '.join(tries[:-1])} or {tries[-1]}"
    return TrialFailed(f"{_who(config)}, outer step {step}: {what} is {value}. {advice}")


def _slot_at_fault(problem: BaseException) -> str:
    """Return the slot whose component was at work when the problem arose; empty if none was."""
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(problem.__traceback__)]
    return next((owner.slot for owner in reversed(owners) if isinstance(owner, Component)), "")


def _no_memory(config: TrialConfig, reason: str) -> TrialFailed:
    update, outer = _section(config.learner, "update"), under_new_names(config.outer)
    return TrialFailed(
        f"{_who(config)} ran out of memory ({reason}). Try fewer outer.meta_batch (now "
        f"{_setting(outer.get('meta_batch'))}), fewer learner.update.steps (now {_setting(update.get('steps'))}), "
        f"outer.hypergradient: adjoint or first_order (now {_setting(outer.get('hypergradient'))}), "
        "a narrower network, or fewer trials at a time (search.concurrency)"
    )


def _who(config: TrialConfig) -> str:
    """Name the trial; a baseline is trained as one, with a number below 0 that says nothing to its reader."""
    return f"trial {config.trial}" if config.trial >= 0 else "its training"


def _section(learner: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = learner.get(name)
    return section if isinstance(section, Mapping) else {}


def _setting(value: object) -> str:
    return "its default" if value is None else str(value)

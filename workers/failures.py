"""Explains the failure of a trial, and names the knobs to change."""

import contextlib
import math
import re
import traceback
from collections.abc import Callable, Iterator, Mapping

import torch

from metaloom.learners.base import MetaStep
from metaloom.learners.component import Component
from metaloom.learners.errors import LearnerError
from metaloom.learners.outer import under_new_names
from metaloom.workers.device import spoken_bytes
from metaloom.workers.errors import TrialFailed
from metaloom.workers.outer import first_non_finite
from metaloom.workers.records.trial import TrialConfig

# torch's messages on a CPU; the last two for sizes that it cannot even count
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
    if not math.isfinite(meta.loss):
        raise _not_finite("the outer loss", meta.loss, config, step)
    if not math.isfinite(norm):
        leaf = first_non_finite(meta.gradient)
        named = f"the hypergradient of '{leaf}'" if leaf else "the hypergradient's norm"
        raise _not_finite(named, norm, config, step)


def check_validation(value: float, config: TrialConfig, step: int) -> None:
    """Refuse a validation metric that is not a number; raises TrialFailed."""
    if not math.isfinite(value):
        raise _not_finite("the loss of a validation episode", value, config, step)


def _not_finite(quantity: str, value: float, config: TrialConfig, step: int) -> TrialFailed:
    tried = [f"a smaller {_setting(config, 'outer.rate')}", _setting(config, "outer.clip")]
    if "update" in config.learner:
        rate, steps = (_setting(config, f"learner.update.{name}") for name in ("rate", "steps"))
        tried = [f"a smaller {rate}", *tried, f"fewer {steps}"]
    advice = f"Try {', '.join(tried[:-1])} or {tried[-1]}"
    return TrialFailed(f"{_who(config)}, outer step {step}: {quantity} is {value}. {advice}")


@contextlib.contextmanager
def memory_advice(config: TrialConfig) -> Iterator[None]:
    """Turn running out of memory into a TrialFailed that names the knobs to make smaller."""

    def explained(_: Exception, reason: str) -> TrialFailed:
        batch, estimator = (_setting(config, path) for path in ("outer.meta_batch", "outer.hypergradient"))
        steps = f"fewer {_setting(config, 'learner.update.steps')}, " if "update" in config.learner else ""
        return TrialFailed(
            f"{_who(config)} ran out of memory ({reason}). Try fewer {batch}, {steps}{estimator} adjoint or "
            "first_order, a narrower network, or fewer trials at a time (search.concurrency)"
        )

    with _out_of_memory(explained):
        yield


@contextlib.contextmanager
def memory_refused() -> Iterator[None]:
    """Turn running out of memory into a LearnerError that names the part of the learner that is too large."""

    def explained(problem: Exception, reason: str) -> LearnerError:
        # the slot whose component was running when the memory ran out
        owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(problem.__traceback__)]
        slot = next((owner.slot for owner in reversed(owners) if isinstance(owner, Component)), "")
        field = f"learner.{slot}" if slot else "learner"
        also = "" if slot in ("", "architecture") else f", or make the {slot} itself smaller"
        return LearnerError(
            f"{field}: this machine has not the memory for it ({reason}). "
            f"Take a narrower network, with fewer channels or hidden units{also}"
        )

    with _out_of_memory(explained):
        yield


@contextlib.contextmanager
def _out_of_memory(explained: Callable[[Exception, str], Exception]) -> Iterator[None]:
    try:
        yield
    except Exception as problem:
        reason = memory_reason(problem)
        if reason is None:
            raise
        raise explained(problem, reason) from problem


def memory_reason(problem: BaseException) -> str | None:
    """Return a line on the amount of memory that was asked for in vain; None if the problem is another."""
    message = str(problem).strip() or type(problem).__name__
    is_typed = isinstance(problem, MemoryError | torch.OutOfMemoryError)
    if not is_typed and not any(words in message for words in _NO_MEMORY):
        return None
    if asked := _ASKED.search(message):
        return f"{spoken_bytes(int(asked[1]))} were asked for at once"
    if "Overflow when" in message:
        return "a tensor was asked for with a side of more than 2**63 numbers"
    return message.splitlines()[0]


def _who(config: TrialConfig) -> str:
    """Name the trial; a baseline is trained as one with a number below 0, which has no meaning to its reader."""
    return f"trial {config.trial}" if config.trial >= 0 else "its training"


def _setting(config: TrialConfig, path: str) -> str:
    """Name a setting, of its stage where it has one, with its present value."""
    section, *names = path.split(".")
    value: object = under_new_names(config.outer) if section == "outer" else config.learner
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    stage = f"stages.{config.stage}." if config.stage else ""
    return f"{stage}{path} (now {'its default' if value is None else value})"

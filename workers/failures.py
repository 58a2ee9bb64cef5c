"""What a trial's failure means, said so that its knobs can be changed."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from metaloom.learners.base import MetaStep
from metaloom.workers.errors import TrialFailed
from metaloom.workers.outer import first_non_finite
from metaloom.workers.records import TrialConfig

_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")  # torch's words on a CPU


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
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as problem:
        raise _no_memory(config, problem) from problem
    except RuntimeError as problem:
        if not any(words in str(problem) for words in _NO_MEMORY):
            raise
        raise _no_memory(config, problem) from problem


def _finite(value: float) -> bool:
    return abs(value) < float("inf")  # False for a NaN


def _not_finite(what: str, value: float, config: TrialConfig, step: int) -> TrialFailed:
    update, outer = _section(config.learner, "update"), config.outer
    tries = [
        f"a smaller learner.update.rate (now {_said(update.get('rate'))})",
        f"a smaller outer.rate (now {_said(outer.get('rate'))})",
        f"outer.clip (now {_said(outer.get('clip'))})",
        f"fewer learner.update.steps (now {_said(update.get('steps'))})",
    ]
    advice = f"Try {', '.join(tries[:-1])} or {tries[-1]}"
    return TrialFailed(f"{_who(config)}, outer step {step}: {what} is {value}. {advice}")


def _no_memory(config: TrialConfig, problem: BaseException) -> TrialFailed:
    update, outer = _section(config.learner, "update"), config.outer
    reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    return TrialFailed(
        f"{_who(config)} ran out of memory ({reason}). Try fewer outer.tasks (now "
        f"{_said(outer.get('tasks'))}), fewer learner.update.steps (now {_said(update.get('steps'))}), "
        f"outer.hypergradient: adjoint or first_order (now {_said(outer.get('hypergradient'))}), "
        "a narrower network, or fewer trials at a time (search.concurrency)"
    )


def _who(config: TrialConfig) -> str:
    """Name the trial; a baseline is trained as one, with a number below 0 that says nothing to its reader."""
    return f"trial {config.trial}" if config.trial >= 0 else "its training"


def _section(learner: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = learner.get(name)
    return section if isinstance(section, Mapping) else {}


def _said(value: object) -> str:
    return "its default" if value is None else str(value)

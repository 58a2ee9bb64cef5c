"""The settings of a trial, one row each: its value, and whether it was fixed, searched or learned."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from metaloom.dashboards.text import counted, knob_range
from metaloom.learners.modes import LEARN
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.records.trial_record import TrialRecord

FIXED, SEARCHED, LEARNED = "fixed", "searched", "learned"
SECTIONS = ("tasks", "learner", "inner", "outer", "resources")
STAGES = "stages"
CHOSEN_BY = ("kind", "method", "source")  # of a section that is chosen among several
_MEMBER = re.compile(r"\[[^\]]*\]")  # of a choice, in the name of a knob that exists with it alone


@dataclass(frozen=True)
class SettingRow:
    """One setting of a trial.

    Attributes:
        section: Such as ``learner``; of an earlier stage ``stages.NAME.learner``.
        name: As for ``--set``.
        value: As an experiment file has it; of a learned one where it starts.
        mark: ``fixed``, ``searched`` or ``learned``, or the last two: of a learned value whose start is searched.
        told: Of a searched one its range, of a learned one how many values there are of it.
    """

    section: str
    name: str
    value: str
    mark: str
    told: str = ""


def setting_rows(trial: TrialRecord, learned: Collection[str] = ()) -> tuple[SettingRow, ...]:
    """Return a trial's settings in the order of an experiment file; none where its knobs could not be put together.

    ``learned`` are the names of what it learns, as its checkpoints have them: a component such as a learned
    initialization has no setting that says so.
    """
    if trial.config is None:
        return ()
    searched = dict(_places(trial))
    kinds = _kinds_that_learn(learned, trial.config.learner)
    rows = []
    for section, settings in _sections(trial.config):
        for name, value in _flat(section, settings) if settings else ():
            knob = _knob_of(name, searched)
            told = [] if knob is None else [knob_range(trial.distributions.get(knob))]
            mark = FIXED if knob is None else SEARCHED
            if _is_learned(value):
                mark = LEARNED if knob is None else f"{LEARNED}, {SEARCHED}"
                value, how = _start(value[LEARN])
                told = [how, *told]
            elif name in kinds:
                mark = LEARNED if knob is None else f"{LEARNED}, {SEARCHED}"
                told = [counted(kinds[name], "tensor"), *told]
            rows.append(SettingRow(section, name, _text(value), mark, "; ".join(filter(None, told))))
    return tuple(rows)


def _sections(config: TrialConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each section with its name; those of the stages before the trial's own come first."""
    for stage in config.stages:
        for section in SECTIONS[:-1]:
            yield f"{STAGES}.{stage['name']}.{section}", stage.get(section) or {}
    for section in SECTIONS:
        yield section, getattr(config, section)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the settings below a name; a list of components is numbered, any other list is one value."""
    if isinstance(value, Mapping) and value and not _is_learned(value):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flat(f"{name}.{index}", item)
    else:
        yield name, value


def _places(trial: TrialRecord) -> Iterator[tuple[str, str]]:
    """Yield the setting that each searched knob sets, and the knob."""
    own = f"{STAGES}.{trial.config.stage}." if trial.config and trial.config.stage else ""
    for knob in trial.knobs:
        plain = _MEMBER.sub("", knob)
        yield (plain.removeprefix(own) if own else plain), knob


def _knob_of(name: str, searched: Mapping[str, str]) -> str | None:
    """Return the knob that has set a setting: its own, that of the choice it names, or that of its learned start."""
    parent, _, last = name.rpartition(".")
    names = [name, f"{name}.start", *([parent] if last in CHOSEN_BY else [])]
    return next((searched[one] for one in names if one in searched), None)


def _kinds_that_learn(learned: Collection[str], learner: Mapping[str, Any]) -> dict[str, int]:
    """Return the kinds of the slots that learn tensors of their own, beside those of learned values, and how many."""
    found: dict[str, int] = {}
    for leaf in learned:
        slot, _, rest = leaf.partition("/")
        settings = learner.get(slot)
        if isinstance(settings, Mapping) and not _is_learned(settings.get(rest.partition("/")[0])):
            found[f"learner.{slot}.kind"] = found.get(f"learner.{slot}.kind", 0) + 1
    return found


def _is_learned(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {LEARN}


def _start(learned: Any) -> tuple[Any, str]:
    """Return where a learned value starts, and how many there are of it."""
    given = dict(learned) if isinstance(learned, Mapping) else {}
    per = given.get("per")
    count = "one value" if not per else f"one per {' and '.join(per) if isinstance(per, list | tuple) else per}"
    return given.get("start"), count


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

"""The search section that a search over searches has learned, from its bundle: ``metaloom search FILE --search-from``.

It fills ``search.sampler``, ``search.scheduler`` and ``search.enqueue`` where the experiment does not give them. Of the
portfolio it takes the configurations of tables whose knobs are all searched here, under the same names and within the
ranges; those of other tables say nothing about this search.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from metaloom.learners.fields import make_config
from metaloom.learners.solvers.search_settings import SettingsOfSearches
from metaloom.orchestrator.reading import Source, read_experiment
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.knobs.sampling import holds
from metaloom.search_spaces.resolve import searched_knobs
from metaloom.search_spaces.sections.strategies import KIND
from metaloom.workers.bundle_reading import BUNDLE_CONFIG_FILE, read_manifest
from metaloom.workers.errors import BundleError

METHOD, OPTION = "search_settings", "--search-from"


@dataclass(frozen=True)
class LearnedSection:
    """What a bundle knows about how to search.

    Attributes:
        sampler: A kind and its settings.
        scheduler: Likewise.
        portfolios: Of each space, its ``knobs``, the ``portfolio`` and the tables that it was ``learned_on``.
        tried: How many configurations of a portfolio are tried first.
    """

    sampler: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    portfolios: Sequence[Mapping[str, Any]]
    tried: int


@dataclass(frozen=True)
class Taken:
    """What a search takes from a bundle: changes of the experiment, as for ``--set``, and what the user is told."""

    changes: list[str]
    notes: list[str]
    facts: dict[str, Any]


def read_section(bundle: str | Path) -> LearnedSection:
    """Read a bundle of the method ``search_settings``; raises BundleError if it is another one, or damaged."""
    folder = Path(bundle)
    read_manifest(folder, [BUNDLE_CONFIG_FILE])
    document = yaml.safe_load((folder / BUNDLE_CONFIG_FILE).read_text(encoding="utf-8"))
    learner = document["trial"]["learner"]
    prediction = dict(learner.get("prediction") or {})
    if prediction.pop(KIND, None) != METHOD:
        named = learner.get("method") or "a learner of its own"
        raise BundleError(
            f"{OPTION} {folder}: the bundle of {named} holds no search section; export the best trial of a search with "
            f"learner: {METHOD} (docs/search_of_searches.md)"
        )
    config = make_config(SettingsOfSearches.Config, prediction, "learner.prediction", METHOD)
    columns = document["task"]["columns"]
    portfolios = [one for one in columns if "portfolio" in one]
    return LearnedSection(config.section("sampler"), config.section("scheduler"), portfolios, config.portfolio)


def taken_from(
    bundle: str | Path | None, experiment: Source, changes: Sequence[str], *, enqueues: bool = False
) -> Taken:
    """Return what an experiment takes from a bundle; nothing without one.

    Args:
        bundle: The folder that ``metaloom export`` has written.
        experiment: The experiment.
        changes: Its changes, as for ``--set``; what they give wins, as what the file gives.
        enqueues: Whether configurations are given that are tried first.

    Raises:
        BundleError: It holds no search section, or is damaged.
        ExperimentError: The experiment is wrong.
    """
    if bundle is None:
        return Taken([], [], {})
    section, read = read_section(bundle), read_experiment(experiment, list(changes))
    given = read.document.get("search") or {}
    facts: dict[str, Any] = {"bundle": str(bundle)}
    told: list[str] = []
    for name in ("sampler", "scheduler"):
        learned = dict(getattr(section, name))
        if name in given:
            told.append(f"search.{name} stays as the experiment gives it")
        else:
            facts[name] = learned
            told.append(f"search.{name} is {written(learned)}")
    if section.tried:
        if enqueues or given.get("enqueue"):
            told.append("the configurations that you give are tried first, not the portfolio")
        else:
            facts["enqueue"], why = portfolio_for(read, section)
            told.append(why)
    changed = [f"search.{name}={json.dumps(facts[name])}" for name in ("sampler", "scheduler") if name in facts]
    changed += [f"search.enqueue={json.dumps(facts['enqueue'])}"] if facts.get("enqueue") else []
    return Taken(changed, [f"from {bundle}: {'; '.join(told)}"], facts)


def portfolio_for(experiment: Experiment, section: LearnedSection) -> tuple[list[dict[str, Any]], str]:
    """Return the configurations that an experiment's search tries first, and why these."""
    knobs = searched_knobs(experiment)
    agreeing = [one for one in section.portfolios if set(one["knobs"]) <= set(knobs)]
    if not agreeing:
        closest = max(section.portfolios, key=lambda one: len(set(one["knobs"]) & set(knobs)), default=None)
        absent = [] if closest is None else [name for name in closest["knobs"] if name not in knobs]
        lacking = f" (no knob here is named {', '.join(absent[:3])})" if absent else ""
        return [], f"its portfolio is of other knobs than are searched here, and is left out{lacking}"
    widest = max(agreeing, key=lambda one: len(one["knobs"]))
    tried = [dict(one) for one in widest["portfolio"][: section.tried]]
    fitting = [one for one in tried if all(holds(knobs[name], value) for name, value in one.items())]
    left = f", {len(tried) - len(fitting)} more are outside of the ranges here" if len(fitting) < len(tried) else ""
    learned = ", ".join(widest["learned_on"])
    return fitting, f"{len(fitting)} configurations of its portfolio are tried first, learned on {learned}{left}"


def written(settings: Mapping[str, Any]) -> str:
    """Write a sampler or scheduler on one line: its kind, and the settings that were chosen."""
    others = ", ".join(f"{name} {value}" for name, value in settings.items() if name != KIND)
    return f"{settings[KIND]} ({others})" if others else str(settings[KIND])

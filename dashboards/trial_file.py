"""A trial as an experiment file: all of its settings, with nothing left to search."""

from collections.abc import Mapping
from typing import Any

from metaloom.dashboards import text
from metaloom.dashboards.episode_scan import QueryError
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.experiment import FINGERPRINT_VERSION, FIRST_FINGERPRINT_VERSION, Experiment
from metaloom.search_spaces.reading.document import Document
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.search_spaces.sections.settings import Resources
from metaloom.search_spaces.sections.starts import as_given, needed_stages
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial import TrialConfig

KEPT = ("objectives", "constraints")  # of the search section: what the trial was judged by


def trial_yaml(search: SearchRecord, name: str, number: int) -> str:
    """Return a trial as the text of an experiment file; its first line says which trial it is.

    Args:
        search: Its search.
        name: Of the search.
        number: The trial's, which the search has.

    Raises:
        QueryError: It has no settings, or this version does not take them.
    """
    trial = search.trials[number]
    if trial.config is None or search.settings is None:
        raise QueryError(f"trial {number} of search '{name}' has no settings: {trial.error}")
    metric = search.settings.objectives[0].metric
    interval = trial.last.interval if trial.last and trial.last.scored == metric else None
    scores = text.scored(ranking.value(search, trial), interval)
    experiment = experiment_of(trial.config, f"{name}-{number}", search.settings.to_document())
    return f"# trial {number} of search '{name}' ({trial.state}): {metric} {scores}\n{experiment.to_yaml()}"


def experiment_of(config: TrialConfig, name: str, search: Mapping[str, Any] | None = None) -> Experiment:
    """Return the experiment whose one trial has the settings of ``config``.

    A record of an earlier version keeps its meaning: what later versions have added has the value of then.

    Args:
        name: Of the experiment.
        search: The section of the trial's search, of which the objectives and constraints are kept.

    Raises:
        QueryError: This version does not take the settings.
    """
    resources = {key: value for key, value in config.resources.items() if key in Resources.model_fields}
    loops = {"tasks": config.tasks, "learner": config.learner, "inner": config.inner, "outer": config.outer}
    given: dict[str, Any] = loops
    if config.stages:
        before = list(needed_stages(config.stages, config.learner))
        given = {"stages": [*(dict(one) for one in before), {"name": config.stage, **loops}]} if before else loops
    document = {"name": name, "seed": config.seed, **given, "resources": resources}
    resolved = None
    for version in range(FINGERPRINT_VERSION - 1, FIRST_FINGERPRINT_VERSION - 1, -1):
        try:
            read = Experiment.from_document(Document(dict(document)), version)
        except ExperimentError as error:
            problem = error
            continue
        resolved = resolve(read, defaults(read))
        break
    if resolved is None:
        raise QueryError(f"the settings of {name} are of another version of metaloom: {problem}") from problem
    sections = {section: getattr(resolved, section) for section in (*loops, "resources")}
    if "stages" in document:
        last = {"name": resolved.stage, **{section: sections.pop(section) for section in loops}}
        sections["stages"] = [{**one, "learner": as_given(one["learner"])} for one in (*resolved.stages, last)]
    judged = {key: value for key in KEPT if (value := (search or {}).get(key))}
    return Experiment(**{**document, **sections, **({"search": judged} if judged else {})})

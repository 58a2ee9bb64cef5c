"""From a trial or a bundle back to an experiment, with every knob at the trial's value."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from metaloom.orchestrator.errors import SearchError
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.experiment import FINGERPRINT_VERSION, FIRST_FINGERPRINT_VERSION, Experiment
from metaloom.search_spaces.reading.document import Document
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.search_spaces.sections.settings import Resources, SearchSettings
from metaloom.search_spaces.sections.starts import as_given, needed_stages
from metaloom.workers.bundle_reading import BUNDLE_CONFIG_FILE, read_manifest
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import MANIFEST_FILE
from metaloom.workers.records.trial import TrialConfig

KEPT = ("objectives", "constraints")  # of the search section: what the trial was judged by


def experiment_of(config: TrialConfig, name: str, search: Mapping[str, Any] | None = None) -> Experiment:
    """Return the experiment whose one trial has the settings of ``config``.

    A record of an earlier version keeps its meaning: what later versions have added has the value of then.

    Args:
        name: Of the experiment.
        search: The section of the trial's search, of which the objectives and constraints are kept.

    Raises:
        SearchError: This version does not take the settings.
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
        raise SearchError(f"the settings of {name} are of another version of metaloom: {problem}") from problem
    sections = {section: getattr(resolved, section) for section in (*loops, "resources")}
    if "stages" in document:
        last = {"name": resolved.stage, **{section: sections.pop(section) for section in loops}}
        sections["stages"] = [{**one, "learner": as_given(one["learner"])} for one in (*resolved.stages, last)]
    judged = {key: value for key in KEPT if (value := (search or {}).get(key))}
    return Experiment(**{**document, **sections, **({"search": judged} if judged else {})})


def is_bundle(source: object) -> bool:
    """Return whether an experiment is given as a bundle's folder."""
    return isinstance(source, str | Path) and (Path(source) / MANIFEST_FILE).is_file()


def experiment_of_bundle(folder: Path) -> Experiment:
    """Return the experiment that trains a bundle's learner again; raises BundleError for a damaged bundle."""
    read_manifest(folder, [BUNDLE_CONFIG_FILE])
    try:
        config = TrialConfig.from_json(yaml.safe_load((folder / BUNDLE_CONFIG_FILE).read_text())["trial"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as problem:
        raise BundleError(f"{folder}: {BUNDLE_CONFIG_FILE} cannot be read ({problem})") from problem
    return experiment_of(config, f"{config.search}-{max(config.trial, 0)}")


def trial_yaml(config: TrialConfig, settings: SearchSettings, told: str) -> str:
    """Return a trial as the text of an experiment file.

    Args:
        settings: Of its search.
        told: What the first line says of it.
    """
    experiment = experiment_of(config, f"{config.search}-{config.trial}", settings.to_document())
    return f"# {told}\n{experiment.to_yaml()}"

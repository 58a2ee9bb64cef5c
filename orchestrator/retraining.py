"""From a bundle back to an experiment, with every knob at the trial's value."""

from pathlib import Path

import yaml

from metaloom.dashboards.trial_file import experiment_of
from metaloom.search_spaces.experiment import Experiment
from metaloom.workers.bundle_reading import BUNDLE_CONFIG_FILE, read_manifest
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import MANIFEST_FILE
from metaloom.workers.records.trial import TrialConfig


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

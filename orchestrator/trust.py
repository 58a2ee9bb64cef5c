"""Checks before the start whether an experiment may import the user's own classes that it names."""

import json
from typing import Any

from metaloom.learners.errors import BadInput
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.loading import load_experiment


def admit(experiment: Experiment, trust_code: bool) -> None:
    """Refuse an experiment that names code to import, unless the user or an installed package trusts it.

    Args:
        experiment: The experiment; every member of every choice is checked.
        trust_code: Whether the user allows its code to run.

    Raises:
        LearnerError: The message names the import path, and how to trust it.
    """
    document = experiment.document
    if '"of"' not in json.dumps(document, default=str):
        return
    from metaloom.learners.networks.reference import check_trusted, references_in  # torch: only if a class is named

    check_trusted(list(references_in(document)), trust_code)


def with_network(experiment: Experiment, network: Any, trust_code: bool) -> tuple[Experiment, bool]:
    """Return the experiment with a network from Python as its architecture, and whether its code is trusted.

    A class or function is trusted because the caller has imported it; an import path as text is not.

    Args:
        experiment: The experiment.
        network: See ``metaloom.search``; None leaves the experiment as it is.
        trust_code: Whether the classes that the experiment names are trusted.

    Raises:
        BadInput: No other process could import the network, or the experiment searches whole learners.
    """
    if network is None:
        return experiment, trust_code
    from metaloom.learners.networks.reference import check_trusted, references_in, settings_of

    document = experiment.document
    learner = document["learner"]
    if isinstance(learner, str):
        learner = {"method": learner}
    if not isinstance(learner, dict) or "search" in learner:
        raise BadInput("network: the experiment searches whole learners; give each of them its architecture")
    others = {**document, "learner": {**learner, "architecture": None}}
    check_trusted(list(references_in(others)), trust_code)
    document["learner"] = {**learner, "architecture": settings_of(network)}
    return load_experiment(document), trust_code or not isinstance(network, str)

"""Writes a bundle: all files into a temporary folder first, and last the manifest that signs them."""

import contextlib
import fcntl
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import yaml

from metaloom.learners.episode import TaskShape
from metaloom.learners.networks.reference import packages_of, references_in
from metaloom.learners.tensors import Tensors
from metaloom.search_spaces.sections.listed import sources_in
from metaloom.workers import durable
from metaloom.workers.adapted_files import MLMODEL, MLMODEL_FILE
from metaloom.workers.augmentation_policy import POLICY_FILE, policies_of, write_policy
from metaloom.workers.bundle_reading import (
    BUNDLE_CONFIG_FILE,
    CARD_FILE,
    FORMAT,
    PLAIN_FORMAT,
    TIMINGS_FILE,
    may_be_in_bundle,
    read_task,
    task_document,
)
from metaloom.workers.card import CardPicture, write_card
from metaloom.workers.checkpoint import Knowledge, load_knowledge
from metaloom.workers.checkpoint import write_knowledge as write_tensors
from metaloom.workers.data.base import SOURCES
from metaloom.workers.data.class_features import is_hashed
from metaloom.workers.durable import write_text
from metaloom.workers.errors import BundleError
from metaloom.workers.records.episode_files import EpisodeBatch, Origin, write_part
from metaloom.workers.records.names import EPISODE_FILE, MANIFEST_FILE, META_KNOWLEDGE_FILE, TASK_FILE, TEST
from metaloom.workers.records.trial import TrialConfig, read_config
from metaloom.workers.scoring import Evaluation, compared
from metaloom.workers.shown import read_shown, write_shown

TEST_EPISODES_FILE = "test_episodes.parquet"
REQUIREMENTS_FILE = "requirements.txt"
PACKAGES = ("filelock", "numpy", "pyarrow", "PyYAML", "safetensors", "scipy", "torch")  # that every bundle needs


def write_bundle(
    trial_directory: Path,
    out: Path,
    *,
    origin: Mapping[str, Any],
    evaluation: Evaluation | None,
    pictures: Sequence[CardPicture] = (),
    inductive: bool = False,
    transductive: Evaluation | None = None,
) -> Path:
    """Write what a trial has learned as a bundle, and return the bundle's folder ``out``.

    Args:
        trial_directory: The trial's folder.
        out: The bundle's folder, which must not exist (BundleError) and must be writable (StorageError).
        origin: Search, trial, run id and sampler, as JSON values.
        evaluation: The test that the card reports; None if it was not tested.
        pictures: Figures of what was learned, for the card.
        inductive: Whether the bundle predicts each query on its own, by the support set's statistics of batch norm;
            ``evaluation`` is then of that.
        transductive: The test on the same episodes as the trial was trained, which shows what that costs.

    Raises:
        CheckpointError: The trial has learned nothing yet.
    """
    if out.exists():
        raise BundleError(f"{out}: exists already; a bundle is never written over (give another --out)")
    config, task = read_config(trial_directory), read_task(trial_directory / TASK_FILE)
    knowledge = load_knowledge(trial_directory)
    aside = out.with_name(f"{durable.ASIDE}{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(out.parent)
        aside.mkdir()
    except OSError as problem:
        raise durable.storage_error(out, problem) from problem
    owner = _owned(aside)
    try:
        for picture in pictures:
            (aside / picture.file).write_bytes(picture.png)
        write_text(aside / CARD_FILE, write_card(config, task, knowledge, origin, evaluation, pictures, transductive))
        served = {"inductive": True} if inductive else {}
        shown = read_shown(trial_directory / EPISODE_FILE)
        _fill(aside, config, task, knowledge, shown, origin, evaluation, served, cost_of(evaluation, transductive))
        aside.rename(out)
        durable.sync(out.parent)
    except OSError as problem:
        raise durable.storage_error(out, problem) from problem
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(owner)
    return out


def _owned(folder: Path) -> int:
    """Lock a folder until its descriptor is closed, or this process is killed; raises OSError if it is locked."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove_abandoned(parent: Path) -> None:
    """Remove the unfinished bundles that killed exports have left in a folder."""
    for aside in parent.glob(f"{durable.ASIDE}*"):
        with contextlib.suppress(OSError):  # it is no folder, or its export goes on
            owner = _owned(aside)
            try:
                if all(may_be_in_bundle(path.name) for path in aside.iterdir()):
                    shutil.rmtree(aside)
            finally:
                os.close(owner)


def _fill(
    folder: Path,
    config: TrialConfig,
    task: TaskShape,
    knowledge: Knowledge,
    shown: Tensors,
    origin: Mapping[str, Any],
    evaluation: Evaluation | None,
    served: Mapping[str, Any],
    cost: Mapping[str, Any],
) -> None:
    """Write every file of the bundle but its card and pictures; the manifest, which signs them all, last."""
    document = {"trial": config.to_json(), "task": {**task_document(task), "inputs": list(task.inputs)}, **served}
    write_text(folder / BUNDLE_CONFIG_FILE, yaml.safe_dump(document, sort_keys=False))
    write_text(folder / MLMODEL_FILE, yaml.safe_dump(MLMODEL))
    source = str(config.tasks.get("source", ""))
    write_text(
        folder / REQUIREMENTS_FILE, requirements(sources_in(config.tasks), list(references_in(config.learner)), task)
    )
    write_tensors(folder / META_KNOWLEDGE_FILE, knowledge.groups(), {"step": str(knowledge.step)})
    if shown:
        write_shown(folder / EPISODE_FILE, shown, knowledge.step)
    if policies := policies_of(config.learner, task, knowledge.phi):
        write_policy(folder / POLICY_FILE, policies, seeds=config.seeds)
    tested: dict[str, Any] | None = None
    if evaluation is not None:
        rows = Origin(config.search, config.trial, source, evaluation.setting, evaluation.batch_norm)
        batch = EpisodeBatch(TEST, knowledge.step, evaluation.facts, evaluation.outcomes, seconds=math.nan)
        write_part(folder / TEST_EPISODES_FILE, rows, [batch])
        tested = evaluation.to_json()
        del tested["seconds"]  # seconds are not signed
    manifest = {
        "format": FORMAT if served else PLAIN_FORMAT,
        "metaloom": version("metaloom"),
        "origin": dict(origin),
        "evaluation": tested,
        **cost,
        "notes": list(knowledge.notes),
        "files": {path.name: durable.file_facts(path.read_bytes()) for path in sorted(folder.iterdir())},
    }
    write_text(folder / MANIFEST_FILE, json.dumps(durable.signed(manifest), indent=2) + "\n")
    if evaluation is not None:
        write_text(folder / TIMINGS_FILE, json.dumps({"seconds per test episode": evaluation.seconds}) + "\n")


def cost_of(evaluation: Evaluation | None, transductive: Evaluation | None) -> dict[str, Any]:
    """Return what an inductive bundle costs, for its manifest; empty where it is not known."""
    if evaluation is None or transductive is None:
        return {}
    mean, low, high = compared(evaluation.scores, transductive.scores, evaluation.metric)
    score = {"mean": transductive.mean, "interval": list(transductive.interval), "setting": transductive.setting}
    return {"beside": {**score, "better_by": mean, "better_by_interval": [low, high]}}


def requirements(sources: Sequence[str], references: Sequence[str] = (), task: TaskShape | None = None) -> str:
    """Return the requirements file of a bundle: the packages that loading, adapting and evaluating it import.

    They include those that its task sources need, and a plugin's source itself. ``pip install --no-deps metaloom`` and
    ``pip install -r BUNDLE/requirements.txt`` make a small environment that serves it, without Ray, Optuna and MLflow.
    A package may be newer than the one installed here, up to its next major version. ``references`` are import paths of
    the user's own code: an installed package is named as it is here, and any other module in a comment.
    """
    needed = set(PACKAGES)
    if task is not None and task.class_features is not None and is_hashed(task.class_features):
        needed.add("scikit-learn")
    for source in (one for one in sources if one in SOURCES):
        needed |= set(SOURCES[source].packages)
        top = SOURCES[source].__module__.partition(".")[0]
        needed |= set() if top == "metaloom" else set(packages_distributions().get(top, []))
    listed = [f"{name}{_range(version(name))}" for name in sorted(needed, key=str.lower)]
    for reference, package in packages_of(references).items():
        if package.partition("==")[0] not in needed:
            listed.append(package or f"# {reference}: a module of your own, which must be on the import path")
    return "".join(f"{line}\n" for line in listed)


def _range(installed: str) -> str:
    public = installed.partition("+")[0]  # without the mark of a build, as in 2.13.0+cpu
    return f">={public},<{int(public.partition('.')[0]) + 1}"

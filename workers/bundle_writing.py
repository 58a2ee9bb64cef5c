"""Writing a bundle: every file of it, aside first, and the manifest that signs them last."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from metaloom.learners.episode import TaskShape
from metaloom.workers.augmentation_policy import POLICY_FILE, policies_of, write_policy
from metaloom.workers.card import CardPicture, write_card
from metaloom.workers.checkpoint import Knowledge, load_knowledge
from metaloom.workers.checkpoint import write_knowledge as write_tensors
from metaloom.workers.durable import ASIDE, canonical, digest, storage_error, sync, write_text
from metaloom.workers.errors import BundleError
from metaloom.workers.manifest import BUNDLE_CONFIG_FILE, CARD_FILE, FORMAT, sign
from metaloom.workers.records.episode_files import Origin, Seen, write_part
from metaloom.workers.records.names import MANIFEST_FILE, META_KNOWLEDGE_FILE, TASK_FILE, TEST
from metaloom.workers.records.trial import TrialConfig, read_config
from metaloom.workers.requirements import REQUIREMENTS_FILE, requirements
from metaloom.workers.scoring import Evaluation

TEST_EPISODES_FILE = "test_episodes.parquet"
MLMODEL_FILE = "MLmodel"
TIMINGS_FILE = "timings.json"
_MLMODEL = {"flavors": {"python_function": {"loader_module": "metaloom.workers.bundle"}}}


def write_bundle(
    trial_directory: Path,
    out: Path,
    *,
    origin: Mapping[str, Any],
    evaluation: Evaluation | None,
    pictures: Sequence[CardPicture] = (),
) -> Path:
    """Write what a trial has learned as a bundle.

    Args:
        trial_directory: The trial's folder.
        out: The bundle's folder; must not exist.
        origin: Where it comes from, as JSON values: search, trial, run id, what the sampler was.
        evaluation: The test its numbers are of; None if it was not tested.
        pictures: Figures of what was learned, for the card.

    Returns:
        ``out``.

    Raises:
        BundleError: ``out`` exists.
        CheckpointError: The trial has learned nothing yet.
        StorageError: The bundle cannot be written.
    """
    if out.exists():
        raise BundleError(f"{out}: exists already; a bundle is never written over (give another --out)")
    config, task = read_config(trial_directory), read_task(trial_directory / TASK_FILE)
    knowledge = load_knowledge(trial_directory)
    aside = out.with_name(f"{ASIDE}{out.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        for picture in pictures:
            (aside / picture.file).write_bytes(picture.png)
        card = write_card(config, task, knowledge, origin, evaluation, pictures)
        write_text(aside / CARD_FILE, card)
        _fill(aside, config, task, knowledge, origin, evaluation)
        aside.rename(out)
        sync(out.parent)
    except OSError as problem:
        raise storage_error(out, problem) from problem
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def _fill(
    folder: Path,
    config: TrialConfig,
    task: TaskShape,
    knowledge: Knowledge,
    origin: Mapping[str, Any],
    evaluation: Evaluation | None,
) -> None:
    """Write every file of the bundle but its card and pictures; the manifest, which signs them all, last."""
    document = {"trial": config.to_json(), "task": {**asdict(task), "inputs": list(task.inputs)}}
    write_text(folder / BUNDLE_CONFIG_FILE, yaml.safe_dump(document, sort_keys=False))
    write_text(folder / MLMODEL_FILE, yaml.safe_dump(_MLMODEL))
    source = str(config.tasks.get("source", ""))
    write_text(folder / REQUIREMENTS_FILE, requirements(source))
    write_tensors(folder / META_KNOWLEDGE_FILE, knowledge.groups(), {"step": str(knowledge.step)})
    if policies := policies_of(config.learner, task, knowledge.phi):
        write_policy(folder / POLICY_FILE, policies, seeds=config.seeds)
    if evaluation is not None:
        rows = Origin(config.search, config.trial, source, evaluation.setting, evaluation.batch_norm)
        seen = Seen(TEST, knowledge.step, evaluation.drawn, evaluation.outcomes, math.nan)  # seconds are not signed
        write_part(folder / TEST_EPISODES_FILE, rows, [seen])
    manifest = {
        "format": FORMAT,
        "metaloom": version("metaloom"),
        "origin": dict(origin),
        "evaluation": None if evaluation is None else without_seconds(evaluation),
        "notes": list(knowledge.notes),
        "files": {path.name: sign(path) for path in sorted(folder.iterdir())},
    }
    signed = {**manifest, "sha256": digest(canonical(manifest))}
    write_text(folder / MANIFEST_FILE, json.dumps(signed, indent=2) + "\n")
    if evaluation is not None:
        write_text(folder / TIMINGS_FILE, json.dumps({"seconds per test episode": evaluation.seconds}) + "\n")


def without_seconds(evaluation: Evaluation) -> dict[str, Any]:
    """Return what a manifest says of a test."""
    return {name: value for name, value in evaluation.to_json().items() if name != "seconds"}


def read_task(path: Path) -> TaskShape:
    """Read the shape of a trial's tasks; raises BundleError if it cannot be read."""
    try:
        return task_of(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as problem:
        raise BundleError(f"{path}: the trial's task cannot be read ({problem})") from problem


def task_of(document: Mapping[str, Any]) -> TaskShape:
    """Read a task's shape from JSON values; raises TypeError for a field that it does not have."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in document.items()}
    if values.get("environment"):
        values["kind"] = "control"  # version 0.1.0 wrote "regression" beside the environment
    return TaskShape(**values)

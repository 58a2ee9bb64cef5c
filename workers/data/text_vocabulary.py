"""The vocabulary of texts: that of their training texts, of other texts, or of a bundle whose network is taken over."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from metaloom.workers.bundle_reading import BUNDLE_CONFIG_FILE, read_manifest, task_of
from metaloom.workers.data.base import DataError
from metaloom.workers.data.store import file_facts
from metaloom.workers.data.text_encoding import FittedText, fit_vocabulary
from metaloom.workers.data.text_files import TextColumns, files_of, read_texts
from metaloom.workers.data.text_settings import TextSettings
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import MANIFEST_FILE

FIELD = "tasks.vocabulary"


def fitted_text(config: TextSettings, training: Sequence[str], kept: FittedText | None) -> FittedText:
    """Return how texts become token numbers; raises DataError.

    Args:
        config: The settings.
        training: The training texts, which make the vocabulary where ``config.vocabulary`` names no other.
        kept: That of a training, which is used where it is given.
    """
    if kept is not None:
        return kept
    if config.vocabulary is not None and _is_bundle(Path(config.vocabulary)):
        found = _of_bundle(Path(config.vocabulary))
        return replace(found, column=config.text, length=config.length or found.length)
    if config.vocabulary is not None:
        columns = TextColumns(config.text, config.label, may_lack_label=True)
        training = [text for text in read_texts(Path(config.vocabulary), columns).texts if text is not None]
    vocabulary = fit_vocabulary(
        training, config.tokens, lower=config.lower, least=config.least_count, most=config.most_tokens
    )
    return FittedText(config.text, config.places, vocabulary, config.tokens, config.lower)


def facts_of_vocabulary(config: TextSettings) -> list[Any]:
    """Return what the vocabulary depends on beside the settings and the texts, for a cache key; raises DataError."""
    if config.vocabulary is None:
        return []
    path = Path(config.vocabulary)
    try:
        return [file_facts(file) for file in ([path / MANIFEST_FILE] if _is_bundle(path) else files_of(path))]
    except DataError as error:
        raise DataError(f"{FIELD}: {str(error).removeprefix('tasks.path: ')}; give texts, or a bundle") from error


def _is_bundle(path: Path) -> bool:
    return (path / MANIFEST_FILE).is_file()


def _of_bundle(folder: Path) -> FittedText:
    try:
        read_manifest(folder, [BUNDLE_CONFIG_FILE])
        document = yaml.safe_load((folder / BUNDLE_CONFIG_FILE).read_text(encoding="utf-8"))
        found = FittedText.of_task(task_of(document["task"]))
    except (BundleError, OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as problem:
        raise DataError(f"{FIELD}: {problem}") from problem
    if found is None:
        raise DataError(f"{FIELD}: {folder} is a bundle of a learner that reads no text, and has no vocabulary")
    return found

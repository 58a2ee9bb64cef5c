"""The user's own texts as few-shot classes: an example is the token numbers of a text.

The vocabulary is made of the texts of meta-train's classes alone, so that nothing of the test is in it. It is in the
source's ``shape``, and travels with a bundle, which reads new texts by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from metaloom.learners.episode import TaskShape
from metaloom.search_spaces.sections.few_shot import EVALUATED
from metaloom.workers.data import sampler
from metaloom.workers.data.base import SOURCES, DataError
from metaloom.workers.data.splits import Lists, by_column, chosen, class_lists, groups_of, is_file_of_lists
from metaloom.workers.data.store import Arrays, cached, file_facts
from metaloom.workers.data.table_files import TextFormat
from metaloom.workers.data.text_encoding import FittedText, told
from metaloom.workers.data.text_files import (
    JSON,
    ReadTexts,
    TextColumns,
    chosen_parts,
    files_of,
    groups_of_documents,
    lists_of_document,
    read_texts,
    usable,
)
from metaloom.workers.data.text_settings import TextSettings, TextTasks
from metaloom.workers.data.text_vocabulary import facts_of_vocabulary, fitted_text

READER = 1  # in the cache's key: another number where the same texts give other arrays
OF_EPISODES = {"path", "on_too_few", *EVALUATED, "evaluation", "class_features", "seen_fraction"}


@SOURCES.register("text")
class Texts(sampler.FewShotSource):
    """Few-shot classification of the labels of texts."""

    name = "text"
    Config = TextTasks

    @classmethod
    def open(cls, config: TextTasks, *, seed: int, cache: Path) -> Self:
        """Map the token numbers; read the texts first if a file or the settings have changed."""
        return cls._of(cached(cache, cls.name, _key(config, OF_EPISODES), lambda: _load(config)), config, seed)

    def as_trained(self, task: TaskShape) -> "Texts":
        """Return the source with its texts in the token numbers of training."""
        made, kept = self, FittedText.of_task(task)
        if kept is not None and kept != FittedText.of_task(self.shape):
            made = self._of(_load(self.config, kept), self.config, self.seed)
            made.meta_batch = self.meta_batch
        return sampler.FewShotSource.as_trained(made, task)

    @classmethod
    def _of(cls, arrays: Arrays, config: TextTasks, seed: int) -> Self:
        about, is_divided = arrays.about, config.split is None
        groups = about.get("groups")
        table = sampler.ClassTable.from_splits(about["splits"], about["spans"], groups, by_fraction=is_divided)
        source = cls(arrays, table, config, seed=seed, scale=1.0, inputs=(about["text"]["length"],))
        source.shape = replace(source.shape, columns=(about["text"],))
        source.notes += arrays.remarks
        return source


def key_of(config: TextSettings, unused: set[str]) -> dict[str, Any]:
    """Return what the arrays of a source of texts depend on: its files, and the settings but ``unused``."""
    settings = {name: value for name, value in asdict(config).items() if name not in unused}
    facts = [file_facts(file) for file in files_of(Path(config.path))]
    own = facts_of_vocabulary(config)
    return {"source": "text", "reader": READER, "files": facts, "vocabulary": own, "settings": settings}


def _key(config: TextTasks, unused: set[str]) -> dict[str, Any]:
    key = key_of(config, unused)
    if isinstance(config.split, str) and is_file_of_lists(config.split) and Path(config.split).is_file():
        key["split"] = file_facts(Path(config.split))
    return key


def texts_of(config: TextSettings, beside: Mapping[str, str]) -> tuple[ReadTexts, tuple[str, ...]]:
    """Read the texts that the settings say, and what to tell of those that are left out; raises DataError."""
    path = Path(config.path)
    columns = TextColumns(
        config.text, config.label, beside, text_format=TextFormat(config.separator, None, config.encoding)
    )
    read = chosen_parts(read_texts(path, columns), config.parts, path)
    kept, lines = usable(read, columns, skip=config.on_error == "skip", where=path)
    if not lines:
        return kept, ()
    gone = len(read.texts) - len(kept.texts)
    return kept, (f"{gone} of {len(read.texts)} rows skipped, without a text or a label: {', '.join(lines[:5])}",)


def _load(config: TextTasks, kept: FittedText | None = None) -> Arrays:
    """Read the texts, group them by class, and number their tokens."""
    beside, in_json = _named(config)
    read, remarks = texts_of(config, beside)
    classes = [str(label).strip() for label in read.labels]
    names, group, sizes = np.unique(np.array(classes), return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    spans = sampler.spans_of(dict(zip(names.tolist(), sizes.tolist(), strict=True)))
    splits, groups, notes = _divided(config, classes, read, in_json)
    texts = [str(read.texts[row]) for row in order.tolist()]
    train = [text for name in splits["train"] for text in texts[spans[name][0] : sum(spans[name])]]
    fitted = fitted_text(config, train, kept)
    x = fitted.numbers(texts)
    about = {"spans": spans, "splits": splits, "text": fitted.to_json(), **({"groups": groups} if groups else {})}
    lines = (*remarks, *notes, told(fitted, texts, x, unseen="those of validation and test classes"))
    return Arrays({"x": x}, about, remarks=lines)


def _named(config: TextTasks) -> tuple[dict[str, str], dict[str, dict[str, list[str]]]]:
    """Return the columns that the settings split and within name, and the objects of a JSON file that they name."""
    path, in_json = Path(config.path), dict[str, dict[str, list[str]]]()
    named = {"split": None if is_file_of_lists(config.split) else config.split, "within": config.within}
    beside = {setting: name for setting, name in named.items() if isinstance(name, str)}
    if beside and all(file.suffix.lower() == JSON for file in files_of(path)):
        documents = read_texts(path, TextColumns(config.text, config.label)).documents
        objects = {setting: name for setting, name in beside.items() if name in documents}
        in_json = {setting: lists_of_document(documents, name, path) for setting, name in objects.items()}
        beside = {setting: name for setting, name in beside.items() if setting not in in_json}
    return beside, in_json


def _divided(
    config: TextTasks, classes: Sequence[str], read: ReadTexts, in_json: Mapping[str, dict[str, list[str]]]
) -> tuple[Lists, dict[str, str], tuple[str, ...]]:
    """Return the classes of each split, the group of each class, and what to tell of those left out."""
    names, fractions = sorted(set(classes)), (config.validation_fraction, config.test_fraction)
    groups = _groups(config, classes, read, in_json)
    if "split" in read.beside:
        return by_column(classes, read.beside["split"], str(config.split), config.path), groups, ()
    if "split" in in_json:
        lists, told = chosen(class_lists(_expanded(in_json["split"], names, read)), names, config.path)
        return lists, groups, told
    if config.split is not None:
        lists, told = chosen(class_lists(config.split), names, config.path)
        return lists, groups, told
    return sampler.split_groups(groups, *fractions) if groups else sampler.split_classes(names, *fractions), groups, ()


def _groups(
    config: TextTasks, classes: Sequence[str], read: ReadTexts, in_json: Mapping[str, dict[str, list[str]]]
) -> dict[str, str]:
    """Return the group of each class; empty where there are none."""
    if "within" in read.beside:
        return groups_of(classes, [str(one) for one in read.beside["within"]], config.path)
    if "within" not in in_json:
        return {}
    groups = {member: group for group, members in in_json["within"].items() for member in members}
    if absent := sorted(set(classes) - set(groups)):
        raise DataError(f"tasks.within: {config.path}: '{config.within}' has no group for class '{absent[0]}'")
    return {name: groups[name] for name in set(classes)}


def _expanded(lists: Mapping[str, list[str]], classes: Sequence[str], read: ReadTexts) -> dict[str, list[str]]:
    """Return lists of classes: the names of groups give way to the classes of these."""
    names = [name for one in lists.values() for name in one]
    if set(names) <= set(classes):
        return dict(lists)
    groups = next(groups_of_documents(read.documents, names), None)
    if groups is None:
        return dict(lists)  # whose names are then refused, with the nearest class
    return {split: [member for name in one for member in groups[name]] for split, one in lists.items()}

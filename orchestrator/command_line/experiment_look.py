"""Looks at the data sets of an experiment for ``metaloom data``: what is in each, and which split it serves."""

import tempfile
from dataclasses import replace
from pathlib import Path

from metaloom.dashboards.data_rows import DataRow, DataSetRow
from metaloom.learners.errors import BadInput
from metaloom.orchestrator.errors import TaskError
from metaloom.search_spaces.loading import load_experiment, preset_names
from metaloom.search_spaces.resolve import defaults, resolve, staged
from metaloom.workers.data.base import SPLITS, Source
from metaloom.workers.data.many import Many
from metaloom.workers.data.opening import open_source
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.data.sequences import SequencesOf

EXPERIMENTS = (".yaml", ".yml")


def is_experiment(path: Path) -> bool:
    """Return whether a path is that of an experiment file, or else the name of a preset."""
    if path.exists():
        return path.suffix.lower() in EXPERIMENTS and path.is_file()
    return str(path) in preset_names()


def look(path: Path) -> DataRow:
    """Return the data sets of an experiment's tasks section, or of each stage's, every searched knob at its default.

    They are opened as a search would open them, with a cache that is removed again.

    Raises:
        BadInput: The experiment, or one of its data sets, cannot be read; the message says which.
    """
    experiment = load_experiment(str(path))  # a text may be a preset's name
    settled = resolve(experiment, defaults(experiment))
    sets, notes = list[DataSetRow](), list[str]()
    with tempfile.TemporaryDirectory(prefix="metaloom-data-") as cache:
        for stage in (*(staged(settled, one) for one in settled.stages), settled):
            named = f"stage {stage.stage}: " if stage.stage else ""
            try:
                source = open_source(stage.tasks, seed=experiment.seed, cache=Path(cache))
                sets += [replace(one, name=f"{named}{one.name}") for one in _sets(source)]
            except BadInput as error:
                raise TaskError(f"{path}: {named}{error}") from error
            notes += [f"{named}{note}" for note in source.notes]
    return DataRow(
        path=str(path),
        kind="experiment",
        examples=sum(one.examples or 0 for one in sets),
        form={},
        columns=(),
        classes=(),
        notes=tuple(notes),
        tasks=None,
        sets=tuple(sets),
    )


def _sets(source: Source) -> tuple[DataSetRow, ...]:
    if not isinstance(source, Many):
        return (_set(source.name, source, SPLITS, None),)
    shares = dict(zip(source.of_split["train"], source.shares, strict=True))
    rows = []
    for place, member in enumerate(source.members):
        served = tuple(split for split in SPLITS if place in source.of_split[split])
        rows.append(_set(member.name, member.source, served, shares.get(place)))
    return tuple(rows)


def _set(name: str, source: Source, served: tuple[str, ...], share: float | None) -> DataSetRow:
    inner = source.of if isinstance(source, SequencesOf) else source
    table = inner.table if isinstance(inner, FewShotSource) else None
    return DataSetRow(
        name=name,
        kind=source.shape.kind,
        inputs=source.shape.inputs,
        classes=None if table is None else len(table.names),
        examples=None if table is None else int(table.counts.sum()),
        splits=served,
        share=share,
    )

"""Whether each split has classes enough for its episodes, and each class examples; what to do where it has not."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from metaloom.search_spaces.sections.few_shot import Protocol
from metaloom.search_spaces.sections.tasks import SINGLE_TASK, settings_of
from metaloom.workers.data.base import SPLITS, DataError, some
from metaloom.workers.data.class_table import ClassTable

LEAVE_OUT = "leave_out"
OF = {"train": "the training", "validation": "validation", "test": "the test"}


def protocols_of(config: Any) -> dict[str, Protocol]:
    """Return what the episodes of each split look like."""
    return {split: Protocol.of(config, split) for split in SPLITS}


def usable(
    source: str, table: ClassTable, config: Any, protocols: Mapping[str, Protocol] | None = None
) -> tuple[ClassTable, tuple[str, ...]]:
    """Return the classes that can make episodes, in the splits that they serve, and what to tell of those left out.

    Args:
        source: The source's name, for messages.
        table: All classes.
        config: The source's settings.
        protocols: What the episodes of each split look like; None reads it from the settings.

    Raises:
        DataError: A class has too few examples, and the settings do not leave it out; or a split has too few classes.
    """
    protocols = protocols_of(config) if protocols is None else protocols
    whole = getattr(config, "whole", None)
    table = table if whole is None else table.all_in(whole)
    needed = np.concatenate([np.full(last - first, protocols[split].examples) for split, (first, last) in _ends(table)])
    short = table.counts < needed
    told: tuple[str, ...] = ()
    if short.any() and getattr(config, "on_too_few", None) == LEAVE_OUT:
        few = [f"'{table.names[place]}' has {table.counts[place]}" for place in np.flatnonzero(short).tolist()]
        told = (f"{len(few)} of {len(short)} classes left out, with fewer examples than an episode takes: {some(few)}",)
        table = replace(table.keeping(~short), by_fraction=False)  # which divided the classes before some were left out
    if table.groups:
        table, told = _whole_groups(source, table, config, protocols, told)
    for split, (first, last) in _ends(table):
        if first == last and whole not in (None, split):
            continue
        if last - first < protocols[split].classes:
            raise DataError("; ".join([_too_few_classes(source, table, config, protocols, split), *told]))
        if told == () and short[first:last].any():
            raise DataError(_too_few_examples(source, table, config, protocols[split], split))
        if protocols[split].dirichlet:
            _check_unequal(source, table, protocols[split], split)
    return table, told


def _check_unequal(source: str, table: ClassTable, protocol: Protocol, split: str) -> None:
    """Refuse queries that cannot be divided unequally, since an episode takes every example of its classes."""
    first, last = table.ends[split]
    most = int(table.counts[first:last].max(initial=0))
    if first < last and most <= protocol.examples:
        raise DataError(
            f"tasks.query_balance: {protocol.shots[1]} shots and {protocol.queries} queries take all {most} samples of "
            f"a class ({split} split of {source}), so that the queries cannot be divided unequally; lower tasks.queries"
        )


def _whole_groups(
    source: str, table: ClassTable, config: Any, protocols: Mapping[str, Protocol], told: tuple[str, ...]
) -> tuple[ClassTable, tuple[str, ...]]:
    """Leave out, or refuse, groups with fewer classes than an episode draws of one."""
    small = [
        (split, group, ids, protocols[split])
        for split in SPLITS
        for group, ids in table.members(split).items()
        if len(ids) < protocols[split].classes
    ]
    if not small:
        return table, told
    if getattr(config, "on_too_few", None) != LEAVE_OUT:
        split, group, ids, protocol = small[0]
        raise DataError(
            f"tasks.within: {_classes_of(protocol)} are drawn within a group of classes, but '{group}' ({split} split "
            f"of {source}) has {len(ids)} ({len(small)} such groups; tasks.on_too_few: leave_out leaves them out)"
        )
    kept = np.ones(len(table.names), dtype=bool)
    kept[np.concatenate([ids for _, _, ids, _ in small])] = False
    few = [f"'{group}' has {len(ids)} in {split}" for split, group, ids, _ in small]
    note = f"{len(few)} groups of classes left out, with fewer classes than an episode draws of one: {some(few)}"
    return replace(table.keeping(kept), by_fraction=False), (*told, note)


def _ends(table: ClassTable) -> list[tuple[str, tuple[int, int]]]:
    return [(split, table.ends[split]) for split in SPLITS]


def _too_few_examples(source: str, table: ClassTable, config: Any, protocol: Protocol, split: str) -> str:
    first, last = table.ends[split]
    counts = table.counts[first:last]
    least, number = first + int(counts.argmin()), int((counts < protocol.examples).sum())
    more = f", and {number - 1} more classes have too few" if number > 1 else ""
    advice = "; tasks.on_too_few: leave_out leaves such classes out" if hasattr(config, "on_too_few") else ""
    field = protocol.field or f"tasks.shots, tasks.queries{', tasks.unlabelled' if protocol.unlabelled else ''}"
    apart = f"{protocol.queries} queries"
    apart = f", {apart} and {protocol.unlabelled} unlabelled" if protocol.unlabelled else f" and {apart}"
    return (
        f"{field}: {protocol.shots[1]} shots{apart} need "
        f"{protocol.examples} samples of each class, but '{table.names[least]}' ({split} split of {source}) has "
        f"{table.counts[least]}{more}{advice}"
    )


def _classes_of(protocol: Protocol) -> str:
    return f"{protocol.ways[1]} ways" + (f" and {protocol.distractors} distractors" if protocol.distractors else "")


def _too_few_classes(source: str, table: ClassTable, config: Any, protocols: Mapping[str, Protocol], split: str) -> str:
    protocol, counts = protocols[split], {one: last - first for one, (first, last) in _ends(table)}
    remedy = _remedy(source, table, config, counts, protocols)
    return (
        f"{protocol.field or 'tasks.ways'}: {_classes_of(protocol)} need as many classes, but the {split} split of "
        f"{source} has {counts[split]}; {remedy}"
    )


def _remedy(
    source: str, table: ClassTable, config: Any, counts: Mapping[str, int], protocols: Mapping[str, Protocol]
) -> str:
    """Say the fewest classes that would do, and the fractions that fit."""
    needed = {split: protocols[split].classes for split in SPLITS}
    least, total = sum(needed.values()), sum(counts.values())
    parts = ", ".join(f"{number} for {OF[split]}" for split, number in needed.items())
    if total < least:
        one = ", or tasks.episodes: single_task" if settings_of(source, SINGLE_TASK) else ""
        return f"at least {least} classes are needed ({parts}), and there are {total}: take fewer ways{one}"
    if not table.by_fraction:
        return f"give it more classes, or take fewer ways ({parts} are needed)"
    fitting = fractions_for(counts, needed)
    if not hasattr(config, "test_fraction"):
        return f"take fewer ways ({parts} are needed)"
    return (
        f"of its {total} classes {parts} are needed: tasks.validation_fraction: {fitting['validation']:g} and "
        f"tasks.test_fraction: {fitting['test']:g} fit"
    )


def fractions_for(counts: Mapping[str, int], needed: Mapping[str, int]) -> dict[str, float]:
    """Return the fractions of the classes for validation and test that give every split enough, near the present ones.

    ``counts`` are the classes of each split, which together are enough.
    """
    total = sum(counts.values())
    sizes = {split: max(counts[split], needed[split]) for split in ("validation", "test")}
    if total - sum(sizes.values()) < needed["train"]:
        sizes = {split: needed[split] for split in sizes}
    return {split: _short_fraction(size, total) for split, size in sizes.items()}


def _short_fraction(size: int, total: int) -> float:
    """Return the fraction with the fewest digits that ``split_classes`` rounds to ``size`` of ``total`` classes."""
    return next(fraction for digits in range(1, 17) if round(total * (fraction := round(size / total, digits))) == size)

"""The labels of a choice's members: their kinds, and for two of one kind the settings in which they differ.

``[cross_entropy, {kind: cross_entropy, label_smoothing: 0.2}]`` are ``cross_entropy`` and
``cross_entropy(label_smoothing=0.2)``. A label stands in ``search.baselines``, in the brackets of ``--set``, in
records and in tables; so the settings are written without what ends a plain text of YAML: commas, brackets,
braces, quotes, colons and hashes.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from metaloom.learners.errors import shown
from metaloom.learners.modes import LEARN, SEARCH
from metaloom.search_spaces.errors import Path
from metaloom.search_spaces.reading.nodes import Node, Place, meaning

OWN = "own"  # a mapping that does not name itself
REFUSED_IN_SETTINGS = re.compile(r"[^\w.+\-()=; ]")
# a knob of a member has the member's label in its name, and MLflow takes names of 250 characters
LONGEST, LONGEST_SETTING = 100, 60


def members(raw: Any) -> list[tuple[Any, Path]] | None:
    """Return a ``{search: [...]}``'s members with their paths below it; None if it is no list of members."""
    if not (isinstance(raw, Mapping) and set(raw) == {SEARCH}):
        return None
    inner = raw[SEARCH]
    below: Path = (SEARCH,)
    if isinstance(inner, Mapping) and isinstance(inner.get("options"), list):
        inner, below = inner["options"], (SEARCH, "options")
    return [(member, (*below, index)) for index, member in enumerate(inner)] if isinstance(inner, list) else None


def label_of(raw: Any, key: str = "kind") -> str:
    """Return a member's own name: its kind or method, which a mapping has under ``key``, or the literal."""
    if isinstance(raw, Mapping):
        if isinstance(raw.get(key), str):
            return str(raw[key])
        return LEARN if LEARN in raw else SEARCH if SEARCH in raw else OWN
    if isinstance(raw, list):
        return "[" + ", ".join(label_of(item) for item in raw) + "]"
    return str(raw) if isinstance(raw, str) else shown(raw)


def labels_of(options: list[Any], key: str = "kind") -> list[str]:
    """Return one label per member, none twice.

    Members of one name are distinguished by the settings in which they differ, as each of them gives these; and by
    numbers only if nothing differs.
    """
    labels = [label_of(option, key) for option in options]
    for name in [name for name, times in Counter(labels).items() if times > 1]:
        same = [index for index, label in enumerate(labels) if label == name]
        for index, label in zip(same, _distinguished(name, [options[index] for index in same], key), strict=True):
            labels[index] = label
    return _numbered(labels)


def label_of_default(given: Any, options: list[Any], labels: list[str], key: str = "kind") -> str | None:
    """Return the label of the member that a default means: the member written out, or its label; None if none is."""
    written = _written(given)
    same = (label for option, label in zip(options, labels, strict=True) if _written(option) == written)
    name = label_of(given, key)
    return next(same, name if name in labels else None)


def note_repeated(options: list[Any], labels: list[str], place: Place, nodes: Sequence[Node] = ()) -> None:
    """Note every member of a choice that is given twice, in one spelling or, by their ``nodes``, in two."""
    written, meant = dict[str, int](), dict[tuple[Any, ...], int]()
    for index, option in enumerate(options):
        before = written.setdefault(_written(option), index)
        same = meant.setdefault(meaning(nodes[index]), index) if nodes else index
        first, what = before, f"{labels[before]} is given twice"
        if before == index:
            first, what = same, f"{labels[same]} and {labels[index]} mean the same"
        if first != index:
            place.wrong(f"{what}, as [{first}] and as [{index}]: remove one", index)


def _distinguished(name: str, same: list[Any], key: str) -> list[str]:
    """Return the labels of members of one name; long ones hold only the first differences that suffice.

    A searched setting is named only if the others do not suffice: a member keeps its label as a knob is switched.
    """
    differences = _differences(same, key)
    kinds = len(set(differences))
    fixed = [tuple(one for one in settings if not one.endswith(f"={SEARCH}")) for settings in differences]
    differences = fixed if len(set(fixed)) == kinds else differences
    labels = [name] * len(same)
    for most in range(max(map(len, differences)), 0, -1):
        settings = [one[:most] for one in differences]
        if len(set(settings)) < kinds:
            break
        labels = [f"{name}({'; '.join(one)})" if one else name for one in settings]
        if max(map(len, labels)) <= LONGEST:
            break
    return labels


def _differences(same: list[Any], key: str) -> list[tuple[str, ...]]:
    """Return, for each of some members of one name, what it gives of the settings in which they differ."""
    settings = [_settings(member, key) for member in same]
    differences: list[list[str]] = [[] for _ in same]
    for path in dict.fromkeys(path for one in settings for path in one):
        given = {index: one[path] for index, one in enumerate(settings) if path in one}
        distinct = {_written(value): value for value in given.values()}
        if len(given) == len(same) and len(distinct) == 1:
            continue
        labels = dict(zip(distinct, labels_of(list(distinct.values())), strict=True))
        for index, value in given.items():
            differences[index].append(_fit_for_yaml(f"{path}={labels[_written(value)]}"))
    return [tuple(one) for one in differences]


def _settings(member: Any, key: str) -> dict[str, Any]:
    """Return the settings of a member other than its name, by dotted paths."""
    if not isinstance(member, Mapping):
        return {}
    if isinstance(member.get(key), str):
        return _leaves({name: value for name, value in member.items() if name != key})
    mode, short = (LEARN, "start") if LEARN in member else (SEARCH, "options")
    inner = member.get(mode, member)
    return _leaves(inner if isinstance(inner, Mapping) else {} if inner is None else {short: inner})


def _leaves(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Flatten mappings that do not name themselves."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{before}{name}"
        if isinstance(value, Mapping) and value and label_of(value) == OWN:
            found |= _leaves(value, f"{path}.")
        else:
            found[path] = value
    return found


def _fit_for_yaml(text: str) -> str:
    """Write a setting as part of a plain text: a list as ``128-64``."""
    listed = text.replace(", ", "-").replace("[", "").replace("]", "")
    short = listed if len(listed) <= LONGEST_SETTING else f"{listed[: LONGEST_SETTING - 3]}..."
    return REFUSED_IN_SETTINGS.sub("_", short)


def _numbered(labels: list[str]) -> list[str]:
    """Number the repeated labels: ``maml``, ``maml-2``."""
    found: list[str] = []
    for label in labels:
        one, number = label, 1
        while one in found or (number > 1 and one in labels):
            number += 1
            one = f"{label}-{number}"
        found.append(one)
    return found


def _written(value: Any) -> str:
    """Write a value such that equal ones are equal texts, and 1, 1.0 and true are not."""
    return json.dumps(value, sort_keys=True, default=str)

"""``--set PATH=VALUE`` and ``--set PATH-``: change or remove a value of a document, without touching its file."""

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from metaloom.learners.errors import shown, unknown
from metaloom.learners.fields import meant_mode
from metaloom.learners.modes import LEARN, SEARCH
from metaloom.learners.outer import OLD_NAMES
from metaloom.learners.redaction import redacted
from metaloom.search_spaces.errors import ExperimentError, InputProblem, Path, dotted
from metaloom.search_spaces.reading.document import Document, read_value
from metaloom.search_spaces.reading.labels import labels_of, members

PART = re.compile(r"([^.\[\]]+)((?:\[[^\[\]]+\])*)(?:\.|$)")
# the key of a name that is given alone for a section: ``learner: maml`` is ``learner: {method: maml}``
SHORTHAND: dict[Path, str] = {("learner",): "method", ("tasks",): "source"}
STAGES = "stages"


def with_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """Return a document with values replaced.

    Args:
        document: Left as it is.
        overrides: ``PATH=VALUE`` each, such as ``learner.update.rate=search``; VALUE is YAML. ``PATH-`` removes a
            value. A choice's member is named in brackets: ``learner[maml].update.rate=0.4``.

    Raises:
        ExperimentError: With a problem for each override that has no such place or no value.
    """
    data, origins = copy.deepcopy(document.data), dict(document.origins)
    problems: list[InputProblem] = []
    for override in overrides:
        origin = f"--set {redacted(override)}"
        before = copy.deepcopy(data)
        try:
            path = _apply(data, override)
        except ExperimentError as error:
            problems += [replace(problem, origin=origin) for problem in error.problems]
            continue
        origins = {place: given for place, given in origins.items() if place[: len(path)] != path}
        made = [path[:length] for length in range(1, len(path)) if not _exists(before, path[:length])]
        origins |= dict.fromkeys([*made, path], origin)
    if problems:
        raise ExperimentError(problems, document.source)
    text = document.text
    if overrides and text:
        text = text.rstrip("\n") + "\n" + "".join(f"# --set {' '.join(one.split())}\n" for one in overrides)
    return replace(document, data=data, origins=origins, text=text)


def _exists(data: Any, path: Path) -> bool:
    for part in path:
        inside = part in data if isinstance(data, dict) else isinstance(data, list) and int(part) < len(data)
        if not inside:
            return False
        data = data[part]
    return True


def _fail(path: Path, message: str) -> ExperimentError:
    return ExperimentError([InputProblem(path, message)])


def _as_in_the_file(names: list[Any], data: Mapping[str, Any]) -> list[Any]:
    """Give an outer setting that has an old name the one of the file, so that it is replaced and not given twice.

    A stage's name becomes its place in the list of stages.
    """
    if names[0] == STAGES and len(names) > 1 and isinstance(names[1], str):
        index = _stage(names[1], data.get(STAGES))
        below = _as_in_the_file(names[2:], data[STAGES][index]) if names[2:] else []
        return [STAGES, (str(index),), *below]
    outer = data.get("outer")
    if len(names) < 2 or names[0] != "outer" or not isinstance(outer, Mapping):
        return names
    other = (OLD_NAMES | {new: old for old, new in OLD_NAMES.items()}).get(names[1])
    return ["outer", other, *names[2:]] if other in outer else names


def _stage(name: str, stages: Any) -> int:
    """Return the number of a stage; raises ExperimentError with the nearest name."""
    listed = stages if isinstance(stages, list) else []
    named = [str(stage.get("name")) if isinstance(stage, Mapping) else "" for stage in listed]
    if name not in named:
        raise _fail((STAGES,), unknown("stage", name, named) if named else "the experiment has no stages")
    return named.index(name)


def without_stage(path: Path) -> Path:
    """Return a path within its stage, or as it is where it is in none."""
    return path[2:] if path[:1] == (STAGES,) else path


def _apply(data: dict[str, Any], override: str) -> Path:
    left, separator, text = _split(override)
    removes = not separator and left.rstrip().endswith("-")
    names = _names(left.rstrip().removesuffix("-").strip() if removes else left.strip())
    if removes and names:
        return _removed(data, _as_in_the_file(names, data))
    if not separator or not names:
        raise _fail((), f"got '{override}'; give PATH=VALUE, such as learner.update.rate=0.4, or PATH- to remove it")
    names = _as_in_the_file(names, data)
    value = read_value(text)
    current: Any = data
    path: Path = ()
    for name, after in itertools.pairwise(names):
        current, path = _step(current, path, name, after)
    last = names[-1]
    if isinstance(last, tuple):
        current, path = _member(current, path, last[0])
        current = data
        for part in path[:-1]:
            current = current[part]
        current[path[-1]] = value
        return path
    current, path = _settings(current, path, last)
    current[last] = value
    return (*path, last)


def _removed(data: dict[str, Any], names: list[str | tuple[str]]) -> Path:
    """Remove what ``names`` lead to, and nothing else; return its path."""
    current: Any = data
    path: Path = ()
    for name in names:
        if isinstance(name, tuple):
            current, path = _member(current, path, name[0])
            continue
        if isinstance(current, dict) and set(current) == {LEARN} and isinstance(current[LEARN], dict) and name != LEARN:
            current, path = current[LEARN], (*path, LEARN)
        if not isinstance(current, dict) or name not in current:
            given = [str(one) for one in current] if isinstance(current, dict) else []
            here = f"is not given; {dotted(path) or 'the experiment'} has {', '.join(given) or 'no settings'}"
            raise _fail((*path, name), f"cannot be removed: it {here}")
        current, path = current[name], (*path, name)
    holder: Any = data
    for part in path[:-1]:
        holder = holder[part]
    del holder[path[-1]]
    return path


def _split(override: str) -> tuple[str, str, str]:
    """Split at the first ``=`` that is not in brackets, as in ``learner.loss[cross_entropy(label_smoothing=0.2)]``."""
    depth = 0
    for index, letter in enumerate(override):
        depth += (letter == "[") - (letter == "]")
        if letter == "=" and depth <= 0:
            return override[:index], letter, override[index + 1 :]
    return override.partition("=")


def _names(target: str) -> list[str | tuple[str]]:
    """Split ``learner[maml].update.rate``; a member's label is a tuple of one."""
    names: list[str | tuple[str]] = []
    position = 0
    while position < len(target):
        found = PART.match(target, position)
        if found is None:
            raise _fail((), f"got the path '{target}'; write it as learner.update.rate or learner[maml].update.rate")
        names.append(found[1])
        names += [(label,) for label in re.findall(r"\[([^\[\]]+)\]", found[2])]
        position = found.end()
    return names


def _step(current: Any, path: Path, name: str | tuple[str], after: str | tuple[str]) -> tuple[Any, Path]:
    """Go one part down, making a mapping where there is none or only a name; ``after`` is the part that follows."""
    if isinstance(name, tuple):
        return _member(current, path, name[0])
    current, path = _settings(current, path, name)
    below = current.get(name)
    if below is None:
        current[name] = {}
    elif isinstance(below, str):
        expanded: dict[str, Any] = {below: {}}
        current[name] = (
            expanded if below in (LEARN, SEARCH) else {SHORTHAND.get(without_stage((*path, name)), "kind"): below}
        )
    elif not isinstance(below, dict | list):
        advice = _switch((*path, name), after)
        raise _fail((*path, name), f"is {shown(below)}, which has no settings of its own{advice}")
    return current[name], (*path, name)


def _switch(path: Path, after: str | tuple[str]) -> str:
    """Return how to give a fixed knob settings, where the next part of the path is a mode's name, or nearly."""
    mode = meant_mode(after) if isinstance(after, str) else None
    if mode is None:
        return ""
    near = "" if after == mode else f"did you mean '{mode}'? "
    return f"; {near}switch it first, by --set {dotted(path)}={mode}"


def _settings(current: Any, path: Path, name: str) -> tuple[dict[str, Any], Path]:
    """Return the mapping in which ``name`` is to be found: the settings of a ``{learn: ...}`` lie inside it."""
    if path and name != SEARCH and (found := members(current)) is not None:
        labels = labels_of([member for member, _ in found], _key(path))
        example = f"{path[-1]}[{labels[0]}].{name}"
        raise _fail(path, f"is a choice among {', '.join(labels)}; name a member, such as {example}")
    if isinstance(current, dict) and set(current) == {LEARN} and name not in (LEARN, SEARCH):
        if current[LEARN] is None:
            current[LEARN] = {}
        return current[LEARN], (*path, LEARN)
    if not isinstance(current, dict):
        raise _fail(path, f"is {shown(current)}, which has no '{name}'")
    return current, path


def _key(path: Path) -> str:
    """Return the key by which the members of a choice at ``path`` name themselves."""
    names = [part for part in without_stage(path) if isinstance(part, str) and part not in (SEARCH, "options")]
    return "method" if names == ["learner"] else "source" if names[:1] == ["tasks"] else "kind"


def _member(current: Any, path: Path, label: str) -> tuple[Any, Path]:
    if isinstance(current, list) and label.isdecimal() and int(label) < len(current):
        return _item(current, int(label), path)
    found = members(current)
    if found is None:
        raise _fail(path, f"is {shown(current)}, not a choice: there is no member '{label}'")
    labels = labels_of([member for member, _ in found], _key(path))
    if label not in labels:
        raise _fail(path, unknown("member", label, labels))
    below = found[labels.index(label)][1]
    for part in below[:-1]:
        current = current[part]
    return _item(current, int(below[-1]), (*path, *below[:-1]))


def _item(items: list[Any], index: int, path: Path) -> tuple[Any, Path]:
    """Return a list's item; a name alone becomes a mapping, so that settings can be put into it."""
    if isinstance(items[index], str):
        items[index] = {LEARN: {}} if items[index] == LEARN else {_key(path): items[index]}
    return items[index], (*path, index)

"""The tables of every setting in docs/experiment.md, written from the declarations.

``python -m metaloom.search_spaces.settings_page docs/experiment.md`` writes them between the page's two markers.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from metaloom.learners import InnerConfig
from metaloom.learners.component import NoConfig
from metaloom.learners.domains import Real
from metaloom.learners.errors import shown
from metaloom.learners.fields import MISSING, NOUNS, fields_of
from metaloom.learners.outer import HYPERGRADIENT, OuterConfig
from metaloom.search_spaces.json_schema import ENDS, TYPES
from metaloom.search_spaces.knobs.components import Catalogue
from metaloom.search_spaces.sections.listed import SOURCE
from metaloom.search_spaces.sections.loops import estimator_catalogue, task_forms
from metaloom.search_spaces.sections.settings import Resources, SearchSettings, Tracking, WarmStart
from metaloom.search_spaces.sections.space import slot_catalogues
from metaloom.search_spaces.sections.strategies import sampler_catalogue, scheduler_catalogue

BEGIN, END = "<!-- settings: written by metaloom.search_spaces.settings_page -->", "<!-- end of the settings -->"
HEAD = "| setting | meaning | allowed | default | searched in | learned per |\n|---|---|---|---|---|---|"
ATTRIBUTE = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n {8,}.*)*)", flags=re.M)
WORDS = {**{TYPES[kind]: noun for kind, noun in NOUNS.items()}, "object": "a mapping", "null": "null"}
STRATEGIES = ("sampler", "scheduler")  # of the search section: they have tables of their own


def tables() -> str:
    """Return all tables, as Markdown."""
    parts = {
        "tasks": _catalogue(Catalogue("task source", task_forms(), key=SOURCE)),
        **{f"learner.{slot}": _catalogue(catalogue) for slot, catalogue in slot_catalogues().items()},
        "inner": _fields(InnerConfig),
        "outer": _fields(OuterConfig),
        f"outer.{HYPERGRADIENT}": _catalogue(estimator_catalogue()),
        "search": _model(SearchSettings),
        "search.warm_start": _model(WarmStart),
        "search.sampler": _catalogue(sampler_catalogue()),
        "search.scheduler": _catalogue(scheduler_catalogue()),
        "resources": _model(Resources),
        "tracking": _model(Tracking),
    }
    return "\n\n".join("\n".join([f"### `{place}`", "", HEAD, *rows]) for place, rows in parts.items())


def with_tables(page: str) -> str:
    """Return a page with the tables between its markers written again."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def _catalogue(catalogue: Catalogue) -> Iterator[str]:
    for kind, config in catalogue.configs.items():
        default = " (the default)" if kind == catalogue.fixed else ""
        yield from [_row(f"**{kind}**{default}", _summary(config)), *_fields(config)]


def _model(model: type[BaseModel]) -> Iterator[str]:
    schema, meanings = model.model_json_schema()["properties"], _meanings(model)
    for name, one in schema.items():
        if name not in STRATEGIES:
            yield _row(f"`{name}`", meanings.get(name, ""), _allowed(one), _shown_default(one.get("default", MISSING)))


def _allowed(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_allowed(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"a list, each {_allowed(schema['items'])}"
    text = WORDS.get(schema.get("type", ""), "any value")
    words = zip(ENDS, ("at least", "above", "at most", "below"), strict=True)
    ends = " and ".join(f"{word} {schema[name]}" for name, word in words if name in schema)
    return f"{text}, {ends}" if ends else text


def _fields(config: type) -> Iterator[str]:
    meanings = _meanings(config)
    for name, field in fields_of(config).items():
        learned = ", ".join(field.domain.per) if field.learnable and isinstance(field.domain, Real) else ""
        bounds = f", {field.bounds}" if str(field.bounds) and not field.options else ""
        allowed, searched = field.allowed() + bounds, ""
        if field.domain is not None:
            searched = f"{field.domain.low:g} to {field.domain.high:g}" + (", log" if field.domain.log else "")
        yield _row(f"`{name}`", meanings.get(name, ""), allowed, _shown_default(field.default), searched, learned)


def _shown_default(value: Any) -> str:
    if value is MISSING:
        return "required"
    return f"`{value}`" if isinstance(value, str) else f"`{list(value)}`" if isinstance(value, tuple) else shown(value)


def _row(*cells: str) -> str:
    filled = [*cells, *[""] * (6 - len(cells))]
    return "| " + " | ".join(" ".join(cell.replace("``", "`").replace("|", "\\|").split()) for cell in filled) + " |"


def _summary(config: type) -> str:
    return "" if config is NoConfig else inspect.cleandoc(config.__doc__ or "").partition("\n\n")[0]


def _meanings(config: type) -> dict[str, str]:
    """Return what each attribute means, by the docstrings of a class, of its bases, and of what it is ``derived_from``.

    The summary of a class that declares one field alone is what that field means.
    """
    found: dict[str, str] = {}
    for one in reversed((*config.__mro__, *getattr(config, "derived_from", object).__mro__)):
        own = list(inspect.get_annotations(one))
        if len(own) == 1:
            found[own[0]] = _summary(one)
        for names, text in ATTRIBUTE.findall(inspect.cleandoc(one.__doc__ or "")):
            found |= dict.fromkeys(names.split(", "), text)
    return found


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")

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
from metaloom.learners.fields import MISSING, Field, fields_of
from metaloom.learners.outer import HYPERGRADIENT, OuterConfig
from metaloom.search_spaces.knobs.components import Catalogue
from metaloom.search_spaces.sections.learner_space import slot_catalogues
from metaloom.search_spaces.sections.loops import estimator_catalogue, task_catalogue
from metaloom.search_spaces.sections.settings import Resources, SearchSettings, Tracking, WarmStart
from metaloom.search_spaces.sections.strategies import sampler_catalogue, scheduler_catalogue

BEGIN, END = "<!-- settings: written by metaloom.search_spaces.settings_page -->", "<!-- end of the settings -->"
HEAD = "| setting | meaning | allowed | default | searched in | learned per |\n|---|---|---|---|---|---|"
ATTRIBUTE = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n {8,}.*)*)", flags=re.M)
WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "object": "a mapping",
    "null": "null",
}
STRATEGIES = ("sampler", "scheduler")  # of the search section: they have tables of their own


def tables() -> str:
    """Return all tables, as Markdown."""
    parts = [_catalogue("tasks", task_catalogue())]
    parts += [_catalogue(f"learner.{slot}", catalogue) for slot, catalogue in slot_catalogues().items()]
    parts += [_section("inner", InnerConfig), _section("outer", OuterConfig)]
    parts += [_catalogue(f"outer.{HYPERGRADIENT}", estimator_catalogue())]
    parts += [_model("search", SearchSettings, without=STRATEGIES), _model("search.warm_start", WarmStart)]
    parts += [_catalogue("search.sampler", sampler_catalogue()), _catalogue("search.scheduler", scheduler_catalogue())]
    return "\n\n".join([*parts, _model("resources", Resources), _model("tracking", Tracking)])


def with_tables(page: str) -> str:
    """Return a page with the tables between its markers written again."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def _catalogue(place: str, catalogue: Catalogue) -> str:
    rows = [HEAD]
    for kind, config in catalogue.configs.items():
        default = " (where nothing is said)" if kind == catalogue.fixed else ""
        rows += [_row(f"**{kind}**{default}", _summary(config)), *_fields(config)]
    return "\n".join([f"### `{place}`", "", *rows])


def _section(place: str, config: type) -> str:
    return "\n".join([f"### `{place}`", "", HEAD, *_fields(config)])


def _model(place: str, model: type[BaseModel], without: tuple[str, ...] = ()) -> str:
    schema, meanings = model.model_json_schema()["properties"], _meanings(model)
    rows = [
        _row(f"`{name}`", meanings.get(name, ""), _allowed(one), _shown_default(one.get("default", MISSING)))
        for name, one in schema.items()
        if name not in without
    ]
    return "\n".join([f"### `{place}`", "", HEAD, *rows])


def _allowed(schema: Mapping[str, Any]) -> str:
    """Describe the values that a JSON Schema allows."""
    if "anyOf" in schema:
        return " or ".join(_allowed(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"a list, each {_allowed(schema['items'])}"
    text = WORDS.get(schema.get("type", ""), "any value")
    names = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    ends = " and ".join(f"{word} {schema[name]}" for name, word in names.items() if name in schema)
    return f"{text}, {ends}" if ends else text


def _fields(config: type) -> Iterator[str]:
    meanings = _meanings(config)
    for name, field in fields_of(config).items():
        learned = ", ".join(field.domain.per) if field.learnable and isinstance(field.domain, Real) else ""
        bounds = f", {field.bounds}" if str(field.bounds) and not field.options else ""
        allowed = field.allowed() + bounds
        yield _row(f"`{name}`", meanings.get(name, ""), allowed, _shown_default(field.default), _range(field), learned)


def _range(field: Field) -> str:
    if field.domain is None:
        return ""
    return f"{field.domain.low:g} to {field.domain.high:g}" + (", log" if field.domain.log else "")


def _shown_default(value: Any) -> str:
    if value is MISSING:
        return "required"
    return f"`{value}`" if isinstance(value, str) else f"`{list(value)}`" if isinstance(value, tuple) else shown(value)


def _row(*cells: str) -> str:
    filled = [*cells, *[""] * (6 - len(cells))]
    return "| " + " | ".join(" ".join(cell.replace("``", "`").replace("|", "\\|").split()) for cell in filled) + " |"


def _summary(config: type) -> str:
    """Return the first paragraph of a configuration's own docstring."""
    return "" if config is NoConfig else inspect.cleandoc(config.__doc__ or "").partition("\n\n")[0]


def _meanings(config: type) -> dict[str, str]:
    """Return what each attribute means, by the docstrings of a class and of those that it extends.

    The summary of a class that declares one field alone is what that field means.
    """
    found: dict[str, str] = {}
    for one in reversed(config.__mro__):
        own = list(inspect.get_annotations(one))
        if len(own) == 1:
            found[own[0]] = _summary(one)
        for names, text in ATTRIBUTE.findall(inspect.cleandoc(one.__doc__ or "")):
            found |= dict.fromkeys(names.split(", "), text)
    return found


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")

"""A JSON Schema of the experiment file, for editors: generated from the registries, so never out of date."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metaloom.learners import METHODS, InnerConfig
from metaloom.learners.domains import Real
from metaloom.learners.fields import MISSING, Field, fields_of
from metaloom.learners.knowledge.initialization import PretrainedConfig
from metaloom.learners.modes import LEARN, SEARCH
from metaloom.learners.outer import HYPERGRADIENT, OLD_NAMES, OuterConfig
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.knobs.components import Catalogue
from metaloom.search_spaces.sections.listed import SOURCE
from metaloom.search_spaces.sections.loops import estimator_catalogue, task_catalogue, task_forms
from metaloom.search_spaces.sections.space import METHOD, slot_catalogues
from metaloom.search_spaces.sections.stages import NAME, NEEDED, STAGE_NAME, STAGES
from metaloom.search_spaces.sections.starts import BUNDLE, FINE_TUNED, FROM, KIND, PRETRAINED
from metaloom.search_spaces.sections.strategies import sampler_catalogue, scheduler_catalogue
from metaloom.search_spaces.sections.tasks import EPISODES, episodes_of

Schema = dict[str, Any]
ENDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")  # as Bounds names them
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def json_schema() -> Schema:
    """Return the schema (JSON Schema 2020-12) of an experiment file."""
    schema = Experiment.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    learner = _learner_schema()
    definitions["Learner"] = {"anyOf": [learner, {"enum": list(METHODS)}, _choice(_reference("learner"))]}
    slots = {name: _component_schema(catalogue, name) for name, catalogue in slot_catalogues().items()}
    definitions |= {name.capitalize(): slot for name, slot in slots.items()}
    definitions["Hypergradient"] = _component_schema(estimator_catalogue(), HYPERGRADIENT)
    definitions["Initialization"]["anyOf"].append(_from_stage())
    properties, sections = schema["properties"], dict[str, Schema]()
    sections["tasks"] = _tasks_schema()
    sections["learner"] = _reference("learner")
    sections["inner"] = _object(InnerConfig)
    old = {name: {"deprecated": True, **_knob(fields_of(OuterConfig)[new])} for name, new in OLD_NAMES.items()}
    sections["outer"] = _object(OuterConfig, {HYPERGRADIENT: _reference(HYPERGRADIENT), **old})
    definitions |= {f"{name.capitalize()}Section": section for name, section in sections.items()}
    properties |= {name: _reference(f"{name}Section") for name in sections}
    properties[STAGES] = _stages_schema(sections)
    schema["required"] = [name for name in schema.get("required", ()) if name not in NEEDED]
    alone = {"required": [STAGES], "properties": dict.fromkeys(sections, False)}
    schema["oneOf"] = [{"required": list(NEEDED), "properties": {STAGES: False}}, alone]
    search = {"sampler": _strategy_schema(sampler_catalogue()), "scheduler": _strategy_schema(scheduler_catalogue())}
    definitions["SearchSettings"]["properties"] |= search
    _allow_shorthands(definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Metaloom experiment"}


def _learner_schema() -> Schema:
    slots: Schema = {name: _reference(name) for name in slot_catalogues()}
    summaries = [{"const": name, "description": recipe.summary} for name, recipe in METHODS.items()]
    method = {"anyOf": [{"oneOf": summaries}, _choice({"enum": list(METHODS)}), {"type": "null"}]}
    return _closed(**{METHOD: method, **slots})


def _component_schema(catalogue: Catalogue, name: str | None) -> Schema:
    """Describe a component: a kind's name, its settings, ``learn``, or a choice (where ``name`` is its definition)."""
    options: list[Schema] = [{"enum": list(catalogue.configs)}]
    options += [
        _object(config, {catalogue.key: {"const": kind}}, required=[] if kind == catalogue.fixed else [catalogue.key])
        for kind, config in catalogue.configs.items()
    ]
    if catalogue.learned is not None:
        settings = _object(catalogue.configs[catalogue.learned])
        options += [{"const": LEARN}, _one(LEARN, settings)]
    if name is not None:
        options.append(_choice(_reference(name)))
    if name is not None and catalogue.combined:
        options.append({"type": "array", "minItems": 1, "items": _reference(name)})
    return {"anyOf": options}


def _tasks_schema() -> Schema:
    """Describe a source's name alone, or a source with the settings of its episodes."""
    options: list[Schema] = [{"enum": list(task_catalogue().configs)}]
    for form, config in task_forms().items():
        source, _, single = form.partition(",")
        extra: Schema = {SOURCE: {"const": source}}
        if EPISODES not in fields_of(config):
            extra[EPISODES] = {"const": episodes_of(config)}
        described = _object(config, extra, required=[SOURCE, EPISODES] if single else [SOURCE])
        described["properties"] |= _of_members(config)
        options.append(described)
    return {"anyOf": options}


def _stages_schema(sections: Mapping[str, Schema]) -> Schema:
    """Describe the stages: each a name and the four sections."""
    named = {NAME: {"type": "string", "pattern": f"^{STAGE_NAME.pattern}$"}}
    stage = {
        **_closed(**named, **{name: _reference(f"{name}Section") for name in sections}),
        "required": [NAME, *NEEDED],
    }
    return {"type": "array", "minItems": 2, "items": stage}


def _from_stage() -> Schema:
    """Describe a start from an earlier stage, with the settings of a start from a bundle."""
    name: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    kinds: Schema = {KIND: {"enum": [FINE_TUNED, PRETRAINED]}, FROM: {"anyOf": [name, _choice(name)]}}
    settings = {one: _knob(field) for one, field in fields_of(PretrainedConfig).items() if one != BUNDLE}
    return {**_closed(**kinds, **settings), "required": [FROM]}


def _of_members(config: Any) -> dict[str, Schema]:
    """Describe the lists of tasks sections, and of their weights, of a source that is made of others."""
    section: Schema = {"type": ["object", "string"]}
    lists = {"anyOf": [{"type": "array", "minItems": 1, "items": section}, section, {"type": "null"}]}
    found = dict.fromkeys(getattr(config, "members", ()), lists)
    weight: Schema = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "object"}, {"const": SEARCH}]}
    weights = {"anyOf": [{"type": "array", "items": weight}, {"type": ["object", "null"]}]}
    return {**found, **({config.weighed: weights} if found and config.weighed else {})}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name[:1].upper()}{name[1:]}"}


def _object(
    config: type,
    extra: Mapping[str, Schema] | None = None,
    required: list[str] | None = None,
    *,
    searchable: bool = True,
) -> Schema:
    fields = fields_of(config).items()
    properties = {name: _knob(one) if searchable else _with_default(_literal(one), one) for name, one in fields}
    needed = [name for name, field in fields if field.default is MISSING]
    schema = {**_closed(**(extra or {}), **properties), "description": inspect.cleandoc(config.__doc__ or "")}
    return {**schema, "required": [*(required or []), *needed]} if required or needed else schema


def _closed(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _one(key: str, schema: Schema) -> Schema:
    return {**_closed(**{key: schema}), "required": [key]}


def _choice(member: Schema) -> Schema:
    several = {"type": "array", "minItems": 1, "items": member}
    return _one(SEARCH, {"anyOf": [several, {**_closed(options=several, default={}), "required": ["options"]}]})


def _knob(field: Field) -> Schema:
    if field.mapping:
        others = [_literal(replace(field, mapping=False))] if field.types else []
        return {"anyOf": [{"type": "object"}, *others]} if others else {"type": "object"}
    literal = _literal(field)
    modes = [literal, _choice({"anyOf": [literal, {"type": "object"}, {"const": LEARN}]})]
    if field.domain is not None or field.options or field.word is not None:
        modes.append({"const": SEARCH})
    if field.word is not None:
        parts = {"type": "array", "items": {"enum": list(field.word.options)}, "minItems": 1}
        length = {"enum": sorted(field.word.lengths)}
        modes.append(_one(SEARCH, _closed(length=length, parts=parts, default={"type": "string"})))
    if set(field.types) & {int, float} and not field.options:
        number = {"type": "number" if float in field.types else "integer"}
        numbers = dict.fromkeys(("low", "high", "step", "default"), number)
        modes.append(_one(SEARCH, _closed(**numbers, log={"type": "boolean"})))
    if field.learnable and isinstance(field.domain, Real):
        per = {"anyOf": [{"enum": list(field.domain.per)}, {"type": "object"}]}
        modes += [{"const": LEARN}, _one(LEARN, {**_closed(start={}, per=per), "type": ["object", "null"]})]
    return _with_default({"anyOf": modes}, field)


def _with_default(schema: Schema, field: Field) -> Schema:
    if field.default is not MISSING and isinstance(field.default, bool | int | float | str | None):
        schema["default"] = field.default
    return schema


def _literal(field: Field) -> Schema:
    if field.options:
        return {"enum": [*field.options, None] if field.nullable else list(field.options)}
    if field.items is not None:
        listed = {"type": "array", "items": _literal(field.items)}
        return {"anyOf": [_literal(replace(field, items=None)), listed]} if field.types else listed
    kinds = [TYPES[kind] for kind in field.types] + (["null"] if field.nullable else [])
    ends = {name: end for name, end in zip(ENDS, vars(field.bounds).values(), strict=True) if end is not None}
    return {"type": kinds[0] if len(kinds) == 1 else kinds, **ends}


def _allow_shorthands(definitions: Schema) -> None:
    """Let an objective be given by its metric alone, or without a direction, a memory as a size, a search by name."""
    objective = definitions["Objective"]
    objective["required"] = ["metric"]
    definitions["Objective"] = {"anyOf": [objective, {"enum": objective["properties"]["metric"]["enum"]}]}
    warm_start = definitions["WarmStart"]
    definitions["WarmStart"] = {"anyOf": [warm_start, warm_start["properties"]["search"]]}
    definitions["Resources"]["properties"]["memory"]["anyOf"].append({"type": "string"})


def _strategy_schema(catalogue: Catalogue) -> Schema:
    """Describe a sampler or scheduler: a kind's name alone, or a kind with its settings, all fixed."""
    kinds = [
        _object(config, {catalogue.key: {"const": kind}}, required=[catalogue.key], searchable=False)
        for kind, config in catalogue.configs.items()
    ]
    none = [{"type": "null"}] if "none" in catalogue.configs else []
    return {"anyOf": [{"enum": list(catalogue.configs)}, *kinds, *none], "default": catalogue.fixed}

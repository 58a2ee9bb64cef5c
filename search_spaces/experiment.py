"""The experiment: what is searched, learned and fixed, and how. Checked as a whole, all problems at once."""

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError

from metaloom.search_spaces.consistency import check_consistency
from metaloom.search_spaces.errors import ExperimentError, Path, Problems
from metaloom.search_spaces.reading.document import CoreDumper, Document, plain
from metaloom.search_spaces.reading.nodes import Place
from metaloom.search_spaces.sections.loops import task_kind
from metaloom.search_spaces.sections.settings import Name, Objective, Resources, SearchSettings, Settings, Tracking
from metaloom.search_spaces.sections.space import Space, describe, parse_space
from metaloom.search_spaces.sections.strategies import parse_strategy, sampler_catalogue, scheduler_catalogue
from metaloom.search_spaces.validation import validation_problems

# what may change without changing any trial's result
NOT_IN_FINGERPRINT = ("trials", "time_budget_s", "concurrency", "retries")
DEFAULT_NAME = "search"
# Version 1, of metaloom 0.1, keeps the slots that a solver does not use; version 2 leaves them out.
FIRST_FINGERPRINT_VERSION, FINGERPRINT_VERSION = 1, 2


class Experiment(Settings):
    """Tasks, learner, inner, outer, search, resources and tracking.

    ``tasks``, ``learner``, ``inner`` and ``outer`` are kept as given: any value in them may be a
    knob; ``space`` is what they mean. From Python, a domain object stands for a search and
    ``Learned(...)`` for a learned knob::

        Experiment(tasks="sinusoid", learner={"method": "maml", "update": {"rate": Real(0.001, 0.1, log=True)}})

    Raises:
        ExperimentError: It cannot run; the error holds every problem.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Name = DEFAULT_NAME
    seed: int = Field(0, ge=0, lt=2**63)
    tasks: Any
    learner: Any
    inner: Any = Field(default_factory=dict)
    outer: Any = Field(default_factory=dict)
    search: SearchSettings = SearchSettings()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()

    _space: Space = PrivateAttr()
    _document: dict[str, Any] = PrivateAttr()
    _source_text: str = PrivateAttr("")
    _origins: dict[Path, str] = PrivateAttr(default_factory=dict)

    def __init__(self, **sections: Any) -> None:
        document = {name: plain(value) for name, value in sections.items()}
        problems = Problems()
        self._build(document, problems)
        if problems.found:
            raise ExperimentError(problems.found)

    def _build(self, document: dict[str, Any], problems: Problems, version: int = FINGERPRINT_VERSION) -> None:
        try:
            super().__init__(**_with_strategies(document, problems))
            search: SearchSettings | None = self.search
        except ValidationError as error:
            validation_problems(error, document, type(self), problems)
            search = None
        space = parse_space(document, problems, stored=version == FIRST_FINGERPRINT_VERSION)
        if search is None:
            return
        check_consistency(space, search, self.resources, problems)
        if not self.search.objectives:
            objectives = (Objective.model_validate(f"validation_{task_kind(space.tasks).metric}"),)
            object.__setattr__(self, "search", search.model_copy(update={"objectives": objectives}))
        self._space, self._document = space, document

    @classmethod
    def from_document(cls, document: Document, fingerprint_version: int = FINGERPRINT_VERSION) -> "Experiment":
        """Read a parsed document.

        Args:
            document: Raw values and where each was given.
            fingerprint_version: How it is read: as when a stored search began.

        Raises:
            ExperimentError: With the origin of every problem.
        """
        problems = Problems(document.origins)
        experiment = cls.__new__(cls)
        experiment._build(document.data, problems, fingerprint_version)
        if problems.found:
            raise ExperimentError(problems.found, document.source)
        experiment._source_text, experiment._origins = document.text, document.origins
        return experiment

    @property
    def space(self) -> Space:
        """What the sections mean: trees of fixed, searched and learned knobs."""
        return self._space

    @property
    def source_text(self) -> str:
        """The file's text as given, or YAML of what was given from Python."""
        return self._source_text or self.to_yaml()

    def origin(self, path: Path) -> str:
        """Return where a field, or its nearest parent, was given: ``search.yaml:12``; empty for Python objects."""
        return Problems(self._origins).origin(path) if path else ""

    @property
    def document(self) -> dict[str, Any]:
        """The plain values as given, overrides included: ``Experiment(**document)`` is the same experiment."""
        return copy.deepcopy(self._document)

    def to_yaml(self) -> str:
        """Write what was given, overrides included, as YAML that reads back as the same experiment."""
        return yaml.dump(self._document, Dumper=CoreDumper, sort_keys=False, default_flow_style=None)

    def fingerprint(self) -> str:
        """Return a digest of all that could change a trial's result.

        It covers what the file means, defaults and recipes included; not its wording, nor the name,
        the resources, the tracking, the number of trials and the budgets.
        """
        search = self.search.model_dump(mode="json", exclude=set(NOT_IN_FINGERPRINT))
        meaning = {"seed": self.seed, "space": describe(self._space), "search": search}
        text = json.dumps(meaning, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _with_strategies(document: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """Return the document with its sampler and scheduler written out, defaults included."""
    search = document.get("search", {})
    if not isinstance(search, Mapping):
        return dict(document)
    catalogues = {"sampler": sampler_catalogue(), "scheduler": scheduler_catalogue()}
    chosen = {
        name: parse_strategy(
            catalogue, search.get(name, catalogue.fixed), Place(("search", name), f"search.{name}"), problems
        )
        for name, catalogue in catalogues.items()
    }
    return {**document, "search": {**search, **chosen}}

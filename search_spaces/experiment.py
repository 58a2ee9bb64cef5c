"""The experiment: what is searched, learned and fixed, and how. Checked as a whole, all problems at once."""

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import Field, PrivateAttr, ValidationError

from metaloom.learners.redaction import redacted, secret_places
from metaloom.search_spaces.consistency import check_consistency
from metaloom.search_spaces.errors import ExperimentError, Path, Problems, validation_problems
from metaloom.search_spaces.reading.document import CoreDumper, Document, plain
from metaloom.search_spaces.reading.nodes import Place
from metaloom.search_spaces.sections.loops import task_kind
from metaloom.search_spaces.sections.settings import Name, Objective, Resources, SearchSettings, Settings, Tracking
from metaloom.search_spaces.sections.space import ReadAs, Space, describe
from metaloom.search_spaces.sections.stages import main_sections, parse_stages
from metaloom.search_spaces.sections.strategies import parse_strategy, sampler_catalogue, scheduler_catalogue

NOT_IN_FINGERPRINT = {
    "trials",
    "time_budget_s",
    "trial_timeout_s",
    "concurrency",
    "retries",
    "patience",
}  # they change no trial's result
LATER: dict[str, Any] = {
    "enqueue": [],
    "repeats": 1,
}  # settings that digests of earlier versions do not have, by their defaults
DEFAULT_NAME = "search"
# Version 1, of metaloom 0.1, keeps the slots that a solver does not use; version 2 leaves them out. Until version 3 the
# weight decay of adam was decoupled.
FIRST_FINGERPRINT_VERSION, FINGERPRINT_VERSION = 1, 3


class Experiment(Settings):
    """Tasks, learner, inner, outer, search, resources and tracking.

    ``tasks``, ``learner``, ``inner`` and ``outer`` are kept as given: any value in them may be a knob; ``space`` is the
    parsed form. With ``stages`` each stage has these four, and those of the experiment are the last stage's. From
    Python, a domain object is a search and ``Learned(...)`` a learned knob::

        Experiment(tasks="sinusoid", learner={"method": "maml", "update": {"rate": Real(0.001, 0.1, log=True)}})

    Raises:
        ExperimentError: It cannot run; the error holds every problem.
    """

    name: Name = DEFAULT_NAME
    seed: int = Field(0, ge=0, lt=2**63)
    tasks: Any
    learner: Any
    inner: Any = Field(default_factory=dict)
    outer: Any = Field(default_factory=dict)
    stages: Any = ()
    search: SearchSettings = SearchSettings()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()

    _space: Space = PrivateAttr()
    _document: Document = PrivateAttr()
    _reading: ReadAs = PrivateAttr()

    def __init__(self, **sections: Any) -> None:
        self._build(Document({name: plain(value) for name, value in sections.items()}), FINGERPRINT_VERSION)

    def _build(self, document: Document, version: int) -> None:
        data, problems, valid = document.data, Problems(document.origins), True
        try:
            super().__init__(**_with_strategies(main_sections(data), problems))
        except ValidationError as error:
            validation_problems(error, data, type(self), problems)
            valid = False
        check_secrets(data, problems)
        reading = ReadAs(version == FIRST_FINGERPRINT_VERSION, version < FINGERPRINT_VERSION)
        space = parse_stages(data, problems, reading=reading)
        if valid:
            check_consistency(space, self.search, self.resources, problems)
        if problems.found:
            raise ExperimentError(problems.found, document.source)
        if not self.search.objectives:
            objectives = (Objective.model_validate(f"validation_{task_kind(space.tasks).metric}"),)
            object.__setattr__(self, "search", self.search.model_copy(update={"objectives": objectives}))
        self._space, self._document, self._reading = space, document, reading

    @classmethod
    def from_document(cls, document: Document, fingerprint_version: int = FINGERPRINT_VERSION) -> "Experiment":
        """Read a parsed document.

        Args:
            fingerprint_version: The version that reads it: of a stored search, the one with which it began.

        Raises:
            ExperimentError: With the origin of every problem.
        """
        experiment = cls.__new__(cls)
        experiment._build(document, fingerprint_version)
        return experiment

    def __repr__(self) -> str:
        source, learner = self.tasks, self.learner
        source = source.get("source") if isinstance(source, dict) else source
        method = learner.get("method", "several") if isinstance(learner, dict) else learner
        after = "".join(f" after {stage.name}" for stage in self._space.earlier)
        return f"<experiment '{self.name}': {method} on {source}{after}, seed {self.seed}>"

    @property
    def space(self) -> Space:
        """The sections as trees of fixed, searched and learned knobs."""
        return self._space

    @property
    def reading(self) -> ReadAs:
        """As which version it is read."""
        return self._reading

    @property
    def source_text(self) -> str:
        """The file's text as given, or YAML of what was given from Python; without the password of an address."""
        return redacted(self._document.text or self.to_yaml())

    def origin(self, path: Path) -> str:
        """Return where a field, or its nearest parent, was given: ``search.yaml:12``; empty for Python objects."""
        return Problems(self._document.origins).origin(path) if path else ""

    @property
    def document(self) -> dict[str, Any]:
        """The plain values as given, overrides included: ``Experiment(**document)`` is the same experiment."""
        return copy.deepcopy(self._document.data)

    @property
    def sections(self) -> dict[str, Any]:
        """The plain values as given, with the sections of the last stage on top where there are stages."""
        return copy.deepcopy(main_sections(self._document.data))

    def to_yaml(self) -> str:
        """Write what was given, overrides included, as YAML that reads back as the same experiment."""
        return yaml.dump(self._document.data, Dumper=CoreDumper, sort_keys=False, default_flow_style=None)

    def fingerprint(self) -> str:
        """Return a digest of all that could change a trial's result.

        It covers the values, with defaults and recipes; not their spelling, nor the name, the resources, the tracking,
        the number of trials and the budgets.
        """
        search = self.search.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT)
        search = {name: value for name, value in search.items() if name not in LATER or LATER[name] != value}
        meaning = {"seed": self.seed, "space": describe(self._space), "search": search}
        return hashlib.sha256(json.dumps(meaning, sort_keys=True, allow_nan=False).encode()).hexdigest()


def check_secrets(document: Mapping[str, Any], problems: Problems) -> None:
    """Refuse passwords and tokens where they would be recorded; that of ``tracking.uri`` is kept aside."""
    for path in secret_places(document):
        if path == ("tracking", "artifacts"):
            advice = "MLflow shows this address to its readers: leave them out, and set the variables of the storage"
            problems.add(path, f"holds a password or a token. {advice} (such as AWS_SECRET_ACCESS_KEY)")
        elif path != ("tracking", "uri"):
            advice = "let the code that needs it read an environment variable"
            problems.add(path, f"holds a password or a token, which MLflow would show as a parameter: {advice}")


def _with_strategies(document: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """Return the document with its sampler and scheduler written out, defaults included."""
    search = document.get("search", {})
    if not isinstance(search, Mapping):
        return dict(document)
    chosen: dict[str, Any] = {}
    for name, catalogue in {"sampler": sampler_catalogue(), "scheduler": scheduler_catalogue()}.items():
        place = Place(("search", name), f"search.{name}", problems)
        chosen[name] = parse_strategy(catalogue, search.get(name, catalogue.fixed), place)
    return {**document, "search": {**search, **chosen}}

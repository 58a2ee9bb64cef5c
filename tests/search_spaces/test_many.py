"""A list of tasks sections in an experiment: places of problems, knobs, short forms, the JSON schema."""

from typing import Any

import jsonschema
import pytest

from metaloom.search_spaces.json_schema import json_schema
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve, searched_knobs
from metaloom.search_spaces.sections.listed import expanded, sources_in
from metaloom.search_spaces.sections.members import with_stand_ins
from metaloom.search_spaces.sections.tasks import TASK_SOURCES

TEXT = """\
tasks:
  source: many
  queries: 5
  sources:
    - {source: glyphs, shots: {search: [1, 2]}}
    - {source: folder, path: [a, b]%s}
  weights: %s
learner: maml
"""
WEIGHTS = "[1, {search: {low: 0.1, high: 1}}]"


def document(**tasks: Any) -> dict[str, Any]:
    return {"tasks": {"source": "many", **tasks}, "learner": "maml"}


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    """Return what validates a tasks section."""
    whole = json_schema()
    return jsonschema.Draft202012Validator({"$defs": whole["$defs"], **whole["properties"]["tasks"]})


def test_every_setting_of_a_data_set_and_every_weight_may_be_searched(schema: jsonschema.Draft202012Validator) -> None:
    sources = [{"source": "glyphs", "shots": {"search": [1, 2]}}, {"source": "folder", "path": ["a", "b"]}]
    experiment = load_experiment(document(sources=sources, weights=[1, {"search": {"low": 0.1, "high": 1.0}}]))
    assert list(searched_knobs(experiment)) == ["tasks.sources[0].shots", "tasks.weights[1]"]
    tasks = resolve(experiment, defaults(experiment)).tasks
    assert tasks["sources"][1]["path"] == ["a", "b"] and tasks["sources"][0]["shots"] == 1
    assert tasks["weights"] == [1.0, 1.0]
    assert schema.is_valid(experiment.document["tasks"])
    assert load_experiment(experiment.document).fingerprint() == experiment.fingerprint()
    assert not schema.is_valid(document(sources=5)["tasks"])
    assert sources_in(tasks) == ("many", "glyphs", "folder")


def test_one_section_or_a_name_is_a_list_of_one(schema: jsonschema.Draft202012Validator) -> None:
    for given in ("glyphs", {"source": "glyphs"}, [{"source": "glyphs"}], ["glyphs"]):
        experiment = load_experiment(document(sources=given))
        assert schema.is_valid(experiment.document["tasks"])
        assert len(resolve(experiment, defaults(experiment)).tasks["sources"]) == 1


@pytest.mark.parametrize(
    ("of_folder", "weights", "problem"),
    [
        (", wayz: 5", WEIGHTS, "search.yaml:6: tasks.sources[1].wayz: no setting of folder is named 'wayz'; did you"),
        (", queries: 4", WEIGHTS, "search.yaml:6: tasks.sources[1].queries: given for all sources too, as tasks.quer"),
        (", split: [c]", WEIGHTS, "search.yaml:6: tasks.sources[1]: both path and split are lists; an entry stands"),
        ("", "[1, learn]", "search.yaml:7: tasks.weights[1]: a weight chooses which episodes the outer loss is the"),
        ("", "[1, {learn: 2}]", "search.yaml:7: tasks.weights[1]: a weight chooses which episodes the outer loss is"),
        ("", "[1, -2]", "search.yaml:7: tasks.weights[1]: got -2.0; allowed: a number, at least 0"),
        ("", "[1, two]", "search.yaml:7: tasks.weights[1]: got the text 'two'; allowed: a number"),
    ],
)
def test_a_problem_has_the_place_of_its_data_set(of_folder: str, weights: str, problem: str, complaints: Any) -> None:
    (found,) = complaints(TEXT % (of_folder, weights))
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("tasks", "problem"),
    [
        ({}, "tasks.sources: not given"),
        ({"sources": []}, "tasks.sources: got an empty list"),
        ({"sources": [5]}, "tasks.sources[0]: got 5; allowed: a mapping"),
        ({"sources": [{"source": "many", "sources": ["glyphs"]}]}, "many within many; put its sources into this list"),
        ({"sources": ["glyhps"]}, "no task source is named 'glyhps'; did you mean 'glyphs'?"),
        ({"sources": ["glyphs"], "test": [{"source": "folder", "path": []}]}, "path is an empty list"),
    ],
)
def test_what_is_no_list_of_data_sets_is_refused(tasks: dict[str, Any], problem: str) -> None:
    with pytest.raises(Exception, match=problem.replace("[", r"\[").replace("?", r"\?")):
        load_experiment(document(**tasks))


def test_a_setting_of_one_data_set_is_set_by_its_number() -> None:
    experiment = load_experiment(document(sources=["glyphs", "glyphs"]), ["tasks.sources[1].shots=search"])
    assert list(searched_knobs(experiment)) == ["tasks.sources[1].shots"]
    experiment = load_experiment(document(sources=["glyphs"], weights=[1.0]), ["tasks.weights[0]={search: [1, 2]}"])
    assert list(searched_knobs(experiment)) == ["tasks.weights[0]"]


def test_a_list_stands_for_a_section_each() -> None:
    assert expanded({"source": "folder", "path": ["a", "b"], "ways": 2}) == [
        {"source": "folder", "path": "a", "ways": 2},
        {"source": "folder", "path": "b", "ways": 2},
    ]
    assert expanded({"source": "glyphs", "ways": [2, 5]}) == [{"source": "glyphs", "ways": [2, 5]}]  # a range


def test_the_kind_of_task_is_that_of_the_data_sets() -> None:
    experiment = load_experiment(document(sources=["sinusoid", {"source": "sinusoid", "noise": 0.1}]))
    assert experiment.search.objectives[0].metric == "validation_loss"


def test_knobs_are_left_out_of_the_check_of_the_rest() -> None:
    raw = {"sources": "glyphs", "weights": [1, "search", {"learn": {}}]}
    assert with_stand_ins(TASK_SOURCES["many"], raw) == {"sources": [{"source": "glyphs"}], "weights": [1, 1.0, 1.0]}

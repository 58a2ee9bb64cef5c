"""Stages of an experiment: their knobs, their starts, and what is refused with its place."""

import copy
from typing import Any

import jsonschema
import pytest

from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.json_schema import json_schema
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.reading.document import Document, read_yaml
from metaloom.search_spaces.resolve import baseline, defaults, resolve, searched_knobs

TEXT = """\
name: two
stages:
  - name: pretrain
    tasks: {source: glyphs, ways: 10}
    learner: {method: prototypical, architecture: conv4}
    outer: {steps: 20}
  - name: adapt
    tasks: glyphs
    learner:
      method: maml
      architecture: conv4
      initialization: {from: pretrain}
search: {trials: 2}
"""


def document() -> dict[str, Any]:
    return copy.deepcopy(read_yaml(TEXT, "two.yaml").data)


def loaded(*overrides: str) -> Experiment:
    return load_experiment(read_yaml(TEXT, "two.yaml"), overrides)


def refused(*overrides: str) -> str:
    with pytest.raises(ExperimentError) as caught:
        loaded(*overrides)
    return str(caught.value)


def test_the_last_stage_is_the_experiments_own() -> None:
    found = resolve(loaded(), defaults(loaded()))
    assert found.stage == "adapt" and found.learner["method"] == "maml" and found.tasks["ways"] == 5
    (before,) = found.stages
    assert before["name"] == "pretrain" and before["learner"]["method"] == "prototypical"
    assert before["tasks"]["ways"] == 10 and before["outer"]["steps"] == 20


@pytest.mark.parametrize(
    ("method", "kind"), [("maml", "fine_tuned"), ("prototypical", "fine_tuned"), ("fine_tuning", "pretrained")]
)
def test_a_start_without_a_kind_is_as_the_methods_own(method: str, kind: str) -> None:
    experiment = loaded(f"stages.adapt.learner={{method: {method}, initialization: {{from: pretrain}}}}")
    start = resolve(experiment, defaults(experiment)).learner["initialization"]
    assert start["bundle"] == "stage:pretrain" and start["kind"] == kind
    own = Experiment(tasks="glyphs", learner=method)
    kinds = {"learned": "fine_tuned", "random": "pretrained"}
    assert kind == kinds[resolve(own, defaults(own)).learner["initialization"]["kind"]]


def test_every_value_of_a_stage_is_a_knob_with_the_stages_name() -> None:
    experiment = loaded(
        "stages.pretrain.outer.steps=search",
        "stages.pretrain.learner={search: [prototypical, relation]}",
        "stages.adapt.learner.update.rate=search",
    )
    assert list(searched_knobs(experiment)) == [
        "stages.pretrain.learner",
        "stages.pretrain.outer.steps",
        "stages.adapt.learner.update.rate",
    ]
    found = resolve(experiment, defaults(experiment))
    assert set(found.knobs) == set(searched_knobs(experiment))
    assert found.stages[0]["outer"]["steps"] == found.knobs["stages.pretrain.outer.steps"]


def test_the_stage_to_start_from_is_searched() -> None:
    given = document()
    given["stages"].insert(1, {**given["stages"][0], "name": "longer", "outer": {"steps": 40}})
    given["stages"][2]["learner"]["initialization"] = {"search": [{"from": "pretrain"}, {"from": "longer"}, "learned"]}
    experiment = Experiment(**given)
    ((name, domain),) = searched_knobs(experiment).items()
    assert name == "stages.adapt.learner.initialization"
    assert domain.options == ("fine_tuned(from=pretrain)", "fine_tuned(from=longer)", "learned")
    by_name = {**given, "stages": copy.deepcopy(given["stages"])}
    by_name["stages"][2]["learner"]["initialization"] = {"from": "search"}
    ((name, domain),) = searched_knobs(Experiment(**by_name)).items()
    assert name == "stages.adapt.learner.initialization.from" and domain.options == ("pretrain", "longer")
    starts = resolve(Experiment(**by_name), defaults(Experiment(**by_name))).learner["initialization"]
    assert starts["bundle"] == "stage:pretrain"


def test_a_stage_starts_from_an_earlier_one() -> None:
    given = document()
    given["stages"].insert(1, {**given["stages"][0], "name": "middle"})
    given["stages"][1]["learner"] = {**given["stages"][0]["learner"], "initialization": {"from": "pretrain"}}
    given["stages"][2]["learner"]["initialization"] = {"from": "middle"}
    found = resolve(Experiment(**given), defaults(Experiment(**given)))
    assert [stage["name"] for stage in found.stages] == ["pretrain", "middle"]
    assert found.stages[1]["learner"]["initialization"]["bundle"] == "stage:pretrain"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tasks=glyphs"], "tasks: given beside stages"),
        (["stages.pretrian.outer.steps=3"], "no stage is named 'pretrian'; did you mean 'pretrain'"),
        (["stages.adapt.learner.initialization.from=pretrian"], "two.yaml:12|did you mean 'pretrain'"),
        (["stages.adapt.learner.initialization=learned"], "two.yaml:3: stages[0]: no later stage starts from pretrain"),
        (["stages.pretrain.learner.initialization={from: adapt}"], "there is no earlier stage"),
        (["stages.adapt.learner.initialization.bundle=folder"], "given beside from"),
        (
            ["stages.adapt.learner.initialization.kind=random"],
            "starts from no stage; allowed with from: fine_tuned",
        ),
        (["stages.pretrain.name=adapt"], "'adapt' is the name of stage 1 too"),
        (["stages.pretrain.name=a.b"], "allowed: 1 to 40 letters"),
        (["stages.pretrain.outer.stepps=3"], "stages[0].outer.stepps: no setting of the outer loop is named 'stepps'"),
        (["stages.pretrain.lerner=maml"], "no part of a stage is named 'lerner'; did you mean 'learner'"),
        (["stages.pretrain.learner-"], "--set stages.pretrain.learner-: stages[0].learner: not given"),
        (["stages.adapt-"], "give a list of at least two stages"),
        (["stages.pretrain.outer.rate=-1"], "stages[0].outer.rate: got -1"),
        (["stages.pretrain.tasks.validation_fraction=0.6"], "stages[0].tasks.validation_fraction"),
        (
            ["search.scheduler=pbt", "search.trials=4", "stages.pretrain.outer.rate=search"],
            "changes knobs while a trial trains, after its earlier stages; fix stages.pretrain.outer.rate",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(overrides: list[str], message: str) -> None:
    assert any(part in refused(*overrides) for part in message.split("|")), refused(*overrides)


def test_a_start_from_a_stage_without_stages_is_refused() -> None:
    with pytest.raises(ExperimentError, match="there is no earlier stage; give stages, or the folder of a bundle"):
        Experiment(tasks="glyphs", learner={"method": "maml", "initialization": {"from": "pretrain"}})
    with pytest.raises(ExperimentError, match="the experiment has no stages"):
        load_experiment({"tasks": "glyphs", "learner": "maml"}, ["stages.pretrain.outer.steps=3"])


def test_the_document_reads_back_as_the_same_experiment() -> None:
    experiment = loaded("stages.pretrain.outer.steps=search")
    again = Experiment.from_document(Document(experiment.document))
    assert again.fingerprint() == experiment.fingerprint() != loaded().fingerprint()
    assert read_yaml(experiment.to_yaml(), "again.yaml").data == experiment.document
    assert "prototypical" not in repr(experiment) and "maml" in repr(experiment)


def test_a_stage_decides_the_fingerprint() -> None:
    assert loaded().fingerprint() != loaded("stages.pretrain.outer.steps=21").fingerprint()
    assert loaded().fingerprint() == loaded("stages.pretrain.outer.steps=20").fingerprint()


def test_another_method_of_a_stage_leaves_out_what_it_does_not_take(caplog: pytest.LogCaptureFixture) -> None:
    given = read_yaml(TEXT.replace("      method: maml", "      method: maml\n      update: {rate: 0.1}"), "two.yaml")
    with caplog.at_level("WARNING", "metaloom"):
        experiment = load_experiment(given, ["stages.adapt.learner.method=relation"])
    assert "stages[1].learner.update is left out: relation takes no inner steps" in caplog.text
    assert resolve(experiment, defaults(experiment)).learner["initialization"]["bundle"] == "stage:pretrain"


def test_a_baseline_may_start_from_a_stage() -> None:
    experiment = loaded("search.baselines=[{method: anil, initialization: {from: pretrain}}, maml]")
    found = [baseline(experiment, asked) for asked in experiment.search.baselines]
    assert found[0].learner["initialization"]["bundle"] == "stage:pretrain"
    assert found[1].learner["initialization"]["kind"] == "learned"
    assert "did you mean 'pretrain'" in refused("search.baselines=[{method: anil, initialization: {from: pretran}}]")


def test_the_schema_takes_stages_and_nothing_beside_them() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    assert not list(validator.iter_errors(document()))
    assert not list(validator.iter_errors({"tasks": "glyphs", "learner": "maml"}))
    for wrong in (
        {**document(), "tasks": "glyphs"},
        {"stages": document()["stages"][:1]},
        {"stages": [{**document()["stages"][0], "lerner": "maml"}, document()["stages"][1]]},
        {"stages": [{**document()["stages"][0], "outer": {"stepps": 1}}, document()["stages"][1]]},
        {"search": {"trials": 1}},
    ):
        assert list(validator.iter_errors(wrong)), wrong

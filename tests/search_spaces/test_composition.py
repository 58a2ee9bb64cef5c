"""Lists of components in an experiment: resolved, searched, overridden, refused."""

import pytest

from metaloom import Experiment
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.json_schema import json_schema
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import Given, defaults, resolve, searched_knobs

TOGETHER = {
    "tasks": "digits",
    "learner": {
        "method": "meta_weight_net",
        "weighting": [{"kind": "focal", "gamma": {"search": {}}}, {"search": ["uniform", "meta_weight_net"]}],
    },
}


def test_a_list_resolves_to_a_list_and_its_members_are_searched() -> None:
    experiment = Experiment(**TOGETHER)
    knobs = searched_knobs(experiment)
    assert set(knobs) == {"learner.weighting[0].gamma", "learner.weighting[1]"}
    chosen = {"learner.weighting[0].gamma": 3.0, "learner.weighting[1]": "meta_weight_net"}
    result = resolve(experiment, Given(chosen, defaults(experiment)))
    assert [one["kind"] for one in result.learner["weighting"]] == ["focal", "meta_weight_net"]
    assert result.learner["weighting"][0]["gamma"] == 3.0
    assert result.knobs == chosen


def test_a_list_may_be_one_option_of_a_choice() -> None:
    options = ["uniform", ["focal", "meta_weight_net"]]
    experiment = Experiment(tasks="digits", learner={"method": "meta_weight_net", "weighting": {"search": options}})
    (name,) = searched_knobs(experiment)
    result = resolve(experiment, Given({name: "[focal, meta_weight_net]"}, defaults(experiment)))
    assert [one["kind"] for one in result.learner["weighting"]] == ["focal", "meta_weight_net"]


def test_an_override_reaches_a_member() -> None:
    experiment = load_experiment(TOGETHER, ["learner.weighting[0].gamma=1.0"])
    assert resolve(experiment, defaults(experiment)).learner["weighting"][0]["gamma"] == 1.0
    assert experiment.fingerprint() != load_experiment(TOGETHER).fingerprint()


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (
            {"method": "maml", "initialization": ["learned", "random"]},
            "learner.initialization.*takes one initialization, got the list of learned and random; keep one",
        ),
        ({"method": "maml", "update": ["sgd", "adam"]}, "learner.update.*one update, got the list of sgd and adam"),
        ({"method": "maml", "loss": []}, "learner.loss.*got an empty list"),
        ({"method": "meta_weight_net", "weighting": ["focal", "focel"]}, r"learner.weighting.*focel.*focal"),
    ],
)
def test_what_does_not_combine_is_refused_by_name(learner: dict[str, object], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        Experiment(tasks="digits" if learner["method"] == "meta_weight_net" else "glyphs", learner=learner)


def test_a_blind_estimator_is_refused_for_a_member() -> None:
    learner = {"method": "maml", "weighting": ["focal", {"kind": "meta_weight_net"}]}
    with pytest.raises(ExperimentError, match=r"first_order gives no signal.*weighting\[1\]"):
        Experiment(tasks="glyphs", learner=learner, outer={"hypergradient": "first_order"})


def test_the_schema_takes_a_list_where_several_go_together() -> None:
    definitions = json_schema()["$defs"]
    lists = {
        name
        for name in ("Weighting", "Loss", "Augmentation", "Update", "Initialization", "Data")
        if any(option.get("type") == "array" for option in definitions[name]["anyOf"])
    }
    assert lists == {"Weighting", "Loss", "Augmentation"}


def test_one_estimator_serves_the_methods_that_take_it_and_no_other(tmp_path):
    file = tmp_path / "methods.yaml"
    file.write_text(
        "tasks: {source: glyphs}\n"
        "learner: {search: [maml, prototypical, nearest_neighbour]}\n"
        "outer: {steps: 2, hypergradient: adjoint}\n"
    )
    outer = load_experiment(file).space.outer
    kinds = {method: section.fields["hypergradient"].kind for method, section in outer.items()}
    assert kinds == {"maml": "adjoint", "prototypical": "auto", "nearest_neighbour": "auto"}

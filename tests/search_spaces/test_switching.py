"""``--set learner.method=...`` on another method's file, and ``--set PATH-``."""

import pytest

from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve

FILE = """\
tasks: {source: glyphs, ways: 5, shots: 1, queries: 15}
learner:
  method: maml
  architecture: {kind: conv4, channels: 32}
  update: {rate: {search: [0.1, 0.4]}, steps: 3}
inner: {proximal: 0.5}
outer: {steps: 500, meta_batch: 4, hypergradient: first_order}
"""
SWITCH = "learner.method=prototypical"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "maml.yaml"
    path.write_text(FILE)
    return path


def resolved(experiment):
    return resolve(experiment, defaults(experiment))


def test_a_method_without_inner_steps_on_a_file_of_maml(file, caplog):
    experiment = load_experiment(file, [SWITCH])
    assert caplog.messages == [
        "learner.update is left out: prototypical takes no inner steps (prediction prototypes)",
        "outer.hypergradient is left out: prototypical does not take first_order",
    ]
    one = resolved(experiment)
    assert (one.learner["method"], one.learner["architecture"]["channels"]) == ("prototypical", 32)
    assert (one.outer["steps"], one.outer["meta_batch"], one.knobs) == (500, 4, {})
    assert "# learner.update is left out" in experiment.source_text
    again = load_experiment(experiment.document)
    assert again.fingerprint() == experiment.fingerprint() == load_experiment(file, [SWITCH]).fingerprint()


def test_the_overrides_may_come_in_any_order(file):
    one = load_experiment(file, ["outer.steps=7", SWITCH])
    assert resolved(one).outer["steps"] == 7
    assert load_experiment(file, [SWITCH, "outer.steps=7"]).fingerprint() == one.fingerprint()


def test_a_setting_of_another_kind_alone_is_left_out(tmp_path, caplog):
    (tmp_path / "one.yaml").write_text(
        FILE.replace("first_order", "unroll").replace("steps: 3", "steps: 3, nesterov: false")
    )
    experiment = load_experiment(tmp_path / "one.yaml", ["learner.method=meta_lstm"])
    assert [line.partition(" is left out")[0] for line in caplog.messages] == ["learner.update.nesterov"]
    assert resolved(experiment).learner["update"]["steps"] == 3


def test_a_method_that_has_all_settings_loses_none(file, caplog):
    assert resolved(load_experiment(file, ["learner.method=anil"])).learner["update"]["rate"] == 0.1
    assert not caplog.messages


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ([SWITCH, "learner.update.rate=0.3"], "learner.update: prototypical takes no inner steps"),
        ([SWITCH, "outer.hypergradient=unroll"], "outer.hypergradient: prototypical does not take unroll"),
        ([SWITCH, "outer.stepps=3"], "did you mean 'steps'"),
        (["learner.method=prototypcal"], "did you mean 'prototypical'"),
    ],
)
def test_what_was_just_given_is_not_left_out(file, changes, wrong):
    with pytest.raises(ExperimentError, match=wrong):
        load_experiment(file, changes)


def test_what_was_wrong_before_stays_wrong(tmp_path):
    (tmp_path / "one.yaml").write_text(FILE.replace("steps: 3", "stepps: 3").replace("meta_batch", "meta_bach"))
    with pytest.raises(ExperimentError, match="did you mean 'meta_batch'"):
        load_experiment(tmp_path / "one.yaml", ["learner.method=anil"])
    with pytest.raises(ExperimentError, match="did you mean 'steps'"):
        load_experiment(tmp_path / "one.yaml", ["learner.method=anil"])


@pytest.mark.parametrize(
    ("removed", "path"),
    [
        ("learner.update.rate-", ("learner", "update", "rate")),
        ("learner.update-", ("learner", "update")),
        (" outer.hypergradient- ", ("outer", "hypergradient")),
        ("outer.tasks-", ("outer", "meta_batch")),
        ("inner-", ("inner",)),
        ("learner.update.rate.search[0]-", ("learner", "update", "rate", "search", 0)),
    ],
)
def test_a_value_is_removed(file, removed, path):
    whole, less = load_experiment(file).document, load_experiment(file, [removed]).document
    for part in path[:-1]:
        whole, less = whole[part], less[part]
    if isinstance(whole, list):
        assert less == whole[1:]
    else:
        assert less == {key: value for key, value in whole.items() if key != path[-1]}


def test_a_member_of_a_choice_is_removed():
    document = {"tasks": "glyphs", "learner": {"search": ["maml", "anil"]}}
    assert load_experiment(document, ["learner[maml]-"]).document["learner"] == {"search": ["anil"]}


@pytest.mark.parametrize(
    ("removed", "wrong"),
    [
        ("outer.rat-", "outer.rat: cannot be removed: it is not given; outer has steps, meta_batch, hypergradient"),
        ("tracking-", "tracking: cannot be removed: it is not given; the experiment has "),
        ("outer.steps.more-", "cannot be removed: it is not given; outer.steps has no settings"),
        ("-", "give PATH=VALUE, such as .* or PATH- to remove it"),
        ("outer.steps", "give PATH=VALUE, such as .* or PATH- to remove it"),
    ],
)
def test_what_is_not_there_is_not_removed(file, removed, wrong):
    with pytest.raises(ExperimentError, match=wrong):
        load_experiment(file, [removed])

"""What the members of a choice go by, wherever a label is written."""

import re

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.reading.document import CoreLoader, read_value
from metaloom.search_spaces.reading.labels import LONGEST, labels_of
from metaloom.search_spaces.resolve import baseline, defaults, resolve, searched_knobs

SMOOTH = {"kind": "cross_entropy", "label_smoothing": 0.2}


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        (["cross_entropy", SMOOTH], ["cross_entropy", "cross_entropy(label_smoothing=0.2)"]),
        ([SMOOTH, {**SMOOTH, "label_smoothing": 0.1}], [f"cross_entropy(label_smoothing={x})" for x in (0.2, 0.1)]),
        ([{"learn": {"per": "layer"}}, {"learn": {"per": "parameter"}}], ["learn(per=layer)", "learn(per=parameter)"]),
        (["learn", {"learn": 0.5}, {"learn": None}], ["learn", "learn(start=0.5)", "learn-2"]),
        ([0.1, "learn", {"learn": {"start": 0.1, "per": "step"}}], ["0.1", "learn", "learn(start=0.1; per=step)"]),
        ([{"search": {"low": 1}}, {"search": [1, 2]}], ["search(low=1)", "search(options=1-2)"]),
        (
            [{"kind": "mlp", "hidden": [64, 64], "bias": True}, {"kind": "mlp", "hidden": [128], "bias": True}],
            ["mlp(hidden=64-64)", "mlp(hidden=128)"],
        ),
        (
            [{"kind": "maml", "update": {"rate": 0.1}}, {"kind": "maml", "update": {"rate": "learn"}}],
            ["maml(update.rate=0.1)", "maml(update.rate=learn)"],
        ),
        (
            [{"kind": "maml", "update": {"kind": "sgd", "rate": rate}} for rate in (0.1, 0.2)],
            ["maml(update=sgd(rate=0.1))", "maml(update=sgd(rate=0.2))"],
        ),
        # a member keeps its label as one of its knobs is searched, unless nothing else tells it apart
        (
            [{"kind": "maml", "a": "search", "b": 1}, {"kind": "maml", "b": 2}],
            ["maml(b=1)", "maml(b=2)"],
        ),
        (["maml", {"kind": "maml", "a": "search"}], ["maml", "maml(a=search)"]),
        (["focal", "uniform", {"kind": "focal", "gamma": 1}], ["focal", "uniform", "focal(gamma=1)"]),
        ([{"kind": "a", "path": "x, y: [z] # 'q'"}, "a"], ["a(path=x-y_ z _ _q_)", "a"]),
    ],
)
def test_members_of_one_kind_are_called_by_what_differs(options, labels):
    assert labels_of(options) == labels


def test_only_where_nothing_differs_a_number_does():
    options = ["a", "a", "a-2", "a", {"kind": "a"}, 1, 1.0, "1", True, None, [1, [2]]]
    labels = labels_of(options)
    assert len(set(labels)) == len(options)
    assert labels[:4] == ["a", "a-3", "a-2", "a-4"]


def test_a_long_label_holds_the_first_settings_that_suffice():
    options = [{"kind": "a", **{f"setting{n}": n + index * (n > 0) for n in range(40)}} for index in range(2)]
    assert labels_of(options) == [f"a({'; '.join(f'setting{n}={n + i}' for n in range(1, 9))})" for i in range(2)]
    path = "x" * 500
    long = labels_of([{"kind": "a", "path": path}, {"kind": "a", "path": path + "y"}])
    assert len(set(long)) == 2 and max(map(len, long)) < LONGEST


names = st.sampled_from(["rate", "gamma", "hidden", "update"])
texts = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-9, 9), texts)
settings = st.recursive(
    scalars | st.just("learn") | st.just("search"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(names, inner, max_size=3)
        | st.builds(lambda kind, one: {"kind": kind, "rate": one}, st.sampled_from(["sgd", "adam"]), inner)
        | st.builds(lambda mode, one: {mode: one}, st.sampled_from(["learn", "search"]), inner)
    ),
    max_leaves=6,
)
components = st.builds(
    lambda kind, given: {"kind": kind, **given} if kind else {"learn": given},
    st.sampled_from(["maml", "anil", ""]),
    st.dictionaries(names, settings, max_size=3),
)


@given(st.lists(components, max_size=5))
def test_labels_are_distinct_and_stay_plain_texts(options):
    labels = labels_of(options)
    assert len(set(labels)) == len(labels) == len(options)
    for label in labels:
        assert not set(label) & set("[]{},:#'\"\n")
        assert read_value(f"{{learner.loss: {label}}}") == {"learner.loss": label}
        (plain,) = [one for one in yaml.scan(f"[{label}]", Loader=CoreLoader) if isinstance(one, yaml.ScalarToken)]
        assert plain.plain and plain.value == label


@given(st.lists(st.floats(0, 0.5) | st.just("learn"), min_size=2, max_size=5, unique_by=repr))
def test_members_that_differ_in_one_setting_need_no_number(values):
    labels = labels_of([{"kind": "cross_entropy", "label_smoothing": value} for value in values])
    assert labels == [f"cross_entropy(label_smoothing={value})" for value in values]


CHOICE = {
    "tasks": "digits",
    "learner": {"method": "meta_weight_net", "loss": {"search": ["cross_entropy", SMOOTH]}},
    "search": {"baselines": [{"learner.loss": "cross_entropy(label_smoothing=0.2)"}]},
}
TEXT = """\
tasks: digits
learner: {method: meta_weight_net, loss: {search: [cross_entropy, {kind: cross_entropy, label_smoothing: 0.2}]}}
search: {baselines: [{learner.loss: cross_entropy(label_smoothing=0.2)}]}
"""


def test_a_baseline_names_a_member_by_its_label(tmp_path):
    path = tmp_path / "search.yaml"
    path.write_text(TEXT)
    experiment = load_experiment(path)
    assert baseline(experiment, experiment.search.baselines[0]).learner["loss"]["label_smoothing"] == 0.2
    reread = tmp_path / "again.yaml"
    reread.write_text(experiment.to_yaml())
    assert load_experiment(reread).fingerprint() == experiment.fingerprint()


def test_an_override_reaches_a_member_by_its_label():
    place = "learner.loss[cross_entropy(label_smoothing=0.2)]"
    searched = load_experiment(CHOICE, [f"{place}.label_smoothing=search", "search.baselines=[]"])
    assert list(searched_knobs(searched))[1] == "learner.loss[cross_entropy(label_smoothing=search)].label_smoothing"
    replaced = load_experiment(CHOICE, [f"{place}={{kind: mixture}}", "search.baselines=[]"])
    assert searched_knobs(replaced)["learner.loss"].options == ("cross_entropy", "mixture")


def test_a_label_is_a_category_for_the_sampler():
    options = searched_knobs(load_experiment(CHOICE))["learner.loss"].options
    document = optuna.distributions.distribution_to_json(optuna.distributions.CategoricalDistribution(options))
    assert optuna.distributions.json_to_distribution(document).choices == options


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (["mixture", SMOOTH, SMOOTH], "learner.loss.search[2]: cross_entropy is given twice, as [1] and as [2]"),
        (["mixture", "mixture"], "learner.loss.search[1]: mixture is given twice, as [0] and as [1]: remove one"),
        (["mixture", {"kind": "mixture"}], "learner.loss.search[1]: mixture is given twice, as [0] and as [1]"),
        (
            {"options": ["cross_entropy", SMOOTH, {**SMOOTH}]},
            "learner.loss.search.options[2]: cross_entropy(label_smoothing=0.2) is given twice, as [1] and as [2]",
        ),
    ],
)
def test_a_member_that_is_given_twice_is_refused(loss, message):
    with pytest.raises(ExperimentError, match=re.escape(message)):
        Experiment(tasks="digits", learner={"method": "meta_weight_net", "loss": {"search": loss}})


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (
            {"initialization": {"search": ["learned", "learn"]}},
            "learner.initialization.search[1]: learned and learn mean the same, as [0] and as [1]: remove one",
        ),
        (
            {"loss": {"search": ["cross_entropy", {"kind": "cross_entropy", "label_smoothing": 0.0}]}},
            "learner.loss.search[1]: cross_entropy and cross_entropy(label_smoothing=0.0) mean the same",
        ),
        (
            {"update": {"rate": {"search": {"options": [0.1, 1, 1.0]}}}},
            "learner.update.rate.search.options[2]: 1 and 1.0 mean the same, as [1] and as [2]: remove one",
        ),
        (
            {"update": {"rate": {"search": ["learn", 0.1, {"learn": {"per": "scalar"}}]}}},
            "learner.update.rate.search[2]: learn and learn(per=scalar) mean the same, as [0] and as [2]: remove one",
        ),
    ],
)
def test_a_member_under_two_spellings_is_refused(learner, message):
    with pytest.raises(ExperimentError, match=re.escape(message)):
        Experiment(tasks="glyphs", learner={"method": "maml", **learner})


def test_members_that_differ_in_what_they_search_are_two():
    rates = [{"search": {"low": 0.1, "high": high}} for high in (0.5, 1.0)]
    searched = searched_knobs(Experiment(tasks="glyphs", learner={"update": {"rate": {"search": rates}}}))
    assert len(searched["learner.update.rate"].options) == 2


@pytest.mark.parametrize(
    ("default", "smoothing"),
    [("cross_entropy", 0.0), ("cross_entropy(label_smoothing=0.2)", 0.2), (SMOOTH, 0.2)],
)
def test_a_default_is_a_label_or_the_member_itself(default, smoothing):
    learner = {"loss": {"search": {"options": ["mixture", "cross_entropy", SMOOTH], "default": default}}}
    experiment = Experiment(tasks="digits", learner={"method": "meta_weight_net", **learner})
    assert resolve(experiment, defaults(experiment)).learner["loss"]["label_smoothing"] == smoothing


def test_a_default_of_two_possible_members_is_refused():
    loss = {"search": {"options": [SMOOTH, {**SMOOTH, "label_smoothing": 0.1}], "default": "cross_entropy"}}
    with pytest.raises(ExperimentError, match=r"search\.default: no option is named 'cross_entropy'; did you mean"):
        Experiment(tasks="digits", learner={"method": "meta_weight_net", "loss": loss})


def test_a_fields_own_default_is_the_first_of_its_kind():
    rate = {"search": [0.1, {"learn": {"per": "layer"}}, {"learn": {"per": "step"}}]}
    experiment = Experiment(tasks="glyphs", learner={"method": "meta_sgd", "update": {"rate": rate}})
    assert resolve(experiment, defaults(experiment)).knobs == {"learner.update.rate": "learn(per=layer)"}

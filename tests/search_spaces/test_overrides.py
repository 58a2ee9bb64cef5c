"""``--set PATH=VALUE``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve, searched_knobs

PLAIN = {"tasks": "glyphs", "learner": {"method": "maml", "update": {"rate": 0.4}, "weighting": "learn"}}
OTHER = {"method": "maml", "update": {"steps": 2}}
CHOICE = {"tasks": "glyphs", "learner": {"search": ["maml", {"method": "anil", "update": {"steps": 3}}, OTHER]}}


def resolved(document, *overrides):
    experiment = load_experiment(document, overrides)
    return resolve(experiment, defaults(experiment))


@pytest.mark.parametrize(
    ("override", "section", "path", "value"),
    [
        ("learner.update.rate=0.1", "learner", ("update", "rate"), 0.1),
        ("learner.update.rate = 1e-2 ", "learner", ("update", "rate"), 0.01),
        ("learner.update.rate=learn", "learner", ("update", "rate"), {"learn": {"start": 0.01, "per": "scalar"}}),
        ("learner.update.rate={learn: {per: layer}}", "learner", ("update", "rate", "learn", "per"), "layer"),
        ("learner.update=adam", "learner", ("update", "kind"), "adam"),
        ("learner.architecture.channels=9", "learner", ("architecture", "channels"), 9),
        ("learner.weighting.hidden=9", "learner", ("weighting", "hidden"), 9),
        ("learner=prototypical", "learner", ("method",), "prototypical"),
        ("outer.clip=null", "outer", ("clip",), None),
        ("outer.hypergradient.kind=adjoint", "outer", ("hypergradient", "kind"), "adjoint"),
        ("tasks.ways=20", "tasks", ("ways",), 20),
        ("tasks={source: digits}", "tasks", ("source",), "digits"),
        ("resources.memory=1KB", "resources", ("memory",), 1000),
    ],
)
def test_one_value_is_changed(override, section, path, value):
    document = {**PLAIN, "learner": {**PLAIN["learner"], "architecture": "conv4"}}
    got = getattr(resolved(document, override), section)
    for part in path:
        got = got[part]
    assert got == value


def test_the_mode_of_a_knob_is_switched_by_a_word():
    assert list(searched_knobs(load_experiment(PLAIN, ["learner.update.rate=search"]))) == ["learner.update.rate"]
    ranged = load_experiment(PLAIN, ["learner.update.rate=search", "learner.update.rate.search.high=0.5"])
    assert searched_knobs(ranged)["learner.update.rate"].high == 0.5


def test_a_member_of_a_choice_is_named_as_in_its_knobs():
    experiment = load_experiment(
        CHOICE, ["learner[maml].update.rate=search", "learner[maml(update.steps=2)].update.rate=search"]
    )
    names = ["learner", "learner[maml].update.rate", "learner[maml(update.steps=2)].update.rate"]
    assert list(searched_knobs(experiment)) == names
    assert "learner[anil].update.steps" in searched_knobs(
        load_experiment(CHOICE, ["learner[anil].update.steps=search"])
    )
    assert list(searched_knobs(load_experiment(CHOICE, ["learner.search[0].update.rate=search"])))[1:] == names[1:2]
    replaced = load_experiment(CHOICE, ["learner[anil]=prototypical"])
    assert searched_knobs(replaced)["learner"].options == ("maml", "prototypical", "maml(update.steps=2)")


def test_later_overrides_win_and_the_document_is_left_alone():
    assert resolved(PLAIN, "seed=1", "tasks.ways=7", "tasks.ways=8").tasks["ways"] == 8
    assert PLAIN["tasks"] == "glyphs"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "got 'seed'; give PATH=VALUE, such as learner.update.rate=0.4"),
        ("=3", "give PATH=VALUE"),
        ("learner..rate=3", "got the path 'learner..rate'"),
        ("learner[=3", "got the path 'learner['"),
        ("tasks.ways=[1", "not valid YAML"),
        ("lerner.update=3", "lerner: no setting is named 'lerner'; did you mean 'learner'?"),
        ("learner.updat.rate=3", "learner.updat: no slot is named 'updat'; did you mean 'update'?"),
        ("learner.update.rte=3", "learner.update.rte: no setting of sgd is named 'rte'; did you mean 'rate'?"),
        ("search.trails=3", "search.trails: no setting is named 'trails'; did you mean 'trials'?"),
        ("outer.stps=3", "did you mean 'steps'?"),
        ("learner.update.rate.low=3", "learner.update.rate: is 0.4, which has no settings of its own"),
        ("learner.update.rate.learn.per=layer", "no settings of its own; switch it first, by --set learner.update.ra"),
        ("learner.update.rate.lern.per=layer", "did you mean 'learn'? switch it first, by --set learner.update.rate"),
        ("learner.update.rate=lern", "allowed: a number, {search: ...} or {learn: ...}; did you mean 'learn'?"),
        ("learner.update.rate=nan", "got the text 'nan'; allowed: a number; it must be finite"),
        ("learner.update.rate=-inf", "got the text '-inf'; allowed: a number; it must be finite"),
        ("learner.update.rate='0.4'", "got the text '0.4'; allowed: a number (without the quotes)"),
        ("learner[maml].update.rate=3", "learner: is a mapping with method, update, weighting, not a choice"),
        ("tasks.ways=1", "tasks.ways: got 1; allowed: a whole number or a list, each item a whole number, at least 2"),
    ],
)
def test_a_wrong_override_names_itself(override, message):
    with pytest.raises(ExperimentError) as caught:
        load_experiment(PLAIN, [override])
    assert str(caught.value).startswith(f"--set {override}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("rate", ["learn", {"learn": {"per": "layer"}}, {"search": {"low": 0.1, "high": 1.0}}, None])
def test_a_misspelt_mode_within_a_path_has_its_nearest_spelling(rate):
    update = {} if rate is None else {"rate": rate}
    with pytest.raises(ExperimentError, match=r"no mode is named 'lern'; did you mean 'learn'\?") as caught:
        load_experiment({**PLAIN, "learner": {"update": update}}, ["learner.update.rate.lern.per=layer"])
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "learner.update.rate=3",
            "a choice among maml, anil, maml(update.steps=2); name a member, such as learner[maml].update",
        ),
        (
            "learner[mml].update.rate=3",
            "no member is named 'mml'; did you mean 'maml'? (allowed: anil, maml, maml(update.steps=2))",
        ),
    ],
)
def test_a_choice_asks_which_member(override, message):
    with pytest.raises(ExperimentError) as caught:
        load_experiment(CHOICE, [override])
    assert message in str(caught.value)


def test_every_wrong_override_is_reported():
    with pytest.raises(ExperimentError, match="2 problems"):
        load_experiment(PLAIN, ["a", "b"])


@given(st.text(alphabet="abc.[]=learnrsu{}:0 ", max_size=20))
def test_no_override_breaks_the_reader(override):
    try:
        load_experiment(PLAIN, [override])
    except ExperimentError as error:
        assert error.problems

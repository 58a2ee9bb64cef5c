"""A search over searches: each trial's validation is a set of simulated searches with the trial's settings."""

import pytest
import torch

from metaloom.dashboards.queries import how_to_use
from metaloom.learners.episode import Support
from metaloom.learners.errors import BadInput, LearnerError
from metaloom.orchestrator import api, reading
from metaloom.orchestrator import export as exporting
from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.learned_section import taken_from
from metaloom.orchestrator.simulation.learned import regrets, simulated
from metaloom.testing.problems import SEARCHED, built
from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.result_tables.opening import open_table
from metaloom.workers.errors import BundleError
from metaloom.workers.records import ranking

TASKS = {"source": "searches", "tables": ["bowls/1", "bowls/2"], "test": ["bowls/3"], "budget": 8, "searches": 2}


def experiment(**prediction):
    prediction = {"kind": "search_settings", **prediction}
    return {
        "name": "over",
        "tasks": TASKS,
        "learner": {"method": "search_settings", "prediction": prediction},
        "search": {"trials": 3, "sampler": "random"},
        "seed": 4,
    }


def test_the_loss_of_an_episode_is_the_regret_of_its_search():
    learner = built({"prediction": {"kind": "search_settings", "sampler": "random"}}, SEARCHED)
    query = torch.tensor([[0.0, 11.0], [1.0, 12.0]], dtype=torch.float64)
    support = Support(query[:1], torch.zeros(1, 1, dtype=torch.float64))
    found = learner.adapt({}, learner.begin({}, torch.Generator()), support, torch.Generator()).predict(query)
    for place, (name, seed) in enumerate([("bowls/1", 11), ("bowls/2", 12)]):
        table = open_table(name)
        best = [min(simulated(table, sampler="random", trials=2, seed=seed).ends[at].worth for at in (0, 1))]
        losses = sorted(table.worth)
        expected = (best[0] - losses[0]) / (losses[len(losses) // 2] - losses[0])
        assert float(found[place, 0]) == pytest.approx(expected)


def test_regret_never_rises_and_a_start_counts_as_a_trial():
    table = open_table("bowls/2")
    best = dict(table.configurations[int(table.values.argmin())])
    found = regrets(table, simulated(table, sampler="random", starts=[best], trials=4, seed=0))
    assert found == [0.0] * 4
    plain = regrets(table, simulated(table, sampler="random", trials=12, seed=0))
    assert plain == sorted(plain, reverse=True) and len(plain) == 12


@pytest.mark.parametrize(
    ("prediction", "told"),
    [
        ({"sampler": "tpee"}, "no sampler is named 'tpee'; did you mean 'tpe'?"),
        ({"sampler": {"kind": "tpe", "startup": 3}}, "no setting of tpe is named 'startup'"),
        ({"scheduler": {"kind": "asha", "reduction": 1}}, "learner.prediction.scheduler"),
        ({"scheduler": "pbt"}, "learner.prediction.scheduler: pbt trains on from copies with other knobs"),
    ],
)
def test_wrong_settings_are_refused_before_anything_begins(tmp_path, prediction, told):
    with pytest.raises(BadInput) as refused:
        api.search(experiment(**prediction), store=tmp_path, executor="inline")
    assert told in str(refused.value)
    assert not list((tmp_path / "searches").iterdir())


@pytest.mark.parametrize(
    ("prediction", "told"),
    [
        (
            {"scheduler": "paired"},
            "learner.prediction.scheduler: paired compares trials on the same episodes, which bow",
        ),
        ({"scheduler": {"kind": {"search": ["asha", "paired"]}}}, "learner.prediction.scheduler: paired compares"),
        (
            {"sampler": "grid"},
            "learner.prediction.sampler: bowls/1: a grid cannot hold every value of a continuous knob",
        ),
    ],
)
def test_what_a_table_cannot_take_is_refused_before_anything_is_written(tmp_path, prediction, told):
    with pytest.raises(BadInput) as refused:
        api.search(experiment(**prediction), store=tmp_path, executor="inline")
    assert told in str(refused.value)
    assert not list((tmp_path / "searches").iterdir())


def test_a_searched_kind_is_written_within_its_mapping():
    with pytest.raises(LearnerError, match=r"its kind is searched as \{kind: \{search"):
        built({"prediction": {"kind": "search_settings", "sampler": {"search": ["tpe", "random"]}}}, SEARCHED)


def test_no_other_solver_takes_these_tasks():
    with pytest.raises(LearnerError, match="linear does not solve a search task; use one of search_settings"):
        built({"prediction": {"kind": "linear"}}, SEARCHED)


SINES = {
    "name": "sines",
    "tasks": "sinusoid",
    "learner": {"method": "maml", "update": {"rate": {"search": {"low": 0.01, "high": 1.0, "log": True}}, "steps": 1}},
    "outer": {"steps": 1, "validate_every": 1, "validation_episodes": 2, "test_episodes": 2},
    "search": {"trials": 2},
}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A search of one's own, and the bundle of a search over it and over bowls."""
    store = tmp_path_factory.mktemp("store")
    api.search(SINES, store=store, executor="inline", name="own")
    over = experiment(
        sampler={"kind": "random"}, portfolio={"search": {"low": 1, "high": 2}}, scheduler={"kind": "none"}
    )
    tables = [*TASKS["tables"], f"search/{store}/searches/own"]
    over |= {"tasks": {**TASKS, "tables": tables}, "search": {"trials": 2, "sampler": "grid"}}
    api.search(over, store=store, executor="inline")
    return store, exporting.export("over", store / "bundle", trial="1", store=store)


def test_each_trial_is_judged_by_the_regrets_of_its_searches(learned):
    store, _ = learned
    record = reading.read_search("over", store=store)
    assert record.state == "finished" and [one.last.episodes for one in record.trials.values()] == [6, 6]
    for trial in record.trials.values():
        assert trial.last.metrics["validation_loss"] == pytest.approx(sum(trial.last.scores) / 6)
    assert record.tested["evaluation"]["episodes"] == 2
    trial = record.trials[1]
    source = open_source(trial.config.tasks, seed=4, cache=store)
    for place, score in enumerate(trial.last.scores):  # once more, without the search over them
        episode = source.episode("validation", place)
        column = source.shape.columns[episode.class_ids[0]]
        table = open_table(column["table"])
        found = simulated(table, sampler="random", starts=column["starts"][:2], trials=8, seed=episode.seed)
        assert score == pytest.approx(regrets(table, found)[-1])


def test_the_next_search_takes_the_learned_section(learned):
    store, bundle = learned
    done = api.search(
        {**SINES, "name": "next", "seed": 1}, store=store, executor="inline", search_from=bundle, trials=3
    )
    record = reading.read_search("next", store=store)
    assert record.settings.sampler == {"kind": "random"} and record.settings.scheduler == {"kind": "none"}
    rates = [one.params["learner.update.rate"] for one in ranking.ranked(reading.read_search("own", store=store))]
    assert [record.trials[number].params["learner.update.rate"] for number in (0, 1)] == rates
    assert [trial.origin for trial in record.trials.values()] == ["enqueued:0", "enqueued:1", "random"]
    taken = record.created["search_from"]
    assert taken["bundle"] == str(bundle) and len(taken["enqueue"]) == 2 and done.state == "finished"
    assert record.created["experiment"]["search"]["enqueue"] == taken["enqueue"]


def test_what_the_experiment_gives_wins(learned):
    _, bundle = learned
    given = {**SINES, "search": {"trials": 1, "sampler": "tpe", "enqueue": [{"learner.update.rate": 0.5}]}}
    taken = taken_from(bundle, given, [])
    assert taken.changes == ['search.scheduler={"kind": "none"}']
    assert "search.sampler stays as the experiment gives it" in taken.notes[0]
    assert "the configurations that you give are tried first, not the portfolio" in taken.notes[0]
    assert not any("enqueue" in one for one in taken_from(bundle, SINES, [], enqueues=True).changes)
    assert not any("sampler" in one for one in taken_from(bundle, SINES, ["search.sampler=cmaes"]).changes)


def test_a_portfolio_of_other_knobs_or_ranges_is_left_out(learned):
    _, bundle = learned
    other = {**SINES, "learner": {"method": "maml", "update": {"steps": {"search": [1, 2]}}}}
    told = taken_from(bundle, other, []).notes[0]
    assert "its portfolio is of other knobs than are searched here, and is left out" in told
    update = {"rate": {"search": {"low": 2.0, "high": 3.0}}}
    narrow = taken_from(bundle, {**SINES, "learner": {"method": "maml", "update": update}}, [])
    assert "2 more are outside of the ranges here" in narrow.notes[0]
    assert not any("enqueue" in one for one in narrow.changes)


def test_a_bundle_without_a_search_section_is_refused(learned):
    store, _ = learned
    plain = exporting.export("own", store / "plain", store=store, episodes=0)
    with pytest.raises(BundleError, match=r"the bundle of maml holds no search section; export the best trial"):
        taken_from(plain, SINES, [])


def test_the_commands_say_how_a_section_is_used(learned, capfd):
    store, bundle = learned
    card = (bundle / "card.md").read_text()
    assert "metaloom search FILE --search-from PATH" in card and "| depth | rate | width |" in card
    assert f"Learned on search/{store}/searches/own; the first 2 of 2:" in card
    assert how_to_use(store, "over", 0) == "search FILE --search-from over-bundle"
    assert cli.run(["export", "over", "--out", str(store / "again"), "--episodes", "0", "--store", str(store)]) == 0
    assert f"search with it: metaloom search FILE --search-from {store / 'again'}" in capfd.readouterr().out


def test_a_learned_section_adapts_to_no_examples(learned, capfd):
    _, bundle = learned
    assert cli.run(["adapt", str(bundle), "--support", "a.csv", "--query", "b.csv"]) == 2
    assert "holds the settings of searches, and adapts to no examples; use it with" in capfd.readouterr().err


def test_a_search_that_is_not_there_is_no_table(tmp_path):
    with pytest.raises(DataError, match="holds no search; give STORE/searches/NAME"):
        open_table(f"search/{tmp_path}")

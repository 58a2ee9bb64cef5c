"""A search over searches: each trial's validation is a set of simulated searches with the trial's settings."""

import pytest
import torch

from metaloom.learners.episode import Support
from metaloom.learners.errors import BadInput, LearnerError
from metaloom.orchestrator import api, reading
from metaloom.orchestrator.simulation.learned import regrets, simulated
from metaloom.testing.problems import SEARCHED, built
from metaloom.workers.data.result_tables.opening import open_table

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


def test_a_search_over_searches_records_and_resumes(tmp_path):
    over = experiment(
        sampler={"kind": "tpe", "startup_trials": {"search": {"low": 2, "high": 6, "step": 1}}},
        portfolio={"search": {"low": 0, "high": 3}},
    )
    done = api.search(over, store=tmp_path, executor="inline")
    assert done.state == "finished"
    record = reading.read_search("over", store=tmp_path)
    assert [trial.last.episodes for trial in record.trials.values()] == [4, 4, 4]
    for trial in record.trials.values():
        assert float(trial.knobs["learner.prediction.sampler.startup_trials"]).is_integer()
        assert trial.last.metrics["validation_loss"] == pytest.approx(sum(trial.last.scores) / 4)
    assert record.tested["evaluation"]["episodes"] == 2
    api.search(over, store=tmp_path, executor="inline", name="again")
    again = reading.read_search("again", store=tmp_path)
    assert [one.last.scores for one in again.trials.values()] == [one.last.scores for one in record.trials.values()]


@pytest.mark.parametrize(
    ("prediction", "told"),
    [
        ({"sampler": "tpee"}, "no sampler is named 'tpee'; did you mean 'tpe'?"),
        ({"sampler": {"kind": "tpe", "startup": 3}}, "no setting of tpe is named 'startup'"),
        ({"scheduler": {"kind": "asha", "reduction": 1}}, "learner.prediction.scheduler"),
    ],
)
def test_wrong_settings_are_refused_before_anything_begins(tmp_path, prediction, told):
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

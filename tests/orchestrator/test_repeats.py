"""``search.repeats``: each configuration is trained several times and judged by the mean; duplicates are pooled."""

import statistics
from pathlib import Path
from typing import Any

import pytest

from metaloom.dashboards.queries import search_summary
from metaloom.orchestrator.api import resume, search
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.extending import Extension, extend
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.journal import Journal
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.loading import load_experiment
from metaloom.testing import toy
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.configurations import asked, configurations
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial import REPEAT_EPISODES, TrialConfig
from tests.support.databases import copy_mlflow_database

LOSS = records.VALIDATION_LOSS


class Noisy(toy.ToyTrial):
    """A toy trial whose loss has an offset of its own, by its number."""

    def _report(self) -> Any:
        report = super()._report()
        offset = 0.37 * ((7 * self.config.trial) % 5) / 5
        metrics = {**report.metrics, LOSS: report.metrics[LOSS] + offset}
        return type(report)(**{**vars(report), "metrics": metrics})

    def __init__(self, config: TrialConfig, directory: Path) -> None:
        self.config = config
        super().__init__(config, directory)


def open_noisy(config: TrialConfig, directory: Path) -> Noisy:
    return Noisy(config, directory)


def run(director: Director) -> Director:
    InlineExecutor(Interruption()).run(director, open_noisy)
    return director


def go_on(folder: Path) -> Director:
    director = Director(Journal(folder), toy.ToySpace())
    director.start()
    return director


def firsts(director: Director) -> list[dict[str, Any]]:
    return [trial.params for trial in director.state.trials.values() if trial.repeat_of is None]


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes", "nsga2", "grid", "gp"])
def test_each_suggestion_is_trained_so_often_and_judged_by_the_mean(tmp_path: Path, sampler: str) -> None:
    options = {"startup_trials": 2} if sampler in ("tpe", "gp") else {"population": 2} if sampler == "nsga2" else {}
    section: dict[str, Any] = {"sampler": {"kind": sampler, **options}, "trials": 4, "repeats": 3}
    director = run(toy.direct(tmp_path / "s", **section))
    trials = director.state.trials
    assert [trial.repeat_of for trial in trials.values()] == [None, 0, 0, None, 3, 3, None, 6, 6, None, 9, 9]
    groups = [[trials[first + index] for index in range(3)] for first in (0, 3, 6, 9)]
    means = {}
    for group in groups:
        assert all(trial.params == group[0].params and trial.state == records.FINISHED for trial in group)
        assert [trial.config.repeat for trial in group if trial.config] == [0, 1, 2]
        assert len({trial.values[LOSS] for trial in group}) > 1
        means[group[0].number] = statistics.fmean(trial.values[LOSS] for trial in group)
    best = ranking.best(director.state)
    assert best is not None and best.number == min(means, key=means.__getitem__)
    assert [one.number for one in ranking.ranked(director.state)] == sorted(means, key=means.__getitem__)
    assert ranking.judged_value(director.state, best) == pytest.approx(means[best.number], rel=1e-12)
    assert asked(director.state) == 12


def test_a_sampler_sees_the_means(tmp_path: Path) -> None:
    """The suggestions are those of a search whose single trials have the means as their values."""
    section: dict[str, Any] = {"sampler": {"kind": "tpe", "startup_trials": 2}, "trials": 6}
    repeated = run(toy.direct(tmp_path / "repeated", **section, repeats=2))
    study = repeated._proposer._study
    means = [statistics.fmean(trial.values[LOSS] for trial in one.trials) for one in configurations(repeated.state)]
    assert [trial.value for trial in study.trials] == pytest.approx(means, rel=1e-12)
    assert [trial.params for trial in study.trials] == firsts(repeated)


@pytest.mark.parametrize("scheduler", [{"kind": "none"}, {"kind": "asha", "grace_steps": 1}])
@pytest.mark.parametrize("cut", [1, 5])
def test_a_search_with_repeats_killed_anywhere_comes_to_the_same_end(
    tmp_path: Path, scheduler: dict[str, Any], cut: int
) -> None:
    section: dict[str, Any] = {"sampler": {"kind": "tpe", "startup_trials": 2}, "scheduler": scheduler, "repeats": 2}
    whole = run(toy.direct(tmp_path / "whole", **section, trials=5))
    director = toy.direct(tmp_path / "cut", **section, trials=3)
    trials = 3
    while not director.is_over or trials == 3:
        if director.is_over:
            director.end()
            extend(director.journal, Extension(trials=5))
            trials = 5
        else:
            _step(director, cut)
        director.journal.close()
        director = go_on(tmp_path / "cut")
    assert toy.outcome(director) == toy.outcome(whole)
    assert [one.repeat_of for one in director.state.trials.values()] == [
        one.repeat_of for one in whole.state.trials.values()
    ]


def _step(director: Director, count: int) -> None:
    """Take some reports of the next trial, and one more that does not reach the journal."""
    assignment = director.next_trial()
    assert assignment is not None
    assignment.directory.mkdir(parents=True, exist_ok=True)
    trial = open_noisy(assignment.config, assignment.directory)
    missing = trial.last_report if trial.step > max(assignment.known_step, 0) else None
    if missing is not None and director.report(assignment.config.trial, missing) != "continue":
        return
    for _ in range(count):
        if director.report(assignment.config.trial, trial.advance()) != "continue":
            return
    trial.advance()


def test_what_a_scheduler_has_stopped_is_not_repeated_and_repeats_are_not_judged(tmp_path: Path) -> None:
    scheduler = {"kind": "asha", "grace_steps": 1}
    director = run(toy.direct(tmp_path / "s", scheduler=scheduler, trials=8, repeats=3))
    trials = director.state.trials
    stopped = [one for one in trials.values() if one.state == records.STOPPED]
    assert stopped and all(one.repeat_of is None for one in stopped)
    repeated = {one.repeat_of for one in trials.values() if one.repeat_of is not None}
    finished = {one.number for one in trials.values() if one.repeat_of is None and one.state == records.FINISHED}
    assert repeated == finished and len(trials) == asked(director.state) == 8 + 2 * len(finished)
    assert firsts(director) and director.state.begun == 8


def test_a_suggestion_that_fails_is_not_repeated(tmp_path: Path) -> None:
    director = run(toy.direct(tmp_path / "s", toy.ToySpace({"fail_at": 2}), trials=3, repeats=4))
    assert len(director.state.trials) == 3
    assert {one.state for one in director.state.trials.values()} == {records.FAILED}


def test_repeats_run_beside_their_first_trial_where_nothing_else_is_left(tmp_path: Path) -> None:
    director = toy.direct(tmp_path / "s", trials=2, repeats=2)
    taken = [director.next_trial() for _ in range(5)]
    assert [one and one.config.trial for one in taken] == [0, 1, 2, 3, None]
    assert [one.repeat_of for one in director.state.trials.values()] == [None, None, 0, 1]


def test_duplicates_are_told_and_judged_together(tmp_path: Path) -> None:
    given = [{"origin": "old", "params": {"learner.method": "plain", "rate": 0.25}}] * 2
    director = run(toy.direct(tmp_path / "searches" / "s", warm_start=given, trials=4))
    first, second, *_ = director.state.trials.values()
    assert (first.twin, second.twin) == (None, 0) and second.values != first.values
    assert "its knobs are those of trial 0: both are judged by their mean" in second.notes
    mean = statistics.fmean([first.values[LOSS], second.values[LOSS]])
    assert ranking.judged_value(director.state, first) == pytest.approx(mean, rel=1e-12)
    assert [one.number for one in ranking.ranked(director.state)].count(1) == 0
    (pooled,) = search_summary(tmp_path, "s")["configurations"]
    assert pooled["trials"] == [0, 1] and pooled["mean"] == pytest.approx(mean, rel=1e-12)
    assert pooled["knobs"] == first.knobs


def test_a_lucky_trial_of_a_configuration_that_lacks_repeats_is_not_the_best(tmp_path: Path) -> None:
    director = toy.direct(tmp_path / "s", trials=2, repeats=2)
    for _ in range(3):
        assignment = director.next_trial()
        assert assignment is not None
        assignment.directory.mkdir(parents=True)
        trial = open_noisy(assignment.config, assignment.directory)
        while director.report(assignment.config.trial, trial.advance()) == "continue":
            pass
    ranked = ranking.ranked(director.state)
    assert [one.number for one in ranked] == [0, 2]  # trial 2 has no repeat yet, whatever its value


FILE = """\
name: sine
tasks: {source: sinusoid, shots: 5, queries: 5}
learner: {method: maml, architecture: {kind: mlp, hidden: [8]}, update: {rate: {search: [0.01, 0.05]}, steps: 1}}
outer: {steps: 4, meta_batch: 2, validate_every: 2, validation_episodes: 4, test_episodes: 6, strategy: loop}
search: {trials: 2, sampler: grid, repeats: 2}
tracking: {uri: "sqlite:///%s"}
"""


def test_real_repeats_have_other_draws_and_the_same_validation(tmp_path: Path) -> None:
    copy_mlflow_database(tmp_path / "mlflow.db")
    (tmp_path / "sine.yaml").write_text(FILE % (tmp_path / "mlflow.db"))
    store = tmp_path / "store"
    summary = search(tmp_path / "sine.yaml", store=store, executor="inline")
    state = SearchRecord.read(store / "searches" / "sine")
    assert [trial.repeat_of for trial in state.trials.values()] == [None, 0, None, 2]
    values = {number: trial.values[LOSS] for number, trial in state.trials.items()}
    assert len(set(values.values())) == 4
    means = {0: statistics.fmean([values[0], values[1]]), 2: statistics.fmean([values[2], values[3]])}
    assert summary.best == min(means, key=means.__getitem__) and summary.value == pytest.approx(min(means.values()))
    assert [one["trials"] for one in search_summary(store, "sine")["configurations"]] == (
        [[0, 1], [2, 3]] if summary.best == 0 else [[2, 3], [0, 1]]
    )
    assert state.trials[1].config is not None and state.trials[1].config.first_episode == REPEAT_EPISODES
    assert resume("sine", store, trials=2).notes


def test_digests_and_records_of_searches_without_repeats_stay(tmp_path: Path) -> None:
    (tmp_path / "sine.yaml").write_text(FILE % (tmp_path / "mlflow.db"))
    one = load_experiment(tmp_path / "sine.yaml", ["search.repeats=1"])
    assert one.fingerprint() == load_experiment(tmp_path / "sine.yaml", ["search.repeats-"]).fingerprint()
    assert one.fingerprint() != load_experiment(tmp_path / "sine.yaml").fingerprint()
    config = TrialConfig("s", 0, 0, {}, {})
    assert "repeat" not in config.to_json() and TrialConfig.from_json(config.to_json()) == config
    again = TrialConfig("s", 0, 0, {}, {}, repeat=2)
    assert TrialConfig.from_json(again.to_json()) == again


def test_repeats_do_not_go_with_a_population(tmp_path: Path) -> None:
    (tmp_path / "sine.yaml").write_text(FILE % (tmp_path / "mlflow.db"))
    changes = ["search.scheduler=pbt", "search.trials=4", "search.sampler=random", "learner.update.rate=search"]
    with pytest.raises(ExperimentError, match=r"search\.repeats: pbt changes knobs while it trains"):
        load_experiment(tmp_path / "sine.yaml", changes)

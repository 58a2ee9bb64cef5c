"""A trial tells its story; interrupted anywhere, it tells the same one."""

import dataclasses
import json

import pytest
import torch

from metaloom.learners.base import EpisodeOutcome, MetaStep
from metaloom.learners.state import LearnerState
from metaloom.workers.errors import CheckpointError, StorageError, TrialFailed
from metaloom.workers.failures import check_validation
from metaloom.workers.records.names import MEASURED
from metaloom.workers.records.trial import TrialRunner, read_config
from metaloom.workers.scoring import evaluate_learner
from metaloom.workers.trial.runner import Trial
from tests.support.closed_form import CACHE, SIGN, SINE, Ridge, Sines, assembly, config
from tests.support.episodes import read_episodes
from tests.support.limits import no_file_above


def open_trial(directory, one=None, **parts):
    one = one or config()
    return Trial(one, directory, cache=CACHE, assembly=assembly(one, **parts))


def run(trial):
    reports = []
    while not trial.finished:
        reports.append(trial.advance())
    return reports


def timeless(report):
    """A report without what a clock decided."""
    metrics = {name: value for name, value in report.metrics.items() if name not in MEASURED}
    return dataclasses.replace(report, metrics=metrics, seconds=0.0, notes=())


def rows(directory):
    return [{**row, "seconds": 0.0} for row in read_episodes(directory / "episodes").to_pylist()]


def assert_same(one, other):
    """Bit for bit the same trial."""
    for mine, yours in ((one.phi, other.phi), (one.state.flat(), other.state.flat())):
        assert mine.keys() == yours.keys()
        assert all(torch.equal(mine[name], yours[name]) for name in mine)
    assert timeless(one.last_report) == timeless(other.last_report)
    assert rows(one.directory) == rows(other.directory)


def test_it_is_a_runner(tmp_path):
    runner: TrialRunner = open_trial(tmp_path)
    assert (runner.step, runner.finished, runner.last_report) == (0, False, None)


def test_the_story(tmp_path):
    trial = open_trial(tmp_path)
    reports = run(trial)
    assert [one.step for one in reports] == [20, 40, 60]
    assert [one.finished for one in reports] == [False, False, True]
    assert [one.episodes for one in reports] == [70, 140, 210]
    assert reports[-1].metrics["validation_loss"] < 0.9 * reports[0].metrics["validation_loss"]
    last = reports[-1]
    assert last.interval[0] < last.metrics["validation_loss"] < last.interval[1]
    assert len(last.scores) == 10
    assert last.metrics["parameters"] == 17
    assert 0 < last.metrics["recording_seconds"] < last.metrics["seconds"] <= last.seconds
    assert set(last.metrics) == {
        "train_loss",
        "hypergradient_norm",
        "validation_loss",
        "validation_constant_loss",
        "seconds",
        "adapt_seconds",
        "parameters",
        "recording_seconds",
        "sampling_seconds",
        "inner_seconds",
        "outer_seconds",
        "validating_seconds",
        "peak_bytes",
    }
    assert last.device == "cpu"
    assert read_config(tmp_path) == config()
    assert json.loads((tmp_path / "task.json").read_text())["kind"] == "regression"
    with pytest.raises(ValueError, match="finished"):
        trial.advance()


def test_every_episode_is_a_row(tmp_path):
    run(open_trial(tmp_path))
    found = rows(tmp_path)
    training = [row for row in found if row["phase"] == "train"]
    assert [(row["step"], row["episode"]) for row in training] == [(n // 3, n) for n in range(180)]
    assert all(row["hypergradient_norm"] > 0 for row in training)
    validation = [row for row in found if row["phase"] == "validation"]
    assert [(row["step"], row["episode"]) for row in validation] == [(s, n) for s in (20, 40, 60) for n in range(10)]
    assert all(row["hypergradient_norm"] is None for row in validation)
    assert all(len(row["losses"]) == 2 and row["accuracies"] == [] for row in found)
    assert all(len(row["sample_ids"]) == 30 for row in found)


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_resumed_trial_is_the_uninterrupted_one(tmp_path, online, precision, optimizer):
    one = config(precision=precision, optimizer=optimizer, schedule="cosine", clip=0.3)
    whole = open_trial(tmp_path / "whole", one, learner=Ridge(online=online))
    run(whole)
    for _ in range(3):  # a new process each time, so to say
        parts = open_trial(tmp_path / "parts", one, learner=Ridge(online=online))
        parts.advance()
    assert_same(whole, open_trial(tmp_path / "parts", one, learner=Ridge(online=online)))


class Interrupted(Exception):  # noqa: N818
    pass


class Interrupting(Ridge):
    """Raises in its n-th call of a kind, as a signal handler would."""

    def __init__(self, call, left, **options):
        super().__init__(**options)
        self.call, self.left = call, left

    def count(self, call):
        self.left -= call == self.call
        if self.left < 0:
            raise Interrupted

    def meta_step(self, phi, state, episodes, generator):
        self.count("meta_step")
        return super().meta_step(phi, state, episodes, generator)

    def advance(self, phi, state, episodes, generator):
        self.count("advance")
        return super().advance(phi, state, episodes, generator)

    def evaluate(self, phi, state, episode, generator):
        self.count("evaluate")
        return super().evaluate(phi, state, episode, generator)


@pytest.mark.parametrize(("call", "after"), [("meta_step", 0), ("meta_step", 33), ("advance", 50), ("evaluate", 25)])
def test_interrupted_in_the_middle(tmp_path, call, after):
    whole = open_trial(tmp_path / "whole", learner=Ridge(online=True))
    run(whole)
    with pytest.raises(Interrupted):
        run(open_trial(tmp_path / "parts", learner=Interrupting(call, after, online=True)))
    resumed = open_trial(tmp_path / "parts", learner=Ridge(online=True))
    run(resumed)
    assert_same(whole, resumed)


def test_a_damaged_checkpoint_costs_one_interval_and_is_said(tmp_path):
    whole = open_trial(tmp_path / "whole")
    run(whole)
    parts = open_trial(tmp_path / "parts")
    parts.advance()
    parts.advance()
    (newest,) = (tmp_path / "parts" / "checkpoints").glob("*-00002.safetensors")
    newest.write_bytes(newest.read_bytes()[:-3])
    resumed = open_trial(tmp_path / "parts")
    assert resumed.step == 20
    first, *_ = run(resumed)
    assert any("checkpoint 2 is damaged" in note for note in first.warnings)
    assert any("went back to checkpoint 1, at step 20" in note for note in first.warnings)
    assert_same(whole, resumed)


def test_all_checkpoints_lost_starts_again_and_is_said(tmp_path):
    parts = open_trial(tmp_path)
    parts.advance()
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"")
    first, *_ = run(open_trial(tmp_path))
    assert first.step == 20
    assert "started again from step 0" in first.warnings[-1]


def test_the_last_report_is_there_after_a_crash(tmp_path):
    report = open_trial(tmp_path).advance()
    assert open_trial(tmp_path).last_report == report


def test_all_trials_validate_on_the_same_episodes(tmp_path):
    for trial in (0, 1):
        run(open_trial(tmp_path / str(trial), config(trial)))
    first, second = (
        [
            (row["step"], row["seed"], row["sample_ids"])
            for row in rows(tmp_path / str(trial))
            if row["phase"] == "validation"
        ]
        for trial in (0, 1)
    )
    assert first == second
    phis = [open_trial(tmp_path / str(trial), config(trial)).phi["mean"] for trial in (0, 1)]
    assert not torch.equal(*phis)  # yet each draws its own start


def test_a_report_can_be_had_again_from_the_knowledge(tmp_path):
    trial = open_trial(tmp_path)
    last = run(trial)[-1]
    evaluation = evaluate_learner(trial.learner, trial.phi, trial.state, trial.source, "validation", 10)
    assert evaluation.scores == last.scores


def test_classification_reports_accuracy_first(tmp_path):
    trial = open_trial(tmp_path, learner=Ridge(SIGN), source=Sines(1, SIGN))
    last = run(trial)[-1]
    assert 0.5 < last.metrics["validation_accuracy"] <= 1
    assert last.interval[0] <= last.metrics["validation_accuracy"] <= last.interval[1]
    assert {"validation_loss", "train_accuracy"} <= set(last.metrics)
    assert rows(tmp_path)[0]["class_ids"] == [0, 1]


class Drifting(Ridge):
    """Gets worse from its third validation on: its hypergradient points uphill after 50 steps."""

    def meta_step(self, phi, state, episodes, generator):
        found = super().meta_step(phi, state, episodes, generator)
        done = state.step + 1
        turned = {name: -slope if done > 50 else slope for name, slope in found.gradient.items()}
        return dataclasses.replace(found, gradient=turned, state=LearnerState(torch.tensor(done)))


def test_it_stops_early_and_keeps_the_best(tmp_path):
    one = config(steps=1000, validate_every=10, patience=3, rate=0.05)
    trial = open_trial(tmp_path, one, learner=Drifting())
    reports = run(trial)
    losses = [report.metrics["validation_loss"] for report in reports]
    best = min(range(len(losses) - 1), key=losses.__getitem__)
    assert trial.step == reports[best].step + 30 < 1000
    assert losses[-1] == losses[best]
    assert reports[-1].scores == reports[best].scores
    assert "stopped early" in reports[-1].notes[0]
    assert f"step {reports[best].step}, which validated best" in reports[-1].notes[1]
    evaluation = evaluate_learner(trial.learner, trial.phi, trial.state, trial.source, "validation", 10)
    assert evaluation.scores == reports[best].scores
    again = open_trial(tmp_path, one, learner=Drifting())
    assert all(torch.equal(again.phi[name], trial.phi[name]) for name in trial.phi)


def test_early_stopping_survives_an_interruption(tmp_path):
    one = config(steps=1000, validate_every=10, patience=3, rate=0.05)
    whole = open_trial(tmp_path / "whole", one, learner=Drifting())
    run(whole)
    while not open_trial(tmp_path / "parts", one, learner=Drifting()).finished:
        open_trial(tmp_path / "parts", one, learner=Drifting()).advance()
    assert_same(whole, open_trial(tmp_path / "parts", one, learner=Drifting()))


def test_a_loss_that_is_not_finite_fails_with_its_reason(tmp_path):
    one = config(optimizer="sgd", rate=1e30)
    one = dataclasses.replace(one, learner={"update": {"rate": 0.4, "steps": 5}})
    with pytest.raises(TrialFailed, match=r"trial 0, outer step \d+: .* is (nan|inf)") as failure:
        run(open_trial(tmp_path, one))
    message = str(failure.value)
    assert "learner.update.rate (now 0.4)" in message
    assert "outer.rate (now 1e+30)" in message
    assert "outer.clip (now its default)" in message


def test_a_learner_without_inner_steps_is_not_told_to_change_them():
    with pytest.raises(
        TrialFailed, match=r"is nan\. Try a smaller outer\.rate \(now \S+\) or outer\.clip \(now its default\)$"
    ):
        check_validation(float("nan"), dataclasses.replace(config(), learner={"method": "prototypical"}), 3)


class Steep(Ridge):
    """One leaf's hypergradient is not finite while the loss is: as from a square root at zero."""

    def meta_step(self, phi, state, episodes, generator):
        found = super().meta_step(phi, state, episodes, generator)
        return dataclasses.replace(found, gradient=found.gradient | {"log_penalty": torch.tensor(torch.inf)})


def test_a_hypergradient_that_is_not_finite_is_named(tmp_path):
    with pytest.raises(TrialFailed, match=r"outer step 0: the hypergradient of 'log_penalty' is inf"):
        run(open_trial(tmp_path, learner=Steep()))


class Unsound(Ridge):
    """Fails in validation only."""

    def evaluate(self, phi, state, episode, generator):
        return EpisodeOutcome((1.0, float("nan")))


def test_a_validation_that_is_not_finite_fails(tmp_path):
    with pytest.raises(TrialFailed, match=r"outer step 20: the loss of a validation episode is nan"):
        run(open_trial(tmp_path, learner=Unsound()))


class Greedy(Ridge):
    """Really asks for 8 PB."""

    def meta_step(self, phi, state, episodes, generator):
        torch.empty(10**15, dtype=torch.float64)
        raise AssertionError("there was room")


def test_running_out_of_memory_says_what_to_make_smaller(tmp_path):
    with pytest.raises(TrialFailed, match=r"trial 0 ran out of memory .*outer.meta_batch \(now 3\)"):
        run(open_trial(tmp_path, learner=Greedy()))


class Wide(Ridge):
    def init(self, generator):
        return {"weight": torch.empty(2**50)}


def test_weights_that_memory_cannot_hold_say_what_to_make_smaller(tmp_path):
    with pytest.raises(TrialFailed, match=r"ran out of memory \(4,?096 TiB were asked for at once\).*narrower network"):
        open_trial(tmp_path, learner=Wide())


class Wrong(Ridge):
    def meta_step(self, phi, state, episodes, generator):
        raise RuntimeError("a mistake of its own")


def test_a_learners_own_mistake_is_not_dressed_up(tmp_path):
    with pytest.raises(RuntimeError, match="a mistake of its own"):
        run(open_trial(tmp_path, learner=Wrong()))


class Baseline(Ridge):
    """Learns nothing."""

    def init(self, generator):
        return {}

    def evaluate(self, phi, state, episode, generator):
        return EpisodeOutcome((1.0,))

    def meta_step(self, phi, state, episodes, generator):
        return MetaStep(1.0, {}, tuple(EpisodeOutcome((1.0,)) for _ in episodes))


def test_what_learns_nothing_is_only_scored(tmp_path):
    (report,) = run(open_trial(tmp_path, learner=Baseline()))
    assert (report.step, report.finished, report.metrics["parameters"]) == (0, True, 0)
    assert open_trial(tmp_path, learner=Baseline()).finished


def test_an_online_learner_without_phi_is_trained(tmp_path):
    class Plain(Baseline):
        def advance(self, phi, state, episodes, generator):
            return LearnerState(running={"mean": state.running["mean"] + 1})

        def begin(self, phi, generator):
            return LearnerState(running={"mean": torch.zeros(2)})

    trial = open_trial(tmp_path, learner=Plain(online=True))
    run(trial)
    assert trial.state.running["mean"].tolist() == [60, 60]


def test_no_outer_steps_are_a_score_of_the_start(tmp_path):
    (report,) = run(open_trial(tmp_path, config(steps=0)))
    assert report.step == 0


def test_the_last_interval_may_be_shorter(tmp_path):
    reports = run(open_trial(tmp_path, config(steps=45)))
    assert [one.step for one in reports] == [20, 40, 45]


def test_the_checkpoint_of_another_learner_is_refused(tmp_path):
    open_trial(tmp_path).advance()
    with pytest.raises(CheckpointError, match="another learner: mean differ in shape"):
        open_trial(tmp_path, learner=Ridge(SIGN))


def test_a_full_disk_stops_the_trial_and_it_goes_on_later(tmp_path):
    whole = open_trial(tmp_path / "whole")
    run(whole)
    trial = open_trial(tmp_path / "parts")
    trial.advance()
    with no_file_above(600), pytest.raises(StorageError, match="free some space"):
        trial.advance()
    resumed = open_trial(tmp_path / "parts")
    assert resumed.step == 20
    run(resumed)
    assert_same(whole, resumed)


def test_closing_lets_go(tmp_path):
    trial = open_trial(tmp_path)
    trial.advance()
    trial.close()
    assert trial.phi == {}
    assert open_trial(tmp_path).step == 20


def test_the_first_steps_are_those_of_torch(tmp_path):
    """The whole outer loop against one written out with torch.optim, in float64."""
    one = config(precision="float64", steps=10, validate_every=10, clip=0.2, schedule="cosine")
    trial = open_trial(tmp_path, one)
    leaves = {name: torch.nn.Parameter(leaf) for name, leaf in trial.phi.items()}
    run(trial)
    learner, source = Ridge(SINE), Sines(one.seed)
    optimizer = torch.optim.Adam(list(leaves.values()), lr=0.02)
    anneal = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for step in range(10):
        sampled = [source.episode("train", 3 * step + i) for i in range(3)]
        episodes = [s.episode.to(torch.device("cpu"), torch.float64) for s in sampled]
        generator = trial._generator("meta_step", step=step)
        found = learner.meta_step(
            {name: leaf.detach() for name, leaf in leaves.items()}, LearnerState(), episodes, generator
        )
        for name, leaf in leaves.items():
            leaf.grad = found.gradient[name].clone()
        torch.nn.utils.clip_grad_norm_(list(leaves.values()), 0.2)
        optimizer.step()
        anneal.step()
    for name, leaf in leaves.items():
        torch.testing.assert_close(trial.phi[name], leaf.detach(), rtol=1e-5, atol=1e-7)

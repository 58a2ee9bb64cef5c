"""Trials are compared on the same episodes, with the intervals that SciPy gives for the recorded scores."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from scipy import stats

from metaloom.orchestrator import comparison
from metaloom.orchestrator.command_line import cli
from metaloom.workers.records.trial import TrialConfig

SMALL = [
    *("--set", "outer.steps=2", "--set", "outer.validate_every=2", "--set", "outer.meta_batch=2"),
    *("--set", "outer.validation_episodes=2", "--set", "outer.test_episodes=5", "--set", "outer.strategy=loop"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with MAML of seeds 0 and 1, with other shots, and Meta-SGD of seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("store")
    for preset, name, seed in (("maml", "m0", 0), ("maml", "m1", 1), ("meta-sgd", "s0", 0), ("meta-sgd", "s1", 1)):
        command = ["train", f"sinusoid-{preset}", "--name", name, "--seed", str(seed), *SMALL]
        assert cli.run([*command, "--store", str(folder)]) == 0
    other = ["--set", "tasks.shots=3", "--name", "shots", "--seed", "0", *SMALL]
    assert cli.run(["train", "sinusoid-maml", *other, "--store", str(folder)]) == 0
    return folder


def losses(store: Path, name: str, seed: int = 0) -> list[float]:
    """Return the recorded losses of a trial's test, by episode."""
    part = store / "searches" / name / "trials" / "0000" / "episodes" / f"part-test-{seed}.parquet"
    rows = parquet.read_table(part).sort_by("episode").to_pylist()
    return [row["loss_after"] for row in rows]


def test_two_trials_are_compared_pair_by_pair(store: Path) -> None:
    found = comparison.compare("m0", "s0:0", store=store)
    assert (found.metric, found.episodes, found.seed) == ("loss", 5, 0)
    first, second = found.contenders
    assert (first.name, second.name, first.better_than_first) == ("m0:0", "s0:0", None)
    assert first.mean == pytest.approx(stats.tmean(losses(store, "m0")))
    better = second.better_than_first
    assert better is not None and better.seeds_interval is None
    paired = stats.ttest_rel(losses(store, "m0"), losses(store, "s0"))  # a lower loss is better
    assert better.mean == pytest.approx(stats.tmean(losses(store, "m0")) - stats.tmean(losses(store, "s0")))
    assert better.interval == pytest.approx(paired.confidence_interval())
    values = {one.name: one.values for one in found.differing}
    assert values["learner.method"] == ("maml", "meta_sgd")
    assert not [name for name in values if name.startswith(("tasks.", "outer."))]


def test_what_is_recorded_is_compared_without_a_test_and_what_is_missing_is_named(store: Path) -> None:
    assert comparison.compare_recorded("m0", "s0", store=store) == comparison.compare("m0", "s0", store=store)
    part = store / "searches" / "m1" / "trials" / "0000" / "episodes" / "part-test-0.parquet"
    with pytest.raises(
        comparison.NotTested, match=r"m1:0 not tested yet on 5 episodes of seed 0.*metaloom compare m0 m1"
    ):
        comparison.compare_recorded("m0", "m1", store=store)
    assert not part.exists()


def test_a_recorded_comparison_needs_no_torch(store: Path) -> None:
    code = "import sys; from pathlib import Path; from metaloom.orchestrator.comparison import compare_recorded"
    told = f"{code}; compare_recorded('m0', 's0', store=Path({str(store)!r})); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], check=True, capture_output=True).stdout == b"False\n"


def test_trials_that_differ_by_their_seed_are_one_contender(store: Path) -> None:
    told: list[str] = []
    found = comparison.compare("m0", "m1", "s1", "s0", store=store, told=told.append)
    assert told == [f"testing {name}:0 on 5 episodes of seed 0 ..." for name in ("m1", "s1")]
    first, second = found.contenders
    assert (first.name, second.name) == ("m0:0, m1:0", "s1:0, s0:0")
    assert [run.seed for run in second.runs] == [1, 0]
    means = {name: stats.tmean(losses(store, name)) for name in ("m0", "m1", "s0", "s1")}
    assert first.mean == pytest.approx((means["m0"] + means["m1"]) / 2)
    better = second.better_than_first
    assert better is not None
    over = stats.ttest_rel([means["m0"], means["m1"]], [means["s0"], means["s1"]]).confidence_interval()
    assert better.seeds_interval == pytest.approx(over)
    averages = [
        [(one + two) / 2 for one, two in zip(losses(store, f"{name}0"), losses(store, f"{name}1"), strict=True)]
        for name in "ms"
    ]
    assert better.interval == pytest.approx(stats.ttest_rel(*averages).confidence_interval())
    assert repr(found).startswith("<comparison on 5 test episodes of seed 0, loss:\n  m0:0, m1:0 ")
    alone = comparison.compare("m0", "m1", store=store)  # else there would be nothing to compare
    assert [one.name for one in alone.contenders] == ["m0:0", "m1:0"] and alone.differing == ()


def test_the_repeats_of_the_best_configuration_are_one_contender(store: Path) -> None:
    command = ["search", "sinusoid-maml", "--name", "repeated", "--executor", "inline", *SMALL]
    more = ["--trials", "1", "--set", "search.repeats=2", "--set", "search.baselines=[]"]
    assert cli.run([*command, *more, "--store", str(store)]) == 0
    found = comparison.compare("repeated", "s0", "s1", store=store)
    repeats, sgd = found.contenders
    assert repeats.name == "repeated:0, repeated:1" and [run.trial for run in repeats.runs] == [0, 1]
    assert sgd.better_than_first is not None and sgd.better_than_first.seeds_interval is not None
    alone = comparison.compare("repeated:1", "s0", store=store)
    assert alone.contenders[0].name == "repeated:1"


def test_other_seeds_on_both_sides_are_compared_by_welch() -> None:
    scores = {"a:0": 0.5, "b:0": 0.7, "c:0": 0.4, "d:0": 0.3, "e:0": 0.2}
    runs = [
        comparison.Run(name[0], 0, Path(), TrialConfig(name[0], 0, seed, {}, {}), "accuracy")
        for seed, name in enumerate(scores)
    ]
    found = comparison._over_seeds(runs[2:], runs[:2], {name: {"episode": one} for name, one in scores.items()})
    assert found == pytest.approx(stats.ttest_ind([0.4, 0.3, 0.2], [0.5, 0.7], equal_var=False).confidence_interval())


def test_other_episodes_are_tested_on_request(store: Path) -> None:
    found = comparison.compare("m0", "s0", store=store, episodes=3, seed=7)
    assert (found.episodes, found.seed) == (3, 7)
    assert len(losses(store, "m0", seed=7)) == 3
    fewer = comparison.compare("m0", "s0", store=store, episodes=4)  # of the 5 that are recorded
    assert fewer.episodes == 4 and fewer.contenders[0].mean == pytest.approx(stats.tmean(losses(store, "m0")[:4]))


def test_it_is_shown_as_tables(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["compare", "m0", "m1", "s0", "s1", "--store", str(store)]) == 0
    shown = capfd.readouterr().out
    assert "over seeds [95% interval]" in shown
    assert "on the same 5 test episodes, of seed 0" in shown
    assert "learned per=parameter" in shown
    assert cli.run(["compare", "m0", "s0", "--store", str(store), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["contenders"][1]["better_than_first"]["seeds_interval"] is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["m0"], "at least two trials"),
        (["m0", "m0:0"], "at least two trials, such as A B or A:3 A:7; got 1"),
        (["m0", "shot"], "did you mean 'shots'"),
        (["m0:1", "s0"], "search 'm0' has no trial 1; it has 0"),
        (["m0", "shots"], "have no test episodes in common: tasks.shots is 10 and 3"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    store: Path, capfd: pytest.CaptureFixture[str], given: list[str], told: str
) -> None:
    assert cli.run(["compare", *given, "--store", str(store)]) == 2
    assert told in capfd.readouterr().err

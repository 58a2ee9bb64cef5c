"""``metaloom replay`` and ``metaloom simulate``: real searches and files, the answers and the errors."""

import itertools
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metaloom.dashboards.json_page import keys
from metaloom.dashboards.regret_plot import regret_figure
from metaloom.dashboards.simulated_rows import ReachedRow, RegretRow, SimulationRow
from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.simulation.candidates import Candidates
from metaloom.orchestrator.simulation.comparing import AS_LOGGED, Strategy
from metaloom.orchestrator.simulation.replaying import read_replayed
from metaloom.orchestrator.simulation.summing import _reached
from metaloom.testing import toy
from metaloom.workers.data.base import DataError
from metaloom.workers.data.result_tables import LoggedTable, ResultColumns, read_results
from metaloom.workers.data.result_tables.opening import open_table
from metaloom.workers.records.results import mean_interval, quantile
from metaloom.workers.records.trial import Report
from tests.orchestrator.simulation.test_replayed_decisions import DOMAINS, Log

SMALL = [
    *("--set", "outer.steps=4", "--set", "outer.validate_every=1", "--set", "outer.meta_batch=2"),
    *("--set", "outer.validation_episodes=8", "--set", "outer.test_episodes=4", "--set", "outer.strategy=loop"),
    *("--set", "search.scheduler={kind: asha, reduction_factor: 2}", "--executor", "inline", "-q"),
]
ROWS = list(itertools.product((0.001, 0.01, 0.1), (8, 16), ("relu", "tanh")))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished search, ``first``, some of whose trials were stopped."""
    folder = tmp_path_factory.mktemp("store")
    assert cli.run(["search", "quick", "--name", "first", "--trials", "6", *SMALL, "--store", str(folder)]) == 0
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A table of twelve configurations with three steps each."""
    path = tmp_path / "results.csv"
    lines = ["rate,width,kind,epoch,loss,time"]
    for (rate, width, kind), epoch in itertools.product(ROWS, (1, 2, 3)):
        loss = abs(rate - 0.01) + 1 / width + (kind == "tanh") + 1 / epoch
        lines.append(f"{rate},{width},{kind},{epoch},{loss},{epoch * width}")
    path.write_text("\n".join(lines))
    return path


def answer(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    capfd.readouterr()
    assert cli.run([*map(str, arguments), "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def refused(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capfd.readouterr()
    assert cli.run(list(map(str, arguments))) == 2
    return capfd.readouterr().err


def test_a_real_search_is_replayed_as_it_was_and_with_others(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    more = ("--sampler", "tpe", "--sampler", "random", "--scheduler", "asha", "--scheduler", "none", "--seeds", "3")
    found = answer(capfd, "replay", "first", *more, "--store", store)
    names = [one["name"] for one in found["strategies"]]
    assert names == ["as logged", "tpe + asha", "tpe", "random + asha", "random"]
    logged, *others = found["strategies"]
    record = read_replayed("first", store).record
    assert logged["trials"] == len(record.trials) == 6 and logged["left_out"]["trials"] == 0
    stopped = [one for one in record.trials.values() if one.state == "stopped"]
    assert logged["stopped"] == len(stopped) > 0
    assert logged["time"] == pytest.approx(sum(one.reports[-1].seconds for one in record.trials.values()))
    assert logged["by_trials"][-1]["regret"] >= 0
    for one in others:
        assert one["seeds"] == [0, 1, 2] and len(one["by_time"]) == 10
        assert (one["left_out"]["steps"] > 0) == ("asha" not in one["name"] or one["left_out"]["trials"] > 0)
    whole = next(one for one in others if one["name"] == "random")
    assert whole["left_out"]["steps"] == sum(4 - one.step for one in stopped)
    assert whole["reached"]["seeds"] == 3  # every logged trial is taken in the end


def test_the_words_say_what_is_left_out_and_the_figure_is_drawn(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "regret.svg"
    asked = ["replay", "first", "--scheduler", "none", "--seeds", "2", "--plot", str(figure), "--store", str(store)]
    capfd.readouterr()
    assert cli.run(asked) == 0
    told = capfd.readouterr().out
    assert "6 configurations, each once only; validation_loss, of which less is better" in told
    assert "trials would have gone on where their curves end" in told and "of those asked for, are left out" in told
    assert "as logged" in told and "regret after simulated time" in told
    assert figure.read_text().lstrip().startswith("<?xml")


def test_the_answer_of_a_table_is_the_mean_over_its_seeds(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    columns = ("--objective", "loss", "--minimize", "--step", "epoch", "--seconds", "time")
    found = answer(capfd, "simulate", results, *columns, "--sampler", "random", "--trials", "12", "--seeds", "4")
    assert (found["configurations"], found["once"], found["unit"]) == (12, False, "s")
    assert found["best"] == pytest.approx(1 / 16 + 1 / 3)
    singles = [
        answer(capfd, "simulate", results, *columns, "--sampler", "random", "--trials", "12", "--seeds", "1", *seed)
        for seed in (("--seed", str(number)) for number in range(4))
    ]
    for place, point in enumerate(found["strategies"][0]["by_trials"]):
        alone = [one["strategies"][0]["by_trials"][place] for one in singles]
        assert all(one["best_interval"] is None for one in alone)
        mean, low, high = mean_interval([one["best"] for one in alone])
        assert point["best"] == pytest.approx(mean) and point["best_interval"] == pytest.approx([low, high])
        assert point["regret"] == pytest.approx(mean - found["best"])
    reached = sorted(one["strategies"][0]["reached"]["trials"] or 99 for one in singles)
    assert found["strategies"][0]["reached"]["seeds"] == sum(one < 99 for one in reached)
    documented = {path.split(".")[0].removesuffix("[]") for path, _ in keys(SimulationRow)}
    assert set(found) == documented


def test_quartiles_of_two_seeds_lie_between_them() -> None:
    assert [quantile([4, 3], share) for share in (0.25, 0.5, 0.75)] == [3.25, 3.5, 3.75]
    assert quantile([1, math.inf, 2], 0.5) == 2 and not math.isfinite(quantile([1, math.inf, 2], 0.75))
    searches: Any = [
        SimpleNamespace(ends=[SimpleNamespace(worth=float(at < first), at_s=2.0 * at) for at in range(1, 6)])
        for first in (3, 4)
    ]
    assert _reached(searches, open_table("bowls/1"), 0.0) == ReachedRow(
        seeds=2, trials=3.5, trials_quartiles=(3.25, 3.75), time=7.0
    )


def test_a_figure_has_whole_numbers_of_trials_and_the_height_of_its_lines() -> None:
    points = [
        RegretRow(at=at, best=0.5 / at, best_interval=(-5.0, 6.0), regret=0.5 / at - 0.1, regret_interval=(0.0, 6.0))
        for at in (1.0, 2.0, 3.0, 4.0)
    ]
    found = SimulationRow(
        table="t",
        measure="loss",
        direction="minimize",
        configurations=4,
        once=False,
        best=0.1,
        target=0.1,
        unit="s",
        workers=1,
        strategies=(SimpleNamespace(name="tpe", by_trials=points, by_time=points),),  # type: ignore[arg-type]
    )
    best, regret, by_time = regret_figure(found).axes
    for axes in (best, regret):
        assert [one.get_text() for one in axes.get_xticklabels(which="both")] == ["1", "2"]
    assert best.get_ylim() == pytest.approx((0.08, 0.52)) and by_time.get_ylim()[0] > 0


def test_a_named_table_says_itself_what_it_holds(capfd: pytest.CaptureFixture[str]) -> None:
    found = answer(capfd, "simulate", "bowls/1", "--sampler", "random", "--trials", "9", "--seeds", "2")
    assert (found["table"], found["measure"], found["strategies"][0]["trials"]) == ("bowls/1", "loss", 9)


def test_what_cannot_be_asked_is_refused_with_its_reason(
    store: Path, results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    of = ("--store", store)
    assert "did you mean 'first'" in refused(capfd, "replay", "fist", *of)
    said = refused(capfd, "replay", "first", "--sampler", "pgp", *of)
    assert "--sampler pgp: search.sampler: " in said and "did you mean 'gp'" in said and "--set" not in said
    assert "pbt copies a trial's state into another" in refused(capfd, "replay", "first", "--scheduler", "pbt", *of)
    assert "pbt trains on from copies" in refused(capfd, "simulate", "bowls/1", "--scheduler", "pbt")
    assert "allowed are .png and .svg" in refused(capfd, "replay", "first", "--plot", tmp_path / "a.pdf", *of)
    assert "give --objective" in refused(capfd, "simulate", results)
    assert "give --minimize or --maximize" in refused(capfd, "simulate", results, "--objective", "loss")
    assert "did you mean 'loss'" in refused(capfd, "simulate", results, "--objective", "los", "--minimize")
    assert "--knobs: of files alone" in refused(capfd, "simulate", "bowls/1", "--knobs", "rate")
    assert "did you mean 'bowls'" in refused(capfd, "simulate", "bowl/1")
    assert "there is no file none.csv" in refused(capfd, "simulate", "none.csv")
    (tmp_path / "results.txt.bak").write_text("a,loss\n")
    assert "has not the ending of a table: .csv" in refused(capfd, "simulate", tmp_path / "results.txt.bak")


def table_of(path: Path, text: str, **columns: Any) -> Any:
    path.write_text(text)
    return read_results(path, ResultColumns(**{"objective": "loss", "direction": "minimize", **columns}))


def test_rows_are_runs_or_curves_or_failures(tmp_path: Path) -> None:
    runs = table_of(tmp_path / "a.csv", "a,b,loss\n1,2,0.5\n1,3,0.7\n1,2,0.1\n")
    assert runs.configurations == [{"a": "1", "b": 2}, {"a": "1", "b": 3}]
    assert [runs.value(0), runs.value(1), runs.best] == [pytest.approx(0.3), 0.7, pytest.approx(0.3)]
    text = "a,b,step,loss,s\n1,2,1,0.5,2\n1,2,2,0.4,3\n1,2,1,0.9,1\n1,2,2,nan,2\n2,3,1,0.6,9\n"
    curves = table_of(tmp_path / "b.csv", text, steps="step", seconds="s")
    whole, failed = (curves.curve(0, run=run, seed=1) for run in (0, 1))
    if failed.problem == "":  # the seed draws which comes first
        whole, failed = failed, whole
    assert [(one.step, one.seconds, one.finished) for one in whole.reports] == [(1, 2.0, False), (2, 3.0, True)]
    assert failed.problem == "loss is not finite at step 2" and [one.step for one in failed.reports] == [1]
    assert curves.value(0) == 0.4  # of the run that did not fail
    cut = curves.curve(1, run=0, seed=0)
    assert (cut.length, cut.is_whole, [one.step for one in cut.reports]) == (2, False, [1])


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("a,loss\n1,0.5\n,0.6\n", {}, "row 2: column a is empty"),
        ("a,loss\n1,0.5\n2,x\n", {}, "row 2: loss is 'x'; give a finite number"),
        ("a,loss\n1,\n2,nan\n", {}, "no row has a value of loss"),
        ("a,s,loss\n1,1.5,0.6\n", {"steps": "s"}, "row 1: s is 1.5; allowed: whole numbers from 1"),
        ("a,e,s,loss\n1,1,5,0.6\n1,2,3,0.6\n", {"steps": "e", "seconds": "s"}, "row 2: s falls to 3 within one"),
        ("a,loss\n1,0.5\n", {"knobs": ["loss"]}, "--knobs: loss is measured"),
        ("loss\n0.5\n", {}, "there is no column of a knob in it"),
    ],
)
def test_a_file_that_is_no_table_of_results_is_refused_by_row(
    tmp_path: Path, text: str, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message.replace(".", r"\.")):
        table_of(tmp_path / "a.csv", text, **columns)


def test_parquet_reads_as_csv(tmp_path: Path, results: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    other = tmp_path / "results.parquet"
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(results), other)
    columns = ResultColumns("loss", "minimize", ("rate", "width", "kind"), "time", "epoch")
    read, again = (read_results(path, columns) for path in (results, other))
    assert read.configurations == again.configurations and read.domains == again.domains
    assert [read.curve(place, run=0, seed=0) for place in range(12)] == [
        again.curve(place, run=0, seed=0) for place in range(12)
    ]


def test_a_search_of_several_trials_at_once_is_shown_in_its_own_order(tmp_path: Path) -> None:
    """What was decided at another time is not decided again: each logged trial goes as far as it went."""
    log = Log(tmp_path / "first", trials=6, scheduler={"kind": "asha", "reduction_factor": 2})
    director = Director(log, toy.ToySpace())
    director.start()
    running = [director.next_trial() for _ in range(6)]
    for step in range(toy.STEPS):  # as on six workers, of which the last are the fastest
        for assignment in filter(None, reversed(running)):
            number = assignment.config.trial
            if not director.state.trials[number].ended:
                loss = abs(number - 2.2) + 1 / (step + 1)
                director.report(number, report(step + 1, loss))
    director.end()
    stopped = {number: one.step for number, one in director.state.trials.items() if one.state == "stopped"}
    assert stopped
    table = LoggedTable("first", director.state, toy.ToySpace(), DOMAINS)
    starts = [{"origin": AS_LOGGED, "params": dict(one)} for one in table.configurations]
    settings = director.settings
    found = Strategy(AS_LOGGED, settings, [0], starts, is_logged=True).run(table, 0, Candidates(table), 4)
    assert list(found.places.values()) == list(range(6)) and not found.unseen
    assert {number: one.step for number, one in found.record.trials.items()} == {
        number: one.step for number, one in director.state.trials.items()
    }
    assert [one.trial for one in found.ends] == list(range(6))
    again = Strategy("tpe", settings, [0], starts).run(table, 0, Candidates(table), 1)  # decided one after another
    assert {number: one.step for number, one in again.record.trials.items()} != {
        number: one.step for number, one in director.state.trials.items()
    }


def report(step: int, loss: float) -> Report:
    metrics = {"validation_loss": loss, "parameters": 8.0}
    return Report(step, metrics, (loss, loss), (loss,) * 4, 0, float(step), step == toy.STEPS)


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "simulation.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    exec(compile(example, "docs/simulation.md", "exec"), {})
    worth, best = map(float, capsys.readouterr().out.split())
    assert worth == best == 1 / 32

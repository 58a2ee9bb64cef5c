"""What the page of a trial shows, of records as trials leave them."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaloom.dashboards import checkpoint_rows, queries, trial_curves, trial_facts, trial_history
from metaloom.dashboards.setting_rows import setting_rows
from metaloom.dashboards.trial_episodes import adaptation_curves, curve_of, hypergradient_norms, measured_steps
from metaloom.workers.records import names as records
from metaloom.workers.records.results import INNER_STEPS, mean_interval
from metaloom.workers.records.trial import Report, TrialConfig
from metaloom.workers.records.trial_record import TrialRecord
from tests.dashboards.conftest import Write, episode, report, story
from tests.workers.test_trial import open_trial, run

WriteEpisodes = Callable[[str, int, list[dict[str, Any]]], Path]
LEARNER: dict[str, Any] = {
    "method": "maml",
    "initialization": {"kind": "learned"},
    "update": {"kind": "sgd", "rate": {"learn": {"start": 0.1, "per": ["parameter"]}}, "steps": 2},
    "loss": [{"kind": "mse"}, {"kind": "soft_l1", "strength": 0.5}],
    "architecture": {"kind": "conv4", "channels": 8},
}
KNOBS = {
    "learner": "maml",
    "learner[maml].update.rate.start": 0.1,
    "learner.architecture": "conv4",
    "stages.last.outer.rate": 0.3,
}
LOG = json.dumps({"name": "FloatDistribution", "attributes": {"low": 0.01, "high": 1.0, "log": True, "step": None}})


def trial_of(learner: dict[str, Any], knobs: dict[str, Any], **more: Any) -> TrialRecord:
    before = {"name": "first", "tasks": {"source": "glyphs"}, "learner": {"method": "x"}, "inner": {}, "outer": {}}
    settings: dict[str, Any] = {"outer": {"rate": 0.3}, "stage": "last", "stages": [before], **more}
    config = TrialConfig("s", 0, 7, {"source": "glyphs"}, learner, **settings)
    return TrialRecord(0, knobs=knobs, distributions={"stages.last.outer.rate": LOG}, config=config)


def test_each_setting_is_fixed_searched_or_learned() -> None:
    leaves = ["initialization/w", "initialization/b", "update/rate/w", "update/rate/b"]
    rows = {row.name: row for row in setting_rows(trial_of(LEARNER, KNOBS), leaves)}
    marks = {name: (row.mark, row.value, row.told) for name, row in rows.items()}
    assert marks["stages.first.tasks.source"] == ("fixed", "glyphs", "")
    assert marks["learner.method"] == ("searched", "maml", "")
    assert marks["learner.initialization.kind"] == ("learned", "learned", "2 tensors")
    assert marks["learner.update.rate"] == ("learned, searched", "0.1", "one per parameter")
    assert marks["learner.update.kind"] == ("fixed", "sgd", "")  # its tensors are those of the rate
    assert marks["learner.loss.1.strength"] == ("fixed", "0.5", "")
    assert marks["learner.architecture.kind"][0] == "searched"
    assert marks["learner.architecture.channels"] == ("fixed", "8", "")
    assert marks["outer.rate"] == ("searched", "0.3", "0.01 to 1, log")
    assert list(dict.fromkeys(row.section for row in rows.values())) == [
        *("stages.first.tasks", "stages.first.learner"),
        *("tasks", "learner", "outer"),
    ]
    assert setting_rows(TrialRecord(0)) == ()


def finished(*values: float, **metrics: float) -> list[Report]:
    return [Report.from_json(report(step, value, **metrics)) for step, value in enumerate(values, 1)]


def test_curves_of_a_classification_are_accuracies_and_losses() -> None:
    reports = finished(0.5, 0.75, **{records.VALIDATION_LOSS: 2.0})
    judged, losses = trial_curves.learning_curves(reports, "classification")
    assert [(one.name, one.values) for one in judged] == [("validation accuracy", [0.5, 0.75])]
    assert judged[0].intervals == [(0.45, 0.55), (0.7, 0.8)]
    assert [one.name for one in losses] == ["validation loss", "training loss"]
    assert losses[0].intervals is None


def of_loss(loss: float, **metrics: float) -> Report:
    return Report(1, {records.VALIDATION_LOSS: loss, **metrics}, (loss - 1, loss + 1), (loss,), 1, 1.0, False)


def test_a_regression_has_errors_in_the_units_of_its_target() -> None:
    (error,), losses = trial_curves.learning_curves([of_loss(4.0, validation_rmse=6.0)], "regression")
    assert error.values == [pytest.approx(6.0)]
    assert error.intervals == [(pytest.approx(3 * math.sqrt(3)), pytest.approx(3 * math.sqrt(5)))]
    assert losses[0].intervals == [(3.0, 5.0)]
    assert trial_curves.learning_curves([of_loss(4.0)], "regression")[0] == []


def test_control_is_judged_by_its_return() -> None:
    (gained,), losses = trial_curves.learning_curves([of_loss(-20.0)], "control")
    assert (gained.name, gained.values, gained.intervals) == ("validation return", [20.0], [(19.0, 21.0)])
    assert losses == []


def test_several_data_sets_have_a_curve_each() -> None:
    one = Report.from_json({**report(1, 0.5), "by_source": {"<b>a</b>": [0.4, 0.3, 0.5, 3]}})
    judged, _ = trial_curves.learning_curves([*finished(0.4), one], "classification")
    assert judged[1].name == "<b>a</b>"
    assert judged[1].values[1] == 0.4 and math.isnan(judged[1].values[0])


def test_the_time_of_each_report_is_divided() -> None:
    parts = {records.SAMPLING_SECONDS: 1.0, records.INNER_SECONDS: 4.0, records.OUTER_SECONDS: 0.5}
    parts |= {records.VALIDATING_SECONDS: 2.0, records.RECORDING_SECONDS: 0.5}
    double = {name: 2 * seconds for name, seconds in parts.items()}
    reports = [*finished(0.5, **parts, seconds=10.0), *finished(0.5, **double, seconds=30.0)]
    split = trial_curves.time_split(reports)
    assert split["inner loops"] == [4.0, 4.0]
    assert split[trial_curves.REST] == [2.0, 12.0]
    assert sum(map(sum, split.values())) == 30.0


def test_a_trial_of_an_earlier_version_has_its_records_and_the_rest() -> None:
    split = trial_curves.time_split(finished(0.5, recording_seconds=1.0, seconds=10.0))
    assert {name: seconds for name, seconds in split.items() if any(seconds)} == {
        "recording": [1.0],
        trial_curves.REST: [9.0],
    }


def test_the_curve_is_that_of_the_figure(tmp_path: Path, write_search: Write, write_episodes: WriteEpisodes) -> None:
    from metaloom.dashboards.figures import adaptation_curve

    write_search("first", story({0: 0.7}))
    rows = [{**episode(0, "validation", n, value), "shots": 1} for n, value in enumerate((0.6, 0.8, 0.1))]
    write_episodes("first", 0, rows)
    write_episodes("first", 0, [{**episode(0, "validation", 0, 0.9), "step": 20}])
    write_episodes("first", 0, [{**episode(0, "train", 0, 0.9), "hypergradient_norm": 2.5}])
    trial = queries.search_record(tmp_path, "first").trials[0]
    directory = queries.trial_folder(tmp_path, "first", 0)
    assert measured_steps(directory, trial) == {"validation": [10, 20]}
    (loss, accuracy), damaged = adaptation_curves(directory, trial, "validation", 10)
    assert (loss.metric, loss.means, accuracy.of, damaged) == ("loss", [1.5, 0.5], INNER_STEPS, ())
    figure = adaptation_curve(tmp_path, "first", 0, step=10)
    assert (figure["mean"], figure["low"], figure["high"]) == (accuracy.means, accuracy.lows, accuracy.highs)
    assert (accuracy.means[1], accuracy.lows[1]) == mean_interval([0.6, 0.8, 0.1], metric="accuracy")[:2]
    assert (accuracy.quarters[1], accuracy.three_quarters[1]) == (pytest.approx(0.35), pytest.approx(0.7))
    assert [(one.step, one.norm) for one in hypergradient_norms(directory, trial)] == [(10, 2.5)]


def test_what_was_not_measured_leaves_a_gap() -> None:
    curve = curve_of([[None, 1.0], [None, 3.0]], "loss", phase="train", step=1, in_order=False)
    assert math.isnan(curve.means[0]) and curve.means[1] == 2.0
    assert curve.quarters[1] == 1.5


def test_a_damaged_part_is_left_out_and_named(
    tmp_path: Path, write_search: Write, write_episodes: WriteEpisodes
) -> None:
    write_search("first", story({0: 0.7}))
    whole = write_episodes("first", 0, [episode(0, "validation", 0, 0.6)])
    broken = write_episodes("first", 0, [episode(0, "validation", 1, 0.8)])
    broken.write_bytes(broken.read_bytes()[:-20])
    trial = queries.search_record(tmp_path, "first").trials[0]
    curves, damaged = adaptation_curves(whole.parents[1], trial, "validation", 10)
    assert (curves[0].episodes, [part.path for part in damaged]) == (1, [broken])


def test_the_history_tells_of_sessions_and_resumes(tmp_path: Path, write_search: Write) -> None:
    session = (records.SEARCH_STARTED, None, {"pid": 1, "host": "h", "spent_s": 0.0})
    lost = {"reason": "killed by <script>", "lost": True}
    first, *others = story({0: 0.7})
    events = [session, first, others[0], (records.TRIAL_INTERRUPTED, 0, lost), session]
    again = (records.TRIAL_STARTED, 0, {"attempt": 2, "worker": "inline"})
    folder = write_search(
        "first", [*events, again, (others[1][0], 0, {**others[1][2], "worker": "host:9"}), *others[2:]]
    )
    rows = trial_history.history(folder, 0)
    assert [(row.session, row.what, row.told) for row in rows] == [
        (1, "suggested", "by random"),
        (1, "started", ""),
        (1, "worker lost", "killed by <script>"),
        (2, "resumed", "attempt 2"),
        (2, "reported", "at step 10"),
        (2, "reported", "at step 20"),
        (2, "finished", "validation_accuracy 0.7"),
    ]
    assert [row.worker for row in rows[3:5]] == ["inline", "host:9"]
    record = queries.search_record(tmp_path, "first")
    facts = {one.name: one.text for one in trial_facts.facts(record, record.trials[0], rows)}
    assert (facts["sessions"], facts["worker"], facts["workers lost"]) == ("2, 1 resume", "host:9", "1")
    assert facts["validation accuracy"] == "0.7000 [0.6500, 0.7500]"
    (folder / records.JOURNAL_FILE).write_bytes(b"no database")
    assert trial_history.history(folder, 0) == ()


def test_the_output_is_read_from_its_end_in_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial_history.output_page(tmp_path) is None
    lines = [f"line {number} \x1b[31mred\x1b[0m password=hunter22\n" for number in range(9)]
    (tmp_path / records.OUTPUT_FILE).write_text("".join(lines))
    monkeypatch.setattr(trial_history, "PAGE_BYTES", 100)
    read, end = "", None
    while (page := trial_history.output_page(tmp_path, end)) is not None and page.end > 0:
        assert page.text.endswith("\n") and page.text.startswith("line ")
        read, end = page.text + read, page.start
    assert read == "".join(f"line {number} red password=***\n" for number in range(9))
    page = trial_history.output_page(tmp_path, 100)
    assert page is not None and trial_history.output_end_after(page) == 200


def test_the_checkpoints_are_those_of_the_trial(tmp_path: Path) -> None:
    assert checkpoint_rows.checkpoint_rows(tmp_path) == ()
    trial = open_trial(tmp_path)
    run(trial)
    newest, before = checkpoint_rows.checkpoint_rows(tmp_path)
    assert (newest.step, before.step, newest.learned) == (60, 40, ("mean", "log_penalty"))
    assert newest.size > 100 and newest.time >= before.time
    manifest = tmp_path / records.CHECKPOINTS_FOLDER / newest.file
    manifest.write_text(manifest.read_text().replace("60", "61"))
    assert [row.step for row in checkpoint_rows.checkpoint_rows(tmp_path)] == [None, 40]
    assert checkpoint_rows.learned_names(tmp_path) == ("mean", "log_penalty")


@pytest.mark.parametrize(
    ("state", "more", "told", "commands"),
    [
        ("finished", {}, "Finished: all 2 outer steps are done.", ["export"]),
        ("stopped", {"reason": "worse"}, "Stopped after 2 outer steps: worse.", ["show", "train", "export"]),
        ("failed", {"reason": "diverged"}, "Failed after 2 outer steps: diverged", ["show", "train"]),
        (
            "waiting",
            {"attempts": 1, "reason": "lost"},
            "Waiting to be resumed after 2 outer steps: lost.",
            ["resume"],
        ),
        ("waiting", {}, "Waiting: it has not begun.", ["resume"]),
    ],
)
def test_how_it_stands_and_what_to_do(
    tmp_path: Path, write_search: Write, state: str, more: dict[str, Any], told: str, commands: list[str]
) -> None:
    write_search("first", story({0: 0.7}))
    record = queries.search_record(tmp_path, "first")
    record.state = records.INTERRUPTED
    trial = TrialRecord(0, state, config=TrialConfig("s", 0, 0, {}, {}), reports=finished(0.5, 0.6), **more)
    assert trial_facts.how_it_stands(trial) == told
    found = [line.split()[1] for one in trial_facts.advice(record, trial, "first", tmp_path) for line in one.commands]
    assert found == commands


def test_health_names_what_records_what_is_missing() -> None:
    plain = TrialRecord(0, reports=finished(0.5, hypergradient_norm=2.0))
    signs = {one.name: one for one in trial_facts.health(plain, "first", Path("store"))}
    assert signs["norm"].text == "2" and signs["norm"].recorded
    residual = signs["relative residual of its solver"]
    assert not residual.recorded and "outer.hypergradient: conjugate_gradient" in residual.text
    assert "metaloom check trial.yaml" in signs["error of the hypergradient"].text
    implicit = finished(0.5, **{records.RESIDUAL: 1e-3, records.INNER_GRADIENT_NORM: 0.25})
    signs = {one.name: one for one in trial_facts.health(TrialRecord(0, reports=implicit), "first", Path("store"))}
    assert signs["relative residual of its solver"].text == "0.001"
    assert signs["norm of the inner gradient at its solution"].text == "0.25"
    assert trial_curves.diagnostics(implicit) == {"residual": [1e-3], "inner_gradient_norm": [0.25]}


def test_the_page_itself_needs_no_torch() -> None:
    heavy = "{'torch', 'pyarrow', 'scipy'}"
    code = f"import sys, metaloom.dashboards.pages.routes.trial; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_long_history_is_cut_and_says_so(tmp_path: Path, write_search: Write) -> None:
    from metaloom.dashboards.pages.context import environment
    from metaloom.dashboards.pages.routes.trial import MOST_EVENTS

    reports = [(records.TRIAL_REPORTED, 0, {"report": report(step, 0.5)}) for step in range(1, 400)]
    folder = write_search("first", [*story({0: 0.7})[:2], *reports])
    rows = trial_history.history(folder, 0)
    assert len(rows) == 401
    left_out = len(rows) - MOST_EVENTS
    values = {"name": "first", "number": 0, "health": (), "checkpoints": (), "stages": (), "store": "s"}
    template = environment().get_template("parts/trial_rest.html")
    text = template.render(events=rows[-MOST_EVENTS:], left_out=left_out, **values)
    assert f"{left_out} before them are left out" in text and text.count("<tr>") == 1 + MOST_EVENTS
    assert "at step 399" in text and "at step 100<" not in text

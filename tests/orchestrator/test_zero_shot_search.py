"""A search on described classes from the command line: what is refused before it begins, and how it goes on."""

from pathlib import Path

import numpy as np
import pytest

from metaloom.orchestrator.command_line import cli


@pytest.fixture
def tasks(tmp_path: Path) -> list[str]:
    """The settings of tasks with 16 classes that a table describes."""
    generator = np.random.default_rng(0)
    rows = [f"{a!r},{b!r},k{place % 16}" for place, (a, b) in enumerate(generator.normal(size=(96, 2)).tolist())]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,label", *rows]) + "\n")
    (tmp_path / "classes.csv").write_text("\n".join(["name,fur", *(f"k{n},{n}.5" for n in range(16))]) + "\n")
    (tmp_path / "tasks.yaml").write_text(
        f"tasks: {{source: table, path: {tmp_path}/table.csv, label: label, ways: 3, queries: 4, shots: 0, "
        f"class_features: {{path: {tmp_path}/classes.csv, class: name}}}}\n"
        "learner: {method: METHOD, architecture: {kind: linear}}\n"
        "outer: {steps: 4, validate_every: 2, validation_episodes: 2, test_episodes: 2, rate: {search: [0.01, 0.1]}}\n"
        "search: {trials: 1}\n"
    )
    return ["--executor", "inline", "--store", str(tmp_path / "store")]


def file_of(tmp_path: Path, method: str) -> str:
    path = tmp_path / f"{method}.yaml"
    path.write_text((tmp_path / "tasks.yaml").read_text().replace("METHOD", method))
    return str(path)


def test_a_search_ends_with_a_bundle_that_adapts_to_a_table_of_classes(
    tmp_path: Path, tasks: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["search", file_of(tmp_path, "zero_shot_prototypical"), "--name", "zero", *tasks]) == 0
    printed = capfd.readouterr()
    assert "metaloom adapt zero-bundle --classes CLASSES.csv --query QUERY.csv" in printed.out
    assert "1 feature describes a class: fur" in printed.err
    store, bundle = tasks[2:], str(tmp_path / "bundle")
    assert cli.run(["export", "zero", "--out", bundle, *store]) == 0
    assert f"metaloom adapt {bundle} --classes PATH --query PATH" in capfd.readouterr().out
    (tmp_path / "new.csv").write_text("name,fur\nwolf,3.0\ncat,9.0\n")
    (tmp_path / "query.csv").write_text("a,b\n0.1,0.2\n-1.0,0.4\n")
    command = ["adapt", bundle, "--classes", str(tmp_path / "new.csv"), "--query", str(tmp_path / "query.csv")]
    assert cli.run([*command, "--out", str(tmp_path / "saved")]) == 0
    printed = capfd.readouterr()
    assert "wolf" in printed.out or "cat" in printed.out
    assert cli.run(["adapt", str(tmp_path / "saved"), "--query", str(tmp_path / "query.csv")]) == 0
    assert cli.run(["verify", bundle, *store]) == 0


@pytest.mark.parametrize(
    ("method", "sets", "message"),
    [
        ("prototypical", [], "tasks.class_features: prediction prototypes does not use what describes the classes"),
        (
            "zero_shot_prototypical",
            ["tasks.class_features=null", "tasks.shots=1"],
            "predicts from features of each class",
        ),
        ("zero_shot_prototypical", ["tasks.class_features=null"], "tasks.shots: got 0 shots"),
        ("zero_shot_prototypical", ["tasks.shots=2"], "takes no labelled examples, but got 6"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(
    tmp_path: Path,
    tasks: list[str],
    capfd: pytest.CaptureFixture[str],
    method: str,
    sets: list[str],
    message: str,
) -> None:
    settings = [part for one in sets for part in ("--set", one)]
    assert cli.run(["search", file_of(tmp_path, method), "--name", "zero", *settings, *tasks]) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "store" / "searches" / "zero").exists()

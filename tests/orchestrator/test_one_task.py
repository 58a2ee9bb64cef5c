"""The README's own lines on one labelled data set: a new user's table, from the file to a result."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_diabetes, load_wine

from metaloom import Experiment, train
from metaloom.learners.episode import TaskShape
from metaloom.search_spaces.errors import ExperimentError
from metaloom.workers.bundle_reading import check_targets
from metaloom.workers.errors import BundleError

README = (Path(__file__).parents[2] / "README.md").read_text()


def write(path: Path, data: np.ndarray, names: list[str], label: str, target: list[str]) -> None:
    rows = [",".join([*(f"{value:.6g}" for value in row), one]) for row, one in zip(data, target, strict=True)]
    path.write_text("\n".join([",".join([*names, label]), *rows]) + "\n")


def test_wine_works_by_the_readmes_own_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = (one for one in re.findall(r"```yaml\n(.*?)```", README, flags=re.S) if "wine.csv" in one)
    wine = load_wine()
    write(tmp_path / "wine.csv", wine.data, wine.feature_names, "cultivar", [f"c{one}" for one in wine.target])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wine.yaml").write_text(block)
    summary = train("wine.yaml")
    assert summary.tested is not None and summary.tested["evaluation"]["mean"] > 0.9
    assert summary.tested["evaluation"]["episodes"] == 4  # all 36 test rows


def test_a_regression_is_shown_in_its_units_beside_a_constant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_diabetes()
    target = [f"{one:g}" for one in found.target]
    write(tmp_path / "diabetes.csv", found.data, found.feature_names, "progression", target)
    monkeypatch.chdir(tmp_path)
    text = """
      tasks: {source: table, path: diabetes.csv, label: progression, kind: regression, episodes: single_task}
      learner: {method: cross_entropy, architecture: {kind: mlp, hidden: [16]}}
      outer: {steps: 150}
      search: {baselines: [constant]}
    """
    summary = train(yaml.safe_load(text))
    assert summary.tested is not None
    (baseline,) = summary.baselines
    evaluation = summary.tested["evaluation"]
    assert 40 < evaluation["units"]["rmse"] < 75 < evaluation["units"]["constant_rmse"] < 85  # of a spread of 77
    assert baseline["evaluation"]["mean"] == pytest.approx(evaluation["constant"], rel=1e-6)
    assert baseline["best_better_by"]["mean"] > 0


def test_targets_of_another_scale_are_not_scored() -> None:
    plain, scaled = (TaskShape("regression", (2,), 1, target_mean=one, target_deviation=one) for one in ((), (2.0,)))
    check_targets(scaled, scaled, Path("trial"))
    with pytest.raises(BundleError, match=r"trial: it was trained on targets as they stand.*standardize: false"):
        check_targets(plain, scaled, Path("trial"))
    with pytest.raises(BundleError, match="standardized by other training rows"):
        check_targets(scaled, plain, Path("trial"))


def test_an_experiment_says_where_data_of_python_go() -> None:
    with pytest.raises(ExperimentError, match=r"tasks: got list.*as tasks= of metaloom.search, train or check"):
        Experiment(tasks=(np.zeros((4, 2)), np.zeros(4)), learner="maml")

"""The bundle of a single task of the user's own knows its classes."""

import numpy as np
import pytest

from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.bundle import Bundle, load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.errors import BundleError
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.trial.runner import Trial

LABELS = np.array([3, 5, 12])
X = np.random.default_rng(0).normal(size=(150, 2)) + 6.0 * np.arange(150)[:, None] % 18
Y = LABELS[np.arange(150) % 3]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    np.savez(folder / "data.npz", x=X, y=Y)
    experiment = Experiment(
        tasks={"source": "arrays", "path": str(folder / "data.npz"), "episodes": "single_task"},
        learner={"method": "cross_entropy", "architecture": {"kind": "mlp", "hidden": [16]}},
        outer={"steps": 200, "validate_every": 200},
    )
    one = resolve(experiment, defaults(experiment))
    trial = Trial(
        TrialConfig("one", 0, 0, one.tasks, one.learner, one.inner, one.outer, {"device": "cpu"}),
        folder / "trial",
        cache=folder / "cache",
    )
    while not trial.finished:
        trial.advance()
    return load_bundle(write_bundle(folder / "trial", folder / "bundle", origin={}, evaluation=None))


def test_a_support_set_may_lack_a_class(bundle: Bundle) -> None:
    assert bundle.task.class_names == ("3", "5", "12")
    without = Y != 3
    model = bundle.adapt(X[without][:20], Y[without][:20])
    assert model.labels.tolist() == [3, 5, 12]
    assert (model.predict(X[:60]) == Y[:60]).mean() > 0.95
    texts = bundle.adapt(X[without][:20], Y[without][:20].astype(str))
    assert texts.predict(X[:3]).tolist() == ["3", "5", "12"]


def test_some_strange_labels_are_refused_and_others_alone_are_a_new_task(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BundleError, match="no class of this bundle is named '13'"):
        bundle.adapt(X[:2], [5, 13])
    model = bundle.adapt(X[:3], ["a", "b", "c"])
    assert model.labels.tolist() == ["a", "b", "c"]
    assert "none of a, b, c is a class of this bundle (3, 5, 12): a new task" in caplog.text

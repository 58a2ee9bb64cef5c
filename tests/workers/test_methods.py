"""Every method goes through a trial: resumed it is the same, bundled it scores the same."""

from dataclasses import replace

import pytest
import torch

from metaloom.learners import METHODS, build_learner
from metaloom.learners.outer import OuterConfig
from metaloom.workers.assembly import Assembly
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.data import open_source
from metaloom.workers.device import CPU
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_learner
from metaloom.workers.trial.runner import Trial
from tests.support.closed_form import SIGN, Sines
from tests.support.series_archive import write_waves
from tests.support.texts import rows, write_csv
from tests.workers.test_bundle import resolved
from tests.workers.test_trial import assert_same

SMALL = {
    "darts": {"architecture": {"kind": "cells", "cells": 1, "channels": 4}},
    "darts_first_order": {"architecture": {"kind": "cells", "cells": 1, "channels": 4}},
    "distillation": {"update": {"steps": 2, "evaluation_steps": 2}},
    "gradient_matching": {"architecture": {"kind": "mlp", "hidden": [8]}},
    "distribution_matching": {"architecture": {"kind": "mlp", "hidden": [8]}},
    "reptile": {"update": {"steps": 3, "evaluation_steps": 3}},
    "imaml": {"update": {"steps": 3, "evaluation_steps": 3}},
    "learned_optimizer": {"update": {"steps": 3, "evaluation_steps": 3}},
    "learned_reward": {"update": {"steps": 1, "evaluation_steps": 1}},
    "policy_gradient": {"update": {"steps": 1, "evaluation_steps": 1}},
    "time_net": {"architecture": {"kind": "gru", "width": 4}},
    "language_model": {"architecture": {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "causal": True}},
    "conv_time_net": {"architecture": {"kind": "conv1d", "channels": 4, "blocks": 1}},
    "easy": {"prediction": {"crops": 0, "rotations": False}},  # the examples are no images
    "augmented_shots": {"prediction": {"crops": 0}},
}
ON_DIGITS = (
    "distillation",
    "darts",
    "darts_first_order",
    "data_cleaning",
    "gradient_matching",
    "distribution_matching",
    "masked_autoencoder",  # the examples of Sines are single numbers, of which nothing is left when one is hidden
)
CONTROL = ("policy_gradient", "learned_reward")
SEARCHES = ("search_settings",)
OF_SERIES = ("time_net", "conv_time_net", "time_warping")
OF_TEXTS = ("language_model",)
DESCRIBED = ("eszsl", "zero_shot_prototypical")  # of classes, without support examples


@pytest.fixture(params=METHODS)
def parts(request, tmp_path):
    """A trial's configuration, and what makes its assembly anew."""
    method = request.param
    learner, inner, outer = resolved(method, SMALL.get(method, {}), steps=4, meta_batch=1, validate_every=2)
    if method == "maml_plus_plus":  # its per-step batch norm needs a convolutional network
        inner = {**inner, "batch_norm": "batch"}
    source = Sines(5, replace(SIGN, single_task=inner.get("mode") == "online", classes=2))
    tasks = {"source": "sinusoid"}  # the examples of Sines are no pixels
    if method in ON_DIGITS:
        tasks = {"source": "digits"}
    if method in CONTROL:
        tasks = {"source": "point_mass"}
    if method in DESCRIBED:
        tasks = {"source": "glyphs", "ways": 3, "shots": 0, "queries": 2, "class_features": {"names": "hashing"}}
    if method in SEARCHES:
        tasks = {"source": "searches", "tables": ["bowls/1", "bowls/2"], "budget": 3, "searches": 2, "portfolio": 2}
    if method in OF_SERIES:
        write_waves(tmp_path / "archive", "Waves", classes=6, each=3, lengths=(9, 12))
        tasks = {"source": "ucr", "path": str(tmp_path / "archive"), "set": "Waves", "ways": 2, "queries": 2}
        tasks |= {"validation_fraction": 0.34, "test_fraction": 0.34}
    if method in OF_TEXTS:
        path = write_csv(tmp_path / "texts.csv", rows())
        tasks = {"source": "text", "path": str(path), "ways": 2, "shots": 2, "queries": 2, "length": 12}
    if method in (*ON_DIGITS, *CONTROL, *DESCRIBED, *SEARCHES, *OF_SERIES, *OF_TEXTS):
        source = open_source(tasks, seed=5, cache=tmp_path / "cache")
    config = TrialConfig("methods", 0, 5, tasks, learner, inner, outer, {"device": "cpu"})

    def assembly():
        built = build_learner(learner=learner, inner=inner, outer=outer, task=source.shape)
        return Assembly(source, built, CPU, OuterConfig.of(outer))

    return config, assembly


def test_resumed_it_is_the_same_and_bundled_it_scores_the_same(parts, tmp_path):
    config, assembly = parts
    whole = Trial(config, tmp_path / "whole", cache=tmp_path, assembly=assembly())
    while not whole.finished:
        whole.advance()
    resumed = Trial(config, tmp_path / "parts", cache=tmp_path, assembly=assembly())
    while not resumed.finished:
        resumed.advance()
        resumed = Trial(config, tmp_path / "parts", cache=tmp_path, assembly=assembly())
    assert_same(whole, resumed)
    evaluation = evaluate_learner(whole.learner, whole.phi, whole.state, whole.source, "test", 3)
    path = write_bundle(tmp_path / "whole", tmp_path / "bundle", origin={}, evaluation=evaluation)
    bundle = load_bundle(path)
    assert bundle.evaluate(whole.source, episodes=3).scores == evaluation.scores
    sampled = whole.source.episode("test", 0)
    one = sampled.episode
    if one.support.class_features is None:
        found = bundle.adapt(one.support_x, one.support_y, seed=sampled.seed).predict(one.query_x)
    else:  # a bundle reads the classes' names, and answers by them
        names = [whole.source.table.names[place] for place in sampled.class_ids]
        answers = bundle.adapt(class_features=names).predict(one.query_x)
        found = torch.tensor([names.index(answer) for answer in answers])
    if whole.source.shape.kind == "classification":
        assert float((found == one.query_y).float().mean()) == pytest.approx(evaluation.scores[0], abs=1e-6)

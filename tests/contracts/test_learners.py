"""The contracts of methods, components and solvers, over all that is built in: an entry without a row here fails."""

from dataclasses import replace

from metaloom.learners import METHODS, SLOTS
from metaloom.learners.solvers.base import SOLVERS
from metaloom.testing import ComponentContract, MethodContract, SolverContract, SolverRow
from metaloom.testing.components import PLAIN
from metaloom.testing.problems import DESCRIBED, IMAGES, SEARCHED, SERIES, SINGLE, SMOOTH, TEXTS
from metaloom.testing.solvers import few_shot_episode
from tests.support.registry_rows import (
    CAUSAL,
    COMPONENT_ROWS,
    GENTLE,
    MEMORY,
    METHOD_ROWS,
    SMALL_GRAPH,
    SMALL_GRU,
    SMOOTH_RELATION,
)


class TestMethods(MethodContract):
    rows = METHOD_ROWS

    def test_every_method_has_a_row(self) -> None:
        assert set(self.rows) == set(METHODS)


class TestComponents(ComponentContract):
    rows = COMPONENT_ROWS

    def test_every_component_has_a_row(self) -> None:
        assert set(self.rows) == {(slot, kind) for slot in SLOTS for kind in SLOTS[slot].registry}

    def test_every_slot_has_its_defaults(self) -> None:
        for slot in SLOTS.values():
            assert slot.fixed in slot.registry
            assert slot.learned is None or slot.registry[slot.learned].learns


STEPS = {**PLAIN, "architecture": SMOOTH}
OF_SERIES = {"architecture": SMALL_GRU, "initialization": {"kind": "learned"}}
SHOTS = replace(IMAGES, single_task=False, counts=())


class TestSolvers(SolverContract):
    rows = {
        "linear": SolverRow(beside=STEPS),
        "joint": SolverRow(beside=STEPS),
        "matching": SolverRow(  # after its first step the network's training counts as constant
            beside={"architecture": SMOOTH, "data": {"kind": "gradient_matching"}, "update": {"steps": 1}}, task=SINGLE
        ),
        "prototypes": SolverRow({"temperature": {"learn": {"start": 2.0}}}),
        "cnaps": SolverRow({"width": 4, "hidden": 4}),
        "simple_cnaps": SolverRow({"width": 4, "ridge": {"learn": {"start": 2.0}}}),
        "meta_networks": SolverRow({**GENTLE, "scale": {"learn": {}}, "fast_scale": {"learn": {}}}),
        "zero_shot_prototypical": SolverRow({"temperature": {"learn": {"start": 2.0}}, "hidden": 3}, task=DESCRIBED),
        "eszsl": SolverRow(
            {"folds": 2, **{name: {"learn": {"start": 0.5}} for name in ("gamma", "lambda_", "temperature")}},
            beside={},
            task=DESCRIBED,
        ),
        "ridge": SolverRow({"penalty": {"learn": {"start": 0.5}}, "scale": {"learn": {"start": 4.0}}}),
        "svm": SolverRow({"cost": {"learn": {"start": 0.5}}, "dual_ridge": {"learn": {"start": 0.1}}}),
        "nearest_neighbour": SolverRow(beside={}),
        "time_warping": SolverRow({"temperature": {"learn": {"start": 5.0}}}, beside={}, task=SERIES),
        "siamese": SolverRow({"shots": "max"}, episode=lambda task, seed: few_shot_episode(task, seed + 10)),  # no kink
        "relation": SolverRow(SMOOTH_RELATION),
        "snail": SolverRow({"width": 8, "reach": 7}),
        "graph": SolverRow(SMALL_GRAPH),
        "matching_networks": SolverRow({"temperature": {"learn": {"start": 2.0}}}),
        "full_context": SolverRow({"temperature": {"learn": {"start": 2.0}}, "read_steps": 3}),
        "augmented_shots": SolverRow(
            {"crops": 3, "sharpness": {"learn": {"start": 2.0}}, "classifier": "soft_k_means"}, task=SHOTS
        ),
        "easy": SolverRow({"crops": 3, "sharpness": 2.0}, task=SHOTS),
        "time_net": SolverRow({"width": 4, "cell": "lstm"}, beside=OF_SERIES, task=SERIES),
        "conv_time_net": SolverRow(beside=OF_SERIES, task=SERIES),
        "language_model": SolverRow(beside={"architecture": CAUSAL, "initialization": {"kind": "learned"}}, task=TEXTS),
        "denoising_autoencoder": SolverRow({"hidden": [5], "activation": "tanh"}),
        "masked_autoencoder": SolverRow({"hidden": [5], "activation": "tanh", "masked": 0.5}),
        "supervised": SolverRow({"weights": [1, 2, 0, 1, 1, 1, 3, 1, 1], "power": 0.5, "label_smoothing": 0.1}),
        "knn": SolverRow({"temperature": {"learn": {"start": 2.0}}, "k": 3}),
        "knn_inputs": SolverRow({"k": 3}, beside={}),
        "mann": SolverRow({**MEMORY, "strength": {"learn": {"start": 2.0}}}, beside={}),
        "constant": SolverRow(beside={}),
        "search_settings": SolverRow({"sampler": {"kind": "random"}}, beside={}, task=SEARCHED),
        # a step of central differences must not change a choice: of a neighbour, a label, a sign of a feature
        "pt_map": SolverRow({"scale": {"learn": {"start": 2.0}}, "epochs": 4, "power": 1.0, "balance_steps": 20}),
        "ilpc": SolverRow({"sharpness": {"learn": {"start": 1.0}}, "power": 1.0, "neighbours": 20, "marginal": "none"}),
        "epnet": SolverRow({"smoothing": {"learn": {"start": 0.4}}, "spreading": {"learn": {"start": 0.3}}}),
        "soft_k_means": SolverRow({"temperature": {"learn": {"start": 2.0}}, "iterations": 3}),
        "laplacian_shot": SolverRow({"smoothness": {"learn": {"start": 0.5}}}),
        "ptn": SolverRow({"scale": {"learn": {"start": 1.0}}, "power": 1.0, "rounds": 0, "poisson_steps": 20}),
        "ica_msp": SolverRow({"scale": {"learn": {"start": 1.0}}, "dimensions": 3}),
        "oblique_manifold": SolverRow({"scale": {"learn": {"start": 5.0}}, "steps": 4, "anchors": 3}),
    }

    def test_every_solver_has_a_row(self) -> None:
        assert set(self.rows) == set(SOLVERS)

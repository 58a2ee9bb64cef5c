"""A user's own modules: equal to a loop written by hand, reproducible where they are random, refused where wrong."""

import functools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaloom.learners.base import Learner
from metaloom.learners.build import build_learner
from metaloom.learners.episode import Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.module import ModuleConfig, ModuleNetwork
from metaloom.learners.networks.reference import check_trusted, imported, references_in, settings_of
from metaloom.learners.tensors import Tensors, part
from metaloom.testing.problems import FEW_WAYS, begun, episode_of, seeded
from tests.support import modules

STEPS, RATE = 2, 0.1


def bound(name: str, /, *, head: str | None = None, task: TaskShape = FEW_WAYS, **settings: Any) -> ModuleNetwork:
    return ModuleNetwork(ModuleConfig(f"tests.support.modules:{name}", settings, head), task)


def built(
    name: str,
    /,
    *,
    inner: Mapping[str, Any] | None = None,
    outer: Mapping[str, Any] | None = None,
    update: Mapping[str, Any] | None = None,
    slots: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Learner:
    architecture = {"kind": "module", "of": f"tests.support.modules:{name}", "settings": settings}
    learner = {"architecture": architecture, "initialization": {"kind": "learned"}, **(slots or {})}
    if slots is None or "prediction" not in slots:
        learner["update"] = {"steps": STEPS, "rate": RATE, **(update or {})}
    estimator = "unroll" if "update" in learner else "auto"
    given = {"hypergradient": estimator, "strategy": "loop", **(outer or {})}
    return build_learner(learner=learner, inner=inner or {}, outer=given, task=FEW_WAYS, trust_code=True)


def by_hand(network: ModuleNetwork, phi: Tensors) -> Tensors:
    """Return MAML's meta-gradient of one episode, by torch alone."""
    episode = episode_of(FEW_WAYS, 0)
    start = {network.names[key]: value.clone().requires_grad_() for key, value in phi.items()}
    theta = dict(start)

    def call(x: Tensor) -> Tensor:
        module = network.build(0).double().train()  # new each time: torch leaves tensors in a module listed twice
        buffers = {name: value.clone() for name, value in module.named_buffers()}
        outputs: Tensor = torch.func.functional_call(module, {**buffers, **theta}, (x,))
        return outputs

    for _ in range(STEPS):
        loss = F.cross_entropy(call(episode.support.x), episode.support.y)
        slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        theta = {name: value - RATE * slope for (name, value), slope in zip(theta.items(), slopes, strict=True)}
    loss = F.cross_entropy(call(episode.query_x), episode.query_y)
    slopes = torch.autograd.grad(loss, list(start.values()))
    return dict(zip(phi, slopes, strict=True))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Perceptron", {}),
        ("Tied", {}),
        ("Normalized", {}),
        ("Normalized", {"eps": 1e-5, "affine": False}),
        ("Recurrent", {"kind": "lstm"}),
        ("Recurrent", {"kind": "gru"}),
        ("Recurrent", {"kind": "rnn"}),
        ("Unused", {"frozen": True}),
        ("Spelt", {}),
    ],
)
def test_a_module_learns_as_a_loop_written_by_hand(name: str, settings: dict[str, Any]) -> None:
    learner, network = built(name, **settings), bound(name, **settings)
    phi, state = begun(learner)
    found = learner.meta_step(phi, state, [episode_of(FEW_WAYS, 0)], seeded(0)).gradient
    expected = by_hand(network, part(phi, "initialization"))
    assert set(part(found, "initialization")) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[f"initialization/{key}"], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("batch_norm", ["batch", "support", "frozen", "per_step"])
def test_batch_norm_of_a_module_follows_the_mode(batch_norm: str) -> None:
    learner = built("Normalized", inner={"batch_norm": batch_norm})
    phi, state = begun(learner)
    assert ("normalization/bn.weight" in phi) == (batch_norm == "per_step")
    step = learner.meta_step(phi, state, [episode_of(FEW_WAYS, 0)], seeded(0))
    assert ("bn.mean" in step.state.running) == (batch_norm == "frozen")
    assert learner.setting == ("transductive" if batch_norm in ("batch", "per_step") else "inductive")
    x, y = episode_of(FEW_WAYS, 0).support.x, episode_of(FEW_WAYS, 0).support.y
    adapted = learner.adapt(phi, step.state, Support(x, y), seeded(0))
    queries = episode_of(FEW_WAYS, 1).query_x
    alone = torch.cat([adapted.predict(queries[:3]), adapted.predict(queries[3:])])
    assert torch.allclose(alone, adapted.predict(queries)) == (learner.setting == "inductive")


def test_no_letters_of_a_name_make_a_parameter_batch_norms() -> None:
    assert bound("Spelt").norm_parameters() == frozenset()
    with pytest.raises(LearnerError, match=r"per_step needs a network with batch norm"):
        built("Spelt", inner={"batch_norm": "per_step"})


def test_dropout_is_drawn_once_an_episode_and_is_off_where_a_task_is_evaluated() -> None:
    learner = built("Perceptron", dropout=0.5)
    phi, state = begun(learner)
    first, same, other = (
        learner.meta_step(phi, state, [episode_of(FEW_WAYS, 0)], seeded(seed)).gradient for seed in (0, 0, 1)
    )
    global_state = torch.get_rng_state()
    again = learner.meta_step(phi, state, [episode_of(FEW_WAYS, 0)], seeded(0)).gradient
    assert torch.equal(global_state, torch.get_rng_state())  # torch's own generator is as it was
    for name, value in first.items():
        assert torch.equal(value, same[name]) and torch.equal(value, again[name])
    assert any(not torch.equal(value, other[name]) for name, value in first.items())
    kept, dropped = (learner.evaluate(phi, state, episode_of(FEW_WAYS, 0), seeded(seed)).losses[-1] for seed in (0, 1))
    assert kept == dropped
    adjoint = built("Perceptron", outer={"hypergradient": "adjoint"}, dropout=0.5)  # takes every step again
    found = adjoint.meta_step(phi, state, [episode_of(FEW_WAYS, 0)], seeded(0)).gradient
    for name, value in first.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11)


def test_what_a_strategy_cannot_run_is_run_by_the_loop_and_told() -> None:
    random, gru, plain = (
        built(name, outer={"strategy": "vmap"}, **settings)
        for name, settings in (("Perceptron", {"dropout": 0.5}), ("Recurrent", {"kind": "gru"}), ("Tied", {}))
    )
    assert (random.strategy, gru.strategy, plain.strategy) == ("loop", "loop", "vmap")
    assert plain.notes == ()
    assert "outer.strategy: vmap cannot run learner.architecture (it draws random numbers" in random.notes[0]
    assert "loop runs it" in gru.notes[0]
    with pytest.raises(
        LearnerError, match=r"forward needs forward derivatives, which learner\.architecture does not have"
    ):
        built("Recurrent", outer={"hypergradient": "forward"}, kind="lstm")


def test_batched_and_traced_modules_equal_the_loop() -> None:
    steps = {}
    for strategy in ("loop", "vmap", "traced"):
        learner = built("Tied", outer={"strategy": strategy})
        phi, state = begun(learner)
        steps[strategy] = learner.meta_step(phi, state, [episode_of(FEW_WAYS, n) for n in range(2)], seeded(0)).gradient
    for name, value in steps["loop"].items():
        torch.testing.assert_close(steps["vmap"][name], value, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(steps["traced"][name], value, rtol=1e-9, atol=1e-11)


def test_layer_norm_is_not_batched_over_tasks() -> None:
    """torch 2.13 gives it another meta-gradient under vmap; findings/vmap_layer_norm_second_order.sh shows it."""
    learner = built("LayerNormalized", outer={"strategy": "vmap"})
    assert learner.strategy == "loop"
    assert "torch gives it another second derivative than a loop does" in learner.notes[0]


def test_the_head_is_named_or_the_last_linear_layer() -> None:
    assert bound("Perceptron").head == "fc" and bound("Spelt").head == "last"
    assert bound("Spelt", head="head").names["head.weight"] == "head.weight"
    assert bound("Spelt").names["body.head.weight"] == "head.weight"
    with pytest.raises(LearnerError, match=r"head: no submodule with parameters is named 'fcc'; did you mean 'fc'\?"):
        bound("Perceptron", head="fcc")


def test_anil_moves_the_head_alone_and_prototypes_stand_before_it() -> None:
    learner = built("Perceptron", update={"adapt": "head"})
    phi, state = begun(learner)
    x, y = episode_of(FEW_WAYS, 0).support.x, episode_of(FEW_WAYS, 0).support.y
    theta = learner.adapt(phi, state, Support(x, y), seeded(0)).theta  # type: ignore[attr-defined]
    moved = {name for name, value in theta.items() if not torch.equal(value, phi[f"initialization/{name}"])}
    assert moved == {"head.weight", "head.bias"}
    prototypes = built("Perceptron", slots={"prediction": {"kind": "prototypes"}})
    phi, state = begun(prototypes)
    assert {name for name in phi if name.startswith("initialization/")} == {
        "initialization/body.weight",
        "initialization/body.bias",
    }
    assert prototypes.adapt(phi, state, Support(x, y), seeded(0)).predict(x).shape == (6, 3)


def test_a_module_without_a_head_is_refused_where_one_is_needed() -> None:
    allowed = r"but tests\.support\.modules:Headless has no linear layer .* allowed: body, out$"
    with pytest.raises(LearnerError, match=rf"^learner\.architecture\.head: learner\.update\.adapt: head .*{allowed}"):
        built("Headless", update={"adapt": "head"})
    with pytest.raises(
        LearnerError, match=rf"^learner\.architecture\.head: learner\.prediction: prototypes .*{allowed}"
    ):
        built("Headless", slots={"prediction": {"kind": "prototypes"}})
    assert built("Headless").meta_step(*begun(built("Headless")), [episode_of(FEW_WAYS, 0)], seeded(0)).gradient
    with pytest.raises(LearnerError, match=r"no submodule with parameters is named 'ot'; did you mean 'out'\?"):
        bound("Headless", head="ot")
    architecture = {"kind": "module", "of": "tests.support.modules:Headless", "head": "out"}
    learner = built("Perceptron", update={"adapt": "head"}, slots={"architecture": architecture})
    assert "initialization/head.weight" in begun(learner)[0]


def test_a_task_shapes_the_module_that_asks_for_it_and_a_module_keeps_its_weights() -> None:
    wide = TaskShape("classification", (4,), 7)
    assert bound("for_task", task=wide, width=2).parameters(seeded(0))["head.weight"].shape == (7, 2)
    with pytest.raises(LearnerError, match=r"maps 2 examples of shape \(6,\) to \(2, 5\); the task needs"):
        bound("Perceptron", outputs=5)
    theta = bound("made").parameters(seeded(9))
    assert torch.equal(theta["head.weight"], modules.made.fc.weight)
    first, again, other = (bound("Perceptron").parameters(seeded(seed))["head.weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_parameter_without_effect_is_refused_by_name() -> None:
    with pytest.raises(
        LearnerError, match=r"parameter spare\.weight has no effect on the output in train mode.*requires_g"
    ):
        bound("Unused", frozen=False)


def test_what_nothing_moves_is_stored_and_held_again() -> None:
    task = TaskShape("regression", (1,), 1)
    first, second = bound("Projected", task=task), bound("Projected", task=task)
    assert first.fixed.keys() == {"projection", "angles", "mix.weight", "mix.bias"}
    theta, x = first.parameters(seeded(0)), torch.rand(5, 1)

    def outputs(network: ModuleNetwork) -> Tensor:
        return network.outputs(theta, x, Normalization(), {})

    assert not torch.allclose(outputs(first), outputs(second))
    assert torch.equal(outputs(first), outputs(second.holding(first.fixed)))
    assert not torch.allclose(outputs(first), outputs(second))  # holding makes another network
    with pytest.raises(LearnerError, match=r"another network: projection is \(2, 4\) there and \(1, 4\) here"):
        first.holding(first.fixed | {"projection": torch.ones(2, 4)})
    with pytest.raises(LearnerError, match="another network: angles is absent there"):
        first.holding({name: value for name, value in first.fixed.items() if name != "angles"})


def test_a_class_that_does_not_take_its_settings_says_so() -> None:
    with pytest.raises(LearnerError, match=r"tests\.support\.modules:Perceptron: TypeError: .*'depth'"):
        bound("Perceptron", depth=3)


def test_an_import_path_is_read_and_a_misspelt_one_is_told_the_nearest() -> None:
    assert imported("tests.support.modules:Perceptron") is modules.Perceptron
    for wrong, message in {
        "tests.support.modules": r"got 'tests.support.modules'; give an import path such as package.module:Class",
        "tests.support.modulez:Tied": r"cannot import tests.support.modulez: ModuleNotFoundError",
        "tests.support.modules:Tide": r"did you mean 'Tied'\?",
    }.items():
        with pytest.raises(LearnerError, match=message):
            imported(wrong)


def test_code_is_imported_only_where_it_is_trusted() -> None:
    document = {
        "learner": {"architecture": {"search": ["mlp", {"kind": "module", "of": {"search": ["a.b:C", "d:E"]}}]}}
    }
    assert list(references_in(document)) == ["a.b:C", "d:E"]
    with pytest.raises(
        LearnerError, match=r"a\.b:C is code that would run .* --trust-code .* group metaloom\.learners"
    ):
        check_trusted(["a.b:C"], trust_code=False)
    check_trusted(["a.b:C"], trust_code=True)
    settings = {"architecture": {"kind": "module", "of": "tests.support.modules:Tied"}}
    with pytest.raises(LearnerError, match="is code that would run"):
        build_learner(learner=settings, inner={}, outer={}, task=FEW_WAYS)


def test_networks_from_python_are_written_as_import_paths() -> None:
    path = "tests.support.modules:Perceptron"
    assert settings_of(modules.Perceptron) == {"kind": "module", "of": path} == settings_of(path)
    assert settings_of(functools.partial(modules.Perceptron, width=3))["settings"] == {"width": 3}
    assert settings_of(modules.made) == {"kind": "module", "of": "tests.support.modules:made"}

    class Local(nn.Module):
        pass

    for wrong, message in (
        (Local, "is defined in .*, where no other process can import it; move it to the top level"),
        (nn.Linear(2, 2), "is an object that no other process can import; give its class"),
        (3, "got int; give a class or function"),
    ):
        with pytest.raises(LearnerError, match=message):
            settings_of(wrong)


def test_a_module_that_fuses_nothing_runs_without_gradients_too() -> None:
    network = bound("Normalized")
    with torch.no_grad():
        outputs = network.outputs(network.parameters(seeded(0)), torch.rand(4, 6), Normalization(fused=True), {})
    assert outputs.shape == (4, 3)

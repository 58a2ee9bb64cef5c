"""A network that starts from another's first layers: which are taken, which are drawn, and which may move."""

from typing import Any

import pytest
import torch

from metaloom.learners import SLOTS, build_learner
from metaloom.learners.base import Learner
from metaloom.learners.build import make_component
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import HEAD, Network
from metaloom.learners.tensors import Tensors, part
from metaloom.testing.problems import begun, episode_of, errors_by_slot, seeded
from tests.support.registry_rows import COMPONENT_ROWS

TABLE = TaskShape("classification", (6,), 3, classes=9)
IMAGES = TaskShape("classification", (1, 8, 8), 3, classes=9)
MLP = {"kind": "mlp", "hidden": [5, 4, 4], "activation": "tanh"}
CONV = {"kind": "conv4", "channels": 4, "blocks": 3}
STEPS = {"rate": 0.1, "steps": 2}
NETWORKS = [kind for slot, kind in COMPONENT_ROWS if slot == "architecture" and kind != "linear"]


def network(settings: Any = MLP, task: TaskShape = TABLE) -> Network:
    made = make_component(SLOTS["architecture"], settings, task, trust_code=True)
    assert isinstance(made, Network)
    return made


def other(settings: Any = MLP, task: TaskShape = TABLE) -> Tensors:
    """The network of another trial."""
    return {name: value.double() for name, value in network(settings, task).parameters(seeded(7)).items()}


def learner_of(
    initialization: dict[str, Any], start: Tensors, *, settings: Any = MLP, task: TaskShape = TABLE, **slots: Any
) -> Learner:
    inner, outer = slots.pop("inner", {}), slots.pop("outer", {})
    given = {"architecture": settings, "initialization": {"bundle": "a folder", **initialization}, **slots}
    return build_learner(learner=given, inner=inner, outer=outer, task=task, start=start)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_layers_of_a_network_are_its_body_in_order(kind: str) -> None:
    row = COMPONENT_ROWS["architecture", kind]
    made = network({"kind": kind, **row.settings}, row.task_for("architecture"))
    names = [name for name in made.parameters(seeded(0)) if not name.startswith(HEAD)]
    start = made.parameters(seeded(7))
    counts = [len(made.starting_at(start, layers=k, freeze=True).held) for k in range(len(made.layers()) + 1)]
    assert counts[0] == 0
    assert counts[-1] == len(names)
    assert sorted(set(counts)) == counts  # each layer has parameters, and none has those of another


def test_the_first_layers_are_taken_and_the_others_drawn() -> None:
    start, own = other(), network()
    for count in range(4):
        begins = own.starting_at(start, layers=count).initial(seeded(1))
        drawn = own.parameters(seeded(1))
        for name, value in begins.items():
            taken = not name.startswith(HEAD) and int(name[len("layer")]) < count
            assert torch.equal(value, (start if taken else drawn)[name])


def test_no_layers_are_a_random_start() -> None:
    for kind in ("pretrained", "fine_tuned"):
        learner = learner_of({"kind": kind, "layers": 0}, other(CONV, IMAGES), settings=CONV, task=IMAGES, update=STEPS)
        plain = {"architecture": CONV, "initialization": {"kind": "random" if kind == "pretrained" else "learned"}}
        control = build_learner(learner={**plain, "update": STEPS}, inner={}, outer={}, task=IMAGES)
        given = episode_of(IMAGES, 1)
        outcomes = [one.evaluate(*begun(one), given, seeded(0)) for one in (learner, control)]
        assert outcomes[0] == outcomes[1]


def test_the_running_statistics_of_layers_that_are_drawn_are_not_taken() -> None:
    start, own = other(CONV, IMAGES), network(CONV, IMAGES)
    running = {"norm0.mean": torch.ones(4)}
    assert torch.equal(own.starting_at(start, running).begun_running("frozen")["norm0.mean"], torch.ones(4))
    some = own.starting_at(start, running, layers=2)
    assert some.begun_running("frozen") == {}
    assert some.lacks_running("frozen", {})
    assert not own.starting_at(start, running, layers=0).lacks_running("frozen", {})


def test_another_head_and_other_layers_above_are_no_error() -> None:
    wide = TaskShape("classification", (6,), 7, classes=9)
    start = other({**MLP, "hidden": [5, 4, 9, 9]}, wide)
    begins = network().starting_at(start, layers=2).initial(seeded(1))
    assert torch.equal(begins["layer1.weight"], start["layer1.weight"])
    begins = network().starting_at(other(MLP, wide)).initial(seeded(1))
    assert not begins["head.weight"].any()
    assert torch.equal(begins["layer2.weight"], other(MLP, wide)["layer2.weight"])


@pytest.mark.parametrize("prediction", ["linear", "joint", "prototypes", "denoising_autoencoder"])
@pytest.mark.parametrize("layers", [2, None])
def test_frozen_layers_stay_in_both_loops_while_others_are_learned(prediction: str, layers: int | None) -> None:
    start = other()
    if prediction == "prototypes" and layers is None:
        return  # nothing is left to learn, which is refused
    gradient = prediction in ("linear", "joint")
    slots: dict[str, Any] = {"prediction": {"kind": prediction}, **({"update": STEPS} if gradient else {})}
    learner = learner_of({"kind": "fine_tuned", "layers": layers, "freeze": True}, start, **slots)
    phi, state = begun(learner)
    held = [name for name in start if name.startswith("layer") and (layers is None or int(name[5]) < layers)]
    moved = [name for name in start if name.startswith("layer") and name not in held]
    own = part(phi, "initialization", optional=True)
    assert {name for name in own if not name.startswith(HEAD)} == set(moved)
    assert all(torch.equal(state.theta[name], start[name]) for name in held)
    episode = episode_of(TABLE, 1)
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert set(step.gradient) == set(phi)
    assert all(float(value.abs().max()) > 0 for value in step.gradient.values())
    after = step.after(state)
    assert all(torch.equal(after.theta[name], start[name]) for name in held)
    if prediction == "linear":
        adapted = learner.adapt(phi, state, episode.support, seeded(0))
        theta = adapted.theta  # type: ignore[attr-defined]
        assert all(torch.equal(theta[name], start[name]) for name in held)
        assert not any(torch.equal(theta[name], phi[f"initialization/{name}"]) for name in own)


def test_a_fixed_start_moves_above_the_frozen_layers_alone() -> None:
    start = other(CONV, IMAGES)
    for freeze in (False, True):
        settings = {"kind": "pretrained", "layers": 2, "freeze": freeze}
        learner = learner_of(settings, start, settings=CONV, task=IMAGES, update=STEPS)
        phi, state = begun(learner)
        adapted = learner.adapt(phi, state, episode_of(IMAGES, 1).support, seeded(0))
        same = {name for name, value in adapted.theta.items() if torch.equal(value, state.theta[name])}  # type: ignore[attr-defined]
        held = {f"{one}{block}.{kind}" for block in (0, 1) for one, kind in (("conv", "weight"), ("norm", "weight"))}
        assert same == (held | {"norm0.bias", "norm1.bias"} if freeze else set())


def test_rates_are_learned_per_layer_beside_frozen_layers() -> None:
    rate = {"rate": {"learn": {"per": "layer", "start": 0.1}}, "steps": 2}
    learner = learner_of({"kind": "fine_tuned", "layers": 1, "freeze": True}, other(), update=rate)
    phi, _ = begun(learner)
    rates = {name for name in phi if name.startswith("update/rate/")}
    assert rates == {f"update/rate/{name}" for name in other() if not name.startswith("layer0")}
    errors = errors_by_slot(learner, [episode_of(TABLE, 1)], length=1e-4, directions=1)
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize(
    ("initialization", "beside", "message"),
    [
        ({"layers": 4}, {}, r"initialization\.layers: got 4, and the network has 3 before its head; give at most 3"),
        ({"layers": -1}, {}, r"initialization\.layers.*at least 0"),
        ({"layers": 2}, {"settings": {**MLP, "hidden": [5, 6]}}, r"layer1\.weight is \(4, 5\).*\(or fewer .*layers\)"),
        (
            {"freeze": True},
            {"prediction": {"kind": "prototypes"}},
            r"initialization\.freeze: every layer is taken, and prototypes learns nothing .*use kind: pretrained",
        ),
        (
            {"freeze": True, "layers": 1},
            {"inner": {"batch_norm": "per_step"}, "settings": CONV, "task": IMAGES},
            r"initialization\.freeze: inner\.batch_norm per_step",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused(initialization: Any, beside: Any, message: str) -> None:
    task = beside.get("task", TABLE)
    start = other(CONV if task is IMAGES else MLP, task)
    with pytest.raises(LearnerError, match=message):
        learner_of({"kind": "fine_tuned", **initialization}, start, **beside)

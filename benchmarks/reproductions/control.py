"""P7: MAML for control, beside policies that were pre-trained on all tasks, and that start at random.

2-D navigation as in Finn et al., 2017, section 5.3: goals in the unit square, a horizon of 100, 20 trajectories for
each inner step, 40 goals a batch; a smaller network (40-40), Adam in place of TRPO. Through gymnasium, cart-poles of
varied mass and length, which one policy may hold up without adapting, and cart-poles pushed with unknown direction
and strength, which none can. A pre-trained policy has the same outer loop without inner steps. The rate of its inner
steps, and that of a random start's, is the best one on validation tasks. All policies explore alike, and are judged by
the return of what they do with exploration.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.reproductions.harness import Row, Trained, mean_at, pooled, remembered, scores_at, train
from metaloom.workers.records.results import mean_interval
from metaloom.workers.scoring import Evaluation

RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # of the controls' inner steps
CHOOSING = 40  # validation tasks
MAML, PRE_TRAINED, RANDOM = "MAML", "pre-trained", "random start"


@dataclass(frozen=True)
class Family:
    """Tasks, and how policies are trained on them.

    Attributes:
        name: As in the rows.
        tasks: The section of an experiment.
        hidden: Widths of the policy's hidden layers.
        loss: Settings of the policy gradient.
        rate: Of MAML's inner steps.
        steps: Numbers of inner steps that MAML is trained with.
        outer: Outer steps, for each of these.
        goals: Tasks of an outer step.
        shown: Inner steps when tested.
    """

    name: str
    tasks: Mapping[str, Any]
    hidden: tuple[int, ...]
    loss: Mapping[str, Any]
    rate: float
    steps: tuple[int, ...]
    outer: int
    goals: int
    shown: int

    def experiment(self, steps: int, rate: float, outer: int) -> dict[str, Any]:
        """Return the training of a policy that takes so many inner steps meanwhile."""
        return {
            "tasks": self.tasks,
            "learner": {
                "method": "maml",
                "architecture": {"kind": "mlp", "hidden": list(self.hidden), "activation": "tanh"},
                "loss": {
                    "kind": "policy_gradient",
                    "differentiate": "score",
                    "discount": 0.99,
                    "baseline": "linear",
                    "standardize": True,
                    **self.loss,
                },
                "update": {"kind": "sgd", "rate": rate, "steps": steps, "evaluation_steps": self.shown},
            },
            "outer": {
                "steps": outer,
                "meta_batch": self.goals,
                "rate": 0.01,
                "schedule": "cosine",
                "clip": 10.0,
                "validate_every": max(outer, 1),
                "validation_episodes": 2,
            },
        }


PUSH = {"source": "gymnasium", "environment": "CartPole-v1", "shots": 10, "queries": 10, "horizon": 50}
NAVIGATION = Family(
    "navigation",
    tasks={"source": "navigation"},
    hidden=(40, 40),
    loss={"deviation": 0.4},
    rate=0.1,
    steps=(1, 3),
    outer=150,
    goals=40,
    shown=3,
)
MASSES = Family(
    "cart-pole, mass and length",
    tasks={**PUSH, "vary": {"masspole": [0.05, 2.0], "length": [0.25, 1.5]}},
    hidden=(32,),
    loss={},
    rate=5.0,
    steps=(1,),
    outer=45,
    goals=10,
    shown=1,
)
DIRECTIONS = replace(MASSES, name="cart-pole, direction", tasks={**PUSH, "vary": {"force_mag": [-10.0, 10.0]}})
FAMILIES = (NAVIGATION, MASSES, DIRECTIONS)


def p7(seeds: Sequence[int], cache: Path) -> list[Row]:
    """The return before and after each inner step, and what one step of MAML brings above one of the pre-trained."""
    rows: list[Row] = []
    for family in FAMILIES:
        each = [tests_of(family, seed, cache) for seed in seeds]
        rows += rows_of(family, {name: [one[name] for one in each] for name in each[0]})
    return rows


def tests_of(family: Family, seed: int, cache: Path) -> dict[str, Evaluation]:
    """Return the test of every policy, by its name, of one training seed."""
    names = [*(trained_with(steps) for steps in family.steps), PRE_TRAINED, RANDOM]

    def measure() -> dict[int, Evaluation]:
        learned = [train(family.experiment(s, family.rate, family.outer), seed=seed, cache=cache) for s in family.steps]
        controls = [
            train(family.experiment(0, family.rate, outer), seed=seed, cache=cache) for outer in (family.outer, 0)
        ]
        tests = [one.test() for one in learned] + [tested_at_best(family, one) for one in controls]
        return dict(enumerate(tests))

    found = remembered(f"P7-{family.name.replace(', ', '-').replace(' ', '-')}", seed, cache, measure).tests
    return {name: found[place] for place, name in enumerate(names)}


def trained_with(steps: int) -> str:
    """Name MAML by the inner steps that it was trained with."""
    return f"{MAML} trained with {steps} inner step{'s' if steps > 1 else ''}"


def tested_at_best(family: Family, control: Trained) -> Evaluation:
    """Test a control at the rate whose first inner step is the best on validation tasks."""
    rates = {rate: at_rate(control, rate).test(episodes=CHOOSING, split="validation") for rate in RATES}
    losses = {rate: mean_at(one, 1) for rate, one in rates.items()}
    best = min(losses, key=lambda rate: math.inf if math.isnan(losses[rate]) else losses[rate])
    return at_rate(control, best).test()


def at_rate(control: Trained, rate: float) -> Trained:
    """Return a policy whose inner steps have another rate."""
    learner = {**control.config.learner, "update": {**control.config.learner["update"], "rate": rate}}
    return replace(control, config=replace(control.config, learner=learner))


def rows_of(family: Family, tests: Mapping[str, Sequence[Evaluation]]) -> list[Row]:
    """Return the rows of one family of tasks."""
    rows = [
        return_row(f"{family.name}: {name}, after {step} inner step{'' if step == 1 else 's'}", found, step)
        for name, found in tests.items()
        for step in range(family.shown + 1)
    ]
    names = map(trained_with, family.steps)
    return [*rows, *(gain_row(family, name, tests[name], tests[PRE_TRAINED]) for name in names)]


def return_row(what: str, found: Sequence[Evaluation], step: int) -> Row:
    """Put the returns together: minus the losses."""
    low, high = pooled(found, step)
    return Row("P7", what, tuple(-mean_at(one, step) for one in found), (-high, -low), setting="return")


def gain_row(family: Family, name: str, ours: Sequence[Evaluation], theirs: Sequence[Evaluation]) -> Row:
    """Return by how much one inner step leads further, task by task; the gate is that its interval is above 0."""
    pairs = [
        [other - own for own, other in zip(scores_at(one, 1), scores_at(control, 1), strict=True)]
        for one, control in zip(ours, theirs, strict=True)
    ]
    _, low, high = mean_interval([gain for each in pairs for gain in each])
    gated = family.name == NAVIGATION.name and name == trained_with(1)
    return Row(
        "P7",
        f"{family.name}: {name}, after 1 inner step, above the pre-trained policy after 1",
        tuple(sum(each) / len(each) for each in pairs),
        (low, high),
        "interval above 0" if gated else "",
        low > 0 if gated else None,
        "difference of returns",
    )

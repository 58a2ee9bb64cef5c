"""What a record made before a setting existed means: an old ``adam`` with weight decay gives its numbers again."""

from typing import Any

import pytest
import torch

from metaloom.learners.base import Learner
from metaloom.learners.build import as_recorded, make_component, only_read
from metaloom.learners.component import Component
from metaloom.learners.knowledge.update_rules import UPDATE_RULES
from metaloom.search_spaces.experiment import FINGERPRINT_VERSION
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.testing.problems import SINGLE, SMOOTH, begun, built, episode_of, seeded
from metaloom.workers.assembly import learner_of
from metaloom.workers.records.trial import TrialConfig

BEFORE, PRESENT = 2, FINGERPRINT_VERSION
ADAM: dict[str, Any] = {"kind": "adam", "rate": 0.05, "weight_decay": 0.1, "steps": 3}
DECOUPLED = "decoupled_weight_decay"


def document(update: dict[str, Any]) -> dict[str, Any]:
    return {"tasks": "sinusoid", "learner": {"method": "maml", "update": update}}


def resolved(update: dict[str, Any], version: int) -> dict[str, Any]:
    experiment = load_experiment(document(update), fingerprint_version=version)
    return resolve(experiment, defaults(experiment)).learner


def hypergradient(learner: Learner) -> torch.Tensor:
    phi, state = begun(learner)
    gradient = learner.meta_step(phi, state, [episode_of(SINGLE, 0)], seeded(0)).gradient
    return torch.cat([one.flatten() for one in gradient.values()])


def of(update: dict[str, Any]) -> Learner:
    return built({"architecture": SMOOTH, "initialization": {"kind": "learned"}, "update": update}, SINGLE)


def test_a_journal_of_before_means_decoupled_decay_and_a_new_experiment_torchs_adam() -> None:
    assert resolved(ADAM, BEFORE)["update"][DECOUPLED] is True
    assert resolved(ADAM, PRESENT)["update"][DECOUPLED] is False
    assert resolved({**ADAM, DECOUPLED: False}, BEFORE)["update"][DECOUPLED] is False


def test_a_baseline_of_a_journal_of_before_means_what_it_did() -> None:
    from metaloom.search_spaces.resolve import baseline

    asked = {"method": "maml", "update": ADAM}
    for version, expected in ((BEFORE, True), (PRESENT, False)):
        experiment = load_experiment(document({"kind": "sgd"}), fingerprint_version=version)
        assert baseline(experiment, asked).learner["update"][DECOUPLED] is expected


@pytest.mark.parametrize("version", [BEFORE, PRESENT])
def test_a_setting_that_was_added_later_is_no_part_of_a_digest_at_its_default(version: int) -> None:
    plain, said = (
        load_experiment(document(one), fingerprint_version=version)
        for one in (ADAM, {**ADAM, DECOUPLED: version == BEFORE})
    )
    other = load_experiment(document({**ADAM, DECOUPLED: version != BEFORE}), fingerprint_version=version)
    assert plain.fingerprint() == said.fingerprint()
    assert plain.fingerprint() != other.fingerprint()


def test_a_recorded_trial_or_bundle_gives_its_numbers_again() -> None:
    """Records hold every setting of their time, so that an old one lacks this one."""
    learner = {"architecture": SMOOTH, "initialization": {"kind": "learned"}, "update": ADAM}
    recorded = TrialConfig("old", 0, 0, {}, learner, {}, {"hypergradient": "unroll", "strategy": "loop"})
    was = of({**ADAM, "kind": "adamw"})  # adam's decay of then
    assert torch.equal(hypergradient(learner_of(recorded, SINGLE)), hypergradient(was))
    assert not torch.allclose(hypergradient(of(ADAM)), hypergradient(was))


def test_a_new_record_is_read_as_it_says() -> None:
    learner = {"update": {**ADAM, DECOUPLED: False}}
    assert only_read(learner, {})[0] == learner
    assert as_recorded({"method": "maml", "loss": [{"kind": "mse"}, {"kind": "gone"}]}) == {
        "method": "maml",
        "loss": [{"kind": "mse"}, {"kind": "gone"}],
    }


@pytest.mark.parametrize("kind", UPDATE_RULES)
def test_what_a_record_lacks_is_a_setting(kind: str) -> None:
    component: type[Component] = UPDATE_RULES[kind]
    from metaloom.learners import SLOTS

    make_component(SLOTS["update"], {"kind": kind, **component.before}, SINGLE)


# as the commit before `decoupled_weight_decay` computed them
DIGESTS: list[tuple[dict[str, Any], str]] = [
    (document(ADAM), "b975f45dff893ce3440899d04f6e68a119a749f7a9f89c1b879d925a5f32c4fe"),
    (
        document({"kind": "adam", "weight_decay": {"learn": {"start": 0.01}}}),
        "908bc51f19281472445118597b1b001e2a2231d51f98b189cd3606bb2182e5ca",
    ),
    (
        document(
            {
                "kind": "adamw",
                "rate": "search",
                "weight_decay": {"search": {"low": 0.001, "high": 0.1, "log": True}},
            }
        ),
        "37d4f50e521f46d15b709d95c62ba8e15f7843e30ccab2849d7fa061ebd7682e",
    ),
    (
        {"tasks": "glyphs", "learner": "reptile", "inner": {"proximal": 0.5}},
        "ab9c182cf020369ec262238b6f5f03e2d8b162f4bb3b93f968b60ce0b0932293",
    ),
]


@pytest.mark.parametrize(("given", "digest"), DIGESTS)
def test_a_search_of_before_has_the_digest_that_its_journal_holds(given: dict[str, Any], digest: str) -> None:
    assert load_experiment(given, fingerprint_version=BEFORE).fingerprint() == digest

"""What a learner keeps is typed, and a name that is not declared is an error, not an empty part."""

import pytest
import torch

from metaloom.learners.build import SLOTS
from metaloom.learners.component import Component
from metaloom.learners.errors import LearnerError
from metaloom.learners.state import PLACES, LearnerState, declare_place, knowledge_of
from metaloom.learners.tensors import InnerState, part

ONE = torch.ones(2)
FULL = LearnerState(
    torch.tensor(3), InnerState({"w": ONE}, {"m": ONE}), InnerState({"w": 2 * ONE}, {}), {"norm0.mean": ONE}, {"d": ONE}
)


def test_a_state_comes_back_from_its_flat_form_under_the_stored_names() -> None:
    flat = FULL.flat()
    assert set(flat) == {"outer_step", "theta/w", "buffers/m", "carried/theta/w", "running/norm0.mean", "estimator/d"}
    assert LearnerState.from_flat(flat) == FULL
    assert LearnerState.from_flat({}) == LearnerState()


def test_an_unknown_place_of_a_state_is_told_the_right_spelling() -> None:
    with pytest.raises(LearnerError, match="no place is named 'runing'; did you mean 'running'"):
        LearnerState.from_flat({"runing/norm0.mean": ONE})


def test_a_part_that_nothing_is_under_is_an_error_unless_it_is_optional() -> None:
    with pytest.raises(KeyError, match="nothing is under 'runing/'; there are: running, theta"):
        part({"theta/w": ONE, "running/x": ONE}, "runing")
    assert part({"theta/w": ONE}, "theta") == {"w": ONE}
    assert part({"theta/w": ONE}, "buffers", optional=True) == {}


def test_a_state_is_changed_tensor_by_tensor_and_keeps_its_form() -> None:
    doubled = FULL.mapped(lambda one: one * 2)
    assert list(doubled.flat()) == list(FULL.flat())
    assert all(
        torch.equal(new, old * 2) for new, old in zip(doubled.flat().values(), FULL.flat().values(), strict=True)
    )


def test_what_nothing_moves_is_in_files_alone() -> None:
    state = LearnerState(torch.tensor(3), fixed={"table": ONE})
    assert set(state.flat()) == {"outer_step", "fixed/table"} and list(state.moving()) == ["outer_step"]
    assert LearnerState.from_flat(state.flat()) == state
    assert state.mapped(lambda one: one * 2).fixed["table"] is ONE


@pytest.mark.parametrize("name", ["running", "theta", "outer_step/x"])
def test_a_name_that_no_place_of_a_state_has_is_refused(name: str) -> None:
    with pytest.raises(LearnerError, match="no place is named"):
        LearnerState.from_flat({name: ONE})


def test_an_unknown_place_of_phi_is_an_error_and_a_known_one_may_be_empty() -> None:
    phi = {"update/rate": ONE}
    assert list(knowledge_of(phi, "update")) == ["rate"]
    assert knowledge_of(phi, "loss") == {}
    with pytest.raises(LearnerError, match="no place is named 'updates'; did you mean 'update'"):
        knowledge_of(phi, "updates")
    assert set(PLACES) == {*SLOTS, "normalization", "joint_head"}


def test_a_place_belongs_to_one() -> None:
    with pytest.raises(LearnerError, match="two places of phi are named 'update'"):
        declare_place("update", "a test's")


def test_every_component_declares_the_slot_that_it_fills() -> None:
    for name, slot in SLOTS.items():
        assert all(issubclass(component, Component) and component.slot == name for component in slot.registry.values())

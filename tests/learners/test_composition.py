"""Several components in one slot: what they do together, and what is refused."""

import pytest
import torch

from metaloom.learners.build import SLOTS, fill_slot
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.loss import Loss
from metaloom.learners.knowledge.sample_weights import Examples, Weighting
from metaloom.testing.problems import SINGLE, begun, built, seeded

FOCAL = {"kind": "focal", "gamma": 2.0}
NET = {"kind": "meta_weight_net", "hidden": 4}


def test_losses_add() -> None:
    plain, smooth = {"kind": "cross_entropy"}, {"kind": "cross_entropy", "label_smoothing": 0.2}
    outputs, targets = torch.randn(5, 3, generator=seeded(0)), torch.tensor([0, 1, 2, 0, 1])
    both = fill_slot(SLOTS["loss"], [plain, smooth], {}, SINGLE)
    each = [fill_slot(SLOTS["loss"], one, {}, SINGLE) for one in (plain, smooth)]
    assert isinstance(both, Loss) and all(isinstance(one, Loss) for one in each)
    apart = sum(one.losses({}, outputs, targets) for one in each if isinstance(one, Loss))
    torch.testing.assert_close(both.losses({}, outputs, targets), apart)


def test_weights_multiply_and_are_normalized_once() -> None:
    both = fill_slot(SLOTS["weighting"], [FOCAL, NET], {}, SINGLE)
    assert isinstance(both, Weighting) and both.has_knowledge
    phi = both.init({}, seeded(0))
    assert {name.split("/")[0] for name in phi} == {"1"}
    losses = torch.rand(7, generator=seeded(1)) * 3
    seen = Examples(losses, torch.zeros(7, dtype=torch.int64))
    net = fill_slot(SLOTS["weighting"], NET, {}, SINGLE)
    assert isinstance(net, Weighting)
    product = (1 - torch.exp(-losses)) ** 2 * net.weights({name[2:]: value for name, value in phi.items()}, seen)
    torch.testing.assert_close(both.weights(phi, seen), product)
    torch.testing.assert_close(both.scaled(phi, seen), product / product.sum())


def test_members_of_one_kind_have_knowledge_of_their_own() -> None:
    learner = built({"weighting": [NET, NET]}, SINGLE)
    phi, _ = begun(learner)
    assert {name.split("/")[1] for name in phi} == {"0", "1"}
    assert not torch.equal(phi["weighting/0/layer0.weight"], phi["weighting/1/layer0.weight"])


@pytest.mark.parametrize("slot", [name for name, slot in SLOTS.items() if slot.combined is None])
def test_a_slot_that_takes_one_names_both(slot: str) -> None:
    kinds = list(SLOTS[slot].registry)[:2]
    with pytest.raises(LearnerError, match=rf"learner\.{slot}: takes one component, got {kinds[0]}.*; keep one"):
        fill_slot(SLOTS[slot], [{"kind": kind} for kind in kinds], {}, SINGLE)

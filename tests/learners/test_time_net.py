"""Pre-training on series against plain torch: reconstruction backwards, and one head a data set."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaloom.learners import build_learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.amortized import AmortizedLearner
from metaloom.learners.tensors import Tensors, as_leaves, part
from metaloom.testing.problems import FEW_WAYS, SERIES, begun, episode_of, normal, seeded

WHOLE = replace(SERIES, inputs=(2, 7), observed=False)
ENCODER = {"kind": "gru", "width": 4, "layers": 2, "read": "states"}


def learner_of(kind: str, task: TaskShape, network: Any = ENCODER, **settings: Any) -> AmortizedLearner:
    learner = {"architecture": network, "initialization": {"kind": "learned"}, "prediction": {"kind": kind, **settings}}
    built = build_learner(learner=learner, inner={"batch_norm": "frozen"}, outer={}, task=task)
    assert isinstance(built, AmortizedLearner)
    return built


def check_step(learner: AmortizedLearner, phi: Tensors, expected: Tensor, given: Episode, leaves: Tensors) -> None:
    """Compare the loss and the gradient of a step with those of ``expected``, which is a function of ``leaves``."""
    step = learner.meta_step(phi, begun(learner)[1], [given], seeded(0))
    assert step.loss == pytest.approx(expected.item(), rel=1e-9)
    for name, slope in zip(leaves, torch.autograd.grad(expected, list(leaves.values())), strict=True):
        torch.testing.assert_close(step.gradient[name], slope, rtol=1e-7, atol=1e-10)


def torchs_gru(theta: Tensors, name: str) -> tuple[nn.GRU, dict[str, Tensor]]:
    """Return torch's GRU of the size of one layer, and its parameters by its own names."""
    own = {
        f"{kind}_{place[0]}h_l0": theta[f"{name}.{place}.{kind}"]
        for place in ("input", "hidden")
        for kind in ("weight", "bias")
    }
    rows, inputs = own["weight_ih_l0"].shape
    return nn.GRU(inputs, rows // 3, batch_first=True).double(), own


def read(theta: Tensors, name: str, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    module, own = torchs_gru(theta, name)
    given = (x,) if state is None else (x, state[None].contiguous())
    hidden, last = torch.func.functional_call(module, own, given)
    return hidden, last[0]


def backwards(leaves: Tensors, x: Tensor, reads: str) -> Tensor:
    """Reconstruct [n, length, channels] with torch's own GRU."""
    encoder, decoder = part(leaves, "initialization"), part(leaves, "prediction")
    hidden, first = read(encoder, "layer0", x)
    _, second = read(encoder, "layer1", hidden)
    turned = x.flip(1)
    given = torch.cat([torch.zeros_like(turned[:, :1]), turned[:, :-1]], 1)
    given = given if reads == "values" else torch.zeros_like(given)
    hidden, _ = read(decoder, "decoder0", given, first)
    hidden, _ = read(decoder, "decoder1", hidden, second)
    return (hidden @ decoder["output.weight"].T + decoder["output.bias"]).flip(1)


@pytest.mark.parametrize("reads", ["values", "nothing"])
def test_a_step_of_time_net_is_that_of_plain_torch(reads: str) -> None:
    learner, given = learner_of("time_net", WHOLE, layers=2, reads=reads), episode_of(WHOLE, 1)
    phi, _ = begun(learner)
    leaves = as_leaves(phi)
    x = torch.cat([given.support_x, given.query_x]).transpose(1, 2)
    check_step(learner, phi, (backwards(leaves, x, reads) - x).square().mean(), given, leaves)


def padded(given: Episode, steps: int) -> Episode:
    """Put the channel of what was observed beside an episode's series, and steps of anything after them."""

    def one(x: Tensor) -> Tensor:
        seen = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        return torch.cat([seen, torch.zeros(len(x), seen.shape[1], steps, dtype=x.dtype)], -1)

    support = replace(given.support, x=one(given.support_x))
    return replace(given, support=support, query_x=one(given.query_x))


@pytest.mark.parametrize("settings", [{"layers": 2}, {"cell": "lstm", "width": 5}])
@pytest.mark.parametrize("steps", [0, 4])
def test_padding_does_not_change_the_loss_or_the_gradient(settings: dict[str, Any], steps: int) -> None:
    given, longer = episode_of(WHOLE, 1), replace(SERIES, inputs=(3, 7 + steps))
    found = []
    for task, episode in ((WHOLE, given), (longer, padded(given, steps))):
        learner = learner_of("time_net", task, **settings)
        phi, state = begun(learner)
        found.append(learner.meta_step(phi, state, [episode], seeded(0)))
    assert found[1].loss == pytest.approx(found[0].loss, rel=1e-12)
    torch.testing.assert_close(found[1].gradient, found[0].gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("network", "steps"), [(ENCODER, 8), ({"kind": "mlp", "hidden": [6]}, 11)])
def test_a_batch_is_read_up_to_its_longest_series(
    network: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(SERIES, inputs=(3, 11))
    learner, given = learner_of("conv_time_net", task, network), padded(episode_of(WHOLE, 1), 4)
    given.query_x[0, -1, 7] = 1.0
    lengths, features = [], type(learner.network).features

    def watched(self: Any, theta: Tensors, x: Tensor, *rest: Any) -> Tensor:
        lengths.append(x.shape[-1])
        return features(self, theta, x, *rest)

    monkeypatch.setattr(type(learner.network), "features", watched)
    phi, state = begun(learner)
    learner.meta_step(phi, state, [given], seeded(0))
    assert set(lengths) == {steps}


def test_a_gap_counts_neither_in_the_loss_nor_in_the_shown_series() -> None:
    learner, given = learner_of("time_net", SERIES, layers=2), episode_of(SERIES, 1)
    phi, state = begun(learner)
    other = replace(given, support=replace(given.support, x=with_noise_in_gaps(given.support_x)))
    losses = [learner.meta_step(phi, state, [one], seeded(0)).loss for one in (given, other)]
    assert losses[0] == losses[1]
    shown = learner.inspect(phi, state, given)
    assert shown["original"].shape == shown["reconstruction"].shape == (8, 2, 7)
    gaps = (given.query_x[:8, -1:] <= 0.5).expand(8, 2, 7)
    assert torch.equal(shown["reconstruction"][gaps], torch.zeros(int(gaps.sum()), dtype=torch.float64))


def with_noise_in_gaps(x: Tensor) -> Tensor:
    """Change what stands at the steps that were not observed and are read by no step that was."""
    seen = x[:, -1] > 0.5
    before = torch.cat([torch.ones_like(seen[:, :1]), seen[:, :-1]], 1)  # the decoder reads the value after its own
    changed = (~seen & ~before)[:, None]
    noise = torch.cat([normal(len(x), x.shape[1] - 1, x.shape[2], seed=9), torch.zeros_like(x[:, :1])], 1)
    return torch.where(changed, x + noise, x)


def test_conv_time_net_has_one_softmax_for_each_data_set() -> None:
    task = replace(WHOLE, classes=9, groups=(4, 5))
    learner = learner_of("conv_time_net", task)
    phi, state = begun(learner)
    given = replace(episode_of(task, 1), class_ids=torch.tensor([6, 4, 8]))
    leaves = as_leaves(phi)
    encoder = part(leaves, "initialization")
    x = torch.cat([given.support_x, given.query_x]).transpose(1, 2)
    hidden, first = read(encoder, "layer0", x)
    _, second = read(encoder, "layer1", hidden)
    scores = torch.cat([first, second], -1) @ leaves["prediction/heads.weight"].T + leaves["prediction/heads.bias"]
    labels = torch.tensor([2, 0, 4])[torch.cat([given.support_y, given.query_y])]
    check_step(learner, phi, F.cross_entropy(scores[:, 4:], labels), given, leaves)
    untouched = learner.meta_step(phi, state, [given], seeded(0)).gradient["prediction/heads.weight"][:4]
    assert torch.equal(untouched, torch.zeros_like(untouched))


def test_a_task_is_solved_by_the_class_means_of_the_features() -> None:
    given = episode_of(SERIES, 1)
    time_net, prototypes = (learner_of(kind, SERIES) for kind in ("time_net", "prototypes"))
    phi, state = begun(time_net)
    body = {name: value for name, value in phi.items() if name.startswith("initialization")}
    expected = prototypes.evaluate(body, state, given, seeded(0))
    assert time_net.evaluate(phi, state, given, seeded(0)) == expected


def test_what_cannot_be_is_refused() -> None:
    for kind in ("time_net", "conv_time_net"):
        with pytest.raises(LearnerError, match=rf"{kind} reads series \[channels, length\], .* shape \(6,\)"):
            learner_of(kind, FEW_WAYS, {"kind": "mlp"})
    with pytest.raises(LearnerError, match=r"prediction.layers: 8 features do not divide among 3 layers; set .*width"):
        learner_of("time_net", WHOLE, layers=3).init(seeded(0))
    with pytest.raises(LearnerError, match="conv_time_net needs a task source with known classes"):
        learner_of("conv_time_net", replace(WHOLE, classes=0)).init(seeded(0))
    learner = learner_of("conv_time_net", WHOLE)
    phi, state = begun(learner)
    given = episode_of(WHOLE, 1)
    nameless = Episode(Support(given.support_x, given.support_y), given.query_x, given.query_y)
    with pytest.raises(LearnerError, match="conv_time_net needs episodes that name their classes"):
        learner.meta_step(phi, state, [nameless], seeded(0))

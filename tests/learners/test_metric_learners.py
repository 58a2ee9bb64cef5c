"""Metric learners against plain torch, and the vote of the nearest neighbours."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.tensors import Tensors, as_leaves
from metaloom.testing.problems import begun, built, episode_of, seeded
from tests.support.metric_learners import FEW_SHOT, LEARNED, learner_of, predicted


def embedded(theta: Tensors, x: Tensor) -> Tensor:
    return torch.tanh(F.linear(x, theta["initialization/layer0.weight"], theta["initialization/layer0.bias"]))


def matching_loss(theta: Tensors, support: Tensor, queries: Tensor, episode: Episode, temperature: float) -> Tensor:
    """Vinyals et al.: minus the log of the sum of the attention to examples of the right class."""
    probabilities = []
    for query in queries:
        cosine = torch.stack([query @ one / (query.norm() * one.norm()) for one in support])
        probabilities.append(torch.softmax(10 * cosine / temperature, 0) @ F.one_hot(episode.support_y).to(queries))
    return F.nll_loss(torch.stack(probabilities).log(), episode.query_y)


def torch_lstm(phi: Tensors, name: str) -> dict[str, Tensor]:
    """Put our gates (i, f, o, g, one bias) in torch's order (i, f, g, o, two biases)."""
    width = phi[f"prediction/{name}.recurrent"].shape[1]
    order = torch.cat([torch.arange(2 * width), torch.arange(3 * width, 4 * width), torch.arange(2 * width, 3 * width)])
    weights = {
        kind: phi[f"prediction/{name}.{ours}"][order]
        for kind, ours in (("weight_ih", "input"), ("weight_hh", "recurrent"), ("bias_ih", "bias"))
    }
    return weights | {"bias_hh": torch.zeros(4 * width, dtype=torch.float64)}


def full_context_loss(theta: Tensors, episode: Episode, steps: int) -> Tensor:
    support, queries = (embedded(theta, x) for x in (episode.support_x, episode.query_x))
    width = support.shape[1]
    both = nn.LSTM(width, width, bidirectional=True).double()
    names = {"": "forward", "_reverse": "backward"}
    given = {
        f"{kind}_l0{suffix}": value for suffix, ours in names.items() for kind, value in torch_lstm(theta, ours).items()
    }
    rows = sorted(range(len(support)), key=lambda row: episode.support_x[row].tolist())
    hidden = torch.func.functional_call(both, given, (support[rows][:, None],))[0][:, 0]
    context = support.clone()
    context[rows] = support[rows] + hidden[:, :width] + hidden[:, width:]
    cell, weights = nn.LSTMCell(2 * width, width).double(), torch_lstm(theta, "reader")
    state, memory, read = torch.zeros_like(queries), torch.zeros_like(queries), torch.zeros_like(queries)
    for _ in range(steps):
        state, memory = torch.func.functional_call(cell, weights, (torch.cat([queries, read], 1), (state, memory)))
        state = state + queries
        read = torch.einsum("qn,nd->qd", torch.softmax(state @ context.T, 1), context)
    return matching_loss(theta, context, state, episode, 1.0)


def siamese_loss(theta: Tensors, episode: Episode, share: float) -> Tensor:
    support, queries = (embedded(theta, x) for x in (episode.support_x, episode.query_x))
    losses: dict[bool, list[Tensor]] = {True: [], False: []}
    for query, label in zip(queries, episode.query_y, strict=True):
        for one, other in zip(support, episode.support_y, strict=True):
            alpha, bias = theta["prediction/importance"], theta["prediction/bias"]
            p = torch.sigmoid((alpha * (query - one).abs()).sum() + bias)
            same = bool(label == other)
            losses[same].append(-torch.log(p if same else 1 - p))
    return share * torch.stack(losses[True]).mean() + (1 - share) * torch.stack(losses[False]).mean()


def neighbours_loss(theta: Tensors, episode: Episode, temperature: float) -> Tensor:
    support, queries = (embedded(theta, x) for x in (episode.support_x, episode.query_x))
    shares = torch.softmax(-torch.cdist(queries, support).square() / temperature, 1)
    return F.nll_loss((shares @ F.one_hot(episode.support_y).to(shares)).log(), episode.query_y)


def written_out(solver: str, theta: Tensors, episode: Episode) -> Tensor:
    """Return the loss of an episode in plain torch."""
    if solver == "full_context":
        return full_context_loss(theta, episode, 3)
    if solver == "siamese":
        return siamese_loss(theta, episode, 0.3)
    if solver == "knn":
        return neighbours_loss(theta, episode, 2.0)
    support, queries = (embedded(theta, x) for x in (episode.support_x, episode.query_x))
    if solver == "matching_networks":
        return matching_loss(theta, support, queries, episode, 2.0)
    means = torch.stack([support[episode.support_y == label].mean(0) for label in range(3)])
    return F.cross_entropy(-torch.cdist(queries, means).square(), episode.query_y)


@pytest.mark.parametrize("solver", LEARNED)
def test_loss_and_gradient_are_those_of_plain_torch(solver: str) -> None:
    learner, episode = learner_of(solver), episode_of(FEW_SHOT, 3, support=7, queries=5)
    phi, state = begun(learner)
    step = learner.meta_step(phi, state, [episode], seeded(0))
    leaves = as_leaves(phi)
    loss = written_out(solver, leaves, episode)
    torch.testing.assert_close(torch.tensor(step.loss, dtype=torch.float64), loss.detach(), rtol=1e-6, atol=1e-9)
    slopes = torch.autograd.grad(loss, list(leaves.values()))
    assert len(slopes) == len(step.gradient) >= 2
    for name, slope in zip(leaves, slopes, strict=True):
        torch.testing.assert_close(step.gradient[name], slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shots", ["mean", "max"])
def test_a_siamese_query_has_the_class_of_its_most_similar_support_examples(shots: str) -> None:
    learner, episode = learner_of("siamese", shots=shots), episode_of(FEW_SHOT, 3, support=7, queries=5)
    phi, state = begun(learner)
    support, queries = (embedded(phi, x) for x in (episode.support_x, episode.query_x))
    odds = torch.empty(5, 3, dtype=torch.float64)
    for row, query in enumerate(queries):
        for label in range(3):
            own = support[episode.support_y == label]
            logits = (query - own).abs() @ phi["prediction/importance"] + phi["prediction/bias"]
            logit = logits.mean() if shots == "mean" else logits.max()
            p = torch.sigmoid(logit)
            odds[row, label] = p / (1 - p)
    torch.testing.assert_close(predicted(learner, episode, (phi, state)), odds / odds.sum(1, keepdim=True))


def by_hand(distances: list[float], labels: list[int], k: int) -> int:
    """Return the class of the vote; ties to the nearest."""
    order = sorted(range(len(labels)), key=lambda place: (distances[place], place))[:k]
    counts = {label: sum(labels[place] == label for place in order) for label in labels}
    most = max(counts.values())
    return next(labels[place] for place in order if counts[labels[place]] == most)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7, 50])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_nearest_vote_and_the_nearest_breaks_a_tie(k: int, metric: str) -> None:
    learner = learner_of("knn_inputs", k=k, metric=metric)
    for seed in range(12):
        episode = episode_of(FEW_SHOT, seed, support=7, queries=6)
        found = predicted(learner, episode)
        torch.testing.assert_close(found.sum(1), torch.ones(6, dtype=torch.float64))
        for row, query in enumerate(episode.query_x):
            if metric == "euclidean":
                distances = [float((query - one).norm()) for one in episode.support_x]
            else:
                distances = [1 - float(F.cosine_similarity(query, one, 0)) for one in episode.support_x]
            assert int(found[row].argmax()) == by_hand(distances, episode.support_y.tolist(), k)


def test_of_equally_near_examples_the_first_is_the_nearer() -> None:
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    learner = built(
        {"prediction": {"kind": "knn_inputs", "k": 1}}, TaskShape("classification", (2,), 3), estimator="auto"
    )
    phi, state = begun(learner)
    query = torch.zeros(1, 2, dtype=torch.float64)
    for labels in ([0, 1, 2], [2, 0, 1]):
        support = Support(x, torch.tensor(labels))
        assert int(learner.adapt(phi, state, support, seeded(0)).predict(query).argmax()) == labels[0]

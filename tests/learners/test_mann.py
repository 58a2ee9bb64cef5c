"""The memory-augmented network: equal to a plain version written out, blind to what comes later, batched as alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.amortized import AmortizedLearner
from metaloom.learners.solvers.model_based.mann import Mann, in_turn
from metaloom.learners.task_kinds import SEQUENCE, earlier_of_class
from metaloom.learners.tensors import Tensors, part
from metaloom.testing.problems import begun, built, central_difference, episode_of, normal, seeded
from tests.support.registry_rows import MEMORY

FEW_SHOT = TaskShape("classification", (6,), 3, classes=9)
IN_ORDER = TaskShape("sequence", (6,), 3, classes=9)
LENGTH = 9


def learner_of(task: TaskShape, **settings: Any) -> AmortizedLearner:
    learner = built({"prediction": {"kind": "mann", **MEMORY, **settings}}, task, estimator="auto")
    assert isinstance(learner, AmortizedLearner)
    return learner


def sequence(seed: int, length: int = LENGTH, ways: int = 3) -> Episode:
    """Draw a sequence of noise with equally many examples of each class, in a random order."""
    labels = torch.arange(length) % ways
    labels = labels[torch.randperm(length, generator=seeded(seed))]
    x = normal(length, 6, seed=seed) + labels.unsqueeze(-1)
    return Episode(Support(x[:0], labels[:0]), x, labels)


def written_out(own: Tensors, x: Tensor, before: Tensor, *, gamma: float = 0.95, strength: float = 1.0) -> Tensor:
    """Run the paper's equations, one sequence and one slot at a time; ``before`` are the late labels, one-hot."""
    width, heads, slots, slot_width = (MEMORY[name] for name in ("width", "heads", "slots", "slot_width"))
    hidden, cell = (torch.zeros(width, dtype=x.dtype) for _ in range(2))
    memory = [torch.zeros(slot_width, dtype=x.dtype) for _ in range(slots)]
    read = torch.zeros(heads * slot_width, dtype=x.dtype)
    w_read = torch.zeros(heads, slots, dtype=x.dtype)
    usage = [0.0] * slots
    found = []
    for t in range(len(x)):
        gates = torch.cat([x[t], before[t]]) @ own["inputs.weight"] + own["inputs.bias"]
        gates = gates + torch.cat([hidden, read]) @ own["recurrent.weight"]
        i, f, u, o = gates.split(width)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(u)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        made = hidden @ own["heads.weight"] + own["heads.bias"]
        keys = torch.tanh(made[: heads * slot_width]).reshape(heads, slot_width)
        alpha = torch.sigmoid(made[heads * slot_width :])
        least = sorted(range(slots), key=lambda slot: usage[slot])[:heads]
        for slot in least:
            memory[slot] = torch.zeros(slot_width, dtype=x.dtype)
        written = [0.0] * slots
        for slot in range(slots):
            for head in range(heads):
                weight = alpha[head] * w_read[head, slot] + (1 - alpha[head]) * float(least[head] == slot)
                memory[slot] = memory[slot] + weight * keys[head]
                written[slot] += float(weight.detach())
        w_read = torch.stack(
            [
                F.softmax(
                    torch.stack([strength * key @ one / ((key.norm() + 1e-4) * (one.norm() + 1e-4)) for one in memory]),
                    0,
                )
                for key in keys
            ]
        )
        usage = [gamma * usage[k] + written[k] + float(w_read[:, k].sum().detach()) for k in range(slots)]
        read = (w_read @ torch.stack(memory)).reshape(-1)
        found.append(torch.cat([hidden, read]) @ own["outputs.weight"] + own["outputs.bias"])
    return torch.stack(found)


def late(labels: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, 3, dtype=torch.float64), F.one_hot(labels[:-1], 3).double()])


def outputs_of(learner: AmortizedLearner, phi: Tensors, state: Any, episode: Episode) -> Tensor:
    embed = learner._embedding(phi, state, training=False)
    return learner.solver.outputs(part(phi, "prediction", optional=True), embed, episode)


@pytest.mark.parametrize("strength", [1.0, 5.0])
def test_a_sequence_is_answered_as_the_plain_version_answers_it(strength: float) -> None:
    learner = learner_of(IN_ORDER, strength=strength)
    phi, state = begun(learner)
    episode = sequence(0, 15)  # more writes than there are slots: places are taken again
    own = part(phi, "prediction")
    plain = written_out(own, episode.query_x, late(episode.query_y), strength=strength)
    torch.testing.assert_close(outputs_of(learner, phi, state, episode), plain, rtol=1e-6, atol=1e-6)


def test_its_gradient_is_that_of_the_plain_version() -> None:
    learner = learner_of(IN_ORDER)
    phi, state = begun(learner)
    batch = [sequence(seed, 12) for seed in (0, 1)]
    found = learner.meta_step(phi, state, batch, seeded(0))
    own = {name: value.clone().requires_grad_() for name, value in part(phi, "prediction").items()}
    losses = [F.cross_entropy(written_out(own, one.query_x, late(one.query_y)), one.query_y) for one in batch]
    mean = torch.stack(losses).mean()
    assert found.loss == pytest.approx(float(mean.detach()), rel=1e-6)
    for name, slope in zip(own, torch.autograd.grad(mean, list(own.values())), strict=True):
        torch.testing.assert_close(found.gradient[f"prediction/{name}"], slope, rtol=1e-6, atol=1e-9)


def test_a_few_shot_episode_is_its_pairs_in_turn_and_each_query_alone_after_them() -> None:
    learner = learner_of(FEW_SHOT)
    phi, state = begun(learner)
    episode = episode_of(FEW_SHOT, 0, support=6, queries=4)
    own = part(phi, "prediction")
    x, y = in_turn(episode.support, 3)
    assert earlier_of_class(y).tolist() == sorted(earlier_of_class(y).tolist())
    for query, output in zip(episode.query_x, outputs_of(learner, phi, state, episode), strict=True):
        whole = torch.cat([x, query.unsqueeze(0)])
        labels = torch.cat([y, y[:1]])  # the query's own label is not given
        torch.testing.assert_close(output, written_out(own, whole, late(labels))[-1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("task", [IN_ORDER, FEW_SHOT])
def test_the_gradient_is_that_of_central_differences(task: TaskShape) -> None:
    learner = learner_of(task, strength={"learn": {"start": 3.0}})
    phi, state = begun(learner)
    batch = [sequence(seed) if task.task_kind.in_order else episode_of(task, seed) for seed in (1, 2)]
    found = learner.meta_step(phi, state, batch, seeded(0)).gradient
    for leaf, value in phi.items():  # each on its own, so that none hides another
        direction = {name: torch.zeros_like(one) for name, one in phi.items()}
        direction[leaf] = torch.randn(value.shape, dtype=value.dtype, generator=seeded(3))
        slope = central_difference(lambda p: learner.objective(p, state, batch, seeded(0)), phi, direction, 1e-5)
        assert float((direction[leaf] * found[leaf]).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-9), leaf


@pytest.mark.parametrize("task", [IN_ORDER, FEW_SHOT])
def test_episodes_in_one_pass_give_what_each_gives_alone(task: TaskShape) -> None:
    learner = learner_of(task)
    phi, state = begun(learner)
    batch = [sequence(seed) if task.task_kind.in_order else episode_of(task, seed) for seed in (1, 2, 3)]
    together = learner.meta_step(phi, state, batch, seeded(0))
    alone = [learner.meta_step(phi, state, [one], seeded(0)) for one in batch]
    assert together.loss == pytest.approx(sum(one.loss for one in alone) / 3, rel=1e-10)
    for leaf, value in together.gradient.items():
        mean = torch.stack([one.gradient[leaf] for one in alone]).mean(0)
        torch.testing.assert_close(value, mean, rtol=1e-10, atol=1e-12)
    for one, outcome in zip(alone, together.outcomes, strict=True):
        assert outcome.accuracies == one.outcomes[0].accuracies
        assert outcome.losses == pytest.approx(one.outcomes[0].losses, rel=1e-10)


def test_unequal_episodes_are_run_in_turn() -> None:
    learner = learner_of(FEW_SHOT)
    phi, state = begun(learner)
    batch = [episode_of(FEW_SHOT, 1), episode_of(FEW_SHOT, 2, support=12)]
    together = learner.meta_step(phi, state, batch, seeded(0))
    alone = [learner.meta_step(phi, state, [one], seeded(0)) for one in batch]
    assert together.loss == pytest.approx(sum(one.loss for one in alone) / 2, rel=1e-12)


def test_an_answer_depends_on_nothing_that_comes_later_nor_on_its_own_label() -> None:
    learner = learner_of(IN_ORDER)
    phi, state = begun(learner)
    episode = sequence(0)
    answers = outputs_of(learner, phi, state, episode)
    for step in range(LENGTH):
        labels, x = episode.query_y.clone(), episode.query_x.clone()
        labels[step:] = (labels[step:] + 1) % 3  # its own label, and all later ones
        x[step + 1 :] += 10.0
        changed = outputs_of(learner, phi, state, replace(episode, query_x=x, query_y=labels))
        assert torch.equal(changed[: step + 1], answers[: step + 1])
        if step + 1 < LENGTH:
            assert not torch.allclose(changed[step + 1], answers[step + 1])  # which the next one does depend on
    rows = episode.query_x.clone().requires_grad_()
    seen = outputs_of(learner, phi, state, replace(episode, query_x=rows))[4]
    (slope,) = torch.autograd.grad(seen.sum(), rows)
    assert not slope[5:].any() and slope[:5].abs().sum(-1).min() > 0


def test_the_record_has_a_score_for_each_presentation() -> None:
    learner = learner_of(IN_ORDER)
    phi, state = begun(learner)
    episode = sequence(3)
    outcome = learner.evaluate(phi, state, episode, seeded(0))
    outputs = outputs_of(learner, phi, state, episode)
    right = (outputs.argmax(-1) == episode.query_y).double()
    seen: dict[int, list[float]] = {}
    for label, hit in zip(episode.query_y.tolist(), right.tolist(), strict=True):
        seen.setdefault(label, []).append(hit)
    each = torch.tensor(list(seen.values())).mean(0)  # [presentations]
    assert outcome.accuracies == pytest.approx(each.tolist())
    losses = F.cross_entropy(outputs, episode.query_y, reduction="none")
    assert sum(outcome.losses) / 3 == pytest.approx(float(losses.mean()))
    trained = learner.meta_step(phi, state, [episode], seeded(0))
    assert trained.outcomes[0].accuracies == outcome.accuracies
    assert trained.loss == pytest.approx(float(losses.mean()))


def test_the_order_of_classes_in_a_support_set_does_not_matter_nor_does_padding() -> None:
    learner = learner_of(FEW_SHOT)
    phi, state = begun(learner)
    episode = episode_of(FEW_SHOT, 0, support=6, queries=4)
    answers = outputs_of(learner, phi, state, episode)
    by_class = episode.support_y.argsort(stable=True)
    order = torch.cat([by_class[(episode.support_y[by_class] == label)] for label in (2, 0, 1)])
    moved = Support(episode.support_x[order], episode.support_y[order])
    torch.testing.assert_close(outputs_of(learner, phi, state, replace(episode, support=moved)), answers)
    padded = Support(
        torch.cat([normal(2, 6, seed=9), episode.support_x]),
        torch.cat([torch.tensor([1, 2]), episode.support_y]),
        mask=torch.tensor([False, False] + 6 * [True]),
    )
    filled = replace(episode, support=padded)
    torch.testing.assert_close(outputs_of(learner, phi, state, filled), answers)
    both = learner.meta_step(phi, state, [filled, filled], seeded(0))  # which are run in turn
    assert both.loss == pytest.approx(learner.meta_step(phi, state, [episode], seeded(0)).loss)


def test_queries_are_answered_alone_as_together_in_single_precision_too() -> None:
    learner = learner_of(FEW_SHOT)
    phi, state = begun(learner)
    phi = {name: value.float() for name, value in phi.items()}
    episode = episode_of(FEW_SHOT, 0, support=6, queries=5).to(torch.device("cpu"), torch.float32)
    twice = replace(episode.support, x=episode.support_x[:1].expand(6, -1))  # six equal examples
    for support in (episode.support, twice, Support(episode.support_x[:1], episode.support_y[:1])):
        adapted = learner.adapt(phi, state, support, seeded(0))
        together = adapted.predict(episode.query_x)
        assert bool(torch.isfinite(together).all())
        alone = torch.cat([adapted.predict(query.unsqueeze(0)) for query in episode.query_x])
        torch.testing.assert_close(alone, together)
    nothing = learner.adapt(phi, state, Support(episode.support_x[:0], episode.support_y[:0]), seeded(0))
    assert bool(torch.isfinite(nothing.predict(episode.query_x)).all())


def test_it_shows_what_its_memory_reads() -> None:
    learner = learner_of(IN_ORDER)
    episode = sequence(0)
    shown = learner.inspect(*begun(learner), episode)
    assert shown["reads"].shape == (LENGTH, MEMORY["slots"])
    torch.testing.assert_close(shown["reads"].sum(-1), torch.ones(LENGTH, dtype=torch.float64))
    assert shown["by_presentation"].shape == (3,)
    few = learner_of(FEW_SHOT)
    shown = few.inspect(*begun(few), episode_of(FEW_SHOT, 0, support=6, queries=4))
    assert shown["reads"].shape == (10, MEMORY["slots"])


def test_pictures_are_averaged_down_and_other_inputs_refused() -> None:
    pictures = replace(IN_ORDER, inputs=(1, 4, 4))
    learner = learner_of(pictures, side=2)
    phi, state = begun(learner)
    assert phi["prediction/inputs.weight"].shape[0] == 4 + 3
    episode = sequence(0)
    x = normal(LENGTH, 1, 4, 4, seed=1)
    small = replace(episode, query_x=F.avg_pool2d(x, 2).flatten(1))
    whole = outputs_of(learner, phi, state, replace(episode, query_x=x))
    torch.testing.assert_close(
        whole, written_out(part(phi, "prediction"), small.query_x, late(episode.query_y)), rtol=1e-6, atol=1e-6
    )
    with pytest.raises(LearnerError, match=r"learner.prediction.side: got 2, for pictures alone; inputs are 6"):
        learner_of(IN_ORDER, side=2)


@pytest.mark.parametrize("kind", ["nearest_neighbour", "constant"])
def test_a_baseline_answers_a_sequence_by_what_came_before(kind: str) -> None:
    learner = built({"prediction": {"kind": kind}}, IN_ORDER, estimator="auto")
    assert isinstance(learner, AmortizedLearner)
    episode = sequence(1)
    answers = outputs_of(learner, {}, begun(learner)[1], episode)
    for step in range(1, LENGTH):
        before = Support(episode.query_x[:step], episode.query_y[:step])
        few = built({"prediction": {"kind": kind}}, FEW_SHOT, estimator="auto")
        adapted = few.adapt({}, begun(few)[1], before, seeded(0))
        torch.testing.assert_close(answers[step].softmax(-1), adapted.predict(episode.query_x[step : step + 1])[0])
    outcome = learner.evaluate({}, begun(learner)[1], episode, seeded(0))
    assert len(outcome.accuracies) == 3 and all(0 <= one <= 1 for one in outcome.accuracies)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(LearnerError, match=r"prediction.heads: 9 heads need as many slots, got 8"):
        learner_of(FEW_SHOT, heads=9)
    with pytest.raises(LearnerError, match=r"mann needs classes"):
        learner_of(TaskShape("regression", (6,), 2))
    for kind in ("linear", "prototypes"):
        with pytest.raises(LearnerError, match=rf"{kind} does not solve a sequence task; use one of .*mann"):
            built({"prediction": {"kind": kind}}, IN_ORDER, estimator="auto")
    assert SEQUENCE.name in Mann.serves

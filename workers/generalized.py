"""Generalized zero-shot learning: classes with and without training examples together, by calibrated stacking.

Chao, Changpinyo, Gong and Sha, 2016, https://arxiv.org/abs/1605.04253, equation 2:

    y(x) = argmax_k s_k(x) - penalty * [k is a training class]

A learner prefers the classes that it was trained on. The penalty is that with the largest harmonic mean of both
accuracies on the validation classes; what is reported is of the test classes.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from metaloom.learners.base import Learner
from metaloom.learners.episode import Support
from metaloom.learners.solvers.amortized import AdaptedByOutputs
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.workers.assembly import assemble
from metaloom.workers.bundle_reading import parameters_of
from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.data.base import TaskSource
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.device import Device
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import TEST, VALIDATION
from metaloom.workers.records.results import GeneralizedScore
from metaloom.workers.records.trial import read_config
from metaloom.workers.seeds import derive_generator

BATCH = 4096  # examples that are predicted at once
OPTION = "--generalized"


class Stacked(NamedTuple):
    """What a penalty decides, of the examples of one kind of class.

    Attributes:
        margin: The best score among the training classes less that among the others [n].
        right: Whether the best one of the example's own kind is its class [n].
        classes: The class of each example, from 0 [n].
    """

    margin: Tensor
    right: Tensor
    classes: Tensor

    def accuracy(self, kept: Tensor) -> float:
        """Return the mean over the classes of the fraction that is right, where an example's kind was ``kept``."""
        count = torch.bincount(self.classes).double()
        right = torch.bincount(self.classes, weights=(self.right & kept).double(), minlength=len(count))
        return float((right / count)[count > 0].mean())


def evaluate_generalized(
    learner: Learner, phi: Tensors, state: LearnerState, source: TaskSource, device: Device
) -> GeneralizedScore:
    """Score the training classes' held-out examples and all of the test classes, among all these classes.

    Raises BundleError for tasks whose classes nothing describes, or that hold no examples of the training classes out.
    """
    if not isinstance(source, FewShotSource) or source.class_features is None or not source.held.counts.any():
        raise BundleError(
            f"{OPTION}: it takes tasks with class_features, and with a fraction of the training classes' examples held "
            "out by tasks.seen_fraction"
        )
    seen, unseen = _stacked(learner, phi, state, source, VALIDATION, device)
    penalty = max(_candidates(seen, unseen), key=lambda one: harmonic(*_both(seen, unseen, one)))
    tested = _stacked(learner, phi, state, source, TEST, device)
    (with_seen, with_unseen), (plain_seen, plain_unseen) = _both(*tested, penalty), _both(*tested, 0.0)
    return GeneralizedScore(
        penalty=penalty,
        seen=with_seen,
        unseen=with_unseen,
        harmonic=harmonic(with_seen, with_unseen),
        plain_seen=plain_seen,
        plain_unseen=plain_unseen,
        plain_harmonic=harmonic(plain_seen, plain_unseen),
    )


def generalized_of_trial(directory: Path, *, cache: Path, trust_code: bool = False) -> GeneralizedScore:
    """Score what the trial in ``directory`` has learned, as ``evaluate_generalized`` does."""
    config, knowledge = read_config(directory), load_knowledge(directory)
    parts = assemble(config, cache=cache, start=parameters_of(knowledge), trust_code=trust_code)
    phi, state = parts.device.place(knowledge.phi), knowledge.state.mapped(parts.device.move)
    return evaluate_generalized(parts.learner, phi, state, parts.source, parts.device)


def harmonic(seen: float, unseen: float) -> float:
    """Return the harmonic mean of two accuracies."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0


def _both(seen: Stacked, unseen: Stacked, penalty: float) -> tuple[float, float]:
    return seen.accuracy(seen.margin > penalty), unseen.accuracy(unseen.margin <= penalty)


def _candidates(seen: Stacked, unseen: Stacked) -> list[float]:
    """Return penalties from none to one that leaves no training class, those of least size first."""
    margins = torch.cat([seen.margin, unseen.margin]).double()
    marks = torch.quantile(margins[:: -(-len(margins) // 100_000)], torch.linspace(0, 1, 201, dtype=torch.float64))
    return sorted({0.0, *marks.tolist()}, key=abs)


def _stacked(
    learner: Learner, phi: Tensors, state: LearnerState, source: FewShotSource, split: str, device: Device
) -> tuple[Stacked, Stacked]:
    """Return the margins of the training classes' held-out examples, and of all examples of a split's classes."""
    known = source.class_features
    assert known is not None
    (first, last), (begin, end) = source.table.ends["train"], source.table.ends[split]
    values = torch.from_numpy(known.values[[*range(first, last), *range(begin, end)]])
    nothing = Support(torch.zeros(0, *source.shape.inputs), torch.zeros(0, dtype=torch.int64), values)
    support = Support(**device.place(nothing.tensors()))
    adapted = learner.adapt(phi, state, support, derive_generator(0, "evaluate"))
    assert isinstance(adapted, AdaptedByOutputs)  # no other learner uses what describes a class
    ways, found = last - first, list[Stacked]()
    for is_seen, examples in ((True, source.held.examples(source.table)), (False, source.examples(split))):
        scores = list[Tensor]()
        for start in range(0, len(examples[0]), BATCH):
            rows, turns = (one[start : start + BATCH] for one in examples)
            x = source.gather(rows[:, None], turns).flatten(0, 1)
            with device.precision():
                scores.append(adapted.outputs(device.move(x)).detach().cpu())
        whole = torch.cat(scores)
        both = whole[:, :ways], whole[:, ways:]
        counts = source.held.counts[first:last] if is_seen else source.table.counts[begin:end]
        classes = torch.arange(len(counts)).repeat_interleave(torch.from_numpy(counts))
        margin = both[0].amax(1) - both[1].amax(1)
        found.append(Stacked(margin, both[not is_seen].argmax(1) == classes, classes))
    return found[0], found[1]

"""How much each class of a source should count for a target: weights for ``supervised`` pre-training.

Ngiam et al., 2018, https://arxiv.org/abs/1811.07056, section 3.2:

    w(y) = P_target(y) / P_source(y)

P_target(y) is the mean probability that a classifier of the source gives class y on unlabelled examples of the target.
"""

from pathlib import Path
from typing import Any

import torch

from metaloom.learners.episode import Support
from metaloom.learners.solvers.amortized import AdaptedByOutputs, AmortizedLearner
from metaloom.learners.solvers.pretraining.supervised import Supervised, target_weights
from metaloom.learners.state import knowledge_of
from metaloom.learners.tensors import Tensors
from metaloom.workers.bundle import Bundle, load_bundle
from metaloom.workers.errors import BundleError
from metaloom.workers.seeds import derive_generator

TOGETHER = 250  # examples that are embedded at once


def class_weights(bundle: Bundle | str | Path, examples: Any) -> tuple[float, ...]:
    """Return w of each training class, in the order of their numbers, with a mean of 1.

    They are what ``learner.prediction.weights`` of the method ``supervised`` takes.

    Args:
        bundle: An exported bundle of the method ``supervised``, or its folder.
        examples: Unlabelled examples of the target [n, *inputs], in any form that ``Bundle.adapt`` takes.

    Raises:
        BundleError: The bundle is of another method; there are no examples, or they have another form.
    """
    opened = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    learner = opened._learner
    if not isinstance(learner, AmortizedLearner) or not isinstance(learner.solver, Supervised):
        method = opened.config.learner.get("method")
        raise BundleError(
            f"{opened.path}: it is of method {method}, which has no head over all training classes; give a bundle of "
            "supervised"
        )
    x, _ = opened._form().read(examples, "examples")
    device, knowledge = opened._device, opened._knowledge
    phi, state = device.place(knowledge.phi), knowledge.state.mapped(device.move)
    placed: Tensors = device.place({"x": x})
    with device.precision(), torch.no_grad():
        first = Support(placed["x"][:1], torch.zeros(1, dtype=torch.int64, device=placed["x"].device))
        adapted = learner.adapt(phi, state, first, derive_generator(0, "evaluate"))
        assert isinstance(adapted, AdaptedByOutputs)
        features = torch.cat([adapted.embed(some) for some in torch.split(placed["x"], TOGETHER)])
        scores = learner.solver.scores(knowledge_of(phi, "prediction"), features).double()
    counts = opened.task.counts or (1,) * scores.shape[1]  # episodes draw classes equally often
    weights = target_weights(scores.softmax(-1).cpu(), torch.tensor(counts, dtype=torch.float64))
    return tuple((weights / weights.mean()).tolist())

r"""Pre-training: the body of a network learns by an objective that needs no episodes, and is then handed on.

* ``denoising_autoencoder`` (Vincent et al., 2008): examples are reconstructed from noisy ones.
* ``time_net`` (Malhotra et al., 2017): a recurrent network reconstructs series, backwards.
* ``conv_time_net`` (Kashiparekh et al., 2019): series are classified, with one head for each of many data sets.
* ``language_model`` (Radford et al., 2018): each token of a text is predicted from those before it.
* ``masked_autoencoder`` (He et al., 2021): hidden parts of an example are reconstructed from the others.
* ``supervised`` (Ngiam et al., 2018): the classes of the training, each with a weight by its share in the target.

A trial of one of these trains the body; its validation solves tasks by the nearest class mean on the features.
``metaloom export`` writes a bundle, and ``initialization: {kind: fine_tuned, bundle: PATH}`` of any method starts
there.
"""

from collections.abc import Mapping
from typing import Any

from metaloom.learners.base import METHODS, Recipe

LEARNED: Mapping[str, Any] = {"initialization": {"kind": "learned"}}
SETTINGS: Mapping[str, Any] = {"inner": {"batch_norm": "frozen"}, "outer": {"meta_batch": 1}}

METHODS["denoising_autoencoder"] = Recipe(
    summary="a network that reconstructs examples from noisy copies; class means of its features for a task",
    paper="Vincent et al., 2008, Extracting and composing robust features with denoising autoencoders",
    learner={**LEARNED, "prediction": {"kind": "denoising_autoencoder"}},
    **SETTINGS,
)

METHODS["masked_autoencoder"] = Recipe(
    summary="a network that reconstructs hidden parts of examples; class means of its features for a task",
    paper="He et al., 2021, https://arxiv.org/abs/2111.06377",
    learner={**LEARNED, "prediction": {"kind": "masked_autoencoder"}},
    **SETTINGS,
)

METHODS["supervised"] = Recipe(
    summary="a network with one head over all training classes, weighted by the target; class means for a task",
    paper="Ngiam et al., 2018, https://arxiv.org/abs/1811.07056",
    learner={**LEARNED, "prediction": {"kind": "supervised"}},
    **SETTINGS,
)

METHODS["language_model"] = Recipe(
    summary="a transformer that predicts the next token of a text; class means of its features for a task",
    paper="Radford et al., 2018, Improving language understanding by generative pre-training",
    learner={
        **LEARNED,
        "architecture": {"kind": "transformer", "causal": True},
        "prediction": {"kind": "language_model"},
    },
    **SETTINGS,
)

METHODS["time_net"] = Recipe(
    summary="a recurrent network that reconstructs series backwards; class means of its features for a task",
    paper="Malhotra et al., 2017, https://arxiv.org/abs/1706.08838",
    learner={
        **LEARNED,
        "architecture": {"kind": "gru", "read": "states"},
        "prediction": {"kind": "time_net"},
    },
    **SETTINGS,
)

METHODS["conv_time_net"] = Recipe(
    summary="filters of several lengths, trained by one head a data set; class means of their features for a task",
    paper="Kashiparekh et al., 2019, https://arxiv.org/abs/1904.12546",
    learner={
        **LEARNED,
        "architecture": {"kind": "conv1d", "channels": 8, "lengths": [4, 8, 16, 32, 64], "residual": True},
        "prediction": {"kind": "conv_time_net"},
    },
    **SETTINGS,
)

"""The figure of a language model: which tokens surprise it."""

import torch

from metaloom.dashboards.knowledge_figures import TrialKnowledge, pictures
from metaloom.learners.state import LearnerState
from metaloom.testing.problems import TEXTS


def drawn(**shown: torch.Tensor) -> dict[str, str]:
    found = pictures(TrialKnowledge({}, TEXTS, {}, LearnerState(), shown))
    return {one.name: one.caption for one in found}


def test_a_language_models_texts_are_drawn_with_their_perplexity() -> None:
    text = torch.tensor([[2.0, 3.0, 1.0, 0.0, 0.0], [4.0, 2.0, 0.0, 0.0, 0.0]])
    surprise = torch.tensor([[0.0, 1.0, 3.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0, 0.0]])
    caption = drawn(text=text, surprise=surprise)["next-tokens"]
    assert "2 texts" in caption and "cost 2.00 bits on average, a perplexity of 4.0 among 4 tokens" in caption
    assert caption.endswith("33% of them are outside of the vocabulary.")


def test_nothing_is_drawn_of_texts_without_a_second_token() -> None:
    text = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    assert drawn(text=text, surprise=torch.zeros(2, 2)) == {}
    assert drawn(text=torch.zeros(2, 3), surprise=torch.zeros(2, 3)) == {}
    assert drawn(text=text) == {}
    assert drawn(text=text, surprise=torch.zeros(2, 3)) == {}

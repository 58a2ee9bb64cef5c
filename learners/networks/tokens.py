"""What token numbers mean: 0 fills up a short text, 1 is a token outside of the vocabulary, the others are its tokens.

An example of text is float32 [length] of token numbers, which float32 holds exactly below 2**24. The vocabulary belongs
to the task (``TaskShape.columns``), and with it to a bundle: token 17 is the same word wherever the bundle goes.
"""

import hashlib
import json

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError

PADDING, UNKNOWN, FIRST = 0, 1, 2
TEXT = "text"  # the kind of a column that becomes token numbers
MOST_TOKENS = 2**24  # which float32 counts exactly


def vocabulary_of(task: TaskShape) -> tuple[str, ...]:
    """Return the tokens of a task's examples, of which the first has number ``FIRST``; empty where they are no text."""
    return next((tuple(one["vocabulary"]) for one in task.columns if one.get("kind") == TEXT), ())


def vocabulary_digest(task: TaskShape) -> Tensor | None:
    """Return a digest of how a task's texts are divided and numbered, uint8 [8]; None where examples are no text."""
    if not vocabulary_of(task):
        return None
    document = next(dict(one) for one in task.columns if one.get("kind") == TEXT)
    parts = [document.get("tokens"), document.get("lower"), list(document["vocabulary"])]
    return torch.tensor(list(hashlib.sha256(json.dumps(parts).encode()).digest()[:8]), dtype=torch.uint8)


def token_count(task: TaskShape) -> int:
    """Return how many token numbers there are, padding and unknown among them; 0 where examples are no text."""
    known = vocabulary_of(task)
    return FIRST + len(known) if known else 0


def text_tokens(task: TaskShape, network: str) -> int:
    """Return ``token_count``; raises LearnerError, which names the network, where examples are no text."""
    if count := token_count(task):
        return count
    raise LearnerError(
        f"learner.architecture: {network} reads text, but this task's examples are numbers of shape {task.inputs}; use "
        "another architecture, or a source of text, such as tasks.source: text"
    )


def embedded(weight: Tensor, x: Tensor) -> Tensor:
    """Return the rows of an embedding [tokens, width] for token numbers [n, length]: [n, length, width]."""
    return F.embedding(x.long(), weight)


def averaged(states: Tensor, observed: Tensor) -> Tensor:
    """Average states [n, length, width] over the observed places [n, length]: [n, width]; 0 where none is."""
    shares = observed.to(states.dtype)
    return (states * shares.unsqueeze(-1)).sum(1) / shares.sum(1, keepdim=True).clamp_min(1)

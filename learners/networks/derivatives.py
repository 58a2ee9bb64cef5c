"""Operations of torch without a second derivative: named, where torch's own message leaves the user alone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from metaloom.learners.errors import LearnerError

MISSING = re.compile(r"derivative for '?(?:aten::)?_?(\w+?)(?:_backward)?'? is not implemented")
OWN_FUNCTIONS = {  # what torch says of a torch.autograd.Function whose backward pass cannot be differentiated
    "modified by an inplace operation": "a function whose backward pass writes in place",
    "marked with @once_differentiable": "a function that is marked with once_differentiable",
}


@contextmanager
def named_operation() -> Iterator[None]:
    """Turn torch's error about a missing second derivative into one that names the operation and the way out.

    Raises:
        LearnerError: An operation within has no second derivative.
    """
    try:
        yield
    except RuntimeError as error:
        found = MISSING.search(str(error))
        own = (name for message, name in OWN_FUNCTIONS.items() if message in str(error))
        operation = found[1] if found else next(own, None)
        if operation is None:
            raise
        raise LearnerError(
            f"learner.architecture: {operation} has no second derivative in torch, which this "
            "hypergradient needs; use another operation, or outer.hypergradient: first_order"
        ) from error

"""Operations of torch without a second derivative: named, where torch's own message leaves the user alone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from metaloom.learners.errors import LearnerError

MISSING = re.compile(r"derivative for '?(?:aten::)?_?(\w+?)(?:_backward)?'? is not implemented")


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
        if found is None:
            raise
        raise LearnerError(
            f"learner.architecture: {found[1]} has no second derivative in torch, which this "
            "hypergradient needs; use another operation, or outer.hypergradient: first_order"
        ) from error

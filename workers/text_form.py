"""A user's texts for a bundle that reads text: lists, arrays and columns of texts, by the vocabulary of training."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaloom.learners.errors import unknown
from metaloom.learners.networks.tokens import FIRST, UNKNOWN
from metaloom.workers.data.base import some
from metaloom.workers.data.text_encoding import FittedText
from metaloom.workers.errors import BundleError

_LOG = logging.getLogger("metaloom.bundle")
MOST_UNKNOWN = 0.5  # of the tokens; above, a warning says that the texts are unlike those of training


def read_texts(given: Any, name: str, text: FittedText) -> Tensor:
    """Return the token numbers of texts, float32 [n, length].

    Args:
        given: A list, an array or a column of texts; a table with the column of the texts; or token numbers [n, length]
            as an array, as a bundle keeps them.
        name: How errors and warnings name them.
        text: How texts become token numbers.

    Raises:
        BundleError: They are something else, or a text is missing.
    """
    texts = _listed(given, name, text)
    if isinstance(texts, Tensor):
        return _checked(texts, name, text)
    if empty := [row for row, one in enumerate(texts) if not isinstance(one, str) or not one.strip()]:
        shown = some([f"row {row} ({texts[row]!r})" for row in empty])
        raise BundleError(f"{name}: a text is needed in each row, and {shown} has none (rows count from 0)")
    if not texts:
        raise BundleError(f"{name}: no text is given")
    found = torch.from_numpy(text.numbers(texts)).to(torch.float32)
    share = float((found == UNKNOWN).sum() / (found > 0).sum().clamp_min(1))
    if share > MOST_UNKNOWN:
        _LOG.warning("%s: %.0f%% of the %s were not in the training texts", name, 100 * share, text.tokens)
    return found


def _listed(given: Any, name: str, text: FittedText) -> list[Any] | Tensor:
    """Return texts as a list, and numbers as a tensor."""
    columns = getattr(given, "column_names", None) or getattr(given, "columns", None)
    if columns is not None and not isinstance(given, Tensor):
        held = [str(column) for column in columns]
        if text.column not in held:
            raise BundleError(f"{name}: {unknown('column', text.column, held)}")
        given = given[text.column]
    if isinstance(given, Tensor):
        return given.detach()
    if isinstance(given, str):
        raise BundleError(f"{name}: got one text; give a list of texts")
    for convert in ("to_pylist", "to_list", "tolist"):
        if hasattr(given, convert):
            given = getattr(given, convert)()
            break
    if not isinstance(given, list | tuple):
        raise BundleError(f"{name}: got {type(given).__name__}; this learner reads texts: give a list of them")
    if given and isinstance(given[0], list | tuple):
        try:
            return torch.from_numpy(np.asarray(given, dtype=np.float64))
        except (TypeError, ValueError) as problem:
            raise BundleError(f"{name}: this learner reads texts: give a list of them ({problem})") from problem
    return list(given)


def _checked(numbers: Tensor, name: str, text: FittedText) -> Tensor:
    """Return token numbers as float32; raises BundleError for any other numbers."""
    most = FIRST + len(text.vocabulary) - 1
    found = numbers.to(torch.float32)
    whole = bool(((found >= 0) & (found <= most) & (found == found.round())).all())
    if tuple(found.shape[1:]) != (text.length,) or not len(found) or not whole:
        raise BundleError(
            f"{name}: got numbers of shape {tuple(found.shape)}; this learner reads texts: give a list of them, or "
            f"their token numbers [n, {text.length}], whole ones from 0 to {most}"
        )
    return found

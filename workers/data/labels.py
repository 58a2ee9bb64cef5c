"""Compares the labels of two files by value: ``1`` and ``1.0`` are one label, ``1`` and ``01`` are two."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_known(given: Sequence[Any] | NDArray[Any], known: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """Return labels as text, each as it is written among ``known`` where it means one of these.

    A label that is written as a known one is that one. Otherwise it is the known one of the same number, if there is
    one alone: a data frame writes ``1.0`` for ``1`` once its column has held a missing value. A label that is none of
    these stays as it is.
    """
    texts = [str(one) for one in known]
    by_number: dict[Decimal, list[str]] = {}
    for text in texts:
        if (number := _number(text)) is not None:
            by_number.setdefault(number, []).append(text)
    distinct = set(texts)
    return np.array([_one_of(str(label), distinct, by_number) for label in given], dtype=str)


def _one_of(label: str, texts: set[str], by_number: dict[Decimal, list[str]]) -> str:
    if label in texts or (number := _number(label)) is None:
        return label
    same = by_number.get(number, [])
    return same[0] if len(same) == 1 else label


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None

"""A registry is a mapping whose misses teach the right spelling."""

import pytest

from metaloom.learners.errors import LearnerError
from metaloom.learners.registry import NotRegistered, Registry


def test_an_absent_name_is_refused_by_index_and_is_the_default_of_get() -> None:
    colors: Registry[int] = Registry("color")
    colors.add("red", 1)
    assert colors.get("red") == 1 and colors.get("rad") is None and colors.get("rad", 7) == 7
    with pytest.raises(NotRegistered, match="no color is named 'rad'; did you mean 'red'"):
        colors["rad"]


def test_an_entry_is_also_added_by_assignment_and_never_replaced() -> None:
    colors: Registry[int] = Registry("color")
    colors["red"] = 1
    with pytest.raises(LearnerError, match="two colors are named 'red'"):
        colors["red"] = 2
    assert colors["red"] == 1

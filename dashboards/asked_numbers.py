"""Whole numbers of addresses and forms."""

from metaloom.learners.errors import BadInput, shown

DIGITS = 18  # fewer than a 64-bit number may have; Python refuses to read thousands


def whole_number(field: str, given: str, allowed: str = "a whole number") -> int:
    """Return the number that a field holds; raises BadInput, which says what is ``allowed``, for any other text."""
    if not is_whole_number(given):
        raise BadInput(f"{field}: {allowed} is allowed, got {shown(given)}")
    return int(given)


def is_whole_number(given: str) -> bool:
    """Return whether a text is a whole number from 0, and not so long that nothing has so many."""
    return given.isdecimal() and len(given) <= DIGITS

"""Texts without passwords, tokens and control characters: what errors, warnings and stored records may contain.

A secret is the password of an address (``http://user:password@host``), a value of its query whose name says so
(``?token=...``), a value after ``password=``, an ``Authorization`` header, or what ``remember`` was given. It is
replaced by ``***``.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "RAY_AUTH_TOKEN")
SECRET_KEYS = frozenset(
    {"password", "passwd", "secret", "api_key", "apikey", "access_key", "secret_key", "access_token", "auth_token"}
)
SHORTEST = 6
# A plain word or number is hidden only where an address shows that it is a secret: records are made of such words.
_PLAIN = re.compile(r"[a-z_.-]*|[0-9.eE+-]*")
_REFERENCE = re.compile(r"\$\{\w+\}")  # to an environment variable

_WORDS = r"(?:passw|pwd|token|secret|key|sig|credential|auth)"
# The password of an address, with or without its scheme. What follows ``host:`` and is a number up to the path or the
# end is a port, although the path may have an @.
_PASSWORD = re.compile(
    r"(?P<head>(?:[A-Za-z][A-Za-z0-9+.-]*://|(?<![^\s=\"'(<\[]))[^\s/?#@:\"'<>]*:)"
    r"(?P<secret>(?!//|\d+(?:[/?#\s\"']|$))[^\s\"'<>]+)@(?=[^\s@\"'<>])"
)
_OUR_VIEW = r"(?!viewStateShareKey=metaloom-)"  # of MLflow's runs page: the name of a view, no secret
_QUERY = re.compile(
    rf"(?P<head>(?:[?&#;]{_OUR_VIEW}[\w.-]*{_WORDS}[\w.-]*|\b(?:{'|'.join(sorted(SECRET_KEYS))}))=)(?P<secret>[^\s&#;\"'<>]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?P<head>\bauthorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?)(?P<secret>[^\s\"',}]+)", re.IGNORECASE
)
_PATTERNS = (("@", _PASSWORD), ("=", _QUERY), ("uthorization", _HEADER))  # each with a text that it needs
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_remembered: set[str] = set()


def remember(secret: str) -> None:
    """Hide ``secret`` in every text of this process from now on, as it is and as addresses and JSON write it."""
    for form in (secret, unquote(secret), json.dumps(unquote(secret))[1:-1]):
        if _is_distinct(form):
            _remembered.add(form)


def redacted(text: str) -> str:
    """Return ``text`` with ``***`` in place of each secret."""
    for secret in sorted({*_remembered, *_from_environment()}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for needed, pattern in _PATTERNS:
        if needed in text:
            text = pattern.sub(_hidden, text)
    return text


def _hidden(found: re.Match[str]) -> str:
    if _REFERENCE.fullmatch(found["secret"]):
        return found[0]
    return found["head"] + HIDDEN + found[0][len(found["head"]) + len(found["secret"]) :]


def _from_environment() -> Iterator[str]:
    return (value for name in SECRET_VARIABLES if _is_distinct(value := os.environ.get(name, "")))


def _is_distinct(secret: str) -> bool:
    return len(secret) >= SHORTEST and _PLAIN.fullmatch(secret) is None


def secrets_in(text: str) -> list[str]:
    """Return the secrets that ``text`` itself shows, without those that are hidden or refer to a variable."""
    found = [match["secret"] for needed, pattern in _PATTERNS if needed in text for match in pattern.finditer(text)]
    return [secret for secret in found if secret != HIDDEN and not _REFERENCE.fullmatch(secret)]


def secret_places(value: Any, path: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """Yield the path of each text within nested values that holds a secret, or whose name says that it is one."""
    if isinstance(value, str):
        named = bool(path) and str(path[-1]).lower() in SECRET_KEYS and value not in ("", HIDDEN)
        if named or secrets_in(value):
            yield path
        return
    items: Iterable[tuple[int | str, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for key, inner in items:
        yield from secret_places(inner, (*path, key))


def printable(text: str) -> str:
    """Return ``text`` with control characters written as escapes, except tabs and ends of lines."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def clean(text: str) -> str:
    """Return ``text`` as it may be printed: without secrets, control characters escaped."""
    return printable(redacted(text))


def on_one_line(text: str) -> str:
    """Return ``text`` with all control characters written as escapes."""
    return printable(text.replace("\n", "\\n").replace("\t", "\\t"))

"""Texts lose their secrets and their control characters, and nothing else."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaloom.learners import redaction
from metaloom.learners.errors import shown, unknown
from metaloom.learners.redaction import clean, on_one_line, printable, redacted, remember, secret_places, secrets_in

SECRETS = [
    ("http://bob:pw@host:5000/x", "http://bob:***@host:5000/x"),
    ("http://:pw@host", "http://:***@host"),
    ("http://pw:pw@pw", "http://pw:***@pw"),
    ("postgresql://u:p@ss@h/db?password=q&x=1", "postgresql://u:***@h/db?password=***&x=1"),
    ("--set tracking.uri=bob:pa/ss@host", "--set tracking.uri=bob:***@host"),
    ("http://h/?sig=abc&y=2#token=z", "http://h/?sig=***&y=2#token=***"),
    ("host=h password=pw user=u", "host=h password=*** user=u"),
    ("{'Authorization': 'Bearer abc'}", "{'Authorization': 'Bearer ***'}"),
    ("HTTPConnection(http://a:b@c), then http://d:e@f.", "HTTPConnection(http://a:***@c), then http://d:***@f."),
    ("http://bob:${PW}x@host", "http://bob:***@host"),
]
PLAIN = [
    "http://host:5000/@user/x",
    "http://host:80?a=1",
    "http://bob:${PW}@h",
    "http://bob:***@h",
    "at 12:30 by a@b.org",
    "learner: a@b",
    "sqlite:////folder/a:b@c/d.db",
    "file:///a:b@c",
    "outer.rate=0.1 key values: tokens",
    "postgresql://user@host/db",
    "http://h/#/experiments/1/runs?viewStateShareKey=metaloom-3d29f337999e72bb",
]


@pytest.mark.parametrize(("text", "told"), SECRETS)
def test_a_secret_is_replaced_and_the_rest_stays(text: str, told: str) -> None:
    assert redacted(text) == told
    assert secrets_in(text) and not secrets_in(told)
    document = {"a": [text], "b": "http://host"}
    assert json.loads(redacted(json.dumps(document))) == {"a": [told.replace("'", "'")], "b": "http://host"}
    assert list(secret_places(document)) == [("a", 0)]


@pytest.mark.parametrize("text", PLAIN)
def test_what_only_looks_like_one_stays(text: str) -> None:
    assert redacted(text) == text
    assert secrets_in(text) == []


@given(st.text())
def test_what_is_redacted_has_no_secret(text: str) -> None:
    once = redacted(text)
    assert secrets_in(once) == [] and redacted(once) == once


def test_what_is_remembered_is_hidden_in_every_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_remembered", set())
    remember("S3%2Fcr%22et")
    assert redacted('S3%2Fcr%22et, S3/cr"et, S3/cr\\"et') == "***, ***, ***"
    for word in ("finished", "0.1234567", "train_loss", "abc", "***"):  # records are made of such words
        remember(word)
    assert (
        redacted('{"state": "finished", "train_loss": 0.1234567}') == '{"state": "finished", "train_loss": 0.1234567}'
    )
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "T0ken-of-the-user")
    assert redacted("sent T0ken-of-the-user") == "sent ***"


def test_a_setting_whose_name_says_that_it_is_a_secret_is_found() -> None:
    document = {"tasks": {"API_KEY": "x", "password": "***", "tokens": "x", "inner": [{"secret": "y"}]}}
    assert list(secret_places(document)) == [("tasks", "API_KEY"), ("tasks", "inner", 0, "secret")]


@given(st.text())
def test_no_control_character_is_printed(text: str) -> None:
    assert all(one.isprintable() or one in "\n\t" or ord(one) > 0x9F for one in printable(text))
    assert "\n" not in on_one_line(text) and "\x1b" not in shown(text) and "\n" not in unknown("kind", text, ["a"])


def test_both_at_once() -> None:
    assert clean("\x1b[31mhttp://a:b@c\u202e") == r"\x1b[31mhttp://a:***@c\u202e"


def test_a_long_record_costs_little() -> None:
    record = json.dumps({"scores": [0.123456789] * 20_000, "text": "a:b" * 20_000})
    begun = time.process_time()
    assert redacted(record) == record
    assert redacted(record + "@") == record + "@"
    assert time.process_time() - begun < 5.0

"""Answers requests that a guard has let through: one on each line of a stream, the answer as a line of another."""

import base64
import json
from collections.abc import Callable
from typing import Any, TextIO
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

from metaloom.dashboards.pages import failures


async def answer_lines(app: ASGIApp, next_line: Callable[[], str], answers: TextIO) -> None:
    """Answer requests one after another, for as long as the process lives."""
    while True:
        request = json.loads(next_line())
        answers.write(f"{json.dumps(await answered(app, request))}\n")
        answers.flush()


async def answered(app: ASGIApp, request: dict[str, Any]) -> dict[str, Any]:
    """Return the application's answer to a GET request, whose body is base64."""
    scope, sent = scope_of(request), list[Message]()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    try:
        await app(scope, receive, send)
    except Exception as error:
        failures.record(error)
        sent.clear()
        await failures.answer(scope, error)(scope, receive, send)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in sent[0]["headers"]}
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return {"status": sent[0]["status"], "headers": headers, "body": base64.b64encode(body).decode()}


def scope_of(request: dict[str, Any]) -> Scope:
    """Return a request as ASGI has it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(request["path"]),
        "raw_path": request["path"].encode(),
        "query_string": request["query"].encode(),
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), *([(b"hx-request", b"true")] if request["is_fragment"] else [])],
        "client": None,
        "server": ("127.0.0.1", 0),
    }

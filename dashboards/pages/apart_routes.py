"""Routes that import much, such as torch: a process apart answers them, where the server is lent one."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from starlette.requests import Request
from starlette.responses import Response

from metaloom.dashboards.pages.context import services_of

Given = ParamSpec("Given")


def answered_apart(route: Callable[Given, Response]) -> Callable[Given, Response]:
    """Let a route be answered by the process apart; a server without one answers it itself."""

    @wraps(route)
    def answered(*args: Given.args, **kwargs: Given.kwargs) -> Response:
        request = kwargs["request"]
        assert isinstance(request, Request)
        return answer_apart(request) or route(*args, **kwargs)

    return answered


def answer_apart(request: Request) -> Response | None:
    """Return the answer of the process apart; None if this server has none, or is it."""
    process = services_of(request).apart
    if process is None:
        return None
    is_fragment = request.headers.get("hx-request") == "true"
    found = process.answer(request.url.path, request.url.query, is_fragment=is_fragment)
    return Response(found.body, found.status, dict(found.headers))


def begin_apart(request: Request) -> None:
    """Let the process start, because what the page asks for next needs it."""
    process = services_of(request).apart
    if process is not None:
        process.begin()

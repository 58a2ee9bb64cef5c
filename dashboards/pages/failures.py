"""The answers to requests that fail: pages, fragments or JSON, with the message alone."""

import logging
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from metaloom.dashboards.pages import context
from metaloom.dashboards.queries import QueryError
from metaloom.learners.errors import BadInput, MetaloomError, shown
from metaloom.learners.redaction import redacted

NO_PAGE = "there is no page at this address"
BARE = {404: NO_PAGE, 405: "this address is not asked in this way"}  # of answers that say nothing but their status
logger = logging.getLogger("metaloom.pages")


def record(error: Exception) -> None:
    """Write what went wrong to the server's log, with its traceback if it is no message for people."""
    if isinstance(error, MetaloomError | HTTPException):
        return
    logger.error("a page could not be made", exc_info=error)


def answer(scope: Scope, error: Exception) -> Response:
    """Return the answer to an error: its message if it is meant for people, and nothing of any other."""
    if isinstance(error, HTTPException):
        is_bare = error.detail == HTTPStatus(error.status_code).phrase
        return refused(scope, error.status_code, BARE.get(error.status_code, "") if is_bare else str(error.detail))
    if isinstance(error, RequestValidationError):
        return misread(scope, error)
    if isinstance(error, QueryError):
        return refused(scope, 404, str(error))
    if isinstance(error, BadInput):
        return refused(scope, 422, str(error))
    if isinstance(error, MetaloomError):
        return refused(scope, 503, str(error))
    return refused(scope, 500, "an error of metaloom itself; the terminal of 'metaloom ui' shows where")


def misread(scope: Scope, error: RequestValidationError) -> Response:
    """Return the answer to an address whose parts cannot be read: there is no such page, or a value is wrong."""
    found = error.errors()
    wrong = [f"{one['loc'][-1]}: {one['msg'].lower()}, got {shown(one['input'])}" for one in found]
    in_path = any(one["loc"][0] == "path" for one in found)
    return refused(scope, 404 if in_path else 422, "; ".join([NO_PAGE, *wrong] if in_path else wrong))


def refused(scope: Scope, status: int, message: str) -> Response:
    """Return an answer with a status and a message, in the form that was asked for."""
    text, headers = redacted(message), Headers(scope=scope)
    if str(scope["path"]).endswith((".json", "/version")):
        return JSONResponse({"error": text}, status_code=status)
    name = "parts/failure.html" if headers.get("hx-request") == "true" else "failure.html"
    return context.rendered(
        name, status=status, code=status, phrase=HTTPStatus(status).phrase, message=text, path=str(scope["path"])
    )

"""``/version`` and ``/searches/NAME/version``: texts that change when a page has to be brought up to date."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from metaloom.dashboards.pages.context import open_store, version_of

ROUTER = APIRouter()


@ROUTER.get("/version")
def store_version(request: Request) -> JSONResponse:
    """Return the version of all searches."""
    return JSONResponse({"version": version_of(open_store(request), None)})


@ROUTER.get("/searches/{name}/version")
def search_version(request: Request, name: str) -> JSONResponse:
    """Return the version of a search."""
    return JSONResponse({"version": version_of(open_store(request), name)})

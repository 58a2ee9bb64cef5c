"""``/version`` and ``/searches/NAME/version``: texts that change when a page has to be brought up to date."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from metaloom.dashboards.pages.context import open_store
from metaloom.workers.records import names as records

ROUTER = APIRouter()


@ROUTER.get("/version")
def store_version(request: Request) -> JSONResponse:
    """Return the version of all searches."""
    store = open_store(request)
    versions = {name: store.version(name) for name in records.search_names(store.path)}
    return JSONResponse({"version": " ".join(f"{name}:{version}" for name, version in sorted(versions.items()))})


@ROUTER.get("/searches/{name}/version")
def search_version(request: Request, name: str) -> JSONResponse:
    """Return the version of a search."""
    return JSONResponse({"version": open_store(request).version(name)})

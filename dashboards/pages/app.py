"""The web application: the pages in ``routes``, their static files, and the guard around them."""

import pkgutil
from importlib import import_module

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response

from metaloom.dashboards.charts import registry
from metaloom.dashboards.pages import failures, routes
from metaloom.dashboards.pages.security import Guard
from metaloom.dashboards.pages.services import Services
from metaloom.dashboards.pages.settings import PageSettings
from metaloom.dashboards.pages.static_files import StaticFiles
from metaloom.dashboards.store_reader import OpenStore
from metaloom.learners.errors import MetaloomError


def application(settings: PageSettings, services: Services, store: OpenStore | None = None) -> FastAPI:
    """Return the application on a store, with what the orchestrator lends; ``store`` is that store if it is open."""
    app = pages(settings, services, store or OpenStore(settings.store))
    app.add_middleware(Guard, settings=settings)
    return app


def pages(settings: PageSettings, services: Services, store: OpenStore) -> FastAPI:
    """Return the application without its guard: for requests that a guard has let through."""
    app = FastAPI(title="Metaloom", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.settings, app.state.services = settings, services
    app.state.store = store
    registry.charts()  # two charts with one key are an error here, not on a page
    for router in routers():
        app.include_router(router)
    app.mount("/static", StaticFiles())
    for kind in (MetaloomError, RequestValidationError, 404, 405, 422):
        app.add_exception_handler(kind, _answer)
    return app


def routers() -> list[APIRouter]:
    """Return the addresses of each module in ``routes``."""
    modules = (import_module(f"{routes.__name__}.{module.name}") for module in pkgutil.iter_modules(routes.__path__))
    return [module.ROUTER for module in modules if hasattr(module, "ROUTER")]


def _answer(request: Request, error: Exception) -> Response:
    return failures.answer(request.scope, error)

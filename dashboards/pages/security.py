"""Who may ask for what: hosts, origins, the cookie, and the headers of every answer.

- A request names an allowed host: a page of another site whose name is pointed at this machine is refused.
- A request has the cookie. It is given for the secret in the address that ``metaloom ui`` prints.
- A request that may change something comes from our own pages, and is refused in read-only mode.
- No script, style or frame of another origin runs, and none that stands in a page.
"""

import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metaloom.dashboards.pages import failures
from metaloom.dashboards.pages.settings import PageSettings
from metaloom.dashboards.pages.static_files import plotly_styles

ENTRY = "entry"  # the name of the secret in the address
SAFE = frozenset({"GET", "HEAD"})
OPEN_PATHS = ("/static/",)  # nothing of the store
LARGEST_BODY = 256 * 1024
POLICY = (
    "default-src 'self'; style-src 'self' {styles}; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # "no-referrer" would make the browser hide the origin of our own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class Guard:
    """Wraps an application: refuses, adds the headers, and answers errors that nothing else has answered.

    A header that an answer has already is kept, so that a page can be stricter or a file can be cached.
    """

    def __init__(self, app: ASGIApp, settings: PageSettings) -> None:
        self.app, self.settings = app, settings
        self.handed_over = False
        self.headers = {"Content-Security-Policy": POLICY.format(styles=" ".join(plotly_styles())), **HEADERS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self.refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, guarded)
            return
        try:
            await self.app(scope, receive, guarded)
        except Exception as error:
            failures.record(error)
            if started:
                raise  # the server cuts the connection, so that the browser knows that the answer is not whole
            await failures.answer(scope, error)(scope, receive, guarded)

    def refusal(self, scope: Scope) -> Response | None:
        """Return what a request that must not go on is answered; None lets it pass."""
        headers, path = Headers(scope=scope), str(scope["path"])
        if not self._is_our_host(headers.get("host", "")):
            return failures.refused(scope, 400, "this server does not answer to that host name")
        if path.startswith(OPEN_PATHS):
            return None if scope["method"] in SAFE else failures.refused(scope, 405, "static files are read only")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get(ENTRY)
        if given is not None and scope["method"] in SAFE:
            return self._enter(scope, given, [(name, value) for name, value in query if name != ENTRY])
        if not self._has_cookie(headers):
            return failures.refused(scope, 401, "open the address that 'metaloom ui' has printed, with its entry=...")
        if scope["method"] not in SAFE:
            return self._change_refusal(scope, headers)
        return None

    def _change_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return why a request that may change something is refused."""
        if not is_same_origin(headers, str(scope.get("scheme", "http"))):
            return failures.refused(scope, 403, "changes are taken from the pages of this server only")
        if self.settings.read_only:
            return failures.refused(scope, 403, "this server is read-only: it changes nothing")
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdigit() or int(length) > LARGEST_BODY:
            return failures.refused(scope, 413, f"a form has at most {LARGEST_BODY} bytes, and says how many")
        return None

    def _is_our_host(self, given: str) -> bool:
        return host_name(given) in self.settings.hosts

    def _enter(self, scope: Scope, given: str, query: list[tuple[str, str]]) -> Response:
        """Exchange the secret of the address for the cookie, and send the browser to the address without it."""
        if not self._lets_in(given):
            return failures.refused(scope, 401, "the entry=... in this address is not this server's")
        path = "/" + str(scope["path"]).lstrip("/")  # "//elsewhere" would lead to another host
        answer = RedirectResponse(f"{path}?{urlencode(query)}" if query else path, status_code=303)
        name, value = self.settings.cookie_name, self.settings.cookie
        answer.set_cookie(name, value, httponly=True, samesite="strict", path="/")
        return answer

    def _lets_in(self, given: str) -> bool:
        """Compare a secret in constant time with the entry, and with the handover until that has been used."""
        if hmac.compare_digest(given.encode(), self.settings.entry.encode()):
            return True
        first = hmac.compare_digest(given.encode(), self.settings.handover.encode()) and not self.handed_over
        self.handed_over = self.handed_over or first
        return first

    def _has_cookie(self, headers: Headers) -> bool:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        given = cookies.get(self.settings.cookie_name)
        return given is not None and hmac.compare_digest(given.value.encode(), self.settings.cookie.encode())


def host_name(given: str) -> str:
    """Return the name or address in a Host header, without the port, in its usual form; empty if it is malformed."""
    try:
        found = urlsplit(f"//{given}")
        name, _ = found.hostname or "", found.port  # the port raises for what is no number
    except ValueError:
        return ""
    if found.netloc != given or found.username is not None:
        return ""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def is_same_origin(headers: Headers, scheme: str) -> bool:
    """Return whether a request comes from a page of the host that it is sent to.

    A browser says so by ``Origin`` or ``Sec-Fetch-Site``. One of them is needed, and each has to be right.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None and origin is None:
        return False
    return site in (None, "same-origin") and origin in (None, f"{scheme}://{headers.get('host', '')}")

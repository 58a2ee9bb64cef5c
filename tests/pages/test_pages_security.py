"""Who the pages answer, asked over HTTP: the guard is tried with harmless requests to a real server."""

import hmac
import inspect
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from metaloom.dashboards.pages import failures, security
from metaloom.dashboards.pages.app import application
from metaloom.dashboards.pages.security import HEADERS, host_name
from metaloom.dashboards.pages.services import Services
from metaloom.dashboards.pages.settings import PageSettings
from tests.pages.asking import ask, cookie_of
from tests.pages.conftest import Served, serving


@pytest.fixture(scope="module")
def cookie(served: Served) -> str:
    return cookie_of(served)


def test_the_printed_address_is_exchanged_for_a_cookie_that_scripts_and_other_sites_do_not_get(served: Served) -> None:
    status, headers, _ = ask(served, f"/searches/first?entry={served.entry}&sort=value")
    assert (status, headers["location"]) == (303, "/searches/first?sort=value")  # the secret leaves the address
    port = urlsplit(served.address).port
    flags = headers["set-cookie"].split("; ")
    assert flags[0].startswith(f"metaloom-{port}=") and len(flags[0]) > 40
    assert {flag.lower() for flag in flags[1:]} == {"httponly", "path=/", "samesite=strict"}
    assert served.entry not in flags[0]
    assert ask(served, "/searches/first", cookie=flags[0])[0] == 200


@pytest.mark.parametrize("path", ["/", "/searches/first", "/version", "/searches/first/version", "/companions/mlflow"])
def test_nothing_of_the_store_is_shown_without_the_cookie(served: Served, path: str) -> None:
    for given in ("", "metaloom-1=x", f"metaloom-{urlsplit(served.address).port}=wrong", "\x7f=;;"):
        status, _, text = ask(served, path, cookie=given)
        assert status == 401
        assert "first" not in text.replace("/searches/first", "") and str(served.store) not in text


def test_a_wrong_secret_is_refused(served: Served, cookie: str) -> None:
    for wrong in ("", "x", served.entry[:-1], served.entry + "x", "\u00e4"):
        status, headers, _ = ask(served, f"/?entry={wrong.encode().hex() if wrong == 'ä' else wrong}")
        assert status == 401 and "set-cookie" not in headers
    assert ask(served, "/?entry=x", cookie=cookie)[0] == 401
    assert ask(served, "//elsewhere.example/x?entry=" + served.entry)[1]["location"] == "/elsewhere.example/x"


def test_secrets_are_compared_in_constant_time_and_are_long() -> None:
    text = inspect.getsource(security)
    assert text.count("hmac.compare_digest") == 3 and hmac.compare_digest(b"a", b"a")
    assert not re.search(r"(entry|cookie)\b[^\n]*(==|!=)", text)
    one, other = PageSettings(Path("x")), PageSettings(Path("x"))
    secrets = [secret for settings in (one, other) for secret in (settings.entry, settings.handover, settings.cookie)]
    assert len(set(secrets)) == 6 and min(map(len, secrets)) >= 43
    assert not [secret for secret in secrets if secret in repr(one)]


def test_what_the_browser_is_started_with_counts_once(tmp_path: Path) -> None:
    settings = PageSettings(tmp_path)
    guard = security.Guard(application(settings, Services()), settings)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}

    def status(secret: str) -> int:
        answer = guard.refusal({**scope, "query_string": f"entry={secret}".encode()})
        assert answer is not None
        return answer.status_code

    assert [status(settings.handover), status(settings.handover), status(settings.entry)] == [303, 401, 303]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "[::1", "", "a b"]
)
def test_a_foreign_host_is_refused_with_and_without_the_cookie(served: Served, cookie: str, host: str) -> None:
    for given in ("", cookie):
        assert ask(served, "/", cookie=given, Host=host)[0] == 400
        assert ask(served, "/static/style.css", cookie=given, Host=host)[0] == 400
        assert ask(served, f"/?entry={served.entry}", cookie=given, Host=host)[0] == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:5", "[::1]:80", "[0:0:0:0:0:0:0:1]"])
def test_names_of_this_machine_are_answered_at_any_port_as_through_a_tunnel(served: Served, host: str) -> None:
    assert ask(served, "/static/style.css", Host=host)[0] == 200


def test_a_host_header_is_read_as_a_name_alone() -> None:
    assert host_name("[::1]:8") == "::1" and host_name("A.b:1") == "a.b"
    for malformed in ("a/b", "a?b", "a#b", "u@a", "a:b:c", "a:99999", "[x]"):
        assert host_name(malformed) == ""


CHANGE = "/companions/nothing/start"  # changes nothing: there is no such program, which is said after the guard


def test_a_change_is_taken_from_our_own_pages_only(served: Served, cookie: str) -> None:
    own = served.address
    allowed: list[dict[str, str]] = [
        {"Origin": own},
        {"Sec_Fetch_Site": "same-origin"},
        {"Origin": own, "Sec_Fetch_Site": "same-origin"},
    ]
    foreign: list[dict[str, str]] = [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": own.replace("http:", "https:")},
        {"Origin": own.rpartition(":")[0] + ":1"},
        {"Origin": own + ".evil.example"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": own, "Sec_Fetch_Site": "cross-site"},
        {"Origin": "http://evil.example", "Sec_Fetch_Site": "same-origin"},
    ]
    assert [ask(served, CHANGE, "POST", cookie, "a=b", **one)[0] for one in allowed] == [404] * 3
    assert [ask(served, CHANGE, "POST", cookie, "a=b", **one)[0] for one in foreign] == [403] * len(foreign)
    assert ask(served, CHANGE, "POST", "", "a=b", Origin=own)[0] == 401
    assert ask(served, CHANGE + "?entry=" + served.entry, "POST", "", "a=b", Origin=own)[0] == 401
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(served, "/", method, cookie, Origin="http://evil.example")[0] == 403
        assert ask(served, "/", method, cookie, Origin=own)[0] == 405


def test_a_form_that_is_too_long_or_does_not_say_how_long_is_refused(served: Served, cookie: str) -> None:
    own = served.address
    assert ask(served, CHANGE, "POST", cookie, Origin=own, Content_Length="99999999")[0] == 413
    assert ask(served, CHANGE, "POST", cookie, Origin=own, Transfer_Encoding="chunked")[0] == 413


def test_a_read_only_server_changes_nothing(read_only: Served) -> None:
    cookie = cookie_of(read_only)
    status, _, text = ask(read_only, "/companions/mlflow/start", "POST", cookie, Origin=read_only.address)
    assert status == 403 and "read-only" in text
    status, _, page = ask(read_only, "/searches/first", cookie=cookie)
    assert status == 200 and "read-only" in page
    assert 'method="post"' not in page  # no button that would be refused


def test_on_all_addresses_it_is_read_only_and_answers_to_the_names_of_this_machine(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0") as found:
        port = urlsplit(found.address).port
        assert found.read_only
        here = Served(f"http://127.0.0.1:{port}", found.entry, found.pid, tmp_path, True)
        assert ask(here, "/")[0] == 401
        cookie = cookie_of(here)
        for host in (socket.gethostname(), f"{socket.gethostname()}:{port}", "127.0.0.1"):
            assert ask(here, "/", cookie=cookie, Host=host)[0] == 200
        assert ask(here, "/", cookie=cookie, Host="evil.example")[0] == 400
        assert ask(here, CHANGE, "POST", cookie, Origin=here.address)[0] == 403
        assert "not encrypted" in found.warned()


@pytest.mark.parametrize("path", ["/", "/searches/none", "/nowhere", "/static/style.css", "/static/none", "/version"])
def test_every_answer_has_the_headers(served: Served, cookie: str, path: str) -> None:
    for given in ("", cookie):
        _, headers, _ = ask(served, path, cookie=given)
        for name, value in HEADERS.items():
            if name != "Cache-Control":
                assert headers[name.lower()] == value, (path, name)
        assert headers["content-security-policy"].startswith("default-src 'self'; style-src 'self' 'sha256-")
        assert "unsafe" not in headers["content-security-policy"]
        assert "server" not in headers
        assert headers["cache-control"] == ("no-cache" if path.endswith("style.css") else "no-store")


def test_what_is_not_there_has_a_page_that_says_what_is_near(served: Served, cookie: str) -> None:
    status, _, text = ask(served, "/searches/frist", cookie=cookie)
    assert status == 404 and "did you mean &#39;first&#39;" in text and "<h1>Not Found</h1>" in text
    assert ">read-only<" not in text  # it is not
    status, headers, text = ask(served, "/searches/first/charts/nothing.json", cookie=cookie)
    assert status == 404 and headers["content-type"] == "application/json" and "no chart is named" in text
    for name in ("..%2f..%2fetc", "%00", "<script>alert(1)</script>", "a" * 500):
        status, _, text = ask(served, f"/searches/{name.replace('<', '%3C').replace('>', '%3E')}", cookie=cookie)
        assert status == 404 and "<script>alert" not in text
    for file in ("../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", "vendor", "templates/base.html"):
        assert ask(served, f"/static/{file}", cookie=cookie)[0] == 404


def test_an_unexpected_error_shows_no_more_than_that_it_happened(caplog: pytest.LogCaptureFixture) -> None:
    scope = {"type": "http", "path": "/", "headers": [], "method": "GET"}
    error = ValueError("/home/someone/secret")
    failures.record(error)
    answer = failures.answer(scope, error)
    assert answer.status_code == 500 and b"secret" not in bytes(answer.body)
    assert "ValueError: /home/someone/secret" in caplog.text  # the terminal has it


def test_looking_changes_nothing(served: Served, cookie: str) -> None:
    def state() -> dict[str, tuple[int, int]]:
        # SQLite's readers note in the -shm file that they read
        files = (path for path in served.store.rglob("*") if path.is_file() and not path.name.endswith("-shm"))
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    before = state()
    seen, waiting = set[str](), ["/", "/version", "/searches/first/version", "/companions/mlflow"]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        status, _, text = ask(served, path, cookie=cookie)
        assert status < 500, (path, text)
        for found in re.findall(r'(?:href|data-chart|hx-get)="(/[^"#]*)"', text):
            link = found.replace("&amp;", "&")
            if link not in seen and link not in waiting and len(seen) + len(waiting) < 80:
                waiting.append(link)
    assert len(seen) > 5
    assert state() == before


LONG = "9" * 5000  # more digits than Python reads
TRIAL, EPISODE = "/searches/first/trials/0", "/searches/first/episodes/0/validation/2/0"


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/nowhere", 404, "there is no page at this address"),
        ("/searches/first/trials/x", 404, "there is no page at this address; number: "),
        (f"/searches/first/trials/{LONG}", 404, "there is no page at this address"),
        (f"{EPISODE}?seed=x", 422, "seed: "),
        (f"{EPISODE}?seed={10**30}", 422, "seed: "),
        (f"{EPISODE}?with={LONG}", 422, "with: the number of a trial is allowed"),
        (f"/searches/first/episodes/0/validation/{10**30}/0", 422, "more than 63 bits"),
        (f"{TRIAL}/knowledge?step={LONG}", 422, "step: a number of outer steps is allowed"),
        (f"{TRIAL}/knowledge/parts/state?at={LONG}", 422, "at: a place of the slider is allowed"),
        (f"{TRIAL}/knowledge/update.rates.png?panel={LONG}", 422, "panel: "),
        (f"/searches/first/charts/objective.json?trial={LONG}", 422, "trial: "),
        (f"/searches/first/episodes?after=0:part:{LONG}", 404, "after: "),
    ],
)
def test_an_address_that_cannot_be_read_is_told_in_words(
    served: Served, cookie: str, path: str, status: int, said: str
) -> None:
    found, headers, text = ask(served, path, cookie=cookie)
    assert found == status and said in text, text
    assert len(text) < 20_000 and "int_parsing" not in text
    assert headers["content-type"].partition(";")[0] == ("application/json" if ".json" in path else "text/html")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("&".join(f"a{number}=1" for number in range(2000)), "at most 1000 fields"),
        ("text=" + "x" * 200_000, "at most 10000 characters"),
        ("text=a%00b", "not the character of code 0"),
        (f"text=a&note_trial={LONG}", "give the number of a trial"),
    ],
)
def test_a_form_that_cannot_be_read_is_told_in_words(served: Served, cookie: str, form: str, said: str) -> None:
    status, _, text = ask(served, "/searches/first/control/note", "POST", cookie, form, Origin=served.address)
    assert status == 422 and said in text


def test_a_trial_that_is_not_there_is_not_exported(served: Served, cookie: str) -> None:
    path = "/searches/first/control/export"
    status, _, text = ask(served, path, "POST", cookie, "trial=99", Origin=served.address)
    assert status == 422 and "there is no trial 99" in text and not (served.store / "bundles").exists()

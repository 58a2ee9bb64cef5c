"""The control room: a real browser stops, resumes, extends, exports and removes real searches."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from metaloom.dashboards import queries
from metaloom.orchestrator import jobs
from metaloom.orchestrator.errors import SearchError
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord
from tests.pages.asking import ask, cookie_of
from tests.pages.conftest import Served, opened, serving
from tests.support.processes import Process

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LIMIT_S, LOSS = 240.0, records.VALIDATION_LOSS
LONG = [
    *("--executor", "inline", "--seed", "3", "--trials", "2", "--set", "outer.steps=200"),
    *("--set", "outer.validate_every=10", "--set", "outer.validation_episodes=3"),
    *("--set", "outer.test_episodes=4", "--set", "outer.meta_batch=2", "--set", "outer.strategy=loop"),
    *("--set", "search.baselines=[]"),
]


@pytest.fixture(scope="module")
def store(pages_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pages' store, which these tests change."""
    return Path(shutil.copytree(pages_store, tmp_path_factory.mktemp("control") / "store"))


@pytest.fixture(scope="module")
def controlled(store: Path) -> Iterator[Served]:
    """``metaloom ui`` on it."""
    with serving(store) as found:
        yield found


@pytest.fixture
def room(chromium: "Browser", controlled: Served) -> "Iterator[Page]":
    """A page of it, let in; a refused form, and a search that is gone while its page is open, are no errors here."""
    with opened(chromium, expected=("status of 422", "status of 404"), base_url=controlled.address) as found:
        found.goto(controlled.url())
        yield found


def wait_until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def record(store: Path, name: str) -> SearchRecord:
    return queries.search_record(store, name)


def begun(store: Path, name: str) -> bool:
    """Return whether a search runs and has reported."""
    try:
        found = record(store, name)
    except queries.QueryError:
        return False
    return found.state == records.RUNNING and any(one.reports for one in found.trials.values())


def outcome(store: Path, name: str) -> Any:
    trials = record(store, name).trials.values()
    return [(one.knobs, one.state, [(r.step, r.metrics[LOSS], r.scores) for r in one.reports]) for one in trials]


def confirm(page: "Page", button: str, *, typed: str = "") -> None:
    """Press a button, and confirm it in its dialog."""
    page.get_by_role("button", name=button, exact=True).click()
    dialog = page.locator("dialog[open]")
    if typed:
        dialog.get_by_role("textbox").fill(typed)
    dialog.get_by_role("button", name=button, exact=True).click()


def test_a_running_search_is_stopped_and_resumed_and_outlives_the_pages(
    chromium: "Browser",
    pages_store: Path,
    tmp_path: Path,
    axe: "Callable[[Page], None]",
    screenshot: "Callable[[Page, str], None]",
) -> None:
    store = tmp_path / "store"
    shutil.copytree(pages_store / "cache", store / "cache")  # the glyphs, which take 10 s to draw
    whole = Process("-m", "metaloom", "search", "quick", "--name", "whole", *LONG, "--store", str(store))
    assert whole.wait(LIMIT_S) == 0
    process = Process("-m", "metaloom", "search", "quick", "--name", "cut", *LONG, "--store", str(store))
    with serving(store) as served:
        wait_until(lambda: begun(store, "cut"), "the search has not begun")
        with opened(chromium, base_url=served.address) as page:
            page.goto(served.url("/searches/cut/control"))
            confirm(page, "Stop")
            page.get_by_text("The search was told to stop").wait_for()
            assert process.wait(LIMIT_S) == 130
            page.locator("#control-state .state-interrupted").wait_for()  # without a reload
            assert record(store, "cut").state == records.INTERRUPTED
            confirm(page, "Resume")
            page.locator("#control-jobs .state-running").wait_for()
            with pytest.raises(SearchError, match="resume runs already"):
                jobs.start(store / "searches" / "cut", "resume", ["resume", "cut"], kind="run")
            page.locator(".output", has_text="metaloom resume cut").wait_for()
            axe(page)
            screenshot(page, "control")
    wait_until(lambda: record(store, "cut").state == records.FINISHED, "the resumed search has not ended")
    assert outcome(store, "cut") == outcome(store, "whole")
    folder = store / "searches" / "cut"
    wait_until(lambda: not jobs.is_busy(folder), "its process has not ended")
    (job,) = jobs.jobs(folder)
    assert (job.what, job.state, job.code) == ("resume", "finished", 0) and "[2/2] trial 1 finished" in job.output


def test_a_configuration_is_refused_beside_its_field_and_tried_by_an_extension(room: "Page", store: Path) -> None:
    room.goto("/searches/second/control")
    room.get_by_text("Set its knobs").click()
    field = room.get_by_label("outer.rate")
    best = record(store, "second")
    rates = [one.knobs["outer.rate"] for one in best.trials.values()]
    assert float(field.input_value()) in rates
    for number, rate in enumerate(rates):
        assert f'value="{rate}"' in room.request.get(f"/searches/second/control/parts/knobs?trial={number}").text()
    answered = []
    room.on("response", lambda answer: answered.append((answer.request.method, answer.status)))
    field.fill("77")
    room.get_by_role("button", name="Enqueue").click()
    room.locator("dialog[open]").get_by_role("button", name="Enqueue").click()
    problem = room.locator(".field .problem")
    assert "cannot be 77" in problem.inner_text()
    assert room.get_by_label("outer.rate").get_attribute("aria-invalid") == "true"
    assert ("POST", 422) in answered
    room.get_by_label("outer.rate").fill("0.0125")
    confirm(room, "Enqueue")
    room.get_by_text("The configuration was enqueued").wait_for()
    assert "outer.rate=0.0125" in room.get_by_text("Waiting to be tried").inner_text()
    room.get_by_label("Trials in all").fill("3")
    confirm(room, "Extend")
    room.locator("#control-jobs .state-finished").first.wait_for(timeout=1000 * LIMIT_S)
    last = record(store, "second").trials[2]
    assert last.knobs == {"outer.rate": 0.0125} and last.origin == "enqueued:0"
    assert room.get_by_text("Waiting to be tried").count() == 0 or room.reload()


def test_the_page_of_a_trial_leads_to_the_forms_with_its_number(served: Served, read_only: Served) -> None:
    shown, hidden = (ask(one, "/searches/first/trials/0", cookie=cookie_of(one))[2] for one in (served, read_only))
    for form in ("export", "enqueue"):
        assert f'href="/searches/first/control?trial=0#{form}-title"' in shown
    for action in ("/companions/mlflow/start", "/companions/optuna/start"):
        assert f'action="{action}"' in shown and action not in hidden
    assert 'name="trial" value="0"' in shown and "/control?trial" not in hidden
    status, _, room = ask(served, "/searches/first/control?trial=0", cookie=cookie_of(served))
    assert status == 200 and 'name="trial" type="text" value="0"' in room and "hold trial 0&#39;s values" in room
    assert 'name="note_trial" type="text" value="0"' in room and "/control/parts/knobs?trial=0" in room
    assert ask(served, "/searches/first/control?trial=99", cookie=cookie_of(served))[0] == 404


def test_the_best_trial_is_exported_and_verified(room: "Page", store: Path) -> None:
    room.goto("/searches/second/control")
    room.get_by_label("Name of the bundle").fill("../elsewhere")
    confirm(room, "Export")
    assert "are allowed" in room.locator(".field .problem").inner_text()
    room.get_by_label("Name of the bundle").fill("mine")
    confirm(room, "Export")
    room.locator(".output", has_text="bit-equal").wait_for(timeout=1000 * LIMIT_S)
    room.locator("#control-jobs article").first.locator(".state-finished").wait_for()
    assert json.loads((store / "bundles" / "mine" / "manifest.json").read_text())["origin"]["search"] == "second"
    room.reload()
    confirm(room, "Verify mine")
    room.locator("#control-jobs article", has_text="verify mine").locator(".state-finished").wait_for(
        timeout=1000 * LIMIT_S
    )


def test_a_search_is_noted_renamed_and_deleted_when_its_name_is_typed(room: "Page", store: Path) -> None:
    room.goto("/searches/first/control")
    room.get_by_label("Note", exact=True).fill("<script>alert(1)</script> --json")
    confirm(room, "Add the note")
    assert room.locator("blockquote").inner_text() == "<script>alert(1)</script> --json"
    room.get_by_label("New name").fill("-x")
    confirm(room, "Rename")
    assert "cannot be named" in room.get_by_role("alert").inner_text()
    room.get_by_label("New name").fill("other")
    confirm(room, "Rename")
    room.wait_for_url("**/searches/other/control?done=rename")
    confirm(room, "Delete other", typed="othe")
    room.wait_for_timeout(200)
    assert "/searches/other/control" in room.url and (store / "searches" / "other").is_dir()  # the page refuses
    room.locator("dialog[open]").get_by_role("textbox").fill("other")
    room.locator("dialog[open]").get_by_role("button", name="Delete other").click()
    room.wait_for_url("**/")
    assert not (store / "searches" / "other").exists() and not (store / "searches" / "first").exists()


def posted(served: Served, cookie: str, path: str) -> int:
    """Post a form to a server as its own pages do, and return the status."""
    form = {"Origin": served.address, "Content-Type": "application/x-www-form-urlencoded"}
    return ask(served, path, "POST", cookie, "typed=second", **form)[0]


def test_a_read_only_server_shows_no_buttons_and_refuses_each_change(
    chromium: "Browser", read_only: Served, pages_store: Path
) -> None:
    from metaloom.dashboards.pages.routes.control import ROUTER

    changes = [route.path for route in ROUTER.routes if "POST" in route.methods]  # type: ignore[attr-defined]
    assert len(changes) == 9
    with opened(chromium, base_url=read_only.address) as page:
        page.goto(read_only.url("/searches/second/control"))
        assert page.locator("main form, main dialog, main button:not([data-copy])").count() == 0
        page.get_by_text("This server is read-only").wait_for()
        (cookie,) = page.context.cookies()
        given = f"{cookie['name']}={cookie['value']}"
        statuses = {posted(read_only, given, path.replace("{name}", "second")) for path in changes}
    assert statuses == {403} and (pages_store / "searches" / "second").is_dir()
    assert not (pages_store / "searches" / "second" / records.JOBS_FOLDER).exists()


def test_a_deletion_without_the_typed_name_is_refused_by_the_server_too(
    room: "Page", controlled: Served, store: Path
) -> None:
    (cookie,) = room.context.cookies()
    folder = Path(shutil.copytree(store / "searches" / "second", store / "searches" / "third"))
    assert posted(controlled, f"{cookie['name']}={cookie['value']}", "/searches/third/control/delete") == 422
    assert folder.is_dir()
    shutil.rmtree(folder)


def test_a_killed_job_is_told_from_one_that_runs_and_old_ones_are_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    for _ in range(2):
        jobs.start(folder, "version", ["--version"], kind="a")
        wait_until(lambda: not jobs.is_busy(folder), "it has not ended")
    assert [(one.id, one.state) for one in jobs.jobs(folder)] == [("0002", "finished"), ("0001", "finished")]
    assert jobs.jobs(folder)[0].output.startswith("$ metaloom --version\nmetaloom ")
    (folder / "jobs" / "0002" / "end.json").unlink()  # as if it had been killed before its end
    assert jobs.jobs(folder)[0].state == "failed" and jobs.jobs(folder)[0].code == jobs.KILLED
    failing = jobs.start(folder, "two", ["show", "nothing", "--store", str(tmp_path)], ["--version"], kind="b")
    wait_until(lambda: not jobs.is_busy(folder), "it has not ended")
    found = jobs.job_of(folder / "jobs" / failing.id)
    assert found.code == 2 and "$ metaloom --version" not in found.output  # the second was not begun

"""The page of a search: it follows a real search, and its table keeps, sorts and writes what is asked for."""

import csv
import io
import json
import shutil
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as parquet
import pytest

from metaloom.dashboards import queries
from metaloom.orchestrator import housekeeping
from metaloom.workers.records import names
from metaloom.workers.records.journal_sources import read_journal
from tests.pages.conftest import Served, opened, serving
from tests.support.processes import Process

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCRIPT = "<script>document.title = 'taken'</script>"
LIVE = {
    "tasks": {"source": "sinusoid", "shots": 5, "queries": 5},
    "learner": {"method": "maml", "update": {"rate": {"search": {"low": 0.01, "high": 0.1}}}},
    "outer": {"steps": 40, "validate_every": 10, "validation_episodes": 5, "test_episodes": 5, "strategy": "loop"},
    "search": {"trials": 200, "sampler": "random"},
}

# Notes when each trial is first shown in each state, by the clock that the journal has too.
WATCH = """() => {
  window.seen = {};
  const look = () => {
    for (const row of document.querySelectorAll("#trials tbody tr")) {
      const key = `${parseInt(row.cells[0].innerText)} ${row.cells[1].innerText.trim()}`;
      window.seen[key] ??= Date.now() / 1000;
    }
  };
  look();
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true });
}"""


@pytest.fixture(scope="module")
def changed(pages_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a copy of the store that tests may change; a note of its first search holds a script."""
    store = tmp_path_factory.mktemp("changed") / "store"
    shutil.copytree(pages_store, store)
    housekeeping.note("first", SCRIPT, store=store)
    with serving(store) as found:
        yield found


def shown(page: "Page", column: int = 0) -> list[str]:
    """Return the texts of a column of the table of trials."""
    found: list[str] = page.eval_on_selector_all(
        "#trials tbody tr", f"rows => rows.map(row => row.cells[{column}].innerText.trim())"
    )
    return found


def numbers(page: "Page") -> list[int]:
    """Return the trials that the table shows."""
    return [int(text.split()[0]) for text in shown(page)]


def summary(served: Served, name: str = "first") -> dict[str, Any]:
    """Return what ``metaloom show --json`` prints."""
    return queries.search_summary(served.store, name)


def test_the_page_tells_what_show_tells(page: "Page", served: Served) -> None:
    page.goto("/searches/first")
    told = summary(served)
    best = told["best"]
    header = page.locator("#search-header").inner_text()
    assert f"trial {best['id']}: {best['value']:.4g} [{best['interval'][0]:.4g}, {best['interval'][1]:.4g}]" in header
    ended = sum(row["state"] in ("finished", "stopped", "failed") for row in told["trials"])
    assert f"{ended} of {told['asked']}" in header
    assert "baseline nearest_neighbour" in header
    assert numbers(page) == [row["id"] for row in told["trials"]]
    failed = next(row for row in told["trials"] if row["state"] == "failed")
    assert failed["error"] in page.locator(f"#trials tr:has(th a:text-is('{failed['id']}'))").inner_text()
    for method in told["methods"]:
        assert page.locator("#search-tables th", has_text=method["method"]).count()


def test_the_table_is_filtered_and_sorted_and_its_address_says_how(page: "Page", served: Served) -> None:
    page.goto("/searches/first")
    trials = summary(served)["trials"]
    page.get_by_label("Condition").fill("state == 'failed' or learner == 'meta_sgd'")
    wanted = [row["id"] for row in trials if row["state"] == "failed" or row["knobs"]["learner"] == "meta_sgd"]
    assert 0 < len(wanted) < len(trials)
    page.wait_for_url("**/searches/first?where=*")
    assert numbers(page) == wanted
    page.get_by_role("link", name="trial", exact=True).click()
    page.wait_for_url("**sort=trial*")
    page.get_by_role("link", name="trial ▲").click()
    page.wait_for_url("**sort=-trial*")
    assert numbers(page) == wanted[::-1]
    page.get_by_label("Contains").fill("META_SGD")
    page.wait_for_url("**q=META_SGD*")
    wanted = [row["id"] for row in trials if row["knobs"]["learner"] == "meta_sgd"]
    assert numbers(page) == wanted[::-1]
    page.reload()  # the address holds it all
    assert numbers(page) == wanted[::-1]
    assert page.get_by_label("Contains").input_value() == "META_SGD"
    page.get_by_role("link", name="Clear").click()
    page.get_by_label("finished").check()
    page.wait_for_url("**state=finished*")
    assert numbers(page) == [row["id"] for row in trials if row["state"] == "finished"]


def test_a_condition_that_cannot_be_read_is_explained(page: "Page") -> None:
    page.goto("/searches/first")
    every = numbers(page)
    page.get_by_label("Condition").fill("vlue > 1")
    alert = page.locator("#trials [role=alert]")
    alert.wait_for()
    assert "did you mean 'value'" in alert.inner_text()
    assert numbers(page) == every


def test_columns_are_chosen_and_kept_in_the_address(page: "Page") -> None:
    page.goto("/searches/first")
    page.get_by_text("Columns", exact=True).click()
    heads = page.locator("#trials thead th")
    before = heads.count()
    page.locator("#column-choices").get_by_label("train_loss").check()
    page.wait_for_url("**column=train_loss*")
    assert heads.count() == before + 1
    assert page.locator("#column-choice").get_attribute("open") is not None
    page.reload()
    assert heads.all_inner_texts()[-1] == "train_loss"
    page.get_by_text("Columns", exact=True).click()
    page.locator("#column-choices").get_by_label("train_loss").uncheck()
    page.wait_for_url("**/searches/first")  # the default ones need no address
    assert heads.count() == before


def test_the_files_hold_what_is_filtered_as_show_tells_it(page: "Page", served: Served) -> None:
    page.goto("/searches/first?state=finished&sort=-value")
    trials = {row["id"]: row for row in summary(served)["trials"]}
    files: dict[str, bytes] = {}
    for form in ("CSV", "Parquet"):
        with page.expect_download() as download:
            page.get_by_role("link", name=form).click()
        assert download.value.suggested_filename == f"first-trials.{form.lower()}"
        files[form] = Path(download.value.path()).read_bytes()
    rows = parquet.read_table(io.BytesIO(files["Parquet"])).to_pylist()
    assert [row["trial"] for row in rows] == numbers(page)
    assert rows and all(row["state"] == "finished" for row in rows)
    for row, line in zip(rows, csv.DictReader(io.StringIO(files["CSV"].decode())), strict=True):
        told = trials[row["trial"]]
        assert [row["low"], row["high"]] == told["interval"] == [float(line["low"]), float(line["high"])]
        assert row["value"] == told["value"] == float(line["value"])
        assert (row["steps"], row["seconds"], row["run_id"]) == (told["steps"], told["seconds"], told["run_id"])
        assert {knob: row[knob] for knob in told["knobs"]} == told["knobs"]
        assert int(line["trial"]) == row["trial"]


def test_brushed_trials_filter_the_table_until_the_brush_is_lifted(page: "Page") -> None:
    page.goto("/searches/first")
    every = numbers(page)
    brush = "trials => document.dispatchEvent(new CustomEvent('brushed', {detail: {trials}}))"
    page.evaluate(brush, [0, 1, 3])
    page.wait_for_url("**trials=0-1%2C3*")
    assert numbers(page) == [0, 1, 3]
    page.evaluate(brush, [])
    page.get_by_text("No trial is left by this filter.").wait_for()
    page.evaluate(brush, None)
    page.wait_for_url("**/searches/first")
    assert numbers(page) == every


def test_a_script_in_a_note_stays_text(chromium: "Browser", changed: Served) -> None:
    with opened(chromium, base_url=changed.address) as page:
        page.goto(changed.url("/searches/first"))
        assert page.locator(".remark").inner_text() == SCRIPT
        page.goto("/")
        assert SCRIPT in page.locator("#searches").inner_text()
        assert page.title() == "Searches · Metaloom"


def test_an_unknown_search_is_named_with_the_nearest(page: "Page", served: Served) -> None:
    answer = page.request.get("/searches/frist")
    assert answer.status == 404
    assert "did you mean &#39;first&#39;" in answer.text()
    assert page.request.get("/searches/first/trials.xml").status == 404
    assert page.request.get("/searches/first/trials.csv?where=x%3E1").status == 422


def test_a_page_follows_a_real_search_and_tells_of_its_killed_driver(
    chromium: "Browser", changed: Served, tmp_path: Path
) -> None:
    file = tmp_path / "live.yaml"
    file.write_text(json.dumps(LIVE))
    begun = ["-m", "metaloom", "search", str(file), "--name", "live", "--executor", "inline"]
    with opened(chromium, base_url=changed.address) as page:
        page.goto(changed.url("/"))
        process = Process(*begun, "--store", str(changed.store))
        try:
            page.locator("#searches a", has_text="live").click()  # it appears without a reload
            page.locator("#trials tbody tr").nth(2).wait_for()
            page.get_by_text("Columns", exact=True).click()
            assert page.locator("#column-choices").get_by_label("learner.update.rate").is_checked()  # of later trials
            page.get_by_role("link", name="trial", exact=True).click()
            page.get_by_role("link", name="trial ▲").click()
            page.wait_for_url("**sort=-trial*")
            page.evaluate(WATCH)
            watched, newest = time.time(), numbers(page)[0]
            page.wait_for_function(f"() => Number(document.querySelector('#trials tbody a').innerText) > {newest + 5}")
            assert page.locator("#column-choice").get_attribute("open") is not None  # and the order is kept
            assert page.locator("h1 .badge").inner_text() == "running"
            process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            page.locator("h1 .badge", has_text="interrupted").wait_for()
            assert time.monotonic() - killed < 10  # seconds: a loaded machine
            seen = page.evaluate("window.seen")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(60)
        assert f"metaloom resume live --store {changed.store}" in page.locator("#search-header").inner_text()
    events = read_journal(changed.store / "searches" / "live").events
    ended = {f"{one.trial} finished": one.time for one in events if one.kind == names.TRIAL_FINISHED}
    lags = [seen[key] - ended[key] for key in seen if ended.get(key, 0.0) > watched]
    assert len(lags) > 3
    assert statistics.median(lags) < 2.0  # seconds from the record to the page

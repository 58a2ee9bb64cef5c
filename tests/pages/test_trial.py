"""The page of a trial, in a real browser on a real store."""

import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import metaloom
from metaloom.dashboards import queries
from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.journal import Journal
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.trial import read_config
from tests.pages.conftest import Served, opened, serving
from tests.pages.stores import FIRST
from tests.support.processes import Process

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCRIPT = "<script>document.title = 'hacked'</script><img src=x onerror=\"document.title='hacked'\">"
SECTIONS = ("seed", "tasks", "learner", "inner", "outer", "resources")


def numbers_of(store: Path, state: str) -> list[int]:
    return [trial.number for trial in queries.search_record(store, "first").in_state(state)]


def show_all(page: "Page") -> None:
    """Scroll over the page, so that every chart is drawn."""
    for figure in page.locator("figure.chart").all():
        figure.scroll_into_view_if_needed()
        page.wait_for_selector(f"#{figure.get_attribute('id')}[data-drawn]")
    assert page.locator("figure.chart .trouble:visible").count() == 0


def test_a_finished_trial_is_shown_whole(page: "Page", pages_store: Path, screenshot: Any, axe: Any) -> None:
    number = numbers_of(pages_store, records.FINISHED)[0]
    page.goto(f"/searches/first/trials/{number}")
    last = queries.search_record(pages_store, "first").trials[number].last
    show_all(page)
    assert page.locator("figure.chart .plot svg").count() >= 4
    names, texts = (page.locator(f"#trial-head dl.facts {part}").all_inner_texts() for part in ("dt", "dd"))
    facts = dict(zip(names, texts, strict=True))
    assert last is not None
    assert facts["validation accuracy"].startswith(f"{last.metrics['validation_accuracy']:.4f} [")
    assert (facts["device"], facts["seed"]) == ("cpu", "1")
    method = page.locator("details.section tbody tr", has_text="learner.method")
    assert method.locator("td").nth(1).text_content() == "searched"
    told = page.locator("#trial-rest tbody tr").all_inner_texts()
    assert any("finished" in row for row in told) and any("checkpoint-" in row for row in told)
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme)
        axe(page)
        screenshot(page, f"trial-{theme}")


def test_the_choices_of_a_chart_fetch_it_again(page: "Page", pages_store: Path) -> None:
    number = numbers_of(pages_store, records.FINISHED)[0]
    page.goto(f"/searches/first/trials/{number}")
    figure = page.locator("#chart-trial-adaptation")
    figure.scroll_into_view_if_needed()
    page.wait_for_selector("#chart-trial-adaptation[data-drawn]")
    figure.get_by_label("Phase").select_option("validation")
    figure.get_by_label("Outer step").select_option("2")
    note = figure.locator(".note", has_text="at outer step 2 ")
    note.wait_for()
    assert "validation episodes" in note.inner_text()


def test_a_failed_trial_shows_its_traceback_and_what_to_do(page: "Page", pages_store: Path) -> None:
    number = numbers_of(pages_store, records.FAILED)[0]
    trial = queries.search_record(pages_store, "first").trials[number]
    page.goto(f"/searches/first/trials/{number}")
    assert trial.traceback and page.locator("#traceback pre").inner_text().strip() == trial.traceback.strip()
    assert page.locator("#next code").last.inner_text() == f"metaloom train first-{number}.yaml --store {pages_store}"
    stopped = numbers_of(pages_store, records.STOPPED)[0]
    page.goto(f"/searches/first/trials/{stopped}")
    reason = queries.search_record(pages_store, "first").trials[stopped].reason
    assert reason and reason in page.locator(".stands").inner_text()


def test_the_trials_are_walked_by_keyboard(page: "Page") -> None:
    page.goto("/searches/first/trials/1")
    page.keyboard.press("]")
    page.wait_for_url("**/searches/first/trials/2")
    page.keyboard.press("[")
    page.wait_for_url("**/searches/first/trials/1")
    page.goto("/searches/first/trials/0")
    assert page.locator("a[rel=prev]").count() == 0


def test_the_experiment_file_is_one_that_train_and_search_take(page: "Page", pages_store: Path, tmp_path: Path) -> None:
    number = numbers_of(pages_store, records.FINISHED)[0]
    page.goto(f"/searches/first/trials/{number}")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download the experiment file").click()
    file = tmp_path / saved.value.suggested_filename
    saved.value.save_as(file)
    assert file.name == f"first-{number}.yaml"
    page.locator("#file summary").click()
    assert page.locator("#file-yaml").inner_text().strip() == file.read_text().strip()
    summary = metaloom.train(file, store=tmp_path / "store", executor="inline")
    before, after = (
        read_config(records.trial_directory(store / "searches" / name, one))
        for store, name, one in ((pages_store, "first", number), (tmp_path / "store", summary.name, 0))
    )
    assert [getattr(before, name) for name in SECTIONS] == [getattr(after, name) for name in SECTIONS]
    assert cli.run(["search", str(file), "--dry-run", "--json", "--store", str(tmp_path / "store")]) == 0
    assert yaml.safe_load(file.read_text())["search"]["objectives"][0]["metric"] == "validation_accuracy"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/searches/first/trials/99", "search 'first' has no trial 99; it has 0 to 6"),
        ("/searches/frist/trials/0", "did you mean 'first'"),
    ],
)
def test_an_unknown_trial_is_said(served: Served, chromium: "Browser", path: str, told: str) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(served.url())
    answer = page.goto(f"{served.address}{path}")
    assert answer is not None and answer.status == 404
    assert told in page.locator("main").inner_text()
    context.close()


def test_text_of_a_user_stays_text(pages_store: Path, tmp_path: Path, chromium: "Browser") -> None:
    store = shutil.copytree(pages_store, tmp_path / "store")
    number = numbers_of(store, records.FAILED)[0]
    folder = store / "searches" / "first"
    with Journal(folder) as journal:
        failed = {"reason": f"ValueError: {SCRIPT}", "traceback": f"Traceback\n{SCRIPT}", "step": 2}
        journal.append_all(
            [
                Event(0, 2e9, number, records.TRIAL_FAILED, failed),
                Event(0, 2e9, number, records.TRIAL_WARNED, {"warnings": [SCRIPT]}),
                Event(0, 2e9, number, records.NOTED, {"notes": [SCRIPT]}),
            ]
        )
    directory = records.trial_directory(folder, number)
    directory.mkdir(exist_ok=True)
    lines = [f"line {one} {SCRIPT}\n" for one in range(2000)]
    (directory / records.OUTPUT_FILE).write_text("".join(lines))
    with serving(store) as served, opened(chromium, base_url=served.address) as page:
        page.goto(served.url(f"/searches/first/trials/{number}"))
        assert page.locator("#traceback pre").inner_text() == f"Traceback\n{SCRIPT}"
        for place in (".empty.failed p", ".warned", ".notes li", "#trial-rest"):
            assert SCRIPT in page.locator(place).first.inner_text()
        assert page.locator("#output-text").inner_text().strip().endswith(f"line 1999 {SCRIPT}")
        page.locator("#trial-output a[rel=prev]").click()
        page.wait_for_url("**output=*")
        shown = page.locator("#output-text").inner_text()
        assert "line 1999" not in shown and SCRIPT in shown
        assert page.title().startswith(f"Trial {number} of first")
        assert page.locator("main img").count() == 0


def test_a_running_trial_is_followed_without_a_reload(tmp_path: Path, chromium: "Browser") -> None:
    store = tmp_path / "store"
    document = {**FIRST, "outer": {**FIRST["outer"], "steps": 100_000, "validate_every": 4}, "search": {"trials": 1}}
    (tmp_path / "live.yaml").write_text(yaml.safe_dump(document))
    options = ("--executor", "inline", "--store", str(store), "--name", "live")
    search = Process("-m", "metaloom", "search", str(tmp_path / "live.yaml"), *options)
    try:
        while not (store / "searches" / "live" / "trials" / "0000" / "reports.log").exists():
            assert search.poll() is None, search.stderr.read()
            time.sleep(0.1)
        with serving(store) as served, opened(chromium, base_url=served.address) as page:
            page.goto(served.url("/searches/live/trials/0"))
            page.locator("#next summary").wait_for(state="detached")  # nothing to do but wait
            page.locator("#settings-1 summary").click()
            before = page.locator("#trial-rest tbody tr", has_text="reported").count()
            page.locator("#trial-rest tbody tr", has_text="reported").nth(before + 1).wait_for()
            assert page.locator("#settings-1").get_attribute("open") is not None
            search.send_signal(signal.SIGKILL)
            search.wait(60)
            waiting = page.locator(".stands", has_text="Waiting to be resumed")
            waiting.wait_for()
            page.locator("#next summary").click()
            assert page.locator("#next code").inner_text() == f"metaloom resume live --store {store}"
    finally:
        search.kill()
        search.wait(60)

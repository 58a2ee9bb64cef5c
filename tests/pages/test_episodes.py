"""The page of episodes and the page of one episode, in a real browser on a real store."""

import csv
import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin

import pyarrow as pa
import pyarrow.csv
import pytest

from metaloom.dashboards import queries
from metaloom.orchestrator.command_line.replays import LocalReplays
from metaloom.orchestrator.comparison import compare_recorded
from metaloom.orchestrator.journal import Journal
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial
from tests.pages.conftest import Served, opened, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "<img src=x onerror=alert(1)>"
TABLE: dict[str, Any] = {
    "tasks": {"source": "table", "label": "label", "ways": 2, "shots": 1, "queries": 2},
    "learner": {"method": "prototypical", "architecture": {"kind": "mlp", "hidden": [4]}},
    "outer": {"steps": 30, "meta_batch": 2, "validate_every": 15, "validation_episodes": 4, "test_episodes": 4},
}


def recorded_search(experiment: dict[str, Any], store: Path, name: str) -> None:
    """Train two trials and record them in a journal, as a search would: without Ray, Optuna and MLflow."""
    loaded, folder = load_experiment(experiment), store / records.SEARCHES_FOLDER / name
    one = resolve(loaded, defaults(loaded))
    aims = [{"metric": records.VALIDATION_ACCURACY, "direction": "maximize"}]
    settings = {"trials": 2, "objectives": aims, "constraints": []}
    events = [(records.SEARCH_CREATED, None, {"settings": settings, "experiment": {"seed": 1}, "seed": 1})]
    events += [(records.SEARCH_STARTED, None, {"pid": 0, "host": ""})]
    for number in range(2):
        config = TrialConfig(name, number, 1, one.tasks, one.learner, one.inner, one.outer, one.resources)
        trial = Trial(config, records.trial_directory(folder, number), cache=store / records.CACHE_FOLDER)
        suggested = {"config": config.to_json(), "knobs": {}, "sampler": "", "params": {}, "distributions": {}}
        events += [(records.TRIAL_SUGGESTED, number, suggested)]
        events += [(records.TRIAL_STARTED, number, {"attempt": 1, "worker": ""})]
        while not trial.finished:
            events.append((records.TRIAL_REPORTED, number, {"report": trial.advance().to_json()}))
        trial.close()
        assert trial.last_report is not None
        value = trial.last_report.metrics[records.VALIDATION_ACCURACY]
        events.append((records.TRIAL_FINISHED, number, {"value": value, "values": {}}))
        evaluate_trial(trial.directory, cache=store / records.CACHE_FOLDER, episodes=4)
    events.append((records.SEARCH_ENDED, None, {"state": records.FINISHED}))
    journal = Journal(folder)
    journal.append_all([Event(0, 1e9 + at, trial, kind, load) for at, (kind, trial, load) in enumerate(events)])
    journal.close()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A served store whose classes have markup in their names, with more episodes than one page has."""
    folder = tmp_path_factory.mktemp("labelled")
    labels = [f"{HOSTILE} {row // 6}" for row in range(96)]
    columns = {name: [float((row * place) % 17) for row in range(96)] for place, name in ((3, "<b>a</b>"), (5, "b"))}
    pyarrow.csv.write_csv(pa.table({"label": labels, **columns}), folder / "table.csv")
    experiment = {**TABLE, "tasks": {**TABLE["tasks"], "path": str(folder / "table.csv")}}
    recorded_search(experiment, folder / "store", "labelled")
    with serving(folder / "store") as found:
        yield found


@pytest.fixture
def read(labelled: Served) -> Iterator[Callable[[str], Any]]:
    """Return a function that reads an address of that server."""
    import requests

    with requests.Session() as session:
        session.get(labelled.url(), timeout=60)
        yield lambda path: session.get(urljoin(labelled.address, path), timeout=60)


LINK = re.compile(r'<th scope="row" class="number"><a href="([^"]+)"')
NEXT = re.compile(r'<a rel="next" href="([^"]+)"')


def address_of(row: dict[str, Any]) -> str:
    seed = f"?seed={row['seed']}" if row["phase"] == records.TEST else ""
    return f"/searches/labelled/episodes/{row['trial']}/{row['phase']}/{row['step']}/{row['episode']}{seed}"


@pytest.mark.parametrize("where", ["", "accuracy_after > 0.4 and phase == 'train'"])
def test_the_pages_lead_to_every_episode_once_and_in_order(
    labelled: Served, read: Callable[[str], Any], where: str
) -> None:
    expected = queries.episode_rows(labelled.store, "labelled", where=where or None, limit=None).rows
    assert len(expected) > 50
    path, found = f"/searches/labelled/episodes?where={where.replace(' ', '+')}", list[str]()
    while path:
        text = read(path).text
        found += LINK.findall(text)
        following = NEXT.search(text)
        path = following[1].replace("&amp;", "&") if following else ""
    assert found == list(map(address_of, expected))


def test_what_is_filtered_is_downloaded_and_counted(labelled: Served, read: Callable[[str], Any]) -> None:
    expected = queries.episode_rows(labelled.store, "labelled", where="accuracy_after == 0.5", limit=None).rows
    query = "where=accuracy_after+%3D%3D+0.5"
    answer = read(f"/searches/labelled/episodes/download/csv?{query}")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="labelled-episodes.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(one["trial"], one["seed"]) for one in rows] == [(str(one["trial"]), str(one["seed"])) for one in expected]
    assert f"{len(expected)} episodes" in read(f"/searches/labelled/episodes/parts/count?{query}").text
    for path, told in (
        ("/searches/labelled/episodes?where=acuracy_after+%3E+1", "did you mean &#39;accuracy_after&#39;"),
        ("/searches/labeled/episodes", "did you mean &#39;labelled&#39;"),
        ("/searches/labelled/episodes/9/train/0/0", "has no trial 9"),
        ("/searches/labelled/episodes/0/train/999/0", "no record of train episode 0 at step 999"),
        ("/searches/labelled/episodes/download/xls", "no format is named"),
    ):
        answer = read(path)
        assert answer.status_code in (404, 422), path
        assert told in answer.text


def test_rows_are_filtered_sorted_and_opened(
    chromium: "Browser", labelled: Served, axe: "Callable[[Page], None]", screenshot: "Callable[[Page, str], None]"
) -> None:
    rows = queries.episode_rows(labelled.store, "labelled", trial=1, phase="train", limit=None).rows
    with opened(chromium, base_url=labelled.address) as page:
        page.goto(labelled.url("/searches/labelled/episodes"))
        page.get_by_label("Trial").fill("1")
        page.get_by_label("Phase").select_option("train")
        page.get_by_label("Order").select_option("-loss_after")
        page.get_by_role("button", name="Show", exact=True).click()
        page.wait_for_url("**trial=1**")
        page.get_by_text(f"{len(rows)} episodes", exact=True).wait_for()
        worst = max(rows, key=lambda row: row["loss_after"])
        first = page.locator("div.rows tbody tr").first
        assert first.locator("th a").get_attribute("href") == address_of(worst)
        page.get_by_text("Hardest classes", exact=True).wait_for()
        axe(page)
        for place in range(2):
            page.locator("figure.chart").nth(place).scroll_into_view_if_needed()
            page.locator("figure.chart[data-drawn]").nth(place).wait_for()
        screenshot(page, "episodes")
        page.get_by_role("button", name="Play episodes again and count").click()
        page.get_by_text("Every query is counted.").wait_for()
        assert page.get_by_text(HOSTILE).count() > 0
        first.locator("th a").click()
        page.locator(".played").wait_for()
        check_episode(page)
        page.get_by_label("The same episode under trial").fill("0")
        page.get_by_role("button", name="Show beside").click()
        page.get_by_text("On the same 4 validation episodes").wait_for()
        told = page.get_by_text("On the same 4 test episodes").inner_text()
        compared = compare_recorded("labelled:0", "labelled:1", store=labelled.store).contenders[1].better_than_first
        assert compared is not None
        assert compared.interval is not None
        assert f"{compared.mean:.4g}" in told, "the difference that metaloom compare prints"
        page.locator(".played").wait_for()
        assert page.locator(".queries thead th").count() == 4
        axe(page)
        screenshot(page, "episode")


def check_episode(page: "Page") -> None:
    """Look at an episode of the table: its queries, and names that stay text."""
    queries_shown = page.locator(".queries tbody tr")
    assert queries_shown.count() == 4
    assert page.locator(".examples li").count() == 2
    assert HOSTILE in queries_shown.first.locator("th").inner_text()
    assert "<b>a</b>" in queries_shown.first.inner_text()
    assert page.locator(".played img").count() == 0, "the name of a class is no element"
    assert re.search("right|wrong", queries_shown.first.inner_text())


def test_images_and_curves_are_drawn(page: "Page", served: Served, screenshot: "Callable[[Page, str], None]") -> None:
    page.goto("/searches/first/episodes?phase=validation&trial=0")
    page.locator("div.rows tbody th a").first.click()
    page.locator(".played").wait_for()
    assert page.locator(".played img").count() == 3 + 9
    assert page.evaluate("[...document.querySelectorAll('.played img')].every((one) => one.naturalWidth === 28)")
    screenshot(page, "episode-images")
    page.goto("/searches/second/episodes?phase=validation&trial=0")
    page.locator("div.rows tbody th a").first.click()
    page.locator(".played").wait_for()
    assert page.locator("figure.curve circle").count() == 5 + 5 + 2 * 5
    assert page.locator(".answers li").count() == 5 * 3


def test_a_replay_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    replays = LocalReplays(most_s=0.05)
    request = {"kind": "episode", "record": {}, "trials": {}, "cache": str(tmp_path)}
    assert replays.state(request).state == "running"
    deadline = time.monotonic() + 30
    while replays.state(request).state == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    found = replays.state(request)
    assert found.state == "failed"
    assert "longer than 0.05 s" in found.problem
    replays.close()
    other = {**request, "cache": "elsewhere"}
    while replays.state(other).state == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert replays.state(other).problem == "the pages were closed"


@pytest.mark.parametrize(
    ("field", "given", "said"),
    [
        ("trial", "abc", "allowed: a whole number"),
        ("seed", "9" * 30, "allowed: a whole number"),
        ("accuracy_after_least", "1e999", "allowed: a number"),
        ("loss_after_most", "9" * 5000, "allowed: a number"),
        ("classes", "a", "allowed: the ids of classes"),
        ("sort", "stp", "did you mean &#39;step&#39;?"),
        ("where", "accuracy_after >", "cannot read &#39;accuracy_after &gt;&#39;"),
        ("where", "phase > 3", "compares values of different kinds"),
        ("where", f"step == {2**63}", "has more than 63 bits"),
    ],
)
def test_what_is_wrong_in_a_field_stands_beside_it(
    read: Callable[[str], Any], field: str, given: str, said: str
) -> None:
    answer = read(f"/searches/labelled/episodes?{urlencode({field: given, 'phase': 'train'})}")
    assert answer.status_code == 422
    beside = re.search(
        rf'name="{field}"[^>]*aria-describedby="problem-{field}".*?id="problem-{field}"[^>]*>([^<]*)<',
        answer.text,
        re.S,
    )
    assert beside is not None and said in beside[1] and "--where" not in beside[1]
    assert "<option selected>train</option>" in answer.text  # the other fields are kept
    assert "No episode" not in answer.text


def test_the_mean_of_one_episode_has_no_interval(read: Callable[[str], Any]) -> None:
    address = "/searches/labelled/episodes/parts/classes?trial=0&phase=validation"
    rows = [
        re.findall(r'<td class="number">(\d+)</td><td class="number">(.*?)</td>', read(address + where).text)
        for where in ("", "&where=episode+==+0")
    ]
    assert {count for count, _ in rows[1]} == {"1"} and "1" not in {count for count, _ in rows[0]}
    assert ["interval" in value for of in rows for _, value in of] == [True] * len(rows[0]) + [False] * len(rows[1])

"""The charts of a search in a real browser: drawn without an error in light and dark, chosen by controls, brushed."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from metaloom.dashboards import queries
from metaloom.dashboards.charts.base import ChartSource, to_document
from metaloom.dashboards.charts.registry import charts_of
from metaloom.dashboards.store_reader import OpenStore
from metaloom.orchestrator.analysis import SearchAnalysis
from metaloom.workers.records import names as records
from tests.dashboards.conftest import Write, story
from tests.dashboards.conftest import write_search as write_search
from tests.pages.conftest import Served

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

EMPTY = {"first": {"pareto"}, "second": {"pareto", "contour"}}
DRAWN = "figure.querySelectorAll('.plot .trace, .plot .bars, .plot .hm, .plot .point').length"


def chart(page: "Page", key: str) -> "Locator":
    """Return a figure after it has come into view and was drawn."""
    figure = page.locator(f"#chart-{key}")
    figure.scroll_into_view_if_needed()
    page.wait_for_function("key => document.getElementById(`chart-${key}`).dataset.drawn === 'yes'", arg=key)
    return figure


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["first", "second"])
def test_every_chart_is_drawn_with_its_table(page: "Page", screenshot: Any, name: str, theme: Any) -> None:
    page.emulate_media(color_scheme=theme)
    page.goto(f"/searches/{name}")
    for kind in charts_of("search"):
        figure = chart(page, kind.key)
        assert figure.locator(".trouble").is_hidden(), figure.locator(".trouble").inner_text()
        if kind.key in EMPTY[name]:
            assert figure.locator(".note").inner_text() == kind.needs
            continue
        assert figure.evaluate(f"figure => {DRAWN}") > 0, kind.key
        figure.locator(".as-table summary").click()
        figure.locator(".as-table tbody tr").first.wait_for()
    screenshot(page, f"charts-{name}-{theme}")


def test_the_table_of_the_objective_is_that_of_show(page: "Page", served: Served) -> None:
    page.goto("/searches/first")
    figure = chart(page, "objective")
    figure.locator(".as-table summary").click()
    figure.locator(".as-table tbody tr").first.wait_for()
    rows = [row.locator("td").all_inner_texts() for row in figure.locator(".as-table tbody tr").all()]
    shown = queries.search_summary(served.store, "first")["trials"]
    expected = {str(one["id"]): one["value"] for one in shown if one["value"] is not None}
    found = {row[0]: float(row[3]) for row in rows if row[2] != "tested"}
    assert found == {number: pytest.approx(value, rel=1e-5) for number, value in expected.items()}
    assert any(row[0] == "baseline nearest_neighbour" for row in rows)


@pytest.mark.parametrize(("kind", "across", "up"), [("contour", "rate", "clip"), ("heatmap", "method", "norm")])
def test_what_lies_under_the_trials_is_drawn(
    page: "Page", tmp_path: Path, write_search: Write, kind: str, across: str, up: str
) -> None:
    told = story({number: number / 20 for number in range(16)})
    for event, trial, load in told:
        if event == records.TRIAL_SUGGESTED and trial is not None:
            row, column = divmod(trial, 4)
            load["knobs"] = {"rate": 10.0**-row, "clip": column + 1.5, "method": f"m{row}", "norm": f"n{column}"}
    write_search("grid", told)
    (contour,) = [one for one in charts_of("search") if one.key == "contour"]
    found = contour.draw(ChartSource(OpenStore(tmp_path), "grid", asked={"x": across, "y": up}))
    assert found is not None and [one["type"] for one in found.data] == [kind, "scatter"]
    document = to_document(found)
    page.route("**/charts/contour.json*", lambda route: route.fulfill(json=document))
    page.goto("/searches/first")
    figure = chart(page, "contour")
    figure.get_by_text(f"validation accuracy over {across} and {up}", exact=True).wait_for()
    assert figure.evaluate("figure => figure.querySelectorAll('.contourlayer path, .heatmaplayer image').length") > 0
    assert figure.locator(".scatterlayer .point").count() == 16
    assert figure.locator(".colorbar, .cbfill").count() > 0


def test_a_control_draws_the_chart_again(page: "Page") -> None:
    page.goto("/searches/first")
    figure = chart(page, "objective")
    with page.expect_response(lambda answer: "over=time" in answer.url) as answer:
        figure.locator("select[name=over]").select_option("time")
    assert answer.value.ok
    figure.get_by_text("validation accuracy over time", exact=True).wait_for()
    assert figure.locator("select[name=over]").input_value() == "time"
    contour = chart(page, "contour")
    knobs = contour.locator("select[name=x] option").all_inner_texts()
    contour.locator("select[name=x]").select_option(knobs[1])  # the other axis then takes the other knob
    contour.get_by_text(f"validation accuracy over {knobs[1]} and {knobs[0]}", exact=True).wait_for()


def test_the_numbers_of_a_real_search_are_those_of_show(pages_store: Path) -> None:
    source = ChartSource(OpenStore(pages_store), "first", analysis=SearchAnalysis())
    shown = queries.search_summary(pages_store, "first")
    trials = {row["id"]: row for row in shown["trials"]}
    tables = {kind.key: found.table.rows for kind in charts_of("search") if (found := kind.draw(source))}
    values = {number: row["value"] for number, row in trials.items() if row["value"] is not None}
    assert {row[0]: row[3] for row in tables["objective"] if row[2] != "tested"} == values
    assert {row[0]: list(row[4:6]) for row in tables["objective"] if row[2] != "tested"} == {
        number: trials[number]["interval"] for number in values
    }
    assert {row[0]: (row[1], row[2], row[4]) for row in tables["curves"]} == {
        number: (trials[number]["state"], trials[number]["steps"], value) for number, value in values.items()
    }
    assert {row[0]: row[-1] for row in tables["parallel"]} == values
    assert {row[0]: row[-3] for row in tables["slices"]} == values
    assert {row[0]: row[8] for row in tables["timeline"]} == {number: row["state"] for number, row in trials.items()}
    counts = Counter(row["state"] for row in shown["trials"])
    for state, count in counts.items():
        assert sum(row[1] for row in tables["endings"] if row[0].startswith(state)) == count
    best = shown["best"]["id"]
    for number, _, mean, *_ in tables["differences"]:
        assert mean == pytest.approx(values[best] - values[number])  # the means of the same episodes


def brushed(page: "Page") -> Any:
    """Return what the page was told last: the numbers of the chosen trials, or None for all."""
    return page.evaluate("window.told")


@pytest.fixture
def parallel(page: "Page") -> "Locator":
    """The parallel axes of the first search, with what they tell the page kept as ``window.told``."""
    page.goto("/searches/first")
    page.evaluate("document.addEventListener('brushed', (event) => { window.told = event.detail.trials; })")
    return chart(page, "parallel")


def test_drawing_alone_chooses_no_trials(page: "Page", parallel: "Locator") -> None:
    parallel.locator(".count").wait_for()
    assert page.evaluate("window.told === undefined")


def test_dragging_over_an_axis_chooses_its_trials(page: "Page", parallel: "Locator", served: Served) -> None:
    values = {
        row["id"]: row["value"]
        for row in queries.search_summary(served.store, "first")["trials"]
        if row["value"] is not None
    }
    middle = (min(values.values()) + max(values.values())) / 2
    # the objective is the last axis: the upper half of it
    box = parallel.evaluate(
        """figure => {
            const plot = figure.querySelector('.plot'), layout = plot._fullLayout;
            const last = figure.chart.layout.meta.axes.length - 1;
            const place = plot.getBoundingClientRect();
            const x = (at) => place.left + layout.xaxis._offset + layout.xaxis.d2p(at);
            const y = (at) => place.top + layout.yaxis._offset + layout.yaxis.d2p(at);
            return [x(last - 0.1), y(0.5), x(last + 0.1), y(1.04)];
        }"""
    )
    page.mouse.move(box[0], box[1])
    page.mouse.down()
    page.mouse.move(box[2], box[3], steps=4)
    page.mouse.up()
    page.wait_for_function("() => window.told !== undefined && window.told !== null")
    assert brushed(page) == [number for number, value in values.items() if value >= middle]
    assert parallel.locator(".count").inner_text() == f"{len(brushed(page))} of {len(values)} trials"
    others = "figure => figure.querySelector('.plot').data.find((one) => one.name === 'others').customdata"
    hidden = {number for number in parallel.evaluate(others) if number is not None}
    assert hidden == values.keys() - set(brushed(page))


def test_ranges_are_chosen_by_keyboard_and_survive_a_change(page: "Page", parallel: "Locator", served: Served) -> None:
    rates = {
        row["id"]: row["knobs"]["learner[maml].update.rate"]
        for row in queries.search_summary(served.store, "first")["trials"]
        if row["value"] is not None and "learner[maml].update.rate" in row["knobs"]
    }
    low = sorted(rates.values())[len(rates) // 2]
    parallel.locator(".ranges summary").press("Enter")
    field = parallel.get_by_label("learner[maml].update.rate, from")
    field.fill(repr(low))
    field.press("Tab")
    expected = [number for number, rate in rates.items() if rate >= low]
    page.wait_for_function("expected => JSON.stringify(window.told) === JSON.stringify(expected)", arg=expected)
    parallel.get_by_label("learner", exact=True).select_option("maml")
    page.wait_for_function("expected => JSON.stringify(window.told) === JSON.stringify(expected)", arg=expected)
    page.evaluate("document.body.dispatchEvent(new CustomEvent('changed'))")  # as after a new record
    page.wait_for_function("() => document.getElementById('chart-parallel').dataset.busy === undefined")
    assert parallel.locator(".count").inner_text().startswith(f"{len(expected)} of ")
    parallel.get_by_role("button", name="Show all trials").press("Enter")
    page.wait_for_function("() => window.told === null")
    assert field.input_value() == ""


def test_a_mistaken_choice_names_what_is_allowed(page: "Page", served: Served) -> None:
    answer = page.request.get("/searches/first/charts/slices.json?knob=learnr")
    assert answer.status in (400, 404) and "did you mean 'learner'" in answer.text()


def test_importances_go_on_until_all_seeds_are_evaluated(page: "Page") -> None:
    page.goto("/searches/first")
    chart(page, "importances")
    page.wait_for_function(
        "() => !document.querySelector('#chart-importances .note').textContent.includes('so far')", timeout=60_000
    )

"""The cards of searches tell what the records hold, and are filtered and sorted by it."""

from pathlib import Path

import pytest

from metaloom.dashboards import queries
from metaloom.dashboards.search_cards import EDGE, HEIGHT, WIDTH, SearchCard, card_of, chosen_cards, sparkline
from metaloom.learners.errors import BadInput
from metaloom.workers.records import names as records
from tests.dashboards.conftest import Write, story

STARTED = (records.SEARCH_STARTED, None, {"pid": 0, "host": "elsewhere"})
EVALUATION = {"metric": "accuracy", "mean": 0.8, "interval": [0.7, 0.9], "episodes": 3}
LEADS = [
    {"method": "maml", "evaluation": EVALUATION, "best_better_by": {"mean": 0.1, "interval": [0.0, 0.2]}},
    {"method": "fine_tuning", "evaluation": EVALUATION},  # of an old record
]


def card(store: Path, name: str) -> SearchCard:
    return card_of(queries.listed_search(store, name), queries.search_record(store, name))


def test_a_card_has_the_best_its_interval_its_leads_and_its_cost(tmp_path: Path, write_search: Write) -> None:
    baselines = [(records.BASELINE, None, one) for one in LEADS]
    write_search("first", [STARTED, *story({0: 0.5, 1: 0.9, 2: 0.7}), *baselines])
    shown, summary = card(tmp_path, "first"), queries.search_summary(tmp_path, "first")
    assert (shown.row.best, shown.row.value) == (1, summary["best"]["value"])
    assert list(shown.interval or ()) == summary["best"]["interval"]
    assert [(one.method, one.difference) for one in shown.leads] == [
        (one["method"], one["best_better_by"]) for one in summary["baselines"]
    ]
    assert shown.lead == 0.1
    assert shown.worker_seconds == sum(trial["seconds"] for trial in summary["trials"]) == 60.0
    assert list(shown.progress) == [(0, 0.5), (1, 0.9), (2, 0.9)]
    assert shown.ended == 3


def test_the_progress_leaves_out_what_breaks_the_constraints_and_follows_the_direction(
    tmp_path: Path, write_search: Write
) -> None:
    bound = [{"metric": records.TRAIN_LOSS, "min": 1.0, "max": None}]  # each trial's last is 1/20
    write_search("bound", [STARTED, *story({0: 0.5})], constraints=bound)
    write_search(
        "down",
        [STARTED, *story({0: 0.5, 1: 0.9, 2: 0.4})],
        objectives=[{"metric": records.VALIDATION_ACCURACY, "direction": "minimize"}],
    )
    assert list(card(tmp_path, "bound").progress) == []
    assert list(card(tmp_path, "down").progress) == [(0, 0.5), (1, 0.5), (2, 0.4)]


def test_cards_are_filtered_by_text_and_state_and_sorted_with_the_unknown_last(
    tmp_path: Path, write_search: Write
) -> None:
    write_search("first", [STARTED, *story({0: 0.5})])
    write_search("second", [STARTED, *story({0: 0.9}), (records.SEARCH_ENDED, None, {"state": "finished"})])
    write_search("third", [STARTED, (records.NOTED, None, {"notes": ["<i>Odd</i> rates"]})])
    cards = [card(tmp_path, name) for name in ("third", "second", "first")]

    def names(**asked: object) -> list[str]:
        return [one.row.name for one in chosen_cards(cards, **asked)]  # type: ignore[arg-type]

    assert names() == ["third", "second", "first"]
    assert names(text="odd</I>") == ["third"]
    assert names(states=("finished",)) == ["second"]
    assert names(sort="value") == ["first", "second", "third"]
    assert names(sort="-value") == ["second", "first", "third"]
    assert names(sort="-lead") == names()
    with pytest.raises(BadInput, match="did you mean 'value'"):
        names(sort="vlue")


def test_a_sparkline_is_level_up_to_each_gain_and_stays_inside_its_frame() -> None:
    points = [tuple(map(float, point.split(","))) for point in sparkline([(0, 0.5), (1, 0.5), (2, 0.9)]).split()]
    low, high = HEIGHT - EDGE, EDGE
    assert points == [(EDGE, low), (WIDTH - EDGE, low), (WIDTH - EDGE, high)]
    assert sparkline([(3, 0.5)]) == ""
    level = sparkline([(0, 0.5), (9, 0.5)]).split()
    assert level == [f"{EDGE:.1f},{low:.1f}", f"{WIDTH - EDGE:.1f},{low:.1f}"]
    assert len(sparkline([(n, 0.0) for n in range(5000)]).split()) == 2

"""Pages of episodes: each row once and in order, equal to those of ``metaloom episodes``, whatever is asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaloom.dashboards import queries
from metaloom.dashboards.episodes.asked import EpisodeQuestion, FieldError
from metaloom.dashboards.episodes.bounds import PartFacts
from metaloom.dashboards.episodes.index import EpisodeIndex
from metaloom.dashboards.episodes.paging import EpisodePage, PagePlace, episode_page
from metaloom.dashboards.filters import FilterError
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord
from tests.support.episode_parts import PARTS, ROWS, TRIALS, indexed, written


def pages(index: EpisodeIndex, question: EpisodeQuestion, size: int, *, time_s: float = 20.0) -> Iterator[EpisodePage]:
    after = None
    while True:
        page = episode_page(index, question, "first", after=after, size=size, time_s=time_s)
        yield page
        assert page.after is None or page.after != after, "each page goes on"
        after = page.after
        if after is None:
            return


CONDITIONS = st.sampled_from(
    [
        "accuracy_after > 0.6", "accuracy_after == 3 / 5", "0.2 <= accuracy_after < 0.8", "accuracy_after != 0.4",
        "accuracy_after in [0.2, 1.0]", "loss_after < 0.5", "loss_after > 1.9 or loss_after < 0.1", "step == 20",
        "not (step == 20)", "step in [10, 30] and loss_after > 1", "trial == 1", "trial in [0, 2]", "2 > trial",
        "phase == 'validation'", "phase != 'train'", "hypergradient_norm is None", "hypergradient_norm > 0.5",
        "accuracy_after - accuracy_before > 0.5", "episode < 3", "episode == 100", "step / 2 == 5", "-step < -25",
        "loss_after > loss_before", "1 > accuracy_after > 0.5", "seed > 4000000000000000000",
    ]
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CONDITIONS, max_size=2), st.sampled_from([None, *records.PHASES]), st.sampled_from([None, 0, 2]),
       st.sampled_from([1, 3, 50]), st.booleans())  # fmt: skip
def test_pages_hold_the_rows_of_metaloom_episodes(
    search_of_parts: Path, texts: list[str], phase: str | None, trial: int | None, size: int, built: bool
) -> None:
    where = " and ".join(f"({text})" for text in texts) or None
    expected = queries.episode_rows(
        search_of_parts.parents[1], "first", trial=trial, phase=phase, where=where, limit=None
    )
    fields = {"trial": trial, "phase": phase, "where": where}
    question = EpisodeQuestion.of({name: str(one) for name, one in fields.items() if one is not None})
    index = indexed(search_of_parts, built=built)
    found = list(pages(index, question, size))
    assert [row for page in found for row in page.rows] == expected.rows
    assert all(len(page.rows) == size for page in found[:-1])
    if built and where is None:
        assert index.count(trial, phase) == expected.total
    backwards, before = list[Any](), PagePlace(99, "part-99999999-99999999.parquet", 0)
    while before is not None:
        page = episode_page(index, question, "first", before=before, size=size, time_s=20)
        backwards[:0], before = page.rows, page.before
    assert backwards == expected.rows, "the way back shows the same rows"


def test_a_page_that_runs_out_of_time_goes_on_where_it_stopped(search_of_parts: Path) -> None:
    question = EpisodeQuestion.of({"where": "loss_after < 0.3"})
    expected = queries.episode_rows(search_of_parts.parents[1], "first", where="loss_after < 0.3", limit=None).rows
    found = list(pages(indexed(search_of_parts), question, 50, time_s=0.0))
    assert [row for page in found for row in page.rows] == expected
    assert not found[0].is_full
    assert len(found) < 30
    assert found[0].looked < found[0].of == TRIALS * PARTS


@pytest.mark.parametrize("asked", [(3,), (0, 5), (9,)])
def test_classes_are_those_that_an_episode_holds(search_of_parts: Path, asked: tuple[int, ...]) -> None:
    every = queries.episode_rows(search_of_parts.parents[1], "first", limit=None).rows
    question = EpisodeQuestion.of({"classes": ", ".join(map(str, asked))})
    found = [row for page in pages(indexed(search_of_parts), question, 4) for row in page.rows]
    assert found == [row for row in every if set(asked) <= set(row["class_ids"])]
    assert bool(found) == (asked != (9,))


def test_ranges_are_conditions(search_of_parts: Path) -> None:
    fields = {"accuracy_after_least": "0.6", "loss_after_most": "1", "step_least": "20"}
    where = "accuracy_after >= 0.6 and loss_after <= 1 and step >= 20"
    expected = queries.episode_rows(search_of_parts.parents[1], "first", where=where, limit=None).rows
    (page,) = pages(indexed(search_of_parts), EpisodeQuestion.of(fields), 1000)
    assert page.rows == expected
    assert 0 < len(expected) < 100
    seed = expected[0]["seed"]
    (page,) = pages(indexed(search_of_parts), EpisodeQuestion.of({"seed": str(seed)}), 10)
    assert page.rows == expected[:1]


def test_damaged_and_missing_parts_are_left_out_and_named(search_of_parts: Path) -> None:
    folder = records.trial_directory(search_of_parts, 1) / records.EPISODES_FOLDER
    first, second, third, _ = sorted(folder.iterdir())
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(bytes(content))
    second.unlink()
    third.write_bytes(third.read_bytes()[:100])
    (folder / "part-test-0.parquet").write_bytes(b"nothing")  # the journal does not know it
    expected = queries.episode_rows(search_of_parts.parents[1], "first", limit=None)
    for built in (True, False):
        index = indexed(search_of_parts, built=built)
        found = list(pages(index, EpisodeQuestion(), 10))
        assert [row for page in found for row in page.rows] == expected.rows
        named = {str(one) for page in found for one in page.damaged} | set(map(str, index.damaged))
        assert named <= set(map(str, expected.damaged))
        assert built <= (len(named) == len(expected.damaged))
    assert len(expected.damaged) == 4
    assert index.count(None, None) is None, "not before every part is known"


def test_new_parts_and_new_trials_are_seen(search_of_parts: Path) -> None:
    index = indexed(search_of_parts)
    before = index.count(None, None)
    after = list(pages(index, EpisodeQuestion(), 1000))[-1]
    assert after.after is None
    written(search_of_parts, 1, PARTS)
    written(search_of_parts, TRIALS, 0, rows=2)
    index.refresh(SearchRecord.read(search_of_parts))
    assert index.wait(20)
    assert (
        index.count(None, None)
        == before + 2 * ROWS + 4
        == queries.episode_rows(search_of_parts.parents[1], "first").total
    )
    (page,) = pages(index, EpisodeQuestion.of({"trial": str(TRIALS)}), 50)
    assert len(page.rows) == 4
    written(search_of_parts, TRIALS, 0, rows=3)  # a resumed trial writes a part again
    index.refresh(SearchRecord.read(search_of_parts))
    assert index.wait(20)
    assert index.count(TRIALS, None) == 6


def test_a_part_that_cannot_hold_what_is_asked_is_not_read(search_of_parts: Path) -> None:
    index = indexed(search_of_parts)
    for path in search_of_parts.rglob("part-*.parquet"):
        if "00000020-" not in path.name:
            path.unlink()
    question = EpisodeQuestion.of({"where": "step in [20, 29] and phase == 'train' and loss_after > 0"})
    (page,) = pages(index, question, 1000)
    assert len(page.rows) == TRIALS * ROWS
    assert not page.damaged
    facts = PartFacts(5, (("train", 5),), ((1, 2), (0, 4), (1, 1), (0.5, 0.7), (0.2, 0.2), (0.4, 0.6)))
    for text, holds in (("loss_after > 0.7", False), ("loss_after >= 0.7", True), ("0.5 > loss_after", False),
                        ("loss_after > 0.7 or step == 1", True), ("phase == 'test'", False), ("seed == 1", True),
                        ("accuracy_after < 2 / 5", False), ("not (loss_after < 9)", True)):  # fmt: skip
        assert EpisodeQuestion(texts=(text,)).may_hold(0, facts) == holds, text


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"phase": "tset"}, "did you mean 'test'"),
        ({"trial": "x"}, "trial: got"),
        ({"seed": "1.5"}, "a whole number"),
        ({"loss_after_least": "True"}, "loss_after_least: got"),
        ({"classes": "a"}, "the ids of classes"),
        ({"sort": "loss_afer"}, "did you mean 'loss_after'"),
        ({"where": "trial == 'x'"}, "compares values of different kinds"),
        ({"where": "acuracy_after > 1"}, "did you mean 'accuracy_after'"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_field(fields: dict[str, str], told: str) -> None:
    with pytest.raises((FieldError, FilterError)) as caught:
        EpisodeQuestion.of(fields)
    assert told in str(caught.value)


def test_a_question_keeps_its_fields_in_links() -> None:
    question = EpisodeQuestion.of(
        {"trial": " 3 ", "where": "step > 1 & 2".replace("& 2", "and step < 9"), "other": "x"}
    )
    assert question.address(sort="-step") == "trial=3&where=step+%3E+1+and+step+%3C+9&sort=-step"
    assert question.address(trial="") == "where=step+%3E+1+and+step+%3C+9"


def test_reading_pages_needs_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from metaloom.dashboards.episodes import paging; from metaloom.dashboards.episodes.asked import "
    )
    code += "EpisodeQuestion as Q; Q.of({'where': 'step > 1'}); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"

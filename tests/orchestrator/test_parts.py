"""Damaged episode parts: told by name, written again where the trial can go back, and left out where it cannot."""

import gc
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from metaloom.dashboards import queries
from metaloom.dashboards.figures import adaptation_figure
from metaloom.learners.errors import BadInput
from metaloom.orchestrator.api import resume, search
from metaloom.orchestrator.journal import Journal
from metaloom.workers.records import names as records
from metaloom.workers.records.parts import check_parts
from metaloom.workers.records.search import SearchRecord
from tests.orchestrator.test_resume import FILE, CutAfter, KilledError
from tests.support import processes
from tests.support.databases import copy_mlflow_database

FIRST, NEWEST = "part-00000000-00000002.parquet", "part-00000004-00000006.parquet"
CHANGES = ["outer.steps=8", "search.trials=1"]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def flipped(path: Path, at: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1
    path.write_bytes(bytes(content))


DAMAGES: dict[Callable[[Path], None], str] = {
    truncated: "it has 300 bytes instead of ",
    flipped: "its bytes do not have the digest that they were written with",
    Path.unlink: "the file is missing",
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the search ``whole``, and with ``cut``, which was killed after its third report."""
    folder = tmp_path_factory.mktemp("parts")
    copy_mlflow_database(folder / "mlflow.db")
    (folder / "sine.yaml").write_text(FILE % (folder / "mlflow.db"))
    run: dict[str, Any] = {"store": folder / "store", "executor": "inline", "overrides": CHANGES}
    search(folder / "sine.yaml", name="whole", **run)
    with pytest.raises(KilledError):
        search(folder / "sine.yaml", name="cut", progress=CutAfter(3), **run)
    gc.collect()  # closes the journal of the stopped search now, and not while the store is copied
    return folder / "store"


@pytest.fixture
def store(stores: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stores, tmp_path / "store"))


def episodes_of(store: Path, name: str) -> Path:
    return store / "searches" / name / "trials" / "0000" / records.EPISODES_FOLDER


def rows(store: Path, name: str) -> list[dict[str, Any]]:
    found = queries.episode_rows(store, name, limit=None).rows
    timed = ("search", "seconds")
    shown = [{key: value for key, value in row.items() if key not in timed} for row in found]
    return sorted(shown, key=lambda row: (row["phase"], row["step"], row["episode"]))


def state_of(store: Path, name: str) -> SearchRecord:
    with Journal(store / "searches" / name, read_only=True) as journal:
        return SearchRecord.replay(journal.events())


def told_of(store: Path, name: str) -> list[str]:
    """Return the first trial's warnings but one: so short a trial may learn nothing, which is told too."""
    return [text for text in state_of(store, name).trials[0].warnings if "nothing that helps was learned" not in text]


@pytest.mark.parametrize("damage", DAMAGES, ids=["truncated", "flipped", "deleted"])
def test_the_newest_part_is_written_again_where_the_trial_goes_on(store: Path, damage: Any) -> None:
    damage(episodes_of(store, "cut") / NEWEST)
    (found,) = check_parts(store / "searches" / "cut")
    assert (found.trial, found.path.name) == (0, NEWEST) and found.reason.startswith(DAMAGES[damage])
    assert resume("cut", store).exit_code == 0
    (warning,) = told_of(store, "cut")
    again = "its rows are written again, from the checkpoint of step 4"
    assert warning == f"{NEWEST} is damaged ({found.reason}): {again}"
    assert check_parts(store / "searches" / "cut") == [] and rows(store, "cut") == rows(store, "whole")
    reports = [[(one.step, one.scores) for one in state_of(store, name).trials[0].reports] for name in ("cut", "whole")]
    assert reports[0] == reports[1]


@pytest.mark.parametrize("damage", DAMAGES, ids=["truncated", "flipped", "deleted"])
def test_an_older_part_is_lost_alone_and_told(store: Path, damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    damage(episodes_of(store, "cut") / FIRST)
    (found,) = check_parts(store / "searches" / "cut")
    assert resume("cut", store).exit_code == 0
    (warning,) = told_of(store, "cut")
    assert warning == (
        f"{FIRST} is damaged ({found.reason}): the rows of the outer steps from 0 to 2 are lost; all others are kept"
    )
    # the part holds the training episodes of steps 0 and 1, and the validation at 2
    kept = [row for row in rows(store, "whole") if row["step"] > 2 or (row["step"], row["phase"]) == (2, "train")]
    assert rows(store, "cut") == kept
    for where in ("step == 1", "step == 5"):
        shown = queries.episode_rows(store, "cut", where=where)
        assert [str(one) for one in shown.damaged] == [str(found)] and bool(shown.total) == (where == "step == 5")
    with pytest.raises(BadInput, match="--where compares values of different kinds"):
        queries.episode_rows(store, "cut", where="phase > 3")
    assert adaptation_figure(store, "cut", 0) is not None
    assert "is drawn of other episodes" in caplog.text and FIRST in caplog.text


def test_the_command_shows_the_other_rows_and_warns(store: Path) -> None:
    truncated(episodes_of(store, "whole") / NEWEST)
    done = processes.run("-m", "metaloom", "episodes", "whole", "--json", "--store", str(store), check=True)
    document = json.loads(done.stdout)
    said = f"the episodes of trial 0 in {NEWEST} cannot be shown: it has 300 bytes instead of "
    assert document["total"] == len(rows(store, "whole")) > 0
    assert document["damaged"][0].startswith(said) and f"warning: {said}" in done.stderr


def test_a_part_without_a_digest_is_left_out_if_it_cannot_be_read(store: Path) -> None:
    """As in searches of earlier versions, and the parts of tests."""
    total = queries.episode_rows(store, "whole", phase=records.TRAIN).total
    for damage in (partial(flipped, at=100), truncated):  # within a page, which has a checksum; the footer has none
        (test,) = records.parts_of(episodes_of(store, "whole"), tests_alone=True)
        damage(test)
        shown = queries.episode_rows(store, "whole", limit=None)
        assert (
            [one.path for one in shown.damaged]
            == [test]
            == [one.path for one in check_parts(store / "searches" / "whole")]
        )
        assert "it is no whole Parquet file" in shown.damaged[0].reason and shown.total > total
        assert {row["phase"] for row in shown.rows} == {"train", "validation"}


def test_a_trial_with_one_checkpoint_begins_again(stores: Path, tmp_path: Path) -> None:
    store, file = tmp_path / "store", stores.parent / "sine.yaml"
    with pytest.raises(KilledError):
        search(file, store=store, executor="inline", name="cut", overrides=CHANGES, progress=CutAfter(1))
    (episodes_of(store, "cut") / FIRST).unlink()
    assert resume("cut", store).exit_code == 0
    (warning,) = told_of(store, "cut")
    assert warning.endswith("its rows are written again, from the checkpoint of step 0")
    assert rows(store, "cut") == rows(stores, "whole")

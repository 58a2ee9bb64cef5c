"""What version 0.2.0 stored opens, shows, resumes, adapts, evaluates and exports with the same numbers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.orchestrator.test_stored_by_0_1 import Document, assert_same, document

STORED = Path(__file__).resolve().parents[1] / "fixtures" / "stored_0_2"
EXPECTED = json.loads((STORED / "expected.json").read_text())
SEARCHES = ("finished", "interrupted")

__all__ = ["document"]  # the fixture


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store that is only read."""
    return Path(shutil.copytree(STORED / "store", tmp_path_factory.mktemp("stored") / "store"))


def test_the_searches_are_listed_and_shown(store: Path, document: Document) -> None:
    assert_same(document(store, "runs"), EXPECTED["runs"])
    for name in SEARCHES:
        assert_same(document(store, "show", name), EXPECTED["show"][name])
        assert document(store, "episodes", name, "--limit", "0")["total"] == EXPECTED["total_episodes"][name]


def test_the_interrupted_search_is_resumed_to_the_same_end(tmp_path: Path, document: Document) -> None:
    store = Path(shutil.copytree(STORED / "store", tmp_path / "store"))
    assert_same(document(store, "resume", "interrupted"), EXPECTED["resume"])


def test_the_bundle_adapts_and_is_evaluated(store: Path, document: Document) -> None:
    bundle = STORED / "bundle"
    files = ["--support", STORED / "support.csv", "--query", STORED / "query.csv", "--label", "y"]
    assert_same(document(store, "adapt", bundle, *files), EXPECTED["adapt"])
    assert_same(document(store, "evaluate", bundle, "--episodes", "6"), EXPECTED["evaluate"]["bundle"])
    assert_same(document(store, "evaluate", "finished"), EXPECTED["evaluate"]["finished"])


def test_the_best_trial_is_exported_as_the_bundle_it_was(store: Path, document: Document, tmp_path: Path) -> None:
    expected = dict(EXPECTED["export"])
    found = document(store, "export", "finished", "--out", tmp_path / "bundle")
    assert set(expected.pop("files")) <= set(found["files"])  # a later version may add files
    assert_same(found, expected)
    now, before = (load_file(folder / "bundle" / "meta_knowledge.safetensors") for folder in (tmp_path, STORED))
    assert now.keys() == before.keys()
    assert all(torch.equal(now[part], before[part]) for part in before)

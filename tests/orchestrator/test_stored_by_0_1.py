"""What version 0.1.0 stored opens, shows, resumes, adapts, evaluates and exports with the same numbers."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch
from safetensors.torch import load_file

from metaloom.orchestrator.command_line import cli

STORED = Path(__file__).resolve().parents[1] / "fixtures" / "stored_0_1"
EXPECTED = json.loads((STORED / "expected.json").read_text())
SEARCHES = ("finished", "interrupted")
UNSTEADY = {  # times, and where things lie
    *("seconds", "adapt_seconds", "updated", "bundle"),
    *("run_id", "tracking_uri", "experiment_id", "parent_run_id"),
}
Document = Callable[..., Any]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store that is only read."""
    return Path(shutil.copytree(STORED / "store", tmp_path_factory.mktemp("stored") / "store"))


@pytest.fixture
def document(capfd: pytest.CaptureFixture[str]) -> Document:
    """Return a function that runs a command with --json and returns what it prints, steady parts only."""

    def run(store: Path, *arguments: str | Path) -> Any:
        capfd.readouterr()
        assert cli.run([*map(str, arguments), "--store", str(store), "--json"]) == 0
        return steady(json.loads(capfd.readouterr().out), store)

    return run


def steady(value: Any, store: Path) -> Any:
    """Return ``value`` without times and run ids, its paths relative to the searches."""
    if isinstance(value, Mapping):
        return {key: steady(one, store) for key, one in value.items() if key not in UNSTEADY}
    if isinstance(value, list):
        return [steady(one, store) for one in value]
    return value.removeprefix(f"{store}/searches/") if isinstance(value, str) else value


# the one caption whose words have changed since, as it was written and as it is now; numbers stand in the groups
REWORDED = (
    r"Of a batch's examples those of loss (\S+) count most; beside them one of loss 0\.1 counts (\S+), "
    r"one of loss 4 (\S+)\.",
    r"Examples of loss \1 have the largest weight; relative to it an example of loss 0.1 has weight \2, "
    r"one of loss 4 has \3.",
)


def same(found: Any, expected: Any, episodes: int = 0) -> bool:
    """Say whether every key of ``expected`` is found with its value; numbers to the precision of float32.

    An interval may also be Student's: what was stored has the normal one, and what is tested now has not. What was
    learned may have more pictures now.
    """
    if isinstance(expected, Mapping):
        episodes = expected.get("episodes") if isinstance(expected.get("episodes"), int) else episodes
        parts = {**expected, "interval": [expected["low"], expected["high"]]} if "low" in expected else expected
        given = {**found, "interval": [found["low"], found["high"]]} if "low" in expected else found
        plain = {key: one for key, one in parts.items() if key not in ("low", "high")}
        return all(
            key in given
            and (
                same(given[key], one, episodes)
                or (key == "interval" and widened(given[key], one, episodes))
                or (key == "learned" and all(any(same(row, stored) for row in given[key]) for stored in one))
            )
            for key, one in plain.items()
        )
    if isinstance(expected, list):
        return len(found) == len(expected) and all(same(*pair, episodes) for pair in zip(found, expected, strict=True))
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, rel=1e-5, abs=1e-7))
    if isinstance(expected, str):
        return found in (expected, re.sub(*REWORDED, expected))  # stored by 0.1.0, or drawn now
    return bool(found == expected)


def widened(found: Any, normal: Any, episodes: int) -> bool:
    """Say whether an interval is Student's for the normal one of so many episodes."""
    if not found or not normal or episodes < 2:
        return False
    mean, half = sum(normal) / 2, (normal[1] - normal[0]) / 2
    half *= scipy.stats.t.ppf(0.975, episodes - 1) / 1.96
    cut = [max(mean - half, 0.0), min(mean + half, 1.0)]  # as that of an accuracy is
    return same(found, [mean - half, mean + half]) or same(found, cut)


def assert_same(found: Any, expected: Any) -> None:
    """Require what ``same`` says, and show both where it does not hold."""
    assert same(found, expected), f"{json.dumps(found, indent=1)}\n\nversion 0.1.0:\n{json.dumps(expected, indent=1)}"


def test_the_searches_are_listed(store: Path, document: Document) -> None:
    assert_same(document(store, "runs"), EXPECTED["runs"])


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_is_shown(store: Path, document: Document, name: str) -> None:
    assert_same(document(store, "show", name), EXPECTED["show"][name])


def test_the_episodes_are_read(store: Path, document: Document) -> None:
    assert_same(document(store, "episodes", "finished", "--trial", "3", "--limit", "3"), EXPECTED["episodes"])
    found = {name: document(store, "episodes", name, "--limit", "0")["total"] for name in SEARCHES}
    assert found == EXPECTED["total_episodes"]


def test_the_interrupted_search_is_resumed_to_the_same_end(tmp_path: Path, document: Document) -> None:
    store = Path(shutil.copytree(STORED / "store", tmp_path / "store"))
    assert_same(document(store, "resume", "interrupted"), EXPECTED["resume"])


def test_a_search_over_solvers_is_resumed_to_the_same_end(tmp_path: Path, document: Document) -> None:
    """Its prototypical learner holds slots that its solver does not use, one of them searched."""
    store = Path(shutil.copytree(STORED / "solvers", tmp_path / "store"))
    assert_same(document(store, "resume", "solvers"), EXPECTED["resume_solvers"])


def test_the_bundle_adapts_and_is_evaluated(store: Path, document: Document) -> None:
    bundle = STORED / "bundles" / "finished"
    files = ["--support", STORED / "support.csv", "--query", STORED / "query.csv", "--label", "y"]
    assert_same(document(store, "adapt", bundle, *files), EXPECTED["adapt"]["bundle"])
    for name, episodes in (("finished", "6"), ("interrupted", "4")):
        found = document(store, "evaluate", STORED / "bundles" / name, "--episodes", episodes)
        assert_same(found, EXPECTED["evaluate"][f"bundle_{name}"])


def test_a_trial_is_evaluated(store: Path, document: Document) -> None:
    assert_same(document(store, "evaluate", "finished", "--trial", "3"), EXPECTED["evaluate"]["finished"])


@pytest.mark.parametrize("name", SEARCHES)
def test_the_best_trial_is_exported_as_the_bundle_it_was(
    store: Path, document: Document, tmp_path: Path, name: str
) -> None:
    expected = dict(EXPECTED["export"][name])
    found = document(store, "export", name, "--out", tmp_path / name)
    assert set(expected.pop("files")) <= set(found["files"])  # a later version may add files
    assert_same(found, expected)
    now, before = (load_file(folder / name / "meta_knowledge.safetensors") for folder in (tmp_path, STORED / "bundles"))
    assert now.keys() == before.keys()
    assert all(torch.equal(now[part], before[part]) for part in before)

"""--dry-run, -q, -v, --version and the data cache."""

import json
import time
from pathlib import Path

import pytest

import metaloom
from metaloom.orchestrator.command_line import cli
from tests.support.tracked import STARTED, Search

SMALL = [
    *("--set", "outer.steps=4", "--set", "outer.validate_every=1", "--set", "outer.meta_batch=2"),
    *("--set", "outer.validation_episodes=2", "--set", "outer.test_episodes=2", "--set", "outer.strategy=loop"),
]


def run(*arguments: str | Path) -> int:
    return cli.run([str(argument) for argument in arguments])


def test_a_dry_run_checks_all_and_writes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    assert run("search", "quick", "--dry-run", "--trials", "7", "--store", store) == 0
    shown = capfd.readouterr().out
    assert "quick: 7 trials of 60 outer steps, minimize validation_loss" in shown
    assert "learner[maml].update.rate   0.001 to 0.05, log   0.01" in shown
    assert run("train", "digits-darts", "--dry-run", "--store", store, "--json") == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["name"], document["trials"], document["executor"]) == ("digits-darts", 1, "inline")
    text = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text()
    assert all(f"`{key}`" in text.partition("With `--dry-run`")[2].partition("\n\n")[0] for key in document)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "outer.stepps=3"], "did you mean 'steps'"),
        (["--set", "tasks={source: folder, path: nowhere}"], "nowhere"),
        (["--executor", "cloud"], "cloud"),
    ],
)
def test_a_dry_run_refuses_what_a_search_would(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert run("search", "quick", "--dry-run", *arguments, "--store", tmp_path / "store") == 2
    assert told in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_names_a_search_as_it_would_be_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Search(tmp_path, "quick").journal.close()
    assert run("search", "quick", "--dry-run", "--store", tmp_path, "--json") == 0
    assert json.loads(capfd.readouterr().out)["name"] == "quick-2"
    assert run("search", "quick", "--dry-run", "--name", "quick", "--store", tmp_path) == 2
    assert "exists already" in capfd.readouterr().err


def test_progress_is_as_loud_as_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = {}
    for option in ("-q", "--store", "-v"):
        more = [option] if option != "--store" else []
        arguments = [*more, "train", "sinusoid-maml", "--name", f"s{option.strip('-')}", *SMALL, "--store", tmp_path]
        assert run(*arguments, "--set", "search.baselines=[]") == 0
        out, err = capfd.readouterr()
        assert "finished minimize validation_loss" in out
        lines[option] = [line for line in err.splitlines() if line.startswith(("trial", "[", "best"))]
    assert lines["-q"] == []
    assert any("[1/1] trial 0 finished" in line for line in lines["--store"])
    assert sum("step" in line for line in lines["-v"]) == 4 > sum("step" in line for line in lines["--store"])


def test_the_version_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capfd.readouterr().out == f"metaloom {metaloom.__version__}\n"


def test_the_cache_is_listed_and_removed_unless_a_search_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "noisy-digits", *SMALL, "--set", "search.baselines=[]", "--store", tmp_path, "-q") == 0
    capfd.readouterr()
    assert run("cache", "--store", tmp_path, "--json") == 0
    (file,) = json.loads(capfd.readouterr().out)["files"]
    assert file["name"].startswith("digits-") and file["bytes"] == (tmp_path / "cache" / file["name"]).stat().st_size
    busy = Search(tmp_path, "busy")
    busy.now = time.time()  # this process is older than that
    busy.tell(STARTED)
    busy.journal.close()
    assert run("cache", "--clean", "--store", tmp_path) == 2
    assert "is in use by busy" in capfd.readouterr().err
    assert run("rm", "busy", "--store", tmp_path) == 0
    assert run("cache", "--clean", "--store", tmp_path) == 0
    assert "removed: 1 file," in capfd.readouterr().out
    assert run("cache", "--store", tmp_path, "--json") == 0
    assert json.loads(capfd.readouterr().out) == {"cleaned": False, "bytes": 0, "files": []}
    assert run("evaluate", "noisy-digits", "--episodes", "2", "--store", tmp_path) == 0  # it is made again

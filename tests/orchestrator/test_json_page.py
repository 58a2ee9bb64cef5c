"""docs/json.md and what the commands really print with --json name the same keys."""

import json
import re
import shutil
import signal
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from metaloom.dashboards import json_page
from metaloom.orchestrator.command_line import cli, registry
from tests.support.processes import Process

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text()
SMALL = [
    *("--set", "outer.steps=4", "--set", "outer.validate_every=2", "--set", "outer.meta_batch=2"),
    *("--set", "outer.validation_episodes=4", "--set", "outer.test_episodes=6"),
    *("--set", "search.baselines=[fine_tuning]", "--set", "outer.strategy=loop", "--executor", "inline"),
]
SEVERAL = "search.objectives=[validation_loss, adapt_seconds]"
LIMIT = "search.constraints=[{metric: parameters, max: 1}]"
Document = Callable[..., Any]


@pytest.fixture(scope="module")
def documented() -> dict[str, dict[str, bool]]:
    """Return, for each command, its keys, and whether each is always there."""
    found: dict[str, dict[str, bool]] = {}
    for section in PAGE.split("\n## ")[1:]:
        head, _, text = section.partition("\n")
        keys: dict[str, bool] = {}
        for row in re.findall(r"^\| (`.*?) \| (.*?) \|$", text, flags=re.M):
            keys |= dict.fromkeys(re.findall(r"`([^`]+)`", row[0]), not row[1].startswith("only "))
        found |= dict.fromkeys(head.split(", "), keys)
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a plain search, ``first``, and one with all that is optional, ``second``."""
    folder = tmp_path_factory.mktemp("store")
    for name, more in (
        ("first", []),
        (
            "second",
            [
                "--set",
                SEVERAL,
                "--set",
                LIMIT,
                "--time-budget",
                "600",
                "--set",
                "search.patience=9",
                "--set",
                "search.repeats=2",
            ],
        ),
    ):
        command = ["search", "quick", "--name", name, "--trials", "2", *SMALL, *more, "--store", str(folder)]
        assert cli.run(command) == 0
    return folder


@pytest.fixture
def document(capfd: pytest.CaptureFixture[str], store: Path) -> Document:
    """Return a function that runs a command with --json on the store, and returns what it prints."""

    def run(*arguments: str | Path) -> Any:
        capfd.readouterr()
        assert cli.run([*map(str, arguments), "--store", str(store), "--json"]) == 0
        return json.loads(capfd.readouterr().out)

    return run


def paths(value: Any, known: Mapping[str, bool], path: str = "") -> Iterator[str]:
    """Yield the keys of a document as the page writes them: ``trials[].id``; what may be null stands for all below."""
    below = [one for one in known if one.startswith((f"{path}.", f"{path}["))] if path else []
    if path and f"{path}.*" in known:
        yield f"{path}.*"
    elif isinstance(value, Mapping) and any(key.startswith(f"{path}.*.") for key in below):
        for one in value.values():
            yield from paths(one, known, f"{path}.*")
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from paths(one, known, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        for one in value:
            yield from paths(one, known, f"{path}[]")
    elif value is None and below:
        yield from below
    else:
        yield path


def assert_told(found: Any, known: Mapping[str, bool], *, optional: bool = False) -> None:
    """Require that every key is documented, and that every documented key is there, or says when it is not."""
    there = set(paths(found, known))
    assert there - set(known) == set()
    assert {key for key, always in known.items() if always or optional} - there == set()


def test_a_search_is_told_as_documented(
    document: Document, documented: dict[str, dict[str, bool]], store: Path
) -> None:
    shown = document("show", "first")
    assert_told(shown, documented["show"])
    assert shown["best"] in shown["trials"]
    assert_told(shown["test"]["evaluation"], documented["evaluate"])
    assert_told(shown["baselines"][0]["evaluation"], documented["evaluate"])
    assert set(shown["baselines"][0]["best_better_by"]) == {"mean", "interval", "episodes"}
    promised = {"id", "state", "value", "interval", "episodes", "knobs", "steps", "seconds", "run_id", "error"}
    assert promised <= set(shown["trials"][0])
    sent = {"behind": {}, "rebuilt": []}
    assert document("resume", "first") == shown | sent
    always = shown.keys() - {"configurations"}  # which is there where two trials have the same knobs
    assert document("train", "quick", "--name", "third", *SMALL).keys() == always | sent.keys()
    assert all(f"- `{key}` " in PAGE for key in sent)
    for name in ("search", "train", "resume"):
        assert documented[name] == documented["show"]


def test_what_is_optional_is_told_too(document: Document, documented: dict[str, dict[str, bool]]) -> None:
    shown = document("show", "second")
    of_best = ("test", "baselines", "learned", "methods", "sources", "stages")  # of the best trial, or not here
    without_best = {key: True for key in documented["show"] if not key.startswith(("test.", *of_best[1:]))}
    shown = {key: value for key, value in shown.items() if key not in of_best}
    assert_told(shown, without_best, optional=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs"],
        ["evaluate", "first", "--episodes", "6"],
        ["check", "quick"],
        ["episodes", "first", "--limit", "2"],
        ["sync", "first"],
        ["note", "first", "a remark"],
        ["repair", "first"],
        ["doctor", "--no-ray"],
        ["presets"],
        ["replay", "first", "--seeds", "2"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_is_told_as_documented(
    document: Document, documented: dict[str, dict[str, bool]], arguments: list[str]
) -> None:
    found = document(*arguments)
    known = documented[arguments[0]]
    assert_told(found, known)


def test_a_comparison_is_told_as_documented(document: Document, documented: dict[str, dict[str, bool]]) -> None:
    document("train", "quick", "--name", "steps", *SMALL, "--set", "outer.steps=2")
    assert_told(document("compare", "first", "steps"), documented["compare"])


def test_a_search_that_is_renamed_and_removed_is_told_as_documented(
    document: Document, documented: dict[str, dict[str, bool]], store: Path
) -> None:
    shutil.copytree(store / "searches" / "first", store / "searches" / "copy")
    for arguments in (["rename", "copy", "former"], ["rm", "former"]):
        assert_told(document(*arguments), documented[arguments[0]])


def test_the_tables_are_those_of_the_rows() -> None:
    assert json_page.regenerated(PAGE) == PAGE, "run: python -m metaloom.dashboards.json_page docs/json.md"
    assert {name for _, name, _ in json_page.BLOCK.findall(PAGE)} == {*json_page.ROWS, "ListedSearch", "episodes"}


def test_a_bundle_is_told_as_documented(
    document: Document, documented: dict[str, dict[str, bool]], tmp_path: Path
) -> None:
    assert_told(document("export", "first", "--out", tmp_path / "bundle"), documented["export"])
    assert_told(document("verify", tmp_path / "bundle"), documented["verify"])
    (tmp_path / "support.csv").write_text("x,y\n0.5,1\n1.5,2\n")
    files = ["--support", tmp_path / "support.csv", "--query", tmp_path / "support.csv"]
    adapted = document("adapt", tmp_path / "bundle", *files, "--label", "y")
    assert_told(adapted, {**documented["adapt"], "loss": True})


def test_an_error_is_told_as_documented(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["show", "nowhere", "--store", str(store), "--json"]) == 2
    assert set(json.loads(capfd.readouterr().out)) == {"error", "exit_code"}
    assert '{"error": ..., "exit_code": ...}' in PAGE


def test_the_ui_is_told_as_documented(documented: dict[str, dict[str, bool]], tmp_path: Path) -> None:
    process = Process("-m", "metaloom", "ui", "--no-browser", "--json", "--store", str(tmp_path))
    text = ""
    while not text.endswith("}\n"):
        line = process.stdout.readline()
        assert line, "the server has not started"
        text += line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert_told(json.loads(text), documented["ui"])


def test_a_served_model_answers_and_is_told_as_documented(
    document: Document, documented: dict[str, dict[str, bool]], tmp_path: Path
) -> None:
    document("export", "first", "--out", tmp_path / "bundle", "--episodes", "0")
    (tmp_path / "support.csv").write_text("x,label\n0.5,1\n1.5,2\n")
    files = ["--support", tmp_path / "support.csv", "--query", tmp_path / "support.csv"]
    saved = document("adapt", tmp_path / "bundle", *files, "--out", tmp_path / "model")
    assert_told(saved, {**documented["adapt"], "loss": True, "saved": True})
    again = document("adapt", tmp_path / "model", "--query", tmp_path / "support.csv")
    assert again["predictions"] == saved["predictions"]
    process = Process("-m", "metaloom", "serve", str(tmp_path / "model"), "--json")
    text = ""
    while not text.endswith("}\n"):
        line = process.stdout.readline()
        assert line, "the server has not started"
        text += line
    try:
        assert_told(json.loads(text), documented["serve"])
        body = json.dumps({"inputs": {"query_x": [[0.5], [1.5]]}}).encode()
        url = json.loads(text)["url"]
        assert url.startswith("http://127.0.0.1:")
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            served = json.loads(answer.read())["predictions"]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert served == pytest.approx([one["prediction"] for one in saved["predictions"]], rel=1e-6)


def test_every_command_is_on_the_page(documented: dict[str, dict[str, bool]]) -> None:
    named = set(registry.built_in())
    assert named - set(documented) == {"schema"}
    assert set(documented) <= named

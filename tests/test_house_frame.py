"""The frame around the code: sizes, circles of imports, the documents' names, the checks before a commit."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.imports import circles, imported

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("learners", "search_spaces", "workers", "dashboards", "orchestrator", "benchmarks")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
SOURCES += sorted(path for folder in (".", "testing") for path in (ROOT / "src" / "metaloom" / folder).glob("*.py"))
DOCS = sorted((ROOT / "docs").glob("*.md"))
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 300, 40
# What is longer today, and how long. It may shrink only: an entry that is no longer needed fails.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function's body, its docstring left out."""
    body = function.body
    documented = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    body = body[1:] if documented and isinstance(body[0].value.value, str) else body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{relative(path)}:{node.name}", body_lines(node)


def check_sizes(sizes: dict[str, int], most: int, allowed: dict[str, int]) -> None:
    long = {name: lines for name, lines in sizes.items() if lines > max(most, allowed.get(name, 0))}
    assert long == {}, f"more than {most} lines: split them"
    needless = [name for name in allowed if sizes.get(name, 0) <= most]
    assert needless == [], "these are short enough now: take them out of the allowance"


def test_files_are_short() -> None:
    sizes = {relative(path): len(path.read_text().splitlines()) for path in SOURCES}
    check_sizes(sizes, MOST_LINES_OF_A_FILE, LONG_FILES)


def test_functions_are_short() -> None:
    sizes: dict[str, int] = {}
    for path in SOURCES:
        for name, lines in functions(path):
            sizes[name] = max(lines, sizes.get(name, 0))
    check_sizes(sizes, MOST_LINES_OF_A_FUNCTION, LONG_FUNCTIONS)


@pytest.mark.parametrize(("sizes", "allowed"), [({"a": 301}, {}), ({"a": 299}, {"a": 320}), ({"a": 330}, {"a": 320})])
def test_the_check_of_sizes_can_fail(sizes: dict[str, int], allowed: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        check_sizes(sizes, 300, allowed)


def at_import(path: Path) -> frozenset[Path]:
    """Return what a file imports when it is imported: not within functions, and not for types alone."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{one.name}" for one in node.names)})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return frozenset(file for file in map(module_file, found) if file not in (None, path))  # type: ignore[arg-type]


def module_file(module: str) -> Path | None:
    from benchmarks.imports import file_of

    found = file_of(module, ROOT)
    return None if found is None or module == "metaloom" else ROOT / found


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {relative(path): {relative(other) for other in at_import(path)} for path in SOURCES}
    assert sum(map(len, graph.values())) > 500
    assert circles(graph) == []


def test_circles_are_found() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) == [["a", "b", "c"]]


def test_what_a_file_imports_is_read_from_its_text(tmp_path: Path) -> None:
    (tmp_path / "learners").mkdir()
    (tmp_path / "learners" / "__init__.py").write_text("")
    (tmp_path / "learners" / "a.py").write_text("from metaloom.learners import b\nHOME = 'metaloom.learners.c'\n")
    for name in "bc":
        (tmp_path / "learners" / f"{name}.py").write_text("")
    names = {path.name for path in imported(Path("learners/a.py"), tmp_path)}
    assert names == {"__init__.py", "b.py", "c.py"}


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", (ROOT / "docs" / "index.md").read_text(), flags=re.S))
    pages = {path.stem for path in DOCS} - {"index"}
    assert pages <= set(listed.split())
    assert (ROOT / "docs" / "conf.py").exists()


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/glossary.md", "CONTRIBUTING.md"])
def test_the_paths_that_a_page_names_exist(page: str) -> None:
    named = set(re.findall(r"`((?:[\w.]+/)+(?:[\w.]+)?)`", (ROOT / page).read_text()))
    named = {path for path in named if not path.startswith(("docs/_build", "searches/", "update/"))}
    assert len(named) >= 8
    missing = [path for path in sorted(named) if not (ROOT / path).exists()]
    assert missing == []


def test_the_glossary_names_classes_and_settings_that_exist() -> None:
    from metaloom.orchestrator.command_line.registry import built_in
    from metaloom.search_spaces.loading import load_experiment

    text = (ROOT / "docs" / "glossary.md").read_text()
    rows = re.findall(r"^\| .* \| .* \| (.*) \|$", text, flags=re.M)
    assert len(rows) >= 40
    for path, name in re.findall(r"`([\w/.]+)`: `(\w+)`", text):
        files = [ROOT / path] if path.endswith(".py") else sorted((ROOT / path).rglob("*.py"))
        found = any(re.search(rf"^(?:class|def) {name}\b|^{name} = ", file.read_text(), flags=re.M) for file in files)
        assert found, f"{path} defines no {name}"
    settings = set(re.findall(r"setting `([\w.]+)`", text))
    assert len(settings) >= 15
    for setting in settings - {"learner.method"}:
        document = {"learner": {"method": "maml"}, "tasks": {"source": "glyphs"}}
        with pytest.raises(Exception) as refused:  # a value that no setting takes: the setting is refused for it
            load_experiment(with_value(document, setting.split("."), {"no": {"such": "value"}}))
        assert setting in str(refused.value)
        assert f"named '{setting.split('.')[-1]}'" not in str(refused.value)
    assert set(re.findall(r"command `metaloom (\w+)`", text)) <= set(built_in())


def with_value(document: dict[str, object], keys: list[str], value: object) -> dict[str, object]:
    """Return the document with one more value, at a path of keys."""
    first, *rest = keys
    inner = document.get(first, {})
    return {**document, first: with_value(inner if isinstance(inner, dict) else {}, rest, value) if rest else value}


def test_the_checks_before_a_commit_are_those_of_make_lint() -> None:
    document = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in document["repos"] for hook in repository["hooks"]]
    assert {repository["repo"] for repository in document["repos"]} == {"local"}
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.M)
    assert recipe is not None
    assert [hook["entry"] for hook in hooks] == re.findall(r"\$\(BIN\)/(.*)", recipe.group(1))
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in hooks)


def test_the_changelog_has_this_version() -> None:
    import metaloom

    assert f"\n## {metaloom.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()

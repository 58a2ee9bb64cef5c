"""The public names: light to import, documented, typed, and enough for the examples."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import metaloom

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {path.name: path.read_text() for path in sorted((ROOT / "examples").glob("*.py"))}
README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)


def test_the_package_imports_nothing_heavy() -> None:
    code = "import sys, metaloom; print(sorted({'torch', 'ray', 'mlflow', 'optuna', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", metaloom.__all__)
def test_every_public_name_is_documented_and_typed(name: str) -> None:
    public = getattr(metaloom, name)
    assert inspect.getdoc(public)
    if not inspect.isclass(public):
        signature = inspect.signature(public)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(one.annotation is not inspect.Parameter.empty for one in signature.parameters.values())


@pytest.mark.parametrize("source", [*EXAMPLES.values(), *README])
def test_the_examples_need_no_other_name_of_the_package(source: str) -> None:
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("metaloom"):
            assert statement.module == "metaloom"
            assert {one.name for one in statement.names} <= set(metaloom.__all__)
        if isinstance(statement, ast.Import):
            assert not any(one.name.startswith("metaloom") for one in statement.names)

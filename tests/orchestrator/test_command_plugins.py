"""An installed package brings a command of its own."""

import json
from pathlib import Path

import pytest

from tests.support.packages import install, metaloom, python

GREETING = '''
import numpy  # a plugin may be heavy: it is imported only when it is called

from metaloom.orchestrator.command_line.answers import JsonOption, NameArgument, answering
from metaloom.orchestrator.command_line.registry import Command


def greet(name: NameArgument, as_json: JsonOption = False) -> int:
    """Greet a search by its name."""
    with answering(as_json) as answer:
        print("not on stdout")
        answer.give({"greeted": name}, lambda screen: screen.print(f"hello, {name}"))
        return 4


COMMAND = Command(greet, examples=("metaloom greet first",))
'''


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    install(tmp_path, "warm-welcome", {"greeting": GREETING}, {"metaloom.commands": {"greet": "warm_welcome.greeting"}})
    return tmp_path


def test_the_command_of_a_package_runs_as_the_built_in_ones_do(packages: Path) -> None:
    answered = metaloom(packages, "greet", "first", "--json")
    assert (answered.returncode, json.loads(answered.stdout)) == (4, {"greeted": "first"})
    assert answered.stderr == "not on stdout\n"
    assert metaloom(packages, "greet", "first").stdout == "hello, first\n"
    described = metaloom(packages, "greet", "--help").stdout
    assert "Greet a search by its name." in described
    assert "Example:\n    metaloom greet first" in described
    refused = metaloom(packages, "greet")
    assert refused.returncode == 2 and "Missing argument 'NAME'. (see: metaloom greet --help)" in refused.stderr
    misspelt = metaloom(packages, "gret")
    assert misspelt.returncode == 2 and "Did you mean 'greet'" in misspelt.stderr


def test_the_help_names_the_package_and_does_not_import_it(packages: Path) -> None:
    code = (
        "import sys; from metaloom.orchestrator.command_line import cli\n"
        "cli.run(['--help'])\n"
        "print({'warm_welcome', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    answered = python(packages, "-c", code, fresh=True)
    assert "  greet     from the package warm-welcome 1.2\n" in answered.stdout
    assert answered.stderr.strip() == "set()"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        (GREETING.replace("COMMAND =", "THE_COMMAND ="), "it has no COMMAND = Command(...)"),
    ],
)
def test_a_command_that_cannot_be_loaded_is_named_with_its_package(tmp_path: Path, source: str, told: str) -> None:
    install(tmp_path, "warm-welcome", {"greeting": source}, {"metaloom.commands": {"greet": "warm_welcome.greeting"}})
    refused = metaloom(tmp_path, "greet", "first")
    assert refused.returncode == 3 and "Traceback" not in refused.stderr
    assert "the plugin 'greet' of warm-welcome 1.2 (metaloom.commands: warm_welcome.greeting)" in refused.stderr
    assert told in refused.stderr
    assert metaloom(tmp_path, "presets").returncode == 0  # every other command is as it was


def test_two_commands_of_one_name_are_refused(tmp_path: Path) -> None:
    install(tmp_path, "warm-welcome", {"greeting": GREETING}, {"metaloom.commands": {"show": "warm_welcome.greeting"}})
    refused = metaloom(tmp_path, "--help")
    assert refused.returncode == 3 and "Traceback" not in refused.stderr
    assert "the plugin 'show' of warm-welcome 1.2" in refused.stderr
    assert "two commands are named 'show'" in refused.stderr
    refused = metaloom(tmp_path, "--json", "episodes")
    assert (
        refused.returncode == 2 and "metaloom episodes --help" in refused.stderr and "Traceback" not in refused.stderr
    )

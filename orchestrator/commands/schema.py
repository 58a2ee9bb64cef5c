"""``metaloom schema``: the JSON Schema of experiment files."""

from metaloom.orchestrator.command_line.answers import JsonOption, StoreOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.search_spaces import json_schema


def schema(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Print the JSON Schema of experiment files, for editors."""
    with answering(as_json=True) as answer:
        answer.give(json_schema.json_schema(), lambda screen: None)


COMMAND = Command(schema, examples=("metaloom schema > experiment.schema.json",))

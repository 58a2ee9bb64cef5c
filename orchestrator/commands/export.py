"""``metaloom export``: writes a trial's bundle."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from metaloom.dashboards import text
from metaloom.orchestrator.command_line import answers
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE
from metaloom.workers.records.names import MANIFEST_FILE

with deferred():
    from metaloom.dashboards import queries
    from metaloom.orchestrator import export as exporting

ADAPTED_TO = {  # by what stands in the command of ``queries.how_to_use``
    "--classes": "a table with one row a class",
    "SUPPORT.ts": "files of series",
    "STARTS.csv": "a table of starting states and the task",
}


def export(
    name: answers.NameArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The bundle's folder; must not exist.")],
    trial: answers.TrialOption = "best",
    episodes: Annotated[
        int | None, typer.Option("--episodes", min=0, help="Test episodes; by default the experiment's, 0: no test.")
    ] = None,
    inductive: Annotated[
        bool,
        typer.Option(
            "--inductive",
            help="Predict each query on its own: batch norm takes the support set's statistics. The test says what it "
            "costs.",
        ),
    ] = False,
    register: Annotated[
        str | None,
        typer.Option("--register", metavar="MODEL", help="Register it as a version of this model in MLflow."),
    ] = None,
    trust_code: answers.TrustOption = False,
    store: answers.StoreOption = DEFAULT_STORE,
    as_json: answers.JsonOption = False,
) -> None:
    """Write a trial's bundle, which holds what the trial has learned.

    It opens without Ray, MLflow or the store, from Python and by 'metaloom adapt'.
    """
    with answers.answering(as_json) as answer:
        path = exporting.export(
            name,
            out,
            trial=trial,
            episodes=episodes,
            store=store,
            trust_code=trust_code,
            inductive=inductive,
            register=register,
        )
        manifest = json.loads((path / MANIFEST_FILE).read_text())
        document = {"bundle": str(path), "origin": manifest["origin"], "evaluation": manifest["evaluation"]}
        document |= {"beside": manifest["beside"]} if "beside" in manifest else {}
        document["files"] = sorted([*manifest["files"], MANIFEST_FILE])
        lines = [f"{path}: {', '.join(document['files'])}"]
        if (tested := manifest["evaluation"]) is not None:
            score = text.scored(tested["mean"], tested["interval"])
            lines.append(f"test {tested['metric']} {score} over {tested['episodes']} episodes ({tested['setting']})")
            lines += text.other_setting(tested, manifest.get("beside"))
        if register is not None:
            document["registered"] = register
            lines.append(f"registered in MLflow as a version of the model {register}")
        how = queries.how_to_use(store, name, manifest["origin"]["trial"])
        to = next((to for mark, to in ADAPTED_TO.items() if mark in how), "folders of class folders, or to tables")
        given = "--classes" if "--classes" in how else "--support"
        use = f"adapt it to {to}: metaloom adapt {shlex.quote(str(path))} {given} PATH --query PATH"
        lines.append(
            use
            if how.startswith("adapt")
            else f"search with it: metaloom search FILE --search-from {shlex.quote(str(path))}"
        )
        answer.give(document, lambda screen: screen.print("\n".join(lines), markup=False))


COMMAND = Command(
    export,
    examples=(
        "metaloom export first --trial best --out first-bundle",
        "metaloom export first --out first-bundle --inductive --register letters",
    ),
)

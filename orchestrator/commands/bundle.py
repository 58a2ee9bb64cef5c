"""Commands that use what was learned: evaluate, export, adapt."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaloom.orchestrator.commands.answers import (
    JsonOption,
    NameArgument,
    StoreOption,
    answering,
)
from metaloom.orchestrator.store import DEFAULT_STORE

if TYPE_CHECKING:
    from rich.console import Console

    from metaloom.learners.episode import TaskShape

TrialOption = Annotated[str, typer.Option("--trial", metavar="T", help="A trial's number, or 'best'.")]
PREDICTIONS_SHOWN = 100


def evaluate(
    target: Annotated[str, typer.Argument(metavar="NAME_OR_BUNDLE", help="A search, or a bundle's folder.")],
    trial: TrialOption = "best",
    episodes: Annotated[int, typer.Option("--episodes", min=2, help="How many test episodes.")] = 600,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the episodes; by default the search's.")] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Score on the test split, after each inner step.

    Prints the mean and its 95% interval; the episodes' rows join the trial's records.
    """
    with answering(as_json) as answer:
        from metaloom.dashboards.queries import finite
        from metaloom.orchestrator import export
        from metaloom.orchestrator.commands.tables import show_evaluation

        evaluation = export.evaluate(store, target, trial=trial, episodes=episodes, seed=seed).to_json()
        answer.give(finite(evaluation), lambda screen: show_evaluation(screen, evaluation))


def export(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The bundle's folder; must not exist.")],
    trial: TrialOption = "best",
    episodes: Annotated[
        int | None, typer.Option("--episodes", min=0, help="Test episodes; by default the experiment's, 0: no test.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Write a trial's bundle: what it has learned, to take away.

    It opens without Ray, MLflow or the store, from Python and by 'metaloom adapt'.
    """
    with answering(as_json) as answer:
        import json

        from metaloom.orchestrator import export as exporting

        path = exporting.export(store, name, trial=trial, out=out, episodes=episodes)
        manifest = json.loads((path / exporting.MANIFEST_FILE).read_text())
        document = {"bundle": str(path), "origin": manifest["origin"], "evaluation": manifest["evaluation"]}
        document["files"] = sorted([*manifest["files"], exporting.MANIFEST_FILE])
        answer.give(document, lambda screen: _show_bundle(screen, document))


def adapt(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    support: Annotated[
        Path, typer.Option("--support", metavar="PATH", help="Labelled: a folder of class folders, or a table.")
    ],
    query: Annotated[Path, typer.Option("--query", metavar="PATH", help="To be predicted: images, or a table.")],
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="The label's column in a table.")
    ] = None,
    invert: Annotated[
        bool, typer.Option("--invert", help="Take the images' negative: glyphs and Omniglot are light on black.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what the learner draws at random.")] = 0,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Adapt to a new task and print the predictions."""
    with answering(as_json) as answer:
        from metaloom.orchestrator.commands.new_task import Reader
        from metaloom.workers.bundle import load_bundle

        loaded = load_bundle(bundle)
        reader = Reader(loaded.task, loaded.config.tasks, label, invert)
        given, asked = reader.support(support), reader.query(query)
        model = loaded.adapt(given.x, given.y, seed=seed)
        document = _predictions(model, asked, loaded.task)
        answer.give(document, lambda screen: _show_predictions(screen, document))


def _predictions(model: Any, asked: Any, task: "TaskShape") -> dict[str, Any]:
    """Return each query's prediction, and how good they are where the truth is known."""
    predicted = model.predict(asked.x)
    rows = [{"query": name, "prediction": value} for name, value in zip(asked.names, predicted.tolist(), strict=True)]
    if task.task_kind.has_classes:
        for row, chances in zip(rows, model.probabilities(asked.x).tolist(), strict=True):
            row["probabilities"] = dict(zip(map(str, model.labels.tolist()), chances, strict=True))
    document: dict[str, Any] = {"predictions": rows}
    if asked.y is not None and task.task_kind.has_classes:
        document["accuracy"] = float((predicted.astype(str) == asked.y.astype(str)).mean())
    elif asked.y is not None and task.task_kind.answers_outputs:
        document["loss"] = task.task_kind.loss_of_answers(predicted, asked.y)
    return document


def _show_bundle(console: "Console", document: Mapping[str, Any]) -> None:
    from metaloom.dashboards.text import scored

    evaluation = document["evaluation"]
    console.print(f"{document['bundle']}: {', '.join(document['files'])}", markup=False)
    if evaluation is not None:
        score = scored(evaluation["mean"], evaluation["interval"])
        console.print(f"test {evaluation['metric']} {score} over {evaluation['episodes']} episodes", markup=False)
    adapt = f"metaloom adapt {shlex.quote(document['bundle'])} --support PATH --query PATH"
    console.print(f"adapt it to folders of class folders, or to tables: {adapt}", markup=False)


def _show_predictions(console: "Console", document: Mapping[str, Any]) -> None:
    from metaloom.dashboards.text import number
    from metaloom.orchestrator.commands.tables import row, table

    probable = any("probabilities" in one for one in document["predictions"])
    shown = table("query", "prediction", *(["probability"] if probable else []))
    for one in document["predictions"][:PREDICTIONS_SHOWN]:
        value = one["prediction"]
        text = number(value) if isinstance(value, float) else str(value)
        chance = [number(one["probabilities"][str(value)])] if probable else []
        shown.add_row(*row(one["query"], text, *chance))
    console.print(shown)
    rest = len(document["predictions"]) - PREDICTIONS_SHOWN
    if rest > 0:
        console.print(f"and {rest} more (all with --json)")
    for score in ("accuracy", "loss"):
        if score in document:
            console.print(f"{score}: {document[score]:.4f} over {len(document['predictions'])} queries")

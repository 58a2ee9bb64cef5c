"""``metaloom adapt``: adapts a bundle to the user's own task."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaloom.dashboards import text
from metaloom.orchestrator.command_line.answers import JsonOption, Screen, StoreOption, TrustOption, answering, told
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

if TYPE_CHECKING:
    from metaloom.learners.episode import TaskShape

with deferred():
    from metaloom.dashboards import rows
    from metaloom.orchestrator.command_line import new_task, tables
    from metaloom.workers import adapted_files
    from metaloom.workers import bundle as bundles

PREDICTIONS_SHOWN = 100


def adapt(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or one that --out has written.")],
    query: Annotated[
        Path, typer.Option("--query", metavar="PATH", help="Examples to predict: images, a table, a .ts file.")
    ],
    support: Annotated[
        Path | None,
        typer.Option("--support", metavar="PATH", help="Labelled: class folders, a table, or a .ts file."),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option("--unlabelled", metavar="PATH", help="Examples of the task without labels: images, or a table."),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option("--classes", metavar="PATH", help="A table with one row a class, instead of examples of them."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Save the adapted model, with its support set; must not exist."),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="The label's column in a table.")
    ] = None,
    invert: Annotated[
        bool, typer.Option("--invert", help="Take the images' negative: glyphs and Omniglot are light on black.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the learner's random draws.")] = 0,
    trust_code: TrustOption = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Adapt to a new task and print the predictions.

    What --out has saved predicts without --support. A learner that was trained on what describes classes takes
    --classes in its place. A learner of texts takes a table or a JSON file of texts.
    """
    with answering(as_json) as answer:
        with told() as warnings:
            is_saved = adapted_files.is_adapted(bundle)
            new_task.check_support(support, unlabelled, classes, is_saved=is_saved)
            folder = bundle / adapted_files.BUNDLE_FOLDER if is_saved else bundle
            loaded = bundles.load_bundle(folder, trust_code=trust_code)
            new_task.check_examples(folder, loaded.task)
            reader = new_task.Reader(loaded.task, loaded.config.tasks, label, invert)
            if classes is not None:
                new_task.check_classes(classes, loaded.task)
                model = loaded.adapt(class_features=classes, seed=seed)
            elif support is None:
                model = bundles.load_adapted(bundle, trust_code=trust_code)
            else:
                given = reader.support(support)
                others = None if unlabelled is None else reader.unlabelled(unlabelled)
                model = loaded.adapt(given.x, given.y, unlabelled=others, seed=seed)
            asked = reader.query(query)
            saved = None if out is None else model.save(out)
            document = _predictions(model, asked, loaded.task, warnings)
        document |= {} if saved is None else {"saved": str(saved)}
        answer.give(document, lambda screen: _show_predictions(screen, document, str(model.setting)))


def _predictions(model: Any, asked: Any, task: "TaskShape", warnings: list[str]) -> dict[str, Any]:
    """Return each query's prediction, and their score if the query is labelled."""
    predicted, kind, accuracy, loss = model.predict(asked.x), task.task_kind, None, None
    probabilities: list[dict[str, float] | None] = [None] * len(predicted)
    if kind.has_classes:
        labels = list(map(str, model.labels.tolist()))
        probabilities = [dict(zip(labels, each, strict=True)) for each in model.probabilities(asked.x).tolist()]
    if asked.y is not None and kind.has_classes:
        accuracy = new_task.accuracy(asked.of_labelled(predicted), asked.y, model.labels)
        warnings += filter(None, [new_task.unseen(asked.y, model.labels)])
    elif asked.y is not None and kind.answers_outputs:
        loss = kind.loss_of_answers(asked.of_labelled(predicted), asked.y)
    predictions = tuple(
        rows.PredictionRow(query=name, prediction=value, probabilities=each)
        for name, value, each in zip(asked.names, predicted.tolist(), probabilities, strict=True)
    )
    document = rows.PredictionsRow(
        predictions=predictions,
        setting=model.setting.name,
        batch_norm=model.setting.batch_norm,
        warnings=tuple(warnings),
        labelled=0 if asked.y is None else len(asked.y),
        accuracy=accuracy,
        loss=loss,
    )
    return dict(rows.to_json(document))


def _show_predictions(console: Screen, document: Mapping[str, Any], setting: str) -> None:
    has_probabilities = any("probabilities" in row for row in document["predictions"])
    shown = tables.table("query", "prediction", *(["probability"] if has_probabilities else []))
    for row in document["predictions"][:PREDICTIONS_SHOWN]:
        value = row["prediction"]
        shown_value = text.number(value) if isinstance(value, float) else str(value)
        probability = [text.number(row["probabilities"][str(value)])] if has_probabilities else []
        shown.add_row(*tables.row(row["query"], shown_value, *probability))
    console.print(shown)
    rest = len(document["predictions"]) - PREDICTIONS_SHOWN
    if rest > 0:
        console.print(f"and {rest} more (all with --json)")
    for score in ("accuracy", "loss"):
        if score in document:
            console.print(f"{score}: {document[score]:.4f} over {document['labelled']} queries")
    if (unscored := len(document["predictions"]) - document["labelled"]) and document["labelled"]:
        console.print(f"queries without a label, which are predicted and not scored: {unscored}")
    console.print(setting, markup=False)
    if "saved" in document:
        console.print(f"saved: {document['saved']}", markup=False)
    for line in document["warnings"]:
        console.print(f"warning: {line}", style="yellow", markup=False)


COMMAND = Command(
    adapt,
    examples=(
        "metaloom adapt first-bundle --support letters/support --query letters/query",
        "metaloom adapt first-bundle --support letters/support --query letters/query --out letters-model",
        "metaloom adapt letters-model --query letters/query",
        "metaloom adapt graph-bundle --support letters/support --unlabelled letters/more --query letters/query",
        "metaloom adapt series-bundle --support machine_TRAIN.ts --query machine_TEST.ts",
        "metaloom adapt intents-bundle --support labelled.csv --query new.csv",
        "metaloom adapt zero-shot-bundle --classes classes.csv --query animals.csv",
    ),
)

"""``metaloom evaluate``: scores a trial or a bundle on the test split."""

from typing import Annotated

import typer

from metaloom.orchestrator.command_line.answers import JsonOption, StoreOption, TrialOption, TrustOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.dashboards import rows
    from metaloom.orchestrator import export as exporting
    from metaloom.orchestrator.command_line import tables


def evaluate(
    target: Annotated[str, typer.Argument(metavar="NAME_OR_BUNDLE", help="A search, or a bundle's folder.")],
    trial: TrialOption = "best",
    episodes: Annotated[int, typer.Option("--episodes", min=2, help="The number of test episodes.")] = 600,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the episodes; by default the search's.")] = None,
    ways: Annotated[int | None, typer.Option("--ways", min=2, help="Classes of an episode.")] = None,
    shots: Annotated[int | None, typer.Option("--shots", min=1, help="Support examples of each class.")] = None,
    queries: Annotated[int | None, typer.Option("--queries", min=1, help="Query examples of each class.")] = None,
    generalized: Annotated[
        bool, typer.Option("--generalized", help="Of a zero-shot learner: training classes and new ones together, too.")
    ] = False,
    trust_code: TrustOption = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Score on the test split, after each inner step.

    Prints the mean and its 95% interval; the episodes' rows join the trial's records. Without --ways, --shots and
    --queries the episodes are those of the experiment's own test.
    """
    with answering(as_json) as answer:
        evaluation = exporting.evaluate(
            target,
            trial=trial,
            episodes=episodes,
            seed=seed,
            ways=ways,
            shots=shots,
            queries=queries,
            generalized=generalized,
            store=store,
            trust_code=trust_code,
        ).to_json()
        answer.give(rows.to_json(evaluation), lambda screen: tables.show_evaluation(screen, evaluation))


COMMAND = Command(
    evaluate,
    examples=(
        "metaloom evaluate first --episodes 600",
        "metaloom evaluate first --ways 5 --shots 5 --episodes 600 --seed 1",
    ),
)

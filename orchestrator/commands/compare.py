"""``metaloom compare``: trials on the same test episodes."""

import sys
from typing import Annotated

import typer

from metaloom.dashboards import text
from metaloom.orchestrator.command_line import answers
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.dashboards import rows
    from metaloom.orchestrator import comparison
    from metaloom.orchestrator.command_line import tables


def compare(
    contenders: Annotated[
        list[str], typer.Argument(metavar="A B...", help="Searches (their best trials), or trials such as first:3.")
    ],
    episodes: Annotated[
        int | None, typer.Option("--episodes", min=1, help="Test episodes; by default the first experiment's.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the episodes; by default the first's.")] = None,
    trust_code: answers.TrustOption = False,
    store: answers.StoreOption = DEFAULT_STORE,
    as_json: answers.JsonOption = False,
) -> None:
    """Compare trials on the same test episodes.

    Shows each difference to the first with its interval, and the settings that differ. Trials that are not tested on
    these episodes yet are tested first. Trials of equal settings are one contender, with an interval over their seeds.
    """
    with answers.answering(as_json) as answer:
        screen = tables.console(sys.stderr)
        found = comparison.compare(
            *contenders,
            episodes=episodes,
            seed=seed,
            store=store,
            trust_code=trust_code,
            told=lambda line: screen.print(line, markup=False),
        )
        answer.give(rows.to_json(found), lambda screen: _show(screen, found))


def _show(screen: answers.Screen, found: "rows.ComparisonRow") -> None:
    has_seeds = any(one.better_than_first and one.better_than_first.seeds_interval for one in found.contenders)
    heads = [f"{found.metric} [95% interval]", "better than the first by [95% interval]"]
    shown = tables.table("trial", *heads, *(["over seeds [95% interval]"] if has_seeds else []))
    for one in found.contenders:
        better = one.better_than_first
        cells = [text.scored(one.mean, one.interval)]
        cells += ["-"] if better is None else [text.better_by({"mean": better.mean, "interval": better.interval})]
        over_seeds = better and better.seeds_interval
        cells += [f"[{over_seeds[0]:+.4f}, {over_seeds[1]:+.4f}]" if over_seeds else "-"] if has_seeds else []
        shown.add_row(*tables.row(one.name, *cells))
    screen.print(shown)
    screen.print(f"on the same {text.counted(found.episodes, 'test episode')}, of seed {found.seed}", markup=False)
    if found.differing:
        settings = tables.table("setting", *(one.name for one in found.contenders))
        for differing in found.differing:
            settings.add_row(*tables.row(differing.name, *("-" if one is None else one for one in differing.values)))
        screen.print(settings)
    else:
        screen.print("Their settings are equal.")


COMMAND = Command(compare, examples=("metaloom compare maml protonet", "metaloom compare first:3 first:7"))

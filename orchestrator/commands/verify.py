"""``metaloom verify``: plays a bundle's test again, and compares it with what the bundle says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaloom.dashboards import text
from metaloom.orchestrator.command_line.answers import JsonOption, Screen, StoreOption, TrustOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE
from metaloom.workers.records.names import CACHE_FOLDER

if TYPE_CHECKING:
    from metaloom.workers.records.results import Verification

with deferred():
    from metaloom.dashboards import rows
    from metaloom.workers import bundle as bundles
    from metaloom.workers import verification


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    trust_code: TrustOption = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> int:
    """Play a bundle's test episodes again, where its data are, and compare the scores.

    The exit code is 1 if the episodes are others, or their mean lies outside of the bundle's 95% interval.
    """
    with answering(as_json) as answer:
        found = verification.verify(bundles.load_bundle(bundle, trust_code=trust_code), cache=store / CACHE_FOLDER)
        answer.give(rows.to_json(found), lambda screen: _show(screen, found))
        return 0 if found.holds else 1


def _show(screen: Screen, found: "Verification") -> None:
    same = "bit-equal" if found.bit_equal else f"{found.different} of {found.episodes} episodes differ"
    largest = "" if found.bit_equal else f", a score by at most {found.largest_difference:.3g}"
    lines = [
        f"exported: {found.metric} {text.scored(found.exported, found.interval)} over {found.episodes} episodes",
        f"here:     {found.metric} {found.mean:.4f}, {'inside' if found.inside else 'OUTSIDE of'} this interval; "
        f"{same}{largest}",
    ]
    if found.other_episodes:
        lines.append(
            f"{found.other_episodes} of the episodes consist of other samples: the data are not those of the export"
        )
    screen.print("\n".join(lines), markup=False)


COMMAND = Command(verify, examples=("metaloom verify first-bundle",))

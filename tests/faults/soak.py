"""Searches under random faults, compared with the same search undisturbed.

    python -m tests.faults.soak [--trials 200] [--seed 0] [--faults 60] [--out FILE]

A search is begun, struck at a random instant, damaged while it lies still, and resumed, until it has ended; then every
record is compared with those of a search that nothing happened to. The schedule of faults derives from the seed.
"""

import argparse
import collections
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metaloom.workers.records.journal_sources import read_journal
from metaloom.workers.records.search import SearchRecord
from tests.faults.driver import LIMIT_S, Place, family, left_of, wait_until
from tests.faults.faults import DAMAGES, DAY_S, FAULTS, Damage, Fault
from tests.faults.records import differences, records
from tests.support.processes import Process

MOST_REPORTS = 12  # between two faults
LONGEST_S = 3600.0  # of one session
INLINE_SHARE = 0.6  # of the sessions; the others run on Ray, whose start takes seconds


@dataclass
class Strike:
    """A fault that struck, and what followed.

    Attributes:
        fault: Its name.
        executor: Of the session.
        reports: In the journal at that moment.
        code: The driver's exit code; None: it went on.
        left: Processes that lived ten seconds later.
        damage: What was damaged afterwards.
    """

    fault: str
    executor: str
    reports: int
    code: int | None
    expected: Sequence[int]
    left: list[str] = field(default_factory=list)
    damage: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the exit code told the truth and no process was left."""
        return not self.left and (self.code is None if not self.expected else self.code in self.expected)


def endure(
    place: Place,
    draw: random.Random,
    *,
    most: int,
    faults: Sequence[Fault] = FAULTS,
    damages: Sequence[Damage] = DAMAGES,
    tell: Callable[[str], None] = print,
) -> list[Strike]:
    """Run a search to its end under at most ``most`` faults; return those that struck."""
    strikes: list[Strike] = []
    while True:
        verb = place.verb
        executor = "inline" if draw.random() < INLINE_SHARE else "ray"
        jump = draw.choice([0, 0, 0, DAY_S, -DAY_S])
        process = place.start(verb, "--executor", executor, before=jumped(jump))
        struck = len(strikes) < most and _strike(place, process, executor, draw, faults, strikes)
        out, errors = process.communicate(timeout=LONGEST_S)
        if not struck:
            assert process.returncode == 0, f"{verb} ended with {process.returncode}: {out[-500:]}{errors[-2000:]}"
            return strikes
        strike = strikes[-1]
        strike.code = process.returncode if strike.expected else None
        if process.returncode == 0:
            return strikes
        if draw.random() < 0.5:
            damage = draw.choice(damages)
            strike.damage = damage.name if damage.do(place, draw) else ""
        tell(f"{len(strikes):3} {strike.fault} ({executor}, {strike.reports} reports): {strike.code} {strike.damage}")
        assert strike.is_right, f"{strike}: {errors[-2000:]}"


def jumped(seconds: int) -> str:
    """Return code that sets a process's clock ahead, or back."""
    return f"import time\nreal = time.time\ntime.time = lambda: real() + {seconds}" if seconds else ""


def _strike(
    place: Place, process: Process, executor: str, draw: random.Random, faults: Sequence[Fault], strikes: list[Strike]
) -> bool:
    """Wait for a random instant and strike, until a fault ends the driver; return whether one has done so."""
    while True:
        fault = draw.choice([one for one in faults if executor in one.executors])
        wanted = place.count() + draw.randrange(MOST_REPORTS)
        if not wait_until(lambda wanted=wanted: place.count() >= wanted and place.journal.exists(), process):
            return False
        time.sleep(draw.uniform(0.0, 0.3))
        relatives = family(process)
        if process.poll() is not None:
            return False
        strike = Strike(fault.name, executor, place.count(), None, fault.codes)
        if not fault.strike(process, draw):
            continue
        strikes.append(strike)
        if not fault.codes:
            continue
        try:
            process.wait(LIMIT_S)
        finally:
            strike.left = left_of(relatives)
        return True


def main() -> int:
    """Run the soak and print its table; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--out", type=Path, help="also write the table as JSON")
    options = parser.parse_args()
    draw, started = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        overrides = (f"search.trials={options.trials}", "outer.steps=80")
        whole = Place(Path(temporary) / "whole", overrides=overrides)
        struck = Place(Path(temporary) / "struck", overrides=overrides)
        code, _, errors = whole.run("search", "--executor", "inline", limit_s=LONGEST_S)
        assert code == 0, errors
        strikes = endure(struck, draw, most=options.faults, tell=lambda text: print(text, flush=True))
        struck.run("sync")
        found = differences(records(whole.store, whole.name), records(struck.store, struck.name))
        attempts = sum(one.attempts for one in SearchRecord.replay(read_journal(struck.folder).events).trials.values())
    counts = collections.Counter(strike.fault for strike in strikes)
    damages = collections.Counter(strike.damage for strike in strikes if strike.damage)
    table = {
        "trials": options.trials,
        "seed": options.seed,
        "faults": dict(counts),
        "damage": dict(damages),
        "attempts": attempts,
        "differences": found,
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    print(json.dumps(table, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(table, indent=1) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

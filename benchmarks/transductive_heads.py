"""PT+MAP on 10,000 episodes of cached features, batched over episodes, beside loops of an episode at a time.

    python -m benchmarks.transductive_heads

Both sides get the same features in memory: 5-way 1-shot, 15 queries a class, 640 numbers each. easyfsl prepares them by
the power transform alone; the paper reduces and centres them too, which a plain loop writes out. Ratios are of one
thread's CPU time of an episode: the loops take some of the episodes, in turns with ours.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.implementations import easyfsl_peer
from benchmarks.report import DOCS, HEADS, keep, machine
from metaloom.learners.solvers.transductive.balancing import BalanceConfig
from metaloom.learners.solvers.transductive.preparing import Span, power_transform, prepared
from metaloom.learners.solvers.transductive.pt_map import map_assignments
from metaloom.workers.device import keep_pages

WAYS, SHOTS, QUERIES, WIDTH = 5, 1, 15, 640
TOGETHER = 1_000  # episodes that are computed at once
IN_CACHE = 50  # episodes whose features are prepared at once: what they hold stays in a processor's cache
DIRECTIONS, APART = 20, 0.6
SCALE, RATE, EPOCHS, POWER = 10.0, 0.2, 20, 0.5
LEAST_RATIO, MOST_DIFFERENCE = 20.0, 1e-5


class Batch(NamedTuple):
    """Features of some episodes: support [e, s, d] and queries [e, q, d]."""

    support: Tensor
    queries: Tensor


Method = Callable[[Batch], Tensor]
LABELS = torch.arange(WAYS).repeat_interleave(SHOTS)


def drawn(episodes: int, seed: int) -> Batch:
    """Draw features as a ReLU's, of classes that overlap in 20 directions: PT+MAP is right on about 7 of 10 queries.

    They are the squares of features of unit length, so that easyfsl's power transform makes these of them: it leaves
    out the unit length, and its exponential of other features is 0 everywhere, its assignment NaN.
    """
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(DIRECTIONS, WIDTH, generator=generator) / DIRECTIONS**0.5
    centres = APART * torch.randn(episodes, WAYS, 1, DIRECTIONS, generator=generator)
    within = centres + torch.randn(episodes, WAYS, SHOTS + QUERIES, DIRECTIONS, generator=generator)
    noise = 0.3 * torch.randn(episodes, WAYS, SHOTS + QUERIES, WIDTH, generator=generator)
    x = F.normalize(power_transform(within @ mixed + noise, POWER), dim=-1).square()
    return Batch(x[:, :, :SHOTS].flatten(1, 2), x[:, :, SHOTS:].flatten(1, 2))


def ours(batch: Batch, *, centre: bool) -> Tensor:
    """Return the assignments of Metaloom's PT+MAP [e, q, ways]."""
    spans = []
    for first in range(0, len(batch.support), IN_CACHE):
        support, queries = (x[first : first + IN_CACHE] for x in batch)
        if centre:
            support, queries = prepared(support, queries, power=POWER, centre="separate")
        else:
            support, queries = (power_transform(x, POWER) for x in (support, queries))
        spans.append(Span(torch.cat([support, queries], 1)))
    members = F.one_hot(LABELS, WAYS).to(batch.support.dtype).expand(len(batch.support), -1, -1)
    return map_assignments(Span.joined(spans), members, BalanceConfig(), scale=SCALE, rate=RATE, epochs=EPOCHS)


def easyfsl(batch: Batch) -> Tensor:
    """Return easyfsl's."""
    return easyfsl_peer.assignments(batch.support, LABELS, batch.queries, scale=SCALE, rate=RATE, epochs=EPOCHS)


def written_out(batch: Batch) -> Tensor:
    """Return those of the paper's algorithm, an episode at a time, with its QR reduction and centring."""
    return torch.stack([_one(*pair) for pair in zip(batch.support, batch.queries, strict=True)])


def _one(support: Tensor, queries: Tensor) -> Tensor:
    n = len(support)
    x = (torch.cat([support, queries]) + 1e-6) ** POWER
    x = F.normalize(torch.linalg.qr(x.T).R.T, dim=1)
    support, queries = (F.normalize(part - part.mean(0), dim=1) for part in (x[:n], x[n:]))
    known = F.one_hot(LABELS, WAYS).to(x.dtype)
    centres = known.T @ support / SHOTS
    plan = _balanced(queries, centres)
    for _ in range(EPOCHS):
        shares, everything = torch.cat([known, plan]), torch.cat([support, queries])
        centres = centres + RATE * (shares.T @ everything / shares.sum(0)[:, None] - centres)
        plan = _balanced(queries, centres)
    return plan


def _balanced(queries: Tensor, centres: Tensor) -> Tensor:
    plan = torch.exp(-SCALE * torch.cdist(queries, centres) ** 2)
    plan = plan / plan.sum()
    for _ in range(1000):
        before = plan.sum(1)
        plan = plan / before[:, None]
        plan = plan * (QUERIES / plan.sum(0))
        if float((before - plan.sum(1)).abs().max()) < 1e-6:
            break
    return plan


def compared(name: str, peer: Method, *, centre: bool, episodes: int, asked: int, turns: int) -> dict[str, Any]:
    """Time ours on all episodes and a peer on some of them, in turns, and compare the assignments."""
    ours_s: list[float] = []
    peer_s: list[float] = []
    difference = 0.0
    for first in range(0, episodes, TOGETHER):
        batch = drawn(TOGETHER, first)
        started = time.process_time()
        plan = ours(batch, centre=centre)
        ours_s.append((time.process_time() - started) / TOGETHER)
        if first % (episodes // turns) == 0:
            some = Batch(*(x[: asked // turns] for x in batch))
            started = time.process_time()
            theirs = peer(some)
            peer_s.append((time.process_time() - started) / len(some.support))
            difference = max(difference, float((plan[: len(theirs)] - theirs).abs().nan_to_num(torch.inf).max()))
    ratio = statistics.median(peer_s) / statistics.median(ours_s)
    return {
        "what": name,
        "episodes": episodes,
        "ours_ms": 1000 * statistics.median(ours_s),
        "peer_ms": 1000 * statistics.median(peer_s),
        "ratio": ratio,
        "difference": difference,
        "reached": ratio >= LEAST_RATIO and difference <= MOST_DIFFERENCE,
    }


@torch.no_grad()
def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transductive_heads", description=__doc__)
    parser.add_argument("--episodes", type=int, default=10_000, help="that ours takes (default 10,000)")
    parser.add_argument("--asked", type=int, default=400, help="of these that a loop takes (default 400)")
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder of the page and its records")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_pages()
    easyfsl_peer.pt_map_class()
    sizes = {"episodes": options.episodes, "asked": options.asked, "turns": 20}
    rows = [
        compared("easyfsl 1.5.0", easyfsl, centre=False, **sizes),
        compared("the paper's preparation, a loop written out", written_out, centre=True, **sizes),
    ]
    keep(options.out, {HEADS: {"machine": machine(), "rows": rows}})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

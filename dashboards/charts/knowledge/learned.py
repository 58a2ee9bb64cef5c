"""What a trial has learned in one respect: alone, beside another trial, as a difference, or over the outer steps."""

from metaloom.dashboards.charts.base import Chart, ChartKind, ChartSource
from metaloom.learners.errors import BadInput, unknown

SIDES = ("own", "other", "difference", "steps")


def draw(source: ChartSource) -> Chart | None:
    """Draw the kind of facts that is asked for; None where there is nothing of it at that step."""
    # where it is drawn, not in the server: they import torch
    from metaloom.dashboards.knowledge_charts.drawing import chart_of
    from metaloom.dashboards.knowledge_charts.pairs import differing, facts_over_steps, pair_of

    kind, side = source.asked.get("kind", ""), source.asked.get("side", SIDES[0])
    if source.trial is None:
        raise BadInput("a chart of meta-knowledge is of a trial: give trial=NUMBER")
    if side not in SIDES:
        raise BadInput(f"side: {unknown('side', side, SIDES)}")
    pair = pair_of(source.store, source.name, source.trial, source.asked)
    title = pair.title(kind)
    if side == "steps":
        over = facts_over_steps(pair.own, kind)
        return None if over is None else chart_of(f"{title} over the outer steps", over)
    if side == "difference":
        apart = differing(pair, kind)
        return None if apart is None else chart_of(f"{title}: {pair.difference}", apart, signed=True)
    shown, beside = (pair.facts, pair.others) if side == "own" else (pair.others, pair.facts)
    if shown is None or kind not in shown.facts:
        return None
    others = [beside.facts[kind]] if beside is not None and kind in beside.facts else []
    return chart_of(f"{title}: {pair.label(side)}" if others else title, shown.facts[kind], others)


NEEDS = "This kind has no numbers that a chart can show."
CHART = ChartKind("learned", "What was learned", draw, apart=True, needs=NEEDS)

"""Turns what was drawn of an episode again into what its template shows: images, lines, texts and predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 160, 60  # of the drawing of a series
CURVE = (640, 260)  # of the drawing of a curve
MARGIN = 8


def drawn_episode(result: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the template: the examples, and for each query its predictions under each trial."""
    episode, trials = result["episode"], result["trials"]
    shown = {**episode, "support": list(episode["support"]), "queries": list(episode["queries"])}
    for one in (*shown["support"], *shown["queries"]):
        one["lines"] = series_lines(one["shown"]) if episode["kind"] == "series" else []
        one["class"] = _class(episode, one["label"])
    for place, query in enumerate(shown["queries"]):
        query["answers"] = {number: _answers(episode, one, place, query) for number, one in trials.items()}
    curve = curve_drawing(shown, trials) if episode["kind"] == "curve" else None
    return {
        **shown,
        "trials": trials,
        "curve": curve,
        "has_answers": any(one["predictions"] for one in trials.values()),
        "differs": [number for number, one in trials.items() if not one["same"]],
        "width": WIDTH,
        "height": HEIGHT,
    }


def _class(episode: Mapping[str, Any], label: int | None) -> str:
    if label is None:
        return ""
    names = episode["classes"]
    return names[label] if 0 <= label < len(names) else str(label)


def _answers(episode: Mapping[str, Any], trial: Mapping[str, Any], place: int, query: Mapping[str, Any]) -> list[Any]:
    """Return a query's prediction before adaptation and after each inner step."""
    found = []
    for step, of_step in enumerate(trial["predictions"]):
        values = of_step[place]
        if query["label"] is None:
            found.append({"step": step, "text": ", ".join(f"{one:.4g}" for one in values), "right": None})
            continue
        chosen = max(range(len(values)), key=values.__getitem__)
        text = f"{_class(episode, chosen)} ({values[chosen]:.0%})"
        found.append({"step": step, "text": text, "right": chosen == query["label"]})
    return found


def series_lines(channels: Sequence[Sequence[float | None]]) -> list[str]:
    """Return the points of each channel as SVG has them; a gap divides a line."""
    known = [one for channel in channels for one in channel if one is not None]
    if not known:
        return []
    low, high = min(known), max(known)
    lines = []
    for channel in channels:
        across = WIDTH / max(1, len(channel) - 1)
        run: list[str] = []
        for place, value in enumerate([*channel, None]):
            if value is not None:
                run.append(f"{place * across:.1f},{_up(value, low, high, HEIGHT):.1f}")
            elif run:
                lines.append(" ".join(run))
                run = []
    return lines


def _up(value: float, low: float, high: float, height: float) -> float:
    """Return the place of a value in a drawing, whose zero is above."""
    share = (value - low) / (high - low) if high > low else 0.5
    return height - MARGIN / 2 - share * (height - MARGIN)


def curve_drawing(episode: Mapping[str, Any], trials: Mapping[str, Any]) -> dict[str, Any]:
    """Return the points of a regression's support set, of its queries, and of the last predictions of each trial."""
    width, height = CURVE
    points = {
        name: [(one["shown"][0], one["targets"][0]) for one in episode[name] if one["shown"][0] is not None]
        for name in ("support", "queries")
    }
    answers = {}
    for number, trial in trials.items():
        for when, place in (("before", 0), ("after", -1)):
            if trial["predictions"]:
                values = trial["predictions"][place]
                pairs = zip(episode["queries"], values, strict=True)
                answers[f"trial {number}, {when}"] = [(query["shown"][0], value[0]) for query, value in pairs]
    every = [point for group in (points, answers) for one in group.values() for point in one]
    if not every:
        return {"groups": [], "width": width, "height": height}
    xs, ys = [x for x, _ in every], [y for _, y in every]

    def placed(group: Sequence[tuple[float, float]]) -> list[tuple[str, str]]:
        return [(f"{width - _up(x, min(xs), max(xs), width):.1f}", f"{_up(y, min(ys), max(ys), height):.1f}")
                for x, y in group]  # fmt: skip

    groups = [{"name": name, "points": placed(group)} for name, group in {**points, **answers}.items()]
    return {"groups": groups, "width": width, "height": height, "x": (min(xs), max(xs)), "y": (min(ys), max(ys))}

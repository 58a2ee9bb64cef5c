"""The colours of traces: Okabe and Ito's, which people with any colour vision can tell apart.

Colour is never alone: ``trace_style`` changes the dash and the marker with it.
"""

from typing import Any

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILION, YELLOW, GREY = "#56B4E9", "#D55E00", "#F0E442", "#7F7F7F"
COLOURS = (BLUE, ORANGE, GREEN, VERMILION, SKY, PINK, GREY)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")

STATE_COLOURS = {"finished": BLUE, "stopped": ORANGE, "failed": VERMILION, "running": GREEN, "waiting": GREY}
STATE_MARKERS = {
    "finished": "circle",
    "stopped": "square",
    "failed": "x",
    "running": "triangle-up",
    "waiting": "diamond",
}
# From dark to light, monotone in lightness: for heat maps and colour bars.
SEQUENTIAL = "Cividis"
# For signed values, with white at zero.
DIVERGING = "RdBu"


def colour(index: int) -> str:
    """Return the colour of trace ``index``; they repeat after seven."""
    return COLOURS[index % len(COLOURS)]


def ramp(share: float) -> str:
    """Return a colour between blue (0) and orange (1), for lines: both are seen on light and on dark grounds."""
    ends = [[int(end[start : start + 2], 16) for start in (1, 3, 5)] for end in (BLUE, ORANGE)]
    return "#" + "".join(f"{round(low + (high - low) * share):02X}" for low, high in zip(*ends, strict=True))


def translucent(colour: str, opacity: float) -> str:
    """Return a colour of ``#RRGGBB`` with an opacity in [0, 1], for bands."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def trace_style(index: int) -> dict[str, Any]:
    """Return the line and the marker of trace ``index``: dash and marker differ where colours repeat."""
    dash = DASHES[(index // len(COLOURS) + index) % len(DASHES)]
    return {
        "line": {"color": colour(index), "dash": dash, "width": 2},
        "marker": {"color": colour(index), "symbol": MARKERS[index % len(MARKERS)], "size": 7},
    }

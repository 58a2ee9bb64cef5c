"""What W4 to W6 have to reach, each a function of a workload's rows to one sentence."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.row import Row

Target = Callable[[Sequence[Row]], str]
OURS = "metaloom"


def verdict(text: str, met: bool) -> str:
    """Say whether a target is reached."""
    return f"{text}: {'reached' if met else 'not reached'}."


def by_name(rows: Iterable[Row]) -> Mapping[str, Row]:
    """Return the rows by implementation."""
    return {row.implementation: row for row in rows}


def right(tolerance: float) -> Target:
    """All of the engine's exact gradients agree with float64."""

    def judge(rows: Sequence[Row]) -> str:
        worst = max(row.error for row in rows if row.implementation.startswith(OURS) and not row.approximate)
        return verdict(f"The exact gradient's error is {worst:.0e}; target {tolerance:g}", worst <= tolerance)

    return judge


def faster(name: str, factor: float, than: str | None = None) -> Target:
    """One of ours is so many times faster than a peer: the named one, or the fastest that is as exact as it says."""

    def judge(rows: Sequence[Row]) -> str:
        ours = by_name(rows)[name]
        peers = [row for row in rows if not row.implementation.startswith(OURS)]
        if than is not None:
            peers = [row for row in peers if row.implementation == than]
        else:
            peers = [row for row in peers if row.approximate == ours.approximate and (row.approximate or row.is_right)]
        peer = min(peers, key=lambda row: row.judged)
        ratio = peer.judged / ours.judged
        comes = [row.times_ours / ours.times_ours for row in peers if row.times_ours_kept is not None]
        kind = (
            ""
            if than is not None
            else "the fastest approximate peer, "
            if ours.approximate
            else "the fastest exact peer, "
        )
        text = verdict(f"**{ratio:.2f}x** {kind}{peer.implementation} ({name}); target {factor}x", ratio >= factor)
        return text + (f" {min(comes):.2f}x where each runs as it comes." if comes else "")

    return judge


def leaner(name: str, memory: float, time: float, than: str = "plain loop") -> Target:
    """One of ours takes at most a share of a peer's peak memory, at no more than a multiple of its time."""

    def judge(rows: Sequence[Row]) -> str:
        ours, peer = by_name(rows)[name], by_name(rows)[than]
        if ours.peak_mb is None or peer.peak_mb is None:
            raise ValueError(f"{ours.workload}: the memory of {name} and {than} was not measured")
        share, slower = ours.peak_mb / peer.peak_mb, ours.judged / peer.judged
        text = f"{name}: **{share:.2f}x** the peak memory and **{slower:.2f}x** the time of {than}"
        text = verdict(f"{text}; target {memory}x and {time}x", share <= memory and slower <= time)
        if peer.times_ours_kept is None:
            return text
        return f"{text} {ours.times_ours / peer.times_ours:.2f}x the time where each runs as it comes."

    return judge

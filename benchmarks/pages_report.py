"""The part of the benchmarks' page on the pages of a store."""

from collections.abc import Mapping
from typing import Any

PAGE_MS, EPISODES_MS, MEMORY_MB, TIMES_PEERS, LIVE_COST = 1000.0, 300.0, 400.0, 2.0, 0.01
TITLES = {"metaloom": "metaloom ui", "mlflow": "MLflow's UI", "optuna": "optuna-dashboard"}


def pages_section(kept: Mapping[str, Any]) -> str:
    """Write how fast the pages open, what they take, and how fast the peers are."""
    lines = [
        "## Pages of a store",
        "",
        f"`python -m benchmarks.pages_speed --store STORE --turns {kept['turns']}` ({kept['machine']}; {kept['cpus']} "
        f"processors, load {kept['load']:.1f} at the start)",
        "",
        f"STORE is made by `python -m benchmarks.page_store STORE`; its search has {kept['trials']:,} trials. Times in "
        "ms from the navigation's start until the charts in the window are drawn, in Chromium: medians. A document's "
        "time is the server's own. Under load trust the processor's times.",
        "",
        "| page | cold | warm | document, first | document | server CPU | browser CPU |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in kept["pages"]:
        numbers = (
            "cold_ms", "warm_ms", "document_first_ms", "document_ms", "server_cpu_ms", "browser_cpu_ms"
        )  # fmt: skip
        lines.append(f"| `{one['page']}` | {' | '.join(f'{one[name]:,.0f}' for name in numbers)} |")
    slowest = max(max(one["cold_ms"], one["warm_ms"]) for one in kept["pages"])
    lines += [
        "",
        f"Promised: any page under {PAGE_MS:,.0f} ms: {_reached(slowest, PAGE_MS)} (the slowest {slowest:,.0f} ms).",
        *_episodes(kept["episodes"]),
        f"Memory of the server under {MEMORY_MB:g} MB: {_reached(kept['memory_mb']['pss'], MEMORY_MB)} "
        f"({kept['memory_mb']['pss']:.0f} MB proportional, {kept['memory_mb']['rss']:.0f} MB resident). "
        f"The process beside it, which has torch, took {kept['apart_mb']:.0f} MB.",
        *_live(kept.get("live")),
        "",
        "| server | shows | profile | ms | times ours |",
        "|---|---|---|---:|---:|",
    ]
    peers = [one for one in kept["peers"] if one["server"] != "metaloom"]
    for one in kept["peers"]:
        shown = f"| {TITLES[one['server']]} | {one['part']} | {one['state']} | {one['ms']:,.0f} |"
        lines.append(f"{shown} {'' if one['server'] == 'metaloom' else format(one['ratio'], '.1f')} |")
    if peers:
        least = min(one["ratio"] for one in peers)
        met = "reached" if least >= TIMES_PEERS else "**not reached**"
        lines += ["", f"Promised: {TIMES_PEERS:g} times as fast as either: {met} (at least {least:.1f} times)."]
    return "\n".join(lines) + "\n"


def _episodes(found: Mapping[str, Any]) -> list[str]:
    if found["median_ms"] is None:
        return ["Filtered episodes were not paged through."]
    met = _reached(found["p95_ms"], EPISODES_MS)
    return [
        f"A page of filtered episodes (`{found['where']}`) under {EPISODES_MS:g} ms: {met} (median "
        f"{found['median_ms']:.0f} ms, 95% within {found['p95_ms']:.0f} ms, of {found['pages']} pages; the first "
        f"{found['first_ms']:.0f} ms)."
    ]


def _live(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["What an open page costs a search was not measured."]
    return [
        f"An open page costs a search under {LIVE_COST:.0%}: {_reached(found['cost'], LIVE_COST)} "
        f"({found['cost']:+.1%}: a process that records {found['trials']} trials and trains nothing "
        f"takes {found['beside_s']:.2f} s of the processor with the page open in Chromium for "
        f"{found['watched_s']:.0f} s, and {found['alone_s']:.2f} s without; the least of {found['turns']} turns)."
    ]


def _reached(value: float, most: float) -> str:
    return "reached" if value < most else "**not reached**"

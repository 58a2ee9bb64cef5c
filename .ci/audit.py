"""Looks for weaknesses: bandit over the source, pip-audit over the versions that are tested (``make audit``).

It fails on what ``[tool.audit.accepted]`` of pyproject.toml does not list with a reason, and on an entry there that
nothing needs. Packages that the advisory service cannot be asked about are counted, and are no failure.
"""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("learners", "search_spaces", "workers", "dashboards", "orchestrator", "src/metaloom", "benchmarks")
LOOKUP_S = 15


def report(*command: str) -> tuple[dict[str, Any], str]:
    """Run a module of this Python, and return its JSON document, empty if it wrote none, and its other output."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        return dict(json.loads(done.stdout)), done.stderr
    except ValueError:
        return {}, done.stderr.strip() or done.stdout.strip()


def of_bandit() -> Iterator[tuple[str, str]]:
    """Yield each finding in the source: its test with its file, and its text with its line."""
    found, problem = report("bandit", "-q", "-r", *FOLDERS, "-f", "json")
    if "results" not in found or found["errors"]:
        sys.exit(f"bandit could not read the source: {found.get('errors') or problem}")
    for one in found["results"]:
        yield f"{one['test_id']} {one['filename']}", f"line {one['line_number']}: {one['issue_text']}"


def of_pip_audit() -> Iterator[tuple[str, str]]:
    """Yield each known weakness of a tested version: its name with its package, and its versions that mend it."""
    options = ("--disable-pip", "--no-deps", "--timeout", str(LOOKUP_S), "--progress-spinner", "off")
    found, problem = report("pip_audit", "-r", "constraints.txt", *options, "-f", "json")
    if "dependencies" not in found:
        reason = (problem.splitlines() or ["no answer"])[-1]
        print(f"pip-audit: skipped, the advisory service cannot be asked ({reason})")
        return
    packages = found["dependencies"]
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    print(f"pip-audit: {len(packages) - len(skipped)} of {len(packages)} packages looked up", end="")
    print(f"; skipped, for the advisory service does not know them: {', '.join(skipped[:5])} ..." if skipped else "")
    for one in packages:
        for weakness in one.get("vulns", ()):
            mended = ", ".join(weakness["fix_versions"]) or "no version"
            yield f"{weakness['id']} {one['name']}", f"{one['version']}; mended in {mended}"


def main() -> int:
    """Print what was found and is not accepted; return the exit code."""
    accepted: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["audit"]["accepted"]
    found = [*of_bandit(), *of_pip_audit()]
    used: set[str] = set()
    failures = 0
    for name, text in found:
        entry = next((one for one in (name, name.split()[0]) if one in accepted), None)
        if entry is not None:
            used.add(entry)
            continue
        failures += 1
        print(f"{name}: {text}")
    needless = [one for one in accepted if one not in used and one.startswith("B")]
    for one in needless:
        print(f"pyproject.toml: tool.audit.accepted: nothing needs {one}: take it out")
    print(f"{len(found) - failures} findings accepted, {failures} not")
    return int(bool(failures or needless))


if __name__ == "__main__":
    sys.exit(main())

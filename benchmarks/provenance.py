"""At which commit a number was measured."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMIT = "commit"  # the key of a record under which the commit stands that it was measured at
SHORT = 12  # digits of a commit that are shown


def git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in the repository; the caller reads the exit code."""
    return subprocess.run(["git", "-C", str(root), *arguments], check=False, capture_output=True, text=True)


def commit_of_code(root: Path = ROOT) -> str | None:
    """Return the commit of the working tree; None if its code differs from it, or there is no commit."""
    if git(root, "diff", "--quiet", "HEAD", "--", ".", ":!docs").returncode:
        return None
    return git(root, "rev-parse", "HEAD").stdout.strip() or None

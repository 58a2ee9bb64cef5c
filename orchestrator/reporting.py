"""``metaloom report``: the report of a search as one HTML file, and as a PDF by a browser that is installed here."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from metaloom.learners.errors import BadEnvironment, BadInput
from metaloom.orchestrator.proposing.search_report import html_of
from metaloom.orchestrator.store import DEFAULT_STORE
from metaloom.workers import durable

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
BROWSER_VARIABLE = "METALOOM_BROWSER"  # a browser of Chromium's family, by its path
PRINT_S = 120.0
OFFLINE = ("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--disable-component-update")
HTML, PDF = ".html", ".pdf"


@dataclass(frozen=True)
class WrittenReport:
    """The files of a report; ``pdf`` is None if none was asked for."""

    file: Path
    bytes: int
    pdf: Path | None


def report(
    name: str,
    *,
    out: str | Path | None = None,
    pdf: bool = False,
    force: bool = False,
    store: str | Path = DEFAULT_STORE,
) -> WrittenReport:
    """Write the report of a search, running or not, to one HTML file that needs no other.

    Args:
        name: The search.
        out: The file, which ends in ``.html``; None: ``NAME-report.html`` here.
        pdf: Print it to a PDF beside it too, by a browser of Chromium's family.
        force: Replace the files if they exist.
        store: Folder of all records.

    Raises:
        BadInput: There is no such search, a file exists already, or the ending is another one.
        BadEnvironment: There is no such browser, or it fails.
        StorageError: A file cannot be written.
    """
    path = Path(out or f"{name}-report{HTML}")
    if path.suffix.lower() != HTML:
        raise BadInput(f"--out: {path} has the ending '{path.suffix}'; a report ends in {HTML}")
    printed = path.with_suffix(PDF) if pdf else None
    for file in (path, printed):
        if file is not None and file.exists() and not force:
            raise BadInput(f"{file} exists already; give another --out, or replace it with --force")
    browser = find_browser() if pdf else ""
    content = html_of(Path(store), name).encode()
    durable.write_bytes(path, content)
    if printed is not None:
        durable.write_bytes(printed, print_to_pdf(browser, path))
    return WrittenReport(path, len(content), printed)


def find_browser() -> str:
    """Return the path of a browser of Chromium's family; raises BadEnvironment if there is none."""
    asked = os.environ.get(BROWSER_VARIABLE)
    found = next(filter(None, map(shutil.which, [asked] if asked else BROWSERS)), None)
    if found is None:
        where = f"{BROWSER_VARIABLE}={asked} is none" if asked else f"none of {', '.join(BROWSERS)} is installed"
        advice = f"install Chromium (apt install chromium), or name a browser of its family in {BROWSER_VARIABLE}"
        raise BadEnvironment(f"--pdf needs a browser: {where}; {advice}. Without --pdf the HTML file is written")
    return found


def print_to_pdf(browser: str, page: Path) -> bytes:
    """Print an HTML file by a browser without a window and without a network; raises BadEnvironment."""
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "page.pdf"
        command = [browser, "--headless=new", "--disable-gpu", "--no-first-run", "--no-pdf-header-footer", *OFFLINE]
        command += [f"--user-data-dir={folder}/profile", f"--print-to-pdf={printed}"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium's sandbox refuses root; the page is our own, without scripts
        try:
            done = subprocess.run(
                [*command, page.absolute().as_uri()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PRINT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BadEnvironment(f"{browser} could not print {page}: {error}") from error
        if done.returncode or not printed.is_file():
            last = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
            raise BadEnvironment("\n".join([f"{browser} could not print {page} (exit code {done.returncode})", *last]))
        return printed.read_bytes()

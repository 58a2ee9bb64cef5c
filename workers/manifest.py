"""A bundle's manifest: its format, and the SHA-256 of every other file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaloom.workers.durable import canonical, digest
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import MANIFEST_FILE, META_KNOWLEDGE_FILE

FORMAT = 1
BUNDLE_CONFIG_FILE = "config.yaml"
CARD_FILE = "card.md"
_REQUIRED = (BUNDLE_CONFIG_FILE, CARD_FILE, META_KNOWLEDGE_FILE)


def sign(path: Path) -> dict[str, Any]:
    """Return a file's digest and size."""
    content = path.read_bytes()
    return {"sha256": digest(content), "bytes": len(content)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what a bundle's manifest says; raises BundleError if it is damaged, newer, or no manifest at all."""
    if not folder.is_dir():
        raise BundleError(f"there is no folder {folder}; a bundle is the folder that 'metaloom export' has written")
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text())
    except (OSError, ValueError) as problem:
        raise BundleError(f"{folder}: not a bundle: its {MANIFEST_FILE} cannot be read ({problem})") from problem
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise BundleError(f"{folder}: not a bundle: its {MANIFEST_FILE} names no format")
    if manifest["format"] > FORMAT:
        raise BundleError(f"{folder}: bundle format {manifest['format']}; this metaloom reads up to {FORMAT}")
    claimed = manifest.pop("sha256", None)
    if digest(canonical(manifest)) != claimed:
        raise BundleError(f"{folder}: {MANIFEST_FILE} is damaged; get the bundle again from where it was exported")
    absent = [name for name in _REQUIRED if name not in manifest["files"]]
    if absent:
        raise BundleError(f"{folder}: not a bundle: it has no {', '.join(absent)}")
    return manifest


def check_file(folder: Path, name: str, signed: Mapping[str, Any]) -> None:
    """Refuse a file that is not the one that was signed; raises BundleError."""
    if Path(name).name != name:
        raise BundleError(f"{folder}: {MANIFEST_FILE} names a file outside of it: {name}")
    try:
        found = sign(folder / name)
    except OSError as problem:
        raise BundleError(f"{folder}: {name} is missing ({problem.strerror})") from problem
    if found != dict(signed):
        raise BundleError(f"{folder}: {name} is damaged; get the bundle again from where it was exported")

"""A bundle from a stranger: whatever its signed manifest says, it opens, or a BundleError names what is wrong."""

import copy
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors

from metaloom import load_bundle
from metaloom.orchestrator.command_line import cli
from metaloom.workers import bundle_writing, checkpoint
from metaloom.workers.bundle_reading import read_manifest
from metaloom.workers.durable import canonical, digest, file_facts, signed
from metaloom.workers.errors import BundleError, CheckpointError
from metaloom.workers.records.names import MANIFEST_FILE, META_KNOWLEDGE_FILE
from tests.support.processes import run

STORED = Path(__file__).resolve().parents[1] / "fixtures" / "stored_0_1" / "bundles" / "finished"
MANIFEST = json.loads((STORED / MANIFEST_FILE).read_text())
CONFIG = yaml.safe_load((STORED / "config.yaml").read_text())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3) | st.just(2**80),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each value within ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(one for key, inner in items for one in places(inner, (*path, key)))]


@st.composite
def changed(draw: Callable[..., Any], document: dict[str, Any]) -> Any:
    """Put another value at one or two places of the document, or leave the place out."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(document)))
        if not path:
            return draw(JSON)
        *parents, last = path
        inner = document
        for key in parents:
            inner = inner[key]
        if draw(st.booleans()):
            del inner[last]
        else:
            inner[last] = draw(JSON)
    return document


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for the examples of hypothesis, each of which writes what it changes."""
    return Path(shutil.copytree(STORED, tmp_path_factory.mktemp("shared") / "bundle"))


def sign(folder: Path, manifest: Any) -> None:
    """Write a manifest with the right digest."""
    if isinstance(manifest, dict):
        manifest = signed({name: one for name, one in manifest.items() if name != "sha256"})
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))


def put(folder: Path, name: str, content: bytes) -> None:
    """Write a file of the bundle, and sign it."""
    (folder / name).write_bytes(content)
    sign(folder, {**MANIFEST, "files": {**MANIFEST["files"], name: file_facts(content)}})


def opens_or_is_refused(folder: Path, reader: Callable[[Path], Any] = load_bundle) -> None:
    try:
        reader(folder)
    except BundleError as error:
        assert str(error).startswith(str(folder))


EXAMPLES = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@EXAMPLES
@given(manifest=changed(MANIFEST))
@example(manifest={"format": 1})
@example(manifest={**MANIFEST, "files": [["a", "b"]]})
@example(manifest={**MANIFEST, "files": {**MANIFEST["files"], "\x00": {}, "\ud800": {}}})
def test_any_manifest_that_is_signed(shared: Path, manifest: Any) -> None:
    sign(shared, manifest)
    opens_or_is_refused(shared, read_manifest)


@settings(EXAMPLES, max_examples=25)
@given(config=changed(CONFIG))
@example(config=[])
@example(config={**CONFIG, "task": {**CONFIG["task"], "outputs": 2**80}})
@example(config={**CONFIG, "trial": {**CONFIG["trial"], "learner": None}})
def test_any_config_that_is_signed(shared: Path, config: Any) -> None:
    put(shared, "config.yaml", yaml.dump(config, allow_unicode=True).encode("utf-8", "surrogatepass"))
    opens_or_is_refused(shared)
    put(shared, "config.yaml", (STORED / "config.yaml").read_bytes())


@EXAMPLES
@given(facts=changed({"format": "2", "step": "3", "names": '{"phi": ["a"]}'}))
@example(facts={"format": "2", "step": "3", "names": '{"phi": ["b"]}'})
def test_any_facts_of_tensors_that_are_signed(shared: Path, facts: Any) -> None:
    tensors = {"phi/a": checkpoint.torch.ones(2)}
    if isinstance(facts, dict):
        facts = {**facts, "sha256": digest(canonical(facts) + checkpoint._to_bytes(tensors))}
    path = shared.parent / "facts.safetensors"
    path.write_bytes(safetensors.save(tensors, {"metaloom": json.dumps(facts)}))
    try:
        groups, _ = checkpoint.read_knowledge(path)
        assert groups["phi"]["a"].tolist() == [1.0, 1.0]
    except CheckpointError as error:
        assert str(error).startswith(str(path))


@EXAMPLES
@given(manifest=changed({"format": 1, "facts": {"step": 3}, "names": {"phi": ["a"]}, "files": {"x": {"bytes": 1}}}))
def test_any_manifest_of_a_checkpoint_that_is_signed(shared: Path, manifest: Any) -> None:
    folder = checkpoint.CheckpointFolder(shared.parent / "checkpoints")
    folder.write({"phi": {"a": checkpoint.torch.ones(2)}}, {"step": 3})
    path = max(folder.folder.glob("*.json"))
    path.write_bytes(canonical(signed(manifest)) if isinstance(manifest, dict) else canonical(manifest))
    try:
        _, notes = folder.newest()
        assert notes
    except CheckpointError as error:
        assert "reads up to" in str(error)
    path.unlink()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": True}, "names no format"),
        ({"files": None}, "files: got null; allowed: a mapping"),
        ({"notes": [1]}, "notes: got the list"),
        ({"origin": 3}, "origin: got 3; allowed: a mapping"),
        ({"files": {**MANIFEST["files"], "model.pkl": file_facts(b"x")}}, r"files: model\.pkl: a file that a bundle"),
        ({"files": {**MANIFEST["files"], "../card.md": file_facts(b"x")}}, r"\.\./card\.md: names a file outside"),
        ({"files": {**MANIFEST["files"], "card.md": {"bytes": True}}}, r"card\.md: got a mapping with bytes; allowed"),
        ({"files": {**MANIFEST["files"], "card.md": {"bytes": 2**33, "sha256": ""}}}, r"8589934592 bytes; allowed"),
        ({"metaloom": "\x1b[31m", "evaluation": "\x1b[2J\n"}, r"evaluation: got the text '\\x1b\[2J\\n'"),
    ],
)
def test_the_field_is_named(bundle: Path, change: dict[str, Any], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    sign(bundle, {**MANIFEST, **change})
    with pytest.raises(BundleError, match=told):
        load_bundle(bundle)
    assert cli.run(["evaluate", str(bundle), "--json"]) == 2
    out, err = capfd.readouterr()
    assert "unexpected" not in out + err and "\x1b" not in out + err


def test_a_name_that_is_given_twice_is_refused(bundle: Path) -> None:
    path = bundle / MANIFEST_FILE
    path.write_text(path.read_text().replace('"card.md": {', '"card.md": {}, "card.md": {', 1))
    with pytest.raises(BundleError, match=r"card.md is given twice"):
        load_bundle(bundle)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "\ufffe", '{"format": 1e999}'])
def test_a_manifest_that_no_reader_likes_is_refused(bundle: Path, text: str) -> None:
    (bundle / MANIFEST_FILE).write_text(text, encoding="utf-16" if text == "\ufffe" else "utf-8")
    with pytest.raises(BundleError, match="not a bundle"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", [META_KNOWLEDGE_FILE, "card.md", MANIFEST_FILE, "timings.json", "more"])
def test_a_symbolic_link_is_refused(bundle: Path, name: str) -> None:
    target = bundle.parent / "elsewhere"
    if name == "more":
        target.mkdir()
    else:
        (bundle / name).exists() and (bundle / name).rename(target)
        target.touch()
    (bundle / name).symlink_to(target)
    with pytest.raises(BundleError, match=f"{name} is a symbolic link"):
        load_bundle(bundle)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_refused_and_not_waited_for(bundle: Path, kind: str) -> None:
    (bundle / "card.md").unlink()
    if kind == "folder":
        (bundle / "card.md").mkdir()
    else:
        os.mkfifo(bundle / "card.md")
    with pytest.raises(BundleError, match=r"card\.md is no file"):
        load_bundle(bundle)


def test_a_file_that_the_manifest_does_not_name_is_reported(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    (bundle / "timings.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        load_bundle(bundle)
        assert caplog.messages == []
        (bundle / "mo\x1bdel.pkl").write_bytes(b"x")
        load_bundle(bundle)
    assert [message for message in caplog.messages if r"is not read: mo\x1bdel.pkl" in message] == caplog.messages != []


@pytest.mark.parametrize("signed_too", [False, True])
def test_a_huge_file_is_refused_before_it_is_read(bundle: Path, signed_too: bool) -> None:
    """300 MB of which nothing is on the disk; another size than the manifest's, or a header of all of it."""
    size = 300_000_000
    with (bundle / META_KNOWLEDGE_FILE).open("wb") as file:
        file.write((size - 8).to_bytes(8, "little"))
        file.truncate(size)
    if signed_too:
        facts = {"sha256": digest(b""), "bytes": size}
        sign(bundle, {**MANIFEST, "files": {**MANIFEST["files"], META_KNOWLEDGE_FILE: facts}})
    code = (
        "import resource, sys; from metaloom.workers.bundle_reading import *\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_manifest(Path(sys.argv[1])); raise SystemExit('opened')\n"
        "except BundleError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "from metaloom.workers.checkpoint import Knowledge, CheckpointError\n"
        "try: Knowledge.read(Path(sys.argv[1]) / META_KNOWLEDGE_FILE); raise SystemExit('opened')\n"
        "except CheckpointError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    told, kilobytes, of_file, at_last = run("-c", code, str(bundle), check=True).stdout.splitlines()
    assert ("its header has 299999992 bytes" if signed_too else "is damaged") in told
    assert "its header has 299999992 bytes; allowed: up to 33554432" in of_file
    assert max(int(kilobytes), int(at_last)) < 50_000


def test_what_a_killed_export_has_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """The next export of any name; not what is being written, and not what is none of ours."""
    killed, going, others = tmp_path / ".aside-killed", tmp_path / ".aside-going", tmp_path / ".aside-others"
    for folder in (killed, going, others):
        folder.mkdir()
        (folder / "card.md").write_text("half")
    (killed / ".aside-123-config.yaml").write_text("")
    (others / "thesis.tex").write_text("")
    owner = bundle_writing._owned(going)
    bundle_writing.remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == [going, others]
    os.close(owner)
    bundle_writing.remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == [others]


def test_an_export_that_is_killed_leaves_a_folder_that_can_be_removed(tmp_path: Path) -> None:
    """A real one: its process dies while it writes, and with it its lock."""
    code = (
        "import os, sys; from pathlib import Path; from metaloom.workers import bundle_writing\n"
        "bundle_writing._fill = lambda *_: os.kill(os.getpid(), 9)\n"
        "bundle_writing.write_bundle(Path(sys.argv[1]), Path(sys.argv[2]) / 'one', origin={}, evaluation=None)"
    )
    trial = STORED.parents[1] / "store" / "searches" / "finished" / "trials" / "0002"
    assert run("-c", code, str(trial), str(tmp_path)).returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == [".aside-one"]
    bundle_writing.write_bundle(trial, tmp_path / "two", origin={}, evaluation=None)
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
    load_bundle(tmp_path / "two")

"""A checkpoint comes back exactly or not at all, and the one before it is always there."""

import json
import shutil

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from metaloom.workers.checkpoint import (
    FORMAT,
    CheckpointFolder,
    load_knowledge,
    read_knowledge,
    settled,
    write_knowledge,
)
from metaloom.workers.durable import canonical, digest
from metaloom.workers.errors import CheckpointError, StorageError
from tests.support.limits import no_file_above


def groups(value):
    """Tensors of several kinds, shapes and layouts that are told apart by ``value``."""
    images = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last) + value
    return {
        "phi": {
            "conv/w.0": images,
            "scalar": torch.tensor(float(value)),
            "half": torch.ones(3).bfloat16() * value,
        },
        "state": {"outer_step": torch.tensor(value), "running/flags": torch.tensor([True, False])},
        "optimizer": {"transposed": (torch.arange(6.0).reshape(2, 3) * value).T.double()},
    }


def write(folder, *values):
    checkpoints = CheckpointFolder(folder)
    for value in values:
        checkpoints.write(groups(value), {"step": value, "text": "ü", "none": None})
    return checkpoints


def assert_is(checkpoint, value):
    assert checkpoint.facts == {"step": value, "text": "ü", "none": None}
    expected = groups(value)
    assert set(checkpoint.tensors) == set(expected)
    for group, tensors in expected.items():
        assert list(checkpoint.tensors[group]) == list(tensors)
        for name, tensor in tensors.items():
            found = checkpoint.tensors[group][name]
            assert found.dtype == tensor.dtype
            assert torch.equal(found, tensor)


def test_everything_comes_back(tmp_path):
    write(tmp_path, 5)
    found, notes = CheckpointFolder(tmp_path).newest()
    assert_is(found, 5)
    assert notes == ()


def test_nothing_is_found_where_nothing_is(tmp_path):
    assert CheckpointFolder(tmp_path / "absent").newest() == (None, ())


def test_two_generations_are_kept(tmp_path):
    write(tmp_path, 1, 2, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"checkpoint-0000{n}.{kind}" for n in (2, 3) for kind in ("json", "safetensors")
    ]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path):
    path.write_bytes(b"\0" * path.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def delete(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, zero, flip, delete, empty])
@pytest.mark.parametrize("kind", ["safetensors", "json"])
def test_a_damaged_one_falls_back_and_says_so(tmp_path, damage, kind):
    write(tmp_path, 1, 2)
    damage(tmp_path / f"checkpoint-00002.{kind}")
    checkpoints = CheckpointFolder(tmp_path)
    found, notes = checkpoints.newest()
    assert_is(found, 1)
    assert notes[0].startswith("checkpoint 2 is damaged")
    assert "went back to checkpoint 1, at step 1" in notes[1]
    checkpoints.write(groups(9), {"step": 9, "text": "ü", "none": None})  # the damaged one makes room
    found, notes = CheckpointFolder(tmp_path).newest()
    assert_is(found, 9)
    assert notes == ()
    assert len(list(tmp_path.iterdir())) == 4


def test_when_all_are_damaged_the_trial_starts_again_and_says_so(tmp_path):
    write(tmp_path, 1, 2)
    for path in tmp_path.glob("*.safetensors"):
        truncate(path)
    found, notes = CheckpointFolder(tmp_path).newest()
    assert found is None
    assert "started again from step 0" in notes[-1]


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intact")
    write(folder, 1, 2)
    return folder


@example(kind="json", where=0.12109375, bit=5)  # a letter's case within an escape: the same text, other bytes
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["safetensors", "json"]), where=st.floats(0, 1), bit=st.integers(0, 7))
def test_no_flipped_bit_is_ever_believed(intact, tmp_path, kind, where, bit):
    folder = tmp_path / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(intact, folder)
    path = folder / f"checkpoint-00002.{kind}"
    content = bytearray(path.read_bytes())
    content[min(int(where * len(content)), len(content) - 1)] ^= 1 << bit
    path.write_bytes(content)
    found, notes = CheckpointFolder(folder).newest()
    assert_is(found, 1)
    assert notes


def test_a_newer_format_is_refused_and_not_overwritten(tmp_path):
    write(tmp_path, 1)
    path = tmp_path / "checkpoint-00001.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    manifest["format"] = FORMAT + 1
    path.write_bytes(canonical({**manifest, "sha256": digest(canonical(manifest))}))
    with pytest.raises(CheckpointError, match=f"format {FORMAT + 1}; this metaloom reads up to {FORMAT}"):
        CheckpointFolder(tmp_path).newest()


@pytest.mark.parametrize("room", [0, 100, 400, 700])
def test_a_full_disk_leaves_the_generation_before(tmp_path, room):
    """Whichever of the two files no longer fits: ``room`` is what the kernel lets each grow to."""
    checkpoints = write(tmp_path, 1)
    with no_file_above(room), pytest.raises(StorageError, match="free some space"):
        checkpoints.write(groups(2), {"step": 2, "long": "x" * 2000})
    found, _ = CheckpointFolder(tmp_path).newest()
    assert_is(found, 1)
    write(tmp_path, 3)  # and there is room again
    assert_is(CheckpointFolder(tmp_path).newest()[0], 3)


def test_no_tensors_are_no_trouble(tmp_path):
    CheckpointFolder(tmp_path).write({"phi": {}, "state": {}}, {"step": 0})
    found, _ = CheckpointFolder(tmp_path).newest()
    assert found.tensors == {"phi": {}, "state": {}}


def test_settled_tensors_have_the_layout_of_a_file():
    odd = torch.randn(8, 1, 3, 3).as_strided((8, 1, 3, 3), (9, 1, 3, 1))
    assert odd.is_contiguous()  # torch overlooks the stride of a dimension of size 1
    assert settled({"w": odd})["w"].stride() == (9, 9, 3, 1)
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert settled({"w": images})["w"].stride() == (60, 20, 5, 1)
    assert torch.equal(settled({"w": images})["w"], images)


def test_knowledge_carries_its_own_digest(tmp_path):
    path = tmp_path / "meta_knowledge.safetensors"
    write_knowledge(path, groups(4), {"step": "4"})
    found, metadata = read_knowledge(path)
    assert metadata["step"] == "4"
    assert torch.equal(found["phi"]["conv/w.0"], groups(4)["phi"]["conv/w.0"])
    flip(path)
    with pytest.raises(CheckpointError, match="digest"):
        read_knowledge(path)
    truncate(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_knowledge(path)


def test_damaged_knowledge_is_read_from_the_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="nothing was learned here yet"):
        load_knowledge(tmp_path)
    write(tmp_path / "checkpoints", 3)
    assert load_knowledge(tmp_path).step == 3
    write_knowledge(tmp_path / "meta_knowledge.safetensors", groups(4), {"step": "4"})
    assert load_knowledge(tmp_path).step == 4
    flip(tmp_path / "meta_knowledge.safetensors")
    knowledge = load_knowledge(tmp_path)
    assert knowledge.step == 3
    assert "digest" in knowledge.notes[0]

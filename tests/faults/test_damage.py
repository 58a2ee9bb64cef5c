"""Damage to the files of a search that was killed: it is noticed, told, and mended from what is left."""

import random
from pathlib import Path

import pytest

from metaloom.workers.records import names
from tests.faults.conftest import Compare
from tests.faults.driver import Place, wait_until
from tests.faults.faults import DAMAGES, HARM, Damage

# one in `make test`; all of them, with other positions, in `make faults`
SHORT = {"journal flipped"}


def killed(place: Place, reports: int) -> None:
    """Begin a search and kill its driver after some reports."""
    process = place.start("search", "--executor", "inline")
    assert wait_until(lambda: place.count() >= reports, process)
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("damage", "seed"),
    [
        pytest.param(
            one, seed, id=f"{one.name} {seed}", marks=() if (one.name in SHORT and not seed) else pytest.mark.faults
        )
        for one in DAMAGES
        for seed in range(3)
    ],
)
def test_a_killed_search_goes_on_after_damage(place: Place, assert_equal: Compare, damage: Damage, seed: int) -> None:
    draw = random.Random(f"{damage.name} {seed}")
    # the first trial reports eight times; a checkpoint is harmed of a trial that goes on
    killed(place, draw.randrange(3, 6) if "newest" in damage.name else draw.randrange(9, 16))
    if not damage.do(place, draw):
        pytest.skip(f"{damage.name}: there was no such file")
    code, _, errors = place.run(place.verb, "--executor", "inline")
    assert code == 0, errors
    place.run("sync")
    assert_equal(place)


@pytest.mark.faults
@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_part_of_episodes_hides_no_other(place: Place, undisturbed: dict, harm: str) -> None:
    killed(place, 12)
    parts = sorted(place.folder.glob(f"{names.TRIALS_FOLDER}/0000/{names.EPISODES_FOLDER}/part-0*.parquet"))
    HARM[harm](parts[0], random.Random(0))
    code, out, errors = place.run("resume", "--executor", "inline")
    assert code == 0 and parts[0].name in errors, errors
    code, out, errors = place.run("episodes", "--json")
    assert code == 0 and "--where" not in errors, out + errors


@pytest.mark.faults
@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_bundle_is_refused(place: Place, tmp_path: Path, harm: str) -> None:
    assert place.run("search", "--executor", "inline")[0] == 0
    bundle = tmp_path / "bundle"
    code, _, errors = place.run("export", "--out", str(bundle))
    assert code == 0, errors
    for path in sorted(one for one in bundle.rglob("*") if one.is_file()):
        content = path.read_bytes()
        if HARM[harm](path, random.Random(0)):
            code, out, errors = place.run("evaluate", str(bundle))
            assert code == 2 and "Traceback" not in errors, f"{path.name}: {out}{errors}"
        path.write_bytes(content)

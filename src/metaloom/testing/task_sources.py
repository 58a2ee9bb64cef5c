"""What every task source must do: an episode is a function of the seed, the split and its index, of declared shape."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaloom.testing.contract import Contract
from metaloom.workers.data import SPLITS, DataError, SampledEpisode, TaskSource, open_source

ANOTHER_PROCESS = """
import json, pathlib, sys
from metaloom.testing.task_sources import drawn
print(json.dumps(drawn(json.loads(sys.argv[1]), pathlib.Path(sys.argv[2]))))
"""


def opened(name: str, row: Mapping[str, Any], cache: Path, seed: int = 0) -> TaskSource:
    """Open a source with the settings of its row."""
    return open_source({"source": name, **row}, seed=seed, cache=cache)


def fingerprint(sample: SampledEpisode) -> str:
    """Return a hash of all that an episode holds."""
    episode = sample.episode
    tensors = (episode.support_x, episode.support_y, episode.query_x, episode.query_y)
    whole = repr((sample.seed, sample.class_ids, sample.sample_ids)).encode()
    return hashlib.sha256(whole + b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


def drawn(rows: Mapping[str, Mapping[str, Any]], cache: Path) -> dict[str, list[str]]:
    """Return the hashes of two episodes of each source."""
    sources = {name: opened(name, row, cache, 7) for name, row in rows.items()}
    places = (("train", 123), ("test", 3))
    return {name: [fingerprint(one.episode(*place)) for place in places] for name, one in sources.items()}


class TaskSourceContract(Contract):
    """The contract of task sources.

    Attributes:
        rows: A source's name to small settings of its tasks section.
    """

    rows: Mapping[str, Mapping[str, Any]] = {}

    @pytest.fixture
    def source_cache(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return the folder in which sources keep what they have prepared, one for all tests of the class."""
        folder = tmp_path_factory.getbasetemp() / f"cache-{type(self).__name__}"
        folder.mkdir(exist_ok=True)
        return folder

    def cases(self) -> Mapping[str, Iterable[Any]]:
        return {"source": self.rows}

    @given(order=st.permutations(range(4)), split=st.sampled_from(SPLITS), seed=st.integers(0, 2**64 - 1))
    @settings(
        max_examples=15,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    def test_an_episode_depends_on_seed_split_and_index_only(
        self, source: str, source_cache: Path, order: list[int], split: str, seed: int
    ) -> None:
        row = self.rows[source]
        first, second = opened(source, row, source_cache, seed), opened(source, row, source_cache, seed)
        forwards = {index: fingerprint(first.episode(split, index)) for index in range(4)}
        assert {index: fingerprint(second.episode(split, index)) for index in order} == forwards

    def test_seed_split_and_index_all_matter(self, source: str, source_cache: Path) -> None:
        one, other = (opened(source, self.rows[source], source_cache, seed) for seed in (0, 1))
        drawn = [one.episode("train", 0), one.episode("train", 1), other.episode("train", 0)]
        drawn += [one.episode("validation", 0), one.episode("test", 0)]
        assert len({fingerprint(sample) for sample in drawn}) == len({sample.seed for sample in drawn}) == 5

    def test_episodes_have_the_declared_shape(self, source: str, source_cache: Path) -> None:
        tasks = opened(source, self.rows[source], source_cache)
        assert isinstance(tasks, TaskSource)
        for split in SPLITS:
            sample = tasks.episode(split, 0)
            episode = sample.episode
            for x, y in ((episode.support_x, episode.support_y), (episode.query_x, episode.query_y)):
                assert x.shape[1:] == tasks.shape.inputs and x.dtype == torch.float32 and x.is_contiguous()
                if tasks.shape.task_kind.has_classes:
                    assert y.dtype == torch.int64 and bool(((y >= 0) & (y < tasks.shape.outputs)).all())
                else:
                    assert y.shape == (len(x), tasks.shape.targets) and y.dtype == torch.float32
            assert 0 <= sample.seed < 2**63

    @pytest.mark.parametrize(("split", "index"), [("trian", 0), ("train", -1)])
    def test_episodes_that_do_not_exist_are_refused(
        self, source: str, source_cache: Path, split: str, index: int
    ) -> None:
        with pytest.raises(DataError):
            opened(source, self.rows[source], source_cache).episode(split, index)

    def test_another_process_draws_the_same(self, source_cache: Path) -> None:
        rows = {name: dict(row) for name, row in self.rows.items()}
        command = [sys.executable, "-c", ANOTHER_PROCESS, json.dumps(rows), str(source_cache)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == drawn(self.rows, source_cache)

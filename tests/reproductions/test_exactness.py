"""V1's problems on one seed: the central differences that ``check`` takes are as good as float64 allows."""

from pathlib import Path

import pytest

from benchmarks.reproductions.exactness import CASES, v1


@pytest.mark.timeout(240)
def test_the_check_of_an_exact_hypergradient_is_near_rounding(tmp_path: Path) -> None:
    rows = v1([0], tmp_path)
    assert len(rows) == len(CASES)
    for row in rows:
        assert max(row.values) < 2e-9, row

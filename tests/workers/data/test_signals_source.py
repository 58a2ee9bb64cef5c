"""Generated series: what a data set is determined by, and what the classes of each family differ in."""

from pathlib import Path

import numpy as np
import pytest

from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.many import Many
from metaloom.workers.data.signals import FAMILIES, SignalTasks, series_of


@pytest.mark.parametrize("family", FAMILIES)
def test_a_data_set_is_determined_by_its_family_and_number(family: str) -> None:
    x = series_of(SignalTasks(set=f"{family}-3"))
    assert x.shape == (120, 1, 48) and x.dtype == np.float32
    assert np.array_equal(x, series_of(SignalTasks(set=f"{family}-3")))
    assert np.abs(x.mean(-1)).max() < 1e-5 and np.abs(x.std(-1) - 1).max() < 1e-5
    others = [series_of(SignalTasks(set=name)) for name in (f"{family}-4", *(f"{one}-3" for one in FAMILIES))]
    assert sum(np.array_equal(x, other) for other in others) == 1  # itself
    more = series_of(SignalTasks(set=f"{family}-3", classes=7))
    assert np.array_equal(more[:120], x)  # a class does not depend on how many there are


@pytest.mark.parametrize("family", FAMILIES)
def test_the_classes_of_a_data_set_can_be_told_apart(family: str) -> None:
    """By the nearest class mean of spectra, which no shift in time changes, far above the chance of 1 in 6."""
    x = series_of(SignalTasks(set=f"{family}-1", noise=0.1)).reshape(6, 20, 48)
    spectra = np.concatenate([np.abs(np.fft.rfft(x)), np.abs(np.fft.rfft(x**2))], -1)
    means = spectra[:, :10].mean(1)
    nearest = ((spectra[:, 10:, None] - means) ** 2).sum(-1).argmin(-1)
    assert (nearest == np.arange(6)[:, None]).mean() > 0.5


def test_data_sets_of_other_lengths_are_mixed(tmp_path: Path) -> None:
    short = {"source": "signals", "set": ["chirps-0", "walks-0"], "length": 32}
    many = open_source({"source": "many", "sources": [short, {"source": "signals"}]}, seed=0, cache=tmp_path)
    assert isinstance(many, Many) and many.shape.inputs == (2, 48) and many.shape.observed
    names = {many.episode("train", index).source for index in range(20)}
    assert names == {"signals:chirps-0", "signals:walks-0", "signals"}


@pytest.mark.parametrize("name", ["chrips-3", "chirp", "-3"])
def test_a_set_is_a_family_and_a_number(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tasks.set: .* \(allowed: bumps, chirps.*give a family and a number"):
        open_source({"source": "signals", "set": name}, seed=0, cache=tmp_path)


@pytest.mark.parametrize("name", ["chirps", "chirps-x"])
def test_a_family_without_a_number_is_not_said_to_be_unknown(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"tasks.set: got the text '{name}'; give a family and a number"):
        open_source({"source": "signals", "set": name}, seed=0, cache=tmp_path)

"""Seeds depend on everything that names a draw, and on nothing else."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from metaloom.workers.seeds import derive_generator, derive_seed, derive_words

PARTS = st.lists(st.one_of(st.integers(0, 10**9), st.text(max_size=8)), max_size=4)


def test_a_seed_is_the_same_in_every_process():
    code = "from metaloom.workers.seeds import derive_seed; print(derive_seed(7, 3, 100, 'meta_step'))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(there.stdout) == derive_seed(7, 3, 100, "meta_step") == 4031248832721950938


@given(PARTS, PARTS, st.integers(0, 2**40))
def test_other_parts_give_another_seed(some, others, seed):
    equal = [(type(p), p) for p in some] == [(type(p), p) for p in others]
    assert (derive_seed(seed, *some) == derive_seed(seed, *others)) == equal
    assert (derive_words(seed, *some) == derive_words(seed, *others)) == equal
    assert 0 <= derive_seed(seed, *some) < 2**63


@pytest.mark.parametrize("version", [1, 2])
def test_a_generator_repeats(version):
    first, second = (torch.randn(5, generator=derive_generator(1, 2, "init", version=version)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.randn(5, generator=derive_generator(1, 2, "begin", version=version)))


def test_a_million_generators_share_no_stream():
    """Of 32 bits, as the first version had them, over a hundred are shared; of the whole state none is.

    The draws of a generator are a function of its 624 words, and 16 bytes of them (4 draws before tempering) tell
    them apart: two of a million random ones of 128 bits are equal with a chance of 1e-27.
    """
    assert derive_words(0, 0, 0, "init", count=5) == derive_words(0, 0, 0, "init")[:20]
    purposes = ("meta_step", "init", "begin", "evaluate", "rehearsal")
    named = (
        (seed, trial, step, one) for seed in (0, 7) for trial in range(100) for step in range(1000) for one in purposes
    )
    words, low_halves, count = set(), set(), 0
    for seed, trial, step, purpose in named:
        words.add(derive_words(seed, trial, step, purpose, count=5)[4:])
        low_halves.add(derive_seed(seed, trial, step, purpose) % 2**32)
        count += 1
    assert len(words) == count == 1_000_000
    assert count - len(low_halves) > 50


def test_seeds_that_share_their_low_half_no_longer_share_a_stream():
    """These two give equal draws in the first version, whose generators torch seeds with 32 bits."""
    one, other = (0, 0, 103266, "meta_step"), (0, 0, 104448, "meta_step")
    assert derive_seed(*one) != derive_seed(*other) and (derive_seed(*one) - derive_seed(*other)) % 2**32 == 0
    first, second = (torch.randn(1000, generator=derive_generator(*named, version=1)) for named in (one, other))
    assert torch.equal(first, second)
    first, second = (torch.randn(1000, generator=derive_generator(*named)) for named in (one, other))
    assert not torch.equal(first, second)


def test_the_derived_state_is_the_mersenne_twister_of_its_words():
    """numpy's MT19937 from the same words gives the same numbers: torch takes the state as it is laid out here."""
    words = derive_words(7, 3, 100, "meta_step")
    peer = np.random.MT19937()
    peer.state = {
        "bit_generator": "MT19937",
        "state": {"key": np.frombuffer(words, "<u4").astype(np.uint32), "pos": 624},
    }
    generator = derive_generator(7, 3, 100, "meta_step")
    drawn = torch.empty(2000, dtype=torch.int64).random_(0, 2**20, generator=generator)
    assert drawn.tolist() == [int(one) % 2**20 for one in peer.random_raw(2000)]
    assert derive_generator(7, 3, 100, "meta_step").initial_seed() == derive_seed(7, 3, 100, "meta_step")


@pytest.mark.parametrize(
    ("named", "drawn"),
    [
        ((7, 3, 100, "meta_step"), [1288129171, 1556058391, 1939166156, 666841051]),
        ((0, "init"), [992467304, 1450940912, 2040511790, 1778495447]),
    ],
)
def test_the_second_derivation_keeps_its_streams(named, drawn):
    """What trials have drawn since this derivation landed: it must not change any more."""
    assert torch.randint(2**31, (4,), generator=derive_generator(*named)).tolist() == drawn


def test_what_is_drawn_has_its_distribution_and_survives_pickling():
    def generator() -> torch.Generator:
        return derive_generator(3, 1, "init")

    assert kstest(torch.randn(20_001, generator=generator()).numpy(), "norm").pvalue > 0.01
    assert kstest(torch.rand(20_001, generator=generator()).numpy(), "uniform").pvalue > 0.01
    assert sorted(torch.randperm(50, generator=generator()).tolist()) == list(range(50))
    used = generator()
    torch.randn(7, generator=used)  # leaves a cached normal draw behind
    again = pickle.loads(pickle.dumps(used))
    assert torch.equal(torch.randn(33, generator=again), torch.randn(33, generator=used))


def test_an_unknown_derivation_is_refused():
    with pytest.raises(ValueError, match="version 3 is of a newer metaloom"):
        derive_generator(0, "init", version=3)

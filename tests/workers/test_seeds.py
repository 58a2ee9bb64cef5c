"""Seeds depend on everything that names a draw, and on nothing else."""

import subprocess
import sys

import torch
from hypothesis import given
from hypothesis import strategies as st

from metaloom.workers.seeds import derive_generator, derive_seed

PARTS = st.lists(st.one_of(st.integers(0, 10**9), st.text(max_size=8)), max_size=4)


def test_a_seed_is_the_same_in_every_process():
    code = "from metaloom.workers.seeds import derive_seed; print(derive_seed(7, 3, 100, 'meta_step'))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(there.stdout) == derive_seed(7, 3, 100, "meta_step") == 4031248832721950938


@given(PARTS, PARTS, st.integers(0, 2**40))
def test_other_parts_give_another_seed(some, others, seed):
    equal = [(type(p), p) for p in some] == [(type(p), p) for p in others]
    assert (derive_seed(seed, *some) == derive_seed(seed, *others)) == equal
    assert 0 <= derive_seed(seed, *some) < 2**63


def test_a_generator_repeats():
    first, second = (torch.randn(5, generator=derive_generator(1, 2, "init")) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.randn(5, generator=derive_generator(1, 2, "begin")))

"""Derives the generator of every random draw of a trial from the seed and the names of the draw.

No generator is used for more than the draws of one purpose in one step, so none needs to be stored: a resumed trial
derives the same generators as the uninterrupted one.

Two derivations exist, and a trial's configuration names its own. Version 1 seeded torch's CPU generator with 63 bits,
of which ``manual_seed`` takes the low 32: two of about 77,000 generators share a stream with even odds. Version 2
derives all 19,968 bits of the generator's state. Trials that began with version 1 keep it, so that they resume bit for
bit.
"""

import hashlib
import json
import sys

import numpy as np
import torch

from metaloom.workers.records.names import FIRST_SEEDS_VERSION, SEEDS_VERSION

# torch's CPU generator state is a C struct of 5056 bytes (aten/src/ATen/CPUGeneratorImpl.cpp): uint64 initial
# seed, int32 left, int32 seeded, uint64 next, uint64 words[624] of 32 bits each, then the cached normal draws
_WORDS, _FIRST_WORD = 624, 24
_SEEDED = bytes(torch.Generator().manual_seed(0).get_state().numpy())


def derive_seed(seed: int, *parts: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on ``seed`` and on every part, in order.

    BLAKE2 rather than ``hash``: the same in every process and on every machine.
    """
    return int.from_bytes(hashlib.blake2b(_named(seed, parts), digest_size=8).digest(), "big") >> 1


def derive_words(seed: int, *parts: int | str, count: int = _WORDS) -> bytes:
    """Return the first words of a Mersenne Twister's state, 32 bits each, little-endian."""
    return hashlib.shake_128(_named(seed, parts)).digest(4 * count)


def derive_generator(seed: int, *parts: int | str, version: int = SEEDS_VERSION) -> torch.Generator:
    """Return a CPU generator for the draws that ``seed`` (the search's, or an episode's) and ``parts`` name.

    A trial's parts are (trial, step, purpose). ``version`` is the derivation, 1 or 2; raises ValueError for a newer
    one.
    """
    if version not in (FIRST_SEEDS_VERSION, SEEDS_VERSION):
        raise ValueError(f"seeds: version {version} is of a newer metaloom; this one has 1 and {SEEDS_VERSION}")
    generator, initial = torch.Generator(), derive_seed(seed, *parts)
    if version == FIRST_SEEDS_VERSION:
        return generator.manual_seed(initial)
    state = bytearray(_SEEDED)
    state[:8] = initial.to_bytes(8, sys.byteorder)
    np.frombuffer(state, np.uint64, _WORDS, _FIRST_WORD)[:] = np.frombuffer(derive_words(seed, *parts), "<u4")
    return generator.set_state(torch.frombuffer(state, dtype=torch.uint8))


def _named(seed: int, parts: tuple[int | str, ...]) -> bytes:
    """Serialize as JSON, so that (1, 23) and (12, 3) differ, and 1 and "1" too."""
    return json.dumps([int(seed), *parts]).encode()

"""Every random draw of a trial, from what names it.

No generator lives longer than the draws of one purpose in one step, so none needs
to be stored: a resumed trial derives the same generators as the uninterrupted one.

Two derivations exist, and a trial's configuration says which one is its own. Version 1
seeded torch's CPU generator with 63 bits, of which ``manual_seed`` takes the low 32: two of
about 77,000 generators share a stream with even odds. Version 2 derives all 19,968 bits of the
generator's state. Trials that began with version 1 keep it, so that they resume bit for bit.
"""

import hashlib
import json
import sys
from array import array

import torch

from metaloom.workers.records.names import FIRST_SEEDS_VERSION, SEEDS_VERSION

# torch's CPU generator state is a C struct of 5056 bytes (aten/src/ATen/CPUGeneratorImpl.cpp): uint64 initial
# seed, int32 left, int32 seeded, uint64 next, uint64 words[624] of 32 bits each, then the cached normal draws
_WORDS = 624
_SEEDED = bytes(torch.Generator().manual_seed(0).get_state().numpy())
_BEFORE_WORDS, _AFTER_WORDS = _SEEDED[8:24], _SEEDED[24 + 8 * _WORDS :]


def derive_seed(seed: int, *parts: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on ``seed`` and on every part, in order.

    BLAKE2 rather than ``hash``: the same in every process and on every machine.
    """
    return int.from_bytes(hashlib.blake2b(_named(seed, parts), digest_size=8).digest(), "big") >> 1


def derive_generator(seed: int, *parts: int | str, version: int = SEEDS_VERSION) -> torch.Generator:
    """Return a CPU generator for the draws that ``seed`` and ``parts`` name.

    Args:
        seed: The search's, or an episode's.
        parts: What else names the draws; a trial uses (trial, step, purpose).
        version: Which derivation, 1 or 2.

    Raises:
        ValueError: This version of metaloom does not have that derivation.
    """
    if version not in (FIRST_SEEDS_VERSION, SEEDS_VERSION):
        raise ValueError(f"seeds: version {version} is of a newer metaloom; this one has 1 and {SEEDS_VERSION}")
    own = derive_seed(seed, *parts)
    if version == FIRST_SEEDS_VERSION:
        return torch.Generator().manual_seed(own)
    words = array("Q", derive_words(seed, *parts)).tobytes()
    state = own.to_bytes(8, sys.byteorder) + _BEFORE_WORDS + words + _AFTER_WORDS
    generator = torch.Generator()
    generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return generator


def derive_words(seed: int, *parts: int | str, count: int = _WORDS) -> "array[int]":
    """Return the first words of 32 bits of a Mersenne Twister's state: SHAKE-128 of what names the draws."""
    words = array("I", hashlib.shake_128(_named(seed, parts)).digest(4 * count))
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _named(seed: int, parts: tuple[int | str, ...]) -> bytes:
    """Serialize as JSON, so that (1, 23) and (12, 3) differ, and 1 and "1" too."""
    return json.dumps([int(seed), *parts]).encode()

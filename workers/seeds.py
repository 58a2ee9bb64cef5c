"""Every random draw of a trial, from what names it.

No generator lives longer than the draws of one purpose in one step, so none needs
to be stored: a resumed trial derives the same generators as the uninterrupted one.
"""

import hashlib
import json

import torch


def derive_seed(seed: int, *parts: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on ``seed`` and on every part, in order.

    BLAKE2 rather than ``hash``: the same in every process and on every machine. The
    parts are serialized as JSON, so that (1, 23) and (12, 3) differ, and 1 and "1" too.
    """
    named = json.dumps([int(seed), *parts]).encode()
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "big") >> 1


def derive_generator(seed: int, *parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by ``derive_seed``; a trial uses (seed, trial, step, purpose)."""
    return torch.Generator().manual_seed(derive_seed(seed, *parts))

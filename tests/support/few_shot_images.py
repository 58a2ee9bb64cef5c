"""Small images of many classes in a file of numpy, for tests that need few-shot episodes in no time."""

from pathlib import Path

import numpy as np


def write_images(path: Path, *, classes: int = 15, each: int = 8, side: int = 8, seed: int = 0) -> Path:
    """Write grey images [n, side, side] of bytes: each class has a pattern of its own under noise."""
    draws = np.random.default_rng(seed)
    patterns = draws.uniform(0, 255, (classes, 1, side, side))
    x = np.clip(patterns + draws.normal(0, 40, (classes, each, side, side)), 0, 255).astype(np.uint8)
    np.savez(path, x=x.reshape(-1, side, side), y=np.repeat([f"class {c:02}" for c in range(classes)], each))
    return path

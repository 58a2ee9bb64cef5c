"""The store that the tests of pages look at: two small real searches.

``first`` has stopped and failed trials, a baseline, knobs of a choice of methods, and images.
``second`` is a regression.
"""

from pathlib import Path
from typing import Any

import metaloom

FIRST: dict[str, Any] = {
    "tasks": {"source": "glyphs", "ways": 3, "shots": 1, "queries": 3},
    "learner": {
        "search": [
            {"method": "maml", "update": {"rate": {"search": {"low": 0.001, "high": 1e9, "log": True}}, "steps": 2}},
            {"method": "meta_sgd"},
        ]
    },
    "outer": {
        "steps": 8, "meta_batch": 2, "validate_every": 2, "validation_episodes": 6, "test_episodes": 8,
        "strategy": "loop",
    },
    "search": {
        "trials": 7, "sampler": "random", "scheduler": {"kind": "asha", "grace_steps": 2},
        "baselines": ["nearest_neighbour"],
    },
}  # fmt: skip
RATES = (0.01, 1e9, 0.02)  # the second diverges, and its trial fails
SECOND: dict[str, Any] = {
    "tasks": {"source": "sinusoid", "shots": 5, "queries": 5},
    "learner": {"method": "maml", "update": {"rate": {"learn": {"start": 0.1}}, "steps": 2}},
    "outer": {
        "steps": 4, "meta_batch": 2, "validate_every": 2, "validation_episodes": 5, "test_episodes": 6,
        "rate": "search", "strategy": "loop",
    },
    "search": {"trials": 2, "sampler": "random"},
}  # fmt: skip


def make(store: Path) -> Path:
    """Run both searches in this process, and return the store."""
    known = [{"learner": "maml", "learner[maml].update.rate": rate} for rate in RATES]
    metaloom.search(FIRST, name="first", store=store, executor="inline", seed=1, enqueue=known)
    metaloom.search(SECOND, name="second", store=store, executor="inline", seed=2)
    return store

"""Search, export and adapt from Python: ``python examples/from_python.py``."""

import numpy as np

from metaloom import export, load_bundle, search

EXPERIMENT = {
    "tasks": {"source": "sinusoid", "shots": 10, "queries": 10},
    "learner": {
        "method": "maml",
        "architecture": {"kind": "mlp", "hidden": [40, 40]},
        "update": {"rate": {"search": {"low": 0.003, "high": 0.03, "log": True}}, "steps": 1, "evaluation_steps": 5},
    },
    "outer": {"steps": 200, "meta_batch": 10, "validate_every": 100, "validation_episodes": 50, "test_episodes": 100},
    "search": {"trials": 2},
}

if __name__ == "__main__":
    summary = search(EXPERIMENT, name="from-python", executor="inline")
    print(f"trial {summary.best} was the best of {summary.name}")
    folder = export(summary.name, "from-python-bundle", episodes=100)
    x = np.random.default_rng(1).uniform(-5, 5, size=(20, 1)).astype(np.float32)
    y = 2 * np.sin(x - 1)
    model = load_bundle(folder).adapt(x[:10], y[:10])
    error = np.square(model.predict(x[10:]) - y[10:]).mean()
    print(f"squared error on a new sinusoid after 5 steps: {error:.3f}")

"""Search, export and adapt from Python: ``python examples/from_python.py``."""

from pathlib import Path

from metaloom import load_bundle, search
from metaloom.orchestrator.export import export
from metaloom.workers.data import open_source

EXPERIMENT = {
    "tasks": {"source": "sinusoid", "shots": 10, "queries": 10},
    "learner": {
        "method": "maml",
        "architecture": {"kind": "mlp", "hidden": [40, 40]},
        "update": {"rate": {"search": {"low": 0.003, "high": 0.03, "log": True}}, "steps": 1, "evaluation_steps": 5},
    },
    "outer": {"steps": 200, "tasks": 10, "validate_every": 100, "validation_episodes": 50, "test_episodes": 100},
    "search": {"trials": 2},
}

if __name__ == "__main__":
    summary = search(EXPERIMENT, name="from-python", executor="inline")
    print(f"trial {summary.best} was the best of {summary.name}")
    folder = export(Path("metaloom-store"), summary.name, trial="best", out=Path("from-python-bundle"), episodes=100)
    source = open_source(EXPERIMENT["tasks"], seed=1, cache=Path("metaloom-store/cache"))
    episode = source.episode("test", 0).episode
    model = load_bundle(folder).adapt(episode.support_x, episode.support_y)
    error = (model.predict(episode.query_x) - episode.query_y).square().mean()
    print(f"squared error on a new sinusoid after 5 steps: {error:.3f}")

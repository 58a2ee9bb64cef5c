"""P5: a language model on the sentences of some domains, then intents of others with five labels each (CLINC150).

The network learns to predict the next word of the sentences of the six training domains, without their labels. Then it
is fine-tuned on five sentences of each of five intents of the test domains, and so is the same network from random
weights; each at the inner rate and length that the validation domains choose for it. The vocabulary is that of the
training domains in all rows.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reproductions.harness import Row, Seed, configured, mean_at, remembered, row, setting_of, train
from benchmarks.reproductions.zero_shot import data_path
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.records.names import VALIDATION
from metaloom.workers.records.results import mean_interval
from metaloom.workers.scoring import Evaluation, evaluate_learner
from metaloom.workers.trial.runner import Trial

STEPS = 3_000  # of the language model
CHOSEN_ON = 60  # validation episodes
RATES = (0.001, 0.003, 0.01)
LONGEST = 20  # inner steps
NETWORK = {"kind": "transformer", "causal": True, "width": 64, "layers": 2, "heads": 4}
BODY, SCRATCH, MEANS = "language model, fine-tuned", "random weights, fine-tuned", "class means"
LABELS, BAG = "prototypes learned from the training domains' labels", "random bag of words, fine-tuned"


def sentences(**settings: Any) -> dict[str, Any]:
    """Return the tasks section: sentences of CLINC150, whole domains held out, tested 5-way 5-shot."""
    path = data_path("clinc150.json", "METALOOM_CLINC150")
    sizes = {"ways": 5, "shots": 5, "queries": 8}
    return {"source": "text", "path": path, "split": "domain_split", **sizes, "evaluation": sizes, **settings}


def model_experiment() -> dict[str, Any]:
    """Return the pre-training: episodes of 80 sentences, of which the objective sees no label."""
    return {
        "tasks": sentences(ways=20, shots=2, queries=2),
        "learner": {"method": "language_model", "architecture": NETWORK},
        "outer": {
            "steps": STEPS,
            "rate": 0.002,
            "schedule": "cosine",
            "validate_every": STEPS // 6,
            "validation_episodes": CHOSEN_ON,
            "keep": "best",  # by class means on the validation domains
        },
    }


def fine_tuned(initialization: Mapping[str, Any], network: Mapping[str, Any], rate: float) -> dict[str, Any]:
    """Return fine-tuning of the whole network on the support set of each task."""
    return {
        "tasks": sentences(),
        "learner": {
            "method": "fine_tuning",
            "architecture": network,
            "initialization": initialization,
            "update": {"kind": "adam", "rate": rate, "steps": LONGEST},
        },
        "outer": {"steps": 0, "validation_episodes": 2},
    }


def labelled() -> dict[str, Any]:
    """Return prototypes that learn from the labels of the training domains, for as many steps of as many sentences."""
    return {
        "tasks": sentences(ways=20, shots=2, queries=2),
        "learner": {"method": "prototypical", "architecture": {**NETWORK, "causal": False}},
        "outer": {"steps": STEPS, "rate": 0.002, "schedule": "cosine", "validate_every": STEPS // 6, "keep": "best"},
    }


def model_of(seed: int, folder: Path, cache: Path) -> Path:
    """Train a language model, and return its bundle within ``folder``."""
    trial = Trial(configured(model_experiment(), seed), folder / "trial", cache=cache)
    while not trial.finished:
        report = trial.advance()
        loss, score = report.metrics["train_loss"], report.metrics[trial.metric]
        print(f"P5, seed {seed}, after {report.step:,} steps: {loss:.3f} a word, class means {score:.4f}", flush=True)
    return write_bundle(folder / "trial", folder / "bundle", origin={}, evaluation=None)


def best_test(
    initialization: Mapping[str, Any], network: Mapping[str, Any], seed: int, cache: Path
) -> dict[int, Evaluation]:
    """Choose the rate, and the length up to ``LONGEST``, by the validation domains; return the test with these."""
    found = []
    for rate in RATES:
        trained = train(fine_tuned(initialization, network, rate), seed=seed, cache=cache)
        learner = trained.trial.learner
        scored = evaluate_learner(learner, dict(trained.phi), trained.state, trained.source, VALIDATION, CHOSEN_ON)
        steps = max(range(1, LONGEST + 1), key=lambda step: mean_at(scored, step))
        found.append((mean_at(scored, steps), rate, steps, trained))
    score, rate, steps, best = max(found, key=lambda one: one[:3])
    print(f"P5, seed {seed}: validation chose rate {rate}, {steps} steps: {score:.4f}", flush=True)
    return {steps: best.test(learner={"update": {**best.config.learner["update"], "steps": steps}})}


def means(bundle: Path, seed: int, cache: Path) -> dict[int, Evaluation]:
    """Test class means on the features of the language model."""
    learner = {
        "architecture": NETWORK,
        "initialization": {"kind": "pretrained", "bundle": str(bundle)},
        "prediction": {"kind": "prototypes"},
    }
    outer = {"steps": 0, "validation_episodes": 2}
    return {0: train({"tasks": sentences(), "learner": learner, "outer": outer}, seed=seed, cache=cache).test()}


def measured(seed: int, cache: Path) -> dict[str, Seed]:
    """Return the tests of all rows of one seed, on one language model."""
    bag = {"kind": "text_bag", "width": 64, "hidden": 64}
    random: Mapping[str, Any] = {"kind": "random"}
    with tempfile.TemporaryDirectory() as folder:
        bundles: list[Path] = []

        def bundle() -> Path:
            bundles.extend([] if bundles else [model_of(seed, Path(folder), cache)])
            return bundles[0]

        def from_model() -> dict[int, Evaluation]:
            return best_test({"kind": "pretrained", "bundle": str(bundle())}, NETWORK, seed, cache)

        measures: dict[str, Callable[[], Mapping[int, Evaluation]]] = {
            BODY: from_model,
            MEANS: lambda: means(bundle(), seed, cache),
            SCRATCH: partial(best_test, random, NETWORK, seed, cache),
            BAG: partial(best_test, random, bag, seed, cache),
            LABELS: lambda: {STEPS: train(labelled(), seed=seed, cache=cache).test()},
        }
        return {name: remembered(f"P5-{name.replace(' ', '-')}", seed, cache, one) for name, one in measures.items()}


def p5(seeds: Sequence[int], cache: Path) -> list[Row]:
    """A language model's network beside random weights, each fine-tuned on five labels of each intent."""
    found = [{name: next(iter(one.tests.values())) for name, one in measured(seed, cache).items()} for seed in seeds]
    where = "CLINC150, 5-way 5-shot on the test domains"
    rows = [row("P5", f"{where}: {name}", [one[name] for one in found]) for name in found[0]]
    each = [
        [mine - theirs for mine, theirs in zip(one[BODY].scores, one[SCRATCH].scores, strict=True)] for one in found
    ]
    _, low, high = mean_interval([value for one in each for value in one])
    values = tuple(sum(one) / len(one) for one in each)
    what, setting = f"{where}: {BODY} less {SCRATCH}, paired", setting_of(found[0][BODY])
    return [*rows, Row("P5", what, values, (low, high), "its interval above 0", low > 0, setting)]

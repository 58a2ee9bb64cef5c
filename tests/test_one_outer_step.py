"""docs/one_outer_step.md: its code runs, and is equal to the engine on the same episodes and meta-knowledge."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from metaloom.learners.tensors import Tensors
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.assembly import Assembly, assemble
from metaloom.workers.outer import OPTIMIZERS
from metaloom.workers.records.names import VALIDATION_LOSS
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_learner
from metaloom.workers.seeds import derive_generator
from metaloom.workers.trial.runner import Trial

PAGE = Path(__file__).resolve().parents[1] / "docs" / "one_outer_step.md"
SEED, VALIDATION_EPISODES = 7, 5
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.S)
    return found


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(block("python"), str(PAGE), "exec"), names)
    return names


@pytest.fixture(scope="module")
def config() -> TrialConfig:
    experiment = load_experiment(yaml.safe_load(block("yaml")))
    one = resolve(experiment, defaults(experiment))
    return TrialConfig("page", 0, SEED, one.tasks, one.learner, one.inner, one.outer, one.resources)


@pytest.fixture(scope="module")
def parts(config: TrialConfig, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    return assemble(config, cache=tmp_path_factory.mktemp("cache"))


def start(parts: Assembly) -> Tensors:
    """Return the meta-knowledge before the first outer step, as a trial of this seed draws it."""
    return {name: leaf.double() for name, leaf in parts.learner.init(derive_generator(SEED, 0, 0, "init")).items()}


def test_the_page_is_at_most_eighty_lines_of_plain_torch() -> None:
    code = block("python")
    assert len(code.splitlines()) <= 80
    assert set(re.findall(r"^(?:import|from) (\w+)", code, flags=re.M)) == {"math", "numpy", "torch"}


def test_the_episodes_are_the_source_s(page: dict[str, Any], parts: Assembly) -> None:
    for split in ("train", "validation"):
        for index in range(3):
            (support_x, support_y), (query_x, query_y) = page["sample_episode"](SEED, page[split.upper()], index)
            episode = parts.source.episode(split, index).episode
            for ours, pages in zip(
                (episode.support_x, episode.support_y, episode.query_x, episode.query_y),
                (support_x, support_y, query_x, query_y),
                strict=True,
            ):
                assert torch.equal(ours.double(), pages)


def test_every_outer_step_is_the_engine_s(page: dict[str, Any], parts: Assembly) -> None:
    engine, pages, moments = start(parts), start(parts), {}
    state = parts.learner.begin(engine, torch.Generator())
    begin, update = OPTIMIZERS["adam"]
    optimizer = begin(engine)
    for number in range(3):
        drawn = [parts.source.episode("train", 4 * number + place).episode for place in range(4)]
        episodes = [episode.to(torch.device("cpu"), torch.float64) for episode in drawn]
        meta = parts.learner.meta_step(engine, state, episodes, torch.Generator())
        sampled = [page["sample_episode"](SEED, page["TRAIN"], 4 * number + place) for place in range(4)]
        loss, gradient = page["hypergradient"](engine, sampled)
        assert loss == pytest.approx(meta.loss, rel=1e-12)
        for (name, ours), pages_own in zip(meta.gradient.items(), gradient, strict=True):
            torch.testing.assert_close(ours, pages_own, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
        assert float(meta.gradient["update/rate"].abs()) > 1e-3
        state = meta.state or state
        engine, optimizer = update(engine, meta.gradient, optimizer, page["OUTER_RATE"])
        pages, _ = page["outer_step"](pages, moments, SEED, number)
        for name in engine:
            torch.testing.assert_close(engine[name], pages[name], **CLOSE)
    evaluation = evaluate_learner(
        parts.learner, engine, state, parts.source, "validation", VALIDATION_EPISODES, device=parts.device
    )
    assert page["validate"](pages, SEED, VALIDATION_EPISODES) == pytest.approx(evaluation.mean, rel=1e-12)


def test_a_trial_of_the_page_s_experiment_comes_to_the_page_s_numbers(
    page: dict[str, Any], config: TrialConfig, parts: Assembly, tmp_path: Path
) -> None:
    trial = Trial(config, tmp_path / "trial", cache=tmp_path / "cache")
    while not trial.finished:
        report = trial.advance()
    phi, moments = start(parts), {}
    for number in range(3):
        phi, _ = page["outer_step"](phi, moments, SEED, number)
    for name, leaf in trial.phi.items():
        torch.testing.assert_close(leaf, phi[name], **CLOSE)
    assert report.metrics[VALIDATION_LOSS] == pytest.approx(page["validate"](phi, SEED, VALIDATION_EPISODES), rel=1e-12)


def test_the_files_beside_the_page_define_what_it_names() -> None:
    rows = re.findall(r"`([\w/]+\.py)`: `([\w.]+)`", PAGE.read_text())
    assert len(rows) >= 15
    for path, name in rows:
        source = (PAGE.parents[1] / path).read_text()
        for part in name.split("."):
            assert re.search(rf"^\s*(?:class|def) {part}\b", source, flags=re.M), f"{path} defines no {part}"

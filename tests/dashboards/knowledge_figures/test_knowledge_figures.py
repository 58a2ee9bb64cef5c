"""What was learned is drawn, and said in words, from a trial's own records."""

from pathlib import Path
from typing import Any

import pytest
import torch

from metaloom.dashboards.canvas import png
from metaloom.dashboards.knowledge_facts.optimizers import moves
from metaloom.dashboards.knowledge_figures import DRAWERS, FACTS, TrialKnowledge, pictures, read_knowledge
from metaloom.learners import SLOTS, build_learner
from metaloom.learners.episode import TaskShape
from metaloom.learners.knowledge.update_rules.learned_optimizers import LearnedOptimizer
from metaloom.learners.tensors import InnerState
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.trial.runner import Trial

TASK = TaskShape("regression", (1,), 1)
SMALL = {"kind": "mlp", "hidden": [3]}


def known(update: dict[str, Any], **slots: Any) -> TrialKnowledge:
    learner = {"architecture": SMALL, "initialization": {"kind": "learned"}, "update": update, **slots}
    phi = build_learner(learner=learner, inner={}, outer={}, task=TASK).init(torch.Generator().manual_seed(0))
    return TrialKnowledge(learner, TASK, phi, {})


def test_every_kind_names_its_slot() -> None:
    assert all(name.split(".")[0] in SLOTS for name in {*DRAWERS, *FACTS})


def test_names_of_files_are_safe_and_differ() -> None:
    drawn = pictures(known({"rate": {"learn": {"per": "layer", "start": 0.1}}}))
    names = [picture.name for picture in drawn]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in names)


@pytest.mark.parametrize(
    ("per", "bars", "lines"),
    [("scalar", 1, 0), ("layer", 4, 0), ("parameter", 4, 0), ("step", 0, 1), ("layer_step", 0, 4)],
)
def test_rates_are_drawn_at_their_granularity(per: str, bars: int, lines: int) -> None:
    (picture,) = pictures(known({"rate": {"learn": {"per": per, "start": 0.1}}, "steps": 3}))
    (axes,) = picture.figure.axes
    assert (len(axes.patches), len([line for line in axes.get_lines() if line.get_marker() == "o"])) == (bars, lines)
    assert picture.name == "rates"
    assert "0.1" in picture.caption
    assert png(picture.figure).startswith(b"\x89PNG")


def test_each_learned_setting_has_a_panel_and_a_sentence() -> None:
    update = {
        "rate": {"learn": {"per": "layer", "start": 0.1}},
        "momentum": {"learn": {"start": 0.5}},
        "weight_decay": {"learn": {"start": 0.01}},
    }
    found = known(update)
    found.phi["update/rate/head.bias"].fill_(0.7)
    (picture,) = pictures(found)
    assert [axes.get_xlabel() for axes in picture.figure.axes] == ["rate", "momentum", "weight_decay"]
    assert picture.caption == (
        "Learned rate: on average smallest for layer0.weight (0.1), largest for head.bias (0.7). "
        "Learned momentum: 0.5 for all layers. Learned weight_decay: 0.01 for all layers."
    )


def test_a_learned_optimizer_is_drawn_as_a_function_of_the_gradient() -> None:
    found = known({"kind": "learned_optimizer", "hidden": 4, "steps": 2})
    (picture,) = pictures(found)
    (axes,) = picture.figure.axes
    drawn = [line for line in axes.get_lines() if len(line.get_xdata()) > 2]
    assert len(drawn) == 3
    ((rule, phi),) = found.members("update")
    assert isinstance(rule, LearnedOptimizer)
    slopes = torch.tensor([0.01, 1.0])
    small, large = moves(rule, phi, slopes, 20).tolist()
    assert f"{small:.3g} for a gradient of 0.01, {large:.3g} for a gradient of 1" in picture.caption
    state = InnerState({"x": torch.zeros(2)}, rule.begin({"x": torch.zeros(2)}))
    for _ in range(20):
        before, state = state, rule.step(phi, state, {"x": slopes}, 0)
    moved = (state.theta["x"] - before.theta["x"]) / 0.1
    torch.testing.assert_close(moved, moves(rule, phi, slopes, 20), rtol=1e-4, atol=1e-6)


def test_the_meta_learners_gates_are_drawn() -> None:
    (picture,) = pictures(known({"kind": "meta_lstm", "hidden": 4, "rate": 0.05, "gate_spread": 0.0, "steps": 2}))
    assert picture.name == "optimizer"
    assert "a rate from 0.05 to 0.05" in picture.caption
    assert [axes.get_ylabel() for axes in picture.figure.axes] == ["rate (input gate)", "kept (forget gate)"]


def test_where_nothing_is_learned_nothing_is_drawn() -> None:
    assert pictures(known({"rate": 0.1})) == []


def test_a_trial_is_read_from_its_folder(tmp_path: Path) -> None:
    learner = {"architecture": SMALL, "update": {"rate": {"learn": {"start": 0.05}}, "steps": 1}}
    outer = {"steps": 1, "meta_batch": 1, "validate_every": 1, "validation_episodes": 2, "rate": 0.01}
    config = TrialConfig(
        search="first",
        trial=0,
        seed=0,
        tasks={"source": "sinusoid"},
        learner=learner,
        inner={},
        outer=outer,
        resources={},
    )
    trial = Trial(config, tmp_path / "trial", cache=tmp_path / "cache")
    trial.advance()
    found = read_knowledge(tmp_path / "trial")
    assert float(found.phi["update/rate"]) == float(trial.phi["update/rate"])
    (picture,) = pictures(found)
    assert f"{float(trial.phi['update/rate']):.4g}" in picture.caption

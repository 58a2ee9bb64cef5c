"""docs/bilevel.md runs, and each of its hypergradients is its closed form."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metaloom.learners import ESTIMATORS, PROBLEMS
from metaloom.learners.errors import LearnerError
from metaloom.orchestrator.errors import SearchError
from metaloom.testing.problems import relative_error

CHEAP = {"neumann": {"alpha": 0.05}, "evolution_strategies": {"pairs": 1}}
PAGE = Path(__file__).parents[1] / "docs" / "bilevel.md"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """Run the page's code, one block after another, and return its names."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def hessian(page: dict[str, Any]) -> Tensor:
    found: Tensor = page["x"].T @ page["x"] / len(page["x"])
    return found


def outer_slope(page: dict[str, Any], w: Tensor) -> Tensor:
    found: Tensor = page["x_val"].T @ (page["x_val"] @ w - page["y_val"]) / len(page["x_val"])
    return found


def test_a_problem_takes_at_most_ten_lines() -> None:
    posed = re.findall(
        r"^\w+ = metaloom\.bilevel\(\n.*?^\)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert len(posed) == 5
    assert all(len(one.splitlines()) <= 10 for one in posed)


def test_ridge_penalties(page: dict[str, Any]) -> None:
    penalties = torch.full((3,), -1.0, dtype=torch.float64).exp()
    full = hessian(page) + torch.diag(penalties)
    w = torch.linalg.solve(full, page["x"].T @ page["y"] / 20)
    exact = -penalties * w * torch.linalg.solve(full, outer_slope(page, w))
    assert relative_error(page["found"].gradient["log_penalty"], exact) < 1e-10


def test_influences(page: dict[str, Any]) -> None:
    full = hessian(page) + 0.1 * torch.eye(3, dtype=torch.float64)
    w = torch.linalg.solve(full, page["x"].T @ page["y"] / 20)
    exact = -(page["x"] @ w - page["y"]) * (page["x"] @ torch.linalg.solve(full, outer_slope(page, w))) / 20
    assert relative_error(page["influences"], exact) < 1e-10


def test_proximal_with_decay(page: dict[str, Any]) -> None:
    full = hessian(page) + 2.4 * torch.eye(3, dtype=torch.float64)
    w = torch.linalg.solve(full, page["x"].T @ page["y"] / 20)
    exact = 2 * torch.linalg.solve(full, outer_slope(page, w))
    assert relative_error(page["at_the_solution"], exact) < 1e-10


def test_the_rate_of_one_step(page: dict[str, Any]) -> None:
    first = -page["x"].T @ page["y"] / 20
    rate = page["one_step"].initial(torch.Generator())["update/rate"]  # 0.1, rounded to float32 where it was drawn
    exact = -(outer_slope(page, -rate * first) * first).sum()
    assert relative_error(page["slope"], exact) < 1e-10


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("name", ["ridge", "influence", "proximal", "one_step", "sampled"])
def test_every_estimator_answers_or_is_refused(page: dict[str, Any], name: str, kind: str) -> None:
    """Posed directly too: nothing returns zero for what it is blind to."""
    posed = page[name]
    try:
        gradient = posed.hypergradient(estimator=kind, **CHEAP.get(kind, {})).gradient
    except LearnerError as refusal:
        assert re.search("no signal to|restarts", str(refusal))
        assert not ESTIMATORS[kind].exact
        return
    assert all(bool(value.abs().max() > 0) for value in gradient.values())
    if ESTIMATORS[kind].exact:
        exact = posed.hypergradient(estimator="unroll").gradient
        assert all(relative_error(gradient[leaf], exact[leaf]) < 1e-10 for leaf in exact)


@pytest.mark.parametrize("kind", ["conjugate_gradient", "fixed_point", "first_order", "displacement", "direct"])
def test_a_learned_rate_is_refused_where_the_estimator_is_called_itself(page: dict[str, Any], kind: str) -> None:
    posed = page["one_step"]
    problem, phi = posed.problem(), posed.initial(torch.Generator())
    with pytest.raises(
        LearnerError, match=f"{kind} gives no signal to 'update/rate', which takes part in update alone"
    ):
        ESTIMATORS[kind](ESTIMATORS[kind].Config())(problem, phi)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phi": {"c": torch.ones(3), "nothing": torch.zeros(2)}}, "'nothing' takes no part in start, inner or outer"),
        ({"phi": {"update/rate": torch.zeros(())}}, "the name 'update/rate' is kept"),
        ({"inner": lambda phi, theta: theta["w"]}, r"inner: must return a tensor of no dimensions, got .*\(3,\)"),
        ({"inner": lambda phi, theta: phi["c"].sum()}, "inner: it does not depend on theta"),
        ({"outer": lambda phi, theta: 1.0}, "outer: must return a tensor of no dimensions, got a float"),
        ({"momentun": 0.9}, "momentun.*momentum"),
        ({"update": "sdg"}, "sdg.*sgd"),
    ],
)
def test_what_does_not_fit_is_said_at_once(page: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    plain = {
        "inner": lambda phi, theta: (theta["w"] - phi["c"]).square().sum(),
        "outer": lambda phi, theta: theta["w"].square().sum(),
        "phi": {"c": torch.ones(3)},
        "start": {"w": torch.zeros(3)},
    }
    given = {**plain, **changes}
    with pytest.raises(LearnerError, match=message):
        page["metaloom"].bilevel(given.pop("inner"), given.pop("outer"), **given)


def test_decoupled_decay_is_refused_at_a_stationary_point(page: dict[str, Any]) -> None:
    with pytest.raises(LearnerError, match="moves the parameters where it is zero"):
        decayed = page["ridge"].with_update({"kind": "adamw", "steps": 5})
        decayed.hypergradient(estimator="conjugate_gradient")


@pytest.mark.parametrize("name", ["ridge", "sampled"])
def test_check_train_and_search_take_it(page: dict[str, Any], name: str, tmp_path: Path) -> None:
    checked, trained, searched = page["check_train_and_search"](page[name], tmp_path)
    assert checked["verdict"].startswith("Every hypergradient is exact"), checked["knobs"]
    assert trained.state == searched.state == "finished"
    assert not trained.failed and not searched.failed
    assert trained.value < float(page[name].hypergradient().outer.loss) or name == "sampled"


def test_a_registered_problem_is_named_in_an_experiment(page: dict[str, Any], tmp_path: Path) -> None:
    assert PROBLEMS["ridge"]() is page["ridge"]
    trained = page["metaloom"].train(
        page["experiment"],
        overrides=["outer.steps=2", "outer.validation_episodes=2", "outer.test_episodes=2", "outer.strategy=loop"],
        store=tmp_path,
    )
    assert trained.state == "finished"
    with pytest.raises(SearchError, match=r"learner\.architecture: plays no part"):
        page["metaloom"].train(page["experiment"], overrides=["learner.architecture=linear"], store=tmp_path)

"""What does not go together is refused before anything is started or written, member by member of each choice."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metaloom.learners.errors import BadInput
from metaloom.orchestrator import api, rehearsal
from metaloom.orchestrator.hypergradient_check import check_experiment
from metaloom.orchestrator.rehearsal import rehearse
from metaloom.search_spaces.loading import load_experiment, preset_names

FILE = """\
tasks: {source: sinusoid, shots: 5, queries: 5}
learner:
  search:
    - method: maml
    - method: meta_sgd
      architecture:
        search: [mlp, {kind: conv4, channels: 8}]
outer: {steps: 2, meta_batch: 2}
search: {trials: 2, sampler: random}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all presets: the glyphs are drawn once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["learner={method: maml, architecture: conv4}"], ["--set learner=", "learner.architecture", "use mlp"]),
        (["inner.mode=online", "learner=maml"], ["--set inner.mode=online", "use episodic"]),
        (["learner=maml", "outer.hypergradient=neumann"], ["--set outer.hypergradient", "inner.proximal above 0"]),
        (["learner=maml", "outer.hypergradient=conjugate_gradient"], ["--set outer.hyper", "inner.proximal above 0"]),
        (["search.baselines=[nearest_neighbour]", "learner=maml"], ["nearest_neighbour", "needs classes"]),
        (["learner[meta_sgd].update.steps=1"], ["experiment.yaml:", "learner[meta_sgd].architecture is conv4"]),
    ],
)
def test_what_does_not_go_together_is_refused_with_nothing_written(
    tmp_path: Path, changes: list[str], told: list[str]
) -> None:
    (tmp_path / "experiment.yaml").write_text(FILE)
    with pytest.raises(BadInput) as refused:
        api.search(
            tmp_path / "experiment.yaml", overrides=changes, store=tmp_path / "store", name="x", executor="inline"
        )
    for part in told:
        assert part in str(refused.value)
    assert not (tmp_path / "store").exists()


def test_a_refusal_leaves_a_store_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(BadInput):
        api.train("quick", overrides=["inner.mode=online"], store=tmp_path / "store")
    assert list((tmp_path / "store" / "searches").iterdir()) == []


def test_a_complaint_of_two_fields_has_the_place_of_the_first(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "file.yaml").write_text("tasks: {source: glyphs, ways: 5}\nlearner: prototypical\n")
    with pytest.raises(BadInput, match=r"^--set tasks.shots=500: tasks.shots, tasks.queries: 500 shots"):
        rehearse(load_experiment(tmp_path / "file.yaml", ["tasks.shots=500"]), cache=cache)


def test_a_complaint_of_a_data_file_names_the_field_that_led_to_it(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(
        "a,label\n" + "".join(f"{'nan' if row == 3 else row / 7},{row % 12}\n" for row in range(240))
    )
    tasks = f"{{source: table, path: {tmp_path}/table.csv, label: label, ways: 2, shots: 1, queries: 1}}"
    (tmp_path / "file.yaml").write_text(f"tasks: {tasks}\nlearner: prototypical\n")
    with pytest.raises(BadInput, match=r"^file\.yaml:1: tasks\.path: /.*table\.csv: a value that is missing"):
        api.search(tmp_path / "file.yaml", store=tmp_path / "store")


def test_more_ways_than_glyphs_are_refused_before_one_is_drawn(tmp_path: Path) -> None:
    changes = ["tasks={source: glyphs, ways: 2000}", "learner=prototypical"]
    with pytest.raises(BadInput, match="2000 ways need as many classes"):
        api.search("quick", overrides=changes, store=tmp_path / "store", executor="inline")
    with pytest.raises(BadInput, match="2000 ways need as many classes"):
        check_experiment("quick", changes, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


NARROW = "architecture: {search: [{kind: mlp, hidden: [8]}, {kind: mlp, hidden: %s}]}"
DISTILLED = "data: {kind: distilled, per_class: 10000000000}"
WIDE = [
    ("method: maml, " + NARROW % "[6000, 6000, 6000]", "learner.architecture: this machine has not"),
    ("method: maml, " + NARROW % "[4000000, 4000000]", r"\(58.21 TiB were asked for at once\)"),
    ("method: maml, " + NARROW % f"[{10**13}, {10**13}]", "learner.architecture: this machine has not"),
    (f"method: cross_entropy, architecture: mlp, {DISTILLED}", "or make the data itself smaller"),
]


@pytest.mark.parametrize(("learner", "told"), WIDE)
def test_what_memory_cannot_hold_is_refused_at_its_place(
    tmp_path: Path, learner: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SimpleNamespace(available=2**28)  # a machine that a test need not fill
    monkeypatch.setattr(rehearsal.psutil, "virtual_memory", lambda: small)
    tasks = "{source: digits}" if "distilled" in learner else "{source: sinusoid}"
    (tmp_path / "file.yaml").write_text(f"tasks: {tasks}\nlearner: {{{learner}}}\ninner: {{mode: episodic}}\n")
    with pytest.raises(BadInput, match=rf"^file\.yaml:2: .*{told}"):
        api.search(tmp_path / "file.yaml", store=tmp_path / "store", executor="inline")


def test_both_ends_of_a_range_of_the_tasks_are_tried(tmp_path: Path) -> None:
    classes = {"source": "digits", "shots": {"search": {"low": 1, "high": 100_000}}}
    document: dict[str, Any] = {"tasks": classes, "learner": "cross_entropy", "inner": {"mode": "episodic"}}
    with pytest.raises(BadInput, match="shots"):
        rehearse(load_experiment(document), cache=tmp_path)


OF_FILES = ("intents", "omniglot", "transductive", "zero-shot")  # the presets that need the user's data, or a bundle


@pytest.mark.parametrize("preset", [name for name in preset_names() if not any(one in name for one in OF_FILES)])
def test_every_preset_passes(cache: Path, preset: str) -> None:
    rehearse(load_experiment(preset), cache=cache)


def test_what_of_the_data_is_not_used_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = "".join(f"row{row},{row},k{row % 20}\n" for row in range(200))
    (tmp_path / "table.csv").write_text("id,x,kind\n" + rows)
    tasks = {"source": "table", "path": str(tmp_path / "table.csv"), "label": "kind", "shots": 1, "queries": 1}
    experiment = {"tasks": {**tasks, "ways": {"search": [2, 3]}}, "learner": "prototypical"}
    with caplog.at_level(logging.WARNING, "metaloom"):
        rehearse(load_experiment(experiment), cache=tmp_path / "cache")
    advice = "(tasks.categories: one_hot or target takes text)"
    assert caplog.messages == [
        f"tasks: not used as features, since they hold no numbers: 'id' {advice}",
        "tasks: 1 feature: 'x' (whole number)",
    ]

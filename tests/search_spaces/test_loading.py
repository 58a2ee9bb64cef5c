"""From a file or a preset's name to an experiment."""

import json
import os
from pathlib import Path

import jsonschema
import pytest

from metaloom import Experiment
from metaloom.learners import METHODS
from metaloom.orchestrator.proposing.samplers.grid import Grid
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.json_schema import json_schema
from metaloom.search_spaces.loading import load_experiment, preset_names, preset_path, presets
from metaloom.search_spaces.reading.document import read_yaml
from metaloom.search_spaces.resolve import Given, baseline, defaults, resolve, searched_knobs

EXPECTED = {
    "autoencoder-digits",
    "class-imbalance",
    "core-set",
    "default",
    "digits-darts",
    "distilled-digits",
    "families",
    "five-kinds",
    "gdas",
    "genotype-search",
    "gradient-matching",
    "intents",
    "learned-augmentation",
    "learned-loss",
    "learned-optimizer",
    "many-series",
    "memory",
    "learned-reward",
    "multi-objective",
    "navigation",
    "noisy-digits",
    "omniglot-maml",
    "omniglot-prototypical",
    "quick",
    "rand-augment",
    "reweighting",
    "search-of-searches",
    "sinusoid-knob-modes",
    "sinusoid-maml",
    "sinusoid-meta-lstm",
    "sinusoid-meta-sgd",
    "sinusoid-methods",
    "stages",
    "transductive",
    "which-kinds",
    "zero-shot-animals",
    "zero-shot-intents",
}


def refusal(source) -> str:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(source)
    return str(caught.value)


def test_a_preset_that_does_not_exist():
    message = refusal("sinusoid-mamml")
    assert message.startswith("no file and no preset is named 'sinusoid-mamml'; did you mean 'sinusoid-maml'?")


def test_a_file_that_does_not_exist(tmp_path):
    (tmp_path / "search.yaml").write_text("tasks: sinusoid\nlearner: maml")
    assert f"did you mean '{tmp_path / 'search.yaml'}'?" in refusal(tmp_path / "serch.yaml")
    assert f"its folder {tmp_path / 'none'} does not exist" in refusal(str(tmp_path / "none" / "x.yaml"))
    assert "is a folder" in refusal(tmp_path)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"tasks: sinusoid\nname: \xff\n")
    assert refusal(path) == "x.yaml:2: not UTF-8 text: the byte 0xff; save the file as UTF-8"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("tasks: sinusoid")
    path.chmod(0)
    assert "cannot read it: Permission denied" in refusal(path)


def test_a_file_wins_over_a_preset_of_its_name(tmp_path, monkeypatch):
    Path(tmp_path, "quick").write_text("tasks: sinusoid\nlearner: anil\n")
    monkeypatch.chdir(tmp_path)
    assert load_experiment("quick").learner == "anil"


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbftasks: sinusoid\r\nlearner: maml\r\n")
    assert load_experiment(path).learner == "maml"


def test_the_presets_are_those_that_the_documentation_names():
    assert set(preset_names()) == EXPECTED
    with pytest.raises(ExperimentError, match="did you mean 'quick'"):
        preset_path("quik")


def test_every_preset_says_what_it_shows():
    for info in presets():
        assert info.title and info.shows and 0 < info.minutes <= 60


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_preset_resolves(name):
    experiment = load_experiment(name)
    assert experiment.name == name
    assert searched_knobs(experiment)
    json.dumps(vars(resolve(experiment, defaults(experiment))))
    for method in experiment.search.baselines:
        baseline(experiment, method)


def test_the_default_search_chooses_among_four_methods_each_with_its_own_knobs():
    experiment = load_experiment("default")
    knobs = searched_knobs(experiment)
    assert set(knobs["learner"].options) == {"maml", "meta_sgd", "anil", "prototypical"}
    for method in knobs["learner"].options:
        assert any(name.startswith(f"learner[{method}].") for name in knobs)
    assert experiment.search.trials >= 12


def test_which_kinds_has_a_baseline_for_each_kind_alone():
    experiment = load_experiment("which-kinds")
    usual = resolve(experiment, defaults(experiment)).knobs
    alone = [{}]
    for name, domain in searched_knobs(experiment).items():
        alone += [{name: option} for option in domain.options if option != usual[name]]
    listed = list(experiment.search.baselines)
    assert len(listed) == len(alone) and all(one in listed for one in alone)


def test_the_schema_is_sound_and_takes_every_preset():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for name in preset_names():
        document = read_yaml(preset_path(name).read_text(), name).data
        assert not list(validator.iter_errors(document)), name


@pytest.mark.parametrize(
    "document",
    [
        {"tasks": "glyps", "learner": "maml"},
        {"tasks": "glyphs"},
        {"tasks": "glyphs", "learner": {"method": "maml", "updat": {}}},
        {"tasks": "glyphs", "learner": {"method": "maml", "update": {"rte": 1}}},
        {"tasks": "glyphs", "learner": {"method": "maml", "update": {"steps": "learn"}}},
        {"tasks": "glyphs", "learner": "maml", "outer": {"steps": "many"}},
        {"tasks": "glyphs", "learner": "maml", "search": {"sampler": "tpee"}},
        {"tasks": "glyphs", "learner": "maml", "serch": {}},
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(document):
    assert list(jsonschema.Draft202012Validator(json_schema()).iter_errors(document))
    with pytest.raises(ExperimentError):
        Experiment(**document)


@pytest.mark.parametrize("method", METHODS)
def test_the_schema_takes_every_method(method):
    validator = jsonschema.Draft202012Validator(json_schema())
    learner = {"search": [method, {"method": method, "architecture": "conv4", "initialization": "learn"}]}
    assert not list(validator.iter_errors({"tasks": "glyphs", "learner": learner, "search": {"scheduler": None}}))


@pytest.mark.parametrize(
    "settings", [{"warm_start": "first"}, {"warm_start": {"search": "first", "trials": 2}}, {"objectives": ["seconds"]}]
)
def test_the_schema_takes_what_is_given_by_its_name(settings):
    document = {"tasks": "glyphs", "learner": "maml", "search": settings}
    Experiment(**document)
    assert not list(jsonschema.Draft202012Validator(json_schema()).iter_errors(document))


def test_an_unknown_method_hides_nothing_else(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("tasks: sinusoid\nlearner:\n  method: mamal\n  update: {stepps: 3}\nouter: {stepz: 4}\n")
    message = refusal(path)
    assert "did you mean 'maml'?" in message
    assert "did you mean 'steps'?" in message and "x.yaml:4" in message and "x.yaml:5" in message


def test_the_layers_of_an_autoencoder_have_one_control():
    experiment = load_experiment("autoencoder-digits")
    points = []
    while point := Grid().point(len(points), lambda suggest: resolve(experiment, suggest)):
        points.append(resolve(experiment, Given(point, {})).learner["initialization"])
    assert [(one["layers"], one["freeze"]) for one in points] == [
        *((1, False), (1, True), (2, False), (2, True), (0, False))
    ]
    assert len(points) == experiment.search.trials

"""An experiment's errors: all at once, each with its line, its path and what to write instead."""

import pickle
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metaloom import Experiment
from metaloom.learners.domains import Choice, Int, Learned, Real
from metaloom.learners.errors import BadInput
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.reading.document import read_yaml
from metaloom.search_spaces.resolve import defaults, resolve, searched_knobs

MAML = {"tasks": "sinusoid", "learner": "maml"}


SEARCHED = """\
tasks: sinusoid
learner:
  method: maml
  architecture: {activation: {search: [relu, tanh]}}
  update: {rate: {search: {low: 0.01, high: 1.0}}, steps: {search: {low: 1, high: 3}}}
search: {baselines: [%s]}
"""


def with_(**sections):
    return {**MAML, **sections}


MANY_MISTAKES = """\
name: ../evil
seed: 1.5
tasks: {source: glyps}
learner:
  method: maml
  updat: {}
  architecture: {kind: conv4, channels: learn}
  update:
    rate: {search: {low: 1.0, high: 0.01}}
    momentum: {search: {low: 0, high: 0.5, log: true}}
    steps: many
  loss: learn
inner: {batch_nrm: batch}
outer:
  steps: 150.5
  hypergradient: first_ordr
search:
  trials: 0
  sampler: {kind: tpe, startup_trial: 3}
  scheduler: ahsa
  objectives: [validation_acuracy]
resources: {device: gpu}
trackng: {}
"""


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(complaints):
    places = [complaint.split(": ")[:2] for complaint in complaints(MANY_MISTAKES)]
    assert places == [
        ["search.yaml:1", "name"],
        ["search.yaml:2", "seed"],
        ["search.yaml:3", "tasks.source"],
        ["search.yaml:6", "learner.updat"],
        ["search.yaml:7", "learner.architecture.channels"],
        ["search.yaml:9", "learner.update.rate.search"],
        ["search.yaml:10", "learner.update.momentum.search"],
        ["search.yaml:11", "learner.update.steps"],
        ["search.yaml:12", "learner.loss"],
        ["search.yaml:13", "inner.batch_nrm"],
        ["search.yaml:15", "outer.steps"],
        ["search.yaml:16", "outer.hypergradient"],
        ["search.yaml:18", "search.trials"],
        ["search.yaml:19", "search.sampler.startup_trial"],
        ["search.yaml:20", "search.scheduler"],
        ["search.yaml:21", "search.objectives[0]"],
        ["search.yaml:22", "resources.device"],
        ["search.yaml:23", "trackng"],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: glyps\nlearner: maml", "no task source is named 'glyps'; did you mean 'glyphs'?"),
        ("tasks: sinusoid", "learner: not given, and has no default"),
        ("learner: maml", "tasks: not given, and has no default"),
        (
            "tasks: {shots: 3}\nlearner: maml",
            "tasks.source: not given; name the task source "
            "(allowed: arrays, awa1, bilevel, cifar_fs, clinc150, cub, digits",
        ),
        ("tasks: folder\nlearner: maml", "tasks.path: not given, and has no default; give a text"),
        (
            "tasks: {source: glyphs, wayz: 5}\nlearner: maml",
            "no setting of glyphs is named 'wayz'; did you mean 'ways'?",
        ),
        (
            "tasks: {source: sinusoid, ways: 5}\nlearner: maml",
            "it is a setting of arrays, awa1, cifar_fs, clinc150, cub, fc100, folder, glyphs, many, mini_imagenet, "
            "omniglot, signals, table, text, ucr",
        ),
        (
            "tasks: {source: glyphs, ways: 1}\nlearner: maml",
            "tasks.ways: got 1; allowed: a whole number or a list, each item a whole number, at least 2",
        ),
        (
            "tasks: {source: digits, label_noise: 1.5}\nlearner: maml",
            "tasks.label_noise: got 1.5; allowed: a number, at least 0 and below 1",
        ),
        ("tasks: 5\nlearner: maml", "tasks: got 5; give the task source's name or a mapping of its settings"),
        ("tasks: {search: [glyphs, digits]}\nlearner: maml", "tasks: the task source cannot be searched"),
        ("tasks: sinusoid\nlearner: mmal", "no method is named 'mmal'; did you mean 'maml'?"),
        ("tasks: sinusoid\nlearner: 7", "learner: got 7; give a method's name or a mapping of slots"),
        ("tasks: sinusoid\nlearner: {search: []}", "learner: a search needs at least one option"),
        ("tasks: sinusoid\nlearner: {search: [maml, mml]}", "learner.search[1].method: no method is named 'mml'"),
        ("tasks: sinusoid\nlearner: {method: maml, update: sdg}", "no update is named 'sdg'; did you mean 'sgd'?"),
        ("tasks: sinusoid\nlearner: {method: maml, update: search}", "a whole component has no range: list the kinds"),
        (
            "tasks: sinusoid\nlearner: {method: maml, prediction: learn}",
            "learn one of its settings (augmented_shots.sharp",
        ),
        ("tasks: sinusoid\nlearner: {method: maml, update: [1]}", "got the list [1]; give the update's name"),
        (
            "tasks: sinusoid\nlearner: {method: maml, update: {rate: 0}}",
            "learner.update.rate: got 0.0; allowed: a number, above 0",
        ),
        ("tasks: glyphs\nlearner: {method: prototypical, update: sgd}", "prototypical takes no inner steps"),
        ("tasks: sinusoid\nlearner: maml\nouter: 4", "outer: got 4; give a mapping of settings"),
        ("tasks: sinusoid\nlearner: maml\nouter: {rate: learn}", "outer.rate: rate cannot be learned"),
        ("tasks: sinusoid\nlearner: maml\nouter: {clip: 0}", "outer.clip: got 0.0; allowed: a number or null, above 0"),
        (
            "tasks: sinusoid\nlearner: maml\nouter: {test_episodes: 1}",
            "outer.test_episodes: got 1; allowed: a whole number, at least 2",
        ),
        ("tasks: sinusoid\nlearner: maml\nseed: -1", "seed: got -1; it must be greater than or equal to 0"),
        ("tasks: sinusoid\nlearner: maml\nname: .hidden", "name: got the text '.hidden'; allowed: 1 to 80 letters"),
        (
            "tasks: sinusoid\nlearner: maml\nsearch: {warm_start: 3}",
            "search.warm_start: got 3; give a mapping of its settings: search, trials",
        ),
        ("tasks: sinusoid\nlearner: maml\nname: -x", "name: got the text '-x'; allowed: 1 to 80 letters"),  # an option
        (
            "tasks: sinusoid\nlearner: maml\nsearch: {trials: '5'}",
            "search.trials: got the text '5'; it must be a whole",
        ),
        ("tasks: sinusoid\nlearner: maml\nsearch: {trials: true}", "search.trials: got true"),
        ("tasks: sinusoid\nlearner: maml\nsearch: {sampler: {startup_trials: 3}}", "sampler.kind: not given; name the"),
        ("tasks: sinusoid\nlearner: maml\nsearch: {constraints: [{metric: parameters}]}", "needs a max or a min"),
        (
            "tasks: sinusoid\nlearner: maml\nsearch: {warm_start: {search: ../x}}",
            "search.warm_start.search: got the text",
        ),
        ("tasks: sinusoid\nlearner: maml\nsearch: {baselines: [nearest]}", "did you mean 'nearest_neighbour'?"),
        (
            SEARCHED % "3",
            "search.baselines[0]: give a method's name, a learner with its method, or a mapping of searched knobs",
        ),
        (SEARCHED % "{method: nearest}", "search.baselines[0].method: no method is named 'nearest'"),
        (SEARCHED % "{method: maml, updat: {rate: 1.0}}", "did you mean 'update'?"),
        (SEARCHED % "{method: maml, update: {rate: search}}", "cannot be searched: a baseline is one learner"),
        (SEARCHED % "{learner.update.rate: {low: 1}}", "rate cannot be {'low': 1}: it is searched in [0.01, 1]"),
        (SEARCHED % "{learner.update.rat: 0.1}", "did you mean 'learner.update.rate'?"),
        (SEARCHED % "{learner.update.rate: 2.0}", "rate cannot be 2.0: it is searched in [0.01, 1]"),
        (SEARCHED % "{learner.update.rate: true}", "rate cannot be True: it is searched in [0.01, 1]"),
        (SEARCHED % "{learner.update.steps: 1.5}", "steps cannot be 1.5: it is searched in [1, 3]"),
        (
            SEARCHED % "{learner.architecture.activation: sin}",
            "activation cannot be sin: it is searched in relu, tanh",
        ),
        ("tasks: sinusoid\nlearner: maml\nresources: {device: cpu, gpus: 1}", "give gpus: 0, or device: cuda"),
        ("tasks: sinusoid\nlearner: maml\nresources: {device: cuda}", "device cuda with gpus 0; give gpus: 1"),
        ("tasks: sinusoid\nlearner: maml\nresources: {memory: lots}", "give bytes or a size such as 500MB"),
        (
            "tasks: sinusoid\nlearner: maml\nresources: {env: [TOKEN=a]}",
            "resources.env: give names alone, not 'TOKEN...'",
        ),
        (
            "tasks: sinusoid\nlearner: maml\nresources: {perturbation_workers: 2}",
            "nothing here has perturbations",
        ),
        ("tasks: sinusoid\nlearner: maml\ntracking: {episodes: 1}", "tracking.episodes: got 1"),
    ],
)
def test_each_mistake_says_what_is_allowed(complaints, text, message):
    found = complaints(text)
    assert len(found) == 1, found
    assert message in found[0]
    assert found[0].startswith("search.yaml:")


def test_a_sound_file_has_no_complaints(complaints):
    assert complaints("tasks: sinusoid\nlearner: maml") == []


def test_python_objects_say_the_same_as_a_file(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "tasks: {source: sinusoid, shots: 5}\n"
        "learner:\n"
        "  method: maml\n"
        "  update: {rate: {search: {low: 0.01, high: 0.1, log: true}}, steps: {search: {low: 1, high: 3}}}\n"
        "  architecture: {activation: {search: [relu, tanh]}, hidden: [8]}\n"
        "  loss: mse\n"
    )
    update = {"rate": Real(0.01, 0.1, log=True), "steps": Int(1, 3)}
    architecture = {"activation": Choice(("relu", "tanh")), "hidden": (8,)}
    learner = {"method": "maml", "update": update, "architecture": architecture, "loss": "mse"}
    experiment = Experiment(tasks={"source": "sinusoid", "shots": 5}, learner=learner)
    assert experiment.fingerprint() == load_experiment(path).fingerprint()


def test_learned_in_python():
    experiment = Experiment(tasks="sinusoid", learner={"method": "maml", "update": {"rate": Learned(per="layer")}})
    resolved = resolve(experiment, defaults(experiment))
    assert resolved.learner["update"]["rate"] == {"learn": {"start": 0.01, "per": "layer"}}


def test_numpy_numbers_and_paths_are_values():
    numpy = pytest.importorskip("numpy")
    learner = {"method": "maml", "update": {"rate": numpy.float32(0.5), "steps": numpy.int64(3)}}
    experiment = Experiment(tasks={"source": "omniglot", "path": Path("a")}, learner=learner)
    update = resolve(experiment, defaults(experiment)).learner["update"]
    assert (type(update["rate"]), type(update["steps"])) == (float, int)


def test_python_mistakes_are_bad_input_too():
    with pytest.raises(BadInput, match="2 problems"):
        Experiment(tasks="glyps", learner="mmal")
    with pytest.raises(ExperimentError, match="no setting is named 'lerner'; did you mean 'learner'"):
        Experiment(tasks="sinusoid", learner="maml", lerner={})
    with pytest.raises(ExperimentError, match=r"tasks\.source"):
        Experiment(tasks={"source": object()}, learner="maml")


def test_what_was_given_from_python_reads_back():
    learner = {"method": "maml", "update": {"rate": "learn", "momentum": Real(0.1, 0.9)}}
    experiment = Experiment(**with_(name="no", learner=learner))
    assert Experiment(**experiment.document).fingerprint() == experiment.fingerprint()
    assert experiment.source_text == experiment.to_yaml()
    assert Experiment(**read_yaml(experiment.to_yaml(), "x").data).name == "no"


def test_the_text_as_given_is_kept_with_its_overrides(tmp_path):
    path = tmp_path / "a b.yaml"
    path.write_text("# why\ntasks: sinusoid\nlearner: maml\n")
    assert load_experiment(path).source_text == "# why\ntasks: sinusoid\nlearner: maml\n"
    changed = load_experiment(path, ["outer.steps=7"])
    assert changed.source_text == "# why\ntasks: sinusoid\nlearner: maml\n# --set outer.steps=7\n"
    assert changed.name == "a-b"
    again = tmp_path / "again.yaml"
    again.write_text(changed.to_yaml())
    assert load_experiment(again).fingerprint() == changed.fingerprint()


@pytest.mark.parametrize(
    "same",
    [
        {"name": "other"},
        {"resources": {"threads": 2}},
        {"tracking": {"episodes": False}},
        {"search": {"trials": 99, "concurrency": 3, "time_budget_s": 5.0, "retries": 0}},
        {"learner": {"method": "maml", "update": {"kind": "sgd", "steps": 5}}},
        {"outer": {"hypergradient": "unroll", "steps": 1000}},
        {"search": {"objectives": ["validation_loss"]}},
    ],
)
def test_the_fingerprint_covers_the_meaning(same):
    assert Experiment(**with_(**same)).fingerprint() == Experiment(**MAML).fingerprint()


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"tasks": {"source": "sinusoid", "shots": 5}},
        {"learner": {"method": "maml", "update": {"steps": 4}}},
        {"learner": {"method": "maml", "update": {"rate": "search"}}},
        {"learner": {"method": "maml", "update": {"rate": {"search": {"high": 0.5}}}}},
        {"outer": {"steps": 999}},
        {"inner": {"proximal": 1.0}},
        {"search": {"sampler": "random"}},
        {"search": {"scheduler": "asha"}},
    ],
)
def test_the_fingerprint_changes_with_what_changes_results(other):
    assert Experiment(**with_(**other)).fingerprint() != Experiment(**MAML).fingerprint()


def test_the_objective_is_accuracy_or_in_regression_the_loss():
    (regression,) = Experiment(**MAML).search.objectives
    assert (regression.metric, regression.direction) == ("validation_loss", "minimize")
    (classification,) = Experiment(**with_(tasks="glyphs")).search.objectives
    assert (classification.metric, classification.direction) == ("validation_accuracy", "maximize")


def test_an_earlier_search_to_start_from_is_given_by_its_name():
    named, spelled = (Experiment(**with_(search={"warm_start": one})) for one in ("first", {"search": "first"}))
    assert named.search.warm_start == spelled.search.warm_start
    assert named.fingerprint() == spelled.fingerprint()


def test_an_experiment_travels_to_another_process():
    experiment = Experiment(**with_(learner={"method": "maml", "update": {"rate": "search"}}))
    copy = pickle.loads(pickle.dumps(experiment))
    assert copy.fingerprint() == experiment.fingerprint()
    assert searched_knobs(copy) == searched_knobs(experiment)


def test_an_experiment_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Experiment(**MAML).seed = 3
    experiment = Experiment(**MAML)
    experiment.document["tasks"] = "glyphs"
    assert experiment.document["tasks"] == "sinusoid"


words = st.sampled_from(
    ["tasks", "learner", "search", "learn", "maml", "kind", "update", "rate", "outer", "method", "low"]
)
raw = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(words, raw, max_size=5))
@example({"learner": {"update": {"learn": False}}})
@example({"learner": {"update": {"learn": "rate"}}})
def test_any_document_is_an_experiment_or_a_list_of_problems(document):
    try:
        experiment = load_experiment(document)
    except ExperimentError as error:
        assert error.problems
        assert all(problem.message for problem in error.problems)
    else:
        resolve(experiment, defaults(experiment))


@given(st.integers(0, 30), st.integers(0, 30))
def test_line_numbers_are_right_wherever_the_mistake_is(before, between):
    text = "#\n" * before + "tasks: sinusoid\nlearner:\n  method: maml\n" + "  # note\n" * between + "  updte: {}\n"
    with pytest.raises(ExperimentError) as caught:
        Experiment.from_document(read_yaml(text, "f.yaml"))
    assert caught.value.problems[0].origin == f"f.yaml:{before + between + 4}"


LISTS = """\
tasks: {source: glyphs}
learner:
  method: maml
  augmentation:
    kind: %s
    %s:
      - rotate
      - %s
"""


@pytest.mark.parametrize(
    ("kind", "setting", "item", "message"),
    [
        ("policy", "sub_policies", "rotat(0.5, 0.3)", "no image operation is named 'rotat'; did you mean 'rotate'?"),
        ("policy", "sub_policies", "rotate(0.5 0.3)", "cannot read 'rotate(0.5 0.3)'; write operation(probability"),
        ("rand_augment", "operations", "rotat", "no image operation is named 'rotat'; did you mean 'rotate'?"),
        ("dada", "operations", "rotat", "no image operation is named 'rotat'; did you mean 'rotate'?"),
        ("dada", "operations", "7", "got 7; allowed: a text"),
    ],
)
def test_a_wrong_item_of_a_list_is_reported_at_its_own_place(complaints, kind, setting, item, message):
    (complaint,) = complaints(LISTS % (kind, setting, item))
    assert complaint.startswith(f"search.yaml:8: learner.augmentation.{setting}[1]: {message}")


@pytest.mark.parametrize(
    ("slot", "message"),
    [
        (
            "architecture: {kind: mlp, hidden: [8, 0]}",
            "learner.architecture.hidden[1]: got 0; allowed: a whole number,",
        ),
        ("architecture: {kind: mlp, hidden: [a, 8]}", "learner.architecture.hidden[0]: got the text 'a'; allowed:"),
        (
            "weighting: {kind: class_ratios, ratios: [1, -1]}",
            "learner.weighting.ratios[1]: got -1.0; allowed: a number, at",
        ),
        ("weighting: {kind: class_ratios, ratios: [0, 0]}", "learner.weighting.ratios: must not all be 0"),
    ],
)
def test_a_wrong_number_of_a_list_too(complaints, slot, message):
    (complaint,) = complaints(f"tasks: glyphs\nlearner:\n  {slot}\n")
    assert complaint.startswith(f"search.yaml:3: {message}")


def test_every_coefficient_of_a_mixture_may_be_searched_at_once(tmp_path: Path) -> None:
    for coefficient in ("search", "{search: {low: 0.0, high: 1.0}}"):
        text = f"{{kind: mixture, cross_entropy: {coefficient}, generalized: {coefficient}}}"
        file = tmp_path / "mixture.yaml"
        file.write_text(f"tasks: digits\nlearner: {{method: cross_entropy, loss: {text}}}")
        assert len(searched_knobs(load_experiment(file))) == 2
    file.write_text("tasks: digits\nlearner: {method: cross_entropy, loss: {kind: mixture, cross_entropy: 0}}")
    with pytest.raises(ExperimentError) as caught:
        load_experiment(file)
    assert str(caught.value).count("learner.loss") == 1

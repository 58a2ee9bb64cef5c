"""An exported trial: it opens without Ray, MLflow or the store it came from.

A bundle is a folder: ``config.yaml`` (every knob resolved), ``meta_knowledge.safetensors``, ``card.md`` with its
pictures, ``augmentation.json`` (if it varies its training images), ``test_episodes.parquet`` (the episodes of its test,
if it was tested), ``MLmodel`` (so that MLflow loads it too), ``requirements.txt`` (the packages that serving it needs)
and ``manifest.json``, which has the format's version and the SHA-256 of these files. Two exports of one trial are equal
to the byte: measured seconds are in ``timings.json``, which is not signed. Loading one reads JSON, YAML and
safetensors, and runs no code: a network of a user's own class, which its config names, is imported only with
``trust_code=True`` or where its package is an installed plugin.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from torch import Tensor

from metaloom.learners.base import Learner
from metaloom.learners.episode import Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.outer import OuterConfig
from metaloom.learners.plugins import NEEDED
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.search_spaces.sections.few_shot import with_evaluation
from metaloom.workers.adapted import AdaptedModel, GivenSupport, read_support
from metaloom.workers.adapted_files import BUNDLE_FOLDER, is_adapted, read_adapted
from metaloom.workers.assembly import learner_of
from metaloom.workers.bundle_reading import (
    BUNDLE_CONFIG_FILE,
    CARD_FILE,
    check_targets,
    parameters_of,
    read_manifest,
    task_of,
)
from metaloom.workers.checkpoint import Knowledge, different_leaves
from metaloom.workers.data import open_source
from metaloom.workers.data.base import SOURCES, Source, TaskSource
from metaloom.workers.device import Device, prepare_device
from metaloom.workers.errors import BundleError, CheckpointError
from metaloom.workers.generalized import evaluate_generalized
from metaloom.workers.input_form import InputForm
from metaloom.workers.records.names import META_KNOWLEDGE_FILE, TEST
from metaloom.workers.records.results import GeneralizedScore
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import Evaluation, evaluate_learner, served
from metaloom.workers.seeds import derive_generator
from metaloom.workers.setting import Setting
from metaloom.workers.ways import TooManyWays, at_ways, build_of, of_any_ways, ways_of_split

_ODD = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Bundle:
    """A learner with what it has learned, ready to adapt to new tasks.

    Attributes:
        config: The trial it comes from, every knob resolved.
        task: The shape of the tasks it was trained on.
        manifest: Format, versions, origin, evaluation.
        card: Its description in Markdown.
    """

    path: Path
    config: TrialConfig
    task: TaskShape
    manifest: Mapping[str, Any]
    card: str
    _learner: Learner
    _knowledge: Knowledge
    _device: Device
    _inductive: bool = False

    def __repr__(self) -> str:
        evaluation = self.manifest.get("evaluation")
        tested = "not tested" if not evaluation else f"test {evaluation['metric']} {evaluation['mean']:.4f}"
        return f"<bundle '{self.path}': {self.config.learner.get('method')}, {self.task.kind}, {tested}>"

    def adapt(
        self,
        support_x: Any = None,
        support_y: Any = None,
        *,
        class_features: Any = None,
        unlabelled: Any = None,
        seed: int = 0,
    ) -> AdaptedModel:
        """Adapt to a new task.

        Args:
            support_x: [support, *inputs], numpy or torch, or a table with named columns. A learner of images takes
                8-bit pixels, pixels in [0, 1], and pictures of Pillow; one of a table takes its columns as they are.
                Another layout or range is converted with a warning where that is unambiguous, and refused elsewhere.
                It and ``support_y`` may be left out where the learner needs ``class_features`` alone.
            support_y: [support] labels of any kind, or regression targets [support] or [support, targets].
            class_features: What describes each class, for learners that use it, in the numbers of the table that the
                classes of training were described by: [ways, *features], in the order of the sorted labels. Without a
                support set the labels are 0, 1, ..., or those of a mapping from label to row, of a data frame, or of
                the table at a path; a learner that reads the names of classes takes a list of these.
            unlabelled: [n, *inputs], examples of the task without labels, for learners that use them.
            seed: Of the learner's random draws; an episode's own seed gives that episode's own numbers.

        Raises:
            BundleError: The inputs have another shape or range, are not finite, or have too many classes; or the
                support set's loss is not finite after the inner steps.
            LearnerError: The learner does not use ``class_features`` or ``unlabelled``, or needs them.
        """
        settings = self.config.tasks.get("class_features") or {}
        given = read_support(support_x, support_y, class_features, unlabelled, self._form(), settings)
        as_torch = any(isinstance(one, Tensor) for one in (support_x, class_features))
        return self._adapted(given, seed, as_torch=as_torch)

    def _adapted(self, given: GivenSupport, seed: int, *, as_torch: bool) -> AdaptedModel:
        device = self._device
        ways = len(given.labels) if self.task.task_kind.has_classes else self.task.outputs
        try:
            learner, phi, state = self._at_ways(ways)
        except TooManyWays as problem:
            raise BundleError(
                f"adapt: the support set has {ways} classes, but this learner's head was trained for "
                f"{self.task.outputs}; give it at most {self.task.outputs}, or use a method that takes any number, "
                f"{of_any_ways()}"
            ) from problem
        generator = derive_generator(seed, "evaluate", version=self.config.seeds)
        with device.precision():
            adapted = learner.adapt(phi, state, Support(**device.place(given.support.tensors())), generator)
        setting = Setting(learner.setting, learner.batch_norm, self._queries())
        model = AdaptedModel(given.labels, setting, adapted, given.form, device, as_torch, given, self.path, seed)
        model.check()
        return model

    def _form(self) -> InputForm:
        """Return the form of its inputs; pixels where its task source is one of images."""
        tasks = self.config.tasks
        source = SOURCES.get(str(tasks.get("source", "")))
        return InputForm(self.task, 0.0 if source is None else source.brightest_of(self.task, tasks))

    def _queries(self) -> int:
        """Return how many queries a test episode has; 0 if its task source does not say."""
        tasks, classes = self.config.tasks, self.task.task_kind.has_classes
        tested = {**tasks, **(tasks.get("evaluation") or {})}
        queries = tested.get("queries")
        ways = int(tested.get("ways", self.task.outputs)) if classes and not self.task.single_task else 1
        return queries * ways if isinstance(queries, int) else 0

    def evaluate(
        self,
        source: TaskSource | None = None,
        *,
        cache: Path | None = None,
        split: str = TEST,
        episodes: int = 600,
        seed: int | None = None,
        sizes: Mapping[str, int] = MappingProxyType({}),
    ) -> Evaluation:
        """Score it on the first ``episodes`` of a split: the same numbers as the trial's own evaluation.

        Without a source, that which it was trained on is opened, with its prepared data in ``cache`` and episodes drawn
        from ``seed``, by default the search's, with the ``ways``, ``shots`` and ``queries`` that ``sizes`` gives. Of a
        table, its columns are encoded and scaled by the numbers of training, whatever rows it has now.

        Raises:
            LearnerError: The source's episodes have no such sizes, or the learner takes fewer classes.
        """
        if source is None:
            if cache is None:
                raise BundleError("evaluate: give a task source, or the cache folder to open one with")
            tasks = with_evaluation(self.config.tasks, sizes)
            source = open_source(tasks, seed=self.config.seed if seed is None else seed, cache=cache)
            check_targets(self.task, source.shape, self.path)
        source = source.as_trained(self.task) if isinstance(source, Source) else source
        device, seeds = self._device, self.config.seeds
        learner, phi, state = self._at_ways(ways_of_split(source, split))
        return evaluate_learner(
            learner, phi, state, source, split, episodes, device=device, seeds=seeds, both=split == TEST
        )

    def evaluate_generalized(self, *, cache: Path) -> GeneralizedScore:
        """Score training classes and new ones together; raises BundleError for tasks that cannot be tested so."""
        source = open_source(self.config.tasks, seed=self.config.seed, cache=cache).as_trained(self.task)
        learner, phi, state = self._at_ways(self.task.outputs)
        return evaluate_generalized(learner, phi, state, source, self._device)

    def _at_ways(self, ways: int) -> tuple[Learner, Tensors, LearnerState]:
        """Return the learner for tasks of so many classes, with phi and its state; raises TooManyWays."""
        built = build_of(self.config)

        def build(task: TaskShape, start: Tensors | None) -> Learner:
            return served(built(task, start), inductive=self._inductive)

        device, knowledge = self._device, self._knowledge
        at = at_ways(self._learner, ways, build)
        state = at.state(knowledge.state.mapped(device.move), device)
        return at.learner, device.place(knowledge.phi), state


def load_bundle(path: str | Path, *, device: str = "auto", trust_code: bool = False) -> Bundle:
    """Open a bundle on a device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    With ``trust_code`` its network's own class may be imported, if ``architecture.of`` names one. Raises BundleError if
    it is no bundle, damaged, of a newer format, or of components that are not installed; DeviceError without the
    device.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    with _understood(folder, manifest["metaloom"]):
        document = _read_yaml((folder / BUNDLE_CONFIG_FILE).read_text())
        config = TrialConfig.from_json(document["trial"])
        task = task_of(document["task"])
        knowledge = Knowledge.read(folder / META_KNOWLEDGE_FILE)
        inductive = bool(document.get("inductive"))
        learner = learner_of(config, task, start=parameters_of(knowledge), trust_code=trust_code)
        learner = served(learner, inductive=inductive)
        if odd := different_leaves(learner.init(derive_generator(0, "shapes")), knowledge.phi):
            raise BundleError(f"{folder}: its tensors do not fit its config: {', '.join(odd[:5])} differ")
        place = prepare_device({**config.resources, "device": device}, OuterConfig.of(config.outer).precision)
        card = (folder / CARD_FILE).read_text()
    return Bundle(folder, config, task, manifest, card, learner, knowledge, place, inductive)


def load_adapted(path: str | Path, *, device: str = "auto", trust_code: bool = False) -> AdaptedModel:
    """Open what ``AdaptedModel.save`` has written: the bundle adapts again to the support set that is kept with it.

    Raises BundleError if it is no adapted model or damaged, and what ``load_bundle`` raises.
    """
    folder = Path(path)
    if not is_adapted(folder):
        raise BundleError(f"{folder}: no adapted model; it is the folder that 'metaloom adapt --out' has written")
    bundle = load_bundle(folder / BUNDLE_FOLDER, device=device, trust_code=trust_code)
    tensors, labels, facts = read_adapted(folder)
    with _understood(folder, bundle.manifest["metaloom"]):
        form = replace(bundle._form(), divisor=facts["divisor"])
        given = GivenSupport(Support(**tensors), labels, form, bool(facts["flat"]))
        return bundle._adapted(given, int(facts["seed"]), as_torch=bool(facts["as_torch"]))


@contextmanager
def _understood(folder: Path, version: str) -> Iterator[None]:
    """Turn what signed but odd contents of a bundle cause into a BundleError; the cause is in the stack (--debug)."""
    try:
        yield
    except LearnerError as problem:
        raise BundleError(f"{folder}: {problem}; {NEEDED}, or the metaloom that wrote it ({version})") from problem
    except (*_ODD, CheckpointError, yaml.YAMLError) as problem:
        what = str(problem) if isinstance(problem, CheckpointError) else f"{type(problem).__name__}: {problem}"
        raise BundleError(f"{folder}: not what this metaloom can read ({what})") from problem


@dataclass(frozen=True)
class PyFunc:
    """The model that MLflow calls: a few examples of each class and the queries in, the queries' labels out.

    Attributes:
        bundle: What adapts; None where ``adapted`` has its support set already.
        adapted: The saved model, which needs the queries alone.
    """

    bundle: Bundle | None = None
    adapted: AdaptedModel | None = None

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Adapt to ``support_x``, ``support_y`` and predict ``query_x``; raises BundleError if one is missing.

        Where the learner takes ``class_features`` alone, these stand for the first two. ``model_input`` is a mapping
        with them as arrays; or, with the support set (nested lists) in ``params``, a mapping with ``query_x`` alone or
        just the queries. ``params`` may have a ``seed``, either ``unlabelled``.
        """
        given: dict[str, Any] = dict(params or {})
        given |= dict(model_input) if isinstance(model_input, Mapping) else {"query_x": model_input}
        if self.adapted is not None and "query_x" in given:
            return self.adapted.predict(given["query_x"])
        described = "class_features" in given and "support_x" not in given
        needed = ("query_x",) if described else ("support_x", "support_y", "query_x")
        missing = [name for name in needed if name not in given]
        if missing or self.bundle is None:
            raise BundleError(f"predict: {', '.join(missing)} missing; a bundle adapts to a support set first")
        names = ("support_x", "support_y", "class_features", "unlabelled")
        parts = {name: given[name] for name in names if name in given}
        adapted = self.bundle.adapt(**parts, seed=int(given.get("seed", 0)))
        return adapted.predict(given["query_x"])


def _load_pyfunc(path: str) -> PyFunc:  # the name that ``mlflow.pyfunc.load_model`` looks for
    return PyFunc(adapted=load_adapted(path)) if is_adapted(Path(path)) else PyFunc(load_bundle(path))


def _read_yaml(text: str) -> Any:
    """Read YAML without aliases: a short text of nested aliases expands to gigabytes."""
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
        raise ValueError(f"{BUNDLE_CONFIG_FILE} has aliases")
    return yaml.safe_load(text)

"""The card of a bundle: its task and method, its scores, and how it was found, in Markdown."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaloom.learners.environments import judged_by
from metaloom.learners.episode import TaskShape
from metaloom.learners.knowledge.augmentation import Policy
from metaloom.learners.networks.reference import packages_of, references_in
from metaloom.workers.augmentation_policy import POLICY_FILE, policies_of
from metaloom.workers.checkpoint import Knowledge
from metaloom.workers.data.base import some
from metaloom.workers.data.class_features import is_hashed
from metaloom.workers.data.text_encoding import FittedText
from metaloom.workers.records.stages import STAGE_TRIAL, StageRecord
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import Evaluation, compared
from metaloom.workers.search_card import INTRODUCTION, USAGE, is_of_searches, portfolios

_SETTINGS = {
    "inductive": "each query is predicted on its own",
    "semi-supervised": "each query is predicted on its own, from the support set and examples without labels",
    "transductive": "a query's prediction depends on the other queries of its batch (through batch "
    "statistics), so the numbers hold for whole query sets, not for single queries",
}
SUB_POLICIES_SHOWN = 15
CLASS_FEATURES_SHOWN = 12


@dataclass(frozen=True)
class CardPicture:
    """A figure of what was learned: its name, its caption, and the content of its PNG file."""

    name: str
    caption: str
    png: bytes

    @property
    def file(self) -> str:
        """Return the name of its file in the bundle."""
        return f"figure-{self.name}.png"


def write_card(
    config: TrialConfig,
    task: TaskShape,
    knowledge: Knowledge,
    origin: Mapping[str, Any],
    evaluation: Evaluation | None,
    pictures: Sequence[CardPicture] = (),
    transductive: Evaluation | None = None,
) -> str:
    """Return the card as Markdown; ``transductive`` is the test that an inductive bundle is compared with."""
    method = str(config.learner.get("method", "custom"))
    shown = [f"{picture.caption}\n\n![{picture.name}]({picture.file})" for picture in pictures]
    parts = [
        f"# {method} for {_task(config, task)}",
        _learner(config, task, knowledge, method),
        *(["## What was learned", *shown] if shown else []),
        *_augmentation(policies_of(config.learner, task, knowledge.phi)),
        *portfolios(task, int(config.learner.get("prediction", {}).get("portfolio", 0))),
        "## Numbers",
        _numbers(evaluation, task, transductive),
        "## How it was found",
        _origin(config, knowledge, origin),
        *_stages(config, origin),
        "## How to use it",
        *_needed(config),
        _usage(task),
    ]
    return "\n\n".join(parts) + "\n"


def _augmentation(policies: Sequence[Policy]) -> list[str]:
    """Describe the augmentation of training images: a table for each policy, most likely sub-policies first."""
    if not policies:
        return []
    parts = [
        "## How training images are varied",
        f"The whole of it is in `{POLICY_FILE}`; `metaloom.load_policy` applies it to any batch of images.",
    ]
    for policy in policies:
        lines = [
            f"{policy.kind}: each image gets {policy.draws} of {len(policy.sub_policies)} sub-policies, by share.",
            "",
            *_table("sub-policy", "share", "operation", "probability", "magnitude", "meaning"),
        ]
        lines += [
            f"| {row['sub_policy']} | {row['share']:.1%} | {row['operation']} | {row['probability']:.2f} | "
            f"{row['magnitude']:.2f} | {row['meaning']} |"
            for row in policy.rows()
            if row["sub_policy"] <= SUB_POLICIES_SHOWN
        ]
        parts.append("\n".join(lines))
    return parts


def _task(config: TrialConfig, task: TaskShape) -> str:
    source = config.tasks.get("source", "unnamed tasks")
    if not task.task_kind.has_classes:
        return f"{task.kind} on {source}"
    shots = config.tasks.get("shots")
    form = " zero-shot" if task.class_features is not None else f" {shots}-shot" if shots else ""
    return f"{task.outputs}-way{form} classification on {source}"


def _learner(config: TrialConfig, task: TaskShape, knowledge: Knowledge, method: str) -> str:
    learned = knowledge.phi or knowledge.state.running  # what a closed form is computed of is a state
    count = sum(one.numel() for one in learned.values())
    outputs = f"{task.outputs} target{'s' if task.outputs > 1 else ''}"
    if task.task_kind.has_classes:
        known = "support set's labels" if task.class_features is None else "classes that are described to it"
        outputs = f"one of the {known} (trained with {task.outputs} classes a task)"
    slots = {slot: settings for slot, settings in config.learner.items() if slot != "method" and settings}
    if is_of_searches(task):
        return "\n".join([INTRODUCTION, "", *(f"- {slot}: {_short(settings)}" for slot, settings in slots.items())])
    lines = [
        f"A learning algorithm, not a trained model: given {_given(task)} it returns a model. Its "
        f"meta-knowledge is {count:,} numbers, learned in {knowledge.step:,} outer steps.",
        "",
        f"- inputs: {_inputs(task)}",
        *_classes(task),
        f"- outputs: {outputs}",
        f"- method: {method}",
        *(f"- {slot}: {_short(settings)}" for slot, settings in sorted(slots.items())),
    ]
    return "\n".join(lines)


def _given(task: TaskShape) -> str:
    return "a few labelled examples" if task.class_features is None else "what describes each class, and no example,"


def _inputs(task: TaskShape) -> str:
    if (text := FittedText.of_task(task)) is not None:
        case = ", in small letters" if text.lower else ""
        return f"texts, of which the first {text.length} {text.tokens} count; it knows {len(text.vocabulary):,}{case}"
    return f"{' x '.join(map(str, task.inputs))} numbers in float32"


def _classes(task: TaskShape) -> Iterator[str]:
    """Say what describes a class."""
    described = task.class_features
    if described is None:
        return
    if is_hashed(described):
        yield f"- a class: its name, as {described.inputs[0]} hashed counts of its pieces"
    else:
        yield f"- a class: {described.inputs[0]} numbers: {some(described.features, CLASS_FEATURES_SHOWN)}"


def _numbers(evaluation: Evaluation | None, task: TaskShape, transductive: Evaluation | None) -> str:
    if evaluation is None:
        return "Not tested yet: `metaloom evaluate` on this folder does it."
    unseen = "classes that were seen neither in training nor in validation, where the source has classes"
    unseen = "examples that were seen neither in training nor in validation" if task.single_task else unseen
    low, high = evaluation.interval
    lines = [
        f"**{evaluation.metric} {evaluation.mean:.4f}**, 95% interval {low:.4f} to {high:.4f}, over "
        f"{evaluation.episodes} episodes of the {evaluation.split} split ({unseen}).",
        "",
        f"- setting: {evaluation.setting}: {_SETTINGS.get(evaluation.setting, 'as the method defines it')}",
        f"- batch norm: {evaluation.batch_norm}",
        *_other_setting(evaluation, transductive),
    ]
    if evaluation.units is not None:
        low, high = evaluation.units.interval
        lines.append(
            f"- in the units of the target: root mean squared error {evaluation.units.rmse:.4g}, "
            f"95% interval {low:.4g} to {high:.4g}"
        )
    if task.environment:
        lines.append(f"- the loss is {judged_by(task)}")
    if evaluation.constant is not None:
        lines.append(f"- predicting the mean target of the support set has the loss {evaluation.constant:.4f}")
    if len(evaluation.per_step) > 1:
        lines += ["", *_table(evaluation.curve, evaluation.metric, "95% interval")]
        lines += [f"| {one.step} | {one.mean:.4f} | {one.low:.4f} to {one.high:.4f} |" for one in evaluation.per_step]
    return "\n".join(lines)


def _other_setting(evaluation: Evaluation, transductive: Evaluation | None) -> list[str]:
    """Compare with the other setting, on the same episodes; nothing where there is none."""
    if transductive is not None:
        mean, low, high = compared(evaluation.scores, transductive.scores, evaluation.metric)
        other, interval = transductive.mean, transductive.interval
        said = "where the queries of an episode give the statistics together (transductive, as it was trained)"
    elif evaluation.inductive is not None:
        one = evaluation.inductive
        other, interval, mean, (low, high) = one.mean, one.interval, 0.0 - one.better_by, one.better_by_interval
        low, high = 0.0 - high, 0.0 - low
        said = "where each query is predicted on its own (`metaloom export --inductive` makes such a bundle)"
    else:
        return []
    return [
        f"- {evaluation.metric} {other:.4f}, {interval[0]:.4f} to {interval[1]:.4f}, on the same episodes {said}; this "
        f"bundle is better by {mean:+.4f}, {low:+.4f} to {high:+.4f}"
    ]


def _origin(config: TrialConfig, knowledge: Knowledge, origin: Mapping[str, Any]) -> str:
    others = {name: value for name, value in origin.items() if name not in ("search", "trial", "seed", "stages")}
    found = f"search: {origin.get('search') or config.search}, trial {config.trial}, seed {config.seed}"
    if config.trial == STAGE_TRIAL:
        found = f"trained before the trials of a search, with seed {config.seed}"
    lines = [
        f"- {found}",
        *(f"- {name}: {_short(value)}" for name, value in others.items() if value not in (None, "", {})),
        *(f"- note: {note}" for note in knowledge.notes),
    ]
    return "\n".join(lines)


def _stages(config: TrialConfig, origin: Mapping[str, Any]) -> list[str]:
    """Tell the stages from which the trial has started: their data, method and numbers."""
    records = [StageRecord.from_json(one) for one in origin.get("stages", ())]
    if not records:
        return []
    sections = {str(one["name"]): one for one in config.stages}
    lines = [
        f"The network was trained in {len(records) + 1} stages, the last of which is {config.stage} and is told above. "
        "This folder holds all that it needs of them.",
        "",
        *_table("stage", "method", "tasks", "validation", "95% interval", "outer steps", "starts from", "digest"),
    ]
    for one in records:
        low, high = one.interval
        tasks, numbers = _short(_given_tasks(sections.get(one.name))), f"{one.metric} {one.value:.4f}"
        starts = ", ".join(one.starts) or "-"
        lines.append(
            f"| {one.name} | {one.method} | {tasks} | {numbers} | {low:.4f} to {high:.4f} | {one.steps:,} | {starts} | "
            f"{one.digest} |"
        )
    return ["## Its stages", "\n".join(lines)]


def _given_tasks(section: Mapping[str, Any] | None) -> Any:
    tasks = {} if section is None else section["tasks"]
    return {name: value for name, value in tasks.items() if value is not None}


def _needed(config: TrialConfig) -> list[str]:
    """Name the code of the user's own that opening the bundle imports: it holds none."""
    lines = []
    for reference, package in packages_of(dict.fromkeys(references_in(config.learner))).items():
        module = reference.partition(":")[0]
        where = f"install {package}" if package else "put the folder that holds it on the import path (PYTHONPATH)"
        lines.append(
            f"The network is `{reference}`, whose code this bundle does not hold. Where it is opened, the module "
            f"`{module}` must be importable: {where}. Importing it runs it, so that opening asks for trust: "
            '`--trust-code`, or `load_bundle("PATH", trust_code=True)`.'
        )
    return lines


def _usage(task: TaskShape) -> str:
    if is_of_searches(task):
        return USAGE
    inputs = ", ".join(map(str, task.inputs))
    if (described := task.class_features) is not None:
        rows = "the names of the classes" if is_hashed(described) else f"[classes, {described.inputs[0]}], raw"
        return (
            "```python\n"
            "from metaloom import load_bundle\n\n"
            f"# classes: a table's path with one row a class, or {rows}; query_x: [queries, {inputs}]\n"
            'model = load_bundle("PATH").adapt(class_features=classes)\n'
            "model.predict(query_x)\n"
            "```"
        )
    form = "" if FittedText.of_task(task) is None else ", or texts themselves"
    targets = "[support] labels of any kind" if task.task_kind.has_classes else f"[support, {task.outputs}]"
    return (
        "```python\n"
        "from metaloom import load_bundle\n\n"
        f"# support_x: [support, {inputs}]{form}; support_y: {targets}; query_x: [queries, {inputs}]{form}\n"
        'model = load_bundle("PATH").adapt(support_x, support_y)\n'
        "model.predict(query_x)\n"
        "```"
    )


def _table(*heads: str) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)

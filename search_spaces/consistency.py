"""What no field can know alone: whether the parts of an experiment go together."""

import math
from collections.abc import Iterator, Mapping

from metaloom.learners import ESTIMATORS, METHODS, SLOTS
from metaloom.learners.domains import Choice, Int, Real
from metaloom.learners.errors import unknown
from metaloom.learners.outer import HYPERGRADIENT
from metaloom.learners.plugins import unknown_or_absent
from metaloom.learners.solvers.rules import no_signal, start_unseen
from metaloom.search_spaces.errors import Problems
from metaloom.search_spaces.knobs.components import learned_parts
from metaloom.search_spaces.knobs.sampling import domains, holds, told
from metaloom.search_spaces.reading.nodes import (
    Alternatives,
    Fixed,
    Node,
    Place,
    Searched,
    Section,
    Several,
    Spelling,
    walk_nodes,
)
from metaloom.search_spaces.sections.learner_space import METHOD, parse_learner, sections
from metaloom.search_spaces.sections.loops import AUTO, task_kind, under_searched_names
from metaloom.search_spaces.sections.settings import Objective, Resources, SearchSettings
from metaloom.search_spaces.sections.space import Space
from metaloom.search_spaces.sections.strategies import KIND, samplers, schedulers, takes_one_objective

MAX_GRID = 100_000


def default_objective(tasks: Node) -> Objective:
    """Return what trials are judged by where nothing is said: what the kind of task is."""
    return Objective.model_validate(f"validation_{task_kind(tasks).metric}")


def check_consistency(space: Space, search: SearchSettings, resources: Resources, problems: Problems) -> None:
    """Note everything that contradicts something else, each with what to do about it.

    Args:
        space: The parsed sections.
        search: The search section.
        resources: The resources section.
        problems: Collects what is wrong.
    """
    if resources.perturbation_workers:
        _check_perturbations(space, problems)
    for learner in sections(space.learner):
        _check_signal(learner, space.inner.get(learner.kind), space.outer.get(learner.kind), problems)
    _check_objectives(space, search, problems)
    _check_sampler(space, search, problems)
    _check_scheduler(space, search, problems)
    _check_baselines(space, search, problems)


def _check_baselines(space: Space, search: SearchSettings, problems: Problems) -> None:
    knobs = _every_domain(space)
    for index, asked in enumerate(search.baselines):
        path = ("search", "baselines", index)
        if isinstance(asked, str):
            if asked not in METHODS:
                problems.add(path, unknown_or_absent("method", asked, METHODS))
            continue
        if METHOD in asked:
            learner = parse_learner(
                asked, Place(path, f"search.baselines[{index}]"), problems, kind=task_kind(space.tasks)
            )
            if domains(learner):
                problems.add(path, f"{', '.join(domains(learner))} cannot be searched: a baseline is one learner")
            continue
        for name, value in under_searched_names(asked, knobs).items():
            if name not in knobs:
                problems.add(path, unknown("searched knob", name, knobs))
            elif not holds(knobs[name], value):
                problems.add(path, f"{name} cannot be {value}: it is searched in {told(knobs[name])}")


def learned_slots(learner: Section) -> Iterator[tuple[str, str]]:
    """Yield each slot in which something is learned, with the name of what it is."""
    for slot, node in learner.fields.items():
        if slot == METHOD:
            continue
        learns = {kind: component.learns for kind, component in SLOTS[slot].registry.items()}
        for component in sections(node):
            for name in learned_parts(component, learns):
                yield slot, name


def _check_signal(learner: Section, inner: Node | None, outer: Node | None, problems: Problems) -> None:
    """Refuse an estimator that would leave something learned without a gradient."""
    if not isinstance(inner, Section) or not isinstance(outer, Section) or "update" not in learner.fields:
        return  # without inner steps the gradient is direct, whatever the estimator
    learned = list(learned_slots(learner))
    start_is_learned = "initialization" in dict(learned) and inner.fields.get("proximal") == Fixed(0.0)
    for chosen in sections(outer.fields[HYPERGRADIENT]):
        if chosen.kind == AUTO:
            continue
        settings = {name: node.value for name, node in chosen.fields.items() if isinstance(node, Fixed)}
        wrong = no_signal(chosen.kind, learned, settings, episodic=inner.fields.get("mode") == Fixed("episodic"))
        if not wrong and start_is_learned and ESTIMATORS[chosen.kind].at_solution:
            wrong = start_unseen(chosen.kind)
        if wrong:
            problems.add(chosen.place.path, wrong)


def _check_perturbations(space: Space, problems: Problems) -> None:
    """Refuse workers for perturbations that no learner of the space has."""
    outers = [
        outer for learner in sections(space.learner) if isinstance(outer := space.outer.get(learner.kind), Section)
    ]
    estimators = [one.kind for outer in outers for one in sections(outer.fields[HYPERGRADIENT])]
    if not any(kind != AUTO and ESTIMATORS[kind].spreads for kind in estimators):
        spreading = " or ".join(kind for kind in ESTIMATORS if ESTIMATORS[kind].spreads)
        advice = f"use outer.hypergradient: {spreading}, or remove it"
        problems.add(("resources", "perturbation_workers"), f"nothing here has perturbations to spread; {advice}")


def _check_objectives(space: Space, search: SearchSettings, problems: Problems) -> None:
    kind = task_kind(space.tasks)
    if kind.accuracy:
        return
    for part in ("objectives", "constraints"):
        for index, one in enumerate(getattr(search, part)):
            if one.metric.endswith("accuracy"):
                loss = one.metric.replace("accuracy", "loss")
                problems.add(("search", part, index), f"{kind.name} has no {one.metric}; judge by {loss}")


def _every_domain(space: Space) -> dict[str, Real | Int | Choice]:
    found: dict[str, Real | Int | Choice] = {}
    for root in space.roots():
        found |= domains(root)
    return found


def _check_sampler(space: Space, search: SearchSettings, problems: Problems) -> None:
    path, knobs, kind = ("search", "sampler"), _every_domain(space), search.sampler[KIND]
    sampler, few = samplers()[kind], ", ".join(list(knobs)[:3])
    endless = [name for name, domain in knobs.items() if isinstance(domain, Real)]
    if sampler.finite and endless:
        names = ", ".join(endless[:3])
        advice = "give a list, such as {search: [0.01, 0.1, 1.0]}, or another sampler"
        problems.add(path, f"a {kind} cannot hold every value of a continuous knob ({names}); {advice}")
    elif sampler.finite:
        _check_grid_size(space, search, problems)
    if sampler.needs_number and knobs and all(isinstance(domain, Choice) for domain in knobs.values()):
        problems.add(path, f"{kind} adapts numbers, and only options are searched ({few}); use tpe")
    if sampler.one_objective and len(search.objectives) > 1:
        problems.add(path, takes_one_objective(kind))
    if sampler.needs_knobs and not knobs:
        problems.add(path, f"{kind} has nothing to search; make a knob {{search: ...}}")


def _check_grid_size(space: Space, search: SearchSettings, problems: Problems) -> None:
    size = grid_size(space)
    if size > MAX_GRID:
        advice = "narrow the ranges or give fewer options"
        problems.add(("search", "sampler"), f"the grid has {size} points, more than {MAX_GRID}; {advice}")


def grid_size(space: Space) -> int:
    """Return how many combinations a search without continuous knobs has."""
    total = 0
    for method, count in _combinations_by_method(space.learner).items():
        inner, outer = space.inner.get(method), space.outer.get(method)
        total += count * (1 if inner is None else _combinations(inner)) * (1 if outer is None else _combinations(outer))
    return max(total, 1) * _combinations(space.tasks)


def _combinations_by_method(learner: Node) -> Mapping[str, int]:
    if isinstance(learner, Alternatives):
        counts: dict[str, int] = {}
        for option in learner.options.values():
            for method, count in _combinations_by_method(option).items():
                counts[method] = counts.get(method, 0) + count
        return counts
    return {learner.kind: _combinations(learner)} if isinstance(learner, Section) else {}


def _combinations(node: Node) -> int:
    match node:
        case Searched():
            return int(node.domain.high - node.domain.low) + 1
        case Alternatives():
            return sum(_combinations(option) for option in node.options.values())
        case Spelling():
            return math.prod(_combinations(part) for part in node.parts)
        case Section():
            return math.prod(_combinations(child) for child in node.fields.values())
        case Several():
            return math.prod(_combinations(member) for member in node.members)
    return 1


def _check_scheduler(space: Space, search: SearchSettings, problems: Problems) -> None:
    path, kind = ("search", "scheduler"), search.scheduler[KIND]
    scheduler = schedulers()[kind]
    if scheduler.one_objective and len(search.objectives) > 1:
        metrics = ", ".join(objective.metric for objective in search.objectives)
        problems.add(path, f"{kind} ranks trials by one objective, not by {metrics}; keep one, or use scheduler: none")
    if search.trials < scheduler.least_trials:
        least = scheduler.least_trials
        problems.add(path, f"{kind} needs a population of at least {least} trials, got search.trials {search.trials}")
    if scheduler.copies_state:
        _check_copies(space, kind, problems)
    if scheduler.compares_episodes and domains(space.tasks):
        names = ", ".join(list(domains(space.tasks))[:3])
        problems.add(
            path, f"{kind} compares trials on the same episodes, but the tasks are searched ({names}); fix them"
        )


def _check_copies(space: Space, kind: str, problems: Problems) -> None:
    """Refuse a scheduler that copies one trial's state into another where more than numbers differ between trials."""
    path = ("search", "scheduler")
    knobs = _every_domain(space)
    if not any(isinstance(domain, Real) for domain in knobs.values()):
        problems.add(path, f"{kind} perturbs numbers while it trains, but no continuous knob is searched; search one")
    choices = [
        node.name
        for root in (space.tasks, space.learner)
        for node in walk_nodes(root)
        if isinstance(node, Alternatives) or (isinstance(node, Searched) and ".architecture" in node.name)
    ]
    if choices:
        message = (
            f"{kind} copies a trial's state into another, which must have the same shape; fix {', '.join(choices[:3])}"
        )
        problems.add(path, message)

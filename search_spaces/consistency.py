"""Rules over several sections of an experiment: whether its parts fit together."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metaloom.learners import ESTIMATORS, METHODS, SLOTS
from metaloom.learners.domains import Choice, Real
from metaloom.learners.errors import unknown
from metaloom.learners.outer import HYPERGRADIENT
from metaloom.learners.plugins import unknown_or_absent
from metaloom.learners.solvers.base import unlabelled_unread
from metaloom.learners.solvers.rules import no_signal, start_unseen
from metaloom.search_spaces.errors import Path, Problems
from metaloom.search_spaces.knobs.components import learned_parts
from metaloom.search_spaces.knobs.sampling import CORNERS, Domain, domains, holds, resolve_node
from metaloom.search_spaces.reading import nodes as tree
from metaloom.search_spaces.reading.nodes import Alternatives, Fixed, Node, Place, Searched, Section
from metaloom.search_spaces.sections.few_shot import unlabelled_of
from metaloom.search_spaces.sections.loops import AUTO, task_kind, under_searched_names
from metaloom.search_spaces.sections.settings import Baseline, Resources, SearchSettings
from metaloom.search_spaces.sections.space import METHOD, PREDICTION, Space, parse_learner, sections
from metaloom.search_spaces.sections.stages import path_of, searched_in_earlier
from metaloom.search_spaces.sections.strategies import KIND, samplers, schedulers, takes_one_objective

MAX_GRID = 100_000
ABSENT = Fixed(None)


def check_consistency(space: Space, search: SearchSettings, resources: Resources, problems: Problems) -> None:
    """Note every contradiction, each with its remedy."""
    if resources.perturbation_workers:
        _check_perturbations(space, problems)
    for stage in space.stages():
        for learner in sections(stage.learner):
            _check_signal(learner, stage.inner.get(learner.kind), stage.outer.get(learner.kind), problems)
        _check_unlabelled(stage, search.baselines if stage is space else (), problems)
    _check_objectives(space, search, problems)
    _check_sampler(space, search, problems)
    _check_scheduler(space, search, problems)
    _check_baselines(space, search, problems)


def _check_baselines(space: Space, search: SearchSettings, problems: Problems) -> None:
    knobs = domains(*space.roots())
    for index, asked in enumerate(search.baselines):
        path = ("search", "baselines", index)
        if isinstance(asked, str):
            if asked not in METHODS:
                problems.add(path, unknown_or_absent("method", asked, METHODS))
        elif METHOD in asked:
            place = Place(path, f"search.baselines[{index}]", problems)
            before = [stage.name for stage in space.earlier]
            searched = domains(parse_learner(asked, place, kind=task_kind(space.tasks), earlier=before))
            if searched:
                problems.add(path, f"{', '.join(searched)} cannot be searched: a baseline is one learner")
        else:
            _check_values(asked, knobs, path, problems)
    for index, asked in enumerate(search.enqueue):
        _check_values(asked, knobs, ("search", "enqueue", index), problems)


def _check_values(asked: Mapping[str, Any], knobs: Mapping[str, Domain], path: Path, problems: Problems) -> None:
    """Note what is no searched knob, or no value of one."""
    for name, value in under_searched_names(asked, knobs).items():
        if name not in knobs:
            problems.add(path, unknown("searched knob", name, knobs))
        elif wrong := wrong_value(value, knobs[name]):
            problems.add(path, f"{name} {wrong}")


def wrong_value(value: Any, domain: Domain) -> str:
    """Say why a knob cannot have a value; empty if it can."""
    valid = ", ".join(domain.options) if isinstance(domain, Choice) else f"[{domain.low:g}, {domain.high:g}]"
    return "" if holds(domain, value) else f"cannot be {value}: it is searched in {valid}"


def _learned_slots(learner: Section) -> Iterator[tuple[str, str]]:
    """Yield each slot in which something is learned, with the name of what it is."""
    for slot, node in learner.fields.items():
        if slot != METHOD:
            learns = {kind: component.learns for kind, component in SLOTS[slot].registry.items()}
            yield from ((slot, name) for component in sections(node) for name in learned_parts(component, learns))


def _check_signal(learner: Section, inner: Node | None, outer: Node | None, problems: Problems) -> None:
    """Refuse an estimator that would leave something learned without a gradient."""
    if not isinstance(inner, Section) or not isinstance(outer, Section) or "update" not in learner.fields:
        return  # without inner steps the gradient is direct, whatever the estimator
    learned = list(_learned_slots(learner))
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


def _check_unlabelled(space: Space, baselines: Sequence[Baseline], problems: Problems) -> None:
    """Refuse examples without labels where a learner, of the search or a baseline, does not use them."""
    asked = [unlabelled_of(resolve_node(tasks, at, {})) for tasks in sections(space.tasks) for at in CORNERS]
    field = next(filter(None, asked), "")
    if not field:
        return
    kind, unheard = task_kind(space.tasks), Place((), "")
    named = [one for one in baselines if isinstance(one, str) or METHOD in one]
    learners = [space.learner, *(parse_learner(one, unheard, kind=kind) for one in named)]
    for learner in (one for root in learners for one in sections(root)):
        for solver in sections(learner.fields[PREDICTION]):
            if wrong := unlabelled_unread(solver.kind):
                problems.add((*path_of(space), *field.split(".")), f"{learner.kind or solver.kind}: {wrong}")
                return


def _check_perturbations(space: Space, problems: Problems) -> None:
    """Refuse workers for perturbations that no learner of the space has."""
    outers = (space.outer.get(learner.kind) for learner in sections(space.learner))
    kinds = [
        one.kind for outer in outers if isinstance(outer, Section) for one in sections(outer.fields[HYPERGRADIENT])
    ]
    if not any(kind != AUTO and ESTIMATORS[kind].spreads for kind in kinds):
        spreading = " or ".join(kind for kind in ESTIMATORS if ESTIMATORS[kind].spreads)
        advice = f"use outer.hypergradient: {spreading}, or remove it"
        problems.add(("resources", "perturbation_workers"), f"nothing here has perturbations to spread; {advice}")


def _check_objectives(space: Space, search: SearchSettings, problems: Problems) -> None:
    kind = task_kind(space.tasks)
    for part in () if kind.accuracy else ("objectives", "constraints"):
        for index, one in enumerate(getattr(search, part)):
            if one.metric.endswith("accuracy"):
                loss = one.metric.replace("accuracy", "loss")
                problems.add(("search", part, index), f"{kind.name} has no {one.metric}; judge by {loss}")


def _check_sampler(space: Space, search: SearchSettings, problems: Problems) -> None:
    path, knobs, kind = ("search", "sampler"), domains(*space.roots()), search.sampler[KIND]
    sampler, few = samplers()[kind], ", ".join(list(knobs)[:3])
    endless = [name for name, domain in knobs.items() if isinstance(domain, Real) and domain.step is None]
    if sampler.finite and endless:
        names = ", ".join(endless[:3])
        advice = "give a list, such as {search: [0.01, 0.1, 1.0]}, or another sampler"
        problems.add(path, f"a {kind} cannot hold every value of a continuous knob ({names}); {advice}")
    elif sampler.finite and (size := grid_size(space)) > MAX_GRID:
        advice = "narrow the ranges or give fewer options"
        problems.add(path, f"the grid has {size} points, more than {MAX_GRID}; {advice}")
    if sampler.needs_number and knobs and all(isinstance(domain, Choice) for domain in knobs.values()):
        problems.add(path, f"{kind} adapts numbers, and only options are searched ({few}); use tpe")
    if sampler.one_objective and len(search.objectives) > 1:
        problems.add(path, takes_one_objective(kind))
    if sampler.needs_knobs and not knobs:
        problems.add(path, f"{kind} has nothing to search; make a knob {{search: ...}}")


def grid_size(space: Space) -> int:
    """Return how many combinations a search without continuous knobs has."""
    total = sum(
        math.prod(map(_combinations, (one, space.inner.get(one.kind, ABSENT), space.outer.get(one.kind, ABSENT))))
        for one in sections(space.learner)
    )
    return max(total, 1) * _combinations(space.tasks) * math.prod(map(grid_size, space.earlier))


def _combinations(node: Node) -> int:
    if isinstance(node, Searched):
        return node.domain.searched_values()
    counts = map(_combinations, tree.children(node))
    return sum(counts) if isinstance(node, Alternatives) else math.prod(counts)


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
        if search.repeats > 1:
            problems.add(("search", "repeats"), f"{kind} changes knobs while it trains, so none is repeated; give 1")
        if search.patience is not None:
            problems.add(("search", "patience"), f"{kind} trains one population, which begins at once; leave it out")
    if scheduler.compares_episodes and (searched := domains(space.tasks)):
        names = ", ".join(list(searched)[:3])
        problems.add(
            path, f"{kind} compares trials on the same episodes, but the tasks are searched ({names}); fix them"
        )


def _check_copies(space: Space, kind: str, problems: Problems) -> None:
    """Refuse a scheduler that copies one trial's state into another where more than numbers differ between trials."""
    path = ("search", "scheduler")
    if not any(isinstance(domain, Real) and domain.step is None for domain in domains(*space.roots()).values()):
        problems.add(path, f"{kind} perturbs numbers while it trains, but no continuous knob is searched; search one")
    choices = [
        node.name
        for root in (space.tasks, space.learner)
        for node in tree.walk_nodes(root)
        if isinstance(node, Alternatives) or (isinstance(node, Searched) and ".architecture" in node.name)
    ]
    if choices:
        names = ", ".join(choices[:3])
        problems.add(path, f"{kind} copies a trial's state into another, which must have the same shape; fix {names}")
    if before := searched_in_earlier(space):
        names = ", ".join(before[:3])
        problems.add(path, f"{kind} changes knobs while a trial trains, after its earlier stages; fix {names}")

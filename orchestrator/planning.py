"""What a search would do, for ``--dry-run``: everything is checked, and nothing is written."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from metaloom.dashboards import rows
from metaloom.dashboards.text import counted, range_text
from metaloom.learners.domains import Choice
from metaloom.orchestrator import credentials
from metaloom.orchestrator.preparing import Prepared
from metaloom.orchestrator.rehearsal import rehearse
from metaloom.orchestrator.session import check_machine
from metaloom.search_spaces.knobs.sampling import Domain
from metaloom.search_spaces.resolve import Resolved, baseline_name, defaults, resolve, searched_knobs
from metaloom.search_spaces.sections.starts import needed_stages


def plan(prepared: Prepared) -> rows.PlanRow:
    """Return what a search would do. Its data are read, and each of its learners is built, as before a real search.

    Where the store has no data cache yet, the data are prepared in a temporary folder.

    Raises:
        BadInput: The experiment, its data or an argument is wrong.
        BadEnvironment: This machine cannot run it.
    """
    experiment, home = prepared.experiment, prepared.home
    credentials.resolved(home.path, experiment.tracking.uri or "")
    if prepared.name is not None:
        home.check_free(prepared.name)
    here = check_machine(experiment, prepared.options)
    with tempfile.TemporaryDirectory() as folder:
        cache = home.cache if home.cache.is_dir() else Path(folder)
        rehearse(
            experiment,
            cache=cache,
            defaults_alone=prepared.defaults_alone,
            trust_code=prepared.trust_code,
            here=here,
        )
    knobs, settled = searched_knobs(experiment), resolve(experiment, defaults(experiment))
    settings = experiment.search
    return rows.PlanRow(
        name=prepared.free_name,
        trials=settings.trials,
        steps=settled.outer["steps"],
        objectives=tuple(rows.ObjectiveRow(metric=aim.metric, direction=aim.direction) for aim in settings.objectives),
        sampler=str(settings.sampler["kind"]),
        scheduler=str(settings.scheduler["kind"]),
        executor=prepared.options.executor,
        baselines=tuple(map(baseline_name, settings.baselines)),
        knobs={name: {"range": domain_text(one), "default": settled.knobs.get(name)} for name, one in knobs.items()},
        notes=(*prepared.notes, *_stage_notes(settled)),
    )


def _stage_notes(settled: Resolved) -> Iterator[str]:
    """Say which stages come before a trial, with the defaults of the knobs."""
    for stage in needed_stages(settled.stages, settled.learner):
        steps = counted(int(stage["outer"]["steps"]), "outer step")
        yield f"before the trials: stage {stage['name']} of {steps}, trained once for all that share its settings"


def domain_text(domain: Domain) -> str:
    """Write the values that a searched knob may take."""
    if isinstance(domain, Choice):
        return ", ".join(domain.options)
    return range_text(domain.low, domain.high, domain.log)

"""``metaloom compare``: trials on the same test episodes, pair by pair, and the settings in which they differ."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from metaloom.dashboards import queries, rows
from metaloom.orchestrator.choosing import BEST, chosen_trial
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.store import DEFAULT_STORE, store_option
from metaloom.orchestrator.tracking.client import flattened
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.configurations import configurations
from metaloom.workers.records.episode_files import rows_of_test
from metaloom.workers.records.results import mean_interval, paired_interval
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.tested import is_tested, test_scores
from metaloom.workers.records.trial import TrialConfig, read_config

SECTIONS = ("tasks", "learner", "inner", "outer")
LOSS = "loss"
Read = Callable[[str], SearchRecord]
Scores = Mapping[str, float]  # larger is better, by the episode's identity


class NotTested(SearchError):  # noqa: N818  # it says what is missing, and the command that adds it
    """Trials are not tested yet on the episodes of a comparison."""


@dataclass(frozen=True)
class Run:
    """A trial that is compared; its ``metric`` is that of its validation, as its test's is."""

    search: str
    trial: int
    directory: Path
    config: TrialConfig
    metric: str

    @property
    def name(self) -> str:
        return f"{self.search}:{self.trial}"

    @property
    def settings(self) -> dict[str, str]:
        """What was set, without the seed and the device."""
        return flattened({section: dict(getattr(self.config, section)) for section in SECTIONS})


def compare(
    *contenders: str,
    episodes: int | None = None,
    seed: int | None = None,
    store: str | Path = DEFAULT_STORE,
    trust_code: bool = False,
    told: Callable[[str], None] = lambda line: None,
) -> rows.ComparisonRow:
    """Compare trials on the same test episodes; those that are not tested on them yet are tested first.

    Trials whose settings are equal, so that only their seeds differ, are one contender.

    Args:
        contenders: At least two: ``NAME`` (its best trial, with the finished trials of the same knobs) or
            ``NAME:TRIAL``.
        episodes: The number of test episodes; None takes that of the first contender's experiment.
        seed: Of the episodes; None takes that of the first contender's search.
        store: Folder of all records.
        trust_code: Import the class that ``learner.architecture.of`` names: its code runs here.
        told: Receives a line before each test.

    Raises:
        MetaloomError: There is no such search or trial, or their test episodes cannot be the same.
    """
    runs = _all_runs(Path(store), contenders)
    first = runs[0].config
    asked = int(first.outer["test_episodes"]) if episodes is None else episodes
    shared_seed = first.seed if seed is None else seed
    for run in runs:
        _test(run, Path(store), asked, shared_seed, trust_code, told)
    return _compared(runs, asked, shared_seed)


def compare_recorded(*contenders: str, store: Path, read: Read | None = None) -> rows.ComparisonRow:
    """Compare trials as ``compare`` does by default, by the tests that their records hold: nothing is run.

    ``read`` gives the record of a search, which is read from its journal without it.

    Raises NotTested if a test is missing, and what ``compare`` raises.
    """
    runs = _all_runs(store, contenders, read)
    asked, seed = int(runs[0].config.outer["test_episodes"]), runs[0].config.seed
    missing = [run.name for run in runs if not is_tested(run.directory, seed=seed, episodes=asked)]
    if missing:
        command = f"metaloom compare {' '.join(contenders)}{store_option(store)}"
        tests = f"{', '.join(missing)} not tested yet on {asked} episodes of seed {seed}"
        raise NotTested(f"{tests}; test and compare with: {command}")
    return _compared(runs, asked, seed)


@dataclass(frozen=True)
class RecordedComparisons:
    """Compares trials of a store for its pages."""

    store: Path
    read: Read | None = None  # the record of a search, which is kept between questions

    def recorded(self, contenders: Sequence[str]) -> rows.ComparisonRow:
        """Compare by the tests that are recorded; raises as ``compare_recorded``."""
        return compare_recorded(*contenders, store=self.store, read=self.read)


def _all_runs(store: Path, contenders: Sequence[str], read: Read | None = None) -> list[Run]:
    read = read or functools.partial(queries.search_record, store)
    runs = list({run.name: run for given in contenders for run in _runs(store, given, read)}.values())
    if len(runs) < 2:
        raise SearchError(f"a comparison needs at least two trials, such as A B or A:3 A:7; got {len(runs)}")
    return runs


def _compared(runs: Sequence[Run], episodes: int, seed: int) -> rows.ComparisonRow:
    scores = {run.name: test_scores(run.directory, seed=seed, episodes=episodes) for run in runs}
    for run in runs[1:]:
        _check_same(runs[0], run, scores)
    groups, metric = _groups(runs), runs[0].metric
    return rows.ComparisonRow(
        metric=metric,
        episodes=len(scores[runs[0].name]),
        seed=seed,
        contenders=tuple(_row(group, groups[0], scores, metric) for group in groups),
        differing=_differing([group[0] for group in groups]),
    )


def _runs(store: Path, given: str, read: Read) -> list[Run]:
    """Return the trial that is named; for a search its best one, with the finished trials of the same knobs."""
    name, _, trial = given.partition(":")
    search = read(name)
    numbered = {str(one.number): one for one in search.trials.values()}
    found = ranking.best(search) if trial in ("", BEST) else numbered.get(trial)
    best = chosen_trial(store, name, trial or BEST)["id"] if found is None else found.number  # or its error
    numbers = [best]
    if trial in ("", BEST):
        groups = [[one.number for one in group.in_state(records.FINISHED)] for group in configurations(search)]
        numbers = next((group for group in groups if best in group), numbers)
    directories = {number: queries.trial_folder(store, name, number) for number in numbers}
    lasts = {number: search.trials[number].last for number in numbers}
    metrics = {number: last.scored.rpartition("_")[2] if last else LOSS for number, last in lasts.items()}
    return [Run(name, one, path, read_config(path), metrics[one]) for one, path in directories.items()]


def _test(run: Run, store: Path, episodes: int, seed: int, trust_code: bool, told: Callable[[str], None]) -> None:
    """Test a trial on the first ``episodes`` of ``seed``, unless its records hold them."""
    from metaloom.workers.checkpoint import load_knowledge  # torch, which comparing recorded tests does without
    from metaloom.workers.scoring import evaluate_trial

    if rows_of_test(records.part_of_test(run.directory, seed), load_knowledge(run.directory).step) >= episodes:
        return
    told(f"testing {run.name} on {episodes} episodes of seed {seed} ...")
    cache = store / records.CACHE_FOLDER
    evaluate_trial(run.directory, cache=cache, episodes=episodes, seed=seed, trust_code=trust_code)


def _check_same(first: Run, other: Run, scores: Mapping[str, Scores]) -> None:
    """Refuse trials whose test episodes are not the same; name the settings of the tasks that differ."""
    if scores[first.name].keys() == scores[other.name].keys() and first.metric == other.metric:
        return
    ours, theirs = first.settings, other.settings
    paths = sorted(path for path in ours.keys() | theirs.keys() if path.startswith("tasks."))
    changes = [
        f"{path} is {ours.get(path)} and {theirs.get(path)}" for path in paths if ours.get(path) != theirs.get(path)
    ]
    why = "; ".join(changes) or "their records are of other data"
    raise SearchError(f"{first.name} and {other.name} have no test episodes in common: {why}")


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Gather the trials that differ by their seeds alone; each is for itself if all would be one."""
    keys: list[TrialConfig] = []
    groups: list[list[Run]] = []
    for run in runs:
        key = replace(run.config, search="", trial=0, seed=0, repeat=0, resources={})
        if key in keys:
            groups[keys.index(key)].append(run)
        else:
            keys.append(key)
            groups.append([run])
    return groups if len(groups) > 1 else [[run] for run in runs]


def _row(group: Sequence[Run], first: Sequence[Run], scores: Mapping[str, Scores], metric: str) -> rows.ContenderRow:
    mean, low, high = mean_interval(_averaged(group, scores), metric=metric)
    if metric == LOSS:
        mean, low, high = -mean, -high, -low
    return rows.ContenderRow(
        name=", ".join(run.name for run in group),
        runs=tuple(rows.ComparedRun(search=run.search, trial=run.trial, seed=run.config.seed) for run in group),
        mean=mean,
        interval=(low, high),
        better_than_first=None if group is first else _difference(group, first, scores),
    )


def _averaged(group: Sequence[Run], scores: Mapping[str, Scores]) -> list[float]:
    """Return the mean score of a group's trials on each episode, in the same order for all groups."""
    episodes = sorted(scores[group[0].name])
    return [math.fsum(scores[run.name][episode] for run in group) / len(group) for episode in episodes]


def _difference(group: Sequence[Run], first: Sequence[Run], scores: Mapping[str, Scores]) -> rows.DifferenceRow:
    ours, theirs = _averaged(group, scores), _averaged(first, scores)
    mean, low, high = paired_interval(ours, theirs)
    interval = (low, high) if len(ours) > 1 else None
    return rows.DifferenceRow(mean=mean, interval=interval, seeds_interval=_over_seeds(group, first, scores))


def _over_seeds(group: Sequence[Run], first: Sequence[Run], scores: Mapping[str, Scores]) -> tuple[float, float] | None:
    """Return the interval of the difference over seeds: paired where both have the same seeds, else Welch's."""
    if min(len(group), len(first)) < 2:
        return None
    ours, theirs = ({(run.config.seed, run.config.repeat): run for run in one} for one in (group, first))
    means = [{run.name: mean_interval(list(scores[run.name].values()))[0] for run in one} for one in (group, first)]
    if ours.keys() == theirs.keys() and len(ours) == len(group) == len(first):
        differences = [means[0][ours[seed].name] - means[1][theirs[seed].name] for seed in ours]
        return mean_interval(differences)[1:]
    from scipy.stats import ttest_ind

    interval = ttest_ind(*(list(one.values()) for one in means), equal_var=False).confidence_interval()
    return float(interval.low), float(interval.high)


def _differing(runs: Sequence[Run]) -> tuple[rows.DifferingRow, ...]:
    settings = [run.settings for run in runs]
    paths = dict.fromkeys(path for one in settings for path in one)
    values = {path: tuple(one.get(path) for one in settings) for path in paths}
    return tuple(rows.DifferingRow(name=path, values=found) for path, found in values.items() if len(set(found)) > 1)

"""Every stored name, spelled once: tables, events, states, metrics, files and folders, and the paths made of them.

Trackers write these names, dashboards read them. Nothing here imports torch, so that reading records costs no more than
the standard library.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from metaloom.search_spaces import metrics

# The journal: one SQLite database per search.
JOURNAL_FILE = "journal.db"
JOURNAL_LOG = "journal.log"  # the same rows as lines, for recovery
JOURNAL_BACKUPS = ("journal.backup-1.db", "journal.backup-2.db")  # the newest first
EVENTS_TABLE = "events"  # id, time, trial, kind, payload, digest
MARKS_TABLE = "marks"  # name, event, state, digest

CREDENTIALS_FILE = "credentials"  # of the store: the addresses that have a password

# Kinds of event.
SEARCH_CREATED = "search_created"
SEARCH_STARTED = "search_started"
SEARCH_ENDED = "search_ended"
SEARCH_EXTENDED = "search_extended"
TRIAL_SUGGESTED = "trial_suggested"
TRIAL_STARTED = "trial_started"
TRIAL_REPORTED = "trial_reported"
TRIAL_STOPPED = "trial_stopped"
TRIAL_FINISHED = "trial_finished"
TRIAL_FAILED = "trial_failed"
TRIAL_INTERRUPTED = "trial_interrupted"
TRIAL_EXPLOITED = "trial_exploited"
TRIAL_WARNED = "trial_warned"
TRIAL_REWROTE = "trial_rewrote"  # episode parts, after it went back to an earlier checkpoint
BASELINE = "baseline"
BEST_TESTED = "best_tested"
JOURNAL_REPAIRED = "journal_repaired"
RENAMED = "renamed"
NOTED = "noted"  # a user's remark on the search or on a trial
ENQUEUED = "enqueued"  # a configuration that is to be tried next

# Projections of the journal, each with a high-water mark.
MLFLOW_MARK = "mlflow"
OPTUNA_MARK = "optuna"

# States of a trial.
FINISHED = "finished"
STOPPED = "stopped"
FAILED = "failed"
RUNNING = "running"
WAITING = "waiting"
TRIAL_STATES = (FINISHED, STOPPED, FAILED, RUNNING, WAITING)

OUT_OF_TIME = "the time budget is spent"  # the reason of a trial that the budget has stopped
KILLED = "the search was killed"  # the reason of a trial that a killed driver has left running

# States of a search: WAITING (created), RUNNING, FINISHED, FAILED, and:
INTERRUPTED = "interrupted"
EMPTY = "empty"  # it has no record yet: it is being made, or was stopped before its first one
UNREADABLE = "unreadable"

# Metrics of a report: those that a search may be judged by, and others.
SECONDS, ADAPT_SECONDS, PARAMETERS = metrics.SECONDS, metrics.ADAPT_SECONDS, metrics.PARAMETERS
TRAIN_LOSS, TRAIN_ACCURACY = metrics.TRAIN_LOSS, metrics.TRAIN_ACCURACY
VALIDATION_LOSS, VALIDATION_ACCURACY = metrics.VALIDATION_LOSS, metrics.VALIDATION_ACCURACY
VALIDATION_CONSTANT = "validation_constant_loss"  # of predicting the support set's mean target
VALIDATION_RMSE = "validation_rmse"  # in the units of the one target, where it was standardized
HYPERGRADIENT_NORM = "hypergradient_norm"
DIAGNOSTIC = "hypergradient_"  # before the name of what an estimator says of itself
INNER_GRADIENT_NORM = f"{DIAGNOSTIC}inner_gradient_norm"
RESIDUAL = f"{DIAGNOSTIC}residual"  # of an implicit gradient's linear system, relative to its right side
# The parts of a trial's seconds, so far: drawing training episodes; their inner loops and the hypergradient through
# them, which are one computation; the outer steps; validations; the episodes' records. The rest is mostly checkpoints.
SAMPLING_SECONDS, INNER_SECONDS, OUTER_SECONDS = "sampling_seconds", "inner_seconds", "outer_seconds"
VALIDATING_SECONDS, RECORDING_SECONDS = "validating_seconds", "recording_seconds"
PARTS_OF_SECONDS = (SAMPLING_SECONDS, INNER_SECONDS, OUTER_SECONDS, VALIDATING_SECONDS, RECORDING_SECONDS)
PEAK_BYTES = "peak_bytes"  # the most memory that the trial's process has held, since it began with the trial
PEAK_GPU_BYTES = "peak_gpu_bytes"  # the most that its tensors have held on a GPU; absent on a CPU
OF_SOURCE = "/"  # between a metric's name and that of the data set that it is of, where there are several
# Measured on the machine; all other metrics repeat bit for bit on a resume.
MEASURED = frozenset({SECONDS, ADAPT_SECONDS, *PARTS_OF_SECONDS, PEAK_BYTES, PEAK_GPU_BYTES})
MAXIMIZED = frozenset({VALIDATION_ACCURACY, TRAIN_ACCURACY})

# Splits of a task source, which are also the phases of an episode row.
TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
PHASES = (TRAIN, VALIDATION, TEST)

# Inside a store: the searches' folders; inside a search's folder.
SEARCHES_FOLDER = "searches"
SEARCH_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")
TRIALS_FOLDER = "trials"
EXPERIMENT_FILE = "experiment.yaml"
ENQUEUED_FOLDER = "enqueued"  # what other processes have enqueued, until the one that runs the search journals it
STOPPING_FILE = "stopping-"  # and the number of a session: a process has told it to stop
JOBS_FOLDER = "jobs"  # what the pages have begun: commands that run on their own
CLOCK_FILE = "clock.json"  # the time spent in the present session, noted every second
STAGES_FOLDER = "stages"  # of the trained stages, beside the searches: each in a folder named by its digest
GIVEN_FOLDER = "given"  # inside the cache: the data that were given from Python
CACHE_FOLDER = "cache"  # of the task sources, beside the searches

# Inside a stage's folder, which is also a trial's directory.
STAGE_FILE = "stage.json"  # its facts, once it is finished
STAGE_BUNDLE = "bundle"

# Inside a trial's directory.
AT_STAGE_FILE = "at_stage.json"  # while one of its stages is trained or waited for: which, and how far it is
NEEDED_STAGES_FILE = "needed_stages.json"  # the digest of each stage that it has asked for, by name
CONFIG_FILE = "config.json"
HEARTBEAT_FILE = "heartbeat.json"  # who runs the trial; its time of change is the last sign of life
TASK_FILE = "task.json"  # the shape of its tasks, for which the source itself would have to be opened
CHECKPOINTS_FOLDER = "checkpoints"
EPISODES_FOLDER = "episodes"
PART = re.compile(r"part-(\d+)-(\d+)\.parquet")
OUTPUT_FILE = "output.log"  # what its code has printed; absent where it has not
REPORTS_FILE = "reports.log"  # every report, as the worker made it
FIGURES_FOLDER = "figures"
LEARNED_FILE = "learned.json"  # among the figures: the name and the caption of each that shows what was learned
FIRST_SEEDS_VERSION = 1  # what a record without a number was made with
SEEDS_VERSION = 2  # the derivation of generators (workers/seeds.py) of all that begins now
META_KNOWLEDGE_FILE = "meta_knowledge.safetensors"
SNAPSHOTS_FOLDER = "snapshots"  # of what was learned on the way, small ones
KNOWLEDGE_ENTRY = "metaloom"  # the one metadata entry of a file of knowledge: canonical JSON
SNAPSHOT = re.compile(r"step-(\d+)\.safetensors")
EPISODE_FILE = "shown_episode.safetensors"  # what the learner shows of a validation episode, such as its attention
MANIFEST_FILE = "manifest.json"  # of a bundle


def is_better(metric: str, candidate: float, incumbent: float | None) -> bool:
    """Say whether ``candidate`` improves on ``incumbent`` (None: there is none yet); NaN never does."""
    if math.isnan(candidate) or incumbent is None:
        return not math.isnan(candidate)
    return candidate > incumbent if metric in MAXIMIZED else candidate < incumbent


def search_names(store: Path) -> list[str]:
    """Return the names of the searches of ``store``, sorted; empty where there is no store."""
    found = (store / SEARCHES_FOLDER).glob("*")
    return sorted(path.name for path in found if path.is_dir() and SEARCH_NAME.fullmatch(path.name))


def trial_label(trial: int) -> str:
    """Return the name of a trial's folder: ``0007``."""
    return f"{trial:04d}"


def trial_directory(search_folder: Path, trial: int) -> Path:
    """Return the directory of a trial: ``trials/0007`` under its search."""
    return search_folder / TRIALS_FOLDER / trial_label(trial)


def trial_directories(search_folder: Path) -> dict[int, Path]:
    """Return the directories of the trials that have begun, by number."""
    found = (search_folder / TRIALS_FOLDER).glob("[0-9]*")
    return {int(path.name): path for path in sorted(found, key=lambda path: int(path.name))}


def snapshot_path(directory: Path, step: int) -> Path:
    """Return the file of a trial's snapshot of what it had learned after ``step`` outer steps."""
    return directory / SNAPSHOTS_FOLDER / f"step-{step:08d}.safetensors"


def snapshot_steps(directory: Path) -> tuple[int, ...]:
    """Return the steps of which the trial in ``directory`` has snapshots, rising."""
    folder = directory / SNAPSHOTS_FOLDER
    matches = (SNAPSHOT.fullmatch(path.name) for path in (folder.iterdir() if folder.is_dir() else ()))
    return tuple(sorted(int(match[1]) for match in matches if match))


def part_name(start: int, end: int) -> str:
    """Name the part of the outer steps from ``start`` to before ``end``, and of the validation at ``end``."""
    return f"part-{start:08d}-{end:08d}.parquet"


def steps_of_part(name: str) -> tuple[int, int]:
    """Return the outer steps (start, end) that a part is named by; raises ValueError for the part of a test."""
    match = PART.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is not named by outer steps")
    return int(match[1]), int(match[2])


def part_of_test(directory: Path, seed: int, sizes: Mapping[str, int] = MappingProxyType({})) -> Path:
    """Return the file with the rows of a trial's test on the episodes of a seed.

    Args:
        directory: The trial's.
        seed: Of the episodes.
        sizes: The ``ways``, ``shots`` and ``queries`` of the episodes that are not the experiment's own.
    """
    others = "".join(f"-{number}-{name}" for name, number in sizes.items())
    return directory / EPISODES_FOLDER / f"part-test-{seed}{others}.parquet"


def parts_of(episodes: Path, *, tests_alone: bool = False) -> list[Path]:
    """Return the Parquet parts in a trial's folder of episodes, sorted; none where there is no folder yet."""
    return sorted(episodes.glob("part-test-*.parquet" if tests_alone else "part-*.parquet"))

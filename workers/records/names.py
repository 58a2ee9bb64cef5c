"""Every stored name, spelled once: tables, events, states, metrics, files and folders.

Trackers write these names, dashboards read them. Nothing here imports torch, so
that reading records costs no more than the standard library.
"""

import math

from metaloom.search_spaces.metrics import ADAPT_SECONDS as ADAPT_SECONDS
from metaloom.search_spaces.metrics import PARAMETERS as PARAMETERS
from metaloom.search_spaces.metrics import SECONDS as SECONDS
from metaloom.search_spaces.metrics import TRAIN_ACCURACY as TRAIN_ACCURACY
from metaloom.search_spaces.metrics import TRAIN_LOSS as TRAIN_LOSS
from metaloom.search_spaces.metrics import VALIDATION_ACCURACY as VALIDATION_ACCURACY
from metaloom.search_spaces.metrics import VALIDATION_LOSS as VALIDATION_LOSS

# The journal: one SQLite database per search.
JOURNAL_FILE = "journal.db"
EVENTS_TABLE = "events"  # id, time, trial, kind, payload
MARKS_TABLE = "marks"  # name, event, state

# Kinds of event.
SEARCH_CREATED = "search_created"
SEARCH_STARTED = "search_started"
SEARCH_ENDED = "search_ended"
TRIAL_SUGGESTED = "trial_suggested"
TRIAL_STARTED = "trial_started"
TRIAL_REPORTED = "trial_reported"
TRIAL_STOPPED = "trial_stopped"
TRIAL_FINISHED = "trial_finished"
TRIAL_FAILED = "trial_failed"
TRIAL_INTERRUPTED = "trial_interrupted"
TRIAL_EXPLOITED = "trial_exploited"
TRIAL_WARNED = "trial_warned"
BASELINE = "baseline"
BEST_TESTED = "best_tested"

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

# States of a search: WAITING (created), RUNNING, FINISHED, FAILED, and:
INTERRUPTED = "interrupted"

# Metrics of a report, beside those that a search may be judged by (search_spaces/metrics.py).
HYPERGRADIENT_NORM = "hypergradient_norm"
DIAGNOSTIC = "hypergradient_"  # before the name of what an estimator says of itself
INNER_GRADIENT_NORM = f"{DIAGNOSTIC}inner_gradient_norm"
RESIDUAL = f"{DIAGNOSTIC}residual"  # of an implicit gradient's linear system, relative to its right side
RECORDING_SECONDS = "recording_seconds"
TIMINGS = frozenset({SECONDS, ADAPT_SECONDS, RECORDING_SECONDS})  # all others repeat bit for bit on a resume
MAXIMIZED = frozenset({VALIDATION_ACCURACY, TRAIN_ACCURACY})

# Splits of a task source, which are also the phases of an episode row.
TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
PHASES = (TRAIN, VALIDATION, TEST)

# Inside a store: the searches' folders; inside a search's folder.
SEARCHES_FOLDER = "searches"
TRIALS_FOLDER = "trials"
EXPERIMENT_FILE = "experiment.yaml"
CACHE_FOLDER = "cache"  # of the task sources, beside the searches

# Inside a trial's directory.
CONFIG_FILE = "config.json"
TASK_FILE = "task.json"  # the shape of its tasks, for which the source itself would have to be opened
CHECKPOINTS_FOLDER = "checkpoints"
EPISODES_FOLDER = "episodes"
FIGURES_FOLDER = "figures"
LEARNED_FILE = "learned.json"  # among the figures: the name and the caption of each that shows what was learned
FIRST_SEEDS_VERSION = 1  # what a record without a number was made with
SEEDS_VERSION = 2  # the derivation of generators (workers/seeds.py) of all that begins now
META_KNOWLEDGE_FILE = "meta_knowledge.safetensors"
MANIFEST_FILE = "manifest.json"  # of a bundle

Z_95 = 1.96  # normal quantile of a 95% interval, as the few-shot literature reports it


def is_better(metric: str, candidate: float, incumbent: float | None) -> bool:
    """Say whether ``candidate`` improves on ``incumbent`` (None: nothing seen yet); NaN never does."""
    if math.isnan(candidate):
        return False
    if incumbent is None:
        return True
    return candidate > incumbent if metric in MAXIMIZED else candidate < incumbent

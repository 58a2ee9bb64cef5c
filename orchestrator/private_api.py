"""Every use of a private interface of Ray, Optuna and MLflow, with the reason.

A release of these packages may change them without notice. ``tests/orchestrator/test_private_api.py`` lists and calls
each, and finds uses in other files. Each function imports its package itself, so that neither package loads the other.
"""

import signal
import sqlite3
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

# The columns of MLflow's tables that hold the absolute place of files; MLflow has no means to change them.
MLFLOW_PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
TPE_DRAFT = "tpe:relative_params"  # the system attribute with the values that Optuna's TPE drew for a trial


def ray_is_held() -> bool:
    """Return whether this process holds a Ray worker, which only ``ray.shutdown`` removes.

    ``ray.is_initialized()`` is false after an interrupted start although the worker is left.
    """
    from ray._private import worker

    return hasattr(worker.global_worker, "core_worker")


def read_ray_environment() -> None:
    """Make Ray read the environment again; it does so only once, at import.

    The mode is read before the token: a thread of an earlier Ray must not miss a token between the two.
    """
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # in no stub of Ray's

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, not ray_constants.IS_WINDOWS_OR_OSX
    )


@contextmanager
def without_ray_messages() -> Iterator[None]:
    """Let a Ray that is connected within print no messages of its servers on the terminal.

    ``log_to_driver=False`` leaves them: a worker that has died costs 1 kB in colour. Our own line names it.
    """
    from ray._private import worker

    before = worker.listen_error_messages
    worker.listen_error_messages = lambda *_: None  # ray.init starts it as a thread
    try:
        yield
    finally:
        worker.listen_error_messages = before


def disconnect_ray() -> None:
    """Mark this process as disconnected from Ray, because ``ray.shutdown`` would wait for dead servers."""
    from ray._private import worker
    from ray.experimental import internal_kv

    worker.global_worker.set_is_connected(False)
    internal_kv._internal_kv_reset()


def ray_folder(path: str) -> dict[str, Any]:
    """Return ``ray.init``'s argument for the folder of its sockets and logs; it has no public one."""
    return {"_temp_dir": path}


@contextmanager
def ray_servers(change: Callable[[Mapping[str, str]], dict[str, str]], workers: int) -> Iterator[None]:
    """Within this context start Ray's servers in a changed environment, with so many first workers, deaf to SIGHUP.

    ``ray.init`` gives them the whole environment of its process, which its workers inherit, and starts one worker a
    CPU. Changing ``os.environ`` meanwhile would take the variables from the threads of this process. A closed terminal
    signals the servers too, which then could not be shut down in order.

    Three servers are not started, which would delay Ray's start: the dashboard's (``include_dashboard``
    leaves out its pages only), the autoscaler's monitor, and the forwarder of logs to a driver that does not show them.
    """
    from ray._private import services
    from ray._private.node import Node

    flag = "--num_prestart_python_workers="
    popen: Any = services.ConsolePopen

    def start(command: list[str], *, env: Mapping[str, str], preexec_fn: Callable[[], None], **more: Any) -> Any:
        def prepare() -> None:
            preexec_fn()
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

        command = [f"{flag}{workers}" if one.startswith(flag) else one for one in command]
        return popen(command, env=change(env), preexec_fn=prepare, **more)

    def leave_out(node: Node, **settings: Any) -> None:
        node._webui_url = None

    left_out = ("start_api_server", "start_monitor", "start_log_monitor")
    usual = {name: getattr(Node, name) for name in left_out}
    try:
        services.ConsolePopen = start
        for name in left_out:
            setattr(Node, name, leave_out)
        yield
    finally:
        services.ConsolePopen = popen
        for name, method in usual.items():
            setattr(Node, name, method)


@contextmanager
def tune_variables(kept: Container[str]) -> Iterator[None]:
    """Within this context let Tune send its workers only the kept ones of this process's environment variables.

    Among those that it sends are the AWS secrets. Ray also starts a process of its own for each worker that is sent
    any, in place of one that has imported everything.
    """
    from ray.tune.execution import class_cache

    usual: Any = (class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE)
    class_cache.DEFAULT_ENV_VARS = {}
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in usual[1] if name in kept}
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = usual


def trial_id(trial: "FrozenTrial | Trial") -> int:
    """Return a trial's key in Optuna's storage; the public accessor queries the database."""
    return int(trial._trial_id)


def forget_draft(trial: "Trial") -> None:
    """Remove the values that TPE drew for branches that the trial does not take.

    TPE records a value for every group of knobs, so that other suggestions avoid it. A trial rebuilt by replay lacks
    these values, so without the removal the replay would suggest other points.
    """
    for key in trial.storage.get_trial_system_attrs(trial_id(trial)):
        if key.startswith(TPE_DRAFT):
            trial.storage.set_trial_system_attr(trial_id(trial), key, "")  # it cannot be deleted; empty counts as none


def set_parameter(trial: "Trial", name: str, domain: "BaseDistribution", value: Any) -> None:
    """Set a running trial's value without its sampler, as Optuna does for enqueued trials."""
    trial.storage.set_trial_param(trial_id(trial), name, domain.to_internal_repr(value), domain)


def domain_contains(domain: "BaseDistribution", internal: float) -> bool:
    """Return whether a value in Optuna's representation is in a domain; no public method does so."""
    return bool(domain._contains(internal))


def set_intermediate_values(storage: Any, trial: int, values: Mapping[int, float]) -> None:
    """Set a trial's intermediate values in an Optuna database, in one transaction; the public method takes one each."""
    from optuna.storages._rdb.storage import _create_scoped_session

    with _create_scoped_session(storage.scoped_session, True) as session, session.no_autoflush:
        for step, value in values.items():
            storage._set_trial_intermediate_value_without_commit(session, trial, step, value)


def mlflow_schemas() -> list[str]:
    """Return the names of all versions of MLflow's tables, the newest first: it compares with the newest only."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    return [script.revision for script in scripts.walk_revisions()]


def mlflow_points(database: "Path", experiment: str) -> dict[str, int]:
    """Return how many metric points each run of an experiment has; MLflow's interface reads them all, one by one."""
    query = (
        "SELECT metrics.run_uuid, COUNT(*) FROM metrics JOIN runs ON runs.run_uuid = metrics.run_uuid "
        "WHERE runs.experiment_id = ? GROUP BY metrics.run_uuid"
    )
    with closing(sqlite3.connect(database)) as connection:
        return dict(connection.execute(query, (int(experiment),)).fetchall())


def forget_mlflow_connections(uri: str) -> None:
    """Close the idle connections that MLflow keeps to a database: its file may have been replaced since."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engine = SqlAlchemyStore._engine_map.get(uri)
    if engine is not None:
        engine.dispose()

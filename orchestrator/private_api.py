"""Every use of a private interface of Ray and of Optuna, with the reason; MLflow is used by its public one alone.

A release of these packages may change them without notice: ``tests/orchestrator/test_private_api.py`` names each, calls
each, and finds a use that stands elsewhere. A package is imported when it is asked: neither brings the other.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

TPE_DRAFT = "tpe:relative_params"  # the system attribute in which Optuna's TPE keeps a draft of a trial


def ray_is_held() -> bool:
    """Return whether something of a Ray is left in this process, which only ``ray.shutdown`` removes.

    ``ray.is_initialized()`` is false already after a start that was broken off.
    """
    from ray._private import worker

    return hasattr(worker.global_worker, "core_worker")


def read_ray_environment() -> None:
    """Let Ray see the environment as it is now: it looked once, when it was imported, and no function looks again.

    The mode comes before the token: a thread of an earlier Ray that asks in between must not miss a token it needs.
    """
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # in no stub of Ray's

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, not ray_constants.IS_WINDOWS_OR_OSX
    )


def disconnect_ray() -> None:
    """Make this process believe that it has no Ray: ``ray.shutdown`` would wait for servers that are gone."""
    from ray._private import worker
    from ray.experimental import internal_kv

    worker.global_worker.set_is_connected(False)
    internal_kv._internal_kv_reset()


def ray_folder(path: str) -> dict[str, Any]:
    """Return the argument of ``ray.init`` for the folder of its sockets and logs; it has no public one."""
    return {"_temp_dir": path}


def trial_id(trial: "FrozenTrial | Trial") -> int:
    """Return a trial's key in Optuna's storage, whose methods take no number; its public accessor asks the database."""
    return int(trial._trial_id)


def forget_draft(trial: "Trial") -> None:
    """Forget what TPE drew for branches that the trial did not take.

    It writes down a value for every group of knobs, so that others keep away from it while the trial is put together.
    Ours is complete, and a replayed one has no such values: it would repel from fewer points than it did.
    """
    for key in trial.storage.get_trial_system_attrs(trial_id(trial)):
        if key.startswith(TPE_DRAFT):
            trial.storage.set_trial_system_attr(trial_id(trial), key, "")  # read as none; it cannot be deleted


def set_parameter(trial: "Trial", name: str, domain: "BaseDistribution", value: Any) -> None:
    """Give a running trial a value that its sampler is not asked for, as Optuna's enqueued trials have it."""
    trial.storage.set_trial_param(trial_id(trial), name, domain.to_internal_repr(value), domain)


def domain_contains(domain: "BaseDistribution", internal: float) -> bool:
    """Say whether a value, in Optuna's representation, is in a domain: no public method says it."""
    return bool(domain._contains(internal))

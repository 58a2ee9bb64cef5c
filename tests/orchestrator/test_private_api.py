"""Private interfaces of Ray, Optuna and MLflow are used in one file, and each is there in the installed release."""

import ast
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import metaloom.orchestrator.private_api as private_api
from tests.support import processes

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("learners", "search_spaces", "workers", "dashboards", "orchestrator", "benchmarks", "examples")
PACKAGES = ("ray", "optuna", "mlflow")
PRIVATE = {
    "ray._private",
    "ray._raylet",
    "_internal_kv_reset",
    "_temp_dir",
    "_trial_id",
    "_webui_url",
    "_contains",
    "mlflow.store.db.utils._get_alembic_config",
    "_engine_map",
    "optuna.storages._rdb",
    "_set_trial_intermediate_value_without_commit",
}
OUR_OWN = {"_replace", "_fields", "_asdict"}  # the public methods of Python's named tuples


def private_names(path: Path) -> Iterator[str]:
    """Yield the private names that a file takes from one of the packages.

    These are private modules and members that it imports, the private arguments that it gives or puts in a dictionary,
    and the private attributes of anything but ``self`` and ``cls`` in a file that imports one of the packages.
    """
    tree = ast.parse(path.read_text())
    touches = False
    for node in ast.walk(tree):
        modules = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        of_packages = [one for one in modules if one.split(".")[0] in PACKAGES]
        touches = touches or bool(of_packages)
        for module in of_packages:
            parts = module.split(".")
            private = next((number for number, part in enumerate(parts) if part.startswith("_")), None)
            if private is not None:
                yield ".".join(parts[: private + 1])
    if not touches:
        return
    module_level = {one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner not in ("self", "cls", *module_level):
                yield node.attr
        if isinstance(node, ast.keyword) and node.arg and is_private(node.arg):
            yield node.arg
        if isinstance(node, ast.Dict):
            keys = [one.value for one in node.keys if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            yield from filter(is_private, keys)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in OUR_OWN


def test_private_interfaces_are_used_in_one_file_and_these_are_all():
    found = {
        path.relative_to(ROOT).as_posix(): names
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (names := set(private_names(path)))
    }
    own = {"orchestrator/executors/ray_cluster/connection.py": {"_exit", "_run_exitfuncs"}}  # of Python's os and atexit
    assert {file: names - own.get(file, set()) for file, names in found.items() if names - own.get(file, set())} == {
        "orchestrator/private_api.py": PRIVATE
    }


def test_each_function_says_why():
    functions = [
        one for one in ast.parse(Path(private_api.__file__).read_text()).body if isinstance(one, ast.FunctionDef)
    ]
    assert len(functions) == 15
    assert all(len(ast.get_docstring(one) or "") > 60 for one in functions)


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_ray_is_as_it_is_expected(mode):
    code = (
        "import os; from metaloom.orchestrator.private_api import *\n"
        "import ray; assert not ray_is_held()\n"
        f"os.environ['RAY_AUTH_MODE'] = {mode!r}; read_ray_environment()\n"
        "disconnect_ray(); assert not ray.is_initialized()\n"
        "import inspect; from ray._private import worker\n"
        "assert '_temp_dir' in inspect.getsource(worker.init)\n"
        "from ray._private import services\n"
        "assert '--num_prestart_python_workers=' in inspect.getsource(services.start_raylet)\n"
        "usual = services.ConsolePopen\n"
        "with ray_servers(lambda given: {'GIVEN': given['GIVEN']}, 3):\n"
        "    started = services.start_ray_process(['/usr/bin/env'], 'env', False, {'GIVEN': 'yes', 'LEFT': 'out'},\n"
        "        stdout_file=open('/dev/null', 'w'), pipe_stdin=True).process\n"
        "    assert started.wait() == 0 and services.ConsolePopen is not usual\n"
        "assert services.ConsolePopen is usual\n"
        "assert 'target=listen_error_messages' in inspect.getsource(worker.connect)\n"
        "with without_ray_messages(): assert worker.listen_error_messages(None, None) is None\n"
        "from ray._private.node import Node\n"
        "started = inspect.getsource(Node.start_head_processes) + inspect.getsource(Node.start_ray_processes)\n"
        "left_out = ('start_api_server', 'start_monitor', 'start_log_monitor')\n"
        "assert all(f'self.{name}(' in started for name in left_out)\n"
        "from ray.tune.execution import class_cache\n"
        "os.environ['AWS_SECRET_ACCESS_KEY'] = 'planted'; os.environ['RAY_CHDIR_TO_TRIAL_DIR'] = '0'\n"
        "sent = lambda: class_cache._ActorClassCache().get(type('T', (), {}))._default_options['runtime_env']\n"
        "assert sent()['env_vars']['AWS_SECRET_ACCESS_KEY'] == 'planted'\n"
        "with tune_variables({'RAY_CHDIR_TO_TRIAL_DIR'}):\n"
        "    assert sent() == {'env_vars': {'RAY_CHDIR_TO_TRIAL_DIR': '0'}}, sent()\n"
        "with tune_variables(()):\n"
        "    assert not any(sent().values()), sent()\n"
    )
    done = processes.run("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_optuna_is_as_it_is_expected():
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=0, multivariate=True, group=True, n_startup_trials=1)
    )
    domain = FloatDistribution(0.0, 1.0)
    for _ in range(3):
        trial = study.ask({"x": domain})
        study.tell(trial, trial.params["x"])
    trial = study.ask()
    assert private_api.trial_id(trial) == private_api.trial_id(study.trials[-1])
    private_api.set_parameter(trial, "y", IntDistribution(0, 5), 3)
    trial.storage.set_trial_system_attr(private_api.trial_id(trial), f"{private_api.TPE_DRAFT}:0", "{}")
    private_api.forget_draft(trial)
    frozen = study.trials[-1]
    assert frozen.params["y"] == 3
    drafts = [value for key, value in frozen.system_attrs.items() if key.startswith(private_api.TPE_DRAFT)]
    assert drafts and not any(drafts)
    assert private_api.domain_contains(domain, 1.0) and not private_api.domain_contains(domain, 1.1)
    assert private_api.domain_contains(CategoricalDistribution(["a", "b"]), 1)

"""``metaloom train``: one trial."""

from typing import Any

from metaloom.orchestrator.command_line import answers
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator import api, preparing
    from metaloom.orchestrator.command_line import progress


def train(
    experiment: answers.ExperimentArgument,
    name: answers.NameOption = None,
    changes: answers.SetOption = [],  # noqa: B006
    seed: answers.SeedOption = None,
    executor: answers.ExecutorOption = "inline",
    address: answers.AddressOption = None,
    insecure_cluster: answers.InsecureOption = False,
    trust_code: answers.TrustOption = False,
    dry_run: answers.DryRunOption = False,
    store: answers.StoreOption = DEFAULT_STORE,
    as_json: answers.JsonOption = False,
) -> int:
    """Run one trial; a searched knob takes its default, which is reported."""
    with answers.answering(as_json) as answer:
        given: dict[str, Any] = {
            "overrides": changes,
            "store": store,
            "name": name,
            "executor": executor,
            "address": address,
            "insecure_cluster": insecure_cluster,
            "trust_code": trust_code,
            "seed": seed,
        }
        if dry_run:
            return progress.show_plan(answer, preparing.prepare_train(experiment, **given))
        return progress.run_shown(answer, api.train, experiment, **given)


COMMAND = Command(train, examples=("metaloom train sinusoid-maml --set outer.steps=2000 --name sine",))

"""``metaloom train``: one trial."""

import functools

from metaloom.orchestrator.command_line import answers, options
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator import api
    from metaloom.orchestrator.command_line import running


def train(
    experiment: answers.ExperimentArgument,
    name: options.NameOption = None,
    changes: answers.SetOption = [],  # noqa: B006
    seed: options.SeedOption = None,
    executor: options.ExecutorOption = "inline",
    address: options.AddressOption = None,
    insecure_cluster: options.InsecureOption = False,
    trust_code: answers.TrustOption = False,
    store: answers.StoreOption = DEFAULT_STORE,
    as_json: answers.JsonOption = False,
) -> int:
    """Run one trial; a searched knob takes its default, which is reported."""
    with answers.answering(as_json) as answer:
        run = functools.partial(
            api.train,
            experiment,
            overrides=changes,
            store=store,
            name=name,
            executor=executor,
            address=address,
            insecure_cluster=insecure_cluster,
            trust_code=trust_code,
            seed=seed,
        )
        return running.run_shown(answer, store, run)


COMMAND = Command(train, examples=("metaloom train sinusoid-maml --set outer.steps=2000 --name sine",))

"""``metaloom train``: one trial."""

import functools

from metaloom.orchestrator.command_line.answers import (
    ExperimentArgument,
    JsonOption,
    SetOption,
    StoreOption,
    TrustOption,
    answering,
)
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.options import (
    AddressOption,
    ExecutorOption,
    InsecureOption,
    NameOption,
    SeedOption,
)
from metaloom.orchestrator.command_line.registry import Command
from metaloom.orchestrator.store import DEFAULT_STORE

with deferred():
    from metaloom.orchestrator import api
    from metaloom.orchestrator.command_line import running


def train(
    experiment: ExperimentArgument,
    name: NameOption = None,
    changes: SetOption = [],  # noqa: B006
    seed: SeedOption = None,
    executor: ExecutorOption = "inline",
    address: AddressOption = None,
    insecure_cluster: InsecureOption = False,
    trust_code: TrustOption = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> int:
    """Run one trial; a searched knob takes its default, which is reported."""
    with answering(as_json) as answer:
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

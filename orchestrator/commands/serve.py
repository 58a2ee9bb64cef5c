"""``metaloom serve``: adapts and predicts over HTTP, by MLflow's own server, on this machine only, until Ctrl-C."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from metaloom.orchestrator.command_line.answers import JsonOption, answering
from metaloom.orchestrator.command_line.deferred import deferred
from metaloom.orchestrator.command_line.local_server import HOST, free_port, running, wait
from metaloom.orchestrator.command_line.registry import Command

with deferred():
    from metaloom.orchestrator.command_line import tables
    from metaloom.workers import adapted_files
    from metaloom.workers import bundle as bundles

SUPPORT = '"support_x": [...], "support_y": [...], '
CLASSES = '"class_features": [...], '


def serve(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or an adapted model's (adapt --out).")
    ],
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="By default a free one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a bundle on 127.0.0.1 by MLflow's model server; Ctrl-C ends it.

    POST to /invocations, as JSON: {"inputs": {"support_x": ..., "support_y": ..., "query_x": ...}} for a bundle, which
    adapts at each request, and {"inputs": {"query_x": ...}} for an adapted model. The answer has "predictions".
    """
    with answering(as_json) as answer:
        chosen, is_adapted = free_port(port), adapted_files.is_adapted(bundle)
        given = ""
        if is_adapted:
            bundles.load_adapted(bundle)  # what is wrong is told here
        else:
            given = SUPPORT if bundles.load_bundle(bundle).task.class_features is None else CLASSES
        tables.console(sys.stderr).print(f"starting MLflow's model server on {bundle} ...", markup=False)
        command = [
            *(sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(bundle.absolute())),
            *("--env-manager", "local", "--workers", "1", "--host", HOST, "--port", str(chosen)),
        ]
        found = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        # MLflow starts uvicorn by its name, which an environment that is not activated has not on its path
        with running(command, chosen, env={"PYTHONWARNINGS": "ignore", "PATH": found}) as process:
            url = f"http://{HOST}:{chosen}/invocations"
            body = f'{{"inputs": {{{given}"query_x": [...]}}}}'
            asked = f"curl -H 'Content-Type: application/json' -d '{body}' {url}"
            lines = f"{bundle} is served on {url}; Ctrl-C ends it\nask it: {asked}"
            answer.give({"url": url, "pid": process.pid}, lambda screen: screen.print(lines, markup=False))
            wait(process, f"metaloom serve {bundle}")


COMMAND = Command(serve, examples=("metaloom serve first-bundle --port 5001",))

"""Exports the forward pass after adaptation, for programs without Metaloom: ONNX, or a program of ``torch.export``.

The file maps raw inputs ``x`` [queries, *inputs], float32, to ``answers`` (probabilities [queries, classes], or
targets) and ``is_finite`` [queries]: taking the largest score skips NaN, so that the reader of the answers has to be
told. Its numbers are compared with those of the adapted model on another batch than the one that it was traced with.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaloom.learners.tensors import Tensors
from metaloom.workers.errors import BundleError, ExtraMissing

ONNX, PROGRAM = ".onnx", ".pt2"
TRACED, CHECKED = 3, (1, 5)  # queries of the example, and of the batches that are compared
TOLERANCE = 1e-4  # of answers, relative and absolute: other kernels add up in another order
LABELS_FILE = "labels.json"


class PlainForward(nn.Module):
    """A forward pass whose tensors are those of one task, so that its state holds them and no others."""

    def __init__(self, forward: Callable[[Tensors, Tensor], Tensor], tensors: Tensors) -> None:
        super().__init__()
        self._forward = forward
        self._names = {name: f"task_{place}" for place, name in enumerate(tensors)}
        for name, value in tensors.items():
            self.register_buffer(self._names[name], value.detach().clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the answers and which of them are finite."""
        answers = self._forward({name: getattr(self, own) for name, own in self._names.items()}, x)
        return answers, torch.isfinite(answers).flatten(1).all(1)


def export_plain(
    path: Path, forward: PlainForward, expected: Callable[[Tensor], Tensor], inputs: Tensor, facts: Mapping[str, Any]
) -> Path:
    """Write a forward pass to ``path``, and compare it with the adapted model.

    Args:
        path: Its ending says the form; it must not exist.
        forward: The pass.
        expected: Raw inputs to the adapted model's answers.
        inputs: Raw examples [n, *inputs] such as the model takes, which the compared batches are made of.
        facts: Kept in the file as JSON: labels, and what the inputs are.

    Raises:
        BundleError: The ending is another, the file exists, or the pass cannot be exported so that its answers agree.
        ExtraMissing: A package for ONNX is not installed.
    """
    if path.suffix not in (ONNX, PROGRAM):
        raise BundleError(f"{path}: no model is exported as '{path.suffix}'; allowed: {ONNX}, {PROGRAM}")
    if path.exists():
        raise BundleError(f"{path}: exists already; give another name")
    if path.suffix == ONNX:
        check_onnx()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(
                forward.eval(),
                (_batch(inputs, TRACED, seed=0),),
                dynamic_shapes={"x": {0: torch.export.Dim("queries", min=1)}},
            )
            served = _write_onnx(path, program, facts) if path.suffix == ONNX else _write_program(path, program, facts)
        for seed, size in enumerate(CHECKED, 1):
            batch = _batch(inputs, size, seed=seed)
            _compare(path, served(batch), expected(batch))
    except BaseException as problem:
        path.unlink(missing_ok=True)
        if isinstance(problem, BundleError) or not isinstance(problem, Exception):
            raise
        raise BundleError(f"{path}: this model cannot be exported ({type(problem).__name__}: {problem})") from problem
    return path


def check_onnx() -> None:
    """Raise ExtraMissing if a package that ONNX needs is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as missing:
        raise ExtraMissing(f"{missing.name} is not installed: pip install 'metaloom[onnx]'") from missing


def _batch(inputs: Tensor, size: int, *, seed: int) -> Tensor:
    """Mix examples to a batch of other ones: of their range, and equal to none."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(size, len(inputs), generator=generator, dtype=torch.float64)
    mixed = (shares / shares.sum(1, keepdim=True)) @ inputs.double().flatten(1)
    return mixed.reshape(size, *inputs.shape[1:]).float()


def _write_program(path: Path, program: Any, facts: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    torch.export.save(program, path, extra_files={LABELS_FILE: json.dumps(facts)})
    module = torch.export.load(path).module()
    return lambda batch: _answers(path, *module(batch))


def _write_onnx(path: Path, program: Any, facts: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    exported: Any = torch.onnx.export(
        program, dynamo=True, input_names=["x"], output_names=["answers", "is_finite"], verbose=False
    )
    exported.model.metadata_props["metaloom"] = json.dumps(facts)
    exported.save(path, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(batch: Tensor) -> Tensor:
        answers, is_finite = session.run(None, {"x": batch.numpy()})
        return _answers(path, torch.from_numpy(answers), torch.from_numpy(is_finite))

    return run


def _answers(path: Path, answers: Tensor, is_finite: Tensor) -> Tensor:
    if not bool(is_finite.all()):
        raise BundleError(f"{path}: this model's answers are not finite, so that it is not exported")
    return answers


def _compare(path: Path, found: Tensor, expected: Tensor) -> None:
    """Compare scores, never their order, which ties decide; raises BundleError where they differ."""
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
        by = "" if found.shape != expected.shape else f" by up to {float((found - expected).abs().max()):.2g}"
        raise BundleError(
            f"{path}: what was exported answers another batch differently{by} (shape {tuple(found.shape)}, expected "
            f"{tuple(expected.shape)}), so that it is not exported"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporters report of themselves on the way."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

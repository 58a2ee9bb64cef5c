"""Converts users' arrays to the tensors that a learner takes, and its answers back."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaloom.learners.base import Adapted
from metaloom.learners.episode import Support, TaskShape
from metaloom.learners.networks.tokens import token_count
from metaloom.learners.solvers.base import TRANSDUCTIVE
from metaloom.learners.tensors import Tensors
from metaloom.workers.adapted_files import write_adapted
from metaloom.workers.class_rows import read_classes
from metaloom.workers.device import Device
from metaloom.workers.errors import BundleError
from metaloom.workers.input_form import InputForm, check_finite, numbers
from metaloom.workers.plain_export import PlainForward, export_plain
from metaloom.workers.setting import Setting
from metaloom.workers.support_labels import as_classes, distinct_labels

_LOG = logging.getLogger("metaloom.bundle")
RISE = 1e-4  # of a loss, relative and absolute, that is more than rounding


@dataclass(frozen=True)
class AdaptedModel:
    """A model adapted to one task.

    Attributes:
        labels: As they were given, in the order of ``probabilities``' columns; empty in regression.
        setting: Whether a prediction depends on the other queries of its batch.
    """

    labels: NDArray[Any]
    setting: Setting
    _adapted: Adapted
    _form: InputForm
    _device: Device
    _as_torch: bool
    _given: "GivenSupport"
    _bundle: Path
    _seed: int
    _told: set[str] = field(default_factory=set, compare=False, repr=False)  # warnings, once each

    def __repr__(self) -> str:
        classes = f"labels {', '.join(map(str, self.labels.tolist()))}" if len(self.labels) else self._task.kind
        return f"<adapted model: {classes}; {self.setting}>"

    @property
    def _task(self) -> TaskShape:
        return self._form.task

    def check(self) -> None:
        """Warn where the support set's loss rose in adaptation; raises BundleError where it is not finite any more."""
        losses: tuple[float, ...] = getattr(self._adapted, "losses", ())  # a package of 0.2 has none
        if not losses:
            return
        before, after = losses
        change = f"the loss of the support set went from {before:.4g} to {after:.4g} in the inner steps"
        advice = "this task may be unlike those of training, in other units, or have other labels"
        if not math.isfinite(after):
            raise BundleError(f"adapt: {change}: the adaptation diverged, so that no prediction is given; {advice}")
        if after > before * (1 + RISE) + RISE:
            _LOG.warning(
                "%s: the adaptation has not learned this task, and its predictions mean little; %s", change, advice
            )

    def predict(self, query_x: Any) -> Any:
        """Return the queries' labels [queries], as given in the support set, or targets; raises BundleError.

        The result is a torch tensor if ``adapt`` was given torch tensors (labels that are no numbers are always numpy),
        otherwise a numpy array. Targets are [queries] if the support set's were flat, otherwise [queries, targets].
        """
        out = self._run(query_x)
        if self._task.task_kind.has_classes:
            chosen = self.labels[out.argmax(1).cpu().numpy()]
            return torch.as_tensor(chosen) if self._as_torch and chosen.dtype.kind in "iufb" else chosen
        out = in_target_units(out, self._task)
        out = out[:, 0] if self._given.flat else out
        return out if self._as_torch else out.cpu().numpy()

    def probabilities(self, query_x: Any) -> Any:
        """Return the classes' probabilities [queries, ways], in the order of ``labels``; raises BundleError."""
        if not self._task.task_kind.has_classes:
            raise BundleError(f"probabilities: a {self._task.kind} task has none; use predict")
        out = self._run(query_x)
        return out if self._as_torch else out.cpu().numpy()

    def save(self, folder: str | Path) -> Path:
        """Write the adapted model as a folder, which ``load_adapted`` opens, and return it.

        The folder holds the support set. Raises BundleError if it exists, or its labels are neither texts nor numbers;
        StorageError if it cannot be written.
        """
        given = self._given
        facts = {"seed": self._seed, "flat": given.flat, "divisor": given.form.divisor, "as_torch": self._as_torch}
        return write_adapted(Path(folder), self._bundle, given.support.tensors(), self.labels, facts)

    def export(self, path: str | Path) -> Path:
        """Write the forward pass after adaptation, for programs without Metaloom, and return the file.

        It takes raw ``x`` [queries, *inputs] in float32 (images in [0, 1], a table's features in their own units), and
        gives ``answers`` (probabilities in the order of ``labels``, or targets) and ``is_finite`` [queries]. The labels
        are in it as JSON. It is run on another batch than it was traced with, and compared with this model.

        Args:
            path: ``.onnx`` (with the extra ``metaloom[onnx]``), or ``.pt2``, a program of ``torch.export``.

        Raises:
            BundleError: Its answers depend on the other queries, or what was exported does not agree.
            ExtraMissing: A package for ONNX is not installed.
        """
        if self.setting.name == TRANSDUCTIVE:
            raise BundleError(
                f"{path}: this model's answers depend on all queries together, which no exported file can repeat; "
                "export the trial with --inductive first"
            )
        if self._device.torch.type != "cpu":
            raise BundleError(f"{path}: this model is on {self._device.torch}; open the bundle with device='cpu'")
        forward, tensors = self._adapted.plain()

        def answers(given: Tensors, x: Tensor) -> Tensor:
            return self._in_units(self._own(forward(given, self._form.standardized(x).to(self._device.dtype)))).float()

        support, text = self._form.raw(self._given.support.x), self._task.columns if token_count(self._task) else ()
        examples = support if len(support) else torch.rand(4, *self._task.inputs)
        facts = {"labels": self.labels.tolist(), "kind": self._task.kind, "setting": str(self.setting)}
        return export_plain(
            Path(path),
            PlainForward(answers, tensors),
            lambda x: self._in_units(self._run(x.floor() if text else x)).float(),  # as a network reads token numbers
            examples,
            facts | {"inputs": list(self._task.inputs), "features": list(self._task.features), "text": list(text)},
        )

    def _own(self, out: Tensor) -> Tensor:
        """Return the probabilities of this task's classes alone, where the head also has others."""
        if not self._task.task_kind.has_classes or out.shape[1] == len(self.labels):
            return out
        own = out[:, : len(self.labels)]
        return own / own.sum(1, keepdim=True)

    def _in_units(self, out: Tensor) -> Tensor:
        return out if self._task.task_kind.has_classes else in_target_units(out, self._task)

    def _run(self, query_x: Any) -> Tensor:
        given, _ = self._form.read(query_x, "query_x")
        if (warning := self.setting.warning(len(given))) and warning not in self._told:
            self._told.add(warning)
            _LOG.warning("%s", warning)
        inputs = given.to(self._device.torch, self._device.dtype)
        with self._device.precision():
            out = self._adapted.predict(inputs).detach()
        out = self._own(out)
        if not bool(torch.isfinite(out).all()):
            rows = int((~torch.isfinite(out)).flatten(1).any(1).sum())
            raise BundleError(
                f"query_x: the outputs of {rows} of {len(out)} queries are not finite: the adaptation diverged, or the "
                "queries lie far outside of what the learner was trained on"
            )
        return out


@dataclass(frozen=True)
class GivenSupport:
    """A support set on the CPU, in the precision that it was given in.

    ``labels`` are as they were given, in the order of their numbers; ``form`` is that of its queries; ``flat`` says
    whether targets were given flat.
    """

    support: Support
    labels: NDArray[Any]
    form: InputForm
    flat: bool = False


def read_support(
    support_x: Any,
    support_y: Any,
    class_features: Any,
    unlabelled: Any,
    form: InputForm,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> GivenSupport:
    """Convert users' arrays to a support set; raises BundleError for arrays that do not fit.

    ``settings`` says how the classes of training were described.
    """
    classes = None if class_features is None else read_classes(class_features, form.task.class_features, settings)
    given = _labelled(support_x, support_y, classes, form)
    if unlabelled is None:
        return given
    others, _ = given.form.read(unlabelled, "unlabelled")
    return replace(given, support=replace(given.support, unlabelled=others))


def _labelled(
    support_x: Any, support_y: Any, classes: tuple[Tensor, NDArray[Any]] | None, form: InputForm
) -> GivenSupport:
    task, features = form.task, None if classes is None else classes[0]
    if support_x is None and support_y is None and classes is not None:
        empty = Support(torch.zeros(0, *task.inputs), torch.zeros(0, dtype=torch.int64), features)
        return GivenSupport(empty, classes[1], form)
    if support_x is None or support_y is None:
        raise BundleError("adapt: give support_x and support_y, or class_features alone")
    inputs, form = form.read(support_x, "support_x")
    form.tell_units(inputs, "support_x")
    if not task.task_kind.has_classes:
        targets, flat = _targets(support_y, len(inputs), task)
        return GivenSupport(Support(inputs, targets, features), np.empty(0), form, flat)
    labels, numbered = as_classes(*distinct_labels(support_y, len(inputs)), task.class_names)
    if features is not None and len(features) != len(labels):
        raise BundleError(f"class_features: got {len(features)} rows for {len(labels)} classes; give one row each")
    return GivenSupport(Support(inputs, numbered, features), labels, form)


def _targets(given: Any, rows: int, task: TaskShape) -> tuple[Tensor, bool]:
    """Return regression targets [rows, targets], and whether they were given flat; raises BundleError."""
    tensor = _real(given, "support_y")
    flat = tensor.ndim == 1 and task.targets == 1
    tensor = tensor[:, None] if flat else tensor
    if tuple(tensor.shape) != (rows, task.targets):
        what = f" ({', '.join(task.parameters)})" if task.parameters else ""
        wanted = f"{rows} examples need [{rows}, {task.targets}]{what}"
        raise BundleError(f"support_y: got shape {tuple(tensor.shape)}; {wanted}")
    check_finite(tensor, "support_y")
    if task.target_deviation:  # in float64, as the training targets were standardized
        mean, deviation = (torch.tensor(one, dtype=torch.float64) for one in (task.target_mean, task.target_deviation))
        tensor = ((tensor.double() - mean) / deviation).to(tensor.dtype)
    return tensor, flat


def in_target_units(outputs: Tensor, task: TaskShape) -> Tensor:
    """Return outputs [n, targets] in the units of the targets, where a learner was trained on standardized ones."""
    if not task.target_deviation:
        return outputs
    mean, deviation = (torch.tensor(one).to(outputs) for one in (task.target_mean, task.target_deviation))
    return outputs * deviation + mean


def _real(given: Any, name: str) -> Tensor:
    """Return numbers as a floating-point tensor; raises BundleError for anything else."""
    tensor = numbers(given, name)
    return tensor if tensor.is_floating_point() else tensor.to(torch.float32)

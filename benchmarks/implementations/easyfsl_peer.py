"""easyfsl 1.5.0: Bennequin et al., https://github.com/sicara/easy-few-shot-learning; PT-MAP, an episode at a time.

Its package of methods imports torchvision, for networks that PT-MAP does not use: the one module is imported alone.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


def pt_map_class() -> Any:
    """Return easyfsl's PT-MAP; raises ModuleNotFoundError if the package is not installed."""
    spec = find_spec("easyfsl")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("easyfsl is missing; `make bench` brings it", name="easyfsl")
    if "easyfsl.methods" not in sys.modules:
        methods = ModuleType("easyfsl.methods")
        methods.__path__ = [str(Path(spec.origin).parent / "methods")]
        sys.modules["easyfsl.methods"] = methods
    return import_module("easyfsl.methods.pt_map").PTMAP


@torch.no_grad()
def assignments(support: Tensor, labels: Tensor, queries: Tensor, *, scale: float, rate: float, epochs: int) -> Tensor:
    """Return its assignments [e, q, ways], one episode after the other."""
    method = pt_map_class()(fine_tuning_steps=epochs, fine_tuning_lr=rate, lambda_regularization=scale)
    plans = []
    for own, asked in zip(support, queries, strict=True):
        method.process_support_set(own, labels)
        plans.append(method(asked))
    return torch.stack(plans)

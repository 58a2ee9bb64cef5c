"""An exported augmentation policy: a readable JSON file, and a function that applies it to a batch of images.

    from metaloom import load_policy

    vary = load_policy("default-bundle")        # a bundle, or its augmentation.json alone
    more = vary(images, seed=0)                 # numpy or torch, 8-bit or real

Needs torch and numpy; neither Ray, nor MLflow, nor the learner it comes from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from metaloom.learners.build import SLOTS, fill_slot
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.augmentation import Augmentation, Policy, apply_policies, from_document, to_document
from metaloom.learners.state import knowledge_of
from metaloom.learners.tensors import Tensors
from metaloom.workers.durable import write_text
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import FIRST_SEEDS_VERSION, SEEDS_VERSION
from metaloom.workers.seeds import derive_generator

POLICY_FILE = "augmentation.json"


def policies_of(learner: Mapping[str, Any], task: TaskShape, phi: Tensors) -> tuple[Policy, ...]:
    """Return the policies that a resolved learner section applies to training images; empty if none."""
    filled = fill_slot(SLOTS["augmentation"], learner.get("augmentation") or {}, {}, task)
    return cast(Augmentation, filled).policies(knowledge_of(phi, "augmentation"))


def write_policy(path: Path, policies: tuple[Policy, ...], *, seeds: int = SEEDS_VERSION) -> None:
    """Write policies, in the order of their application, as JSON with a sentence for each magnitude."""
    write_text(path, json.dumps({**to_document(policies), "seeds": seeds}, indent=1) + "\n")


def load_policy(path: str | Path) -> "ImagePolicy":
    """Open an exported policy, from a bundle's folder or a policy file; raises BundleError."""
    file = Path(path) / POLICY_FILE if Path(path).is_dir() else Path(path)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise LearnerError("policy: it is no mapping")
        seeds = int(document.pop("seeds", FIRST_SEEDS_VERSION))
        return ImagePolicy(from_document(document), seeds)
    except (OSError, ValueError, LearnerError) as problem:
        raise BundleError(f"{file}: no augmentation policy can be read from it ({problem})") from problem


@dataclass(frozen=True)
class ImagePolicy:
    """Policies that are applied one after another, with generators of the derivation ``seeds``."""

    policies: tuple[Policy, ...]
    seeds: int = SEEDS_VERSION

    def rows(self) -> list[dict[str, Any]]:
        """Return them as a table, one row per operation."""
        return [{"policy": number, **row} for number, one in enumerate(self.policies, 1) for row in one.rows()]

    def __call__(self, images: Any, *, seed: int = 0) -> Any:
        """Vary a batch of images; every image draws its own sub-policy, and equal seeds give equal images.

        Args:
            images: [n, height, width] or [n, channels, height, width], numpy or torch; 8-bit integers (0 to 255) or
                floating-point numbers in [0, 1] (else a BundleError). The result has the same shape, type and range.
            seed: Of the draws.
        """
        given = images if isinstance(images, Tensor) else torch.from_numpy(np.asarray(images))
        if given.ndim not in (3, 4) or len(given) == 0:
            shape = tuple(given.shape)
            raise BundleError(f"images: [n, height, width] or [n, channels, height, width] expected, got {shape}")
        scale = 1.0 if given.is_floating_point() else 255.0
        x = given.to(given.dtype if given.is_floating_point() else torch.float32) / scale
        if not bool(((x >= 0) & (x <= 1)).all()):
            raise BundleError(f"images: values from 0 to {scale:.0f} expected, got {given.min()} to {given.max()}")
        x = x.unsqueeze(1) if given.ndim == 3 else x
        with torch.no_grad():
            x = apply_policies(self.policies, x, derive_generator(seed, "augmentation", version=self.seeds))
        out = x.clamp(0, 1).reshape(given.shape) * scale
        out = out if given.is_floating_point() else out.round().to(given.dtype)
        return out if isinstance(images, Tensor) else out.numpy()

#!/usr/bin/env bash
# easyfsl 1.5.0: PTMAP returns NaN for features of a ReLU network of usual width.
#
# Behaviour: PTMAP takes the power transform of the features, and then exp(-10 d^2) of their squared distances to the
#   class means. It leaves out the projection on the unit sphere that follows the power transform in the paper. For 640
#   features d^2 is far above 10 also if `feature_normalization=2` scales the features before the transform; the
#   exponential is 0 for every query and class, its sum is 0, and the transport plan is 0 / 0.
# Right value: assignments that sum to 1 for each query. Hu, Gripon and Pateux, 2021, https://arxiv.org/abs/2006.03806,
#   equation 1: f = (v + epsilon)^beta / |(v + epsilon)^beta|.
# Seen: NaN without and with `feature_normalization=2`; finite assignments for features whose transform has unit length.
# This script fails if that changes. Its package of methods imports torchvision; this one module does not.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-deps easyfsl==1.5.0
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib import metadata, util
from pathlib import Path
from types import ModuleType

import torch

methods = ModuleType("easyfsl.methods")
methods.__path__ = [str(Path(util.find_spec("easyfsl").origin).parent / "methods")]
sys.modules["easyfsl.methods"] = methods
from easyfsl.methods.pt_map import PTMAP

generator = torch.Generator().manual_seed(0)
centres = torch.randn(5, 1, 640, generator=generator)
x = (0.25 * centres + torch.randn(5, 16, 640, generator=generator)).relu()


def plan(features: torch.Tensor, **settings: object) -> torch.Tensor:
    method = PTMAP(**settings)
    method.process_support_set(features[:, 0], torch.arange(5))
    return method(features[:, 1:].flatten(0, 1))


plain, scaled = plan(x), plan(x, feature_normalization=2)
unit = plan(torch.nn.functional.normalize(x.sqrt(), dim=-1).square())  # its square root has unit length
print("torch", torch.__version__, "easyfsl", metadata.version("easyfsl"))
print("NaN:", bool(plain.isnan().all()), "NaN at unit length before the transform:", bool(scaled.isnan().all()))
print("sums at unit length after it:", [round(float(one), 3) for one in unit.sum(1)[:3]], "(right: 1)")
assert plain.isnan().all() and scaled.isnan().all(), "the behaviour has changed"
assert torch.isfinite(unit).all(), "the behaviour has changed"
PY

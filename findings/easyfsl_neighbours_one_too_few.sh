#!/usr/bin/env bash
# easyfsl 1.5.0: k_nearest_neighbours returns k - 1 neighbours, and a point itself where features are equal.
#
# Behaviour: `k_nearest_neighbours(features, k)` takes the k smallest distances of each point, its own among them, and
#   drops the first. So k = 3 gives two neighbours. Of points with equal features the first is not always the point
#   itself, which then is its own neighbour. LaplacianShot builds its affinities from it, with `knn` neighbours as k.
# Right value: [n, k] indices without the point itself. The docstring says "Compute k nearest neighbours of each feature
#   vector, not included itself" and "Returns: Tensor: shape (n_features, k)" (easyfsl/methods/utils.py).
# Seen: "shape: [4, 2]" and "its own neighbour: [True, False, False, True]".
# This script fails if that changes. Its package imports torchvision; this one file of it does not.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-deps easyfsl==1.5.0
"$folder/venv/bin/python" - <<'PY'
from importlib import metadata, util
from pathlib import Path

import torch

place = Path(util.find_spec("easyfsl").origin).parent / "methods" / "utils.py"
spec = util.spec_from_file_location("easyfsl_utils", place)
utils = util.module_from_spec(spec)
spec.loader.exec_module(utils)

apart = utils.k_nearest_neighbours(torch.tensor([[0.0, 0.0], [1.0, 1.0], [10.0, 10.0], [11.0, 11.0]]), 3)
equal = utils.k_nearest_neighbours(torch.zeros(4, 2), 3)
own = (equal == torch.arange(4)[:, None]).any(1).tolist()
print("torch", torch.__version__, "easyfsl", metadata.version("easyfsl"))
print("shape:", list(apart.shape), "(right: [4, 3])", "its own neighbour:", own, "(right: all False)")
assert apart.shape == (4, 2), "the behaviour has changed"
assert any(own), "the behaviour has changed"
PY

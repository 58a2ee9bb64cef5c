#!/usr/bin/env bash
# easyfsl 1.5.0: compute_prototypes gives NaN for a label without examples, and none at all for the last label.
#
# Behaviour: `compute_prototypes(features, labels)` counts the different labels, and then averages the examples of the
#   labels 0, 1, ... up to that count. With the labels 0 and 2 it returns two rows: the mean of label 0, and NaN, the mean
#   of the label 1 that no example has. The mean of label 2 is missing, and no error is raised. Every distance to the
#   second prototype is NaN. PrototypicalNetworks, SimpleShot and others take their prototypes from it.
# Right value: the means of the labels 0 and 2. The function's docstring promises "for each label of the support set, the
#   average feature vector of instances with this label" (easyfsl/methods/utils.py).
# Seen: "rows: [[0.5, 0.5], [nan, nan]]".
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

features = torch.tensor([[0.0, 0.0], [1.0, 1.0], [10.0, 10.0], [11.0, 11.0]])
found = utils.compute_prototypes(features, torch.tensor([0, 0, 2, 2]))
print("torch", torch.__version__, "easyfsl", metadata.version("easyfsl"))
print("rows:", found.tolist(), "(right: [[0.5, 0.5], [10.5, 10.5]])")
assert found.shape == (2, 2), "the behaviour has changed"
assert found[0].tolist() == [0.5, 0.5]
assert found[1].isnan().all(), "the behaviour has changed"
PY

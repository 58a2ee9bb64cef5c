"""Lets the suites over the registries use the bilevel problems of tests/learners and the toys of tests/orchestrator."""

import os
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
TOYS = str(HERE.parent / "orchestrator")

sys.path.insert(0, str(HERE.parent / "learners"))
torch.set_num_threads(1)

if TOYS not in sys.path:
    sys.path.insert(0, TOYS)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [TOYS, os.environ.get("PYTHONPATH", "")]))

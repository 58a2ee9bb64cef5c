"""Lets the suites over the registries use their rows, and the examples of tests/learners and tests/orchestrator."""

import os
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
TOYS = str(HERE.parent / "orchestrator")

sys.path[:0] = [str(HERE), str(HERE.parent / "learners")]
torch.set_num_threads(1)

if TOYS not in sys.path:
    sys.path.insert(0, TOYS)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [TOYS, os.environ.get("PYTHONPATH", "")]))

"""Lets the suites over the registries use the bilevel problems of tests/learners."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "learners"))
torch.set_num_threads(1)

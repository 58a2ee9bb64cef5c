#!/usr/bin/env bash
# torch 2.13.0: torch.func.functional_call leaves the given tensors in a module that lists one layer twice.
#
# Behaviour: a call of `functional_call` on `Sequential(layer, Tanh(), layer)`, with one tensor for each name of
#   `named_parameters()`, ends with the given tensors in the module. `layer.weight` is then a plain tensor and no
#   Parameter, the module computes something else from then on, and an optimizer that holds the old Parameters trains
#   nothing. One call is enough, and no error is raised. A layer that is used twice but listed once is restored.
# Right value: the call is functional; the module is as it was
#   (https://docs.pytorch.org/docs/stable/generated/torch.func.functional_call.html: its example prints the module's own
#   values unchanged after the call, also for tied weights).
# Seen: "unchanged outputs: False own Parameters: False".
# This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from torch.func import functional_call

torch.manual_seed(0)
x = torch.randn(1, 2)


class Once(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(self.layer(x).tanh())


def after_a_call(module):
    before, own = module(x), list(module.parameters())
    weights = {name: value.detach() + 1.0 for name, value in module.named_parameters()}
    functional_call(module, weights, (x,))
    kept = all(one is other for one, other in zip(own, module.parameters(), strict=True))
    return torch.equal(before, module(x)), kept


layer = torch.nn.Linear(2, 2)
twice = after_a_call(torch.nn.Sequential(layer, torch.nn.Tanh(), layer))
once = after_a_call(Once())
print("torch", torch.__version__)
print("listed twice: unchanged outputs:", twice[0], "own Parameters:", twice[1], "(right: True True)")
print("listed once:  unchanged outputs:", once[0], "own Parameters:", once[1])
assert twice == (False, False), "the behaviour has changed"
assert once == (True, True)
PY

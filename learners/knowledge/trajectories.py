r"""Trajectories of a policy, the probabilities of their actions, and the advantages of these over a baseline.

Actions are continuous, a_t = mu(s_t) + sigma e_t with e_t from N(0, 1), or one of several by their logits,
a_t = argmax(logits(s_t) + g_t) with g_t from Gumbel's distribution. Either way the noise is drawn beforehand. With

    R_t = sum_{k >= t} gamma^(k - t) r_k,    A_t = R_t - b_t

the baseline b_t is the mean of R_t over the trajectories, or a linear function of features of state and time, fitted to
R_t by ridge regression (Duan et al., 2016, https://arxiv.org/abs/1604.06778, supplement 2):

    f(s, t) = (s, s^2, tau, tau^2, tau^3, 1),  tau = t / H,    w = (F' F / N + ridge I)^-1 F' R / N

with each feature divided by its root mean square.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_SPREAD = 1e-8  # of advantages that are divided by it


class Trajectories(NamedTuple):
    """n trajectories of H steps."""

    states: Tensor  # [n, H + 1, states], the start first
    actions: Tensor  # [n, H, actions]
    rewards: Tensor  # [n, H], true ones, 0 after a trajectory's end
    active: Tensor | None = None  # [n, H], 1 up to a trajectory's last step and 0 after it; None where none ends early
    log_probabilities: Tensor | None = None  # [n, H], of the actions under the policy that took them

    def mean_of(self, values: Tensor) -> Tensor:
        """Return the mean over all H steps of values [n, H], which count as 0 after the end: [n]."""
        return (values if self.active is None else values * self.active).mean(-1)


def action_of(outputs: Tensor, noise: Tensor | None, deviation: float | Tensor, *, discrete: bool) -> Tensor:
    """Return the actions [n, actions] of a policy's outputs [n, actions], by this noise, or without exploring."""
    if discrete:
        scores = outputs if noise is None else outputs + noise
        return F.one_hot(scores.argmax(-1), outputs.shape[-1]).to(outputs.dtype)
    return outputs if noise is None else outputs + deviation * noise


def log_probability(outputs: Tensor, actions: Tensor, deviation: float | Tensor, *, discrete: bool) -> Tensor:
    """Return the logarithm of the actions' probability or density [n, H]; of a density without its constants."""
    if discrete:
        return (F.log_softmax(outputs, -1) * actions).sum(-1)
    density = -(0.5 * ((actions - outputs) / deviation).square().sum(-1))
    return density - outputs.shape[-1] * deviation.log() if isinstance(deviation, Tensor) else density


def returns_to_go(rewards: Tensor, discount: float) -> Tensor:
    """Return R_t, [n, H]."""
    steps = torch.arange(rewards.shape[1], device=rewards.device)
    later = steps[None, :] - steps[:, None]
    powers = torch.where(later >= 0, discount ** later.clamp_min(0).to(rewards.dtype), 0.0)
    return rewards @ powers.T.to(rewards)


def mean_baseline(to_go: Tensor, active: Tensor | None) -> Tensor:
    """Return the mean of R_t over the trajectories that still run at t: [H]."""
    if active is None:
        return to_go.mean(0)
    return (to_go * active).sum(0) / active.sum(0).clamp_min(1)


def linear_baseline(path: Trajectories, to_go: Tensor, ridge: float) -> Tensor:
    """Return the linear fit of R_t at each step: [n, H].

    In float64 and with features of one size, so that the ridge holds for trajectories that are one line, or far away.
    """
    states = path.states[:, :-1]
    time = torch.arange(to_go.shape[1], device=to_go.device).to(to_go) / to_go.shape[1]
    powers = torch.stack([time, time**2, time**3, torch.ones_like(time)], -1)
    features = torch.cat([states, states.square(), powers.expand(len(states), -1, -1)], -1)
    rows = (features if path.active is None else features * path.active[..., None]).flatten(0, 1).double()
    rows = rows / (rows.square().mean(0) + LEAST_SPREAD**2).sqrt()
    gram = rows.T @ rows / len(rows) + ridge * torch.eye(rows.shape[1]).to(rows)
    weights = torch.linalg.solve(gram, rows.T @ to_go.flatten()[:, None].double() / len(rows))
    fitted: Tensor = rows @ weights
    return fitted.view_as(to_go).to(to_go.dtype)


def standardized(advantages: Tensor, active: Tensor | None) -> Tensor:
    """Return advantages [n, H] with mean 0 and deviation 1 over all steps that count."""
    counted = torch.ones_like(advantages) if active is None else active
    total = counted.sum().clamp_min(1)
    centred = advantages - (advantages * counted).sum() / total
    spread = ((centred.square() * counted).sum() / total + LEAST_SPREAD**2).sqrt()
    return centred / spread

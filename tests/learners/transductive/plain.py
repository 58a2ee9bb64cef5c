"""The transductive heads written out in plain torch, one episode and mostly one example at a time.

Each takes the features of a support set [s, d], its labels [s], the features of the queries [q, d] and the number of
classes, and returns the queries' scores [q, ways], as the papers have them.
"""

import math

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def prepared(support: Tensor, queries: Tensor, power: float = 0.5, *, qr: bool = True) -> tuple[Tensor, Tensor]:
    """Power transform, QR reduction, unit length, centre apart, unit length: in the order of Hu et al.'s code."""
    x = torch.cat([support, queries])
    x = (x + 1e-6) ** power if power != 1 else x
    # [n, min(n, d)]; its derivative is less exact than that of the features themselves
    reduced = unit(torch.linalg.qr(x.T, mode="reduced")[1].T if qr else x)
    s = len(support)
    return unit(reduced[:s] - reduced[:s].mean(0)), unit(reduced[s:] - reduced[s:].mean(0))


def sinkhorn(kernel: Tensor, rows: Tensor, columns: Tensor, tolerance: float = 1e-6, most: int = 1000) -> Tensor:
    plan, before = kernel / kernel.sum(), torch.zeros(len(rows), dtype=kernel.dtype)
    for _ in range(most):
        if float((before - plan.sum(1)).detach().abs().max()) <= tolerance:
            break
        before = plan.sum(1)
        plan = plan * (rows / before)[:, None]
        plan = plan * (columns / plan.sum(0))[None, :]
    return plan


def pt_map(support: Tensor, labels: Tensor, queries: Tensor, ways: int, *, scale: float, rate: float) -> Tensor:
    support, queries = prepared(support, queries)
    centres = torch.stack([support[labels == c].mean(0) for c in range(ways)])
    each, many = torch.ones(len(queries)).double(), torch.full((ways,), len(queries) / ways).double()

    def assigned() -> Tensor:
        distances = torch.stack([(queries - centre).square().sum(-1) for centre in centres], 1)
        return sinkhorn(torch.exp(-scale * distances), each, many)

    for _ in range(20):
        plan = assigned()
        moved = []
        for c in range(ways):
            total = support[labels == c].sum(0) + (plan[:, c, None] * queries).sum(0)
            moved.append(centres[c] + rate * (total / ((labels == c).sum() + plan[:, c].sum()) - centres[c]))
        centres = torch.stack(moved)
    return assigned().log()


def spread(weights: Tensor, damping: float) -> Tensor:
    degrees = weights.sum(1)
    normal = torch.stack(
        [
            torch.stack([w / (degrees[i] * degrees[j]).sqrt() for j, w in enumerate(row)])
            for i, row in enumerate(weights)
        ]
    )
    return torch.linalg.inv(torch.eye(len(weights), dtype=weights.dtype) - damping * normal)


def gaussian(x: Tensor) -> Tensor:
    n = len(x)
    distances = torch.stack([torch.stack([(a - b).square().sum() for b in x]) for a in x])
    apart = ~torch.eye(n, dtype=torch.bool)
    weights = torch.exp(-distances / distances[apart].std())
    return weights * apart


def epnet(support: Tensor, labels: Tensor, queries: Tensor, ways: int, *, smoothing: float, spreading: float) -> Tensor:
    x = torch.cat([support, queries])
    smooth = spread(gaussian(x), smoothing) @ x
    known = torch.zeros(len(x), ways, dtype=x.dtype)
    known[: len(support)] = torch.nn.functional.one_hot(labels, ways).to(x.dtype)
    return torch.log((spread(gaussian(smooth), spreading) @ known)[len(support) :] + 1e-6)


def soft_k_means(
    support: Tensor, labels: Tensor, others: Tensor, queries: Tensor, ways: int, temperature: float
) -> Tensor:
    means = torch.stack([support[labels == c].mean(0) for c in range(ways)])
    shares = torch.stack([torch.softmax(-(means - x).square().sum(-1) / temperature, 0) for x in others])
    moved = []
    for c in range(ways):
        total = support[labels == c].sum(0) + sum(shares[j, c] * others[j] for j in range(len(others)))
        moved.append(total / ((labels == c).sum() + shares[:, c].sum()))
    return torch.stack([torch.stack([-(q - m).square().sum() / temperature for m in moved]) for q in queries])


def laplacian_shot(
    support: Tensor, labels: Tensor, queries: Tensor, ways: int, *, smoothness: float, neighbours: int
) -> Tensor:
    support, queries = unit(support), unit(queries)
    queries = queries + support.mean(0) - queries.mean(0)
    means = unit(torch.stack([support[labels == c].mean(0) for c in range(ways)]))
    cosines = unit(queries) @ means.T
    guesses = cosines.argmax(1)
    rectified = []
    for c in range(ways):
        members = torch.cat([support[labels == c], queries[guesses == c]])
        weights = torch.softmax(10 * unit(members) @ means[c], 0)
        rectified.append((weights[:, None] * members).sum(0))
    distances = torch.stack([torch.stack([(q - m).square().sum() for m in rectified]) for q in queries])
    near = []
    for i, q in enumerate(queries):
        order = (queries - q).square().sum(-1).argsort()
        near.append([int(j) for j in order if j != i][:neighbours])
    shares = torch.softmax(-distances, 1)
    for _ in range(20):
        drawn = torch.stack([sum((shares[j] for j in of), torch.zeros(ways).double()) for of in near])
        shares = torch.softmax(-distances + smoothness * drawn, 1)
    return shares.log()


def ica_msp(
    support: Tensor,
    labels: Tensor,
    queries: Tensor,
    ways: int,
    *,
    dimensions: int,
    scale: float,
    turned: Tensor | None = None,
) -> Tensor:
    """Whitened principal components from the covariance of the features, turned by an orthogonal matrix if given."""
    support, queries = prepared(support, queries, power=1)
    x = torch.cat([support, queries])
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    x = x @ vectors[:, -dimensions:] / values[-dimensions:].sqrt()
    x = unit(x if turned is None else x @ turned)
    support, queries = x[: len(support)], x[len(support) :]
    extra: list[list[int]] = [[] for _ in range(ways)]
    logits = torch.empty(0)
    for _ in range(5):
        means = [torch.cat([support[labels == c], queries[extra[c]]]).mean(0) for c in range(ways)]
        logits = torch.stack([torch.stack([-scale * (q - m).square().sum() for m in means]) for q in queries])
        chances, best = torch.softmax(logits, 1).max(1)
        sure = [[i for i in range(len(queries)) if best[i] == c and chances[i] > 0.3] for c in range(ways)]
        fewest = min(len(one) for one in sure)
        extra = [sorted(one, key=lambda i: -float(chances[i].detach()))[:fewest] for one in sure]
    return logits


def local(x: Tensor, neighbours: int) -> Tensor:
    n = len(x)
    weights = torch.zeros(n, n, dtype=x.dtype)
    rows = []
    for i in range(n):
        distances = (x - x[i]).square().sum(-1)
        near = [int(j) for j in distances.argsort() if j != i][:neighbours]
        kept = torch.zeros(n, dtype=x.dtype)
        kept[near] = 1
        rows.append(torch.exp(-4 * distances / distances[near[-1]]) * kept)
    weights = torch.stack(rows)
    return (weights + weights.T) / 2


def ptn(support: Tensor, labels: Tensor, queries: Tensor, ways: int, *, neighbours: int, rounds: int) -> Tensor:
    support, queries = prepared(support, queries, qr=False)
    x, s = torch.cat([support, queries]), len(support)
    weights = local(x, neighbours)
    degrees = weights.sum(1)
    laplacian = torch.diag(degrees) - weights
    known = torch.nn.functional.one_hot(labels, ways).to(x.dtype)
    source = torch.zeros(len(x), ways, dtype=x.dtype)
    source[:s] = known - known.mean(0)
    u = torch.zeros_like(source)
    for _ in range(100):
        u = u + torch.diag(1 / degrees) @ (source - laplacian @ u)
    sizes = (known.sum(0) + len(queries) / ways) / len(x)
    for index in range(rounds):
        if index:
            u = torch.nn.functional.one_hot(u.argmax(1), ways).to(x.dtype)
        for _ in range(40):
            u = u - (laplacian @ u - source) / degrees.max()
        factors = torch.ones(ways, dtype=x.dtype)
        for _ in range(100):
            counts = torch.bincount((u * factors).argmax(1), minlength=ways).to(x.dtype) / len(x)
            factors = (factors + 10 * (sizes - counts)).clamp(0.5, 2)
        u = u * factors
    return 10 * u[s:]


def ilpc(support: Tensor, labels: Tensor, queries: Tensor, ways: int, *, neighbours: int, best: int) -> Tensor:
    """Return the labels of the queries, guessed in rounds, the graph being made again in each."""
    support, queries = prepared(support, queries)
    left, answers, y = list(range(len(queries))), torch.full((len(queries),), -1), labels.clone()
    quota = torch.full((ways,), len(queries) / ways, dtype=support.dtype)
    first, known = support, labels
    while left:
        x, s = torch.cat([first, queries[left]]), len(first)
        products = x @ x.T
        products.fill_diagonal_(-1)
        weights = torch.zeros_like(products)
        for i, row in enumerate(products):
            near = row.argsort(descending=True)[:neighbours]
            weights[i, near] = row[near].clamp_min(0) ** 3
        weights = weights + weights.T
        targets = torch.zeros(len(x), ways, dtype=x.dtype)
        targets[torch.arange(s), y] = 1
        z = (spread(weights, 0.8) @ targets)[s:].clamp_min(1e-12)
        z = z / z.sum(1, keepdim=True)
        plan = sinkhorn(z**3, torch.ones(len(left)).double(), quota * len(left) / quota.sum(), 1e-6)
        guesses = plan.argmax(1)
        losses = trained_losses(x, torch.cat([y, guesses]), first_means(first, known, labels), ways)[s:]
        kept = []
        for c in range(ways):
            mine = [i for i in range(len(left)) if guesses[i] == c]
            kept += sorted(mine, key=lambda i: float(losses[i]))[:best]
        if len(kept) < ways:
            kept = list(range(len(left)))
        for i in kept:
            answers[left[i]] = guesses[i]
            quota[guesses[i]] -= 1
        y = torch.cat([y, guesses[kept]])
        first = torch.cat([first, queries[[left[i] for i in kept]]])
        left = [query for i, query in enumerate(left) if i not in kept]
        quota = quota.clamp_min(0) + 1e-12
    return answers


def first_means(first: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    support = first[: len(labels)]
    return unit(torch.stack([support[labels == c].mean(0) for c in range(int(labels.max()) + 1)]))


def trained_losses(x: Tensor, y: Tensor, start: Tensor, ways: int) -> Tensor:
    weights, bias = torch.nn.Parameter(start.clone()), torch.nn.Parameter(torch.zeros(ways, dtype=x.dtype))
    optimizer = torch.optim.SGD([weights, bias], lr=0.1, momentum=0.9, weight_decay=5e-4)
    total = torch.zeros(len(x), dtype=x.dtype)
    for _ in range(50):
        losses = torch.nn.functional.cross_entropy(x @ weights.T + bias, y, reduction="none")
        total += losses.detach() / 50
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    return total


def oblique_manifold(
    support: Tensor, labels: Tensor, queries: Tensor, ways: int, *, anchors: int, scale: float, steps: int
) -> Tensor:
    """Prototypes and anchors on one sphere, by Riemannian Adam."""
    support, queries = unit(support), unit(queries)
    prototypes = unit(torch.stack([support[labels == c].mean(0) for c in range(ways)]))
    points = [support.mean(0)]
    points += [(anchors - t) * queries.sum(0) + t * support.sum(0) for t in range(1, anchors + 1)]
    tangency = unit(torch.stack(points))
    rates = [(1 - (r := t / anchors) * (2 * r - 1) ** 2 + 0.1) / 1.1 * 0.9 for t in range(anchors + 1)]

    def logarithm(a: Tensor, x: Tensor) -> Tensor:
        cosine = (a * x).sum()
        angle = torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
        return angle / torch.sin(angle) * (x - cosine * a)

    def logits(x: Tensor, of_support: bool, p: Tensor, a: Tensor) -> Tensor:
        rows = []
        for one in x:
            row = []
            for way in range(ways):
                total = torch.zeros((), dtype=x.dtype)
                for t in range(anchors + 1):
                    d = (logarithm(a[t], one) - logarithm(a[t], p[way])).square().sum() / 2
                    total = total + (rates[t] if of_support else 1 - rates[t]) * d
                row.append(-scale * total / sum(rates))
            rows.append(torch.stack(row))
        return torch.stack(rows)

    found = [prototypes, tangency]
    if not torch.is_grad_enabled() or not support.requires_grad:
        found = [one.detach().requires_grad_() for one in found]
    means, squares = ([torch.zeros_like(one) for one in found] for _ in range(2))
    for step in range(1, steps + 1):
        known, chances = logits(support, True, *found), torch.softmax(logits(queries, False, *found), 1)
        mean = chances.mean(0)
        loss = torch.nn.functional.cross_entropy(known, labels)
        loss = loss - (chances * chances.log()).sum(1).mean() + 10 * (mean * mean.log()).sum()
        slopes = torch.autograd.grad(loss, found, create_graph=True)
        rate = 0.1 * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
        for i, slope in enumerate(slopes):
            at = found[i]
            direction = slope - (slope * at).sum(-1, keepdim=True) * at
            means[i] = 0.9 * means[i] + 0.1 * direction
            squares[i] = 0.999 * squares[i] + 0.001 * (direction**2).sum(-1, keepdim=True)
            step_length = rate * (means[i] / (1 - 0.9**step)) / ((squares[i] / (1 - 0.999**step) + 1e-16).sqrt() + 1e-8)
            moved = unit(at - step_length)
            means[i] = means[i] - (means[i] * moved).sum(-1, keepdim=True) * moved
            found[i] = moved
    return logits(queries, False, *found)
